package token

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"pgregory.net/rapid"
)

var now = time.Unix(1_700_000_000, 0)

func newSigner(t interface{ Fatal(...any) }) *Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return NewSigner(key)
}

func keysOf(list ...*Signer) func(string) (ed25519.PublicKey, bool) {
	return func(kid string) (ed25519.PublicKey, bool) {
		for _, s := range list {
			if id, key := s.Public(); id == kid {
				return key, true
			}
		}
		return nil, false
	}
}

func avi() Claims {
	return Claims{
		Username: "Avi", UID: 7, SID: "s1", Scope: ScopeNative, Issued: now, Expires: now.Add(15 * time.Minute),
		Began: now.Add(-time.Hour - time.Millisecond), Turn: 3,
	}
}

func sign(t *testing.T, s *Signer, c Claims) string {
	t.Helper()
	tok, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func refused(t *testing.T, what, tok string, at time.Time, keys func(string) (ed25519.PublicKey, bool), want error) {
	t.Helper()
	if c, err := Verify(tok, keys, at); !errors.Is(err, want) || c != (Claims{}) {
		t.Errorf("%s: %+v, %v; want %v", what, c, err, want)
	}
}

func TestTokensRoundTrip(t *testing.T) {
	s := newSigner(t)
	rapid.Check(t, func(t *rapid.T) {
		want := Claims{
			Username: rapid.StringOfN(rapid.Rune(), 1, 64, -1).Draw(t, "user"), UID: rapid.Int64Range(0, 1<<53).Draw(t, "uid"),
			SID: rapid.StringMatching(`[A-Za-z0-9_-]{1,22}`).Draw(t, "sid"), Scope: rapid.SampledFrom([]string{ScopeNative, ScopeLegacy, "native admin"}).Draw(t, "scope"),
			Issued: now, Expires: now.Add(time.Duration(rapid.IntRange(1, 1<<20).Draw(t, "life")) * time.Second),
			Began: now.Add(-time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "age")) * time.Millisecond), Turn: rapid.Int64Range(0, 1<<40).Draw(t, "turn"),
		}
		tok, err := s.Sign(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Verify(tok, keysOf(s), now)
		if err != nil || got != want {
			t.Fatalf("%+v becomes %+v, %v", want, got, err)
		}
	})
}

func TestTokensTimes(t *testing.T) {
	s := newSigner(t)
	tok := sign(t, s, avi())
	for _, c := range []struct {
		after time.Duration
		want  error
	}{{-time.Minute, ErrInvalid}, {-leeway, nil}, {0, nil}, {15*time.Minute + leeway - time.Second, nil}, {15*time.Minute + leeway + time.Second, ErrExpired}, {24 * time.Hour, ErrExpired}} {
		if _, err := Verify(tok, keysOf(s), now.Add(c.after)); !errors.Is(err, c.want) {
			t.Errorf("after %v: %v, want %v", c.after, err, c.want)
		}
	}
}

func TestTokensKeys(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	tok := sign(t, s, avi())
	refused(t, "an unknown key", tok, now, keysOf(other), ErrKey)
	if _, err := Verify(tok, keysOf(other, s), now); err != nil {
		t.Errorf("one of two keys: %v", err)
	}
	_, key := other.Public()
	refused(t, "another key of that name", tok, now, func(string) (ed25519.PublicKey, bool) { return key, true }, ErrInvalid)
	kid, key := s.Public()
	if KeyID(key) != kid || len(kid) != 11 {
		t.Errorf("key id %q", kid)
	}
}

func part(v any) string {
	b, _ := json.Marshal(v) // maps of plain values
	return base64.RawURLEncoding.EncodeToString(b)
}

// forge signs any header and claims with the real key.
func forge(s *Signer, header, claims map[string]any) string {
	text := part(header) + "." + part(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.key, []byte(text)))
}

