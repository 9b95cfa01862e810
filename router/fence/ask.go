package fence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// storeTimeout bounds a call of the presence store.
const storeTimeout = 2 * time.Second

// fence does the whole.
func (f *Fencer) fence(key peer.Fence) error {
	ctx, cancel := context.WithTimeout(f.ctx, f.o.Within)
	defer cancel()
	own := make(chan string, 1)
	f.o.Own(key, func(incarnation string) { own <- incarnation })

	lookCtx, done := context.WithTimeout(ctx, storeTimeout)
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
	var until time.Time // by when all who did not answer are out of their leases
	wait := func(t time.Time) {
		if t.After(until) {
			until = t
		}
	}
	if !f.o.Alone {
		wait(whole)
	}
	answers := f.ask(key, f.targets(lives, members))
	var mine string
	select {
	case mine = <-own:
	case <-ctx.Done():
		return fmt.Errorf("fence: this process's own messages: %w", context.Cause(ctx))
	}
	confirmed := map[string]bool{f.o.Self: true, mine: true} // processes and incarnations
	for a := range answers {
		confirmed[a.Self], confirmed[a.Incarnation] = true, true
	}
	for _, l := range lives {
		switch {
		case l.Revoked:
			wait(time.Now().Add(f.o.LeaseTTL)) // by whom and when is not known
		case !confirmed[l.Incarnation]:
			if err := f.revoke(ctx, key, l); err != nil {
				return err
			}
			wait(time.Now().Add(f.o.LeaseTTL))
		}
	}
	for _, m := range members {
		if m.Has(cluster.RoleNode) && !confirmed[m.ID] {
			// It may reckon with a lease that the store has lost.
			f.log.Warn("a node did not answer a removal, and is waited out", zap.String("conversation", key.Conversation), zap.String("node", m.Name))
			wait(time.Now().Add(f.o.LeaseTTL))
		}
	}
	return pause(ctx, until)
}

// revoke takes the lease of a node that did not answer.
func (f *Fencer) revoke(ctx context.Context, key peer.Fence, l presence.Life) error {
	f.metrics.revoked.Inc()
	f.log.Warn("a node did not answer a removal: its lease is taken, and the time waited for by which it knows",
		zap.String("conversation", key.Conversation), zap.String("incarnation", l.Incarnation), zap.String("address", l.Addr))
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := f.o.Store.Revoke(ctx, l.Incarnation, f.o.LeaseTTL); err != nil {
		return fmt.Errorf("fence: revoke %s: %w", l.Incarnation, err)
	}
	return nil
}

// targets gives the addresses to ask, each once. This process is asked by Own alone.
func (f *Fencer) targets(lives []presence.Life, members []cluster.Member) []string {
	var addrs []string
	own := ""
	for _, m := range members {
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
	for _, m := range members {
		if m.Has(cluster.RoleNode) {
			add(m.Peer)
		}
	}
	return addrs
}

// ask asks all at once. Every one answers within Patience, or does not: the channel is closed then.
func (f *Fencer) ask(key peer.Fence, addrs []string) <-chan peer.Fenced {
	type result struct {
		peer.Fenced
		err error
	}
	results := make(chan result, len(addrs))
	for _, addr := range addrs {
		f.o.Link.Fence(addr, key, f.o.Patience, func(a peer.Fenced, err error) { results <- result{a, err} })
	}
	answers := make(chan peer.Fenced, len(addrs))
	f.runs.Go(func() {
		defer close(answers)
		for range addrs {
			if r := <-results; r.err == nil {
				answers <- r.Fenced
			}
		}
	})
	return answers
}

// pause waits until a time.
func pause(ctx context.Context, until time.Time) error {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("fence: waiting for leases to end: %w", context.Cause(ctx))
	}
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
