package tui

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"parley.example/cmd/parley/internal/safetext"
)

// The sixteen colours of the terminal: its owner has made them readable. What a colour says, a sign says too.
var (
	green  = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	yellow = lipgloss.NewStyle().Foreground(lipgloss.Color("3"))
	red    = lipgloss.NewStyle().Foreground(lipgloss.Color("1"))
	cyan   = lipgloss.NewStyle().Foreground(lipgloss.Color("6"))
	grey   = lipgloss.NewStyle().Foreground(lipgloss.Color("8"))
	bold   = lipgloss.NewStyle().Bold(true)
	badge  = lipgloss.NewStyle().Bold(true).Reverse(true)
	chosen = lipgloss.NewStyle().Reverse(true)
)

// Sizes of the screen.
const (
	sideWidth = 24
	narrow    = 60 // below this there is either the list or the conversation
	maxName   = 16 // of a name in front of a message
	chrome    = 4  // rows that are no messages: two above, two below
)

// helpText is what `?` shows.
var helpText = []string{
	"Tab            from the list to the conversation and back",
	"↑ ↓ Enter      in the list: choose, open",
	"letters        in the list: search; Esc shows all again",
	"Ctrl+N Ctrl+P  the next conversation, the one before",
	"Enter          send",
	"↑ ↓ PgUp PgDn  scroll; older messages come by themselves",
	"Ctrl+End       down to the last message",
	"Esc            back to the list",
	"? or F1        this help",
	"Ctrl+C         leave",
	"",
	"● online  ○ offline  · not known        [3] unread messages",
	"… on its way  ✓ stored  ✓✓ delivered  ✓✓ read  ✗ not sent",
}

func (m *model) rowsForMessages() int { return max(1, m.height-chrome) }

// panes are the widths of the list and of the conversation; one is 0 on a narrow screen.
func (m *model) panes() (side, main int) {
	if m.width >= narrow {
		return sideWidth, m.width - sideWidth - 1
	}
	if m.focus == onList && !m.help {
		return m.width, 0
	}
	return 0, m.width
}

// View draws the whole screen.
func (p *program) View() tea.View {
	var v tea.View
	if p.focus == onLogin {
		v = p.loginView()
	} else {
		v = p.chatView()
	}
	v.AltScreen = true
	v.MouseMode = tea.MouseModeCellMotion
	v.WindowTitle = "Parley"
	if n := p.unread(); n > 0 {
		v.WindowTitle = fmt.Sprintf("(%d) Parley", n)
	}
	return v
}

func (p *program) loginView() tea.View {
	w := max(10, min(40, p.width-14))
	p.user.SetWidth(w)
	p.password.SetWidth(w)
	state := grey.Render("Enter: log in   Tab: the other field   Ctrl+C: leave")
	if p.logging {
		state = yellow.Render("logging in …")
	} else if p.notice != "" {
		state = red.Render(safetext.Line(p.notice))
	}
	rows := []string{"", bold.Render("  Parley") + grey.Render("  "+safetext.Line(p.cfg.Server)), "",
		"  user name  " + p.user.View(), "  password   " + p.password.View(), "", "  " + state}
	v := tea.NewView(fit(rows, p.width, p.height))
	if c := p.user.Cursor(); p.user.Focused() && c != nil {
		c.Position.X, c.Position.Y = c.Position.X+13, 3
		v.Cursor = c
	} else if c := p.password.Cursor(); c != nil {
		c.Position.X, c.Position.Y = c.Position.X+13, 4
		v.Cursor = c
	}
	return v
}

// fit makes rows fill the screen, no more and no less.
func fit(rows []string, width, height int) string {
	for len(rows) < height {
		rows = append(rows, "")
	}
	rows = rows[:max(height, 0)]
	for i := range rows {
		rows[i] = pad(rows[i], width)
	}
	return strings.Join(rows, "\n")
}

// pad makes s exactly width columns wide.
func pad(s string, width int) string {
	width = max(width, 0)
	if w := ansi.StringWidth(s); w > width {
		s = ansi.Truncate(s, width, "…")
	}
	return s + strings.Repeat(" ", max(0, width-ansi.StringWidth(s)))
}

