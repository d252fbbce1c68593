package main_test

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

// screen is a program on a pseudo-terminal, and what its screen shows.
type screen struct {
	t    *testing.T
	cmd  *exec.Cmd
	pty  *os.File
	done chan struct{} // closed when the terminal has nothing more to show

	mu      sync.Mutex
	emu     *vt.Emulator
	changed chan struct{} // closed by the next change
}

// onScreen runs the program on a terminal of that size.
func onScreen(t *testing.T, width, height int, env []string, args ...string) *screen {
	t.Helper()
	s := &screen{t: t, cmd: exec.Command(binary, args...), done: make(chan struct{}), changed: make(chan struct{}), emu: vt.NewEmulator(width, height)}
	s.cmd.Env = append(os.Environ(), append([]string{"TERM=xterm-256color", "COLORTERM=", "NO_COLOR=", "TZ=UTC"}, env...)...)
	var err error
	if s.pty, err = pty.StartWithSize(s.cmd, &pty.Winsize{Rows: uint16(height), Cols: uint16(width)}); err != nil {
		t.Fatal(err)
	}
	// What the terminal answers to questions of the program. It is read apart: writing to the screen waits for that.
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		_, _ = io.Copy(s.pty, s.emu) // until both are closed
	}()
	go func() {
		defer close(s.done)
		buf := make([]byte, 16<<10)
		for {
			n, err := s.pty.Read(buf)
			s.mu.Lock()
			_, _ = s.emu.Write(buf[:n]) // a screen takes everything
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the screen:\n%s", s)
		}
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill() // the test failed before its end
			_ = s.cmd.Wait()
		}
		<-s.done
		_ = s.pty.Close()
		_ = s.emu.InputPipe().(io.Closer).Close() // not the emulator: its Close races with its Read
		<-answers
	})
	return s
}

// String is the text of the screen, without the spaces at the ends of rows.
func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text()
}

func (s *screen) text() string {
	var b strings.Builder
	for y := range s.emu.Height() {
		row := ""
		for x := 0; x < s.emu.Width(); x++ {
			c := s.emu.CellAt(x, y)
			if c == nil || c.Width == 0 {
				continue
			}
			row += c.Content
		}
		b.WriteString(strings.TrimRight(row, " ") + "\n")
	}
	return b.String()
}

// until waits for a state of the screen.
func (s *screen) until(what string, is func(text string) bool) {
	s.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		text, changed := s.text(), s.changed
		s.mu.Unlock()
		if is(text) {
			return
		}
		select {
		case <-changed:
		case <-s.done:
			s.t.Fatalf("the program ended before: %s", what)
		case <-deadline:
			s.t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// shows waits for text.
func (s *screen) shows(text string) {
	s.t.Helper()
	s.until("shows "+text, func(all string) bool { return strings.Contains(all, text) })
}

// hides waits until text is gone.
func (s *screen) hides(text string) {
	s.t.Helper()
	s.until("no longer shows "+text, func(all string) bool { return !strings.Contains(all, text) })
}

// row is the first row with text in it, "" for none.
func row(all, text string) string {
	for _, r := range strings.Split(all, "\n") {
		if strings.Contains(r, text) {
			return r
		}
	}
	return ""
}

// keys presses keys.
func (s *screen) keys(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.pty, text); err != nil {
		s.t.Fatal(err)
	}
}

// Keys of a terminal.
const (
	enter, escape, tab    = "\r", "\x1b", "\t"
	ctrlC, ctrlN, ctrlP   = "\x03", "\x0e", "\x10"
	pageUp, down, ctrlEnd = "\x1b[5~", "\x1b[B", "\x1b[1;5F"
)

// resize gives the terminal another size.
func (s *screen) resize(width, height int) {
	s.t.Helper()
	s.mu.Lock()
	s.emu.Resize(width, height)
	s.mu.Unlock()
	if err := pty.Setsize(s.pty, &pty.Winsize{Rows: uint16(height), Cols: uint16(width)}); err != nil {
		s.t.Fatal(err)
	}
}

// ended waits for the program's end and gives its status.
func (s *screen) ended() int {
	s.t.Helper()
	end := make(chan struct{})
	go func() { defer close(end); _ = s.cmd.Wait() }() // its state tells
	select {
	case <-end:
	case <-time.After(30 * time.Second):
		s.t.Fatal("it does not end")
	}
	return s.cmd.ProcessState.ExitCode()
}
