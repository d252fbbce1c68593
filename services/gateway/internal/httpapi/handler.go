// Package httpapi is the gateway's HTTP side: logins, contacts and history for people's programs, health, and the
// documents of the protocol. It keeps nothing: every answer comes from a service, a mirror or a file.
package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/wsconn"
	"parley.example/services/gateway/web"
)

const (
	maxBody      = 16 << 10
	readTimeout  = 10 * time.Second // of a request's body
	writeTimeout = 30 * time.Second // of an answer, from the request on
)

// WebSocketRoute is where Deps.WebSocket answers, SocketIORoute where Deps.SocketIO does.
const (
	WebSocketRoute = "GET /v1/ws"
	SocketIORoute  = "/socket.io/"
)

type handler struct {
	Deps
	edge    *Edge
	limiter *limiter
	probes  *limiter
	metrics *metrics
	mux     *http.ServeMux
}

// route is one line of the table in routes. A private one needs a token with the native scope.
type route struct {
	pattern string
	public  func(http.ResponseWriter, *http.Request) error
	private func(http.ResponseWriter, *http.Request, token.Claims) error
}

func (h *handler) routes() []route {
	list := []route{
		{"POST /v1/users", h.register, nil},
		{"POST /v1/sessions", h.login, nil},
		{"POST /v1/sessions/refresh", h.refresh, nil},
		{"DELETE /v1/sessions/current", nil, h.logout},
		{"GET /v1/contacts", nil, h.contacts},
		{"PUT /v1/contacts/{username}", nil, h.putContact},
		{"DELETE /v1/contacts/{username}", nil, h.deleteContact},
		{"PUT /v1/blocks/{username}", nil, h.putBlock},
		{"DELETE /v1/blocks/{username}", nil, h.deleteBlock},
		{"GET /v1/conversations", nil, h.conversations},
		{"GET /v1/rooms/{room}/messages", nil, h.messages},
		{"GET /healthz", h.healthz, nil},
		{"GET /readyz", h.readyz, nil},
		{"GET /openapi.yaml", h.openapi, nil},
		{"GET /asyncapi.yaml", h.asyncapi, nil},
		{"GET /{$}", h.page, nil},
	}
	for pattern, serve := range h.Legacy {
		list = append(list, route{pattern, serve, nil})
	}
	return list
}

// New makes the handler of the public port. Errors: a wrong Config, or metrics that are registered already.
func New(cfg Config, deps Deps) (http.Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	edge, err := NewEdge(cfg)
	if err != nil {
		return nil, err
	}
	h := &handler{Deps: deps, edge: edge, mux: http.NewServeMux()}
	if h.Now == nil {
		h.Now = time.Now
	}
	if h.limiter, err = newLimiter(cfg.Rate, cfg.Burst, maxAddresses); err != nil {
		return nil, fmt.Errorf("limit requests: %w", err)
	}
	if h.probes, err = newLimiter(probeRate, probeBurst, maxAddresses); err != nil {
		return nil, fmt.Errorf("limit probes: %w", err)
	}
	// The files of the page are not of the protocol, and so not of its documents.
	routes := append(h.routes(), route{"GET " + web.Prefix, h.page, nil})
	if h.metrics, err = newMetrics(deps.Registry, routes); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	for _, r := range routes {
		h.mux.Handle(r.pattern, h.serve(r))
	}
	if h.WebSocket != nil {
		h.mux.Handle(WebSocketRoute, h.WebSocket)
	}
	if h.SocketIO != nil {
		h.mux.Handle(SocketIORoute, h.SocketIO)
	}
	return h, nil
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.Now()
	next, pattern := h.mux.Handler(r)
	secure(w.Header())
	if pattern == WebSocketRoute {
		if h.admit(w, r, pattern) && h.handshake(w, r, pattern) {
			next.ServeHTTP(w, r) // w as it is: the WebSocket takes the connection over
		}
		return
	}
	if pattern == SocketIORoute {
		h.socketIO(w, r)
		return
	}
	ctl := http.NewResponseController(w)
	_ = ctl.SetReadDeadline(start.Add(readTimeout)) // a test's recorder has none
	_ = ctl.SetWriteDeadline(start.Add(writeTimeout))
	sw := &statusWriter{ResponseWriter: w}
	// First of all: without its headers a page can read no answer, not even the one that says when to ask again. A preflight costs less than a
	// refusal, and its page would take a refused one for a server that is gone.
	if h.cors(sw, r) {
		h.metrics.observe(pattern, sw.status, h.Now().Sub(start))
		return
	}
	if !h.admit(sw, r, pattern) {
		return
	}
	switch {
	case !clean(r.URL):
		// The mux would send the asker on to a path that it encodes twice.
		writeError(sw, wire.E(wire.NotFound, "there is nothing at this path: it has empty or dot segments"))
	case pattern == "":
		noMatch(sw, r, next)
	default:
		h.mux.ServeHTTP(sw, r)
	}
	if r.Context().Err() != nil {
		sw.status = statusGone
	}
	h.metrics.observe(pattern, sw.status, h.Now().Sub(start))
}

