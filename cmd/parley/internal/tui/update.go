package tui

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/cmd/parley/internal/safetext"
)

// Update is the loop's step.
func (p *program) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		p.width, p.height = msg.Width, msg.Height
	case tick:
		return p, tea.Tick(time.Second, func(time.Time) tea.Msg { return tick{} }) // what depends on the time is drawn anew
	case tea.KeyPressMsg:
		return p, p.key(msg)
	case tea.PasteMsg:
		return p, p.edit(msg)
	case tea.MouseWheelMsg:
		if c := p.current(); c != nil {
			return p, p.scrollBy(c, map[bool]int{true: 3, false: -3}[msg.Button == tea.MouseWheelUp])
		}
	case loginFailed:
		p.logging = false
		p.notice = "could not log in: " + reason(msg.err)
		p.password.Reset()
	case loggedIn:
		return p, p.start(msg)
	case contacts:
		return p, p.contacts(msg)
	case pageRead:
		return p, p.page(msg)
	case sent:
		p.sent(msg)
	case reread:
		if msg.err == nil {
			p.counts(msg.conversations)
		}
	case happened:
		return p, p.event(msg.ev)
	case ended:
		if p.ctx.Err() == nil && !errors.Is(msg.err, client.ErrClosed) {
			p.failed = fmt.Errorf("the connection has ended: %w", msg.err)
			return p, tea.Quit
		}
	}
	return p, nil
}

// reason is an error in words for the one in front of the screen.
func reason(err error) string {
	var we *wire.Error
	if errors.As(err, &we) {
		return we.Message
	}
	return err.Error()
}

func (p *program) start(msg loggedIn) tea.Cmd {
	p.session, p.me, p.logging, p.notice = msg.s, msg.s.me.Username(), false, ""
	p.focus, p.link = onList, catching
	p.password.Reset()
	p.password.Blur()
	p.user.Blur()
	p.counts(msg.conversations)
	p.session.begin(p.send)
	cmd := p.session.readContacts("", "")
	if p.cfg.With == "" {
		return cmd
	}
	for name := range p.people {
		if strings.EqualFold(name, p.cfg.With) {
			return tea.Batch(cmd, p.enter(name))
		}
	}
	return cmd // the contacts may have it
}

// counts applies what the server says about conversations.
func (p *program) counts(list []client.Conversation) {
	for _, c := range list {
		x := p.person(c.Peer)
		x.unread, x.readSeq = c.Unread, c.ReadSeq
		x.peerRead, x.peerDelivered = max(x.peerRead, c.PeerReadSeq), max(x.peerDelivered, c.PeerDeliveredSeq)
		if c.LastMessage != nil && c.LastMessage.Seq > x.lastSeq {
			x.lastSeq, x.lastAt, x.preview = c.LastMessage.Seq, c.LastMessage.SentAt.Time, preview(*c.LastMessage)
		}
	}
	p.sort()
}

func (p *program) contacts(msg contacts) tea.Cmd {
	if msg.err != nil {
		p.notice = "the contacts could not be read: " + reason(msg.err)
		return nil
	}
	var open tea.Cmd
	for _, c := range msg.list {
		x := p.person(c.Username)
		if !c.LastSeen.IsZero() {
			x.lastSeen = c.LastSeen.Time
		}
		if c.Online != nil && x.state == unknown && !p.partial { // else nobody would tell when it changes
			x.state = map[bool]presence{true: online, false: offline}[*c.Online]
		}
		if p.open == "" && p.cfg.With != "" && strings.EqualFold(c.Username, p.cfg.With) {
			open = p.enter(c.Username)
		}
	}
	p.sort()
	if msg.more != "" && len(p.people) < maxPeople {
		return tea.Batch(open, p.session.readContacts("", msg.more))
	}
	if p.open == "" && open == nil && p.cfg.With != "" && msg.more == "" {
		p.notice = "nobody you may chat with is called " + p.cfg.With
		p.cfg.With = ""
	}
	return open
}

// enter opens a conversation; what is written in another one stays there.
func (p *program) enter(name string) tea.Cmd {
	if c := p.current(); c != nil {
		c.draft = p.input.Value()
	}
	c := p.person(name)
	p.open, p.selected, p.focus = name, name, onInput
	p.cfg.With = ""
	p.input.SetValue(c.draft)
	p.input.CursorEnd()
	focus := p.input.Focus()
	if !c.loaded && !c.loading {
		c.loading = true
		return tea.Batch(focus, p.session.readPage(name, c.room, 0, firstPage))
	}
	return tea.Batch(focus, p.read(c))
}

