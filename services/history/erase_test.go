package history_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"parley.example/pkg/api"
	"parley.example/pkg/testx"
	"parley.example/services/history"
)

// What one said is emptied, in SQL and in the streams; what the other said stays, and so do order and counts.
func TestErase(t *testing.T) {
	onBoth(t, func(t *testing.T, sqlURL string) {
		n, r, c := start(t, sqlURL)
		for i := range 3 {
			c.send("avi", "lisa", fmt.Sprint("a", i), fmt.Sprint("private matter ", i))
			c.send("lisa", "avi", fmt.Sprint("l", i), fmt.Sprint("answer ", i))
		}
		c.send("lisa", "era", "x", "nothing to do with him")
		last := c.send("avi", "tsahi", "t", "private matter too")
		c.settle()
		ask(c, api.HistoryRead, api.ReadRequest{User: "avi", A: "avi", B: "lisa", Seq: last})
		before := c.room("avi", "lisa")

		beside, err := history.OpenAdmin(settings(t, n.ClientURL(), sqlURL).SQL, n.Connect(), testx.Quiet())
		if err != nil {
			t.Fatal(err)
		}
		defer beside.Close()
		exported := ""
		for range 2 {
			var b strings.Builder
			err := beside.Conversations(t.Context(), "avi", func(cv history.Conversation, messages func(func(history.Message) error) error) error {
				fmt.Fprintf(&b, "%s read %t:", cv.Peer, cv.ReadSeq > 0)
				err := messages(func(m history.Message) error { _, err := fmt.Fprintf(&b, " %s %q", m.Sender, m.Content); return err })
				b.WriteString("\n")
				return err
			})
			if err != nil || exported != "" && b.String() != exported {
				t.Fatalf("exported %s, %v", &b, err)
			}
			exported = b.String()
		}
		lines := strings.SplitAfter(exported, "\n")
		slices.Sort(lines) // both may end within one millisecond
		if want := `lisa read true: avi "private matter 0" lisa "answer 0" avi "private matter 1" lisa "answer 1" avi "private matter 2" lisa "answer 2"
tsahi read false: avi "private matter too"
`; strings.Join(lines, "") != want {
			t.Errorf("exported\n%swant\n%s", exported, want)
		}

		if got, err := beside.Erase(t.Context(), "avi"); got != 4 || err != nil {
			t.Fatalf("erased %d, %v", got, err)
		}
		if got, err := r.svc.Admin().Erase(t.Context(), "avi"); got != 0 || err != nil {
			t.Errorf("and again %d, %v", got, err)
		}
		after := c.room("avi", "lisa")
		for i, m := range before {
			want := m
			if m.Sender == "avi" {
				want.Content, want.ID = "", fmt.Sprint("erased-", m.Seq)
			}
			if fmt.Sprint(deref(after[i])) != fmt.Sprint(deref(want)) {
				t.Errorf("message %d is %+v, want %+v", i, after[i], want)
			}
		}
		page := ask(c, api.HistoryConversations, api.ConversationsRequest{Username: "lisa"})
		unread, peerRead := int64(0), int64(0)
		for _, cv := range page.Conversations {
			unread += cv.Unread
			peerRead += cv.PeerReadSeq
		}
		if len(page.Conversations) != 2 || unread != 3 || peerRead != 0 {
			t.Errorf("lisa's conversations are %+v", page.Conversations)
		}
		// The stream goes on, and history reads it on.
		c.send("lisa", "era", "y", "life goes on")
		c.settle()
		if got := c.room("era", "lisa"); len(got) != 2 || got[1].Content != "life goes on" {
			t.Errorf("afterwards the room has %+v", got)
		}
		// Not a byte is left on disk. PostgreSQL is left out: it overwrites when it vacuums.
		dirs := []string{n.Dir()}
		if path, ok := strings.CutPrefix(sqlURL, "sqlite:"); ok {
			dirs = append(dirs, filepath.Dir(path))
		}
		for _, dir := range dirs {
			if path := holds(t, dir, "private matter"); path != "" {
				t.Errorf("%s still has what was erased", path)
			}
			if holds(t, dir, "life goes on") == "" {
				t.Errorf("nothing in %s has what is kept: this test looks in the wrong place", dir)
			}
		}
	})
}

func deref(m api.StoredMessage) (api.StoredMessage, int64) {
	prev := int64(-1)
	if m.Prev != nil {
		prev = *m.Prev
	}
	m.Prev = nil
	return m, prev
}

// holds finds a file under dir with text in it.
func holds(t *testing.T, dir, text string) (found string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || found != "" {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // it was there a moment ago
		}
		if strings.Contains(string(b), text) {
			found = path
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}
