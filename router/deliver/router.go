package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// Group is the consumer group under which the routers' offsets are committed to the log.
const Group = "future-router"

// Store is what a router needs of the database; chat.Store has it. Any error means that it is away: a takeover waits.
type Store interface {
	// LogState reads what is remembered of a topic.
	LogState(ctx context.Context, topic string) (eventlog.State, error)
	// HistoryOffsets gives the next offset that history is to write, per partition, for those that have one.
	HistoryOffsets(ctx context.Context, topic string) (map[int32]int64, error)
	// NextRouterEpoch gives a number for a partition's new owner, higher than all given for it before.
	NextRouterEpoch(ctx context.Context, topic string, partition int32) (uint64, error)
}

// Pool sends frames to nodes; peer.Pool is one.
type Pool interface {
	// Send never blocks and calls done exactly once, perhaps before it returns: with the answer, or peer.ErrLost, or after
	// timeout peer.ErrTimeout. done must not block.
	Send(addr string, f peer.Forward, timeout time.Duration, done func(peer.Answer, error))
}

// Options are what a Router is made of. All but Clock, Rand, and the times, must be set.
type Options struct {
	// Self is this process as the others see it; its ID is the owner of its leases.
	Self       cluster.Member
	Membership cluster.Membership
	Log        eventlog.Log
	Store      Store
	Presence   presence.Store
	Pool       Pool
	Logger     *zap.Logger
	Registerer prometheus.Registerer

	// Clock is time and goroutines. Default clock.Real.
	Clock clock.Clock
	// Rand gives jitter, in [0,1); it must be safe for concurrent use. Default math/rand/v2.
	Rand func() float64
	// LeaseTTL is how long a partition stays with a router that is gone. Default 2 s; it is renewed four times in that time.
	LeaseTTL time.Duration
	// Wait bounds the wait for nodes' answers. Default 250 ms: what comes before and after is to stay below 50, so that a node that
	// is gone holds a partition up for 300 ms, once.
	Wait time.Duration
}

// Router is the shell around the Partitions that this process owns.
type Router struct {
	o       Options
	metrics *metrics
	config  Config // what all partitions have in common

	// Set by Run before any worker.
	partitions     int
	pushPartitions int

	commits *committer

	wake     chan struct{} // makes the assigning goroutine look around
	stop     chan struct{} // closed by Stop
	stopOnce sync.Once
	ready    chan struct{}

	mu      sync.Mutex
	workers map[int32]*worker
	cancel  context.CancelCauseFunc // nil before Run
	over    chan struct{}           // closed when Run returns; nil before Run
}

// New makes a router. Nothing runs before Run.
func New(o Options) (*Router, error) {
	switch {
	case o.Self.ID == "" || o.Membership == nil || o.Log == nil || o.Store == nil || o.Presence == nil || o.Pool == nil:
		return nil, errors.New("deliver: a router needs itself, a membership, a log, a store, presence and a pool")
	case o.Logger == nil || o.Registerer == nil:
		return nil, errors.New("deliver: a router needs a logger and a registerer")
	}
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	o.LeaseTTL = cmp.Or(o.LeaseTTL, 2*time.Second)
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("deliver: metrics: %w", err)
	}
	c := DefaultConfig()
	c.Wait, c.Rand = cmp.Or(o.Wait, c.Wait), o.Rand
	return &Router{
		o: o, metrics: m, config: c, commits: newCommitter(&o),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), ready: make(chan struct{}),
		workers: map[int32]*worker{},
	}, nil
}

// Run takes partitions over and delivers until Stop is done, or ctx ends: then it lets go at once as if killed, without a
// last commit, and its leases run out by themselves. Call it once. It returns nil after Stop, else ctx's cause.
func (r *Router) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.mu.Lock()
	if r.over != nil {
		r.mu.Unlock()
		return errors.New("deliver: a router runs once")
	}
	r.cancel, r.over = cancel, make(chan struct{})
	r.mu.Unlock()
	defer close(r.over)

	if err := r.learn(ctx); err != nil || clock.Closed(r.stop) {
		return err
	}
	background, end := context.WithCancel(ctx)
	others, delivering := r.o.Clock.NewGroup(), r.o.Clock.NewGroup()
	others.Go(func() { r.renewLeases(background) })
	others.Go(func() { r.poll(background) })
	others.Go(func() { r.commits.run(background) })
	r.assign(ctx, delivering)
	for _, w := range r.owned() {
		w.release()
	}
	delivering.Wait() // leases are renewed and offsets committed meanwhile
	end()
	others.Wait()
	return context.Cause(ctx)
}