func (p *program) page(msg pageRead) tea.Cmd {
	c := p.person(msg.name)
	if msg.err != nil {
		c.loading = false
		p.notice = "history is away: " + reason(msg.err)
		return nil
	}
	c.older(msg.page)
	return p.read(c)
}

// read says that the open conversation has been read to its end, when its end is on the screen.
func (p *program) read(c *person) tea.Cmd {
	if c != p.current() || c.scroll > 0 || c.lastSeq == 0 || c.readSeq >= c.lastSeq {
		return nil
	}
	c.unread, c.readSeq = 0, c.lastSeq
	room, seq, conn := c.room, c.lastSeq, p.session.conn
	return tell(func(ctx context.Context) error { return conn.Read(ctx, room, seq) }, p.session.ctx)
}

func (p *program) event(ev client.Event) tea.Cmd {
	switch ev := ev.(type) {
	case client.Message:
		if p.take(ev.Message, true) {
			p.sort()
		}
		return p.read(p.person(client.Peer(ev.Room, p.me)))
	case client.Presence:
		p.see(ev.Presence)
		p.sort()
	case client.Typing:
		p.person(ev.Username).typing = time.Now().Add(typingFor)
	case client.Delivered:
		if ev.Username != p.me {
			c := p.person(ev.Username)
			c.peerDelivered = max(c.peerDelivered, ev.Seq)
		}
	case client.Read:
		c := p.person(client.Peer(ev.Room, p.me))
		if ev.Username != p.me {
			c.peerRead, c.peerDelivered = max(c.peerRead, ev.Seq), max(c.peerDelivered, ev.Seq)
		} else if ev.Seq > c.readSeq {
			return p.session.readAgain() // on another device of mine
		}
	case client.ContactChanged:
		if !ev.Removed {
			p.person(ev.Username)
		} else if c := p.people[ev.Username]; c != nil && c.lastSeq == 0 {
			delete(p.people, ev.Username)
		}
		p.sort()
	case client.Disconnected:
		p.link = broken
	case client.Reconnected:
		p.link = catching
	case client.CaughtUp:
		p.link = live
		if c := p.current(); c != nil {
			return p.read(c)
		}
	case client.Refused:
		p.notice = ev.Err.Message
	case client.NotJoined:
		p.notice = "not joined: " + ev.Room
	}
	return nil
}

func (p *program) sent(msg sent) {
	c := p.person(client.Peer(msg.room, p.me))
	for _, l := range c.lines {
		if !l.waiting || l.ID != msg.id {
			continue
		}
		if msg.err != nil {
			l.failed = reason(msg.err)
			return
		}
		m := l.Message
		m.Seq, m.SentAt = msg.acc.Seq, wire.Timestamp{Time: msg.acc.SentAt}
		p.take(m, true)
		p.sort()
		return
	}
}

// key is one key.
func (p *program) key(k tea.KeyPressMsg) tea.Cmd {
	s := k.String()
	p.notice = ""
	switch {
	case s == "ctrl+c", s == "ctrl+q":
		return tea.Quit
	case p.help:
		p.help = false
		return nil
	case s == "f1", s == "?" && (p.focus == onList || p.focus == onInput && p.input.Value() == ""):
		p.help = true
		return nil
	case p.focus == onLogin:
		return p.loginKey(k)
	case s == "ctrl+n":
		return p.step(1)
	case s == "ctrl+p":
		return p.step(-1)
	case s == "tab":
		if p.focus == onInput || p.current() == nil {
			p.focus = onList
			p.input.Blur()
			return nil
		}
		p.focus = onInput
		return p.input.Focus()
	}
	if c := p.current(); c != nil {
		switch s {
		case "pgup":
			return p.scrollBy(c, max(1, p.rowsForMessages()-2))
		case "pgdown":
			return p.scrollBy(c, -max(1, p.rowsForMessages()-2))
		case "ctrl+home":
			return p.scrollBy(c, 1<<30)
		case "ctrl+end":
			return p.scrollBy(c, -1<<30)
		}
	}
	if p.focus == onList {
		return p.listKey(k)
	}
	switch s {
	case "esc":
		p.focus = onList
		p.input.Blur()
		return nil
	case "up", "down":
		return p.scrollBy(p.current(), map[bool]int{true: 1, false: -1}[s == "up"])
	case "enter":
		return p.submit()
	}
	return p.edit(k)
}

