package main_test

import (
	"flag"
	"fmt"
	"html"
	"image/color"
	"os"
	"path/filepath"
	"strings"

	uv "github.com/charmbracelet/ultraviolet"
	"github.com/charmbracelet/x/ansi"
)

// screenshot is where TestChatScreenshot draws the README's picture; `make screenshot` sets it.
var screenshot = flag.String("screenshot", "", "file to draw the screen of parley chat into")

// Sizes of a cell, in the units of the picture, and its colours.
const (
	cellWidth, cellHeight = 8.4, 18
	paper, ink            = "#1d1f21", "#d8dee9"
)

// palette is that of many terminals, a little softer.
var palette = []string{"#1d1f21", "#d0605e", "#8fbf6d", "#e0c06c", "#6f9fd8", "#b48ead", "#7fc1ca", "#c5c8c6", "#7b8087", "#d0605e", "#8fbf6d", "#e0c06c", "#6f9fd8", "#b48ead", "#7fc1ca", "#ffffff"}

func paint(c color.Color, or string) string {
	switch c := c.(type) {
	case nil:
		return or
	case ansi.BasicColor:
		return palette[int(c)%len(palette)]
	case ansi.IndexedColor:
		if int(c) < len(palette) {
			return palette[c]
		}
	}
	r, g, b, _ := c.RGBA()
	return fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)
}

// svg draws the screen: text as text, so that it can be read aloud and searched.
func (s *screen) svg(title string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, h := float64(s.emu.Width())*cellWidth+24, float64(s.emu.Height())*cellHeight+52
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" role="img" font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="14">`+"\n", w, h)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"%.0f\" height=\"%.0f\" rx=\"8\" fill=\"%s\"/>\n", html.EscapeString(title), w, h, paper)
	for i, c := range []string{"#d0605e", "#e0c06c", "#8fbf6d"} {
		fmt.Fprintf(&b, "<circle cx=\"%d\" cy=\"18\" r=\"6\" fill=\"%s\"/>\n", 20+20*i, c)
	}
	for y := range s.emu.Height() {
		s.svgRow(&b, y)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// svgRow draws runs of cells that look the same.
func (s *screen) svgRow(b *strings.Builder, y int) {
	top := 40 + float64(y)*cellHeight
	for x := 0; x < s.emu.Width(); {
		first := s.emu.CellAt(x, y)
		style, from, text := first.Style, x, ""
		for x < s.emu.Width() {
			c := s.emu.CellAt(x, y)
			if !c.Style.Equal(&style) {
				break
			}
			text += c.Content
			x += max(1, c.Width)
		}
		fg, bg := paint(style.Fg, ink), paint(style.Bg, paper)
		if style.Attrs&uv.AttrReverse != 0 {
			fg, bg = bg, fg
		}
		left, width := 12+float64(from)*cellWidth, float64(x-from)*cellWidth
		if bg != paper {
			fmt.Fprintf(b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n", left, top, width, cellHeight, bg)
		}
		if strings.TrimSpace(text) == "" {
			continue
		}
		weight := ""
		if style.Attrs&uv.AttrBold != 0 {
			weight = ` font-weight="bold"`
		}
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%.1f\" textLength=\"%.1f\" fill=\"%s\"%s xml:space=\"preserve\">%s</text>\n",
			left, top+13.5, width, fg, weight, html.EscapeString(text))
	}
}

// draw writes the picture.
func (s *screen) draw(title, path string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(s.svg(title)), 0o644); err != nil {
		s.t.Fatal(err)
	}
}
