package socketio_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/testx"
	"parley.example/services/gateway/internal/engineio/enginetest"
	"parley.example/services/gateway/internal/socketio"
	"parley.example/services/gateway/internal/socketio/echo"
)

func TestAcksOfTheServers(t *testing.T) {
	site, _ := start(t, enginetest.Still)
	ws := connected(t, site)
	connect(t, ws, "/custom", "")
	ws.Send(`42["ask","how are you"]`)
	ws.Want(`420["question","how are you"]`)
	ws.Send(`42/custom,["ask"]`, `42["ask",1]`)
	ws.Want(`42/custom,1["question"]`, `422["question",1]`)
	// In any order; what nobody asked for, or asked for once, goes nowhere.
	ws.Send(`432["two"]`, `43/custom,1[{"a":[]}]`, `430["zero","more"]`, `430["again"]`, `4399["?"]`, `42["message","end"]`)
	ws.Want(`42["answered","two"]`, `42/custom,["answered",{"a":[]}]`, `42["answered","zero","more"]`, `42["message-back","end"]`)
	// By polling as well, and with attachments.
	ws.Send(`42["ask",3]`)
	ws.Want(`423["question",3]`)
	say(ws, `461-3[{"_placeholder":true,"num":0}]`, "b\x01")
	ws.Want(`42["answered",{"_placeholder":true,"num":0}]`)

	p := site.Open()
	p.Post(`40`)
	got := ""
	read := func(want string) {
		t.Helper()
		for !strings.Contains(got, want) {
			a := p.Get()
			if a.Status != http.StatusOK {
				t.Fatalf("got %+v", a)
			}
			got += a.Body + "\x1e"
		}
	}
	read(`42["auth",{}]`)
	p.Post("42[\"ask\"]\x1e451-7[\"message-with-ack\",{\"_placeholder\":true,\"num\":0}]\x1ebAQID")
	read("420[\"question\"]\x1e461-7[{\"_placeholder\":true,\"num\":0}]\x1ebAQID")
	p.Post(`430["yes"]`)
	read(`42["answered","yes"]`)
}

func TestAcksOfAClientThatGivesNone(t *testing.T) {
	site, _ := start(t, enginetest.Still)
	ws := connected(t, site)
	for range 300 {
		ws.Send(`42["ask"]`)
	}
	ws.Send(`42["message"]`)
	for i := range 256 { // and no more
		ws.Want(fmt.Sprintf(`42%d["question"]`, i))
	}
	ws.Want(`42["message-back"]`)
	ws.Send(`430[]`, `42["ask"]`)
	ws.Want(`42["answered"]`, `42256["question"]`)
}

func TestNamespacesAreLeftAndEnteredAgain(t *testing.T) {
	site, _, _ := serve(t, enginetest.Still, func(c *socketio.Config) { c.ConnectTimeout = 50 * time.Millisecond })
	ws := connected(t, site)
	ws.Send("41")
	connect(t, ws, "", "")
	ws.Send(`42["message"]`)
	ws.Want(`42["message-back"]`)
	ws.Send("41")
	ws.WantClose(wire.CloseNoAuth.Code) // in none for too long
}

func TestAcksNames(t *testing.T) {
	for _, s := range []string{"", "0/", "12/custom"} {
		a, err := socketio.ParseAck(s)
		if err != nil || a.String() != s || a.Wanted() != (s != "") {
			t.Fatalf("%q: %+v %v", s, a, err)
		}
	}
	for _, s := range []string{"x", "1", "/", "-1/"} {
		if _, err := socketio.ParseAck(s); err == nil {
			t.Fatalf("%q is one", s)
		}
	}
}