func (p *program) chatView() tea.View {
	side, main := p.panes()
	body := p.height - chrome + 1
	var left, right []string
	if side > 0 {
		left = append([]string{p.sideHeader(side), grey.Render(strings.Repeat("─", side))}, p.listRows(side, body)...)
	}
	if main > 0 {
		right = append([]string{p.mainHeader(), grey.Render(strings.Repeat("─", main))}, p.mainRows(main)...)
	}
	rows := make([]string, 0, max(p.height, 1))
	for i := range max(p.height-1, 0) {
		row := ""
		if side > 0 {
			row = pad(at(left, i), side)
		}
		if side > 0 && main > 0 {
			row += grey.Render(map[bool]string{true: "┼", false: "│"}[i == 1])
		}
		if main > 0 {
			row += pad(at(right, i), main)
		}
		rows = append(rows, row)
	}
	v := tea.NewView(fit(append(rows, p.statusRow()), p.width, p.height))
	if c := p.input.Cursor(); c != nil && p.focus == onInput && main > 0 && !p.help {
		c.Position.X += p.width - main + 2
		c.Position.Y = max(0, p.height-2)
		v.Cursor = c
	}
	return v
}

func at(rows []string, i int) string {
	if i < len(rows) {
		return rows[i]
	}
	return ""
}

func (p *program) sideHeader(width int) string {
	if p.filter != "" {
		return cyan.Render("/" + safetext.Line(p.filter))
	}
	return bold.Render(ansi.Truncate(safetext.Line(p.me), width-1, "…"))
}

// sign of a presence: a form and a colour.
func sign(s presence) string {
	switch s {
	case online:
		return green.Render("●")
	case offline:
		return grey.Render("○")
	}
	return grey.Render("·")
}

// listRows draws as many people as fit, the selected one among them.
func (p *program) listRows(width, height int) []string {
	if height <= 0 {
		return nil // a screen of a few rows
	}
	if len(p.order) == 0 {
		return []string{grey.Render("nobody here")}
	}
	at := max(p.index(), 0)
	first := min(max(0, at-height/2), max(0, len(p.order)-height))
	var rows []string
	for _, c := range p.order[first:min(first+height, len(p.order))] {
		count := ""
		if c.unread > 0 {
			count = fmt.Sprintf("[%d]", c.unread)
			if c.unread > 999 {
				count = "[999+]"
			}
		}
		name := pad(safetext.Line(c.name), width-3-ansi.StringWidth(count))
		switch {
		case c.name == p.selected && p.focus == onList:
			name = chosen.Render(name)
		case c.unread > 0, c.name == p.open:
			name = bold.Render(name)
		}
		if count != "" {
			count = badge.Render(count)
		}
		rows = append(rows, sign(c.state)+" "+name+count)
	}
	return rows
}

func (p *program) mainHeader() string {
	c := p.current()
	if c == nil {
		return ""
	}
	state := ""
	switch {
	case time.Now().Before(c.typing):
		state = cyan.Render("is typing …")
	case c.state == online:
		state = green.Render("online")
	case c.state == offline && !c.lastSeen.IsZero():
		state = grey.Render("last seen " + when(c.lastSeen))
	case c.state == offline:
		state = grey.Render("offline")
	}
	return " " + sign(c.state) + " " + bold.Render(safetext.Line(c.name)) + "  " + state
}

// when is a time in the words of the present day.
func when(t time.Time) string {
	t = t.Local()
	if y, m, d := t.Date(); time.Date(y, m, d, 0, 0, 0, 0, t.Location()).AddDate(0, 0, 1).After(time.Now()) {
		return t.Format("15:04")
	}
	return t.Format("2 Jan 15:04")
}

// mainRows is the conversation and the input.
func (p *program) mainRows(width int) []string {
	height := p.rowsForMessages()
	c := p.current()
	if p.help || c == nil {
		rows := []string{}
		if !p.help {
			rows = append(rows, " Choose somebody on the left.", "")
		}
		for _, h := range helpText {
			rows = append(rows, " "+h)
		}
		return rows
	}
	p.input.SetWidth(max(1, width-4))
	all := p.rowsUpTo(c, c.scroll+height, width)
	if over := len(all) - c.scroll; over > 0 {
		all = all[:over]
	}
	if len(all) > height {
		all = all[len(all)-height:]
	}
	rows := make([]string, 0, height+1)
	for range height - len(all) {
		rows = append(rows, "")
	}
	for _, r := range all {
		rows = append(rows, " "+r)
	}
	if c.scroll > 0 && len(rows) > 0 {
		rows[len(rows)-1] = grey.Render(" ↓ more below (Ctrl+End)")
	}
	return append(rows, cyan.Render("› ")+p.input.View())
}

