module parley/client

go 1.26

require (
	parley/pkg v0.0.0
)

replace (
	parley/pkg => ../pkg
)
