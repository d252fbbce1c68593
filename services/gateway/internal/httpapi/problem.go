package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"parley.example/client/wire"
)

// problemType is the prefix of Problem.Type.
const problemType = "urn:parley:error:"

// Retry-After where a failure does not bring its own: an outage usually outlasts one retry.
const (
	defaultRetry     = 2 * time.Second
	maxRetryAfterSec = 3600
)

// statusError overrides the status of its code, for what only HTTP knows (405, 415).
type statusError struct {
	err    *wire.Error
	status int
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func withStatus(status int, detail string) error {
	return &statusError{wire.E(wire.InvalidArgument, detail), status}
}

// writeError answers err. What is no *wire.Error is "internal" outside; the caller logs it.
func writeError(w http.ResponseWriter, err error) {
	var e *wire.Error
	if !errors.As(err, &e) {
		e = wire.AsError(err)
	}
	status := e.Code.HTTPStatus()
	var s *statusError
	if errors.As(err, &s) {
		status = s.status
	}
	h := w.Header()
	retry := e.RetryAfterMS
	switch status {
	case http.StatusUnauthorized:
		if h.Get("WWW-Authenticate") == "" {
			h.Set("WWW-Authenticate", `Bearer realm="parley"`)
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if retry <= 0 {
			retry = defaultRetry.Milliseconds()
		}
		h.Set("Retry-After", retryAfter(retry))
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(problem(e, status, retry)) // the asker may be gone
}

func problem(e *wire.Error, status int, retry int64) []byte {
	body, _ := json.Marshal(wire.Problem{ // plain fields
		Type: problemType + string(e.Code), Title: title(e.Code), Status: status, Detail: e.Message,
		Code: e.Code, RetryAfterMS: retry,
	})
	return append(body, '\n')
}

// Refusal is the answer, with its headers, to a connection that is closed before its request is read. It is that of a failure that another gateway may
// not have (503), so that proxies ask one.
func Refusal() []byte {
	retry := defaultRetry.Milliseconds()
	body := problem(wire.E(wire.Unavailable, "there are too many connections here, or of this address; try again later"), http.StatusServiceUnavailable, retry)
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n"+
		"Retry-After: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", retryAfter(retry), len(body), body)
}

// retryAfter is the header's value. Whole seconds are all that it knows; early is worse than late.
func retryAfter(ms int64) string { return strconv.FormatInt(min((ms+999)/1000, maxRetryAfterSec), 10) }

// title is the same for every occurrence of a code, as RFC 9457 wants it: invalid_argument is "Invalid argument".
func title(c wire.Code) string {
	s := strings.ReplaceAll(string(c), "_", " ")
	return strings.ToUpper(s[:1]) + s[1:]
}
