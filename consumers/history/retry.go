package history

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff are growing pauses, each a random part of what it might be, so that many who failed together do not come back
// together.
type backoff struct {
	least, most time.Duration
	tries       int
}

func (h *History) backoff() *backoff { return &backoff{least: h.opts.RetryMin, most: h.opts.RetryMax} }

func (b *backoff) reset() { b.tries = 0 }

// next is the pause due.
func (b *backoff) next() time.Duration {
	const manyDoublings = 20 // no overflow
	d := min(b.least<<min(b.tries, manyDoublings), b.most)
	b.tries++
	return d/2 + rand.N(d/2+1)
}

// wait pauses; false if ctx ended.
func (b *backoff) wait(ctx context.Context) bool { return pause(ctx, b.next()) }

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
