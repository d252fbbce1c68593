module parley.example/tests/kubernetes

go 1.26.0

require (
	github.com/nats-io/nats.go v1.55.0
	parley.example/client v0.0.0
	parley.example/pkg v0.0.0
	parley.example/tests/chaos v0.0.0
)

require (
	github.com/golang-jwt/jwt/v5 v5.3.1 // indirect
	github.com/gorilla/websocket v1.5.3 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	parley.example/tests v0.0.0 // indirect
)

replace (
	parley.example/client => ../../client
	parley.example/pkg => ../../pkg
	parley.example/pkg/testx => ../../pkg/testx
	parley.example/services/auth => ../../services/auth
	parley.example/services/gateway => ../../services/gateway
	parley.example/services/history => ../../services/history
	parley.example/services/presence => ../../services/presence
	parley.example/tests => ../
	parley.example/tests/chaos => ../chaos
)
