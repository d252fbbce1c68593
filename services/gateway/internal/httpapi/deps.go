package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.example/pkg/rpc"
	"parley.example/pkg/token"
	"parley.example/services/gateway/web"
)

// Presence says who is online now; known is false while nobody can tell.
type Presence interface {
	IsOnline(user string) (online, known bool)
}

// Tokens verifies access tokens, revocation included. Any error but a *wire.Error with another code means 401.
type Tokens interface {
	Verify(tok string, now time.Time) (token.Claims, error)
}

// Directory knows names, and who may see what of whom.
type Directory interface {
	// Recall gives a name its registered form, also when its user was erased. One that nobody ever had it gives as it stands.
	Recall(ctx context.Context, name string) (registered string, gone bool, err error)
	// Unseen are those of peers whose doings user may not learn.
	Unseen(ctx context.Context, user string, peers []string) map[string]bool
}

// Deps is what the handler works with. All but WebSocket, SocketIO and what comes with that are needed.
type Deps struct {
	Services  rpc.Caller
	Presence  Presence
	Tokens    Tokens
	Directory Directory
	Web       *web.Site // the page and its files

	Ready   func() error // why this gateway cannot serve now; nil when it can
	Storage func() error // why nobody can be registered now; nil when they can
	// Routed is, per partition, the seq of the youngest message that this gateway knows to be stored: answers from history are to have it.
	Routed    func() []int64
	WebSocket http.Handler // of /v1/ws; no route when nil
	SocketIO  http.Handler // of /socket.io/; no route when nil
	// Held reports whether a session id of Socket.IO is that of a connection here: its requests are limited by the session.
	Held func(sid string) bool
	// Listed is told whom each page of contacts named.
	Listed func(user string, names []string)
	// Legacy are the routes of the old clients, by pattern.
	Legacy   map[string]func(http.ResponseWriter, *http.Request) error
	Log      *slog.Logger
	Registry prometheus.Registerer
	Now      func() time.Time // nil: time.Now
}
