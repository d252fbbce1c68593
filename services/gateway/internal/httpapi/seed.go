package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/token"
)

// The routes of the seed system's clients. They look at the keys of an answer only, so its status is 200 also for what went wrong; what
// the seed had no words for (too many tries, something is away) has a status of its own beside the keys.

const (
	// seedOnlineMost bounds online_clients_list.
	seedOnlineMost = 10_000
	seedInvalid    = "Invalid credentials"
)

type seedResult struct {
	Result string `json:"result,omitempty"`
	Token  string `json:"token,omitempty"`
	Error  string `json:"error,omitempty"`
}

// seedFields are the keys of a body, as they are spelt, with whatever stands there.
type seedFields map[string]json.RawMessage

// text is the value of a key; ok is false when it is no text, or an empty one.
func (f seedFields) text(key string) (s string, ok bool) {
	v := f[key]
	return s, len(v) > 0 && v[0] == '"' && json.Unmarshal(v, &s) == nil && s != ""
}

// credentials are the user and the password; ok is false when one of them cannot be anybody's.
func (f seedFields) credentials() (c api.Credentials, ok bool) {
	user, ok1 := f.text("username")
	password, ok2 := f.text("password")
	return api.Credentials{Username: user, Password: password}, ok1 && ok2
}

// fromOwnSite is a route of the old clients, which are no pages: one of another site gets no answer to what it makes its visitor's browser ask.
func (h *handler) fromOwnSite(route func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !h.edge.SiteAllowed(r) {
			return seedProblem(w, errOrigin)
		}
		return route(w, r)
	}
}

// isJSON is what the original takes for JSON, and a request that does not say what it brings. The types that any page may send to any site are none.
func isJSON(r *http.Request) bool {
	said := r.Header.Get("Content-Type")
	kind, _, _ := mime.ParseMediaType(said) // "" when it is none
	return said == "" || kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")
}

