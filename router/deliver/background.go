package deliver

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/presence"
)

const pollEvery = time.Second

// poll asks every second, for all partitions at once, how far history is, and whether Redis still has its data: a partition
// without messages would not notice.
func (r *Router) poll(ctx context.Context) {
	var epoch string
	for clock.Sleep(ctx, r.o.Clock, pollEvery) {
		r.pollHistory(ctx)
		epoch = r.pollEpoch(ctx, epoch)
	}
}

func (r *Router) pollHistory(ctx context.Context) {
	ctx, cancel := r.o.Clock.WithTimeout(ctx, storeTimeout)
	defer cancel()
	offsets, err := r.o.Store.HistoryOffsets(ctx, chat.TopicMessages)
	if err != nil {
		if ctx.Err() == nil {
			r.o.Logger.Warn("history's offsets could not be read; what is known goes on being used", zap.Error(err))
		}
		return
	}
	for _, w := range r.owned() {
		if at := offsets[w.partition]; at > w.history.Load() {
			w.history.Store(at)
		}
	}
}

func (r *Router) pollEpoch(ctx context.Context, known string) string {
	ctx, cancel := r.o.Clock.WithTimeout(ctx, redisTimeout)
	defer cancel()
	asked := r.o.Clock.Now()
	epoch, err := r.o.Presence.Epoch(ctx)
	if err != nil {
		return known // whoever needs Redis says so
	}
	for _, w := range r.owned() {
		w.stored.Store(&Stored{Epoch: epoch, Asked: asked})
		if epoch != known {
			w.mail.poke()
		}
	}
	return epoch
}

// committer commits for all partitions in one request, a few times a second at most: commits lie on nobody's way.
type committer struct {
	o    *Options
	wake chan struct{}

	mu      sync.Mutex
	pending map[*worker]int64
	urgent  bool // one of them cannot wait for others
}

const commitPause = 250 * time.Millisecond

func newCommitter(o *Options) *committer {
	return &committer{o: o, wake: make(chan struct{}, 1), pending: map[*worker]int64{}}
}

// put commits an offset of a worker's partition soon, or, if urgent, now. The worker gets a Committed.
func (c *committer) put(w *worker, offset int64, urgent bool) {
	c.mu.Lock()
	c.pending[w] = offset
	c.urgent = c.urgent || urgent
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *committer) take() map[*worker]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pending
	c.pending, c.urgent = map[*worker]int64{}, false
	return p
}

func (c *committer) run(ctx context.Context) {
	clock := c.o.Clock
	for clock.Wait(ctx, time.Time{}, c.wake); ctx.Err() == nil; clock.Wait(ctx, time.Time{}, c.wake) {
		until := clock.Now().Add(commitPause) // others come along
		for ctx.Err() == nil && !c.hurries() && clock.Now().Before(until) {
			clock.Wait(ctx, until, c.wake)
		}
		c.commit(ctx, c.take())
	}
}

func (c *committer) hurries() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.urgent
}

// commit says to the log what was done, and to the recents how far they go by that. Either may come late, from an owner that has been
// followed: it is true all the same, and the next one begins at the lowest of them and history.
func (c *committer) commit(ctx context.Context, pending map[*worker]int64) {
	if len(pending) == 0 {
		return
	}
	c.raiseTails(ctx, pending)
	ctx, cancel := c.o.Clock.WithTimeout(ctx, storeTimeout)
	defer cancel()
	offsets := make(map[int32]int64, len(pending))
	for w, at := range pending {
		offsets[w.partition] = max(offsets[w.partition], at)
	}
	err := c.o.Log.Commit(ctx, Group, chat.TopicMessages, offsets)
	for _, w := range slices.Collect(maps.Keys(pending)) {
		if done := (Committed{Offset: pending[w], Err: err}); err != nil {
			w.log.Warn("an offset was not committed", zap.Error(err))
			w.mail.post(done)
		} else {
			w.mail.drop(done)
		}
	}
}

func (c *committer) raiseTails(ctx context.Context, pending map[*worker]int64) {
	ctx, cancel := c.o.Clock.WithTimeout(ctx, redisTimeout)
	defer cancel()
	tails := make([]presence.Tail, 0, len(pending))
	for w, at := range pending {
		t := w.tail
		t.Offset = at
		tails = append(tails, t)
	}
	if err := c.o.Presence.RaiseTails(ctx, tails); err != nil {
		c.o.Logger.Warn("how far the recents go was not noted; the next owner of a partition does more of it again", zap.Error(err))
	}
}
