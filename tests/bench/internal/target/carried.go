package target

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"parley.example/pkg/subject"
)

// Traffic is messages and their bytes, without what the wire adds.
type Traffic struct{ Messages, Bytes int64 }

// Minus is what came since.
func (t Traffic) Minus(o Traffic) Traffic { return Traffic{t.Messages - o.Messages, t.Bytes - o.Bytes} }

// Carried is what NATS has carried so far.
type Carried struct {
	All      Traffic // in and out, as the servers count it
	Requests Traffic // of gateways to the presence service, without the answers
	Changes  Traffic // published by the presence service; each gateway gets each
}

// Carrier is a Target that tells what its NATS has carried.
type Carrier interface{ Carried() (Carried, error) }

// Carried implements Carrier.
func (p *parley) Carried() (Carried, error) { return p.carried() }

// counter counts messages of a subscription.
type counter struct{ messages, bytes atomic.Int64 }

func (c *counter) take(m *nats.Msg) {
	c.messages.Add(1)
	c.bytes.Add(int64(len(m.Data)))
}

func (c *counter) read() Traffic { return Traffic{c.messages.Load(), c.bytes.Load()} }

// watchPresence counts what is said to and by the presence service, by listening; that costs NATS a copy of each, which is taken off again.
func watchPresence(nc *nats.Conn, monitors []string) (func() (Carried, error), error) {
	var requests, changes counter
	for subj, c := range map[string]*counter{"svc.presence.>": &requests, subject.PresencePrefix + "*": &changes} {
		if _, err := nc.Subscribe(subj, c.take); err != nil {
			return nil, fmt.Errorf("listen to presence: %w", err)
		}
	}
	web := &http.Client{Timeout: 5 * time.Second}
	return func() (Carried, error) {
		if err := nc.FlushTimeout(5 * time.Second); err != nil {
			return Carried{}, fmt.Errorf("listen to presence: %w", err)
		}
		c := Carried{Requests: requests.read(), Changes: changes.read()}
		c.All = Traffic{-c.Requests.Messages - c.Changes.Messages, -c.Requests.Bytes - c.Changes.Bytes}
		for _, url := range monitors {
			resp, err := web.Get(url + "/varz")
			if err != nil {
				return c, fmt.Errorf("ask a nats-server: %w", err)
			}
			var v struct {
				InMsgs   int64 `json:"in_msgs"`
				OutMsgs  int64 `json:"out_msgs"`
				InBytes  int64 `json:"in_bytes"`
				OutBytes int64 `json:"out_bytes"`
			}
			err = json.NewDecoder(resp.Body).Decode(&v)
			resp.Body.Close()
			if err != nil {
				return c, fmt.Errorf("read what a nats-server says: %w", err)
			}
			c.All.Messages += v.InMsgs + v.OutMsgs
			c.All.Bytes += v.InBytes + v.OutBytes
		}
		return c, nil
	}, nil
}
