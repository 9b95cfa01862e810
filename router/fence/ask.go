package fence

import (
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

// storeTimeout bounds a call of the presence store.
const storeTimeout = 2 * time.Second

// fence does the whole.
func (f *Fencer) fence(key peer.Fence) error {
	ctx, cancel := f.o.Clock.WithTimeout(f.ctx, f.o.Within)
	defer cancel()
	answers := newAnswers()
	f.o.Own(key, func(incarnation string) { answers.take(peer.Fenced{Self: f.o.Self, Incarnation: incarnation}, nil) })

	lookCtx, done := f.o.Clock.WithTimeout(ctx, storeTimeout)
	defer done()
	lives, err := f.o.Store.Lives(lookCtx)
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	whole, err := f.whole(lookCtx) // after it: what was lost before shows
	if err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	members, _ := f.o.Members.Members()
	nodes := cluster.WithRole(members, cluster.RoleNode) // those that drain as well
	var until time.Time                                  // by when all who did not answer are out of their leases
	wait := func(t time.Time) {
		if t.After(until) {
			until = t
		}
	}
	if !f.o.Alone {
		wait(whole)
	}
	f.ask(key, f.targets(lives, nodes), answers)
	for !clock.Closed(answers.all) && ctx.Err() == nil {
		f.o.Clock.Wait(ctx, time.Time{}, answers.all)
	}
	if !clock.Closed(answers.all) { // the others' answers have come, or will not
		return fmt.Errorf("fence: this process's own messages: %w", context.Cause(ctx))
	}
	confirmed := answers.confirmed()
	for _, l := range lives {
		switch {
		case l.Revoked:
			wait(f.o.Clock.Now().Add(f.o.LeaseTTL)) // by whom and when is not known
		case !confirmed[l.Incarnation]:
			if err := f.revoke(ctx, key, l); err != nil {
				return err
			}
			wait(f.o.Clock.Now().Add(f.o.LeaseTTL))
		}
	}
	for _, m := range nodes {
		if !confirmed[m.ID] {
			// It may reckon with a lease that the store has lost.
			f.log.Warn("a node did not answer a removal, and is waited out", zap.String("conversation", key.Conversation), zap.String("node", m.Name))
			wait(f.o.Clock.Now().Add(f.o.LeaseTTL))
		}
	}
	return f.pause(ctx, until)
}

// revoke takes the lease of a node that did not answer.
func (f *Fencer) revoke(ctx context.Context, key peer.Fence, l presence.Life) error {
	f.metrics.revoked.Inc()
	f.log.Warn("a node did not answer a removal: its lease is taken, and the time waited for by which it knows",
		zap.String("conversation", key.Conversation), zap.String("incarnation", l.Incarnation), zap.String("address", l.Addr))
	ctx, cancel := f.o.Clock.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := f.o.Store.Revoke(ctx, l.Incarnation, f.o.LeaseTTL); err != nil {
		return fmt.Errorf("fence: revoke %s: %w", l.Incarnation, err)
	}
	return nil
}

// targets gives the addresses to ask, each once. This process is asked by Own alone.
func (f *Fencer) targets(lives []presence.Life, nodes []cluster.Member) []string {
	var addrs []string
	own := ""
	for _, m := range nodes {
		if m.ID == f.o.Self {
			own = m.Peer
		}
	}
	seen := map[string]bool{"": true, own: true}
	add := func(addr string) {
		if !seen[addr] {
			seen[addr] = true
			addrs = append(addrs, addr)
		}
	}
	for _, l := range lives {
		add(l.Addr)
	}
	for _, m := range nodes {
		add(m.Peer)
	}
	return addrs
}

// ask asks all at once. Every one answers within Patience, or does not.
func (f *Fencer) ask(key peer.Fence, addrs []string, to *answers) {
	to.expect(len(addrs))
	for _, addr := range addrs {
		f.o.Link.Fence(addr, key, f.o.Patience, to.take)
	}
}

// answers are those to one fence, as they come.
type answers struct {
	mu    sync.Mutex
	left  int // that have neither come nor failed
	given []peer.Fenced
	all   chan struct{} // closed once none is left
}

// newAnswers expects this process's own answer, and to be told how many others.
func newAnswers() *answers { return &answers{left: 2, all: make(chan struct{})} }

// expect says, once, how many others will come.
func (a *answers) expect(others int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changeLocked(others - 1)
}

func (a *answers) take(answer peer.Fenced, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.given = append(a.given, answer)
	}
	a.changeLocked(-1)
}

func (a *answers) changeLocked(by int) {
	if a.left += by; a.left == 0 {
		close(a.all)
	}
}

// confirmed gives the processes and incarnations that answered.
func (a *answers) confirmed() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	confirmed := map[string]bool{}
	for _, answer := range a.given {
		confirmed[answer.Self], confirmed[answer.Incarnation] = true, true
	}
	return confirmed
}

// pause waits until a time.
func (f *Fencer) pause(ctx context.Context, until time.Time) error {
	if clock.Sleep(ctx, f.o.Clock, until.Sub(f.o.Clock.Now())) {
		return nil
	}
	return fmt.Errorf("fence: waiting for leases to end: %w", context.Cause(ctx))
}

type metrics struct {
	seconds prometheus.Histogram
	revoked prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "future_fence_seconds", Help: "From a removal's decision to when nothing older was under way anywhere: over 10 s if a node did not answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
		revoked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "future_fence_revoked_total", Help: "Leases taken from nodes that did not answer a removal.",
		}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.seconds), r.Register(m.revoked))
}