func TestTokensForged(t *testing.T) {
	s := newSigner(t)
	keys := keysOf(s)
	kid, pub := s.Public()
	good := func() map[string]any {
		return map[string]any{"iss": issuer, "aud": []string{audience}, "sub": "Avi", "uid": 7, "sid": "s1", "scope": "native", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}
	}
	header := map[string]any{"alg": "EdDSA", "typ": "JWT", "kid": kid}
	if _, err := Verify(forge(s, header, good()), keys, now); err != nil {
		t.Fatalf("the forge does not work: %v", err)
	}
	old, err := Verify(forge(s, header, good()), keys, now)
	if err != nil || !old.Began.Equal(now) || old.Turn != 0 {
		t.Fatalf("one of the version before: %+v, %v", old, err)
	}
	for life, ok := range map[time.Duration]bool{MaxLife: true, MaxLife + time.Second: false, 10 * MaxLife: false} {
		c := good()
		c["exp"] = now.Add(life).Unix()
		if _, err := Verify(forge(s, header, c), keys, now); (err == nil) != ok {
			t.Errorf("a life of %s: %v", life, err)
		}
	}
	h := func(alg string) map[string]any { return map[string]any{"alg": alg, "typ": "JWT", "kid": kid} }
	for _, alg := range []string{"none", "None", "NONE", "nOnE", "", "HS256", "RS256", "ES256", "eddsa"} {
		refused(t, "alg "+alg, forge(s, h(alg), good()), now, keys, ErrInvalid)
		refused(t, "alg "+alg+", no signature", part(h(alg))+"."+part(good())+".", now, keys, ErrInvalid)
	}
	// HMAC with the public key as its secret.
	text := part(h("HS256")) + "." + part(good())
	mac := hmac.New(sha256.New, pub)
	mac.Write([]byte(text))
	refused(t, "HMAC with the public key", text+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), now, keys, ErrInvalid)

	for name, change := range map[string]func(map[string]any){
		"no exp":           func(c map[string]any) { delete(c, "exp") },
		"no iat":           func(c map[string]any) { delete(c, "iat") },
		"no sub":           func(c map[string]any) { delete(c, "sub") },
		"empty sub":        func(c map[string]any) { c["sub"] = "" },
		"no sid":           func(c map[string]any) { delete(c, "sid") },
		"no iss":           func(c map[string]any) { delete(c, "iss") },
		"another iss":      func(c map[string]any) { c["iss"] = "other" },
		"no aud":           func(c map[string]any) { delete(c, "aud") },
		"another aud":      func(c map[string]any) { c["aud"] = "other" },
		"iat in an hour":   func(c map[string]any) { c["iat"] = now.Add(time.Hour).Unix() },
		"nbf in an hour":   func(c map[string]any) { c["nbf"] = now.Add(time.Hour).Unix() },
		"uid of words":     func(c map[string]any) { c["uid"] = "seven" },
		"sub of an object": func(c map[string]any) { c["sub"] = map[string]any{} },
	} {
		c := good()
		change(c)
		refused(t, name, forge(s, header, c), now, keys, ErrInvalid)
	}
	refused(t, "no kid", forge(s, map[string]any{"alg": "EdDSA"}, good()), now, keys, ErrKey)
	refused(t, "kid of a number", forge(s, map[string]any{"alg": "EdDSA", "kid": 1}, good()), now, keys, ErrKey)
	long := good()
	long["x"] = strings.Repeat("x", maxBytes)
	refused(t, "too long", forge(s, header, long), now, keys, ErrInvalid)
	for _, tok := range []string{"", ".", "..", "a.b.c", "Bearer x", "\x00", strings.Repeat(".", 4000), "eyJhbGciOiJub25lIn0.e30."} {
		refused(t, "garbage", tok, now, keys, ErrInvalid)
	}
	// A token of another use of the same library, with the same key.
	plain, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.RegisteredClaims{Subject: "Avi", ExpiresAt: jwt.NewNumericDate(now.Add(time.Hour))}).SignedString(s.key)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "another kind of token", plain, now, keys, ErrKey)
}

// No bit of a token can be changed.
func TestTokensChanged(t *testing.T) {
	s := newSigner(t)
	tok := sign(t, s, avi())
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, len(tok)-1).Draw(t, "at")
		b := []byte(tok)
		b[i] = rapid.SampledFrom([]byte("ABCXYZabcxyz0189-_.=")).Draw(t, "to")
		if string(b) == tok {
			return
		}
		c, err := Verify(string(b), keysOf(s), now)
		// The last character of each part has bits that mean nothing; they change no claim.
		if err == nil && c != avi() {
			t.Fatalf("accepted as %+v", c)
		}
	})
}

func FuzzVerify(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	s := NewSigner(key)
	tok, err := s.Sign(avi())
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{tok, tok + ".", "a.b.c", "", "eyJhbGciOiJub25lIn0.e30."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		c, err := Verify(in, keysOf(s), now)
		if err == nil && c != avi() {
			t.Fatalf("%q is accepted as %+v", in, c)
		}
		if err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrExpired) && !errors.Is(err, ErrKey) {
			t.Fatalf("%v has no name", err)
		}
	})
}
