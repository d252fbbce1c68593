package wsconn

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"parley.example/client/wire"
)

// fin marks the last frame of a message.
const fin = 0x80

// masked is a frame as a client sends it.
func masked(first byte, payload string) string {
	mask := [4]byte{0xa1, 0xb2, 0xc3, 0xd4}
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, mask[:]...)
	body := []byte(payload)
	for i := range body {
		body[i] ^= mask[i%4]
	}
	return string(append(b, body...))
}

// closing is the payload of a close frame.
func closing(code int, reason string) string {
	return string([]byte{byte(code >> 8), byte(code)}) + reason
}

func say(t *testing.T, ws *websocket.Conn, frames ...string) {
	t.Helper()
	if _, err := ws.NetConn().Write([]byte(strings.Join(frames, ""))); err != nil {
		t.Fatal(err)
	}
}

// closedWith is the code of the close frame that comes next.
func closedWith(t *testing.T, ws *websocket.Conn) int {
	t.Helper()
	_ = ws.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, _, err := ws.ReadMessage()
	ce, ok := err.(*websocket.CloseError)
	if !ok {
		t.Fatalf("got %v", err)
	}
	return ce.Code
}

// TestFramesOfCloses: RFC 6455, sections 5.5.1 and 7.4.
func TestFramesOfCloses(t *testing.T) {
	for _, c := range []struct {
		name, payload string
		answer, why   int
	}{
		{"nothing", "", 1000, 1005},
		{"one byte", "\x03", 1002, 1002},
		{"a code", closing(1000, ""), 1000, 1000},
		{"a code and a reason", closing(1001, "tschüß"), 1001, 1001},
		{"a reason that is no UTF-8", closing(1000, "\xff"), 1007, 1007},
		{"half a character", closing(1000, "\xc3"), 1007, 1007},
		{"the longest reason", closing(3000, strings.Repeat("x", 123)), 3000, 3000},
		{"a code of a program", closing(4999, ""), 4999, 4999},
		{"0", closing(0, ""), 1002, 1002},
		{"999", closing(999, ""), 1002, 1002},
		{"1004", closing(1004, ""), 1002, 1002},
		{"1005", closing(1005, ""), 1002, 1002},
		{"1006", closing(1006, ""), 1002, 1002},
		{"1015", closing(1015, ""), 1002, 1002},
		{"1016", closing(1016, ""), 1002, 1002},
		{"2999", closing(2999, ""), 1002, 1002},
		{"5000", closing(5000, ""), 1002, 1002},
		{"65535", closing(65535, ""), 1002, 1002},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rec, ws := dial(t, Config{})
			say(t, ws, masked(fin|opClose, c.payload))
			if got := closedWith(t, ws); got != c.answer {
				t.Errorf("answered with %d, want %d", got, c.answer)
			}
			if why := wait(t, rec.closed); why.Code != c.why {
				t.Errorf("closed with %v, want %d", why, c.why)
			}
		})
	}
}

// TestFramesThatBreakTheProtocol: RFC 6455, section 5.
func TestFramesThatBreakTheProtocol(t *testing.T) {
	for name, c := range map[string]struct {
		frames string
		code   int
	}{
		"not masked":                      {"\x81\x01x", 1002},
		"a reserved bit":                  {masked(fin|0x40|opText, "x"), 1002},
		"an unknown kind":                 {masked(fin|0x3, "x"), 1002},
		"an unknown kind of control":      {masked(fin|0xb, "x"), 1002},
		"a ping in parts":                 {masked(opPing, "x"), 1002},
		"a ping that is too long":         {masked(fin|opPing, strings.Repeat("x", 126)), 1002},
		"a part of nothing":               {masked(fin|opContinuation, "x"), 1002},
		"a message within another":        {masked(opText, "x") + masked(fin|opText, "y"), 1002},
		"a negative length":               {"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff", 1002},
		"text that is no UTF-8":           {masked(fin|opText, "\xff"), 1007},
		"text that ends in a character":   {masked(fin|opText, "x\xe2\x82"), 1007},
		"a surrogate":                     {masked(fin|opText, "\xed\xa0\x80"), 1007},
		"parts of text that is no UTF-8":  {masked(opText, "\xe2") + masked(fin|opContinuation, "x"), 1007},
		"longer than may be, all at once": {masked(fin|opText, strings.Repeat("x", 1001)), 1009},
		"longer than may be, in parts":    {masked(opText, strings.Repeat("x", 600)) + masked(opContinuation, strings.Repeat("x", 401)), 1009},
		"a length that nobody has":        {"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1009},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec, ws := dial(t, Config{})
			say(t, ws, c.frames)
			if got := closedWith(t, ws); got != c.code {
				t.Errorf("closed with %d, want %d", got, c.code)
			}
			if why := wait(t, rec.closed); why.Code != c.code || len(rec.frames) != 0 {
				t.Errorf("closed with %v", why)
			}
		})
	}
}

