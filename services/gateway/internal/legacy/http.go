package legacy

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/token"
)

// The routes of the old clients. They look at the keys of an answer only, so its status is 200 also for what went wrong; what the original had no
// words for (too many tries, something is unreachable) has a status of its own beside the keys.

const (
	maxBody = 16 << 10
	// MaxOnline bounds online_clients_list.
	MaxOnline          = 10_000
	invalidCredentials = "Invalid credentials"
)

// Presence says who is online now; known is false while nobody can tell.
type Presence interface {
	IsOnline(user string) (online, known bool)
	OnlineUsers(most int) (users []string, known bool)
}

// Tokens verifies access tokens, revocation included. Any error but a *wire.Error with another code means that the token is not good.
type Tokens interface {
	Verify(tok string, now time.Time) (token.Claims, error)
}

// HTTPDeps are the parts that the HTTP routes work with.
type HTTPDeps struct {
	Services rpc.Caller
	Presence Presence
	Tokens   Tokens
	// Joined reports whether a client of user has joined here, also before others hear of it.
	Joined func(user string) bool
	// Bots are the users whose messages arrive as those of bots.
	Bots []string
	// Tell tells of each contacts list that was served, at all gateways, this one included (Served): the user's connection may be at any of them.
	Tell func(user string, online []string)
	// Address is that of a request's client, "" when it is not known; OwnSite reports whether no page of another site made it.
	Address func(*http.Request) string
	OwnSite func(*http.Request) bool
	Now     func() time.Time // nil: time.Now
}

// HTTP serves the old clients' HTTP routes.
type HTTP struct {
	HTTPDeps
}

// NewHTTP makes the routes.
func NewHTTP(deps HTTPDeps) *HTTP {
	if deps.Now == nil {
		deps.Now = time.Now
	}
	return &HTTP{deps}
}

// Routes are the handlers by http.ServeMux's pattern. An error without a code of the protocol is the caller's to answer and to log.
func (h *HTTP) Routes() map[string]func(http.ResponseWriter, *http.Request) error {
	return map[string]func(http.ResponseWriter, *http.Request) error{
		"POST /log_in":                      h.ownSite(h.login),
		"GET /get_contacts_list/{username}": h.ownSite(h.contacts),
		"POST /admin/get_info":              h.ownSite(h.info),
		"POST /admin/kill_token":            h.ownSite(h.kill),
	}
}

// Result is the answer of most routes.
type Result struct {
	Result string `json:"result,omitempty"`
	Token  string `json:"token,omitempty"`
	Error  string `json:"error,omitempty"`
}

// fields are the keys of a body, as they are spelt, with whatever stands there.
type fields map[string]json.RawMessage

// text is the value of a key; ok is false when it is no text, or an empty one.
func (f fields) text(key string) (s string, ok bool) {
	v := f[key]
	return s, len(v) > 0 && v[0] == '"' && json.Unmarshal(v, &s) == nil && s != ""
}

// credentials are the user and the password; ok is false when one of them cannot be anybody's.
func (f fields) credentials() (c api.Credentials, ok bool) {
	user, ok1 := f.text("username")
	password, ok2 := f.text("password")
	return api.Credentials{Username: user, Password: password}, ok1 && ok2
}

