package presencetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/futurechat/future/router/presence"
)

func message(conversation string, seq uint64, users ...int64) presence.Recent {
	return presence.Recent{Conversation: conversation, Seq: seq, Users: users, Message: body(conversation, seq)}
}

func body(conversation string, seq uint64) []byte {
	return fmt.Appendf(nil, "%s/%d", conversation, seq)
}

func messages(conversation string, from, to uint64) []presence.Recent {
	var all []presence.Recent
	for seq := from; seq <= to; seq++ {
		all = append(all, message(conversation, seq))
	}
	return all
}

var unknown = presence.Prev{}

func known(seq uint64) presence.Prev { return presence.Prev{Seq: seq, Known: true} }

func (f f) wantPrevs(got []presence.Prev, want ...presence.Prev) {
	f.t.Helper()
	if !slices.Equal(got, want) {
		f.t.Errorf("prevs %v, want %v", got, want)
	}
}

// wantPage looks at a page whose messages are those that message makes.
func (f f) wantPage(got presence.Page, conversation string, contiguousFrom, newest uint64, seqs ...uint64) {
	f.t.Helper()
	if got.ContiguousFrom != contiguousFrom || got.Newest != newest {
		f.t.Errorf("contiguous from %d to %d, want %d to %d", got.ContiguousFrom, got.Newest, contiguousFrom, newest)
	}
	var found []uint64
	for _, m := range got.Messages {
		found = append(found, m.Seq)
		if !bytes.Equal(m.Message, body(conversation, m.Seq)) {
			f.t.Errorf("message %d is %q", m.Seq, m.Message)
		}
	}
	if !slices.Equal(found, seqs) {
		f.t.Errorf("page has %v, want %v", found, seqs)
	}
}

func (s suite) prev(t *testing.T) {
	f := s.open(t)
	f.wantPrevs(f.append(0, message("d:1:2", 10), message("d:1:2", 13), message("g:9", 11), message("d:1:2", 14)),
		unknown, known(10), unknown, known(13))
	f.wantPrevs(f.append(0, message("g:9", 20), message("d:1:2", 21)), known(11), known(14))
	f.wantPage(f.page("d:1:2", 0, 0, 10, true), "d:1:2", 10, 21, 10, 13, 14, 21)
	f.wantPrevs(f.append(0))
}

func (s suite) again(t *testing.T) {
	f := s.open(t)
	batch := []presence.Recent{message("d:1:2", 10), message("d:1:2", 13), message("d:1:2", 14)}
	for range 3 {
		f.wantPrevs(f.append(0, batch...), unknown, known(10), known(13))
		f.wantPrevs(f.append(0, batch[1:]...), known(10), known(13))
	}
	f.wantPrevs(f.append(0, message("d:1:2", 13)), known(10))
	f.wantPage(f.page("d:1:2", 0, 0, 10, true), "d:1:2", 10, 14, 10, 13, 14)
}

func (s suite) neverInfers(t *testing.T) {
	f := s.open(t)
	f.append(0, messages("d:1:2", 1, 5)...)
	f.LoseRecents(t, "d:1:2")
	f.wantPage(f.page("d:1:2", 0, 0, 10, true), "d:1:2", 0, 0)
	f.wantPrevs(f.append(0, message("d:1:2", 6), message("d:1:2", 7)), unknown, known(6))
	f.wantPage(f.page("d:1:2", 0, 0, 10, true), "d:1:2", 6, 7, 6, 7)
}

func (s suite) unordered(t *testing.T) {
	f := s.open(t)
	// Two runs: 5 and 8, then 6; the second one fills in.
	f.wantPrevs(f.append(0, message("d:1:2", 5), message("d:1:2", 8), message("d:1:2", 6)), unknown, known(5), known(5))
	f.wantPage(f.page("d:1:2", 0, 0, 10, true), "d:1:2", 5, 8, 5, 6, 8)
	f.wantPrevs(f.append(0, message("d:1:2", 8)), known(6))
}

func (s suite) appendEpoch(t *testing.T) {
	f := s.open(t)
	before := f.epoch()
	_, epoch, err := f.Store.Append(f.ctx(), messages("d:1:2", 1, 2), 0, "")
	if err != nil || epoch != before {
		t.Errorf("epoch is %q, append answers %q, %v", before, epoch, err)
	}
	f.Wipe(t)
	_, epoch, err = f.Store.Append(f.ctx(), messages("d:1:2", 3, 4), 0, "")
	if err != nil || epoch == before || epoch != f.epoch() {
		t.Errorf("epoch was %q, append answers %q, %v; now it is %q", before, epoch, err, f.epoch())
	}
}

