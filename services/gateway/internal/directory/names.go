package directory

import (
	"context"
	"errors"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
)

// name is what is known of one spelling; registered is "" when nobody had it.
type name struct {
	registered string
	erased     bool // its user was, and nobody gets the name again
	at         time.Time
}

var errUnknown = wire.E(wire.UnknownUser, "there is no such user")

// Resolve gives a name, in any case, its registered form. Errors are *wire.Error: unknown_user, or unavailable when auth
// cannot be asked about a name that nobody here has asked for before.
func (d *Directory) Resolve(ctx context.Context, spelling string) (string, error) {
	n, err := d.find(ctx, spelling)
	if err == nil && (n.registered == "" || n.erased) {
		err = errUnknown
	}
	if err != nil {
		return "", err
	}
	return n.registered, nil
}

// Recall is Resolve for a room of the asker's own, which outlives the other user: gone says that nobody has the name. Then it is given as it was
// registered, or as it stands when nobody ever had it; whoever passes on which of the two it is tells that there was such a user.
func (d *Directory) Recall(ctx context.Context, spelling string) (registered string, gone bool, err error) {
	n, err := d.find(ctx, spelling)
	switch {
	case err != nil:
		return "", false, err
	case n.registered == "":
		return spelling, true, nil
	}
	return n.registered, n.erased, nil
}

// find looks a name up, here and then with auth.
func (d *Directory) find(ctx context.Context, spelling string) (name, error) {
	small := d.small.Load()
	if small != nil {
		if _, ok := small.exact[spelling]; ok {
			return name{registered: spelling}, nil
		}
	}
	known, ok := d.names.Get(spelling)
	if ok {
		good := d.times.fresh
		if known.registered == "" {
			good = d.times.negative
		}
		if time.Since(known.at) < good {
			return known, nil
		}
	}
	clean, err := room.Name(spelling)
	if err != nil {
		return name{}, nil
	}
	folded := room.Fold(clean)
	if small != nil {
		if registered, ok := small.folded[folded]; ok {
			return name{registered: registered}, nil
		}
	}
	found, err := d.ask(ctx, folded, clean, known.registered != "")
	if err != nil && known.registered != "" {
		return known, nil // old is better than nothing
	}
	if err != nil {
		return name{}, err
	}
	d.names.Add(spelling, found)
	if found.registered != "" {
		d.names.Add(found.registered, found)
	}
	return found, nil
}

// ask asks auth, once for all who ask for the same name at a time. Who has an old answer waits but a moment.
func (d *Directory) ask(ctx context.Context, folded, clean string, hasOld bool) (name, error) {
	if !d.available() {
		return name{}, rpc.ErrUnavailable
	}
	ch := d.calls.DoChan(folded, func() (any, error) { return d.askAuth(clean) })
	var enough <-chan time.Time
	if hasOld {
		t := time.NewTimer(d.times.patience)
		defer t.Stop()
		enough = t.C
	}
	select {
	case r := <-ch:
		if r.Err != nil {
			return name{}, r.Err
		}
		return r.Val.(name), nil //nolint:forcetypeassert // see askAuth
	case <-enough:
	case <-ctx.Done():
	}
	return name{}, rpc.ErrUnavailable
}

// askAuth has a context of its own: whoever asked first may leave while others wait.
func (d *Directory) askAuth(clean string) (name, error) {
	ctx, cancel := context.WithTimeout(d.base, d.times.call)
	defer cancel()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return name{}, rpc.ErrUnavailable
	}
	r, err := question(d, func() (api.ResolveResponse, error) {
		return d.client.AuthResolve(ctx, api.ResolveRequest{Names: []string{clean}})
	})
	if err == nil && len(r.Usernames) != 1 {
		err = errors.New("auth answered another question")
	}
	switch {
	case err != nil:
		d.m.lookups.WithLabelValues("unavailable").Inc()
		return name{}, rpc.ErrUnavailable
	case r.Usernames[0] != "":
		d.m.lookups.WithLabelValues("ok").Inc()
		return name{registered: r.Usernames[0], at: time.Now()}, nil
	}
	d.m.lookups.WithLabelValues("unknown").Inc()
	out := name{at: time.Now()}
	if len(r.Erased) == 1 && r.Erased[0] != "" {
		out.registered, out.erased = r.Erased[0], true
	}
	return out, nil
}

// forget drops an erased name. Other spellings of it run out by themselves.
func (d *Directory) forget(registered string) { d.names.Remove(registered) }
