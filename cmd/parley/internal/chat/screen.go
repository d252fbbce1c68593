package chat

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"
	"time"

	"parley.example/client"
	"parley.example/client/wire"
	"parley.example/cmd/parley/internal/safetext"
)

// screen prints whole lines, from several goroutines.
type screen struct {
	out io.Writer
	me  string

	mu     sync.Mutex
	with   string // the room that one is in
	shown  int64  // its last message that was printed by enter
	typed  time.Time
	online map[string]bool
}

func (s *screen) room() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.with
}

func (s *screen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.print(fmt.Sprintf(format, args...))
}

// print needs the lock. Whoever reads the output may be gone; the end of the input then ends the chat.
func (s *screen) print(text string) { _, _ = io.WriteString(s.out, safetext.Line(text)+"\n") }

// enter prints the last messages of a room, which is the present one from then on.
func (s *screen) enter(room, peer string, last []wire.Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.with, s.shown = room, 0
	state := ""
	if s.online[peer] {
		state = " (online)"
	}
	s.print("* with " + peer + state)
	for _, m := range last {
		s.printMessage(m)
		s.shown = m.Seq
	}
}

// message prints m and reports whether it belongs to the present room.
func (s *screen) message(m wire.Message) (here bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	here = m.Room == s.with
	if here && m.Seq != 0 && m.Seq <= s.shown && !m.Late {
		return here // enter printed it already
	}
	s.printMessage(m)
	return here
}

func (s *screen) printMessage(m wire.Message) {
	from := m.Sender
	if m.Room != s.with {
		from = m.Sender + " → " + client.Peer(m.Room, m.Sender)
	}
	s.print(m.SentAt.Local().Format("15:04") + " " + from + ": " + m.Content)
}

// presence prints who is there at first, and then who comes and goes.
func (s *screen) presence(p wire.Presence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Unknown {
		s.print("* who is online is not known now")
		return
	}
	if p.Snapshot {
		s.online = map[string]bool{}
	}
	var came, left []string
	for _, u := range p.Online {
		if !s.online[u] && u != s.me {
			s.online[u] = true
			came = append(came, u)
		}
	}
	for _, o := range p.Offline {
		if s.online[o.Username] {
			delete(s.online, o.Username)
			left = append(left, o.Username)
		}
	}
	sort.Strings(came)
	switch {
	case p.Snapshot && !p.Partial && len(came) == 0:
		s.print("* nobody else is online")
	case len(came) > 0:
		s.print("* online: " + strings.Join(came, ", "))
	}
	if len(left) > 0 {
		s.print("* offline: " + strings.Join(left, ", "))
	}
}

// typing is printed for the present room, and not with every key.
func (s *screen) typing(room, username string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if room != s.with || time.Since(s.typed) < 5*time.Second {
		return
	}
	s.typed = time.Now()
	s.print("* " + username + " is typing")
}
