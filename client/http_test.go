package client_test

import (
	"errors"
	"testing"

	"parley.example/client"
	"parley.example/client/wire"
)

// Rule 12.
func TestHTTPErrorsAreTyped(t *testing.T) {
	f := newFake(t)
	var we *wire.Error
	if _, err := f.client().Login(t.Context(), "lisa", "wrong"); !errors.As(err, &we) || we.Code != wire.Unauthenticated || we.Message != "wrong user name or password" {
		t.Errorf("login gave %v", err)
	}
	f.set(func() { f.pagesDown = true })
	if _, err := f.session("lisa").Messages(t.Context(), room, client.MessagesQuery{}); !errors.As(err, &we) || we.Code != wire.Unavailable || we.RetryAfterMS != 2000 {
		t.Errorf("messages gave %v", err)
	}
	if _, err := f.session("nobody").Messages(t.Context(), room, client.MessagesQuery{}); !errors.As(err, &we) || we.Code != wire.Unauthenticated {
		t.Errorf("messages gave %v", err)
	}
	for _, u := range []string{"", "localhost:8080", "ftp://x", "http://"} {
		if _, err := client.New(u, nil); err == nil {
			t.Errorf("New took %q", u)
		}
	}
}

// Rules 12 and 13.
func TestRequestRenewsRefusedToken(t *testing.T) {
	f := newFake(t)
	me, err := f.client().Login(t.Context(), "lisa", "secret")
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() { delete(f.tokens, "tok-lisa") })
	errs := make(chan error)
	for range 5 { // together, yet one refresh: a second use of the token would end the login
		go func() {
			_, err := me.Messages(t.Context(), room, client.MessagesQuery{})
			errs <- err
		}()
	}
	for range 5 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if f.refreshes != 1 {
		t.Errorf("%d refreshes", f.refreshes)
	}
}
