package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/eventlog"
)

// Group is under which offsets are committed to the log, for tools that show lag. The truth is in the database.
const Group = "future-history"

// Store is what history needs of the database; see chat.Store.
type Store interface {
	WriteBatch(ctx context.Context, b chat.Batch) (chat.Written, error)
	LogState(ctx context.Context, topic string) (eventlog.State, error)
}

// Leases are keys that their owner must renew, by taking them again; see presence.Leases.
type Leases interface {
	Acquire(ctx context.Context, name, owner, value string, ttl time.Duration) (bool, error)
	Release(ctx context.Context, name, owner string) error
}

// Options are for New. Log and Store must be set.
type Options struct {
	Log   eventlog.Log
	Store Store
	// Clock is time and goroutines. Default: clock.Real.
	Clock clock.Clock
	// Rand gives jitter, in [0,1); it must be safe for concurrent use. Default: math/rand/v2.
	Rand func() float64
	// Logger default: none.
	Logger *zap.Logger
	// Registerer gets the metrics. Default: none.
	Registerer prometheus.Registerer
	// Topic default: chat.TopicMessages.
	Topic string
	// BatchSize and BatchBytes bound one transaction, in records and in bytes of the log. A single record may be larger.
	// Defaults 500 and 2 MiB.
	BatchSize  int
	BatchBytes int
	// MaxWait is the least time between two transactions of a partition unless the batch is full: under load records gather
	// for so long, after a pause the first is stored at once. Default 100 ms.
	MaxWait time.Duration
	// Writers bounds the transactions at one time. Default 4.
	Writers int
	// Patience bounds one call of the database: a host that is gone without a word is noticed by nothing else. Default 30 s.
	Patience time.Duration
	// RetryMin and RetryMax bound the pause before something that failed is tried again. Defaults 50 ms and 5 s.
	RetryMin, RetryMax time.Duration
	// CommitEvery is how often offsets are committed to the log and lag is measured. Default 1 s; lag every 15th time.
	CommitEvery time.Duration

	// Leases, if not nil, let several processes share the partitions; without, each runs all. When they cannot be reached
	// partitions are run without.
	Leases Leases
	// Owner is who takes the leases: unique to this life of the process. Needed with Leases.
	Owner string
	// LeaseTTL default: 5 s.
	LeaseTTL time.Duration
	// Wants, if not nil, says whether this process is the one that should have a partition; a lease on one that it should not
	// have is given up. Without it who comes first has all. It may change its mind and must not block.
	Wants func(partition int32) bool
}

func (o *Options) setDefaults() error {
	if o.Log == nil || o.Store == nil {
		return errors.New("history: log and store must be given")
	}
	if o.Leases != nil && o.Owner == "" {
		return errors.New("history: leases need an owner")
	}
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Topic == "" {
		o.Topic = chat.TopicMessages
	}
	o.BatchSize = cmp.Or(o.BatchSize, 500)
	o.BatchBytes = cmp.Or(o.BatchBytes, 2<<20)
	o.MaxWait = cmp.Or(o.MaxWait, 100*time.Millisecond)
	o.Writers = cmp.Or(o.Writers, 4)
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
	o.RetryMin = cmp.Or(o.RetryMin, 50*time.Millisecond)
	o.RetryMax = cmp.Or(o.RetryMax, 5*time.Second)
	o.CommitEvery = cmp.Or(o.CommitEvery, time.Second)
	o.LeaseTTL = cmp.Or(o.LeaseTTL, 5*time.Second)
	return nil
}

// History is the consumer.
type History struct {
	opts    Options
	metrics *metrics
	writing chan struct{} // a place for each transaction at one time
	ready   chan struct{}

	mu        sync.Mutex
	offsets   map[int32]int64 // guarded by mu: where each partition that runs here stands
	committed map[int32]int64 // guarded by mu: what the log was told
}

// New makes a consumer. Run it.
func New(o Options) (*History, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return &History{
		opts:      o,
		metrics:   m,
		writing:   make(chan struct{}, o.Writers),
		ready:     make(chan struct{}),
		offsets:   make(map[int32]int64),
		committed: make(map[int32]int64),
	}, nil
}

// Ready is closed once the topic's state was read and the workers have begun.
func (h *History) Ready() <-chan struct{} { return h.ready }

// Run works until ctx ends, and then returns nil. Whatever fails is tried again. It is called once.
func (h *History) Run(ctx context.Context) error {
	state, ok := h.state(ctx)
	if !ok {
		return nil
	}
	workers := h.opts.Clock.NewGroup()
	for p := range state.Partitions {
		workers.Go(func() { h.share(ctx, int32(p)) })
	}
	workers.Go(func() { h.report(ctx) })
	close(h.ready)
	workers.Wait()
	const patience = time.Second // only tools look at it
	last, cancel := h.opts.Clock.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	h.commit(last)
	return nil
}

// state reads what is remembered of the topic, as long as it takes; false if ctx ended.
func (h *History) state(ctx context.Context) (eventlog.State, bool) {
	retry := h.backoff()
	for {
		state, err := h.remembered(ctx)
		if err == nil {
			return state, true
		}
		h.failed(ctx, "state", -1, err)
		if !retry.wait(ctx) {
			return state, false
		}
	}
}

// remembered reads once what is remembered of the topic.
func (h *History) remembered(ctx context.Context) (eventlog.State, error) {
	ctx, cancel := h.opts.Clock.WithTimeout(ctx, h.opts.Patience)
	defer cancel()
	return h.opts.Store.LogState(ctx, h.opts.Topic)
}

// failed notes that something will be tried again.
func (h *History) failed(ctx context.Context, op string, partition int32, err error) {
	if ctx.Err() != nil {
		return
	}
	h.metrics.retries.WithLabelValues(op).Inc()
	h.opts.Logger.Warn("history: will be tried again", zap.String("op", op), zap.Int32("partition", partition), zap.Error(err))
}
