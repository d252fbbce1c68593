package target

import (
	"context"
	"fmt"
	"path/filepath"

	"parley.example/tests/bench/internal/proc"
	"parley.example/tests/bench/internal/ws"
)

type relay struct {
	group *proc.Group
	doors []door
}

type door struct {
	addr string
	p    *proc.Process
}

// Relay starts the yardstick: gorilla/websocket and one nats-server without JetStream.
func Relay(o Options) (_ Target, err error) {
	r := &relay{group: proc.NewGroup(o.Work)}
	defer func() {
		if err != nil {
			r.Stop()
		}
	}()
	url, _, err := startNATS(r.group, o, "relay-nats", natsPlain)
	if err != nil {
		return nil, err
	}
	for i := range o.doors() {
		port, err := proc.FreePort()
		if err != nil {
			return nil, err
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		p, err := r.group.Start(proc.Spec{Name: fmt.Sprintf("relay-%d", i), Path: filepath.Join(o.Bin, "relay"), Args: []string{addr, url}})
		if err != nil {
			return nil, err
		}
		if err := p.Wait("the relay listens", startTimeout, func() error { return proc.Answers(addr) }); err != nil {
			return nil, err
		}
		r.doors = append(r.doors, door{addr, p})
	}
	return r, nil
}

func (r *relay) Name() string                 { return "relay" }
func (r *relay) Doors() int                   { return len(r.doors) }
func (r *relay) Servers() *proc.Group         { return r.group }
func (r *relay) Front(d int) *proc.Process    { return r.doors[d].p }
func (r *relay) Settle(context.Context) error { return nil }
func (r *relay) Stop()                        { r.group.Stop() }

func (r *relay) Open(ctx context.Context, d int, c Client) (Conn, string, error) {
	conn, err := ws.Dial(ctx, r.doors[d].addr, c.Local, "/?user="+c.User+"&peer="+c.Peer, nil)
	if err != nil {
		return nil, "", err
	}
	if _, err := conn.Read(make([]byte, 256)); err != nil { // its welcome
		conn.Close()
		return nil, "", err
	}
	return conn, "", nil
}

// AppendSend writes the same frame as Parley's clients, so that both carry the same bytes.
func (r *relay) AppendSend(b []byte, from, to string, n int64, content string) []byte {
	return appendSend(b, from, to, n, content)
}

func (r *relay) Kind([]byte) Kind { return Delivered }
