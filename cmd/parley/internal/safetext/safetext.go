// Package safetext makes what strangers wrote harmless to a terminal: it cannot move the cursor, change colours or titles, pass for
// another line or turn the order of the text around it.
package safetext

import (
	"strings"
	"unicode"
)

// maxMarks is how many combining marks in a row are kept. No script stacks more than four; a pile of hundreds covers the lines above.
const maxMarks = 4

// Line is s on one line: line breaks are shown as ⏎.
func Line(s string) string {
	return strings.ReplaceAll(Lines(s), "\n", "⏎")
}

// Lines is s with its line breaks, all of them as "\n".
func Lines(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	marks := 0
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.M, r) {
			if marks++; marks > maxMarks {
				return -1
			}
			return r
		}
		marks = 0
		switch {
		case r == '\n', r == '\u2028', r == '\u2029', r == '\u0085':
			return '\n'
		case r == '\t':
			return ' '
		case r == '\u200c', r == '\u200d': // joiners: scripts and emoji need them
			return r
		case r >= 0xE0000 && r <= 0xE0FFF: // tags: text that nobody sees
			return -1
		case unicode.Is(unicode.Prepended_Concatenation_Mark, r):
			return r
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == unicode.ReplacementChar:
			return '·' // the direction marks and overrides are in Cf
		}
		return r
	}, s)
}

// Typed is s without what Lines would replace: for an input field, which shows what is pasted into it.
func Typed(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '·' && Lines(string(r)) == "·" {
			return -1
		}
		return r
	}, s)
}
