package scenario

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley.example/client/wire"
	"parley.example/pkg/token"
	"parley.example/tests/harness"
)

// forged are tokens that must not open anything, by how they came to be.
func forged(t *testing.T, e *env, u *harness.User) map[string]string {
	t.Helper()
	parts := strings.Split(u.Tokens.AccessToken, ".")
	if len(parts) != 3 {
		t.Fatalf("the access token has %d parts", len(parts))
	}
	header := func(change map[string]any) string {
		raw, err := base64.RawURLEncoding.DecodeString(parts[0])
		if err != nil {
			t.Fatal(err)
		}
		h := map[string]any{}
		if err := json.Unmarshal(raw, &h); err != nil {
			t.Fatal(err)
		}
		for k, v := range change {
			h[k] = v
		}
		raw, err = json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	public := e.Key().Public().(ed25519.PublicKey)
	hs, err := jwt.SigningMethodHS256.Sign(header(map[string]any{"alg": "HS256"})+"."+parts[1], []byte(public))
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := token.NewSigner(otherKey).Sign(token.Claims{Username: u.Name, SID: "s", Scope: token.ScopeNative, Issued: time.Now(), Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	// The other key's signature under the deployment's key id.
	otherParts := strings.Split(other, ".")
	stolenID := header(nil) + "." + otherParts[1]
	sig, err := jwt.SigningMethodEdDSA.Sign(stolenID, otherKey)
	if err != nil {
		t.Fatal(err)
	}
	revoked := e.Login(u.Name)
	if a := e.Do(http.MethodDelete, e.at(1)+"/v1/sessions/current", revoked.Tokens.AccessToken, nil); a.Status != http.StatusNoContent {
		t.Fatalf("log out: %d %s", a.Status, a.Body)
	}
	return map[string]string{
		"nonsense":                     "nonsense",
		"empty":                        "",
		"expired":                      u.Mint(time.Now().Add(-time.Minute)),
		"revoked":                      revoked.Tokens.AccessToken,
		"alg none":                     header(map[string]any{"alg": "none"}) + "." + parts[1] + ".",
		"alg none with the signature":  header(map[string]any{"alg": "none"}) + "." + parts[1] + "." + parts[2],
		"HS256 with the public key":    header(map[string]any{"alg": "HS256"}) + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(hs),
		"another key":                  other,
		"another key under our key id": stolenID + "." + base64.RawURLEncoding.EncodeToString(sig),
		"another user's claims":        parts[0] + "." + otherParts[1] + "." + parts[2],
		"without a signature":          parts[0] + "." + parts[1] + ".",
		"the old clients' scope":       e.Sign(token.Claims{Username: u.Name, UID: 1, SID: "s", Scope: token.ScopeLegacy, Issued: time.Now(), Expires: time.Now().Add(time.Hour)}),
		"a refresh token":              u.Tokens.RefreshToken,
		"of 100 KB":                    strings.Repeat("x", 100_000),
	}
}

func badTokens(t *testing.T, e *env) {
	u := e.Login(e.User("lisa").Name)
	for name, tok := range forged(t, e, u) {
		t.Run(name, func(t *testing.T) {
			want := map[int]bool{wire.CloseNoAuth.Code: true}
			switch name {
			case "expired":
				want = map[int]bool{wire.CloseTokenExpired.Code: true}
			case "revoked":
				want[wire.CloseTokenRevoked.Code] = true
			}
			if len(tok) < 10_000 { // more does not fit into a header, which HTTP itself refuses
				if tok != "" {
					c, _, err := harness.DialWS(t, e.at(0), harness.DialOptions{Token: tok})
					if err != nil {
						t.Fatalf("the refusal is told on the WebSocket, not by the handshake: %v", err)
					}
					if code := c.Error(""); code != wire.Unauthenticated {
						t.Errorf("by header: %s", code)
					}
					if code := c.Closed(harness.Within); !want[code] {
						t.Errorf("by header: closed with %d", code)
					}
				}
				status, code := http.StatusUnauthorized, wire.Unauthenticated
				if name == "the old clients' scope" {
					status, code = http.StatusForbidden, wire.Forbidden // a good token, for other routes
				}
				if a := e.Do(http.MethodGet, e.at(1)+"/v1/conversations", tok, nil); a.Status != status || a.Code() != code {
					t.Errorf("over HTTP: %d %s", a.Status, a.Body)
				}
			} else {
				delete(want, 0)
				want[websocketTooBig] = true
			}
			c, _, err := harness.DialWS(t, e.at(0), harness.DialOptions{})
			if err != nil {
				t.Fatal(err)
			}
			c.Say(wire.EvAuthenticate, wire.Authenticate{Token: tok})
			if code := c.Closed(harness.Within); !want[code] {
				t.Errorf("by the first frame: closed with %d", code)
			}
			if n := len(c.All(wire.EvError)); n != 1 {
				t.Errorf("by the first frame: %d errors", n)
			}
			// A bad token on an open connection is refused, and the connection lives on with the old one.
			if len(tok) < 10_000 {
				c := u.In(t).Connect(e.at(0))
				if code := c.Error(c.Say(wire.EvRefreshToken, wire.Authenticate{Token: tok})); code != wire.Unauthenticated {
					t.Errorf("as refresh: %s", code)
				}
				c.Barrier()
				c.Drop()
			}
		})
	}
}

const websocketTooBig = 1009

// tokenWays: header, subprotocol, first frame; and what happens when none comes.
func tokenWays(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	r := harness.Room(lisa, avi)
	a := avi.Joined(e.at(1))
	silent, _, err := harness.DialWS(t, e.at(0), harness.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}

	c, resp, err := harness.DialWS(t, e.at(0), harness.DialOptions{Subprotocol: "parley.v1, bearer." + lisa.Tokens.AccessToken})
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != "parley.v1" {
		t.Errorf("the server selected %q", got)
	}
	w := harness.Data[wire.Welcome](t, c.Expect(wire.EvWelcome, nil))
	if w.Username != lisa.Name || w.Session == "" || w.HeartbeatS <= 0 || w.Limits.FrameBytes != 64<<10 || w.Limits.ContentBytes != 16<<10 {
		t.Errorf("welcome %+v", w)
	}
	c.MustSend(r, "by subprotocol")
	a.Message("by subprotocol")

	c, _, err = harness.DialWS(t, e.at(0), harness.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.Say(wire.EvAuthenticate, wire.Authenticate{Token: lisa.Tokens.AccessToken})
	c.Expect(wire.EvWelcome, nil)
	c.MustSend(r, "by the first frame")
	a.Message("by the first frame")

	// Anything else as the first frame is refused.
	c, _, err = harness.DialWS(t, e.at(0), harness.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.Send(r, "by nobody", "", false)
	c.Expect(wire.EvError, nil)
	if code := c.Closed(harness.Within); code != wire.CloseNoAuth.Code {
		t.Errorf("a message before the token: closed with %d", code)
	}
	// A token in the URL is none.
	if a := e.Do(http.MethodGet, e.at(0)+"/v1/conversations?token="+lisa.Tokens.AccessToken, "", nil); a.Status != http.StatusUnauthorized {
		t.Errorf("a token in the URL: %d", a.Status)
	}
	// A token of another user does not take a connection over.
	c = lisa.Connect(e.at(2))
	if code := c.Error(c.Say(wire.EvRefreshToken, wire.Authenticate{Token: avi.Tokens.AccessToken})); code != wire.Forbidden {
		t.Errorf("the token of another user: %s", code)
	}

	if code := silent.Closed(2 * harness.Within); code != wire.CloseNoAuth.Code {
		t.Errorf("without a token: closed with %d", code)
	}
	if f := silent.Expect(wire.EvError, nil); harness.Data[wire.Error](t, f).Code != wire.Unauthenticated {
		t.Errorf("without a token: %s", f.Data)
	}
	if n := a.Count("by nobody"); n != 0 {
		t.Error("a message of nobody was delivered")
	}
}

// tokenRunsOut: a socket outlives its token only with a new one.
func tokenRunsOut(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	open := func(tok string) *harness.WS {
		t.Helper()
		c, _, err := harness.DialWS(t, e.at(0), harness.DialOptions{Token: tok})
		if err != nil {
			t.Fatal(err)
		}
		c.Expect(wire.EvWelcome, nil)
		return c
	}
	soon := lisa.Mint(time.Now().Add(3 * time.Second))
	left, renewed := open(soon), open(soon)
	if f := renewed.Answer(renewed.Say(wire.EvRefreshToken, wire.Authenticate{Token: lisa.Tokens.AccessToken})); f.Event != wire.EvAck {
		t.Fatalf("refresh_token: %s %s", f.Event, f.Data)
	}
	if code := left.Closed(2 * harness.Within); code != wire.CloseTokenExpired.Code {
		t.Errorf("closed with %d", code)
	}
	renewed.MustSend(harness.Room(lisa, avi), "with a new token")
}

// logout closes the sockets of this login at once, on every gateway, and of no other.
func logout(t *testing.T, e *env) {
	lisa, avi := e.Login(e.User("lisa").Name), e.User("avi")
	other := e.Login(lisa.Name)
	here, there, stays := lisa.Joined(e.at(0)), lisa.Joined(e.at(1)), other.Joined(e.at(1))
	if a := e.Do(http.MethodDelete, e.at(0)+"/v1/sessions/current", lisa.Tokens.AccessToken, nil); a.Status != http.StatusNoContent {
		t.Fatalf("log out: %d %s", a.Status, a.Body)
	}
	for _, c := range []*harness.WS{here, there} {
		if code := c.Closed(harness.Within); code != wire.CloseTokenRevoked.Code {
			t.Errorf("closed with %d", code)
		}
	}
	stays.MustSend(harness.Room(lisa, avi), "another login")
	for i := range e.Gateways {
		if a := e.Do(http.MethodGet, e.at(i)+"/v1/conversations", lisa.Tokens.AccessToken, nil); a.Status != http.StatusUnauthorized {
			t.Errorf("gateway %d takes a revoked token: %d", i, a.Status)
		}
	}
}
