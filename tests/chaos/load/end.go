package load

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"parley.example/client"
	"parley.example/tests/chaos/checker"
)

// Bounds within which everything has to be true again after the last fault has ended.
const (
	outcomeBound  = 90 * time.Second // until every message has an outcome and everybody is there
	calmBound     = 90 * time.Second // until SQL has everything
	quietFor      = 5 * time.Second  // longer than a repair takes: if nothing came for so long, nothing will
	quietBound    = 90 * time.Second
	presenceBound = 12 * time.Second // promised after a crash, and that is how some leave
)

// Finish ends the talking, waits until everything has come to rest, asks for what can be asked for, and gives the history.
func (w *World) Finish() *checker.History {
	w.t.Helper()
	w.Hush()
	w.Wait("everybody is back", outcomeBound, w.AllThere)
	w.c.WaitCalm(calmBound)
	w.rest()
	w.record(checker.Event{Kind: checker.Rested}) // before the old clients connect again: those that were there have everything
	w.wake()
	w.c.WaitCalm(calmBound)
	w.rest()
	w.markers()
	w.pictures()
	w.probe()
	w.part()
	w.beliefs()
	w.rest()
	w.lists()
	w.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	return &w.history
}

// wake lets the old clients connect again. One whose signs of life did not come through was signed out, and learns that when it next sends.
func (w *World) wake() {
	w.t.Helper()
	for _, d := range w.devices {
		if d.sort != old {
			continue
		}
		d.mu.Lock()
		l := d.line
		d.mu.Unlock()
		if l != nil {
			d.detach()
			l.drop()
		}
	}
	w.Wait("the old clients are back", outcomeBound, w.AllThere)
}

// Hush ends the talking, and returns when every message has an outcome.
func (w *World) Hush() {
	w.t.Helper()
	w.quiet.Store(true)
	talked := make(chan struct{})
	go func() {
		w.sending.Wait()
		close(talked)
	}()
	select {
	case <-talked:
	case <-time.After(outcomeBound):
		w.t.Errorf("after %s, messages are without an outcome", outcomeBound)
	}
}

// rest waits until nothing comes any more.
func (w *World) rest() {
	w.t.Helper()
	received := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		n := 0
		for i := len(w.history.Events) - 1; i >= 0 && w.history.Events[i].At > w.Since()-2*quietFor; i-- {
			if w.history.Events[i].Kind == checker.Received && w.history.Events[i].At > w.Since()-quietFor {
				n++
			}
		}
		return n
	}
	w.Wait("quiet", quietBound, func() bool { return received() == 0 })
}

// markers lets every third person read their rooms up to some message.
func (w *World) markers() {
	for i, p := range w.people {
		if i%3 != 0 {
			continue
		}
		for _, d := range p.devices {
			if d.sort == old {
				continue
			}
			d.mu.Lock()
			l := d.line
			top := map[string]int64{}
			for r, s := range d.top {
				top[r] = s
			}
			d.mu.Unlock()
			if l == nil {
				continue
			}
			for _, room := range p.rooms {
				if top[room] == 0 {
					continue
				}
				ctx, cancel := context.WithTimeout(w.ctx, patience)
				err := l.read(ctx, room, top[room])
				cancel()
				if err != nil {
					w.t.Errorf("%s reads %s: %v", p.name, room, err)
					continue
				}
				d.haveRead(room, top[room])
			}
			break
		}
	}
}

// part sends every eighth person away; of these every second without a good-bye. The SDK always says it.
func (w *World) part() {
	for i, p := range w.people {
		if i%8 == 7 {
			w.parted[p.name] = true
			for _, d := range p.devices {
				d.leave <- i%16 == 15
			}
		}
	}
	w.Wait("those who leave have left", 30*time.Second, func() bool {
		for i, p := range w.people {
			for _, d := range p.devices {
				d.mu.Lock()
				gone := d.left
				d.mu.Unlock()
				if i%8 == 7 && !gone {
					return false
				}
			}
		}
		return true
	})
}

// beliefs waits until everybody's picture of who is there is true, as long as is promised, and records it as it is then.
func (w *World) beliefs() {
	for deadline := time.Now().Add(presenceBound); time.Now().Before(deadline) && !w.PresenceTrue(); {
		time.Sleep(50 * time.Millisecond) // polling interval
	}
	for _, d := range w.devices {
		if w.believing(d) {
			online, _ := d.believes(w.parted)
			d.mu.Lock()
			unknown := d.unknown
			d.mu.Unlock()
			w.record(checker.Event{Kind: checker.Believes, User: d.p.name, Device: d.name, Watched: d.p.peers, Online: online, InTheDark: unknown})
		}
	}
}

