// Package lifecycle has the two stops of a service: first take no new work, then abort what is left.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// Signals returns a context that ends with the first SIGINT or SIGTERM (drain). A second
// signal kills the process in the usual way.
func Signals() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Group runs parts of a program: the first that returns an error ends the others. A part
// that ends without one does not.
func Group(ctx context.Context, parts ...func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range parts {
		g.Go(func() error { return p(ctx) })
	}
	return g.Wait()
}

// Exit statuses of commands that people and scripts run. A service that fails ends with StatusFailed.
const (
	StatusFailed  = 1 // anything else
	StatusUsage   = 2 // the command line is wrong
	StatusUnknown = 3 // there is no such user
	StatusRefused = 4 // a name that is taken, a password that is wrong or too short, something that one may not do
	StatusAway    = 5 // a server or a store cannot be reached now; try again
)

// StatusError is an error with an exit status.
type StatusError struct {
	Status int
	Err    error
}

// Error is that of Err.
func (e *StatusError) Error() string { return e.Err.Error() }

// Unwrap gives Err.
func (e *StatusError) Unwrap() error { return e.Err }

// Exit is the end of every main: it prints err and gives the exit status.
func Exit(name string, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	var se *StatusError
	if errors.As(err, &se) {
		os.Exit(se.Status)
	}
	os.Exit(StatusFailed)
}
