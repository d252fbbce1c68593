package directory

import (
	"context"
	"errors"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/room"
	"parley.example/pkg/rpc"
)

// name is what is known of one spelling; registered is "" when nobody had it.
type name struct {
	registered string
	erased     bool // its user was, and nobody gets the name again
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
	known, good := d.names.fresh(spelling)
	if good {
		return known, nil
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
	return d.names.ask(ctx, spelling, folded, known.registered != "", d.times.patience, func(ctx context.Context) (name, error) { return d.askAuth(ctx, clean) })
}

func (d *Directory) askAuth(ctx context.Context, clean string) (name, error) {
	r, err := question(&d.auth, func() (api.ResolveResponse, error) {
		return api.AuthResolve.Call(ctx, d.auth.services, api.ResolveRequest{Names: []string{clean}})
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
		out := name{registered: r.Usernames[0]}
		d.names.put(out.registered, out)
		return out, nil
	}
	d.m.lookups.WithLabelValues("unknown").Inc()
	var out name
	if len(r.Erased) == 1 && r.Erased[0] != "" {
		out.registered, out.erased = r.Erased[0], true
		d.names.put(out.registered, out)
	}
	return out, nil
}

// forget drops an erased name. Other spellings of it run out by themselves.
func (d *Directory) forget(registered string) { d.names.rows.Remove(registered) }
