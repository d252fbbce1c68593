// Package apidocs holds the descriptions of the public protocol, which the gateway serves. A test of the
// gateway's HTTP side fails when they and the code differ.
package apidocs

import _ "embed"

// OpenAPI describes the HTTP side (OpenAPI 3.1, YAML).
//
//go:embed openapi.yaml
var OpenAPI []byte

// AsyncAPI describes the WebSocket side (AsyncAPI 3.0, YAML).
//
//go:embed asyncapi.yaml
var AsyncAPI []byte
