package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"parley/pkg/api"
	"parley/pkg/room"
	"parley/pkg/token"
	"parley/pkg/wire"
)

// The routes of the seed system's clients. They look at the keys of an answer only, so its status is 200 also for what went wrong; what
// the seed had no words for (too many tries, something is away) has a status of its own beside the keys.

const (
	// seedContactsMost is how long a contacts list gets: the client joins the room of each.
	seedContactsMost = 1000
	// seedOnlineMost bounds online_clients_list.
	seedOnlineMost = 10_000
	seedInvalid    = "Invalid credentials"
)

type seedResult struct {
	Result string `json:"result,omitempty"`
	Token  string `json:"token,omitempty"`
	Error  string `json:"error,omitempty"`
}

// seedBody reads a JSON object, whatever its media type is said to be; false when it is none.
func seedBody(w http.ResponseWriter, r *http.Request, v any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	return err == nil && utf8.Valid(body) && isObject(body) && json.Unmarshal(body, v) == nil
}

type seedCredentials struct {
	Username  *string `json:"username"`
	Password  *string `json:"password"`
	Terminate *string `json:"user_token_terminate"`
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
	var c seedCredentials
	if !seedBody(w, r, &c) || c.Username == nil || c.Password == nil {
		return writeJSON(w, http.StatusOK, seedResult{Error: "Invalid Log In request"})
	}
	t, err := h.Logins.AuthLogin(r.Context(), api.Credentials{Username: *c.Username, Password: *c.Password, Address: h.address(r), Scope: token.ScopeSeed})
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

// seedContactsList answers GET /get_contacts_list/<username>.
type seedContactsList struct {
	Contacts map[string]string `json:"contacts"` // other user to room
	Online   []string          `json:"currently_online"`
	All      []string          `json:"all_existing_contacts"`
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

func (h *handler) seedList(ctx context.Context, user string) (seedContactsList, error) {
	out := seedContactsList{Contacts: map[string]string{}, Online: []string{}, All: []string{}}
	for after := ""; ; {
		page, err := h.Contacts.AuthContacts(ctx, api.ContactsRequest{Username: user, After: after, Limit: seedContactsMost})
		if err != nil {
			return out, err
		}
		for _, peer := range page.Usernames {
			rm, err := room.Of(user, peer)
			if err != nil {
				continue // oneself
			}
			out.Contacts[peer] = rm.String()
			out.All = append(out.All, peer)
			if online, known := h.Presence.IsOnline(peer); known && online {
				out.Online = append(out.Online, peer)
			}
			if len(out.All) == seedContactsMost {
				return out, nil
			}
		}
		if after = page.Next; after == "" {
			return out, nil
		}
	}
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
func (h *handler) admin(w http.ResponseWriter, r *http.Request) (seedCredentials, error) {
	var c seedCredentials
	if !seedBody(w, r, &c) || c.Username == nil || c.Password == nil {
		return c, errNotAdmin
	}
	got, err := h.Logins.AuthCheck(r.Context(), api.Credentials{Username: *c.Username, Password: *c.Password, Address: h.address(r)})
	if refused(err) || err == nil && !got.Admin {
		return c, errNotAdmin
	}
	return c, err
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
	c, err := h.admin(w, r)
	if err != nil {
		return seedAdminProblem(w, err)
	}
	if c.Terminate == nil {
		return writeJSON(w, http.StatusOK, seedResult{Error: "Invalid request, missing required field: user_token_terminate"})
	}
	ended, err := h.Logins.AuthEndLogins(r.Context(), api.EndLoginsRequest{Username: *c.Terminate})
	var e *wire.Error
	switch {
	case err == nil && ended.Ended > 0:
		return writeJSON(w, http.StatusOK, seedResult{Result: "success"})
	case err == nil, errors.As(err, &e) && e.Code == wire.UnknownUser:
		return writeJSON(w, http.StatusOK, seedResult{Error: "No JWT for user " + *c.Terminate})
	}
	return seedProblem(w, err)
}

// socketIO passes a request on. Those of a session that is held here are limited by the session; others count as requests of their address.
func (h *handler) socketIO(w http.ResponseWriter, r *http.Request) {
	sid := r.URL.Query().Get("sid")
	if (sid == "" || h.Held == nil || !h.Held(sid)) && !h.admit(w, r, SocketIORoute) {
		return
	}
	if h.cors(w, r) {
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
