// Package legacy is the room of the old clients, those of the system that this one took the place of: their events over Socket.IO, their HTTP routes, and
// their habits (docs/socketio.md).
package legacy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"parley.example/client/wire"
	"parley.example/pkg/api"
	"parley.example/pkg/rpc"
	"parley.example/services/gateway/internal/connections"
	"parley.example/services/gateway/internal/engineio"
	"parley.example/services/gateway/internal/session"
	"parley.example/services/gateway/internal/socketio"
)

// Config has what only the old clients need (docs/socketio.md).
type Config struct {
	Delay        time.Duration `cfg:"socketio-delay" default:"3s" help:"Socket.IO: after its first join, a client is announced and gets messages only after this; the old clients lose what comes sooner"`
	Alive        time.Duration `cfg:"socketio-alive" default:"18s" help:"Socket.IO: without connection_alive for so long a user is signed out, even while the connection is open"`
	PingInterval time.Duration `cfg:"socketio-ping-interval" default:"25s" help:"Socket.IO: between two heartbeats of the server"`
	PingTimeout  time.Duration `cfg:"socketio-ping-timeout" default:"20s" help:"Socket.IO: for the answer to one"`
	Idle         time.Duration `cfg:"socketio-idle" default:"60s" help:"Socket.IO: a connection on which nobody is signed in is closed after this"`
	Bots         []string      `cfg:"socketio-bots" help:"Socket.IO: users whose messages arrive as ai_response_received; comma-separated"`
}

// Validate returns every mistake.
func (c Config) Validate() error {
	var errs []error
	for name, d := range map[string]time.Duration{
		"socketio-alive": c.Alive, "socketio-ping-interval": c.PingInterval, "socketio-ping-timeout": c.PingTimeout, "socketio-idle": c.Idle,
	} {
		if d < time.Second {
			errs = append(errs, errors.New(name+": must be at least 1s"))
		}
	}
	if c.Delay < 0 || c.Delay > time.Minute {
		errs = append(errs, errors.New("socketio-delay: must be between 0s and 1m"))
	}
	return errors.Join(errs...)
}

// Events of their protocol that the native one does not have.
const (
	evUserOnline  = "new_user_online"
	evUserOffline = "user_has_gone_offline"
	evBotMessage  = "ai_response_received"
)

const (
	invalidJWT = "Invalid JWT"
	adminName  = "Admin"
)

// adminText is what a sender whose token is not good reads, to the letter.
func adminText(sender string) string {
	return "Error! User '" + sender + "' must disconnect, re login and reconnect so the conversation can be resumed."
}

// MaxContacts is how many contacts a client is served: it joins each one's room.
const MaxContacts = 1000

// Burst is how many packets a client may send at once, whose connection may send so many frames: it joins every room of a long contacts list at once.
func Burst(frames int) int { return frames + MaxContacts + 100 }

// Legacy serves the old clients' connections.
type Legacy struct {
	services rpc.Caller
	hub      *session.Hub
	table    *connections.Table
	cfg      Config
	sio      socketio.Config
	bots     map[string]struct{}
	served   *served

	mu     sync.Mutex
	joined map[string][]*conn // by user
}

// New makes what Accept of an engineio.Server needs.
func New(h *session.Hub, t *connections.Table, cfg Config, services rpc.Caller) *Legacy {
	l := &Legacy{
		services: services, hub: h, table: t, cfg: cfg, bots: map[string]struct{}{}, served: newServed(), joined: map[string][]*conn{},
		// A chat has no use for attachments; a few are read so that their event can be refused by name.
		sio: socketio.Config{ConnectTimeout: h.AuthTimeout, Attachments: 4, AttachmentBytes: h.FrameBytes},
	}
	for _, b := range cfg.Bots {
		l.bots[b] = struct{}{}
	}
	return l
}

// Joined reports whether a client of user has joined here. The contacts list of an old one has it as online from its join on, which others hear of
// after the delay.
func (l *Legacy) Joined(user string) bool {
	l.mu.Lock()
	old := len(l.joined[user]) > 0
	l.mu.Unlock()
	return old || len(l.hub.Router.Members(user)) > 0
}

func (l *Legacy) join(user string, c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.joined[user] = append(l.joined[user], c)
}

func (l *Legacy) leave(user string, c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := slices.DeleteFunc(l.joined[user], func(x *conn) bool { return x == c })
	if l.joined[user] = left; len(left) == 0 {
		delete(l.joined, user)
	}
}

// heard takes a sign of life of a user, on whichever connection: as the original has it, one that is dead and not known to be must not void the token of
// the one that took its place.
func (l *Legacy) heard(user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.joined[user] {
		c.alive.Store(time.Now().UnixMilli())
	}
}

// Accept is engineio.Accept.
func (l *Legacy) Accept(e *engineio.Conn, r *http.Request) (engineio.Handler, error) {
	c := &conn{room: l}
	c.quietSince.Store(time.Now().Unix())
	c.sio = socketio.New(&l.sio, e, c)
	if _, err := l.table.Add(c, r); err != nil {
		c.sio.Discard()
		return nil, err
	}
	return c.sio, nil
}

// encode is a message as these clients get it; what they do not know of it does no harm.
func (l *Legacy) encode(m *wire.Message) []byte {
	event := wire.EvReceived
	if _, bot := l.bots[m.Sender]; bot {
		event = evBotMessage
	}
	return socketio.EventFrame(event, wire.AppendMessageData(make([]byte, 0, len(m.Content)+256), m))
}

// endLogin ends a login, at every gateway: the old clients' good-byes do so.
func (l *Legacy) endLogin(user, sid string) (done <-chan struct{}) {
	over := make(chan struct{})
	l.hub.Go(func() {
		defer close(over)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for wait := 100 * time.Millisecond; ; wait *= 2 {
			_, err := api.AuthLogout.Call(ctx, l.services, api.LogoutRequest{Username: user, SID: sid})
			if err == nil {
				return
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				l.hub.Log.Warn("a login could not be ended; its token runs out by itself", "user", user, "error", err)
				return
			}
		}
	})
	return over
}
