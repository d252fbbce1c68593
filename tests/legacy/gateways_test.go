package legacy

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"parley.example/tests/harness"
)

// roundRobin is a proxy that gives every single request to the next gateway, whatever session it belongs to: the least that a proxy may do.
type roundRobin struct {
	next     atomic.Int64
	upgraded atomic.Int64 // WebSockets for a session that began on polling
	refused  atomic.Int64 // the same, at the wrong gateway
	posts    [2]atomic.Int64
}

// startRoundRobin starts it in front of two gateways.
func startRoundRobin(t *testing.T, s *harness.Stack) (p *roundRobin, base string) {
	t.Helper()
	p = &roundRobin{}
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	var gateways []*httputil.ReverseProxy
	for _, g := range s.Gateways {
		to, err := url.Parse(g.URL)
		if err != nil {
			t.Fatal(err)
		}
		gateways = append(gateways, &httputil.ReverseProxy{
			Transport:      transport,
			Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
			ModifyResponse: p.count,
			// A client that hangs up is none of our business.
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		})
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(p.next.Add(1)) % len(gateways)
		if r.Method == http.MethodPost && r.URL.Query().Get("sid") != "" {
			p.posts[n].Add(1)
		}
		gateways[n].ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		transport.CloseIdleConnections()
	})
	return p, srv.URL
}

// count looks at the answers to upgrades.
func (p *roundRobin) count(r *http.Response) error {
	q := r.Request.URL.Query()
	if q.Get("transport") == "websocket" && q.Get("sid") != "" {
		if r.StatusCode == http.StatusSwitchingProtocols {
			p.upgraded.Add(1)
		} else {
			p.refused.Add(1)
		}
	}
	return nil
}

// TestOldClientsTwoGateways: no request of a session needs to reach the gateway that holds it. Polls are passed on; an upgrade that reaches the other
// gateway is refused, and its client stays on polling.
func TestOldClientsTwoGateways(t *testing.T) {
	const delay = 400 * time.Millisecond
	s := harness.New(t, harness.Options{Gateways: 2, Settings: map[string]string{
		"socketio-delay": delay.String(), "socketio-alive": "20s", "catch-up-patience": "30s", "rpc-timeout": "20s",
	}})
	p, base := startRoundRobin(t, s)
	view := s.For(t)

	t.Run("an upgrade at the wrong gateway", func(t *testing.T) {
		// Alone behind the proxy, python-socketio opens its session at one gateway and asks the next one for the upgrade.
		w := ways[0]
		e := env{t: t, way: w, base: base, natives: s.Gateways[0].URL, view: s.For(t), d: startDriver(t, w.library, base), delay: delay}
		names := e.register("lisa", "avi")
		lisa := e.signIn(names[0])
		if got := lisa.do(command{Do: "transport"}).Text; got != "polling" || p.refused.Load() != 1 || p.upgraded.Load() != 0 {
			t.Errorf("the transport is %s; %d upgrades were refused, %d not", got, p.refused.Load(), p.upgraded.Load())
		}
		avi := e.signIn(names[1])
		room := roomOf(lisa.user, avi.user)
		for _, text := range numbered("to and fro", 10) {
			lisa.sure(room, text)
			avi.message(text)
		}
		for i := range p.posts {
			if p.posts[i].Load() == 0 {
				t.Errorf("gateway %d got no POST", i)
			}
		}
	})

	run(t, env{base: base, natives: s.Gateways[1].URL, view: view, delay: delay, mixed: true}, []scenario{
		{"conversation", conversation, false},
		{"contents", contents, false},
		{"offline", offline, false},
		{"signing out", signingOut, false},
		{"several sessions", severalSessions, true},
		{"announcements", announcements, true},
	}, []way{ways[0], ways[2], ways[3], ways[5]})
	t.Logf("%d upgrades reached the right gateway, %d the wrong one", p.upgraded.Load(), p.refused.Load())
}