// clean reports whether a path has the form that http.ServeMux answers, instead of sending the asker on to another one.
func clean(u *url.URL) bool {
	p := u.EscapedPath()
	c := path.Clean(p)
	return p == c || p == c+"/" && c != "/"
}

// Health checks have a limit of their own, which is above what any balancer asks: refusing them would get a busy gateway restarted.
const (
	probeRate  = 20
	probeBurst = 100
)

func isProbe(pattern string) bool { return pattern == "GET /healthz" || pattern == "GET /readyz" }

// admit answers 429 when the client's address asks too often.
func (h *handler) admit(w http.ResponseWriter, r *http.Request, pattern string) bool {
	l := h.limiter
	if isProbe(pattern) {
		if local(r) {
			return true
		}
		l = h.probes
	}
	wait := l.wait(h.edge.ClientAddress(r), h.Now())
	if wait == 0 {
		return true
	}
	e := wire.E(wire.RateLimited, "too many requests from this address")
	e.RetryAfterMS = (wait + time.Millisecond - 1).Milliseconds()
	writeError(w, e)
	h.metrics.observe(pattern, http.StatusTooManyRequests, 0)
	return false
}

// handshake refuses as problems what the WebSocket would refuse in plain text.
func (h *handler) handshake(w http.ResponseWriter, r *http.Request, pattern string) bool {
	status, reason := wsconn.Refusal(w, r)
	err := withStatus(status, reason)
	switch {
	case status != 0:
	case !h.edge.OriginAllowed(r):
		status, err = http.StatusForbidden, errOrigin
	default:
		return true
	}
	writeError(w, err)
	h.metrics.observe(pattern, status, 0)
	return false
}

var errOrigin = wire.E(wire.Forbidden, "pages of this origin may not use this server")

// secure sets what every answer carries; the page replaces the policy with its own.
func secure(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
}

// cors lets the pages of allowed origins read answers. It reports whether r was a preflight, which it has answered.
func (h *handler) cors(w http.ResponseWriter, r *http.Request) bool {
	hd := w.Header()
	hd.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	preflight := r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
	if origin == "" || !h.edge.OriginAllowed(r) {
		if preflight {
			writeError(w, errOrigin)
		}
		return preflight
	}
	hd.Set("Access-Control-Allow-Origin", origin)
	if !preflight {
		hd.Set("Access-Control-Expose-Headers", "Retry-After, WWW-Authenticate")
		return false
	}
	hd.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE")
	hd.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
	hd.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// noMatch answers what the mux would answer in plain text, as a problem.
func noMatch(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := &headerOnly{h: http.Header{}}
	next.ServeHTTP(rec, r)
	if rec.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", rec.h.Get("Allow"))
		writeError(w, withStatus(rec.status, "this path has other methods: "+rec.h.Get("Allow")))
		return
	}
	writeError(w, wire.E(wire.NotFound, "there is nothing at this path"))
}

// headerOnly keeps status and headers of an answer and drops its body.
type headerOnly struct {
	h      http.Header
	status int
}

func (w *headerOnly) Header() http.Header         { return w.h }
func (w *headerOnly) WriteHeader(status int)      { w.status = status }
func (w *headerOnly) Write(b []byte) (int, error) { return len(b), nil }

// serve wraps a route: token, answer to errors.
func (h *handler) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var err error
		if rt.private == nil {
			err = rt.public(w, r)
		} else {
			var c token.Claims
			if c, err = h.authenticate(w, r); err == nil && r.Method == http.MethodGet { // the others have no parameters
				err = checkQuery(r)
			}
			if err == nil {
				err = rt.private(w, r, c)
			}
		}
		if err == nil {
			return
		}
		var e *wire.Error
		if !errors.As(err, &e) || e.Code == wire.Internal {
			h.Log.Error("request failed", "route", rt.pattern, "error", err)
		}
		writeError(w, err)
	}
}

// authenticate reads the bearer token (RFC 6750).
func (h *handler) authenticate(w http.ResponseWriter, r *http.Request) (token.Claims, error) {
	scheme, tok, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	tok = strings.TrimSpace(tok)
	if !strings.EqualFold(scheme, "Bearer") || tok == "" {
		return token.Claims{}, wire.E(wire.Unauthenticated, "this needs an access token: Authorization: Bearer …")
	}
	c, err := h.Tokens.Verify(tok, h.Now())
	if err == nil && !c.Has(token.ScopeNative) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="parley", error="insufficient_scope", scope="`+token.ScopeNative+`"`)
		return token.Claims{}, wire.E(wire.Forbidden, "this token is for other routes")
	}
	if err == nil {
		return c, nil
	}
	var e *wire.Error
	if errors.As(err, &e) && e.Code != wire.Unauthenticated {
		return token.Claims{}, e
	}
	detail := "the access token is not valid"
	if errors.Is(err, token.ErrExpired) {
		detail = "the access token has expired"
	}
	w.Header().Set("WWW-Authenticate", `Bearer realm="parley", error="invalid_token"`)
	return token.Claims{}, wire.E(wire.Unauthenticated, detail)
}
