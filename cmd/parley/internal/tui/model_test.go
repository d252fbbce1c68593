package tui

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"parley.example/client"
	"parley.example/client/wire"
)

const aviLisa = "Avi&Lisa"

func msg(sender string, seq int64, content string) wire.Message {
	return wire.Message{Sender: sender, Room: aviLisa, ID: fmt.Sprint(sender, seq), Seq: seq, Content: content, SentAt: wire.Timestamp{Time: time.Unix(1_750_000_000+seq, 0)}}
}

// chatting is a program with a conversation open and no server.
func chatting(width, height int) *program {
	p := &program{model: newModel(Config{Server: "http://server"})}
	p.me, p.focus, p.width, p.height, p.link = "Lisa", onInput, width, height, live
	p.open, p.selected = "Avi", "Avi"
	p.person("Avi").loaded = true
	return p
}

func seqs(p *person) (out []int64) {
	for _, l := range p.lines {
		out = append(out, l.Seq)
	}
	return out
}

// Whatever order pages, live messages, twins and acceptances come in, each message is there once and in its place.
func TestMessagesOnceInTheirPlace(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		p := chatting(80, 24)
		c := p.person("Avi")
		c.loaded = false
		var all []wire.Message
		for seq := range int64(40) {
			all = append(all, msg([]string{"Avi", "Lisa"}[rng.IntN(2)], seq+1, "x"))
		}
		from := rng.IntN(39) + 1 // these come live, some twice and out of order
		late := slices.Clone(all[from:])
		rng.Shuffle(len(late), func(i, j int) { late[i], late[j] = late[j], late[i] })
		for _, m := range late {
			p.take(m, true)
			if rng.IntN(3) == 0 {
				p.take(m, true)
			}
		}
		for oldest := int64(0); ; oldest = c.oldest() { // and these by pages
			end := len(all)
			if oldest > 0 {
				end = int(oldest) - 1
			}
			begin := max(0, end-7)
			c.older(client.MessagesPage{Messages: all[begin:end], More: begin > 0})
			if c.complete {
				break
			}
		}
		want := make([]int64, len(all))
		for i := range want {
			want[i] = int64(i + 1)
		}
		if got := seqs(c); !slices.Equal(got, want) {
			t.Fatalf("live from %d on: %v", from+1, got)
		}
	}
}

func TestUnreadCountsEachOnce(t *testing.T) {
	p := chatting(80, 24)
	p.counts([]client.Conversation{{Peer: "Avi", Unread: 3, LastMessage: &wire.Message{Sender: "Avi", Seq: 9, Content: "old", Room: aviLisa}}})
	for _, m := range []wire.Message{msg("Avi", 8, "known"), msg("Avi", 9, "known"), msg("Avi", 10, "new"), msg("Avi", 10, "new"), msg("Lisa", 11, "mine")} {
		p.take(m, true)
	}
	if n := p.person("Avi").unread; n != 4 {
		t.Errorf("%d unread, want 4", n)
	}
}

// What waits stays below, and takes its place when it is accepted.
func TestMessagesThatWait(t *testing.T) {
	p := chatting(80, 24)
	c := p.person("Avi")
	c.put(&line{Message: wire.Message{Sender: "Lisa", Room: aviLisa, ID: "w1", Content: "first"}, waiting: true})
	c.put(&line{Message: wire.Message{Sender: "Lisa", Room: aviLisa, ID: "w2", Content: "second"}, waiting: true})
	p.take(msg("Avi", 5, "meanwhile"), true)
	p.sent(sent{room: aviLisa, id: "w1", acc: client.Accepted{Seq: 6}})
	p.sent(sent{room: aviLisa, id: "w2", err: wire.E(wire.RateLimited, "too fast")})
	if got := fmt.Sprint(seqs(c)); got != "[5 6 0]" || c.lines[2].failed != "too fast" {
		t.Errorf("lines %s, %+v", got, c.lines[2])
	}
}

// Every screen has exactly its size, whatever is said and however small it is; nothing but the program's own styles is in it.
func TestScreenKeepsItsSize(t *testing.T) {
	texts := []string{
		"plain", "\x1b[2J\x1b[31m\x9b5n", strings.Repeat("w", 400), "日本語の長い文章です。" + strings.Repeat("字", 90), "שלום עולם " + strings.Repeat("א", 70),
		"e" + strings.Repeat("\u0301", 300), strings.Repeat("👩\u200d👩\u200d👧", 30), "a\nb\r\nc\u2028d", "\u202egnp.exe\u2066", "", strings.Repeat("\n", 50), "🇩🇪\t\U000E0041",
	}
	for _, size := range [][2]int{{120, 40}, {100, 30}, {60, 10}, {59, 24}, {30, 8}, {20, 6}, {8, 5}, {1, 1}} {
		p := chatting(size[0], size[1])
		for _, name := range []string{"Avi", "Era", strings.Repeat("漢", 64)} {
			p.person(name).unread = 1234
		}
		p.person("Era").state = online
		p.sort()
		for i, text := range texts {
			p.take(msg([]string{"Avi", "Lisa"}[i%2], int64(i+1), text), true)
			p.focus, p.typed = onInput, time.Now() // nobody is told that one types
			p.input.Focus()
			p.input.Reset()
			p.edit(tea.PasteMsg{Content: text})
			p.notice = text
			for _, f := range []focus{onInput, onList, onLogin} {
				for scroll := range 3 {
					p.focus, p.person("Avi").scroll = f, scroll
					content := p.View().Content
					rows := strings.Split(content, "\n")
					if len(rows) != size[1] {
						t.Fatalf("%v with %q has %d rows", size, text, len(rows))
					}
					for _, r := range rows {
						if w := ansi.StringWidth(r); w != size[0] {
							t.Fatalf("%v with %q has a row of %d columns: %q", size, text, w, r)
						}
					}
					for _, bad := range []string{"\x1b[2J", "\x9b", "\u202e", "\u2066", "\t", "\r"} {
						if strings.Contains(content, bad) {
							t.Fatalf("%v with %q lets %q through", size, text, bad)
						}
					}
				}
			}
		}
	}
}

// The list of thousands costs what its visible part costs.
func BenchmarkManyPeople(b *testing.B) {
	p := chatting(100, 40)
	for i := range maxPeople {
		p.person(fmt.Sprint("user-", i))
	}
	p.sort()
	for b.Loop() {
		_ = p.View()
	}
}

func TestSearchNeedsNoAccents(t *testing.T) {
	p := chatting(80, 24)
	for _, name := range []string{"Jérémy", "İlker", "Łukasz"} {
		p.person(name)
	}
	for typed, want := range map[string]string{"JERE": "Jérémy", "ilker": "İlker", "luk": "Łukasz"} {
		p.setFilter(typed)
		if len(p.order) != 1 || p.order[0].name != want {
			t.Errorf("%q finds %d", typed, len(p.order))
		}
	}
}