// seedBody reads a JSON object; nil when there is none. tooLong: there is more of it than anybody needs.
func seedBody(w http.ResponseWriter, r *http.Request) (f seedFields, tooLong bool) {
	if !isJSON(r) {
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var most *http.MaxBytesError
	if errors.As(err, &most) {
		return nil, true
	}
	if err != nil || !utf8.Valid(body) || json.Unmarshal(body, &f) != nil {
		return nil, false
	}
	return f, false
}

// seedProblem answers what the seed has no words for.
func seedProblem(w http.ResponseWriter, err error) error {
	var e *wire.Error
	if !errors.As(err, &e) || e.Code == wire.Internal {
		return err
	}
	if e.RetryAfterMS > 0 {
		w.Header().Set("Retry-After", retryAfter(e.RetryAfterMS))
	}
	return writeJSON(w, e.Code.HTTPStatus(), seedResult{Result: e.Message, Error: e.Message})
}

func (h *handler) seedLogin(w http.ResponseWriter, r *http.Request) error {
	f, tooLong := seedBody(w, r)
	if !tooLong && (f["username"] == nil || f["password"] == nil) {
		return writeJSON(w, http.StatusOK, seedResult{Error: "Invalid Log In request"})
	}
	c, usable := f.credentials()
	if !usable { // the keys are there, as far as was read
		return writeJSON(w, http.StatusOK, seedResult{Result: seedInvalid})
	}
	c.Address, c.Scope = h.address(r), token.ScopeSeed
	t, err := h.Logins.AuthLogin(r.Context(), c)
	switch {
	case refused(err):
		return writeJSON(w, http.StatusOK, seedResult{Result: seedInvalid})
	case err != nil:
		return seedProblem(w, err)
	}
	return writeJSON(w, http.StatusOK, seedResult{Result: "success", Token: t.AccessToken})
}

// refused reports whether an error of a login means that these credentials open nothing.
func refused(err error) bool {
	var e *wire.Error
	return errors.As(err, &e) && (e.Code == wire.Unauthenticated || e.Code == wire.Forbidden)
}

func (h *handler) seedContacts(w http.ResponseWriter, r *http.Request) error {
	jwt, name := r.Header.Get("jwt"), r.Header.Get("username")
	if len(r.Header.Values("jwt")) == 0 || len(r.Header.Values("username")) == 0 {
		return writeJSON(w, http.StatusOK, seedResult{Error: "The 'get_contact_list' request headers must contain username and jwt fields"})
	}
	c, err := h.Tokens.Verify(jwt, h.Now())
	if e := (*wire.Error)(nil); errors.As(err, &e) && e.Code != wire.Unauthenticated {
		return seedProblem(w, e)
	}
	if err != nil || !HasScope(c, token.ScopeSeed) && !HasScope(c, token.ScopeNative) || !sameUser(c.Username, name) || !sameUser(c.Username, r.PathValue("username")) {
		return writeJSON(w, http.StatusOK, seedResult{Error: "Invalid JWT"})
	}
	list, err := h.seedList(r.Context(), c.Username)
	if err != nil {
		return seedProblem(w, err)
	}
	if h.Served != nil {
		h.Served(c.Username, list.Online)
	}
	return writeJSON(w, http.StatusOK, list)
}

// sameUser compares a name that an old client put into a header or a path. Python sends headers in Latin-1 where that is possible.
func sameUser(user, sent string) bool {
	if !utf8.ValidString(sent) {
		runes := make([]rune, len(sent))
		for i := range len(sent) {
			runes[i] = rune(sent[i])
		}
		sent = string(runes)
	}
	return room.Fold(strings.TrimSpace(sent)) == room.Fold(user)
}

var errNotAdmin = errors.New("not an administrator")

// admin reads credentials, which must be those of an administrator.
func (h *handler) admin(w http.ResponseWriter, r *http.Request) (seedFields, error) {
	f, _ := seedBody(w, r)
	c, usable := f.credentials()
	if !usable {
		return nil, errNotAdmin
	}
	c.Address = h.address(r)
	got, err := h.Logins.AuthCheck(r.Context(), c)
	if refused(err) || err == nil && !got.Admin {
		return nil, errNotAdmin
	}
	return f, err
}

func seedAdminProblem(w http.ResponseWriter, err error) error {
	if errors.Is(err, errNotAdmin) {
		return writeJSON(w, http.StatusOK, seedResult{Error: "Admin access denied"})
	}
	return seedProblem(w, err)
}

func (h *handler) seedInfo(w http.ResponseWriter, r *http.Request) error {
	if _, err := h.admin(w, r); err != nil {
		return seedAdminProblem(w, err)
	}
	users, known := h.Presence.OnlineUsers(seedOnlineMost)
	if !known {
		return seedProblem(w, wire.E(wire.Unavailable, "it cannot be known now who is online"))
	}
	if users == nil {
		users = []string{}
	}
	return writeJSON(w, http.StatusOK, struct {
		Online []string `json:"online_clients_list"`
	}{users})
}

func (h *handler) seedKill(w http.ResponseWriter, r *http.Request) error {
	f, err := h.admin(w, r)
	if err != nil {
		return seedAdminProblem(w, err)
	}
	const key = "user_token_terminate"
	if f[key] == nil {
		return writeJSON(w, http.StatusOK, seedResult{Error: "Invalid request, missing required field: " + key})
	}
	user, usable := f.text(key)
	if !usable && f[key][0] != '"' {
		user = string(f[key]) // for the answer: nobody is called so
	}
	var ended api.EndLoginsResponse
	if usable {
		ended, err = h.Logins.AuthEndLogins(r.Context(), api.EndLoginsRequest{Username: user})
	}
	var e *wire.Error
	switch {
	case err == nil && ended.Ended > 0:
		return writeJSON(w, http.StatusOK, seedResult{Result: "success"})
	case err == nil, errors.As(err, &e) && e.Code == wire.UnknownUser:
		return writeJSON(w, http.StatusOK, seedResult{Error: "No JWT for user " + user})
	}
	return seedProblem(w, err)
}

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
