// Package fence sees to it that a right that has ended is used nowhere any more, before its end is told: the second step of an
// exact removal (design.md). The version was raised in the database before. Every node that may still take a message on what it knew
// then must confirm that it has none under way, or be out of the lease without which it acknowledges nothing on such knowledge.
//
// Which nodes those are is said by two that do not fail together: the presence store lists all incarnations with a lease, and
// gossip the processes that are thought alive. A node that began its life later looks at the database, where it sees the new version.
//
//   - A node that answers has no append under way any more that was checked against an older version (chat.Permits).
//   - From one that does not, the lease is taken. By presence.LeaseTTL after that it knows, at the latest, whatever the network
//     does: its own reckoning of a lease ends sooner. It may be stopped meanwhile; what the log answers it later it looks at again
//     in the database before it acknowledges (node.Node).
//   - If the presence store lost its data less than LeaseTTL ago it may not list a node that still reckons with its lease: that time is
//     waited for as well.
//
// What must never happen here: to call something fenced because nobody could be asked.
package fence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// Store knows the incarnations with a lease.
type Store interface {
	presence.Lives
	Epoch(ctx context.Context) (string, error)
}

// Link reaches other processes. See peer.Pool.
type Link interface {
	Fence(addr string, f peer.Fence, timeout time.Duration, done func(peer.Fenced, error))
}

// Members are the processes that are thought alive.
type Members interface {
	Members() ([]cluster.Member, <-chan struct{})
}

// Options for New. All but those with defaults are required.
type Options struct {
	Store   Store
	Members Members
	Link    Link
	// Self is this process's id among the members, and Own fences this process itself: see peer.Handler.
	Self string
	Own  func(f peer.Fence, done func(incarnation string))
	// Alone: no other process ever held a lease in this store.
	Alone bool
	// LeaseTTL is how long a node reckons with its lease at most. Default presence.LeaseTTL.
	LeaseTTL time.Duration
	// Patience is how long a node may take to answer. Default 2 s.
	Patience time.Duration
	// Within bounds one fence as a whole. Default 30 s.
	Within time.Duration
	// LookEvery is how often Run looks whether the store lost its data. Default 3 s.
	LookEvery time.Duration
	// Most bounds the fences that run at a time. Default 256.
	Most int

	// Clock is time and goroutines. Default clock.Real.
	Clock      clock.Clock
	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// Fencer fences. Its methods are safe for concurrent use.
type Fencer struct {
	o       Options
	log     *zap.Logger
	metrics *metrics

	// ctx ends with Close.
	ctx    context.Context
	cancel context.CancelCauseFunc
	runs   clock.Group

	mu      sync.Mutex
	closed  bool
	running map[peer.Fence]*fencing
	done    [2]map[peer.Fence]bool // done lately; a fence that is done is done for good
	epoch   string                 // of the store's data, as seen last
	since   time.Time              // when it was seen first
}

// fencing is a fence under way. Those that ask for the same wait for the same.
type fencing struct {
	over chan struct{}
	err  error
}

var (
	errClosed = errors.New("fence: closed")
	// ErrBusy says that too many fences are under way: nothing was begun.
	ErrBusy = errors.New("fence: too many at a time")
)

// keepDone is how many fences are remembered as done, at least half as many.
const keepDone = 1024

// New makes a Fencer. It must be closed.
func New(o Options) (*Fencer, error) {
	if o.Store == nil || o.Members == nil || o.Link == nil || o.Own == nil {
		return nil, errors.New("fence: store, members, link and own are needed")
	}
	o.LeaseTTL = cmp.Or(o.LeaseTTL, presence.LeaseTTL)
	o.Patience = cmp.Or(o.Patience, 2*time.Second)
	o.Within = cmp.Or(o.Within, 30*time.Second)
	o.LookEvery = cmp.Or(o.LookEvery, 3*time.Second)
	o.Most = cmp.Or(o.Most, 256)
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	f := &Fencer{o: o, log: o.Logger, metrics: m, running: map[peer.Fence]*fencing{}, done: [2]map[peer.Fence]bool{{}, {}}}
	f.runs = o.Clock.NewGroup()
	f.ctx, f.cancel = context.WithCancelCause(context.Background())
	return f, nil
}

// Close gives up what is under way and waits for it.
func (f *Fencer) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel(errClosed)
	f.runs.Wait()
	return nil
}

// Run looks now and then whether the store's data is still the same, until ctx ends, so that a fence knows since when it is. Without
// it a fence waits longer than it must.
func (f *Fencer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		lookCtx, cancel := f.o.Clock.WithTimeout(ctx, f.o.LookEvery)
		_, err := f.whole(lookCtx)
		cancel()
		if err != nil && ctx.Err() == nil {
			f.log.Debug("the age of the presence store's data is not known", zap.Error(err))
		}
		clock.Sleep(ctx, f.o.Clock, f.o.LookEvery)
	}
	return nil
}

// whole gives from when on the store lists all nodes that reckon with a lease, whatever was lost before.
func (f *Fencer) whole(ctx context.Context) (time.Time, error) {
	epoch, err := f.o.Store.Epoch(ctx)
	if err != nil {
		return time.Time{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if epoch != f.epoch {
		f.epoch, f.since = epoch, f.o.Clock.Now()
	}
	return f.since.Add(f.o.LeaseTTL), nil
}

// Fence returns nil once no node has a message to the conversation under way that was checked against a version below this one,
// and none will. It goes on when ctx ends before: who asks again joins it, or finds it done. An error leaves it undone.
func (f *Fencer) Fence(ctx context.Context, conversation string, version uint64) error {
	key := peer.Fence{Conversation: conversation, Version: version}
	r, err := f.join(key)
	if r == nil {
		return err
	}
	for !clock.Closed(r.over) && ctx.Err() == nil {
		f.o.Clock.Wait(ctx, time.Time{}, r.over)
	}
	if !clock.Closed(r.over) {
		return fmt.Errorf("fence: still under way: %w", context.Cause(ctx))
	}
	return r.err
}

// join gives the fence that is under way, begun if need be; nil with a nil error if it was done before.
func (f *Fencer) join(key peer.Fence) (*fencing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r := f.running[key]; {
	case f.done[0][key] || f.done[1][key]:
		return nil, nil
	case r != nil:
		return r, nil
	case f.closed:
		return nil, errClosed
	case len(f.running) >= f.o.Most:
		return nil, ErrBusy
	}
	r := &fencing{over: make(chan struct{})}
	f.running[key] = r
	f.runs.Go(func() {
		began := f.o.Clock.Now()
		err := f.fence(key)
		f.metrics.seconds.Observe(f.o.Clock.Now().Sub(began).Seconds())
		f.mu.Lock()
		delete(f.running, key)
		if err == nil {
			f.note(key)
		}
		f.mu.Unlock()
		r.err = err
		close(r.over)
	})
	return r, nil
}

// note remembers a fence as done; with the lock held.
func (f *Fencer) note(key peer.Fence) {
	if len(f.done[0]) >= keepDone/2 {
		f.done[0], f.done[1] = map[peer.Fence]bool{}, f.done[0]
	}
	f.done[0][key] = true
}
