package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"parley.example/pkg/subject"
)

// ErrNoNode says that no gateway of that name is connected.
var ErrNoNode = errors.New("no such gateway")

// nodeCalls bounds the requests of other gateways that one serves at a time; each waits for as long as a poll does.
const nodeCalls = 20_000

// ServeNode answers what other gateways ask this one by its name, until the returned function is called. f's context ends when the asker
// gives up.
func ServeNode[Req, Resp any](b *Bus, name string, f func(context.Context, Req) Resp) (stop func(), err error) {
	n := &node{running: map[string]context.CancelFunc{}}
	ask, err := b.nc.Subscribe(subject.Node(name), func(m *nats.Msg) {
		var req Req
		if json.Unmarshal(m.Data, &req) != nil || m.Reply == "" {
			return
		}
		ctx := n.begin(m.Reply)
		if ctx == nil {
			return // the asker's patience ends
		}
		go func() {
			defer n.end(m.Reply)
			body, err := json.Marshal(f(ctx, req))
			if err == nil {
				err = m.Respond(body)
			}
			if err != nil {
				b.log.Debug("an answer to another gateway was not sent", "error", err)
			}
		}()
	})
	if err != nil {
		return nil, fmt.Errorf("serve other gateways: %w", err)
	}
	give, err := b.nc.Subscribe(subject.NodeGiveUp(name), func(m *nats.Msg) { n.end(string(m.Data)) })
	if err != nil {
		_ = ask.Unsubscribe()
		return nil, fmt.Errorf("serve other gateways: %w", err)
	}
	return func() {
		_, _ = ask.Unsubscribe(), give.Unsubscribe() // fail only on a closed connection
		n.stop()
	}, nil
}

// node has the requests under way, by their reply subject.
type node struct {
	mu      sync.Mutex
	running map[string]context.CancelFunc
	wg      sync.WaitGroup
	stopped bool
}

func (n *node) begin(reply string) context.Context {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped || len(n.running) >= nodeCalls {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.running[reply] = cancel
	n.wg.Add(1)
	context.AfterFunc(ctx, n.wg.Done)
	return ctx
}

func (n *node) end(reply string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cancel := n.running[reply]; cancel != nil {
		cancel()
		delete(n.running, reply)
	}
}

func (n *node) stop() {
	n.mu.Lock()
	n.stopped = true
	for reply, cancel := range n.running {
		cancel()
		delete(n.running, reply)
	}
	n.mu.Unlock()
	n.wg.Wait()
}

// AskNode asks the gateway of that name. It waits for patience at most; when ctx ends before, the other one is told.
func AskNode[Resp, Req any](ctx context.Context, b *Bus, name string, patience time.Duration, req Req) (Resp, error) {
	var resp Resp
	body, err := json.Marshal(req)
	if err != nil {
		return resp, fmt.Errorf("encode a request: %w", err)
	}
	inbox := b.nc.NewInbox()
	sub, err := b.nc.SubscribeSync(inbox)
	if err != nil {
		return resp, fmt.Errorf("ask another gateway: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := b.nc.PublishRequest(subject.Node(name), inbox, body); err != nil {
		return resp, fmt.Errorf("ask another gateway: %w", err)
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m, err := sub.NextMsgWithContext(wait)
	switch {
	case errors.Is(err, nats.ErrNoResponders), err == nil && len(m.Data) == 0 && m.Header.Get("Status") == "503":
		return resp, ErrNoNode
	case err != nil:
		_ = b.nc.Publish(subject.NodeGiveUp(name), []byte(inbox)) // else it waits until its session ends
		return resp, fmt.Errorf("ask another gateway: %w", err)
	}
	if err := json.Unmarshal(m.Data, &resp); err != nil {
		return resp, fmt.Errorf("decode another gateway's answer: %w", err)
	}
	return resp, nil
}