// rowsUpTo are the last rows of a conversation, at least n of them if there are so many. Those of a message are kept until the width changes.
func (p *program) rowsUpTo(c *person, n, width int) []string {
	var back []string // from the last row on
	for i := len(c.lines) - 1; i >= 0 && len(back) < n; i-- {
		rows := p.lineRows(c, c.lines[i], width-2)
		for k := len(rows) - 1; k >= 0; k-- {
			back = append(back, rows[k])
		}
		if i == 0 || !sameDay(c.lines[i-1].SentAt.Time, c.lines[i].SentAt.Time) {
			back = append(back, grey.Render("── "+c.lines[i].SentAt.Local().Format("Monday, 2 January 2006")+" ──"))
		}
	}
	if len(back) < n {
		switch {
		case c.loading:
			back = append(back, grey.Render("loading …"))
		case c.full:
			back = append(back, grey.Render("older messages are not shown here"))
		case c.complete && len(c.lines) == 0:
			back = append(back, grey.Render("nothing was said yet"))
		}
	}
	slices.Reverse(back)
	return back
}

// countRows is how many rows there are, counted up to about n.
func (p *program) countRows(c *person, n int) int {
	_, main := p.panes()
	return len(p.rowsUpTo(c, n, main))
}

func sameDay(a, b time.Time) bool {
	ay, am, ad := a.Local().Date()
	by, bm, bd := b.Local().Date()
	return ay == by && am == bm && ad == bd
}

// mark says how far a message of one's own has come.
func (p *program) mark(c *person, l *line) string {
	switch {
	case l.Sender != p.me:
		return ""
	case l.failed != "":
		return red.Render(" ✗ " + safetext.Line(l.failed))
	case l.waiting:
		return grey.Render(" …")
	case c.peerRead >= l.Seq:
		return cyan.Render(" ✓✓")
	case c.peerDelivered >= l.Seq:
		return grey.Render(" ✓✓")
	}
	return grey.Render(" ✓")
}

// lineRows are the rows of one message.
func (p *program) lineRows(c *person, l *line, width int) []string {
	if l.width != width {
		name := ansi.Truncate(safetext.Line(l.Sender), maxName, "…")
		head := ansi.StringWidth(name) + 7
		if width < 30 {
			head = 6 // no room beside a name: it stands above
		}
		text := safetext.Lines(l.Content)
		if l.Content == "" {
			text = "(erased)"
		}
		style := cyan
		if l.Sender == p.me {
			style = bold
		}
		stamp := grey.Render(l.SentAt.Local().Format("15:04")) + " " + style.Render(name) + " "
		l.rows = l.rows[:0]
		if head == 6 {
			l.rows = append(l.rows, stamp)
			stamp = "      "
		}
		indent := strings.Repeat(" ", head)
		for i, row := range strings.Split(ansi.Wrap(text, max(4, width-head-4), ""), "\n") {
			if i == 0 {
				l.rows = append(l.rows, stamp+row)
			} else {
				l.rows = append(l.rows, indent+row)
			}
		}
		l.width = width
	}
	mark := p.mark(c, l)
	if mark == "" {
		return l.rows
	}
	rows := slices.Clone(l.rows)
	rows[len(rows)-1] += mark
	if last := c.lines; l.Sender == p.me && !l.waiting && c.peerRead >= l.Seq && isLastRead(last, l, c.peerRead, p.me) {
		rows[len(rows)-1] += cyan.Render(" read")
	}
	return rows
}

// isLastRead reports that no younger message of mine has been read: only that one says it in a word.
func isLastRead(lines []*line, l *line, read int64, me string) bool {
	for i := len(lines) - 1; i >= 0 && lines[i] != l; i-- {
		if lines[i].Sender == me && !lines[i].waiting && lines[i].Seq <= read {
			return false
		}
	}
	return true
}

// statusRow is the last one: what went wrong, or how the connection is.
func (p *program) statusRow() string {
	if p.notice != "" {
		return red.Render("! " + safetext.Line(p.notice))
	}
	hint := grey.Render("  ? help  Tab list  Ctrl+C leave")
	switch p.link {
	case broken:
		return yellow.Render("◌ reconnecting; what you write is sent then") + hint
	case catching:
		return yellow.Render("◌ catching up") + hint
	}
	return green.Render("● ") + grey.Render(safetext.Line(p.cfg.Server)) + hint
}
