package main_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"parley.example/client"
	"parley.example/pkg/testx"
)

// say sends as somebody.
func say(t *testing.T, c *client.Conn, room, text string) client.Accepted {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	acc, err := c.Send(ctx, room, text)
	if err != nil {
		t.Fatalf("send: %v", err)
	}
	return acc
}

// stored waits until history has a message.
func stored(t *testing.T, me *client.Session, acc client.Accepted) {
	t.Helper()
	testx.Eventually(t, "history has it", 20*time.Second, func() bool {
		for m, err := range me.History(t.Context(), acc.Room, 0) {
			return err == nil && m.Seq >= acc.Seq
		}
		return false
	})
}

// green reports that a text on the screen is green, as presence is.
func (s *screen) green(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for y := range s.emu.Height() {
		rest := text
		var fg any
		for x := 0; x < s.emu.Width(); x++ {
			c := s.emu.CellAt(x, y)
			if c == nil || c.Width == 0 {
				continue
			}
			if !strings.HasPrefix(rest, c.Content) {
				rest, fg = text, nil
				continue
			}
			if rest == text {
				fg = c.Style.Fg
			}
			if rest = rest[len(c.Content):]; rest == "" {
				return fg == ansi.Green || fg == ansi.IndexedColor(2)
			}
		}
	}
	return false
}

const aviLisa = "Avi&Lisa"

// Everything that a person does in the full screen, over a terminal.
func TestChatFullScreen(t *testing.T) {
	data, addr := t.TempDir(), fmt.Sprint("127.0.0.1:", testx.FreePort(t))
	srv := start(t, data, "--http", addr)
	aviMe := srv.login("Avi", "MoreMoreMore")
	avi, era := srv.dial(aviMe), srv.dial(srv.login("Era", "Come on"))
	for i := range 120 {
		say(t, avi, aviLisa, fmt.Sprintf("line %d of many", i))
	}
	stored(t, aviMe, say(t, avi, aviLisa, "the last one"))

	s := onScreen(t, 100, 30, nil, "chat", "--url", srv.url)
	s.shows("user name")
	s.keys("lisa" + enter + "wrong password" + enter)
	s.shows("wrong user name or password")
	if strings.Contains(s.String(), "wrong password"+enter) || strings.Contains(s.String(), "wrong passwordw") {
		t.Error("the password is shown")
	}
	s.keys("TestMe" + enter)

	// Contacts, presence in green, unread.
	s.shows("● Avi")
	s.shows("Tsahi")
	s.shows("[121]")
	s.shows("● Era")
	s.until("Avi is green", func(string) bool { return s.green("● Avi") })
	s.shows("○ Tsahi")
	if s.green("○ Tsahi") {
		t.Error("somebody offline is green")
	}
	// Search, and open.
	s.keys("av")
	s.until("only Avi is listed", func(all string) bool { return strings.Contains(all, "/av") && !strings.Contains(all, "Tsahi") })
	s.keys(enter)
	s.shows("the last one")
	s.hides("[121]")
	if r := next[client.Read](t, avi); r.Username != "Lisa" {
		t.Errorf("avi hears that %+v was read", r)
	}

	// Both ways, typing, marks.
	s.keys("how are you?")
	if ty := next[client.Typing](t, avi); ty.Username != "Lisa" {
		t.Errorf("avi sees %+v", ty)
	}
	s.keys(enter)
	m := next[client.Message](t, avi)
	if m.Content != "how are you?" || m.Sender != "Lisa" {
		t.Errorf("avi got %+v", m)
	}
	s.until("it is accepted", func(all string) bool { return strings.Contains(row(all, "Lisa how are you?"), "✓") })
	s.until("it is delivered", func(all string) bool { return strings.Contains(row(all, "Lisa how are you?"), "✓✓") })
	if err := avi.Read(t.Context(), aviLisa, m.Seq); err != nil {
		t.Fatal(err)
	}
	s.until("it is read", func(all string) bool { return strings.Contains(row(all, "Lisa how are you?"), "✓✓ read") })
	if err := avi.Typing(t.Context(), aviLisa); err != nil {
		t.Fatal(err)
	}
	s.shows("is typing")

	// Hostile text stays text; what is wide or written from right to left is all there.
	say(t, avi, aviLisa, "a\x1b[2J\x1b]0;pwned\x07\u202eb\nsecond row\n日本語 שלום 👩\u200d👩\u200d👧 end")
	s.shows("a·[2J·]0;pwned··b")
	s.shows("second row")
	s.until("the wide row", func(all string) bool {
		r := row(all, "日本語")
		return strings.Contains(r, "שלום") && strings.Contains(r, "end")
	})

	// Several conversations, each with its draft.
	s.keys("half a thou")
	say(t, era, "Era&Lisa", "psst")
	s.until("Era has one unread", func(all string) bool { return strings.Contains(row(all, "Era"), "[1]") })
	s.keys(tab + "era" + enter)
	s.shows("Era psst")
	s.hides("half a thou")
	s.keys("hello Era" + enter)
	if m := next[client.Message](t, era); m.Content != "hello Era" {
		t.Errorf("era got %+v", m)
	}
	s.keys(ctrlN)
	s.shows("half a thou")
	s.keys("ght")
	s.shows("half a thought")
	for range len("half a thought") {
		s.keys("\x7f")
	}

	// History, by scrolling up.
	for !strings.Contains(s.String(), "line 0 of many") {
		before := s.String()
		s.keys(pageUp)
		s.until("it scrolls up", func(all string) bool { return all != before })
	}
	s.keys(ctrlEnd)
	s.shows("second row")

	// Help; another size; a screen that is too narrow for both sides.
	s.keys("?")
	s.shows("the next conversation")
	s.keys(escape)
	s.hides("the next conversation")
	s.resize(44, 16)
	s.until("only the conversation", func(all string) bool {
		return strings.Contains(all, "second row") && !strings.Contains(all, "│")
	})
	s.keys(tab)
	s.shows("○ Tsahi")
	s.keys(tab)
	s.resize(100, 30)
	s.shows("○ Tsahi")

	// The server dies; what is written meanwhile goes out when it is back.
	srv.stop(syscall.SIGKILL)
	s.shows("reconnecting")
	s.keys("are you back?" + enter)
	s.until("it waits", func(all string) bool { return strings.Contains(row(all, "are you back?"), "…") })
	start(t, data, "--http", addr)
	s.until("it is accepted", func(all string) bool { return strings.Contains(row(all, "are you back?"), "✓") })
	s.hides("reconnecting")
	for next[client.Message](t, avi).Content != "are you back?" {
	}

	s.keys(ctrlC)
	if status := s.ended(); status != 0 {
		t.Errorf("it ended with status %d", status)
	}
	<-s.done
	if s.emu.IsAltScreen() {
		t.Error("the terminal is left on the other screen")
	}
}

