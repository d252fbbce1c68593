// Package contacts answers who there is and who may talk to whom.
package contacts

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
	"parley.example/services/auth/internal/store"
)

const (
	defaultPage = 100
	maxPage     = 1000
	maxNames    = 1000 // of one request
	maxText     = 4096 // bytes of a prefix or a place in a list; more is nobody's name
	countEvery  = time.Minute
)

// Service answers the requests about users and their relations.
type Service struct {
	Store    *store.Store
	Mode     api.Mode
	Limit    int // of the directory
	Log      *slog.Logger
	Announce func(api.DirectoryEvent)
	Now      func() time.Time

	mu      sync.Mutex
	total   int
	counted time.Time
}

var errUnknown = wire.E(wire.UnknownUser, "there is no such user")

// Contacts is a page of a user's contacts.
func (s *Service) Contacts(ctx context.Context, r api.ContactsRequest) (api.ContactsPage, error) {
	if bad(r.Prefix) || bad(r.After) || slices.ContainsFunc(r.Among, bad) {
		return api.ContactsPage{}, wire.E(wire.InvalidArgument, "prefix, after and names are texts without control characters")
	}
	if r.Limit < 0 {
		return api.ContactsPage{}, wire.E(wire.InvalidArgument, "limit is a positive number")
	}
	if r.Limit == 0 {
		r.Limit = defaultPage
	}
	if len(r.Among) > maxNames {
		return api.ContactsPage{}, wire.E(wire.TooLarge, "at most 1000 names in one request")
	}
	u, err := s.find(ctx, r.Username)
	if err != nil {
		return api.ContactsPage{}, err
	}
	list, next, err := s.Store.Contacts(ctx, store.Page{
		UserID: u.ID, Roster: s.Mode == api.Roster, Prefix: r.Prefix, After: r.After, Limit: min(r.Limit, maxPage), Among: r.Among,
	})
	if err != nil {
		return api.ContactsPage{}, s.away(err)
	}
	if list == nil {
		list = []string{}
	}
	return api.ContactsPage{Usernames: list, Next: next}, nil
}

// Resolve gives names their registered form.
func (s *Service) Resolve(ctx context.Context, r api.ResolveRequest) (api.ResolveResponse, error) {
	if len(r.Names) > maxNames {
		return api.ResolveResponse{}, wire.E(wire.TooLarge, "at most 1000 names in one request")
	}
	out := api.ResolveResponse{Usernames: make([]string, len(r.Names))}
	var ask []string
	var at []int
	for i, n := range r.Names {
		if n, err := room.Name(n); err == nil {
			ask, at = append(ask, n), append(at, i)
		}
	}
	living, erased, err := s.Store.Resolve(ctx, ask)
	if err != nil {
		return api.ResolveResponse{}, s.away(err)
	}
	for i := range ask {
		out.Usernames[at[i]] = living[i]
		if erased[i] == "" {
			continue
		}
		if out.Erased == nil {
			out.Erased = make([]string, len(r.Names))
		}
		out.Erased[at[i]] = erased[i]
	}
	return out, nil
}

// Relations is what decides with whom a user may talk.
func (s *Service) Relations(ctx context.Context, r api.RelationsRequest) (api.Relations, error) {
	name, err := room.Name(r.Username)
	if err != nil {
		return api.Relations{}, errUnknown
	}
	rel, err := s.Store.Relations(ctx, name)
	if err != nil {
		return api.Relations{}, s.away(err)
	}
	out := api.Relations{
		Mode: s.Mode, Version: rel.Version, Disabled: rel.User.Disabled,
		Blocked: rel.Blocked, BlockedBy: rel.BlockedBy, BlockedByMore: rel.BlockedByMore,
	}
	if s.Mode == api.Roster {
		out.Contacts = rel.Contacts
	}
	return out, nil
}

// Directory is all names, while they are few.
func (s *Service) Directory(ctx context.Context, r api.DirectoryRequest) (api.DirectoryResponse, error) {
	out := api.DirectoryResponse{Mode: s.Mode, Limit: s.Limit}
	var err error
	if out.Version, err = s.Store.Version(ctx); err != nil {
		return out, s.away(err)
	}
	if out.Changed, out.ChangedKnown, err = s.Store.Changed(ctx, r.Since, out.Version); err != nil {
		return out, s.away(err)
	}
	list, err := s.Store.First(ctx, s.Limit+1)
	if err != nil {
		return out, s.away(err)
	}
	if out.Total = len(list); out.Total <= s.Limit {
		out.Usernames = list
		return out, nil
	}
	out.Total, err = s.count(ctx)
	if err != nil {
		return out, s.away(err)
	}
	out.Total = max(out.Total, s.Limit+1)
	return out, nil
}

