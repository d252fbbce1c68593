package main_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/services/auth"
)

// user runs parley user on a data folder.
func user(t *testing.T, data, stdin string, args ...string) (status int, out string) {
	t.Helper()
	cmd := exec.Command(binary, append(append([]string{"user"}, args...), "--data", data)...)
	cmd.Stdin = strings.NewReader(stdin)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "DATA RACE") {
		t.Errorf("data race:\n%s", &b)
	}
	return cmd.ProcessState.ExitCode(), b.String()
}

// must is user for what has to succeed.
func must(t *testing.T, data, stdin string, args ...string) string {
	t.Helper()
	status, out := user(t, data, stdin, args...)
	if status != 0 {
		t.Fatalf("parley user %v ended with %d:\n%s", args, status, out)
	}
	return out
}

func (s *server) refuses(name, password string, want wire.Code) {
	s.t.Helper()
	api, err := client.New(s.url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = api.Login(s.t.Context(), name, password)
	var we *wire.Error
	if !errors.As(err, &we) || we.Code != want {
		s.t.Errorf("a login of %s gave %v, want %s", name, err, want)
	}
}

// The administration while the server runs, and of the same folder afterwards.
func TestUserCommands(t *testing.T) {
	data := t.TempDir()
	s := start(t, data)
	if out := must(t, data, "a long password\n", "add", "Mona"); out != "added Mona\n" {
		t.Errorf("add printed %q", out)
	}
	mona, lisa := s.dial(s.login("mona", "a long password")), s.dial(s.login("Lisa", "TestMe"))
	room := client.Room("Lisa", "Mona")
	for _, text := range []string{"my secret", "and one more"} {
		if _, err := mona.Send(t.Context(), room, text); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := lisa.Send(t.Context(), room, "a kind answer"); err != nil {
		t.Fatal(err)
	}
	me := s.login("Lisa", "TestMe")
	texts := func() (out []string) {
		for m, err := range me.HistoryAfter(t.Context(), room, 0) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, m.Sender+":"+m.Content)
		}
		return out
	}
	testx.Eventually(t, "history has it", 20*time.Second, func() bool { return len(texts()) == 3 })

	// The running server is asked.
	file := filepath.Join(t.TempDir(), "mona.zip")
	must(t, data, "", "export", "mona", "--out", file)
	checkExport(t, file)
	if out := must(t, data, "another password\n", "passwd", "mona"); !strings.Contains(out, "logins that ended: 1") {
		t.Errorf("passwd printed %q", out)
	}
	for range mona.Events() { //nolint:revive // until the server closes it
	}
	var ce *client.CloseError
	if !errors.As(mona.Err(), &ce) || ce.Code != wire.CloseTokenRevoked.Code {
		t.Errorf("a changed password left the connection with %v", mona.Err())
	}
	s.refuses("mona", "a long password", wire.Unauthenticated)
	mona = s.dial(s.login("mona", "another password"))
	must(t, data, "", "disable", "mona")
	for range mona.Events() { //nolint:revive // until the server closes it
	}
	s.refuses("mona", "another password", wire.Forbidden)
	var listed []auth.Account
	dec := json.NewDecoder(strings.NewReader(must(t, data, "", "list", "--json")))
	for dec.More() {
		var a auth.Account
		if err := dec.Decode(&a); err != nil {
			t.Fatal(err)
		}
		listed = append(listed, a)
	}
	if n := len(listed); n != 7 || listed[5].Username != "Mona" || listed[5].Disabled == nil || !listed[0].Admin {
		t.Errorf("listed %+v", listed)
	}
	must(t, data, "", "enable", "mona")
	mona = s.dial(s.login("mona", "another password"))
	if out := must(t, data, "", "erase", "mona", "--yes"); !strings.Contains(out, "emptied: 2") {
		t.Errorf("erase printed %q", out)
	}
	for range mona.Events() { //nolint:revive // until the server closes it
	}
	s.refuses("mona", "another password", wire.Unauthenticated)
	if got := strings.Join(texts(), " "); got != "Mona: Mona: Lisa:a kind answer" {
		t.Errorf("lisa's history has %q", got)
	}
	for _, tc := range []struct {
		status int
		stdin  string
		args   string
		want   string
	}{
		{3, "", "disable mona", "no such user"},
		{4, "a long password\n", "add MONA", "taken"},
		{4, "short\n", "passwd lisa", "at least 8"},
		{2, "", "passwd lisa", "no line with a password"},
		{2, "", "passwd lisa --password secret1234", "unknown flag --password"},
		{2, "", "passwd", "takes a NAME"},
		{2, "", "list lisa", "takes no name"},
		{2, "", "erase lisa", "--yes"},
		{2, "", "delete lisa", `no "delete"`},
		{3, "", "export nobody --out -", "no such user"},
	} {
		if status, out := user(t, data, tc.stdin, strings.Fields(tc.args)...); status != tc.status || !strings.Contains(out, tc.want) {
			t.Errorf("parley user %s: status %d, want %d with %q:\n%s", tc.args, status, tc.status, tc.want, out)
		}
	}

	// Nobody serves it now: the folder itself is opened.
	_ = lisa.Close()
	s.stop(syscall.SIGKILL)
	if out := must(t, data, "", "erase", "Lisa", "--yes"); !strings.Contains(out, "emptied: 1") {
		t.Errorf("erase of a stopped server printed %q", out)
	}
	must(t, data, "a long password\n", "add", "Nora")
	s = start(t, data)
	s.refuses("Lisa", "TestMe", wire.Unauthenticated)
	s.login("nora", "a long password")
	if status, out := user(t, filepath.Join(data, "nowhere"), "", "list"); status != 2 || !strings.Contains(out, "no data folder") {
		t.Errorf("a folder that is not there: %d %s", status, out)
	}
}

func checkExport(t *testing.T, file string) {
	t.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	names := ""
	for _, f := range z.File {
		names += f.Name + " "
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil || !json.Valid(b) {
			t.Errorf("%s is no JSON (%v):\n%s", f.Name, err, b)
		}
		_ = r.Close() // it was read to its end
		for name, wants := range map[string][]string{
			"account.json": {`"username": "Mona"`, `"logins"`}, "conversations/00001.json": {"my secret", "a kind answer", `"peer":"Lisa"`},
		} {
			for _, want := range wants {
				if name == f.Name && !strings.Contains(string(b), want) {
					t.Errorf("%s lacks %s:\n%s", name, want, b)
				}
			}
		}
		if strings.Contains(string(b), "argon2") {
			t.Errorf("%s has the hash of the password", f.Name)
		}
	}
	if names != "account.json devices.json conversations/00001.json " {
		t.Errorf("the export has %s", names)
	}
}
