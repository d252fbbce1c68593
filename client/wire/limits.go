package wire

// Limits of the protocol. They are the same in every deployment, but for the first one: what a server takes is in its welcome. Those that a
// server sets (content, messages a minute) are session.Config of the gateway.
const (
	DefaultFrameBytes = 64 << 10 // largest frame, until the server has said its own limit

	MaxIDChars      = 64  // frame ids, message ids and device names
	MaxSinceRooms   = 500 // rooms in one join's `since`
	MaxDepth        = 16  // nesting of JSON; the protocol's own frames need 4
	MaxJoinRooms    = 5000
	MaxWatchedUsers = 1000
)
