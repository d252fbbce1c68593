package main_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
)

// TestTokenKeyLost: a lost key ends no login. Its public half is in NATS; when that is lost as well, refresh tokens are traded for tokens of the new key.
func TestTokenKeyLost(t *testing.T) {
	data := t.TempDir()
	s := start(t, data)
	tokens := s.login("Avi", "MoreMoreMore").Tokens()
	lose := func(names ...string) *client.Client {
		t.Helper()
		if status := s.stop(syscall.SIGTERM); status != 0 {
			t.Fatalf("status %d", status)
		}
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(data, name)); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(data, name)); err != nil {
				t.Fatal(err)
			}
		}
		s = start(t, data)
		api, err := client.New(s.url, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		return api
	}
	contacts := func(api *client.Client, tokens client.Tokens) error {
		_, err := api.Session(tokens).Contacts(t.Context(), client.ContactsQuery{})
		return err
	}

	api := lose("token.key")
	old := client.Tokens{AccessToken: tokens.AccessToken}
	if err := contacts(api, old); err != nil {
		t.Errorf("a token of the lost key: %v", err)
	}
	me := api.Session(tokens)
	if err := me.Refresh(t.Context()); err != nil {
		t.Fatalf("refresh after the key was lost: %v", err)
	}
	tokens = me.Tokens()

	api = lose("token.key", "nats")
	var refused *wire.Error
	if err := contacts(api, old); !errors.As(err, &refused) || refused.Code != wire.Unauthenticated {
		t.Errorf("a token of the lost key, whose public half is lost: %v", err)
	}
	if err := contacts(api, tokens); err != nil {
		t.Errorf("a login whose token is void: %v", err)
	}
}
