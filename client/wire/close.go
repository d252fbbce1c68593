package wire

// Close is one way in which the server ends a connection. This file has all of them, and none that nothing sends.
type Close struct {
	Code      int
	Reason    string
	Reconnect bool // whether a client should come back by itself, with backoff and full jitter
}

// The ways a connection ends. 1000 to 1015 are those of RFC 6455, section 7.4.1.
var (
	CloseNormal       = Close{1000, "bye", false}
	CloseProtocol     = Close{1002, "protocol error", false}
	CloseNotUTF8      = Close{1007, "not UTF-8", false}
	CloseTooLarge     = Close{1009, "frame too large", false}
	CloseTryLater     = Close{1013, "try again later", true}
	CloseSlow         = Close{4000, "slow consumer", true}
	CloseDraining     = Close{4001, "draining", true}
	CloseNoPong       = Close{4002, "no answer to ping", true}
	CloseRate         = Close{4003, "too many frames", true}
	CloseTooMany      = Close{4004, "too many connections", true}
	CloseNoAuth       = Close{4500, "unauthenticated", false}
	CloseTokenExpired = Close{4501, "token expired", false}
	CloseTokenRevoked = Close{4502, "token revoked", false}
	CloseUserDisabled = Close{4503, "user disabled", false}
	CloseBadFrames    = Close{4504, "too many bad frames", false}
)

// Closes lists them all.
var Closes = []Close{
	CloseNormal, CloseProtocol, CloseNotUTF8, CloseTooLarge,
	CloseTryLater, CloseSlow, CloseDraining, CloseNoPong, CloseRate, CloseTooMany, CloseNoAuth, CloseTokenExpired,
	CloseTokenRevoked, CloseUserDisabled, CloseBadFrames,
}

// ShouldReconnect is the rule for clients, for every code, also those that only a network gives (1006).
func ShouldReconnect(code int) bool {
	switch {
	case code == 1001, code == 1006, code >= 1011 && code <= 1013, code == 1005:
		return true
	case code >= 4000 && code <= 4499:
		return true
	}
	return false
}
