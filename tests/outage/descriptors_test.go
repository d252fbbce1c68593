package outage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// size of the crowd, and of what it meets. The promise is that of the long run; the short one has the same shape with a tenth of everything.
type size struct {
	descriptors, crowd, perAddress int
	hold                           time.Duration
}

func crowdSize() size {
	if os.Getenv("PARLEY_LONG") == "1" {
		return size{20000, 23000, 1000, time.Minute}
	}
	return size{2000, 2300, 100, 5 * time.Second}
}

func (s size) settings() map[string]string {
	return map[string]string{
		harness.OpenFiles: strconv.Itoa(s.descriptors), "address-connections": strconv.Itoa(s.perAddress),
		"http-rate": "100000", "http-burst": "100000", "messages-per-minute": "600000", "message-burst": "100000", "login-tries-address": "1000000",
	}
}

// TestDescriptorsAllInOne: more idle connections than the process has descriptors, held, then gone.
func TestDescriptorsAllInOne(t *testing.T) {
	s := crowdSize()
	p := harness.Start(t, "parley serve", "parley", s.settings(), "serve", "--http", "127.0.0.1:0", "--data", t.TempDir())
	base := p.LogMatch(t, regexp.MustCompile(`(?m)^ready (http://\S+)$`))
	admin := p.LogMatch(t, regexp.MustCompile(`(?m)^private +(http://\S+)/metrics`))
	descriptors(t, harness.Outside(t, base), base, admin, p.Pid(), s)
}

// TestDescriptorsServices: the same to a gateway.
func TestDescriptorsServices(t *testing.T) {
	s := crowdSize()
	st := harness.New(t, harness.Options{Gateways: 1, Nats: 1, Postgres: true, Settings: s.settings()})
	g := st.Gateways[0]
	descriptors(t, st.For(t), g.URL, g.Admin, g.Pid(), s)
}

func descriptors(t *testing.T, v *harness.View, base, admin string, pid int, s size) {
	lisa, avi := v.User("lisa"), v.User("avi")
	room := harness.Room(lisa, avi)
	l, a := lisa.Joined(base), avi.Joined(base)
	said := 0
	// chat: nobody who is here is disturbed, and readiness says the truth.
	chat := func(t *testing.T) {
		t.Helper()
		said++
		text := fmt.Sprintf("message %d", said)
		l.MustSend(room, text)
		a.Message(text)
		if !v.Ready(base) {
			t.Errorf("not ready, though messages are stored; a moment later: %s", v.Do("GET", admin+"/readyz", "", nil).Body)
		}
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		if spare := s.descriptors - len(fds); spare < 128 {
			t.Errorf("%d descriptors are left of %d", spare, s.descriptors)
		}
	}
	for _, c := range []struct {
		name      string
		addresses int
		full      bool // the crowd takes all that there is
	}{{"from a few addresses", 4, false}, {"from many addresses", 24, true}} {
		t.Run(c.name, func(t *testing.T) {
			var from []string
			for i := range c.addresses {
				from = append(from, fmt.Sprintf("127.0.1.%d", i+1))
			}
			chat(t)
			began := time.Now()
			stop := crowd{strings.TrimPrefix(base, "http://"), from, s.crowd}.start(t)
			t.Logf("%d connections were tried within %.1f s", s.crowd, time.Since(began).Seconds())
			let, refused := 0, 0
			for end := time.Now().Add(s.hold); time.Now().Before(end); time.Sleep(100 * time.Millisecond) { // people are not faster
				chat(t)
				if comes(t, base) {
					let++
				} else {
					refused++
				}
			}
			t.Logf("held for %s: %d came in, %d were refused by name", s.hold, let, refused)
			if !c.full && refused > 0 {
				t.Errorf("%d of other addresses were refused", refused)
			}
			stop()
			gone := time.Now()
			back(t, v, base)
			took := time.Since(gone)
			t.Logf("everything works %.1f s after the crowd has gone", took.Seconds())
			if took > 10*time.Second {
				t.Errorf("that is more than 10 s")
			}
			chat(t)
		})
	}
	// Nothing of what was accepted is lost, nor was any of it twice.
	sameTexts(t, "history", avi.History(t, base, room, said), numbered("message", 1, said+1))
}

// comes reports whether somebody new, on a connection of their own, is let in. Who is not hears why.
func comes(t *testing.T, base string) bool {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	for try := 0; ; try++ {
		resp, err := client.Get(base + "/healthz")
		if err != nil {
			// Too many at once: closed without a word. Everybody asks again.
			if try < 20 && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)) {
				time.Sleep(100 * time.Millisecond) // people are not faster
				continue
			}
			t.Fatalf("somebody new: %v", err)
		}
		var e wire.Error
		_ = json.NewDecoder(resp.Body).Decode(&e) // /healthz is no JSON
		_ = resp.Body.Close()
		switch {
		case resp.StatusCode == http.StatusOK:
			return true
		case resp.StatusCode == http.StatusServiceUnavailable && e.Code == wire.Unavailable:
			return false
		}
		t.Fatalf("somebody new got %d %q", resp.StatusCode, e.Code)
	}
}

// back waits until all that people do works again: registering, logging in, joining, writing, reading, logging out.
func back(t *testing.T, v *harness.View, base string) {
	t.Helper()
	testx.Eventually(t, "new people are let in", time.Minute, func() bool { return comes(t, base) })
	mia, tom := v.Login(v.Register("mia")), v.User("tom")
	m, o := mia.Joined(base), tom.Joined(base)
	m.MustSend(harness.Room(mia, tom), "hello")
	o.Message("hello")
	sameTexts(t, "history", tom.History(t, base, harness.Room(mia, tom), 1), []string{"hello"})
	if a := v.Do("DELETE", base+"/v1/sessions/current", mia.Tokens.AccessToken, nil); a.Status != http.StatusNoContent {
		t.Errorf("logout: %d %s", a.Status, a.Body)
	}
	if !v.Ready(base) {
		t.Error("not ready")
	}
	m.Drop()
	o.Drop()
}