// formerLife is a router that does not know yet that all was lost, when the next one has begun again, or not.
func (s suite) formerLife(t *testing.T) {
	f := s.open(t)
	former := f.epoch()
	late := func(from, to uint64) {
		t.Helper()
		_, epoch, err := f.Store.Append(f.ctx(), messages("d:1:2", from, to), 1, former)
		if err != nil || epoch == former {
			t.Fatalf("it is not told that the life is over: %q, %v", epoch, err)
		}
	}
	next := func(seq uint64) presence.Prev {
		t.Helper()
		prevs, _, err := f.Store.Append(f.ctx(), messages("d:1:2", seq, seq), 1, f.epoch())
		f.must(err)
		return prevs[0]
	}
	f.Wipe(t)
	late(10, 11)
	if got := next(20); got.Known {
		t.Errorf("what a former life's router left is before it: %v", got)
	}
	late(12, 21)
	if got := next(30); got.Known && got.Seq != 20 {
		t.Errorf("what a former life's router left is before it: %v", got)
	}
	if page := f.page("d:1:2", 0, 0, 50, true); page.ContiguousFrom < 20 {
		t.Errorf("it claims to have all from %d on", page.ContiguousFrom)
	}
}

// rebuild is what a router does that was at 20 when all was lost, while the database ends at 10.
func (s suite) rebuild(t *testing.T) {
	f := s.open(t)
	const conv = "d:1:2"
	f.wantPrevs(f.append(10, messages(conv, 20, 21)...), unknown, known(20))
	f.wantPrevs(f.append(10, messages(conv, 10, 12)...), unknown, known(10), known(11))
	f.wantPage(f.page(conv, 0, 0, 50, true), conv, 20, 21, 20, 21)
	f.wantPage(f.page(conv, 0, 0, 50, false), conv, 20, 21, 20, 21)
	// A message of one that goes on above does not join them.
	f.wantPrevs(f.append(10, message(conv, 22)), known(21))
	f.wantPrevs(f.append(10, messages(conv, 14, 16)...), known(12), known(14), known(15))
	f.wantPage(f.page(conv, 0, 0, 1, true), conv, 20, 22, 20)
	f.wantPrevs(f.append(10, message(conv, 17), message(conv, 20)), known(16), known(17))
	f.wantPage(f.page(conv, 0, 0, 50, true), conv, 10, 22, 10, 11, 12, 14, 15, 16, 17, 20, 21, 22)
	// One that begins lower than another stray does away with it.
	f.LoseRecents(t, conv)
	f.append(10, message(conv, 30))
	f.append(10, message(conv, 25))
	f.wantPrevs(f.append(10, messages(conv, 11, 12)...), unknown, known(11))
	f.wantPrevs(f.append(10, messages(conv, 26, 31)...), known(12), known(26), known(27), known(28), known(29), known(30))
	f.wantPage(f.page(conv, 0, 0, 50, true), conv, 11, 31, 11, 12, 26, 27, 28, 29, 30, 31)
	// One that overlaps it from below, of one that was paused, takes nothing away from it.
	f.LoseRecents(t, conv)
	f.append(10, message(conv, 30))
	f.append(10, messages(conv, 11, 14)...)
	f.wantPrevs(f.append(9, messages(conv, 8, 12)...), unknown, known(8), known(9), known(10), known(11))
	f.wantPrevs(f.append(10, message(conv, 15), message(conv, 30)), known(14), known(15))
	f.wantPage(f.page(conv, 0, 0, 50, true), conv, 8, 30, 8, 9, 10, 11, 12, 13, 14, 15, 30)
	// Reached exactly, by a run that begins with the lowest.
	f.LoseRecents(t, conv)
	f.append(10, messages(conv, 30, 31)...)
	f.append(10, messages(conv, 11, 12)...)
	f.wantPrevs(f.append(10, message(conv, 30)), known(12))
	f.wantPage(f.page(conv, 0, 0, 50, true), conv, 11, 31, 11, 12, 30, 31)
}

