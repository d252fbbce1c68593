package session

import (
	"errors"

	"parley.example/client/wire"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/access"
)

// asWire is err as a client may see it, also when a *wire.Error is wrapped or a token's error came bare.
func asWire(err error) *wire.Error {
	var e *wire.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, token.ErrExpired):
		return wire.E(wire.Unauthenticated, "the token has expired; get a new one")
	case errors.Is(err, token.ErrInvalid), errors.Is(err, token.ErrKey):
		return wire.E(wire.Unauthenticated, "the token is not valid")
	}
	return errInternal
}

// closeFor is how a connection ends whose token was refused.
func closeFor(e *wire.Error, err error) wire.Close {
	switch {
	case e.Code == wire.Unavailable:
		return wire.CloseTryLater
	case errors.Is(err, token.ErrExpired):
		return wire.CloseTokenExpired
	case errors.Is(err, access.ErrDisabled):
		return wire.CloseUserDisabled
	case errors.Is(err, access.ErrRevoked):
		return wire.CloseTokenRevoked
	}
	return wire.CloseNoAuth
}
