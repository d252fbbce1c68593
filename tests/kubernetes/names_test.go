//go:build kubernetes

package kubernetes

// What the chart calls things.
const (
	account   = "$G"
	keySecret = release + "-token"
	keyName   = "token-key"
	natsUsers = release + "-nats"
	// sessionSeries is what a gateway says of itself.
	sessionSeries = "parley_gateway_sessions"
)