func TestFramesOfPartsOfMessages(t *testing.T) {
	rec, ws := dial(t, Config{FrameBytes: 200_000})
	for _, size := range []int{0, 1, 7, 8, 9, 125, 126, 511, 512, 513, 70_000} {
		text := strings.Repeat("aé€😀", size/10) + strings.Repeat("x", size%10)
		whole := masked(fin|opText, text)
		var parts strings.Builder
		op := byte(opText)
		for rest := text; ; op = opContinuation { // parts may end within a character; a ping may stand between them
			n := min(len(rest), max(1, size/3))
			if n == len(rest) {
				parts.WriteString(masked(fin|op, rest))
				break
			}
			parts.WriteString(masked(op, rest[:n]) + masked(fin|opPing, "p"))
			rest = rest[n:]
		}
		say(t, ws, whole, parts.String())
		for range 2 {
			if got := wait(t, rec.frames); string(got) != text {
				t.Fatalf("%d bytes: got %d", len(text), len(got))
			}
		}
	}
}

// skipper is a recorder that lives without messages that are too large.
type skipper struct {
	*recorder
	skipped chan struct{}
}

func (s skipper) TooLarge() { s.skipped <- struct{}{} }

func TestFramesOfAMessageThatIsTooLarge(t *testing.T) {
	skipped := make(chan struct{}, 16)
	rec, ws := dialAs(t, Config{}, func(r *recorder) Handler { return skipper{r, skipped} })
	large := strings.Repeat("x", 900)
	for _, frames := range []string{
		masked(fin|opText, strings.Repeat("x", 1001)),
		masked(fin|opText, strings.Repeat("x", skipFrames*1000)),
		masked(opText, large) + masked(opContinuation, large) + masked(fin|opPing, "") + masked(fin|opContinuation, large),
		masked(fin|opBinary, large+large),
	} {
		say(t, ws, frames, masked(fin|opText, "after"))
		wait(t, skipped)
		if got := wait(t, rec.frames); string(got) != "after" {
			t.Fatalf("got %q", got)
		}
	}
	for i := range skipFrames {
		say(t, ws, masked(byte(opText)*byte(1-min(i, 1)), strings.Repeat("x", 1000)))
	}
	say(t, ws, masked(opContinuation, "x"))
	if got := closedWith(t, ws); got != wire.CloseTooLarge.Code {
		t.Errorf("closed with %d", got)
	}
	wait(t, skipped)
	if why := wait(t, rec.closed); why != wire.CloseTooLarge {
		t.Errorf("closed with %v", why)
	}
}

// TestFramesAllCount: what costs time to read is limited, whatever it is.
func TestFramesAllCount(t *testing.T) {
	const burst = 100
	for name, c := range map[string]struct{ first, more string }{
		"texts":        {"", masked(fin|opText, "")},
		"binary":       {"", masked(fin|opBinary, "")},
		"pings":        {"", masked(fin|opPing, "")},
		"pongs":        {"", masked(fin|opPong, "x")},
		"empty parts":  {masked(opText, ""), masked(opContinuation, "")},
		"skipped text": {"", masked(fin|opText, strings.Repeat("x", 20))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec, ws := dialAs(t, Config{FramesPerSecond: 1, FrameBurst: burst, FrameBytes: 10}, func(r *recorder) Handler { return deaf{r} })
			go func() { // the server may end it before everything is written
				_, _ = io.WriteString(ws.NetConn(), c.first+strings.Repeat(c.more, 20*burst))
			}()
			for {
				_, _, err := ws.ReadMessage()
				if err == nil {
					continue
				}
				if !websocket.IsCloseError(err, wire.CloseRate.Code) {
					t.Errorf("closed with %v", err)
				}
				break
			}
			if why := wait(t, rec.closed); why != wire.CloseRate {
				t.Errorf("closed with %v", why)
			}
		})
	}
}

