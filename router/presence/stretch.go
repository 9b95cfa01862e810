package presence

import (
	"fmt"
	"slices"
	"strings"
)

// Bounds of the recents of one conversation.
const (
	// MaxRecentsPair is how many messages a `d:` or `n:` conversation keeps, MaxRecentsGroup how many a group does.
	MaxRecentsPair  = 30
	MaxRecentsGroup = 200
	// MaxRecentsBytes bounds the messages of one conversation together. The newest one stays whatever its size.
	MaxRecentsBytes = 64 << 10
	// MaxSeq is the highest seq: an integer that a double holds exactly, and so are the scores of Redis (see eventlog.Seq).
	MaxSeq = 1<<53 - 1
)

// MaxRecents is how many messages a conversation keeps.
func MaxRecents(conversation string) int {
	if strings.HasPrefix(conversation, "g:") {
		return MaxRecentsGroup
	}
	return MaxRecentsPair
}

// Run is messages of one conversation with rising seq, from one Append.
type Run struct {
	Conversation string
	// At are the messages' indexes in what was given to Append.
	At []int
}

// Runs parts messages into runs, in an order that keeps each conversation's own.
func Runs(messages []Recent) []Run {
	runs := make([]Run, 0, len(messages))
	newest := make(map[string]int, len(messages)) // conversation → its newest run
	for i, m := range messages {
		r, ok := newest[m.Conversation]
		if ok && messages[runs[r].At[len(runs[r].At)-1]].Seq < m.Seq {
			runs[r].At = append(runs[r].At, i)
			continue
		}
		newest[m.Conversation] = len(runs)
		runs = append(runs, Run{m.Conversation, []int{i}})
	}
	return runs
}

// stretch is the recents of one conversation. redispresence has the same as a script, and a test that compares the two.
//
// A router appends everything in the log's order, and begins again at the history position when the data was lost. So a run
// has all that lies between its first and its last message, and a run above the newest has all since that. What makes it
// hard is a run below what is there. It may come from a router that begins again after a loss, which it noticed only by a first
// append that is now the lowest one; or from one that was paused, and writes before it notices that it owns the partition no
// more. Neither may make the recents claim to be whole where they are not, so such a run is kept apart, as the low part, until
// runs that follow it reach what is above; and it is dropped if the database has it anyway.
type stretch struct {
	entries []RecentMessage // by seq
	bytes   int
	// after: every message above it is there.
	after uint64
	// low, if hasLow, begins the low part: what is above low and up to after; every message from there to its newest is there.
	low    uint64
	hasLow bool
	// keep is the highest keepAbove seen.
	keep uint64
}

// add adds a run, and answers what was before each of its messages.
func (s *stretch) add(run []RecentMessage, most int, keepAbove uint64) []Prev {
	prevs := make([]Prev, len(run))
	first, last := run[0].Seq, run[len(run)-1].Seq
	s.keep = max(s.keep, keepAbove)
	switch {
	case len(s.entries) == 0:
		s.after, s.hasLow, s.bytes, s.keep = first-1, false, 0, keepAbove
	case first > s.newest():
	case last > s.after:
		s.after = min(s.after, first-1)
		if s.hasLow {
			s.after = min(s.after, s.low)
		}
		s.hasLow = false
	case last < s.keep:
		return prevs
	case !s.hasLow || last <= s.low:
		s.dropLow()
		s.low, s.hasLow = first-1, true
	default:
		s.low = min(s.low, first-1)
	}
	for i, m := range run {
		from := s.after
		if m.Seq <= s.after {
			from = s.low
		}
		at, found := s.find(m.Seq)
		if at > 0 && s.entries[at-1].Seq > from {
			prevs[i] = Prev{Seq: s.entries[at-1].Seq, Known: true}
		}
		if !found {
			s.entries = slices.Insert(s.entries, at, m)
			s.bytes += len(m.Message)
		}
	}
	s.trim(most, keepAbove)
	return prevs
}

func (s *stretch) trim(most int, keepAbove uint64) {
	for len(s.entries) > 1 {
		oldest := s.entries[0]
		if s.bytes <= MaxRecentsBytes && (len(s.entries) <= most || oldest.Seq >= keepAbove) {
			return
		}
		s.entries = slices.Delete(s.entries, 0, 1)
		s.bytes -= len(oldest.Message)
		if oldest.Seq <= s.after {
			s.low = oldest.Seq
		} else {
			s.after, s.hasLow = oldest.Seq, false
		}
	}
}

func (s *stretch) dropLow() {
	at, _ := s.find(s.after + 1)
	for _, m := range s.entries[:at] {
		s.bytes -= len(m.Message)
	}
	s.entries = slices.Delete(s.entries, 0, at)
}

func (s *stretch) find(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(s.entries, seq, func(m RecentMessage, seq uint64) int {
		switch {
		case m.Seq < seq:
			return -1
		case m.Seq > seq:
			return 1
		}
		return 0
	})
}

func (s *stretch) newest() uint64 { return s.entries[len(s.entries)-1].Seq }

func (s *stretch) page(after, before uint64, limit int, forward bool) Page {
	if len(s.entries) == 0 {
		return Page{}
	}
	page := Page{ContiguousFrom: s.after + 1, Newest: s.newest()}
	from, _ := s.find(max(after, s.after) + 1)
	to := len(s.entries)
	if before != 0 {
		to, _ = s.find(before)
	}
	if from >= to || limit <= 0 {
		return page
	}
	if forward {
		to = min(to, from+limit)
	} else {
		from = max(from, to-limit)
	}
	page.Messages = slices.Clone(s.entries[from:to])
	return page
}

// CheckRecents answers an error, not ErrUnavailable, if one of messages cannot be appended.
func CheckRecents(messages []Recent) error {
	for _, m := range messages {
		if m.Seq == 0 || m.Seq > MaxSeq || m.Conversation == "" {
			return fmt.Errorf("presence: append %d to %q: want a conversation and a seq from 1 to %d", m.Seq, m.Conversation, uint64(MaxSeq))
		}
	}
	return nil
}
