package tui

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// visible makes what others wrote safe to show: nothing in it moves the cursor, changes colours, turns the direction of
// the line round or hides itself. Such characters are shown by their number. Joiners stay: scripts and emoji need them.
func visible(s string) string {
	if !strings.ContainsFunc(s, hidden) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case r == '\t':
			b.WriteString("    ")
		case hidden(r):
			fmt.Fprintf(&b, "<%U>", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func hidden(r rune) bool {
	const zwnj, zwj = 0x200C, 0x200D
	if r == zwnj || r == zwj {
		return false
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs)
}

// visibleLines is visible for a text of several lines. Each further line is marked, so that none can pass for another's
// message.
func visibleLines(s string) string {
	lines := strings.Split(strings.ReplaceAll(s, "\r\n", "\n"), "\n")
	for i := range lines {
		lines[i] = visible(lines[i])
	}
	return strings.Join(lines, "\n      | ")
}

// folderName is a folder for an account, the same on file systems that fold case, and without anything of the name that
// a path could mind.
func folderName(name string) string {
	readable := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return -1
	}, name)
	return fmt.Sprintf("%.16s-%x", readable, sha256.Sum256([]byte(name)))[:min(len(readable), 16)+17]
}

// nearest are the words that what was typed may have meant, best first.
func nearest(typed string, words []string) []string {
	var out []string
	for distance := 0; distance <= 2; distance++ {
		for _, w := range words {
			d := edits(typed, w)
			if len(typed) > 1 && strings.HasPrefix(w, typed) {
				d = 0
			}
			if d == distance {
				out = append(out, w)
			}
		}
	}
	return out
}

// edits is the Levenshtein distance of two short words.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(diagonal+cost, row[j]+1, row[j+1]+1)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
