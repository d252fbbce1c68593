module parley/services/presence

go 1.26

require (
	parley/pkg v0.0.0
	parley/pkg/testx v0.0.0
)

replace (
	parley/pkg => ../../pkg
	parley/pkg/testx => ../../pkg/testx
)
