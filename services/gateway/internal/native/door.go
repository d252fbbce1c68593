// Package native is the room of the native protocol: the frames of package wire over a WebSocket.
package native

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/token"
	"parley.example/services/gateway/internal/access"
	"parley.example/services/gateway/internal/connections"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/wsconn"
)

// Subprotocol is what the server selects when a client offers it.
const Subprotocol = "parley.v1"

// bearerPrefix begins the subprotocol that carries a token, for browsers, which cannot set headers.
const bearerPrefix = "bearer."

// Door serves the native protocol at an HTTP route.
type Door struct {
	hub      *session.Hub
	table    *connections.Table
	upgrader *wsconn.Upgrader

	presence struct { // the last batch, which usually goes to many sessions in a row
		sync.Mutex
		of    *wire.Presence
		frame []byte
	}
}

// New makes the handler.
func New(h *session.Hub, t *connections.Table, budget *wsconn.Budget) *Door {
	return &Door{hub: h, table: t, upgrader: wsconn.NewUpgrader(wsconn.Config{
		Budget: budget, FrameBytes: h.FrameBytes, FramesPerSecond: h.FramesPerSecond, FrameBurst: h.FrameBurst(),
	}, Subprotocol)}
}

// ServeHTTP upgrades the request. Whatever is wrong with a token or with the number of connections is told on the WebSocket: a browser shows a
// page neither status nor body of a refused handshake.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tok, has := bearer(r)
	ws := d.upgrader.Upgrade(w, r)
	if ws == nil {
		return
	}
	c := &conn{Conn: ws, door: d, opened: time.Now()}
	if why, err := d.table.Add(c, r); err != nil {
		c.refuse(err, "", why)
	} else if has {
		c.authenticate(tok, "")
	}
	ws.Start(c)
}

// bearer finds a token in the header or in the subprotocols; never in the URL, which gets logged.
func bearer(r *http.Request) (string, bool) {
	if h := r.Header.Get("Authorization"); h != "" {
		if scheme, tok, ok := strings.Cut(h, " "); ok && strings.EqualFold(scheme, "bearer") {
			return strings.TrimSpace(tok), true
		}
		return "", true
	}
	for _, h := range r.Header.Values("Sec-WebSocket-Protocol") {
		for _, p := range strings.Split(h, ",") {
			if tok, ok := strings.CutPrefix(strings.TrimSpace(p), bearerPrefix); ok {
				return tok, true
			}
		}
	}
	return "", false
}

var errScope = wire.E(wire.Unauthenticated, "this token is not for the native protocol")

// verify gives the claims of an access token for this protocol.
func (d *Door) verify(tok string) (token.Claims, error) {
	c, err := d.hub.Verifier.Verify(tok, time.Now())
	if err == nil && !c.Has(token.ScopeNative) {
		err = errScope
	}
	return c, err
}

// closeFor is how a connection ends whose token was refused.
func closeFor(err error) wire.Close {
	switch {
	case session.AsWire(err).Code == wire.Unavailable:
		return wire.CloseTryLater
	case errors.Is(err, token.ErrExpired):
		return wire.CloseTokenExpired
	case errors.Is(err, access.ErrDisabled):
		return wire.CloseUserDisabled
	case errors.Is(err, access.ErrRevoked):
		return wire.CloseTokenRevoked
	}
	return wire.CloseNoAuth
}

// presenceFrame encodes a batch of presence once for all who get it in a row.
func (d *Door) presenceFrame(p *wire.Presence) []byte {
	d.presence.Lock()
	defer d.presence.Unlock()
	if d.presence.of != p {
		d.presence.of, d.presence.frame = p, wsconn.Text(wire.Encode(wire.EvPresence, p, ""))
	}
	return d.presence.frame
}
