package wire

// Default limits of the protocol. A deployment may change each of them but the last four.
const (
	DefaultFrameBytes        = 64 << 10
	DefaultContentBytes      = 16 << 10
	DefaultMessagesPerMinute = 600
	DefaultMessageBurst      = 300
	DefaultBadFramesAMinute  = 30

	MaxIDChars      = 64  // frame ids, message ids and device names
	MaxDevices      = 16  // remembered devices of one user
	MaxSinceRooms   = 500 // rooms in one join's `since`
	MaxDepth        = 16  // nesting of JSON; the protocol's own frames need 4
	MaxJoinRooms    = 5000
	MaxWatchedUsers = 1000
)
