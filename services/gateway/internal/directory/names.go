package directory

import (
	"context"
	"errors"
	"time"

	"parley/pkg/api"
	"parley/pkg/room"
	"parley/pkg/wire"
)

// name is what is known of one spelling; registered is "" when nobody had it.
type name struct {
	registered string
	at         time.Time
}

var errUnknown = wire.E(wire.UnknownUser, "there is no such user")

// Resolve gives a name, in any case, its registered form. Errors are *wire.Error: unknown_user, or unavailable when auth
// cannot be asked about a name that nobody here has asked for before.
func (d *Directory) Resolve(ctx context.Context, spelling string) (string, error) {
	small := d.small.Load()
	if small != nil {
		if _, ok := small.exact[spelling]; ok {
			return spelling, nil
		}
	}
	known, ok := d.names.Get(spelling)
	if ok {
		age := time.Since(known.at)
		switch {
		case known.registered != "" && age < d.times.fresh:
			return known.registered, nil
		case known.registered == "" && age < d.times.negative:
			return "", errUnknown
		}
	}
	clean, err := room.Name(spelling)
	if err != nil {
		return "", errUnknown
	}
	folded := room.Fold(clean)
	if small != nil {
		if registered, ok := small.folded[folded]; ok {
			return registered, nil
		}
	}
	registered, err := d.ask(ctx, folded, clean, known.registered != "")
	if err != nil && known.registered != "" {
		return known.registered, nil // old is better than nothing
	}
	if err != nil {
		return "", err
	}
	d.names.Add(spelling, name{registered, time.Now()})
	if registered == "" {
		return "", errUnknown
	}
	d.names.Add(registered, name{registered, time.Now()})
	return registered, nil
}

// ask asks auth, once for all who ask for the same name at a time. Who has an old answer waits but a moment.
func (d *Directory) ask(ctx context.Context, folded, clean string, hasOld bool) (string, error) {
	if !d.available() {
		return "", api.ErrUnavailable
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
			return "", r.Err
		}
		return r.Val.(string), nil //nolint:forcetypeassert // see askAuth
	case <-enough:
	case <-ctx.Done():
	}
	return "", api.ErrUnavailable
}

// askAuth has a context of its own: whoever asked first may leave while others wait.
func (d *Directory) askAuth(clean string) (registered string, err error) {
	ctx, cancel := context.WithTimeout(d.base, d.times.call)
	defer cancel()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return "", api.ErrUnavailable
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
		return "", api.ErrUnavailable
	case r.Usernames[0] == "":
		d.m.lookups.WithLabelValues("unknown").Inc()
	default:
		d.m.lookups.WithLabelValues("ok").Inc()
	}
	return r.Usernames[0], nil
}

// forget drops an erased name. Other spellings of it run out by themselves.
func (d *Directory) forget(registered string) { d.names.Remove(registered) }
