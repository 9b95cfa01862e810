package presence

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/router/clock"
)

// NodeStore is what a Node needs of the store.
type NodeStore interface {
	Registry
	Leases
}

// NodeOptions configure a Node. Store, PeerAddr and the callbacks are required; incarnations are random by default. Callbacks are called one
// at a time, from Run's goroutine, and must not wait for anything; they may call the Node.
type NodeOptions struct {
	Store NodeStore
	// PeerAddr is where other nodes reach this one: the value of its lease.
	PeerAddr string
	Logger   *zap.Logger
	// Clock is time and goroutines. Default clock.Real.
	Clock clock.Clock
	// CallTimeout bounds each call of the store. Default 1 s.
	CallTimeout time.Duration
	Keeper      KeeperOptions

	// Registered, Compare, Suspend and Resume carry out the effects of the same names.
	Registered func(connection uint64, degraded bool)
	// GroupRegistered may be nil.
	GroupRegistered func(group int64, lost bool)
	Compare         func(connections []uint64)
	Suspend         func()
	Resume          func(incarnation string)
}

// Node drives a Keeper with a real store: one goroutine in Run, and one for each call of the store that is not answered yet, of
// which there are at most four.
type Node struct {
	o   NodeOptions
	log *zap.Logger

	live atomic.Pointer[life]

	mu     sync.Mutex
	events []Event // bounded by the connections and groups: each gives two at most
	state  runState
	wake   chan struct{}
	done   chan struct{} // closed when Run has returned
	cancel context.CancelCauseFunc
}

type life struct {
	incarnation string
	until       time.Time
}

type runState int

const (
	notRun runState = iota
	running
	ended
)

var errClosed = errors.New("presence: node closed")

// NewNode makes a Node that does nothing until Run.
func NewNode(o NodeOptions) *Node {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	o.CallTimeout = cmp.Or(o.CallTimeout, time.Second)
	if o.Keeper.NewIncarnation == nil {
		o.Keeper.NewIncarnation = rand.Text
	}
	return &Node{o: o, log: o.Logger, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Register has a connection registered; the callback Registered answers. It does not wait.
func (n *Node) Register(connection uint64, user int64, device string) {
	n.post(Register{Connection: connection, User: user, Device: device})
}

// Unregister is told that a connection has ended. It does not wait.
func (n *Node) Unregister(connection uint64) { n.post(Unregister{Connection: connection}) }

// RegisterGroup says that there are members of a group here; the callback GroupRegistered answers. It does not wait.
func (n *Node) RegisterGroup(group int64) { n.post(Register{Group: group}) }

// UnregisterGroup says that there are none any more. It does not wait.
func (n *Node) UnregisterGroup(group int64) { n.post(Unregister{Group: group}) }

// Incarnation is the incarnation under which the node lives now, "" if its lease is late or gone: then nothing may be delivered.
// It is exact: what was asked for in time is "" from the very moment on at which the lease is late.
func (n *Node) Incarnation() string {
	l := n.live.Load()
	if l == nil || !n.o.Clock.Now().Before(l.until) {
		return ""
	}
	return l.incarnation
}

func (n *Node) post(e Event) {
	n.mu.Lock()
	n.events = append(n.events, e)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *Node) take() []Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	events := n.events
	n.events = nil
	return events
}

// Run keeps the node's presence until Close, or until ctx ends: then it leaves everything as it is, and the lease expires. It
// may be called once.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	n.mu.Lock()
	if n.state != notRun {
		n.mu.Unlock()
		cancel(nil)
		return errors.New("presence: node has run before, or was closed")
	}
	n.state, n.cancel = running, cancel
	n.mu.Unlock()

	r := &run{n: n, ctx: ctx, clock: n.o.Clock, keeper: NewKeeper(n.o.Keeper), calls: n.o.Clock.NewGroup()}
	err := r.loop()
	n.live.Store(nil)
	cancel(errClosed)
	r.calls.Wait()
	n.mu.Lock()
	n.state = ended
	n.mu.Unlock()
	close(n.done)
	return err
}

