package scenario

import (
	"archive/zip"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// administration: parley user beside the services, over their SQL and NATS. Each gateway hears of it.
func administration(t *testing.T, e *env) {
	must := func(stdin string, args ...string) string {
		t.Helper()
		status, out := e.Parley(stdin, append([]string{"user"}, args...)...)
		if status != 0 {
			t.Fatalf("parley user %s ended with %d:\n%s", args, status, out)
		}
		return out
	}
	peer := e.User("peer")
	name := peer.Name + "-Admin"
	must(harness.Password+"\n", "add", name)
	if status, _ := e.Parley(harness.Password+"\n", "user", "add", strings.ToUpper(name)); status != 4 {
		t.Errorf("a name that is taken: status %d", status)
	}
	gone := func(c *client.Conn, want wire.Close) {
		t.Helper()
		for range c.Events() { //nolint:revive // until the server closes it
		}
		var ce *client.CloseError
		if !errors.As(c.Err(), &ce) || ce.Code != want.Code {
			t.Errorf("the connection ended with %v", c.Err())
		}
	}

	user := e.Login(name)
	room := harness.Room(user, peer)
	conn := user.Dial(client.Options{}, e.at(1))
	for _, text := range []string{"a secret", "another one"} {
		if _, err := conn.Send(t.Context(), room, text); err != nil {
			t.Fatal(err)
		}
	}
	answer := peer.Dial(client.Options{}, e.at(2))
	if _, err := answer.Send(t.Context(), room, "and an answer"); err != nil {
		t.Fatal(err)
	}
	peer.History(t, e.at(0), room, 3)

	file := filepath.Join(t.TempDir(), "export.zip")
	must("", "export", name, "--out", file)
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	all := ""
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all += string(b)
	}
	for _, want := range []string{name, "a secret", "another one", "and an answer"} {
		if !strings.Contains(all, want) {
			t.Errorf("the export lacks %q", want)
		}
	}

	must("a better password\n", "passwd", name)
	gone(conn, wire.CloseTokenRevoked)
	if a := e.Do(http.MethodPost, e.at(0)+"/v1/sessions", "", map[string]string{"username": name, "password": harness.Password}); a.Status != http.StatusUnauthorized {
		t.Errorf("the old password gives %d", a.Status)
	}
	must(harness.Password+"\n", "passwd", name)
	conn = e.Login(name).Dial(client.Options{}, e.at(2))
	must("", "disable", name)
	gone(conn, wire.CloseUserDisabled)
	if a := e.Do(http.MethodPost, e.at(0)+"/v1/sessions", "", map[string]string{"username": name, "password": harness.Password}); a.Status != http.StatusForbidden {
		t.Errorf("a disabled user gets %d", a.Status)
	}
	must("", "enable", name)
	// A revocation of a user counts for everything up to its second; the login must be of a later one.
	var back *harness.User
	testx.Eventually(t, "the user may come back", 10*time.Second, func() bool {
		back = e.Login(name)
		return e.Do(http.MethodGet, e.at(0)+"/v1/contacts", back.Tokens.AccessToken, nil).Status == http.StatusOK
	})
	conn = back.Dial(client.Options{}, e.at(1))
	if out := must("", "erase", name, "--yes"); !strings.Contains(out, "emptied: 2") {
		t.Errorf("erase printed %q", out)
	}
	gone(conn, wire.CloseUserDisabled)
	if out := must("", "list"); strings.Contains(out, name) || !strings.Contains(out, peer.Name) {
		t.Errorf("the list has\n%s", out)
	}
	// The peer keeps the places, and their own words; resuming from the beginning brings each place once.
	for _, spelling := range []string{room, strings.ToLower(room), strings.ToUpper(room)} {
		var got []string
		for m, err := range peer.Session(e.at(0)).HistoryAfter(t.Context(), spelling, 0) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m.Content)
		}
		if want := "||and an answer"; strings.Join(got, "|") != want {
			t.Errorf("the peer reads %q of %s", got, spelling)
		}
		again := peer.Connect(e.at(1))
		again.Join(map[string]any{"rooms": []string{spelling}, "since": map[string]int64{room: 0}})
		if n := len(again.Received(room)); n != 3 {
			t.Errorf("who joins %s from the beginning gets %d messages, want 3", spelling, n)
		}
	}
	if status, _ := e.Parley("", "user", "erase", name, "--yes"); status != 3 {
		t.Errorf("erased twice: status %d", status)
	}
}