// Stop takes over nothing more, ends reading, finishes what is in flight, commits and releases the leases. When ctx ends
// before that is done, the rest is let go as if killed, and ctx's error is returned. Run has returned when it returns.
func (r *Router) Stop(ctx context.Context) error {
	r.stopOnce.Do(func() { close(r.stop) })
	r.mu.Lock()
	cancel, over := r.cancel, r.over
	r.mu.Unlock()
	if over == nil {
		return nil
	}
	r.o.Clock.Wait(ctx, time.Time{}, over)
	if clock.Closed(over) {
		return nil
	}
	err := fmt.Errorf("deliver: stopped before all was done: %w", ctx.Err())
	cancel(err)
	r.o.Clock.Wait(context.WithoutCancel(ctx), time.Time{}, over)
	return err
}

// Ready is closed once all partitions that were this router's at first are being delivered. While another router still has
// one of them, or one is halted, it is not.
func (r *Router) Ready() <-chan struct{} { return r.ready }

// learn reads how many partitions there are, as long as that takes.
func (r *Router) learn(ctx context.Context) error {
	for ctx.Err() == nil && !clock.Closed(r.stop) {
		err := r.tryLearn(ctx)
		if err == nil {
			return nil
		}
		r.o.Logger.Warn("the router waits for the database and the log", zap.Error(err))
		r.o.Clock.Wait(ctx, r.o.Clock.Now().Add(jittered(time.Second, r.o.Rand)), r.stop)
	}
	return context.Cause(ctx)
}

func (r *Router) tryLearn(ctx context.Context) error {
	ctx, cancel := r.o.Clock.WithTimeout(ctx, storeTimeout)
	defer cancel()
	state, err := r.o.Store.LogState(ctx, chat.TopicMessages)
	if err != nil {
		return fmt.Errorf("log state: %w", err)
	}
	push, err := r.o.Log.Topic(ctx, chat.TopicPush)
	if err != nil {
		return fmt.Errorf("topic %s: %w", chat.TopicPush, err)
	}
	r.partitions, r.pushPartitions = state.Partitions, push.Partitions
	return nil
}

// owned gives the workers, by partition.
func (r *Router) owned() []*worker {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Collect(maps.Values(r.workers))
	slices.SortFunc(list, func(a, b *worker) int { return cmp.Compare(a.partition, b.partition) })
	return list
}

// poke makes the assigning goroutine look around.
func (r *Router) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// push appends push records, and tells once all were answered. One that the log will never take is dropped, and counted.
func (r *Router) push(records []PushRecord, mail *mailbox) {
	var mu sync.Mutex
	left, failed := len(records), []PushRecord(nil)
	answered := func(rec PushRecord, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case errors.Is(err, eventlog.ErrTooLarge):
			r.metrics.pushDropped.Inc()
			r.o.Logger.Error("a push record is too large for the log, dropped", zap.Uint64("seq", rec.Seq))
		case err != nil:
			failed = append(failed, rec)
		}
		if left--; left == 0 {
			mail.post(Pushed{Failed: failed})
		}
	}
	for _, rec := range records {
		entry, err := rec.Entry(r.pushPartitions)
		if err == nil {
			err = r.o.Log.Append(entry, func(_ eventlog.Appended, err error) { answered(rec, err) })
		}
		if err != nil {
			answered(rec, err)
		}
	}
}

func (r *Router) leaseName(partition int32) string {
	return presence.PartitionLease(chat.TopicMessages, partition)
}

// jittered is half of d to d.
func jittered(d time.Duration, random func() float64) time.Duration {
	return d/2 + time.Duration(float64(d/2)*random())
}
