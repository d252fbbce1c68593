package httpapi

import (
	"crypto/tls"
	"math"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestClientAddress(t *testing.T) {
	trusting := Config{TrustedProxies: []string{"10.0.0.0/8", "2001:db8::/32", "192.0.2.7"}}
	for _, c := range []struct {
		name, peer string
		cfg        Config
		forwarded  []string
		want       string
	}{
		{"no proxy", "203.0.113.9:5000", Config{}, nil, "203.0.113.9"},
		{"a client's own header is not believed", "203.0.113.9:5000", trusting, []string{"1.1.1.1"}, "203.0.113.9"},
		{"nobody is trusted by default", "10.0.0.1:80", Config{}, []string{"1.1.1.1"}, "10.0.0.1"},
		{"one proxy", "10.0.0.1:80", trusting, []string{"1.1.1.1"}, "1.1.1.1"},
		{"a single address is a network", "192.0.2.7:80", trusting, []string{"1.1.1.1"}, "1.1.1.1"},
		{"what stands left of the truth is a lie", "10.0.0.1:80", trusting, []string{"9.9.9.9, 1.1.1.1"}, "1.1.1.1"},
		{"two proxies", "10.0.0.1:80", trusting, []string{"9.9.9.9, 1.1.1.1, 10.9.9.9"}, "1.1.1.1"},
		{"two lines", "10.0.0.1:80", trusting, []string{"1.1.1.1", "10.9.9.9"}, "1.1.1.1"},
		{"only proxies", "10.0.0.1:80", trusting, []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"nonsense", "10.0.0.1:80", trusting, []string{"1.1.1.1, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"empty", "10.0.0.1:80", trusting, []string{""}, "10.0.0.1"},
		{"empty entry", "10.0.0.1:80", trusting, []string{"1.1.1.1,"}, "10.0.0.1"},
		{"with port", "10.0.0.1:80", trusting, []string{"1.1.1.1:4711"}, "1.1.1.1"},
		{"IPv6", "[2001:db8::1]:80", trusting, []string{"2600::1"}, "2600::1"},
		{"IPv6 with port", "[2001:db8::1]:80", trusting, []string{"[2600::1]:4711"}, "2600::1"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:80", trusting, []string{"::ffff:1.1.1.1"}, "1.1.1.1"},
		{"Unix socket", "@", trusting, []string{"1.1.1.1"}, "invalid IP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := NewEdge(c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = c.peer
			for _, f := range c.forwarded {
				r.Header.Add("X-Forwarded-For", f)
			}
			if got := e.ClientAddress(r).String(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestOriginAllowed(t *testing.T) {
	e, err := NewEdge(Config{AllowedOrigins: []string{"https://app.example", "http://localhost:3000", "HTTPS://Upper.example:443/"}, TrustedProxies: []string{"10.0.0.0/8"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		origin, peer, proto string
		tls                 bool
		want                bool
	}{
		{origin: "", want: true},
		{origin: "https://app.example", want: true},
		{origin: "https://upper.example", want: true},
		{origin: "http://localhost:3000", want: true},
		{origin: "http://chat.example", want: true},
		{origin: "https://chat.example", want: true},
		{origin: "https://CHAT.example", want: true},
		{origin: "https://chat.example", tls: true, want: true},
		{origin: "http://chat.example", tls: true},
		{origin: "http://chat.example", peer: "10.0.0.1:80", proto: "https"},
		{origin: "http://chat.example", peer: "203.0.113.9:80", proto: "https", want: true},
		{origin: "https://chat.example:8443"},
		{origin: "http://app.example"},
		{origin: "https://app.example:444"},
		{origin: "https://app.example.evil.example"},
		{origin: "https://evil.example/https://app.example"},
		{origin: "https://sub.app.example"},
		{origin: "null"},
		{origin: "file://"},
		{origin: "ftp://chat.example"},
		{origin: "://"},
	} {
		r := httptest.NewRequest("GET", "/v1/ws", nil)
		r.Host = "chat.example"
		r.Header.Set("Origin", c.origin)
		if c.peer != "" {
			r.RemoteAddr = c.peer
			r.Header.Set("X-Forwarded-Proto", c.proto)
		}
		if c.tls {
			r.TLS = &tls.ConnectionState{}
		}
		if got := e.OriginAllowed(r); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestOriginOwnBehindAPort: a proxy may add the port that browsers leave out, on one side only.
func TestOriginOwnBehindAPort(t *testing.T) {
	e, err := NewEdge(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		origin, host string
		want         bool
	}{
		{"https://chat.example", "chat.example:443", true},
		{"https://Chat.Example", "chat.example:443", true},
		{"http://chat.example", "CHAT.example:80", true},
		{"https://chat.example:443", "chat.example", true},
		{"https://[::1]", "[0:0::1]:443", true},
		{"https://chat.example:8443", "chat.example:8443", true},
		{"http://chat.example", "chat.example:443", false},
		{"https://chat.example", "chat.example:80", false},
		{"https://chat.example", "chat.example:8443", false},
		{"https://chat.example.evil.example", "chat.example:443", false},
		{"https://chat.example", "", false},
	} {
		r := httptest.NewRequest("GET", "/v1/ws", nil)
		r.Host = c.host
		r.Header.Set("Origin", c.origin)
		if got := e.OriginAllowed(r); got != c.want {
			t.Errorf("page of %s, Host: %s: %v", c.origin, c.host, got)
		}
	}
}

// TestConfigIsInTheFormOfRequests: what is taken can match, and what never could is refused.
func TestConfigIsInTheFormOfRequests(t *testing.T) {
	for given, sent := range map[string]string{
		"HTTPS://App.Example:443/": "https://app.example", "http://a.example:0080": "http://a.example", "https://a.example:": "https://a.example",
		"http://[0:0::1]:3000": "http://[::1]:3000", "capacitor://localhost": "capacitor://localhost", "https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
	} {
		if got, err := parseOrigin(given); got != sent || err != nil {
			t.Errorf("%s: %q, %v; browsers send %s", given, got, err, sent)
		}
	}
	for _, never := range []string{
		"https://bücher.example", "https://a.example:99999", "https://a.example:0", "https://*.a.example", "https://a.example/x", "https://a.example?x", "a.example", "https://", "null", "",
	} {
		if got, err := parseOrigin(never); err == nil {
			t.Errorf("%q is taken as %q", never, got)
		}
	}
	for given, peer := range map[string]string{
		"::ffff:10.0.0.0/104": "10.1.2.3", "::ffff:10.0.0.1": "10.0.0.1", "10.1.2.3/8": "10.9.9.9", "2001:db8::1": "2001:db8::1",
	} {
		p, err := parseNetwork(given)
		if a, ok := parseAddress(peer); err != nil || !ok || !p.Contains(a) {
			t.Errorf("%s does not trust %s: %v, %v", given, peer, p, err)
		}
	}
	for _, never := range []string{"fe80::1%eth0", "[::1]", "10.0.0.1:80", "10.0.0.0/33", "proxy", ""} {
		if p, err := parseNetwork(never); err == nil {
			t.Errorf("%q is taken as %v", never, p)
		}
	}
}

func TestConfigNamesEveryMistake(t *testing.T) {
	err := Config{
		AllowedOrigins: []string{"*", "https://*.example", "app.example", "https://app.example/path", "https://u@app.example"},
		TrustedProxies: []string{"10.0.0.0/33", "proxy"}, Rate: math.NaN(),
	}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	if n := strings.Count(err.Error(), "allowed-origins:"); n != 5 {
		t.Errorf("%d of 5 origins in: %v", n, err)
	}
	for _, want := range []string{`"10.0.0.0/33"`, `"proxy"`, "http-rate", "http-burst"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in: %v", want, err)
		}
	}
	if err := testConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func TestLimiter(t *testing.T) {
	l, err := newLimiter(10, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	a := netip.MustParseAddr("1.1.1.1")
	for range 2 {
		if l.wait(a, now) != 0 {
			t.Fatal("the burst was refused")
		}
	}
	for range 50 { // refused ones cost nothing
		if d := l.wait(a, now); d != 100*time.Millisecond {
			t.Fatalf("wait %s", d)
		}
	}
	if l.wait(a, now.Add(100*time.Millisecond)) != 0 {
		t.Error("a token was not given back in time")
	}
	if l.wait(netip.MustParseAddr("1.1.1.2"), now) != 0 {
		t.Error("two addresses share a bucket")
	}
	v6, same, other := netip.MustParseAddr("2600::1"), netip.MustParseAddr("2600::ffff:1"), netip.MustParseAddr("2600:0:0:1::1")
	l.wait(v6, now)
	l.wait(same, now)
	if l.wait(v6, now) == 0 {
		t.Error("a /64 has more than one bucket")
	}
	if l.wait(other, now) != 0 {
		t.Error("two /64 share a bucket")
	}
	for i := range 100 {
		l.wait(netip.AddrFrom4([4]byte{9, 9, 9, byte(i)}), now)
	}
	if n := l.buckets.Len(); n != 3 {
		t.Errorf("%d addresses are remembered, 3 allowed", n)
	}
	if l.wait(a, now) != 0 {
		t.Error("a forgotten address did not start anew")
	}
	if l.wait(netip.Addr{}, now) != 0 {
		t.Error("no address is an address of its own")
	}
}