func TestPacketsThatAreBad(t *testing.T) {
	site, open := start(t, enginetest.Still)
	others := connected(t, site)
	hole := `{"_placeholder":true,"num":0}`
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		name    string
		why     wire.Close
		packets []string
	}{
		{"nothing", wire.CloseProtocol, []string{"4"}},
		{"an unknown type", wire.CloseProtocol, []string{"47"}},
		{"a refusal, which is the server's", wire.CloseProtocol, []string{`44{"message":"no"}`}},
		{"an event without data", wire.CloseProtocol, []string{"42"}},
		{"an event without a name", wire.CloseProtocol, []string{"42[]"}},
		{"an event whose name is no text", wire.CloseProtocol, []string{"42[1]"}},
		{"an event whose name is null", wire.CloseProtocol, []string{"42[null]"}},
		{"an event of the library's", wire.CloseProtocol, []string{`42["disconnect"]`}},
		{"a truncated event", wire.CloseProtocol, []string{`42["message",{"a":`}},
		{"something behind an event", wire.CloseProtocol, []string{`42["message"]]`}},
		{"an event that is an object", wire.CloseProtocol, []string{`42{"0":"message"}`}},
		{"too deep", wire.CloseProtocol, []string{`42["message",` + deep(10_000) + "]"}},
		{"a connect that is a list", wire.CloseProtocol, []string{"40/custom,[]"}},
		{"a connect with an ack id", wire.CloseProtocol, []string{"40/custom,1"}},
		{"a connect twice", wire.CloseProtocol, []string{"40"}},
		{"a disconnect with data", wire.CloseProtocol, []string{"41{}"}},
		{"an event to a namespace that it is not in", wire.CloseProtocol, []string{`42/custom,["message"]`}},
		{"a disconnect from one", wire.CloseProtocol, []string{"41/custom"}},
		{"an ack from one", wire.CloseProtocol, []string{"43/custom,0[]"}},
		{"an ack without an id", wire.CloseProtocol, []string{"43[]"}},
		{"an ack without data", wire.CloseProtocol, []string{"430"}},
		{"an ack id too long", wire.CloseProtocol, []string{"42" + strings.Repeat("9", 16) + `["message"]`}},
		{"an ack id much too long", wire.CloseProtocol, []string{"42" + strings.Repeat("9", 10_000) + `["message"]`}},
		{"a negative ack id", wire.CloseProtocol, []string{`42-1["message"]`}},
		{"a namespace too long", wire.CloseProtocol, []string{"40/" + strings.Repeat("x", 128)}},
		{"no UTF-8", wire.CloseNotUTF8, []string{"42[\"message\",\"\xff\"]"}},
		{"no UTF-8 in a namespace", wire.CloseNotUTF8, []string{"40/\xc3"}},

		{"no count of attachments", wire.CloseProtocol, []string{`45["message"]`}},
		{"a count that does not end", wire.CloseProtocol, []string{"451"}},
		{"a negative count", wire.CloseProtocol, []string{`45-1-["message"]`}},
		{"an absurd count", wire.CloseProtocol, []string{`45999999999999-["message",` + hole + "]"}},
		{"one above the limit", wire.CloseProtocol, []string{`4511-["message",` + hole + "]"}},
		{"a placeholder out of range", wire.CloseProtocol, []string{`451-["message",{"_placeholder":true,"num":1}]`}},
		{"a placeholder out of range, nested", wire.CloseProtocol, []string{`451-["message",{"a":[{"_placeholder":true,"num":7}]}]`}},
		{"a placeholder of no attachment", wire.CloseProtocol, []string{`450-["message",` + hole + "]"}},
		{"a placeholder below 0", wire.CloseProtocol, []string{`451-["message",{"_placeholder":true,"num":-1}]`}},
		{"half a placeholder", wire.CloseProtocol, []string{`451-["message",{"_placeholder":true,"num":0.5}]`}},
		{"a placeholder without a number", wire.CloseProtocol, []string{`451-["message",{"_placeholder":true}]`}},
		{"a placeholder whose number is text", wire.CloseProtocol, []string{`451-["message",{"_placeholder":true,"num":"0"}]`}},
		{"an attachment of nothing", wire.CloseProtocol, []string{"b\x01"}},
		{"an attachment too many", wire.CloseProtocol, []string{`451-["message",` + hole + "]", "b\x01", "b\x02"}},
		{"an attachment too few", wire.CloseProtocol, []string{`452-["message",` + hole + "]", "b\x01", `42["message"]`}},
		{"a text packet between", wire.CloseProtocol, []string{`451-["message",` + hole + "]", `42["message"]`}},
		{"a good-bye between", wire.CloseProtocol, []string{`451-["message",` + hole + "]", "41"}},
		{"attachments that are too large", wire.CloseTooLarge, []string{`452-["message",` + hole + "]", "b" + strings.Repeat("x", 600_000), "b" + strings.Repeat("x", 600_000)}},
		{"a message that is too large", wire.CloseTooLarge, []string{`42["message","` + strings.Repeat("x", echo.MaxPayload) + `"]`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ws := connected(t, site)
			say(ws, c.packets...)
			for m := ws.Next(); ; m = ws.Next() {
				if m.Code == 0 && strings.Contains(m.Data, "message-back") && c.name == "an attachment too many" {
					continue // its event was whole, and what it brought
				}
				if m.Code == 0 && m.Binary {
					continue
				}
				if m.Code != c.why.Code {
					t.Fatalf("got %+v", m)
				}
				break
			}
			others.Send(`42["message","still here"]`)
			others.Want(`42["message-back","still here"]`)
			if c.why == wire.CloseProtocol && len(c.packets) == 1 && c.packets[0][0] == '4' && !strings.Contains(c.name, "UTF-8") {
				// The same by polling: the payload is taken, the session has ended.
				p := site.Open()
				p.Post("40")
				if a := p.Post(c.packets[0]); a.Status != http.StatusOK {
					t.Fatalf("got %+v", a)
				}
				for a := p.Get(); a.Status != http.StatusBadRequest; a = p.Get() {
					if a.Status != http.StatusOK {
						t.Fatalf("got %+v", a)
					}
				}
			}
		})
	}
	testx.Eventually(t, "only the other one is left", enginetest.Patience, func() bool { return open() == 1 })
	others.Abort()
}