// PresenceTrue reports that everybody's picture of who is there is right. Who means to be there counts as there.
func (w *World) PresenceTrue() bool {
	for _, d := range w.devices {
		if _, right := d.believes(w.parted); w.believing(d) && !right {
			return false
		}
	}
	return true
}

// WrongPictures says of a few devices what is wrong with theirs.
func (w *World) WrongPictures(most int) string {
	var list []string
	for _, d := range w.devices {
		online, right := d.believes(w.parted)
		if right || !w.believing(d) || len(list) == most {
			continue
		}
		d.mu.Lock()
		unknown := d.unknown
		d.mu.Unlock()
		list = append(list, fmt.Sprintf("%s/%s watches %v, takes %v for online, unknown %v", d.p.name, d.name, d.p.peers, online, unknown))
	}
	return strings.Join(list, "; ")
}

// believing devices have a picture: the old clients are shown changes only.
func (w *World) believing(d *device) bool { return d.sort != old && d.there() && !w.parted[d.p.name] }

// believes is who of the peers the device takes for online, and whether that is so.
func (d *device) believes(parted map[string]bool) (online []string, right bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	right = !d.unknown
	for _, q := range d.p.peers {
		if d.online[q] {
			online = append(online, q)
		}
		right = right && d.online[q] == !parted[q]
	}
	return online, right
}

// lists asks for every room and every conversation.
func (w *World) lists() {
	w.each(func(p *person) {
		if err := w.list(p); err != nil {
			w.t.Errorf("%s asks for history: %v", p.name, err)
		}
	})
}

func (w *World) list(p *person) error {
	rooms := p.rooms
	if p.quarrel != nil {
		rooms = append(slices.Clone(rooms), p.quarrel.room)
	}
	for _, room := range rooms {
		if a, _ := checker.Members(room); a != p.name {
			continue // the other one asks
		}
		for after := int64(0); ; {
			var page client.MessagesPage
			if err := w.get(p.name, fmt.Sprintf("%s?limit=200&after=%d", roomPath(room), after), &page); err != nil {
				return err
			}
			for _, m := range page.Messages {
				w.record(checker.Event{Kind: checker.Listed, User: p.name, Device: "http", Room: m.Room, Sender: m.Sender, ID: m.ID, Seq: m.Seq, Content: m.Content})
				after = m.Seq
			}
			if !page.More {
				break
			}
		}
		w.record(checker.Event{Kind: checker.AskedRoom, User: p.name, Device: "http", Room: room})
	}
	conversations, err := w.conversations(p.name)
	if err != nil {
		return err
	}
	for _, c := range conversations {
		e := checker.Event{Kind: checker.Conversation, User: p.name, Device: "http", Room: c.Room, Unread: c.Unread, ReadSeq: c.ReadSeq, PeerReadSeq: c.PeerReadSeq, DeliveredSeq: c.DeliveredSeq, PeerDeliveredSeq: c.PeerDeliveredSeq}
		if c.LastMessage != nil {
			e.Seq = c.LastMessage.Seq
		}
		w.record(e)
	}
	w.record(checker.Event{Kind: checker.AskedConversations, User: p.name, Device: "http"})
	return nil
}

// conversations are all of a user's.
func (w *World) conversations(user string) (list []client.Conversation, err error) {
	for after := ""; ; {
		var page client.ConversationsPage
		if err := w.get(user, "/v1/conversations?limit=100&after="+after, &page); err != nil {
			return nil, err
		}
		list = append(list, page.Conversations...)
		if after = page.Next; after == "" {
			return list, nil
		}
	}
}

// Close ends all connections.
func (w *World) Close() {
	w.quiet.Store(true) // a test that failed has not hushed them
	w.end()
	w.wg.Wait()
	w.http.CloseIdleConnections()
}

// Figures of what happened so far.
func (w *World) Figures() checker.Figures {
	w.mu.Lock()
	defer w.mu.Unlock()
	return checker.Count(&w.history)
}

// SoFar is how many events of a kind there were.
func (w *World) SoFar(k checker.Kind) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[k]
}

// Talk begins again after Hush.
func (w *World) Talk() {
	w.quiet.Store(false)
	begin := func(do func()) {
		w.sending.Add(1)
		w.wg.Go(func() {
			defer w.sending.Done()
			do()
		})
	}
	for i, d := range w.devices {
		if d.native() {
			begin(d.act)
		}
		if !w.o.Mute || i%3 != 2 {
			begin(d.talk)
		}
	}
	for _, q := range w.pairs {
		begin(q.live)
	}
}
