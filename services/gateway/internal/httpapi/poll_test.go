package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// deadlines records what is set on a connection.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = t; return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = t; return nil }

// A read deadline that passes while a poll waits ends the poll's context, and with it the session of a client that is sent nothing.
func TestSocketIOPollMayWaitForLongButABodyMayNot(t *testing.T) {
	deps := newWorld().deps(prometheus.NewRegistry(), testConfig())
	deps.SocketIO = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	h, err := New(testConfig(), deps)
	if err != nil {
		t.Fatal(err)
	}
	const longestPoll = 5 * time.Minute // more than two heartbeats as anybody configures them
	for method, waits := range map[string]bool{"GET": true, "POST": false} {
		d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		began := time.Now()
		h.ServeHTTP(d, httptest.NewRequest(method, SocketIORoute+"?EIO=4&transport=polling&sid=x", nil))
		if got := d.read.Sub(began) > longestPoll; d.read.IsZero() || got != waits {
			t.Errorf("%s: reading ends after %s", method, d.read.Sub(began))
		}
		if d.write.Sub(began) < longestPoll {
			t.Errorf("%s: writing ends after %s", method, d.write.Sub(began))
		}
	}
}
