package scenario

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/tests/harness"
)

// slowClient: who does not read is closed as slow, others of the room do not notice.
func slowClient(t *testing.T, e *env) {
	lisa, avi := e.User("lisa"), e.User("avi")
	r := harness.Room(lisa, avi)
	l, other := lisa.Joined(e.at(0)), avi.Joined(e.at(0))
	slow, _, err := harness.DialWS(t, e.at(0), harness.DialOptions{Token: avi.Tokens.AccessToken, NoRead: true, ReadBuffer: 4096})
	if err != nil {
		t.Fatal(err)
	}
	join, err := json.Marshal(map[string]any{"event": wire.EvJoin, "data": map[string]any{"room": r}})
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Raw(websocket.TextMessage, join); err != nil {
		t.Fatal(err)
	}
	closes := func() float64 {
		return e.Metric(e.Gateways[0].Admin, `parley_gateway_closes_total{code="slow consumer"}`)
	}
	before := closes()
	body := strings.Repeat("x", 15<<10)
	var sent []string
	for closes() == before {
		if len(sent) > 2000 {
			t.Fatalf("%d messages of 15 KB were not enough to fill a connection that is not read", len(sent))
		}
		batch := make([]string, 40)
		for i := range batch {
			batch[i] = fmt.Sprintf("%d %s", len(sent)+i, body)
		}
		sendAll(t, l, r, batch)
		sent = append(sent, batch...)
		// It lives, so that on a slow machine it is not closed for silence first. An error is that of the close that is waited for.
		_ = slow.Raw(websocket.TextMessage, []byte(`{"event":"connection_alive"}`))
	}
	l.MustSend(r, "the end")
	other.Message("the end")
	sameTexts(t, "the other session", other.Received(r), append(sent, "the end"))
	testx.Eventually(t, "the slow connection is gone", harness.Within, func() bool { return slow.Raw(websocket.TextMessage, []byte(`{"event":"connection_alive"}`)) != nil })
	// It comes back like any other, and finds everything.
	back := avi.Connect(e.at(1))
	back.Join(map[string]any{"room": r, "since": map[string]int64{r: 0}})
	arrives(t, "who was slow", back, r, append(sent, "the end"))
}
