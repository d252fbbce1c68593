package access

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/natsconn"
	"parley.example/pkg/subject"
	"parley.example/pkg/testx"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/bus"
)

func TestMain(m *testing.M) { testx.Main(m) }

// untold is an auth that nothing is told in this test.
func untold(context.Context, api.UsedRequest) (r api.Empty, err error) { return r, nil }

func signer(t *testing.T) *token.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return token.NewSigner(key)
}

func sign(t *testing.T, s *token.Signer, user, sid string, issued time.Time) string {
	t.Helper()
	tok, err := s.Sign(token.Claims{Username: user, UID: 1, SID: sid, Scope: token.ScopeNative, Issued: issued, Expires: issued.Add(15 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func public(s *token.Signer) (kid string, value []byte) {
	kid, key := s.Public()
	return kid, []byte(base64.RawURLEncoding.EncodeToString(key))
}

// fakeKV lets the test say what is in a bucket.
type fakeKV struct {
	mu       sync.Mutex
	watchers map[string]watch
	started  chan string
}

type watch struct {
	f       func(string, []byte, bool)
	initial func()
}

func (k *fakeKV) WatchKV(ctx context.Context, bucket string, f func(string, []byte, bool), initial func()) {
	k.mu.Lock()
	k.watchers[bucket] = watch{f, initial}
	k.mu.Unlock()
	k.started <- bucket
	<-ctx.Done()
}

func run(t *testing.T, v *Verifier) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := v.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// faked runs a Verifier on a fakeKV; nothing has been read yet.
func faked(t *testing.T) (v *Verifier, keys, revoked watch) {
	t.Helper()
	kv := &fakeKV{watchers: map[string]watch{}, started: make(chan string, 2)}
	v = New(kv, untold, testx.Quiet(), prometheus.NewRegistry())
	run(t, v)
	<-kv.started
	<-kv.started
	return v, kv.watchers[api.KeysBucket], kv.watchers[api.RevokedBucket]
}

func refused(t *testing.T, v *Verifier, tok string, now time.Time, cause error, code wire.Code) {
	t.Helper()
	_, err := v.Verify(tok, now)
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != code || cause != nil && !errors.Is(err, cause) {
		t.Fatalf("refused with %v", err)
	}
}

func TestAccessIsNotReadyBeforeBothBucketsAreRead(t *testing.T) {
	v, keys, revoked := faked(t)
	s, now := signer(t), time.Now()
	tok := sign(t, s, "Avi", "s1", now)
	closed := func() { t.Helper(); refused(t, v, tok, now, nil, wire.Unavailable) }
	closed()
	kid, value := public(s)
	keys.f(kid, value, false)
	keys.initial()
	if v.Ready() == nil {
		t.Fatal("ready without the revocations")
	}
	closed()
	revoked.initial()
	if err := v.Ready(); err != nil {
		t.Fatal(err)
	}
	c, err := v.Verify(tok, now)
	if err != nil || c.Username != "Avi" || c.SID != "s1" {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestAccessRefusalsHaveTheirNames(t *testing.T) {
	v, keys, revoked := faked(t)
	s, now := signer(t), time.Now()
	kid, value := public(s)
	keys.f(kid, value, false)
	keys.f("evil", value, false) // not the name of this key
	keys.f("bad", []byte("?"), false)
	keys.initial()
	revoked.f("sid.gone", []byte("1"), false)
	revoked.f("user."+subject.Token("a.b"), []byte(strconv.FormatInt(now.Unix(), 10)), false)
	revoked.f("disabled."+subject.Token("locked"), []byte("1"), false)
	revoked.f("user."+subject.Token("locked"), []byte(strconv.FormatInt(now.Unix(), 10)), false)
	revoked.f("planet.x", []byte("1"), false)
	revoked.initial()

	refused(t, v, "", now, token.ErrInvalid, wire.Unauthenticated)
	refused(t, v, "a.b.c", now, token.ErrInvalid, wire.Unauthenticated)
	refused(t, v, sign(t, signer(t), "Avi", "s", now), now, token.ErrKey, wire.Unauthenticated)
	refused(t, v, sign(t, s, "Avi", "s", now), now.Add(time.Hour), token.ErrExpired, wire.Unauthenticated)
	refused(t, v, sign(t, s, "Avi", "gone", now), now, ErrRevoked, wire.Unauthenticated)
	refused(t, v, sign(t, s, "a.b", "s", now), now, ErrRevoked, wire.Unauthenticated)
	refused(t, v, sign(t, s, "locked", "s", now), now, ErrDisabled, wire.Unauthenticated)
	if _, err := v.Verify(sign(t, s, "a.b", "s", now.Add(time.Second)), now.Add(time.Second)); err != nil {
		t.Fatalf("a login after the revocation: %v", err)
	}
	if _, err := v.Verify(sign(t, s, "a_2Eb", "s", now), now); err != nil {
		t.Fatalf("another user: %v", err)
	}
}

// What a bucket no longer has is forgotten by the next complete read, and only by that.
func TestAccessReadAgainForgets(t *testing.T) {
	v, keys, revoked := faked(t)
	keys.initial()
	revoked.f("sid.a", []byte("1"), false)
	revoked.f("sid.b", []byte("1"), false)
	revoked.initial()
	has := func(want bool, sid string) {
		t.Helper()
		if v.Revoked(token.Claims{Username: "x", SID: sid, Issued: time.Now()}) != want {
			t.Fatalf("%s revoked: %v", sid, !want)
		}
	}
	revoked.f("sid.a", nil, true)
	has(false, "a")
	revoked.f("sid.c", []byte("1"), false) // a read that breaks off …
	has(true, "b")
	revoked.f("sid.c", []byte("1"), false) // … and the next, which does not
	revoked.initial()
	has(false, "b")
	has(true, "c")
	for i := range 3 {
		revoked.initial()
		if n := len(v.sids.rows); i > 0 && n != 0 {
			t.Fatalf("%d are left", n)
		}
	}
}

func TestAccessRevocationsReachLiveConnections(t *testing.T) {
	kv := &fakeKV{watchers: map[string]watch{}, started: make(chan string, 2)}
	v := New(kv, untold, testx.Quiet(), prometheus.NewRegistry())
	now := time.Now()
	hits := make(chan string, 100)
	v.Watch(func(match func(token.Claims) bool) {
		var closed []string
		for _, c := range []struct{ user, sid string }{{"Avi", "a1"}, {"Avi", "a2"}, {"Lisa", "l1"}} {
			if match(token.Claims{Username: c.user, SID: c.sid, Issued: now, Began: now.Add(-time.Hour)}) {
				closed = append(closed, c.sid)
			}
		}
		if len(closed) > 0 {
			hits <- strings.Join(closed, " ") // when the search is over: what follows must not run into it
		}
	})
	run(t, v)
	<-kv.started
	<-kv.started
	rev := kv.watchers[api.RevokedBucket]
	rev.initial()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-hits:
			if got != want {
				t.Fatalf("%s was closed, want %s", got, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s was not closed", want)
		}
	}
	rev.f("sid.a2", []byte("1"), false)
	expect("a2")
	expect("a2") // again a second later, for who was opened meanwhile
	rev.f("user.Lisa", []byte(strconv.FormatInt(now.Add(-time.Minute).Unix(), 10)), false)
	expect("a2") // the older revocation still holds; Lisa's login is younger than hers
	expect("a2")
	rev.f("began.Lisa", []byte(strconv.FormatInt(now.Add(-time.Hour).UnixMilli()-1, 10)), false)
	expect("a2") // hers began just after that
	expect("a2")
	rev.f("began.Lisa", []byte(strconv.FormatInt(now.Add(-time.Hour).UnixMilli(), 10)), false)
	expect("a2 l1")
	expect("a2 l1")
	rev.f("began.Lisa", nil, true)
	rev.f("user.Lisa", []byte(strconv.FormatInt(now.Unix(), 10)), false)
	expect("a2 l1")
}

// With the real thing: a bucket made later, keys, revocations that run out, restarts.
func TestAccessOnNATS(t *testing.T) {
	n := testx.NatsServer(t)
	b, err := bus.Open(natsconn.Config{URL: n.ClientURL()}, "test", testx.Quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	v := New(b, untold, testx.Quiet(), prometheus.NewRegistry())
	run(t, v)

	js, err := jetstream.New(n.Connect())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	keys, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: api.KeysBucket})
	if err != nil {
		t.Fatal(err)
	}
	revoked, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: api.RevokedBucket, TTL: time.Hour, LimitMarkerTTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s := signer(t)
	kid, value := public(s)
	if _, err := keys.Put(ctx, kid, value); err != nil {
		t.Fatal(err)
	}
	good := func(sid string) bool {
		_, err := v.Verify(sign(t, s, "Avi", sid, time.Now()), time.Now())
		return err == nil
	}
	testx.Eventually(t, "a token is good", 10*time.Second, func() bool { return v.Ready() == nil && good("a") })
	if _, err := revoked.Create(ctx, "sid.a", []byte("1"), jetstream.KeyTTL(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := revoked.Put(ctx, "sid.b", []byte("1")); err != nil {
		t.Fatal(err)
	}
	testx.Eventually(t, "both are revoked", 5*time.Second, func() bool { return !good("a") && !good("b") })
	testx.Eventually(t, "the brief one is forgotten", 15*time.Second, func() bool { return good("a") })
	n.Stop()
	if !good("c") || good("b") {
		t.Fatal("without NATS it judges otherwise")
	}
	n.Restart()
	testx.Eventually(t, "a revocation after the restart is known", 20*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, _ = revoked.Put(ctx, "sid.d", []byte("1")) // until it comes through
		return !good("d")
	})
	if good("b") {
		t.Fatal("forgot a revocation")
	}
}

func BenchmarkVerify(b *testing.B) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	s, now := token.NewSigner(key), time.Now()
	v := New(nil, untold, testx.Quiet(), prometheus.NewRegistry())
	kid, value := public(s)
	v.key(kid, value, false)
	v.read(&v.keys, &v.sids)
	for i := range 100_000 {
		v.revocation(fmt.Sprint("sid.", i), []byte("1"), false)
	}
	tok, err := s.Sign(token.Claims{Username: "Avi", SID: "s", Issued: now, Expires: now.Add(time.Hour)})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := v.Verify(tok, now); err != nil {
			b.Fatal(err)
		}
	}
}
