package engineio

import (
	"net/http"

	"parley.example/client/wire"
	"parley.example/services/gateway/internal/wsconn"
)

// direct is a Conn that began as a WebSocket, as wsconn sees it.
type direct Conn

// Frame implements wsconn.Handler.
func (d *direct) Frame(b []byte) { (*Conn)(d).frame(b) }

// Binary implements wsconn.Handler.
func (d *direct) Binary(b []byte) {
	(*Conn)(d).packet(packet{kind: typeMessage, binary: true, data: b})
}

// Pong implements wsconn.Handler: the WebSocket's own pings are not used.
func (d *direct) Pong(uint32) {}

// Closed implements wsconn.Handler.
func (d *direct) Closed(why wire.Close) { (*Conn)(d).end(why, false) }

func (c *Conn) frame(b []byte) {
	p, err := decodePacket(b)
	if err != nil {
		c.end(wire.CloseProtocol, false)
		return
	}
	c.packet(p)
}

// upgrading is the WebSocket of a connection that began with long-polling. Its fields belong to the WebSocket's reader.
type upgrading struct {
	c    *Conn
	ws   *wsconn.Conn
	done bool // it is the transport
}

// upgrade answers the opening of a WebSocket for a connection that polls.
func (c *Conn) upgrade(w http.ResponseWriter, r *http.Request) {
	// The place is taken before the client knows of its WebSocket: else a second one could overtake it.
	c.mu.Lock()
	q := c.polling
	free := !c.closed && q != nil && !q.upgrading
	if free {
		q.upgrading = true
	}
	c.mu.Unlock()
	ws := c.srv.upgrader.Upgrade(w, r)
	c.mu.Lock()
	switch {
	case ws == nil && free:
		q.upgrading = false
	case ws == nil:
	case c.closed || !free:
		ws.Close(wire.CloseProtocol) // one session has one WebSocket
	default:
		q.probe = ws
	}
	c.mu.Unlock()
	if ws != nil {
		ws.Start(&upgrading{c: c, ws: ws})
	}
}

// Frame implements wsconn.Handler.
func (u *upgrading) Frame(b []byte) {
	switch {
	case u.done:
		u.c.frame(b)
	case string(b) == "2probe":
		u.probe()
	case string(b) == "5":
		u.complete()
	default:
		u.ws.Close(wire.CloseProtocol) // the connection goes on polling
	}
}

// probe answers the probe and lets a waiting poll end, so that the client can stop polling.
func (u *upgrading) probe() {
	c := u.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.polling == nil || c.polling.probe != u.ws || c.polling.probed {
		u.ws.Close(wire.CloseProtocol)
		return
	}
	u.ws.SendText([]byte("3probe"))
	c.polling.probed = true
	c.polling.wake()
}

// complete makes the WebSocket the transport: what is queued goes first.
func (u *upgrading) complete() {
	c := u.c
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.polling
	if c.closed || q == nil || q.probe != u.ws || !q.probed {
		u.ws.Close(wire.CloseProtocol)
		return
	}
	u.done = true
	c.ws, c.polling = u.ws, nil
	c.srv.cfg.Budget.Give(q.bytes)
	for _, p := range q.queue {
		if p[0] == binaryPrefix {
			if b, err := decodeOne(p); err == nil {
				c.ws.SendBinary(b.data)
			}
			continue
		}
		c.ws.SendText(p)
	}
	q.queue, q.bytes = nil, 0
	q.wake()
}

// Binary implements wsconn.Handler.
func (u *upgrading) Binary(b []byte) {
	if !u.done {
		u.ws.Close(wire.CloseProtocol)
		return
	}
	u.c.packet(packet{kind: typeMessage, binary: true, data: b})
}

// Pong implements wsconn.Handler.
func (u *upgrading) Pong(uint32) {}

// Closed implements wsconn.Handler.
func (u *upgrading) Closed(why wire.Close) {
	if u.done {
		u.c.end(why, false)
		return
	}
	c := u.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.polling != nil && c.polling.probe == u.ws {
		c.polling.probe, c.polling.probed, c.polling.upgrading = nil, false, false
	}
}
