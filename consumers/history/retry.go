package history

import (
	"context"
	"time"

	"github.com/futurechat/future/router/clock"
)

// backoff are growing pauses, each a random part of what it might be, so that many who failed together do not come back
// together.
type backoff struct {
	clock       clock.Clock
	rand        func() float64
	least, most time.Duration
	tries       int
}

func (h *History) backoff() *backoff { return h.pauses(h.opts.RetryMin, h.opts.RetryMax) }

func (h *History) pauses(least, most time.Duration) *backoff {
	return &backoff{clock: h.opts.Clock, rand: h.opts.Rand, least: least, most: most}
}

func (b *backoff) reset() { b.tries = 0 }

// next is the pause due.
func (b *backoff) next() time.Duration {
	const manyDoublings = 20 // no overflow
	d := min(b.least<<min(b.tries, manyDoublings), b.most)
	b.tries++
	return d/2 + time.Duration(float64(d/2)*b.rand())
}

// wait pauses; false if ctx ended.
func (b *backoff) wait(ctx context.Context) bool { return clock.Sleep(ctx, b.clock, b.next()) }
