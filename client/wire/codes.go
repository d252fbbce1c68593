package wire

import "net/http"

// Code is the stable name of an error, the same on WebSocket, on HTTP and between the services.
type Code string

// The error codes of the protocol.
const (
	InvalidFrame       Code = "invalid_frame"
	UnknownEvent       Code = "unknown_event"
	InvalidArgument    Code = "invalid_argument"
	Unauthenticated    Code = "unauthenticated"
	Forbidden          Code = "forbidden"
	UnknownUser        Code = "unknown_user"
	InvalidUsername    Code = "invalid_username"
	IDConflict         Code = "id_conflict"
	TooManyConnections Code = "too_many_connections"
	TooLarge           Code = "too_large"
	RateLimited        Code = "rate_limited"
	Unavailable        Code = "unavailable"
	Internal           Code = "internal"

	// UsernameTaken and NotFound are answers of HTTP only.
	UsernameTaken Code = "username_taken"
	NotFound      Code = "not_found"
)

// Codes lists every code, for documents and for the test that compares them with the code.
var Codes = []Code{
	InvalidFrame, UnknownEvent, InvalidArgument, Unauthenticated, Forbidden, UnknownUser, InvalidUsername, IDConflict,
	TooManyConnections, TooLarge, RateLimited, Unavailable, Internal, UsernameTaken, NotFound,
}

// HTTPStatus is the status that carries c.
func (c Code) HTTPStatus() int {
	switch c {
	case InvalidFrame, UnknownEvent, InvalidArgument, InvalidUsername:
		return http.StatusBadRequest
	case Unauthenticated:
		return http.StatusUnauthorized
	case Forbidden:
		return http.StatusForbidden
	case UnknownUser, NotFound:
		return http.StatusNotFound
	case IDConflict, UsernameTaken:
		return http.StatusConflict
	case TooLarge:
		return http.StatusRequestEntityTooLarge
	case RateLimited, TooManyConnections:
		return http.StatusTooManyRequests
	case Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// Temporary reports whether the same request may be taken later, without anybody changing it. client/js/errors.js has the same list. A send is tried
// again by a rule of its own: docs/sdk.md, rule 14.
func (c Code) Temporary() bool {
	switch c {
	case TooManyConnections, RateLimited, Unavailable, Internal:
		return true
	}
	return false
}

// Error is a failure as a client may see it. What a person should do belongs into Message.
type Error struct {
	Code         Code   `json:"code"`
	Message      string `json:"message"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}

// Error makes *Error an error.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// E is a short constructor.
func E(code Code, message string) *Error { return &Error{Code: code, Message: message} }
