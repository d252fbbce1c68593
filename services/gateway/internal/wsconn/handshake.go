package wsconn

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"parley.example/client/wire"
)

// handshakeTime bounds the writing of the answer to a handshake.
const handshakeTime = 5 * time.Second

// Refusal is the HTTP status and the reason why a request opens no WebSocket, 0 when it may (RFC 6455, section 4.2.1). It sets the headers
// that tell the client what would.
func Refusal(w http.ResponseWriter, r *http.Request) (status int, reason string) {
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	switch {
	case !lists(r.Header, "Connection", "upgrade") || !lists(r.Header, "Upgrade", "websocket"):
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Sec-WebSocket-Version", "13")
		return http.StatusUpgradeRequired, "this is a WebSocket; the protocol is in /asyncapi.yaml"
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		return http.StatusMethodNotAllowed, "a WebSocket is opened with GET"
	case !lists(r.Header, "Sec-WebSocket-Version", "13"):
		w.Header().Set("Sec-WebSocket-Version", "13")
		return http.StatusUpgradeRequired, "the version of WebSocket is 13: Sec-WebSocket-Version"
	case err != nil || len(key) != 16:
		w.Header().Set("Sec-WebSocket-Version", "13")
		return http.StatusBadRequest, "Sec-WebSocket-Key is 16 bytes in base64"
	}
	return 0, ""
}

// lists reports whether a header, which is a list, has an entry, in any case.
func lists(h http.Header, name, entry string) bool {
	for _, line := range h.Values(name) {
		for e := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(e), entry) {
				return true
			}
		}
	}
	return false
}

// Upgrade answers the handshake of a request that Refusal and the check of its origin let pass. On failure nil is returned, and the
// answer was sent or the connection is gone. Start must follow.
func (u *Upgrader) Upgrade(w http.ResponseWriter, r *http.Request) *Conn {
	if status, reason := Refusal(w, r); status != 0 {
		http.Error(w, reason, status)
		return nil
	}
	nc, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "the connection cannot become a WebSocket", http.StatusInternalServerError)
		return nil
	}
	if brw.Reader.Buffered() > 0 { // a client waits for the answer before it sends frames
		_ = nc.Close()
		return nil
	}
	accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(accept[:]) + "\r\n"
	if u.protocol != "" && lists(r.Header, "Sec-WebSocket-Protocol", u.protocol) {
		answer += "Sec-WebSocket-Protocol: " + u.protocol + "\r\n"
	}
	_ = nc.SetDeadline(time.Time{}) // those of net/http; a closed connection shows in the write
	_ = nc.SetWriteDeadline(time.Now().Add(handshakeTime))
	if _, err := nc.Write([]byte(answer + "\r\n")); err != nil {
		_ = nc.Close()
		return nil
	}
	c := &Conn{nc: nc, br: bufio.NewReaderSize(nc, readBuffer), cfg: &u.cfg}
	c.out = outbox{nc: nc, budget: u.cfg.Budget, failed: func(error) { c.fail(wire.Close{Code: 1006, Reason: "write failed", Reconnect: true}) }}
	c.touch()
	return c
}