func (p *program) loginKey(k tea.KeyPressMsg) tea.Cmd {
	switch k.String() {
	case "tab", "shift+tab", "up", "down":
		if p.user.Focused() {
			p.user.Blur()
			return p.password.Focus()
		}
		p.password.Blur()
		return p.user.Focus()
	case "enter":
		if p.user.Focused() {
			p.user.Blur()
			return p.password.Focus()
		}
		if p.logging || p.user.Value() == "" || p.password.Value() == "" {
			return nil
		}
		p.logging = true
		return login(p.ctx, p.cfg, p.user.Value(), p.password.Value())
	}
	return p.edit(k)
}

// edit gives a key or a paste to the text that has the focus.
func (p *program) edit(msg tea.Msg) (cmd tea.Cmd) {
	switch m := msg.(type) {
	case tea.PasteMsg:
		m.Content = safetext.Typed(m.Content)
		msg = m
	case tea.KeyPressMsg:
		m.Text = safetext.Typed(m.Text)
		msg = m
	}
	switch {
	case p.focus == onLogin && p.user.Focused():
		p.user, cmd = p.user.Update(msg)
	case p.focus == onLogin:
		p.password, cmd = p.password.Update(msg)
	case p.focus == onInput && p.current() != nil:
		before := p.input.Value()
		p.input, cmd = p.input.Update(msg)
		if after := p.input.Value(); after != before && after != "" && time.Since(p.typed) > typeEvery {
			p.typed = time.Now()
			room, conn := p.current().room, p.session.conn
			cmd = tea.Batch(cmd, tell(func(ctx context.Context) error { return conn.Typing(ctx, room) }, p.session.ctx))
		}
	}
	return cmd
}

func (p *program) listKey(k tea.KeyPressMsg) tea.Cmd {
	switch s := k.String(); s {
	case "up":
		p.move(-1)
	case "down":
		p.move(1)
	case "home":
		p.move(-len(p.order))
	case "end":
		p.move(len(p.order))
	case "enter", "right":
		if i := p.index(); i >= 0 {
			name := p.order[i].name
			p.setFilter("")
			return p.enter(name)
		}
	case "esc":
		p.setFilter("")
	case "backspace":
		if r := []rune(p.filter); len(r) > 0 {
			p.setFilter(string(r[:len(r)-1]))
		}
	default:
		if k.Text != "" && len(p.filter) < 64 {
			p.setFilter(p.filter + k.Text)
			if len(p.order) == 0 && len(p.people) >= maxPeople {
				return p.session.readContacts(p.filter, "") // not among those that are here
			}
		}
	}
	return nil
}

func (p *program) setFilter(f string) {
	p.filter = f
	p.sort()
}

// move goes up or down in the list.
func (p *program) move(by int) {
	if len(p.order) > 0 {
		p.selected = p.order[min(max(p.index()+by, 0), len(p.order)-1)].name
	}
}

// step opens the next or the previous one.
func (p *program) step(by int) tea.Cmd {
	if len(p.order) == 0 {
		return nil
	}
	p.move(by)
	return p.enter(p.selected)
}

// submit sends what was written.
func (p *program) submit() tea.Cmd {
	text, c := p.input.Value(), p.current()
	if c == nil || strings.TrimSpace(text) == "" {
		return nil
	}
	m := client.Outgoing{Room: c.room, Content: text, ID: newID()}
	if !p.session.enqueue(m) {
		p.notice = "too many messages wait to be sent; this one was kept here"
		return nil
	}
	p.input.Reset()
	c.draft, c.scroll, p.typed = "", 0, time.Time{}
	c.put(&line{Message: wire.Message{Room: c.room, Sender: p.me, ID: m.ID, Content: text, SentAt: wire.Timestamp{Time: time.Now()}}, waiting: true})
	return p.read(c)
}

// scrollBy moves the view up, or down when by is negative, and asks for older messages at the top.
func (p *program) scrollBy(c *person, by int) tea.Cmd {
	if c == nil {
		return nil
	}
	height := p.rowsForMessages()
	total := p.countRows(c, c.scroll+max(by, 0)+height)
	c.scroll = min(max(c.scroll+by, 0), max(total-height, 0))
	if c.scroll == 0 {
		return p.read(c)
	}
	if c.scroll+height+nextPage/2 > total && c.loaded && !c.loading && !c.complete && !c.full {
		c.loading = true
		return p.session.readPage(c.name, c.room, c.oldest(), nextPage)
	}
	return nil
}