// deaf hears the end only.
type deaf struct{ *recorder }

func (deaf) Frame([]byte)  {}
func (deaf) Binary([]byte) {}
func (deaf) Pong(uint32)   {}
func (deaf) TooLarge()     {}

func TestHandshakes(t *testing.T) {
	u := NewUpgrader(Config{FrameBytes: 10, Budget: &Budget{PerConn: 1000, Total: 1000}}, "v1")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := u.Upgrade(w, r); c != nil {
			c.Start(deaf{&recorder{closed: make(chan wire.Close, 1)}})
			c.Abort()
		}
	}))
	t.Cleanup(srv.Close)
	good := map[string]string{"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
	for _, c := range []struct {
		name, method, header, value string
		status                      int
	}{
		{"good", "GET", "X-Other", "x", 101},
		{"another method", "POST", "X-Other", "x", 405},
		{"no upgrade", "GET", "Upgrade", "", 426},
		{"no connection", "GET", "Connection", "close", 426},
		{"an old version", "GET", "Sec-WebSocket-Version", "8", 426},
		{"no version", "GET", "Sec-WebSocket-Version", "", 426},
		{"no key", "GET", "Sec-WebSocket-Key", "", 400},
		{"a short key", "GET", "Sec-WebSocket-Key", "dGhl", 400},
		{"a key that is no base64", "GET", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZ!==", 400},
		{"a subprotocol", "GET", "Sec-WebSocket-Protocol", "v0, v1 ,bearer.x", 101},
		{"another subprotocol", "GET", "Sec-WebSocket-Protocol", "v2", 101},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := http.NewRequest(c.method, srv.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range good {
				r.Header.Set(k, v)
			}
			if r.Header.Set(c.header, c.value); c.value == "" {
				r.Header.Del(c.header)
			}
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Errorf("status %d, want %d", resp.StatusCode, c.status)
			}
			if v := resp.Header.Get("Sec-WebSocket-Version"); (v == "13") != (c.status == 426 || c.status == 400) {
				t.Errorf("Sec-WebSocket-Version %q", v)
			}
			if p := resp.Header.Get("Sec-WebSocket-Protocol"); (p == "v1") != (c.name == "a subprotocol") {
				t.Errorf("subprotocol %q", p)
			}
			if a := resp.Header.Get("Sec-WebSocket-Accept"); c.status == 101 && a != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
				t.Errorf("accept %q", a) // the example of RFC 6455
			}
		})
	}
}

// FuzzFrames: whatever comes, reading ends when the connection does, and nothing is handed on that is no message.
func FuzzFrames(f *testing.F) {
	f.Add([]byte(masked(opText, "a") + masked(fin|opPing, "p") + masked(fin|opContinuation, "b")))
	f.Add([]byte(masked(fin|opClose, closing(1000, ""))))
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, ws := dialAs(t, Config{FrameBytes: 100}, func(r *recorder) Handler { return checking{t, r} })
		_, _ = ws.NetConn().Write(b) // the server may have closed
		ws.Close()
		wait(t, rec.closed)
	})
}

// checking looks at what it gets.
type checking struct {
	t *testing.T
	*recorder
}

func (c checking) Frame(b []byte) {
	if len(b) > 100 || !bytes.Equal(bytes.ToValidUTF8(b, nil), b) {
		c.t.Errorf("got %q", b)
	}
}
func (checking) Binary([]byte) {}
func (checking) Pong(uint32)   {}
