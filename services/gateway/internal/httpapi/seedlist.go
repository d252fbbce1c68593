package httpapi

import (
	"cmp"
	"context"
	"slices"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
)

const (
	// seedContactsMost is how long a contacts list gets: the client joins the room of each.
	seedContactsMost = 1000
	// seedPeers is how many conversations count for who comes first. With the bots and those who are online they are one question to auth.
	seedPeers = 400
	// seedPeersPatience is how long a contacts list waits for history: it can be without.
	seedPeersPatience = 2 * time.Second
)

// seedContactsList answers GET /get_contacts_list/<username>.
type seedContactsList struct {
	Contacts map[string]string `json:"contacts"` // other user to room
	Online   []string          `json:"currently_online"`
	All      []string          `json:"all_existing_contacts"`
}

// seedList leaves the asking user out of the rooms only: the old clients look for their own name in the other two lists.
func (h *handler) seedList(ctx context.Context, user string) (seedContactsList, error) {
	out := seedContactsList{Contacts: map[string]string{}, Online: []string{}, All: []string{}}
	names, err := h.seedNames(ctx, user)
	if err != nil {
		return out, err
	}
	for _, name := range names {
		if rm, err := room.Of(user, name); err == nil {
			out.Contacts[name] = rm.String()
		}
		online, known := h.Presence.IsOnline(name)
		if name == user { // is here, or was as far as is known; of others, what is not known is not told
			online, known = online || h.Joined != nil && h.Joined(user), true
		}
		if known && online {
			out.Online = append(out.Online, name)
		}
		out.All = append(out.All, name)
	}
	return out, nil
}

// seedNames are the user and the contacts, in the order of names. Where there are too many, those come first whom the user talks with, the
// bots and who is online: names that somebody registered to stand in front of all others push nobody off the list.
func (h *handler) seedNames(ctx context.Context, user string) ([]string, error) {
	page, err := h.Contacts.AuthContacts(ctx, api.ContactsRequest{Username: user, Limit: seedContactsMost})
	if err != nil {
		return nil, err
	}
	names := page.Usernames
	if page.Next != "" {
		first, err := h.Contacts.AuthContacts(ctx, api.ContactsRequest{Username: user, Limit: seedContactsMost, Among: h.seedFirst(ctx, user)})
		if err != nil {
			return nil, err
		}
		names = slices.Concat(first.Usernames, names)
	}
	seen := map[string]bool{user: true}
	names = slices.DeleteFunc(names, func(n string) bool { was := seen[n]; seen[n] = true; return was })
	names = append(names[:min(len(names), seedContactsMost)], user)
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(room.Fold(a), room.Fold(b)) })
	return names, nil
}

// seedFirst are those who come first in a list that is too long, at most seedContactsMost of them. Nobody of them need be a contact. What cannot be
// known now is left out.
func (h *handler) seedFirst(ctx context.Context, user string) []string {
	first := slices.Clone(h.Bots)
	ctx, cancel := context.WithTimeout(ctx, seedPeersPatience)
	defer cancel()
	for after, n := "", 0; n < seedPeers; {
		page, err := h.History.HistoryConversations(ctx, api.ConversationsRequest{Username: user, After: after, Limit: historyMost})
		if err != nil {
			break
		}
		for _, c := range page.Conversations {
			first = append(first, c.Peer)
		}
		n += len(page.Conversations)
		if after = page.Next; after == "" {
			break
		}
	}
	online, _ := h.Presence.OnlineUsers(seedContactsMost)
	first = append(first, online...)
	return first[:min(len(first), seedContactsMost)]
}