// count is at most a minute old: counting reads the whole table, and every gateway asks.
func (s *Service) count(ctx context.Context) (int, error) {
	s.mu.Lock()
	total, fresh := s.total, s.Now().Sub(s.counted) < countEvery
	s.mu.Unlock()
	if fresh {
		return total, nil
	}
	total, err := s.Store.Count(ctx)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total, s.counted = total, s.Now()
	return total, nil
}

// PutContact asks for a contact or agrees to one. In roster mode an unknown peer and one that blocked the asker answer
// like any that has not agreed yet.
func (s *Service) PutContact(ctx context.Context, r api.PairRequest) (api.PairResponse, error) {
	u, p, err := s.pair(ctx, r)
	if err != nil {
		return api.PairResponse{}, err
	}
	requested := api.PairResponse{State: "requested"}
	switch {
	case s.Mode == api.Everyone && p.ID == 0:
		return api.PairResponse{}, errUnknown
	case s.Mode == api.Everyone:
		return api.PairResponse{State: "contact"}, nil
	case p.ID == 0:
		return requested, nil
	}
	contact, added, err := s.Store.PutContact(ctx, u, p, s.Now())
	if err != nil {
		return api.PairResponse{}, s.away(err)
	}
	if added {
		s.Announce(api.DirectoryEvent{Kind: api.EventContactAdded, Username: u.Username, Peer: p.Username})
	}
	if contact {
		return api.PairResponse{State: "contact"}, nil
	}
	return requested, nil
}

// DeleteContact ends a contact, or takes a request for one back.
func (s *Service) DeleteContact(ctx context.Context, r api.PairRequest) (api.Empty, error) {
	u, p, err := s.pair(ctx, r)
	if err != nil || p.ID == 0 || s.Mode == api.Everyone {
		return api.Empty{}, err
	}
	removed, err := s.Store.DeleteContact(ctx, u, p)
	if err != nil {
		return api.Empty{}, s.away(err)
	}
	if removed {
		s.Announce(api.DirectoryEvent{Kind: api.EventContactRemoved, Username: u.Username, Peer: p.Username})
	}
	return api.Empty{}, nil
}

// PutBlock blocks a user, which also ends a contact. In roster mode nothing tells whether there is such a user.
func (s *Service) PutBlock(ctx context.Context, r api.PairRequest) (api.Empty, error) {
	u, p, err := s.pair(ctx, r)
	if err != nil {
		return api.Empty{}, err
	}
	if p.ID == 0 {
		if s.Mode == api.Everyone {
			return api.Empty{}, errUnknown
		}
		return api.Empty{}, nil
	}
	removed, err := s.Store.PutBlock(ctx, u, p, s.Now())
	if err != nil {
		return api.Empty{}, s.away(err)
	}
	s.Announce(api.DirectoryEvent{Kind: api.EventRelations, Username: u.Username, Peer: p.Username})
	if removed && s.Mode == api.Roster {
		s.Announce(api.DirectoryEvent{Kind: api.EventContactRemoved, Username: u.Username, Peer: p.Username})
	}
	return api.Empty{}, nil
}

// DeleteBlock takes a block back.
func (s *Service) DeleteBlock(ctx context.Context, r api.PairRequest) (api.Empty, error) {
	u, p, err := s.pair(ctx, r)
	if err != nil || p.ID == 0 {
		return api.Empty{}, err
	}
	if err := s.Store.DeleteBlock(ctx, u, p); err != nil {
		return api.Empty{}, s.away(err)
	}
	s.Announce(api.DirectoryEvent{Kind: api.EventRelations, Username: u.Username, Peer: p.Username})
	return api.Empty{}, nil
}

// pair finds both users; the peer has no ID when there is none.
func (s *Service) pair(ctx context.Context, r api.PairRequest) (u, p store.User, err error) {
	if u, err = s.find(ctx, r.Username); err != nil {
		return u, p, err
	}
	p, err = s.find(ctx, r.Peer)
	if e := (*wire.Error)(nil); errors.As(err, &e) && e.Code == wire.UnknownUser {
		return u, store.User{}, nil
	}
	if err == nil && u.ID == p.ID {
		return u, p, wire.E(wire.InvalidArgument, "nobody is a contact of oneself")
	}
	return u, p, err
}

func (s *Service) find(ctx context.Context, name string) (store.User, error) {
	name, err := room.Name(name)
	if err != nil {
		return store.User{}, errUnknown
	}
	u, err := s.Store.UserByName(ctx, name)
	if err != nil {
		return store.User{}, s.away(err)
	}
	return u, nil
}

// away makes an answer of an inside error: what is no answer yet means that SQL is away.
func (s *Service) away(err error) error {
	switch {
	case errors.Is(err, store.ErrNoUser):
		return errUnknown
	case errors.Is(err, store.ErrFull):
		return wire.E(wire.TooLarge, "the list is full")
	}
	s.Log.Warn("cannot answer", "error", err)
	return rpc.ErrUnavailable
}

// bad finds what PostgreSQL would refuse, so that a strange question is not taken for an outage.
func bad(s string) bool {
	return len(s) > maxText || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0
}