// The picture of the README. It is drawn every time, and kept by `make screenshot`.
func TestChatScreenshot(t *testing.T) {
	srv := start(t, t.TempDir())
	eraMe := srv.login("Era", "Come on")
	avi, era := srv.dial(srv.login("Avi", "MoreMoreMore")), srv.dial(eraMe)
	say(t, avi, aviLisa, "Shall we take the early train tomorrow?")
	say(t, avi, aviLisa, "The 7:12 is never full.")
	say(t, era, "Era&Lisa", "Did you see the new figures?")
	stored(t, eraMe, say(t, era, "Era&Lisa", "They are good!"))
	s := onScreen(t, 92, 22, []string{"PARLEY_USER=lisa", "PARLEY_PASSWORD=TestMe"}, "chat", "--url", srv.url, "--with", "avi")
	s.shows("never full")
	s.shows("[2]")
	s.keys("Yes! I will bring the coffee ☕" + enter)
	m := next[client.Message](t, avi)
	say(t, avi, aviLisa, "מצוין. 早安! See you at the platform 👍")
	if err := avi.Read(t.Context(), aviLisa, m.Seq); err != nil {
		t.Fatal(err)
	}
	s.shows("✓✓ read")
	s.keys("Good night")
	s.shows("Good night")
	if err := avi.Typing(t.Context(), aviLisa); err != nil {
		t.Fatal(err)
	}
	s.shows("is typing")
	path := filepath.Join(t.TempDir(), "terminal.svg")
	if *screenshot != "" {
		path = *screenshot
	}
	s.draw("parley chat in a terminal: contacts with their presence on the left, a conversation on the right", path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(strings.NewReader(string(b)))
	for {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture is no XML: %v", err)
		}
	}
	if !strings.Contains(string(b), "platform") {
		t.Error("the picture lacks what the screen shows")
	}
	s.keys(ctrlC)
	s.ended()
}
