package legacy

import (
	"cmp"
	"context"
	"slices"
	"time"

	"parley.example/pkg/api"
	"parley.example/pkg/room"
)

const (
	// maxPeers is how many conversations count for who comes first. With the bots and those who are online they are one question to auth.
	maxPeers = 400
	// peersPatience is how long a contacts list waits for history: it can be without.
	peersPatience = 2 * time.Second
)

// ContactsList answers GET /get_contacts_list/<username>.
type ContactsList struct {
	Contacts map[string]string `json:"contacts"` // other user to room
	Online   []string          `json:"currently_online"`
	All      []string          `json:"all_existing_contacts"`
}

// list leaves the asking user out of the rooms only: the old clients look for their own name in the other two lists.
func (h *HTTP) list(ctx context.Context, user string) (ContactsList, error) {
	out := ContactsList{Contacts: map[string]string{}, Online: []string{}, All: []string{}}
	names, err := h.names(ctx, user)
	if err != nil {
		return out, err
	}
	for _, name := range names {
		if rm, err := room.Of(user, name); err == nil {
			out.Contacts[name] = rm.String()
		}
		online, known := h.Presence.IsOnline(name)
		if name == user { // is here, or was as far as is known; of others, what is not known is not told
			online, known = online || h.Joined(user), true
		}
		if known && online {
			out.Online = append(out.Online, name)
		}
		out.All = append(out.All, name)
	}
	return out, nil
}

// names are the user and the contacts, in the order of names. Where there are too many, those come first whom the user talks with, the
// bots and who is online: names that somebody registered to stand in front of all others push nobody off the list.
func (h *HTTP) names(ctx context.Context, user string) ([]string, error) {
	page, err := api.AuthContacts.Call(ctx, h.Services, api.ContactsRequest{Username: user, Limit: MaxContacts})
	if err != nil {
		return nil, err
	}
	names := page.Usernames
	if page.Next != "" {
		known, err := api.AuthContacts.Call(ctx, h.Services, api.ContactsRequest{Username: user, Limit: MaxContacts, Among: h.first(ctx, user)})
		if err != nil {
			return nil, err
		}
		names = slices.Concat(known.Usernames, names)
	}
	seen := map[string]bool{user: true}
	names = slices.DeleteFunc(names, func(n string) bool { was := seen[n]; seen[n] = true; return was })
	names = append(names[:min(len(names), MaxContacts)], user)
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(room.Fold(a), room.Fold(b)) })
	return names, nil
}

// first are those who come first in a list that is too long, at most MaxContacts of them. Nobody of them need be a contact. What cannot be
// known now is left out.
func (h *HTTP) first(ctx context.Context, user string) []string {
	first := slices.Clone(h.Bots)
	ctx, cancel := context.WithTimeout(ctx, peersPatience)
	defer cancel()
	for after, n := "", 0; n < maxPeers; {
		page, err := api.HistoryConversations.Call(ctx, h.Services, api.ConversationsRequest{Username: user, After: after, Limit: 200})
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
	online, _ := h.Presence.OnlineUsers(MaxContacts)
	first = append(first, online...)
	return first[:min(len(first), MaxContacts)]
}
