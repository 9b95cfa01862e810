package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Plan is what a run sends.
type Plan struct {
	// Rate in messages a second, all pairs together; the pairs take turns, and so do the two friends of a pair.
	Rate int
	// Warmup is sent first and not counted, Duration is counted.
	Warmup, Duration time.Duration
	// Size of a text in bytes, at least 24.
	Size int
	// Patience is how long the last messages are waited for.
	Patience time.Duration
	// Counted, if not nil, is called when the counted part begins. It must be quick.
	Counted func()
}

const minSize = 24

func (p Plan) check() error {
	if p.Rate < 1 || p.Duration <= 0 || p.Warmup < 0 || p.Size < minSize || p.Patience <= 0 {
		return fmt.Errorf("load: rate, duration and patience must be above 0, size at least %d", minSize)
	}
	return nil
}

// Result is what a run gave. All of its messages arrived; a run that loses one is an error.
type Result struct {
	// Messages that were counted.
	Messages int
	// E2E is from due to received by the friend, Ack from due to acknowledged, Late from due to handed to the SDK: how far this
	// program itself was behind.
	E2E, Ack, Late Spread
}

// Spread of latencies in milliseconds.
type Spread struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// SpreadOf takes percentiles by the nearest rank. It sorts what it is given.
func SpreadOf(all []time.Duration) Spread {
	if len(all) == 0 {
		return Spread{}
	}
	slices.Sort(all)
	at := func(percent int) float64 {
		return float64(all[(len(all)*percent+99)/100-1]) / float64(time.Millisecond)
	}
	return Spread{at(50), at(90), at(99), at(100)}
}

// run is a run under way. Times are nanoseconds since 1970; 0: not yet.
type run struct {
	id     string
	plan   Plan
	warmup int

	due, sent, acked, got []atomic.Int64
	missing               atomic.Int64 // acknowledgements and receipts that are still to come
	all                   chan struct{}
	cancel                context.CancelCauseFunc
}

func newRun(p Plan, cancel context.CancelCauseFunc) *run {
	count := func(d time.Duration) int { return int(int64(p.Rate) * int64(d) / int64(time.Second)) }
	warmup := count(p.Warmup)
	n := warmup + max(count(p.Duration), 1)
	r := &run{
		id: rand.Text()[:8], plan: p, warmup: warmup, all: make(chan struct{}), cancel: cancel,
		due: make([]atomic.Int64, n), sent: make([]atomic.Int64, n), acked: make([]atomic.Int64, n), got: make([]atomic.Int64, n),
	}
	r.missing.Store(int64(2 * n))
	return r
}

func (r *run) fail(err error) { r.cancel(fmt.Errorf("load: %w", err)) }

// note notes a time. A message that comes twice breaks what the product promises.
func (r *run) note(which []atomic.Int64, i int, at time.Time) {
	if !which[i].CompareAndSwap(0, at.UnixNano()) {
		r.fail(fmt.Errorf("message %d came twice", i))
		return
	}
	if r.missing.Add(-1) == 0 {
		close(r.all)
	}
}

// Run sends as planned and returns when all has arrived. One run at a time.
func (l *Load) Run(ctx context.Context, p Plan) (Result, error) {
	if err := p.check(); err != nil {
		return Result{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := newRun(p, cancel)
	l.set(r)
	defer l.set(nil)
	if err := l.drive(ctx, r); err != nil {
		return Result{}, err
	}
	late := time.NewTimer(p.Patience)
	defer late.Stop()
	select {
	case <-r.all:
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	case <-late.C:
		return Result{}, fmt.Errorf("load: %d acknowledgements or messages of %d have not come within %v", r.missing.Load(), 2*len(r.due), p.Patience)
	}
	return Result{
		Messages: len(r.due) - r.warmup, E2E: SpreadOf(r.since(r.got)), Ack: SpreadOf(r.since(r.acked)), Late: SpreadOf(r.since(r.sent)),
	}, nil
}

func (l *Load) set(r *run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.run = r
}

// drive sends messages when they are due.
func (l *Load) drive(ctx context.Context, r *run) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	start := time.Now().Add(10 * time.Millisecond)
	for i := range r.due {
		if i == r.warmup && r.plan.Counted != nil {
			r.plan.Counted()
		}
		due := start.Add(time.Duration(i) * time.Second / time.Duration(r.plan.Rate))
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		r.due[i].Store(due.UnixNano())
		pair := l.pairs[i%len(l.pairs)]
		from := pair.people[i/len(l.pairs)%2]
		pending, err := from.client.SendAsync(pair.conversation, r.text(i))
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		r.sent[i].Store(time.Now().UnixNano())
		select {
		case from.sent <- sent{r, i, pending}:
		default:
			return errors.New("load: too many messages wait for their acknowledgement")
		}
	}
	return context.Cause(ctx)
}

func (r *run) since(which []atomic.Int64) []time.Duration {
	var all []time.Duration
	for i := r.warmup; i < len(which); i++ {
		all = append(all, time.Duration(which[i].Load()-r.due[i].Load()))
	}
	return all
}
