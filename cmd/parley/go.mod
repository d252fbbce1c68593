module parley/cmd/parley

go 1.26

require (
	parley/pkg v0.0.0
	parley/pkg/testx v0.0.0
	parley/client v0.0.0
	parley/services/gateway v0.0.0
	parley/services/auth v0.0.0
	parley/services/presence v0.0.0
	parley/services/history v0.0.0
)

replace (
	parley/pkg => ../../pkg
	parley/pkg/testx => ../../pkg/testx
	parley/client => ../../client
	parley/services/gateway => ../../services/gateway
	parley/services/auth => ../../services/auth
	parley/services/presence => ../../services/presence
	parley/services/history => ../../services/history
)