// Close unregisters everything, gives the lease up, and waits for Run to return. When ctx ends it leaves the rest to time.
func (n *Node) Close(ctx context.Context) error {
	n.mu.Lock()
	state, cancel := n.state, n.cancel
	if state == notRun { // and never will
		n.state = ended
		close(n.done)
	}
	n.mu.Unlock()
	if state == notRun {
		return nil
	}
	n.post(Shutdown{})
	n.o.Clock.Wait(ctx, time.Time{}, n.done)
	if clock.Closed(n.done) {
		return nil
	}
	cancel(errClosed)
	n.o.Clock.Wait(context.WithoutCancel(ctx), time.Time{}, n.done)
	return fmt.Errorf("presence: entries are left behind: %w", ctx.Err())
}

// run is what Run's goroutine owns.
type run struct {
	n      *Node
	ctx    context.Context
	clock  clock.Clock
	keeper *Keeper
	calls  clock.Group
	failed bool // the last call, so that a failure is logged once
	over   bool
}

func (r *run) loop() error {
	for r.step(Tick{}); !r.over; {
		r.clock.Wait(r.ctx, r.keeper.Next(), r.n.wake)
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		if !r.clock.Now().Before(r.keeper.Next()) {
			r.step(Tick{})
		}
		for _, e := range r.n.take() {
			r.step(e)
		}
	}
	return nil
}

func (r *run) step(e Event) {
	r.note(e)
	effects := r.keeper.Step(r.clock.Now(), e)
	if incarnation, until := r.keeper.Incarnation(); incarnation == "" {
		r.n.live.Store(nil)
	} else {
		r.n.live.Store(&life{incarnation, until})
	}
	for _, effect := range effects {
		r.carryOut(effect)
	}
}

// note logs when calls begin to fail, and when they do no more.
func (r *run) note(e Event) {
	var err error
	switch e := e.(type) {
	case LeaseAnswered:
		err = e.Err
	case EpochAnswered:
		err = e.Err
	case EntriesWritten:
		err = e.Err
	default:
		return
	}
	switch {
	case err != nil && !r.failed:
		r.n.log.Warn("presence cannot be kept; tried again until it can", zap.Error(err))
	case err == nil && r.failed:
		r.n.log.Info("presence can be kept again")
	}
	r.failed = err != nil
}

func (r *run) carryOut(effect Effect) {
	o, store := &r.n.o, r.n.o.Store
	switch e := effect.(type) {
	case AcquireLease:
		r.call(func(ctx context.Context) Event {
			ok, err := store.Acquire(ctx, IncarnationLease(e.Incarnation), e.Incarnation, o.PeerAddr, e.TTL)
			return LeaseAnswered{e.ID, ok, err}
		})
	case RenewLease:
		r.call(func(ctx context.Context) Event {
			ok, err := store.Renew(ctx, IncarnationLease(e.Incarnation), e.Incarnation, e.TTL)
			return LeaseAnswered{e.ID, ok, err}
		})
	case ReleaseLease:
		r.call(func(ctx context.Context) Event {
			if err := store.Release(ctx, IncarnationLease(e.Incarnation), e.Incarnation); err != nil {
				r.n.log.Info("presence lease left to expire", zap.Error(err))
			}
			return LeaseReleased{e.ID}
		})
	case ReadEpoch:
		r.call(func(ctx context.Context) Event {
			epoch, err := store.Epoch(ctx)
			return EpochAnswered{e.ID, epoch, err}
		})
	case WriteEntries:
		r.call(func(ctx context.Context) Event { return r.write(ctx, e) })
	case Registered:
		o.Registered(e.Connection, e.Degraded)
	case GroupRegistered:
		if o.GroupRegistered != nil {
			o.GroupRegistered(e.Group, e.Lost)
		}
	case Compare:
		o.Compare(e.Connections)
	case Suspend:
		o.Suspend()
	case Resume:
		o.Resume(e.Incarnation)
	case Stopped:
		r.over = true
	}
}

func (r *run) write(ctx context.Context, e WriteEntries) Event {
	w := EntriesWritten{ID: e.ID}
	if len(e.Register) > 0 {
		w.Added, w.Err = r.n.o.Store.Register(ctx, e.Register)
	}
	if len(e.Unregister) > 0 && w.Err == nil {
		w.Err = r.n.o.Store.Unregister(ctx, e.Unregister)
	}
	return w
}

// call makes a call of the store, bounded in time, and posts its answer.
func (r *run) call(f func(ctx context.Context) Event) {
	r.calls.Go(func() {
		ctx, cancel := r.clock.WithTimeout(r.ctx, r.n.o.CallTimeout)
		defer cancel()
		r.n.post(f(ctx))
	})
}
