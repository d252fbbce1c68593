package httpapi

import (
	"net/http"
	"strings"
	"time"
)

// socketIO passes a request on. The polls of a session that is held here are limited by the session; all else counts as a request of its address.
func (h *handler) socketIO(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	sid := q.Get("sid")
	poll := q.Get("transport") == "polling" && (r.Method == http.MethodGet || r.Method == http.MethodPost)
	if h.cors(w, r) { // before the limit: a page cannot read an answer without its headers
		return
	}
	if !(poll && sid != "" && h.Held != nil && h.Held(sid)) && !h.admit(w, r, SocketIORoute) {
		return
	}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		h.SocketIO.ServeHTTP(w, r) // w as it is: the WebSocket takes the connection over
		return
	}
	// A poll waits with nothing to read, and net/http takes a read deadline that passes meanwhile for a client that has gone.
	reading := pollTimeout
	if r.Method != http.MethodGet {
		reading = readTimeout
	}
	ctl := http.NewResponseController(w)
	_ = ctl.SetReadDeadline(time.Now().Add(reading))
	_ = ctl.SetWriteDeadline(time.Now().Add(pollTimeout))
	sw := &statusWriter{ResponseWriter: w}
	h.SocketIO.ServeHTTP(sw, r)
	if r.Context().Err() != nil {
		sw.status = statusGone
	}
	h.metrics.count(SocketIORoute, sw.status) // a poll's time says nothing
}

// pollTimeout is longer than any poll waits: until the next heartbeat.
const pollTimeout = 10 * time.Minute
