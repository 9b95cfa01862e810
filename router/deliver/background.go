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
	"github.com/futurechat/future/router/eventlog"
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
	r.lost.recently(asked, epoch)
	for _, w := range r.owned() {
		w.stored.Store(&Stored{Epoch: epoch, Asked: asked})
		if epoch != known {
			w.mail.poke()
		}
	}
	return epoch
}

// losses remembers when this process saw the life of the stored data change.
type losses struct {
	mu    sync.Mutex
	epoch string
	at    time.Time
}

// recently notes the epoch, and reports whether the data was lost within the last minute: sessions that resynced since may
// have missed what is not done again yet.
func (l *losses) recently(now time.Time, epoch string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch != epoch {
		if l.epoch != "" {
			l.at = now
		}
		l.epoch = epoch
	}
	return !l.at.IsZero() && now.Sub(l.at) < time.Minute
}

// committer commits for all partitions in one request, a few times a second at most: commits lie on nobody's way.
type committer struct {
	clock clock.Clock
	wake  chan struct{}

	mu      sync.Mutex
	pending map[*worker]int64
	urgent  bool          // one of them cannot wait for others
	under   chan struct{} // closed when the commit that is under way is answered; nil: none is
}

const commitPause = 250 * time.Millisecond

func newCommitter(c clock.Clock) *committer {
	return &committer{clock: c, wake: make(chan struct{}, 1), pending: map[*worker]int64{}}
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
	c.under = make(chan struct{})
	return p
}

func (c *committer) run(ctx context.Context, log eventlog.Log) {
	for c.clock.Wait(ctx, time.Time{}, c.wake); ctx.Err() == nil; c.clock.Wait(ctx, time.Time{}, c.wake) {
		until := c.clock.Now().Add(commitPause) // others come along
		for ctx.Err() == nil && !c.hurries() && c.clock.Now().Before(until) {
			c.clock.Wait(ctx, until, c.wake)
		}
		c.commit(ctx, log, c.take())
		c.answered()
	}
}

func (c *committer) answered() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.under)
	c.under = nil
}

// forget commits nothing more for a worker that has ended, and waits for what is under way: the next owner may put the offset down, and
// it must stay there (see Config.Start).
func (c *committer) forget(ctx context.Context, w *worker) {
	c.mu.Lock()
	delete(c.pending, w)
	under := c.under
	c.mu.Unlock()
	if under != nil {
		ctx, cancel := c.clock.WithTimeout(ctx, storeTimeout)
		defer cancel()
		c.clock.Wait(ctx, time.Time{}, under)
	}
}

func (c *committer) hurries() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.urgent
}

func (c *committer) commit(ctx context.Context, log eventlog.Log, pending map[*worker]int64) {
	// The process may have been stopped since they asked: who is not surely the owner commits nothing. Its worker ends by itself.
	maps.DeleteFunc(pending, func(w *worker, _ int64) bool { return !w.leased() })
	if len(pending) == 0 {
		return
	}
	ctx, cancel := c.clock.WithTimeout(ctx, storeTimeout)
	defer cancel()
	offsets := make(map[int32]int64, len(pending))
	for w, at := range pending {
		offsets[w.partition] = max(offsets[w.partition], at)
	}
	err := log.Commit(ctx, Group, chat.TopicMessages, offsets)
	for _, w := range slices.Collect(maps.Keys(pending)) {
		if done := (Committed{Offset: pending[w], Err: err}); err != nil {
			w.log.Warn("an offset was not committed", zap.Error(err))
			w.mail.post(done)
		} else {
			w.mail.drop(done)
		}
	}
}
