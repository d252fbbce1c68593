// Package tui is the full-screen chat of a terminal: contacts on the left, a conversation on the right. All state is in model, which only
// Bubble Tea's loop touches; what waits for the server is a command or the session's goroutines, which send messages to that loop.
package tui

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"charm.land/bubbles/v2/textinput"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/cmd/parley/internal/safetext"
	"parley.example/pkg/room"
)

// Limits of what is held. Beyond each, the server still has everything.
const (
	maxPeople = 10_000 // contacts in the list; searching finds the others
	maxLoaded = 20_000 // messages of one conversation; scrolling further up forgets nothing, it stops with a word
	maxQueue  = 256    // messages that wait to be sent; one more stays in the input
	firstPage = 60     // messages when a conversation is opened
	nextPage  = 100    // when one scrolls to its top
	typingFor = 5 * time.Second
	typeEvery = 3 * time.Second // how often the other one is told that one types
)

// presence of a person.
type presence int

const (
	unknown presence = iota
	offline
	online
)

// person is a contact with the conversation that one has with them.
type person struct {
	name, room string
	key        string // see plain
	state      presence
	lastSeen   time.Time

	lastSeq int64 // youngest message that is known of
	lastAt  time.Time
	preview string
	unread  int64
	readSeq int64 // up to where I have read

	peerRead, peerDelivered int64
	typing                  time.Time // until then

	loaded, loading, complete, full bool // complete: the first message is here; full: maxLoaded are
	lines                           []*line
	draft                           string
	scroll                          int // rows that the view is above the end
}

// line is a message that is shown.
type line struct {
	wire.Message
	waiting bool   // not accepted yet
	failed  string // why it was not sent

	width int // of rows
	rows  []string
}

// focus is what keys go to.
type focus int

const (
	onLogin focus = iota
	onList
	onInput
)

// model is the whole state.
type model struct {
	partial bool // the last picture of presence was one of some: of others nothing is known
	cfg     Config
	session *session // nil before the login
	me      string

	width, height int
	focus         focus
	help          bool
	notice        string // one line for the person, until the next key
	link          linkState

	user, password textinput.Model
	logging        bool

	people   map[string]*person // by name
	order    []*person          // as listed
	filter   string
	selected string // name, in the list
	open     string // name, "" for none
	input    textinput.Model
	typed    time.Time // when the other one was told last
}

// linkState is how the connection is.
type linkState int

const (
	connecting linkState = iota
	catching
	live
	broken
)

func newModel(cfg Config) *model {
	m := &model{cfg: cfg, people: map[string]*person{}, width: 80, height: 24}
	field := func(prompt, value string) textinput.Model {
		t := textinput.New()
		t.Prompt = prompt
		t.SetVirtualCursor(false)
		t.KeyMap.Paste.SetEnabled(false) // terminals paste by themselves; this one runs programs for it
		t.SetValue(value)
		return t
	}
	m.user, m.password = field("", cfg.User), field("", "")
	m.password.EchoMode = textinput.EchoPassword
	m.input = field("", "")
	if cfg.User == "" {
		m.user.Focus()
	} else {
		m.password.Focus()
	}
	return m
}

// person finds or makes one.
func (m *model) person(name string) *person {
	p := m.people[name]
	if p == nil {
		p = &person{name: name, room: client.Room(m.me, name), key: plain(name)}
		m.people[name] = p
	}
	return p
}

// plain is what a search compares: without case and accents.
func plain(name string) string {
	key, _ := room.Plain(name)
	return key
}

// sort puts the list in order: conversations by their youngest message, then everybody else by name.
func (m *model) sort() {
	m.order = m.order[:0]
	wanted := plain(m.filter)
	for _, p := range m.people {
		if strings.Contains(p.key, wanted) {
			m.order = append(m.order, p)
		}
	}
	slices.SortFunc(m.order, func(a, b *person) int {
		if c := b.lastAt.Compare(a.lastAt); c != 0 {
			return c
		}
		return cmp.Or(strings.Compare(strings.ToLower(a.name), strings.ToLower(b.name)), strings.Compare(a.name, b.name))
	})
	if m.index() < 0 && len(m.order) > 0 {
		m.selected = m.order[0].name
	}
}