func (s suite) belowHistory(t *testing.T) {
	f := s.open(t)
	const conv = "d:1:2"
	f.append(300, messages(conv, 300, 301)...)
	f.wantPrevs(f.append(20, messages(conv, 50, 51)...), unknown, unknown) // of one that was paused
	f.wantPage(f.page(conv, 0, 0, 50, true), conv, 300, 301, 300, 301)
	f.wantPrevs(f.append(300, messages(conv, 299, 302)...), unknown, known(299), known(300), known(301))
	f.wantPage(f.page(conv, 0, 0, 50, true), conv, 299, 302, 299, 300, 301, 302)
}

func (s suite) badSeq(t *testing.T) {
	f := s.open(t)
	for _, m := range []presence.Recent{message("d:1:2", 0), message("d:1:2", presence.MaxSeq+1), message("", 1)} {
		_, _, err := f.Store.Append(f.ctx(), []presence.Recent{message("d:1:2", 1), m}, 0, "")
		if err == nil || errors.Is(err, presence.ErrUnavailable) {
			t.Errorf("append of %d to %q answers %v", m.Seq, m.Conversation, err)
		}
	}
}

func (s suite) count(t *testing.T) {
	f := s.open(t)
	for conv, most := range map[string]uint64{"d:1:2": 30, "n:1": 30, "g:1": 200} {
		const n = 250
		var newest uint64
		for from := uint64(1); from < n; from += 50 {
			newest = from + 49
			f.append(presence.MaxSeq, messages(conv, from, newest)...)
		}
		page := f.page(conv, 0, 0, 1000, true)
		if uint64(len(page.Messages)) != most || page.ContiguousFrom != newest-most+1 || page.Newest != newest {
			t.Errorf("%s has %d from %d to %d, want %d to %d", conv, len(page.Messages), page.ContiguousFrom, page.Newest, most, newest)
		}
		// What lies between was not there: contiguous from where the last one that was cut off ends.
		f.append(presence.MaxSeq, message(conv, 1000))
		f.append(presence.MaxSeq, message(conv, 2000))
		if got := f.page(conv, 0, 0, 1, true); got.ContiguousFrom != newest-most+3 {
			t.Errorf("%s is contiguous from %d, want %d", conv, got.ContiguousFrom, newest-most+3)
		}
		// The oldest one's prev has gone.
		oldest := f.page(conv, 0, 0, 1, true).Messages[0].Seq
		f.wantPrevs(f.append(presence.MaxSeq, message(conv, oldest)), unknown)
	}
}

func (s suite) keepAbove(t *testing.T) {
	f := s.open(t)
	const conv = "d:1:2"
	f.append(41, messages(conv, 1, 100)...)
	if got := f.page(conv, 0, 0, 1000, true); got.ContiguousFrom != 41 || len(got.Messages) != 60 {
		t.Errorf("%d messages from %d, want 60 from 41", len(got.Messages), got.ContiguousFrom)
	}
	f.append(90, message(conv, 101))
	if got := f.page(conv, 0, 0, 1000, true); got.ContiguousFrom != 72 || len(got.Messages) != 30 {
		t.Errorf("%d messages from %d, want 30 from 72", len(got.Messages), got.ContiguousFrom)
	}
}

func (s suite) bytes(t *testing.T) {
	f := s.open(t)
	const conv = "d:1:2"
	big := func(seq uint64, kib int) presence.Recent {
		return presence.Recent{Conversation: conv, Seq: seq, Message: bytes.Repeat([]byte{byte(seq)}, kib<<10)}
	}
	for seq := uint64(1); seq <= 10; seq++ {
		f.append(0, big(seq, 10))
	}
	if got := f.page(conv, 0, 0, 100, true); got.ContiguousFrom != 5 || len(got.Messages) != 6 || got.Newest != 10 {
		t.Errorf("%d messages from %d to %d, want 6 from 5 to 10", len(got.Messages), got.ContiguousFrom, got.Newest)
	}
	// Exactly as much as may be, then a byte more.
	f.append(0, big(11, 64))
	if got := f.page(conv, 0, 0, 100, true); got.ContiguousFrom != 11 || len(got.Messages) != 1 {
		t.Errorf("%d messages from %d, want 1 from 11", len(got.Messages), got.ContiguousFrom)
	}
	f.wantPrevs(f.append(0, presence.Recent{Conversation: conv, Seq: 12, Message: []byte("x")}), known(11))
	if got := f.page(conv, 0, 0, 100, true); got.ContiguousFrom != 12 || len(got.Messages) != 1 {
		t.Errorf("%d messages from %d, want 1 from 12", len(got.Messages), got.ContiguousFrom)
	}
	// One that is too big by itself is kept while it is the newest.
	f.append(0, big(13, 100))
	if got := f.page(conv, 0, 0, 100, true); got.ContiguousFrom != 13 || len(got.Messages) != 1 {
		t.Errorf("%d messages from %d, want 1 from 13", len(got.Messages), got.ContiguousFrom)
	}
}

