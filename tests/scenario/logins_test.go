package scenario

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// lostRefreshes: two who share one login refresh at the same time, a hundred times, and answers are lost at random. Nobody is logged out. Then
// somebody else comes with an old token, and everybody is.
func lostRefreshes(t *testing.T, e *env) {
	lisa := e.Login(e.User("lisa").Name)
	open := lisa.Joined(e.at(1))
	stolen := lisa.Tokens.RefreshToken
	var tabs []*client.Session
	var roads []*harness.Lossy
	for i := range 2 {
		road := e.Lossy(e.at(i), "/v1/sessions/refresh")
		roads = append(roads, road)
		tabs = append(tabs, lisa.Session(road.URL))
	}
	for roads[0].Lost.Load()+roads[1].Lost.Load() < 100 && !t.Failed() {
		both(func(i int) {
			old := tabs[i].Tokens().RefreshToken
			for tabs[i].Tokens().RefreshToken == old { // the SDK asks a few times by itself
				var said *wire.Error
				if err := tabs[i].Refresh(t.Context()); errors.As(err, &said) {
					t.Errorf("tab %d: %v", i, err)
					return
				}
			}
		})
		both(func(i int) {
			if _, err := tabs[i].Conversations(t.Context(), "", 1); err != nil {
				t.Errorf("tab %d with its new token: %v", i, err)
			}
		})
	}
	if t.Failed() {
		return
	}
	open.Barrier() // nobody has closed it
	if a := refreshWith(e, 0, stolen); a.Status != http.StatusUnauthorized {
		t.Errorf("a stolen token: %d %s", a.Status, a.Body)
	}
	if code := open.Closed(harness.Within); code != wire.CloseTokenRevoked.Code {
		t.Errorf("after the theft, closed with %d", code)
	}
	for i, tab := range tabs {
		if a := refreshWith(e, i, tab.Tokens().RefreshToken); a.Status != http.StatusUnauthorized {
			t.Errorf("after the theft, tab %d: %d %s", i, a.Status, a.Body)
		}
	}
}

func both(f func(i int)) {
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func refreshWith(e *env, gateway int, tok string) harness.Answer {
	return e.Do(http.MethodPost, e.at(gateway)+"/v1/sessions/refresh", "", map[string]string{"refresh_token": tok})
}

// firstUse: a refresh token stays good until what it was traded for is used, at any gateway.
func firstUse(t *testing.T, e *env) {
	lisa := e.Login(e.User("lisa").Name)
	trade := func(tok string) (fresh client.Tokens) {
		t.Helper()
		a := refreshWith(e, 0, tok)
		if err := json.Unmarshal(a.Body, &fresh); a.Status != http.StatusCreated || err != nil {
			t.Fatalf("refresh: %d %s", a.Status, a.Body)
		}
		return fresh
	}
	first := trade(lisa.Tokens.RefreshToken)
	fresh := trade(lisa.Tokens.RefreshToken)
	if fresh.RefreshToken != first.RefreshToken {
		t.Error("asked again, the refresh token is another one")
	}
	if a := e.Do(http.MethodGet, e.at(2)+"/v1/conversations", fresh.AccessToken, nil); a.Status != http.StatusOK {
		t.Fatalf("with the new token: %d %s", a.Status, a.Body)
	}
	testx.Eventually(t, "the old token is taken for stolen", harness.Within, func() bool {
		return refreshWith(e, 0, lisa.Tokens.RefreshToken).Status == http.StatusUnauthorized
	})
	if a := refreshWith(e, 1, fresh.RefreshToken); a.Status != http.StatusUnauthorized {
		t.Errorf("the login goes on: %d %s", a.Status, a.Body)
	}
}

// passwordChange: of more logins than are kept, through all doors, none opens anything after a change of the password.
func passwordChange(t *testing.T, e *env) {
	name := e.User("lisa").Name
	type login struct{ native, refresh, legacy string }
	var list []login
	for i := range 101 {
		if i%4 != 0 { // most logins are those of old clients, which log in at every start
			list = append(list, login{legacy: legacyLogin(t, e, name)})
			continue
		}
		u := e.Login(name)
		list = append(list, login{native: u.Tokens.AccessToken, refresh: u.Tokens.RefreshToken})
	}
	ws, _, err := harness.DialWS(t, e.at(1), harness.DialOptions{Token: list[100].native})
	if err != nil {
		t.Fatal(err)
	}
	ws.Expect(wire.EvWelcome, nil)
	opens := func(gateway int, l login) bool {
		switch {
		case l.legacy != "":
			return legacyContacts(t, e, gateway, name, l.legacy)
		case e.Do(http.MethodGet, e.at(gateway)+"/v1/conversations", l.native, nil).Status == http.StatusOK:
			return true
		}
		return false
	}
	// The first one was pushed out by the last: it is void before anything else happens.
	testx.Eventually(t, "the login that was one too many is void", harness.Within, func() bool { return !opens(2, list[0]) })
	if !opens(2, list[1]) || !opens(1, list[100]) {
		t.Fatal("a login within the limit is void")
	}
	if status, out := e.Parley("another password\n", "user", "passwd", name); status != 0 {
		t.Fatalf("parley user passwd: %d\n%s", status, out)
	}
	if code := ws.Closed(harness.Within); code != wire.CloseTokenRevoked.Code {
		t.Errorf("an open connection: closed with %d", code)
	}
	for g := range e.Gateways {
		testx.Eventually(t, "each gateway has heard of it", harness.Within, func() bool { return !opens(g, list[100]) })
		for i, l := range list {
			if opens(g, l) {
				t.Errorf("login %d of 101 is good at gateway %d", i, g)
			}
		}
	}
	for i, l := range list {
		if l.refresh != "" && refreshWith(e, i, l.refresh).Status != http.StatusUnauthorized {
			t.Errorf("login %d of 101 can be refreshed", i)
		}
	}
}

func legacyLogin(t *testing.T, e *env, name string) string {
	t.Helper()
	var out struct{ Token string }
	for { // hashes of other scenarios may fill the queue
		a := e.Do(http.MethodPost, e.at(0)+"/log_in", "", map[string]string{"username": name, "password": harness.Password})
		if a.Status == http.StatusTooManyRequests {
			time.Sleep(50 * time.Millisecond) // what the server asks for
			continue
		}
		if err := json.Unmarshal(a.Body, &out); err != nil || out.Token == "" {
			t.Fatalf("log in: %d %s", a.Status, a.Body)
		}
		return out.Token
	}
}

func legacyContacts(t *testing.T, e *env, gateway int, name, jwt string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.at(gateway)+"/get_contacts_list/"+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("username", name)
	req.Header.Set("jwt", jwt)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct {
		Contacts map[string]string
		Error    string
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	if out.Contacts == nil && !strings.Contains(out.Error, "Invalid JWT") {
		t.Errorf("contacts: %d %+v", resp.StatusCode, out)
	}
	return out.Contacts != nil
}