// index is where the selected one is in the list, -1 if nowhere.
func (m *model) index() int {
	return slices.IndexFunc(m.order, func(p *person) bool { return p.name == m.selected })
}

// current is the open conversation, nil for none.
func (m *model) current() *person {
	if m.open == "" {
		return nil
	}
	return m.people[m.open]
}

// unread is the sum of all badges.
func (m *model) unread() (n int64) {
	for _, p := range m.people {
		n += p.unread
	}
	return n
}

// take puts a message into its conversation, each once and by seq. It reports whether it is news.
func (m *model) take(msg wire.Message, live bool) bool {
	p := m.person(client.Peer(msg.Room, m.me))
	news := msg.Seq > p.lastSeq
	if news {
		p.lastSeq, p.lastAt = msg.Seq, msg.SentAt.Time
		p.preview = preview(msg)
		if msg.Sender != m.me && live {
			p.unread++
		}
	}
	if msg.Sender != m.me {
		p.typing = time.Time{}
	}
	p.put(&line{Message: msg})
	if !p.loaded && len(p.lines) > nextPage { // opening it reads the others
		p.lines = slices.Delete(p.lines, 0, len(p.lines)-nextPage)
	}
	return news
}

func preview(msg wire.Message) string {
	if msg.Content == "" {
		return "(erased)"
	}
	s := safetext.Line(msg.Content)
	if len(s) > 400 {
		s = s[:400] // more is never shown; cut inside a letter, the end is cut again
	}
	return s
}

// put inserts a line by seq; those that wait are last. A line with the id of one that waits takes its place.
func (p *person) put(l *line) {
	for i, old := range p.lines {
		if old.waiting && old.ID == l.ID && old.Sender == l.Sender {
			p.lines = slices.Delete(p.lines, i, i+1)
			break
		}
	}
	at := len(p.lines)
	for at > 0 && (p.lines[at-1].waiting || p.lines[at-1].Seq > l.Seq) && !l.waiting {
		at--
	}
	if at > 0 && !l.waiting && p.lines[at-1].Seq == l.Seq {
		return
	}
	p.lines = slices.Insert(p.lines, at, l)
}

// older puts a page before what is there.
func (p *person) older(page client.MessagesPage) {
	fresh := make([]*line, 0, len(page.Messages)+len(p.lines))
	for i := range page.Messages {
		if len(p.lines) == 0 || p.lines[0].waiting || page.Messages[i].Seq < p.lines[0].Seq {
			fresh = append(fresh, &line{Message: page.Messages[i]})
		}
	}
	p.lines = append(fresh, p.lines...)
	p.loaded, p.loading, p.complete = true, false, !page.More
	p.full = len(p.lines) >= maxLoaded
}

// oldest is the seq of the first line, 0 for none.
func (p *person) oldest() int64 {
	if len(p.lines) == 0 || p.lines[0].waiting {
		return 0
	}
	return p.lines[0].Seq
}

// see applies a presence event.
func (m *model) see(ev wire.Presence) {
	if ev.Unknown {
		for _, p := range m.people {
			p.state = unknown
		}
		return
	}
	if ev.Snapshot {
		for _, p := range m.people {
			p.state = offline
			if ev.Partial {
				p.state = unknown // but for those it names
			}
		}
		m.partial = ev.Partial
	}
	for _, name := range ev.Online {
		if name != m.me {
			m.person(name).state = online
		}
	}
	for _, o := range ev.Offline {
		if o.Username == m.me {
			continue
		}
		p := m.person(o.Username)
		p.state = offline
		if !o.LastSeen.IsZero() {
			p.lastSeen = o.LastSeen.Time
		}
	}
}
