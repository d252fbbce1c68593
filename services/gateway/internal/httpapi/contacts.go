package httpapi

import (
	"context"
	"net/http"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/pkg/token"
)

const (
	contactsDefault = 100
	contactsMost    = 1000 // also the most that LastSeen answers at once

	// lastSeenPatience is how long a list of contacts waits for what it can be without.
	lastSeenPatience = 500 * time.Millisecond
)

func (h *handler) contacts(w http.ResponseWriter, r *http.Request, c token.Claims) error {
	limit, err := queryLimit(r, contactsDefault, contactsMost)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	page, err := api.AuthContacts.Call(r.Context(), h.Services, api.ContactsRequest{
		Username: c.Username, Prefix: q.Get("prefix"), After: q.Get("after"), Limit: limit,
	})
	if err != nil {
		return err
	}
	out := wire.ContactsPage{Contacts: make([]wire.ContactInfo, 0, len(page.Usernames)), Next: page.Next}
	away := make([]string, 0, len(page.Usernames))
	for _, name := range page.Usernames {
		pair, err := room.Of(c.Username, name)
		if err != nil {
			continue // oneself
		}
		row := wire.ContactInfo{Username: name, Room: pair.String()}
		if online, known := h.Presence.IsOnline(name); known {
			row.Online = &online
		}
		if row.Online == nil || !*row.Online {
			away = append(away, name)
		}
		out.Contacts = append(out.Contacts, row)
	}
	if h.Listed != nil {
		h.Listed(c.Username, page.Usernames)
	}
	seen := h.lastSeen(r.Context(), away)
	for i := range out.Contacts {
		out.Contacts[i].LastSeen = wire.Millis(seen[out.Contacts[i].Username])
	}
	return writeJSON(w, http.StatusOK, out)
}

// lastSeen is Unix ms by user, empty when the presence service does not answer soon.
func (h *handler) lastSeen(ctx context.Context, users []string) map[string]int64 {
	if len(users) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lastSeenPatience)
	defer cancel()
	resp, err := api.PresenceLastSeen.Call(ctx, h.Services, api.LastSeenRequest{Users: users})
	if err != nil || len(resp.LastSeen) != len(users) {
		return nil
	}
	m := make(map[string]int64, len(users))
	for i, u := range users {
		m[u] = resp.LastSeen[i]
	}
	return m
}

// pair reads the other user of the path. The service resolves the name: whether somebody has it may be
// nothing that the asker may know.
func pair(r *http.Request, c token.Claims) (api.PairRequest, error) {
	name, err := room.Name(r.PathValue("username"))
	if err != nil {
		return api.PairRequest{}, errName
	}
	if room.Fold(name) == room.Fold(c.Username) {
		return api.PairRequest{}, wire.E(wire.InvalidArgument, "this is you")
	}
	return api.PairRequest{Username: c.Username, Peer: name}, nil
}

func (h *handler) putContact(w http.ResponseWriter, r *http.Request, c token.Claims) error {
	req, err := pair(r, c)
	if err != nil {
		return err
	}
	resp, err := api.AuthPutContact.Call(r.Context(), h.Services, req)
	if err != nil {
		return err
	}
	if resp.State == "" {
		resp.State = "contact" // where everyone is
	}
	return writeJSON(w, http.StatusOK, wire.ContactState(resp))
}

func (h *handler) deleteContact(w http.ResponseWriter, r *http.Request, c token.Claims) error {
	return h.tell(w, r, c, api.AuthDeleteContact)
}

func (h *handler) putBlock(w http.ResponseWriter, r *http.Request, c token.Claims) error {
	return h.tell(w, r, c, api.AuthPutBlock)
}

func (h *handler) deleteBlock(w http.ResponseWriter, r *http.Request, c token.Claims) error {
	return h.tell(w, r, c, api.AuthDeleteBlock)
}

func (h *handler) tell(w http.ResponseWriter, r *http.Request, c token.Claims, e rpc.Endpoint[api.PairRequest, api.Empty]) error {
	req, err := pair(r, c)
	if err != nil {
		return err
	}
	_, err = e.Call(r.Context(), h.Services, req)
	return noContent(w, err)
}