func TestPacketsThatAreNoneInAPayload(t *testing.T) {
	site, open := start(t, enginetest.Still)
	p := site.Open()
	if a := p.Post(strings.Repeat("4\x1e", 29_999) + "4"); a.Status != http.StatusOK {
		t.Fatalf("got %+v", a)
	}
	if a := p.Get(); a.Status != http.StatusBadRequest || open() != 0 {
		t.Fatalf("got %+v", a)
	}
}

// perConnection bounds what one that polls and has said nothing holds: 10,000 of them cost 20 MB at most, until ConnectTimeout.
const perConnection = 2048

func TestHandshakesThatNeverContinue(t *testing.T) {
	const n = 10_000
	site, open, budget := serve(t, enginetest.Still, func(c *socketio.Config) { c.ConnectTimeout = 2 * time.Second })
	others := connected(t, site)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools hold goes with the second one
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	site.Handshakes(n)
	most := open() // on a slow machine the first ones have ended by now
	if each := (heap() - before) / int64(max(most, 1)); most > 1000 && each > perConnection {
		t.Errorf("%d bytes each, the bound is %d", each, perConnection)
	} else {
		t.Logf("%d at once, %d bytes each", most, each)
	}
	testx.Eventually(t, "every one ends", enginetest.Patience, func() bool { return open() == 1 })
	testx.Eventually(t, "nothing is queued", enginetest.Patience, func() bool { return budget.Used() == 0 })
	testx.Eventually(t, "their memory is given back", enginetest.Patience, func() bool { return heap()-before < n*perConnection/10 })
	for range 100 { // WebSockets, too
		site.Socket()
	}
	testx.Eventually(t, "every WebSocket ends", enginetest.Patience, func() bool { return open() == 1 })
	others.Send(`42["message"]`)
	others.Want(`42["message-back"]`)
	others.Abort()
	testx.Eventually(t, "none is left", enginetest.Patience, func() bool { return open() == 0 })
}

func TestEventFrame(t *testing.T) {
	data, _ := json.Marshal("x")
	if got := string(socketio.AppendEvent(nil, `a"b`, data)); got != `2["a\"b","x"]` {
		t.Fatalf("got %s", got)
	}
}