// ownSite is a route of the old clients, which are no pages: one of another site gets no answer to what it makes its visitor's browser ask.
func (h *HTTP) ownSite(route func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !h.OwnSite(r) {
			return problem(w, errOrigin)
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

// readBody reads a JSON object; nil when there is none. tooLong: there is more of it than anybody needs.
func readBody(w http.ResponseWriter, r *http.Request) (f fields, tooLong bool) {
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

// problem answers what the original has no words for.
func problem(w http.ResponseWriter, err error) error {
	var e *wire.Error
	if !errors.As(err, &e) || e.Code == wire.Internal {
		return err
	}
	if e.RetryAfterMS > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(min((e.RetryAfterMS+999)/1000, 3600), 10)) // early is worse than late
	}
	return writeJSON(w, e.Code.HTTPStatus(), Result{Result: e.Message, Error: e.Message})
}

func (h *HTTP) login(w http.ResponseWriter, r *http.Request) error {
	f, tooLong := readBody(w, r)
	if !tooLong && (f["username"] == nil || f["password"] == nil) {
		return writeJSON(w, http.StatusOK, Result{Error: "Invalid Log In request"})
	}
	c, usable := f.credentials()
	if !usable { // the keys are there, as far as was read
		return writeJSON(w, http.StatusOK, Result{Result: invalidCredentials})
	}
	c.Address, c.Scope = h.Address(r), token.ScopeLegacy
	t, err := api.AuthLogin.Call(r.Context(), h.Services, c)
	switch {
	case refused(err):
		return writeJSON(w, http.StatusOK, Result{Result: invalidCredentials})
	case err != nil:
		return problem(w, err)
	}
	return writeJSON(w, http.StatusOK, Result{Result: "success", Token: t.AccessToken})
}

// refused reports whether an error of a login means that these credentials open nothing.
func refused(err error) bool {
	var e *wire.Error
	return errors.As(err, &e) && (e.Code == wire.Unauthenticated || e.Code == wire.Forbidden)
}

func (h *HTTP) contacts(w http.ResponseWriter, r *http.Request) error {
	jwt, name := r.Header.Get("jwt"), r.Header.Get("username")
	if len(r.Header.Values("jwt")) == 0 || len(r.Header.Values("username")) == 0 {
		return writeJSON(w, http.StatusOK, Result{Error: "The 'get_contact_list' request headers must contain username and jwt fields"})
	}
	c, err := h.Tokens.Verify(jwt, h.Now())
	if e := (*wire.Error)(nil); errors.As(err, &e) && e.Code != wire.Unauthenticated {
		return problem(w, e)
	}
	if err != nil || !c.Has(token.ScopeLegacy) && !c.Has(token.ScopeNative) || !sameUser(c.Username, name) || !sameUser(c.Username, r.PathValue("username")) {
		return writeJSON(w, http.StatusOK, Result{Error: "Invalid JWT"})
	}
	list, err := h.list(r.Context(), c.Username)
	if err != nil {
		return problem(w, err)
	}
	h.Tell(c.Username, list.Online)
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
func (h *HTTP) admin(w http.ResponseWriter, r *http.Request) (fields, error) {
	f, _ := readBody(w, r)
	c, usable := f.credentials()
	if !usable {
		return nil, errNotAdmin
	}
	c.Address = h.Address(r)
	got, err := api.AuthCheck.Call(r.Context(), h.Services, c)
	if refused(err) || err == nil && !got.Admin {
		return nil, errNotAdmin
	}
	return f, err
}

func adminProblem(w http.ResponseWriter, err error) error {
	if errors.Is(err, errNotAdmin) {
		return writeJSON(w, http.StatusOK, Result{Error: "Admin access denied"})
	}
	return problem(w, err)
}

func (h *HTTP) info(w http.ResponseWriter, r *http.Request) error {
	if _, err := h.admin(w, r); err != nil {
		return adminProblem(w, err)
	}
	users, known := h.Presence.OnlineUsers(MaxOnline)
	if !known {
		return problem(w, wire.E(wire.Unavailable, "it cannot be known now who is online"))
	}
	if users == nil {
		users = []string{}
	}
	return writeJSON(w, http.StatusOK, struct {
		Online []string `json:"online_clients_list"`
	}{users})
}

func (h *HTTP) kill(w http.ResponseWriter, r *http.Request) error {
	f, err := h.admin(w, r)
	if err != nil {
		return adminProblem(w, err)
	}
	const key = "user_token_terminate"
	if f[key] == nil {
		return writeJSON(w, http.StatusOK, Result{Error: "Invalid request, missing required field: " + key})
	}
	user, usable := f.text(key)
	if !usable && f[key][0] != '"' {
		user = string(f[key]) // for the answer: nobody is called so
	}
	var ended api.EndLoginsResponse
	if usable {
		ended, err = api.AuthEndLogins.Call(r.Context(), h.Services, api.EndLoginsRequest{Username: user})
	}
	var e *wire.Error
	switch {
	case err == nil && ended.Ended > 0:
		return writeJSON(w, http.StatusOK, Result{Result: "success"})
	case err == nil, errors.As(err, &e) && e.Code == wire.UnknownUser:
		return writeJSON(w, http.StatusOK, Result{Error: "No JWT for user " + user})
	}
	return problem(w, err)
}

var errOrigin = wire.E(wire.Forbidden, "pages of this origin may not use this server")

// writeJSON answers v, which is of this package and cannot fail to encode.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // rooms read A&B
	_ = enc.Encode(v)        // the asker may be gone
	return nil
}