func (s suite) pages(t *testing.T) {
	f := s.open(t)
	const conv = "g:5"
	var all []presence.Recent
	for seq := uint64(10); seq <= 100; seq += 10 {
		all = append(all, message(conv, seq))
	}
	f.append(0, all...)
	for _, c := range []struct {
		after, before uint64
		limit         int
		forward       bool
		want          []uint64
	}{
		{0, 0, 3, true, []uint64{10, 20, 30}},
		{0, 0, 3, false, []uint64{80, 90, 100}},
		{20, 50, 10, true, []uint64{30, 40}},
		{20, 50, 10, false, []uint64{30, 40}},
		{20, 50, 1, false, []uint64{40}},
		{20, 50, 1, true, []uint64{30}},
		{19, 51, 10, true, []uint64{20, 30, 40, 50}},
		{95, 0, 10, true, []uint64{100}},
		{100, 0, 10, true, nil},
		{0, 10, 10, false, nil},
		{50, 50, 10, true, nil},
		{60, 50, 10, false, nil},
		{0, 0, 0, true, nil},
	} {
		f.wantPage(f.page(conv, c.after, c.before, c.limit, c.forward), conv, 10, 100, c.want...)
	}
	f.wantPage(f.page("g:6", 0, 0, 10, true), "g:6", 0, 0)
}

func (s suite) exact(t *testing.T) {
	f := s.open(t)
	const top = uint64(presence.MaxSeq)
	for i, conv := range []string{"d:1:2", "g:5"} {
		f.wantPrevs(f.append(0, message(conv, 9, 1), message(conv, 10, 1), message(conv, top-2, 1), message(conv, top-1, 1), message(conv, top, 1)),
			unknown, known(9), known(10), known(top-2), known(top-1))
		f.wantPage(f.page(conv, top-2, top, 10, true), conv, 9, top, top-1)
		if got := f.heads(1); len(got) != i+1 || got[conv] != top {
			t.Errorf("heads %v, want %d for %s", got, top, conv)
		}
	}
}

func (s suite) contents(t *testing.T) {
	f := s.open(t)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for i, m := range [][]byte{{}, all, []byte(":;"), []byte("12345678901234567890:\n"), {0}, {0xff, 0xff}} {
		f.append(0, presence.Recent{Conversation: "g:1", Seq: uint64(i + 1), Message: m})
		page := f.page("g:1", uint64(i), 0, 1, true)
		if len(page.Messages) != 1 || !bytes.Equal(page.Messages[0].Message, m) {
			t.Errorf("message %q came back as %+v", m, page.Messages)
		}
	}
}

func (s suite) heads(t *testing.T) {
	f := s.open(t)
	if got := f.heads(1); len(got) != 0 {
		t.Errorf("heads of nothing are %v", got)
	}
	f.append(0, message("d:1:2", 9, 1, 2), message("n:1", 5, 1), message("d:1:2", 100, 1, 2), message("g:3", 7))
	f.append(0, message("d:1:2", 10, 1, 2), message("n:1", 6, 1))
	if got := f.heads(1); len(got) != 2 || got["d:1:2"] != 100 || got["n:1"] != 6 {
		t.Errorf("heads of 1 are %v", got)
	}
	if got := f.heads(2); len(got) != 1 || got["d:1:2"] != 100 {
		t.Errorf("heads of 2 are %v", got)
	}
}

func (s suite) headsConcurrent(t *testing.T) {
	f := s.open(t)
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() {
			for i := range uint64(each) {
				if _, _, err := f.Store.Append(t.Context(), []presence.Recent{message("d:1:2", i*writers+w+1, 1)}, 0, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := f.heads(1)["d:1:2"]; got != writers*each {
		t.Errorf("head is %d, want %d", got, writers*each)
	}
}
