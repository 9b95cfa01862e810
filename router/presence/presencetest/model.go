package presencetest

import (
	"math/rand/v2"
	"testing"

	"github.com/futurechat/future/router/presence"
)

// model has routers append at random, as they do: in order, again after a lost answer, from further down at a takeover or after a
// loss, and now and then one that was paused and is not the owner any more. Whatever the recents say must be true of the log:
// a known prev is the message before, and a page lacks nothing of what it says it is contiguous from.
func (s suite) model(t *testing.T) {
	for seed := range uint64(6) {
		f := s.open(t)
		rng := rand.New(rand.NewPCG(seed, 1))
		const conv, steps = "d:1:2", 120
		// The log: the conversation's seqs. Others' lie between.
		var log []uint64
		grow := func() {
			next := uint64(1)
			if len(log) > 0 {
				next = log[len(log)-1] + 1
			}
			log = append(log, next+rng.Uint64N(3))
		}
		at, history := 0, 0 // indexes into log: what is appended next, what the database has
		epoch := f.epoch()
		lost := false // and the owner has not appended since: appends are not fenced, so a paused one could begin the recents
		position := func(i int) uint64 {
			if i < len(log) {
				return log[i]
			}
			return log[len(log)-1] + 1
		}
		write := func(from, to, history int) string {
			var batch []presence.Recent
			for _, seq := range log[from:to] {
				batch = append(batch, message(conv, seq))
			}
			prevs, epoch, err := f.Store.Append(f.ctx(), batch, position(history), "")
			f.must(err)
			for i, p := range prevs {
				if j := from + i; p.Known && (j == 0 || p.Seq != log[j-1]) {
					t.Fatalf("seed %d: prev of %d is %d, log %v", seed, log[j], p.Seq, log)
				}
			}
			return epoch
		}
		for range steps {
			for range rng.IntN(5) {
				grow()
			}
			switch r := rng.IntN(20); {
			case r == 0:
				f.Wipe(t)
				lost = true
			case r == 1:
				f.LoseRecents(t, conv)
				at, lost = min(at, history), true // no epoch says so, so only prevs are promised unless the owner begins again
			case r == 2: // taken over
				at = max(0, at-rng.IntN(10))
				if now := f.epoch(); now != epoch {
					epoch, at = now, min(at, history)
				}
			case r == 3 && at > 0 && !lost && f.epoch() == epoch: // one that was paused repeats what it had in hand
				to := 1 + rng.IntN(at)
				write(max(0, to-1-rng.IntN(5)), to, rng.IntN(history+1))
			case r < 8:
				history += rng.IntN(at - min(at, history) + 1)
			case at < len(log):
				to := min(len(log), at+1+rng.IntN(6))
				lost = false
				if now := write(at, to, history); now != epoch {
					epoch, at = now, min(at, history)
				} else {
					at = to
				}
			}
			checkPage(f, seed, conv, log)
		}
	}
}

func checkPage(f f, seed uint64, conv string, log []uint64) {
	f.t.Helper()
	page := f.page(conv, 0, 0, 1000, true)
	i := 0
	for _, seq := range log {
		if seq < page.ContiguousFrom || seq > page.Newest {
			continue
		}
		if i >= len(page.Messages) || page.Messages[i].Seq != seq {
			f.t.Fatalf("seed %d: contiguous from %d to %d without %d: %v, log %v", seed, page.ContiguousFrom, page.Newest, seq, page.Messages, log)
		}
		i++
	}
	if i != len(page.Messages) {
		f.t.Fatalf("seed %d: contiguous from %d to %d, but there are %v", seed, page.ContiguousFrom, page.Newest, page.Messages)
	}
}
