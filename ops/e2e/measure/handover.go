package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/futurechat/future/ops/clustertest"
	"github.com/futurechat/future/ops/e2e/traffic"
)

// arena is a cluster with messages flowing while faults are done.
type arena struct {
	settings
	c       *clustertest.Cluster
	traffic *traffic.Traffic
}

const (
	patience = 90 * time.Second
	calm     = 2 * time.Second // nothing was shown late for so long
)

// arena starts a cluster in which messages flow from one node to the other.
func (s settings) arena(ctx context.Context) (*arena, func(), error) {
	c, stop, err := s.start(ctx, clustertest.Options{Nodes: 2, Routers: 2, Histories: 1, Hosts: true})
	if err != nil {
		return nil, nil, err
	}
	flow, err := traffic.Start(ctx, traffic.Options{
		Writer: c.Nodes[0].Addr, Friends: []string{c.Nodes[1].Addr}, Streams: 12, Every: 20 * time.Millisecond, Partitions: s.partitions,
	})
	if err != nil {
		stop()
		return nil, nil, err
	}
	return &arena{settings: s, c: c, traffic: flow}, stop, nil
}

// handover measures how long partitions stand still when their router goes, each way there is. The partitions that do not
// change hands are the control: theirs are printed as well.
func handover(ctx context.Context, s settings) error {
	a, stop, err := s.arena(ctx)
	if err != nil {
		return err
	}
	defer stop()
	for _, fault := range []struct {
		name string
		do   func(context.Context) (moved spread, still time.Duration, err error)
	}{
		{"router killed (SIGKILL)", a.killed},
		{"router paused (SIGSTOP)", a.paused},
		{"router cut off (packets dropped)", a.cut},
		{"router stopped (SIGTERM)", a.stopped},
		{"router added", a.added},
	} {
		if !strings.Contains(fault.name, s.only) {
			continue
		}
		var moved, still spread
		for range s.rounds {
			m, rest, err := fault.do(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", fault.name, err)
			}
			moved, still = append(moved, m...), append(still, rest)
		}
		s.say("%s: partitions that moved: %v", fault.name, moved)
		s.say("  all, ms: %s", moved.raw())
		s.say("  worst of those that did not move, per round: %v", still)
	}
	stopping, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := a.traffic.Stop(stopping); err != nil {
		return err
	}
	due := 0
	for _, st := range a.traffic.Streams {
		n, _ := st.Counts()
		due += n
	}
	s.say("messages: %d, each shown once and in order", due)
	return nil
}

// settle waits until every partition has an owner that lives, and everything flows at once.
func (a *arena) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	since := time.Now()
	for time.Since(since) < calm {
		for _, st := range a.traffic.Streams {
			const late = 250 * time.Millisecond
			if st.Stall(time.Now().Add(-100*time.Millisecond)) > late {
				since = time.Now()
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the cluster does not come to rest: %w: %s%w", context.Cause(ctx), a.late(), a.traffic.Wrong())
		}
	}
	return nil
}

// measure does a fault, waits until all flows again and the owners have settled, and tells how long the streams stood still:
// those of partitions that moved reports, and the rest.
func (a *arena) measure(ctx context.Context, do func() error, moved func(before, now *clustertest.Process) bool) (spread, time.Duration, error) {
	if err := a.settle(ctx); err != nil {
		return nil, 0, err
	}
	before, err := traffic.Owners(a.c)
	if err != nil {
		return nil, 0, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return nil, 0, err
	}
	if err := a.settle(ctx); err != nil {
		return nil, 0, err
	}
	now, err := traffic.Owners(a.c)
	if err != nil {
		return nil, 0, err
	}
	var list spread
	var rest time.Duration
	for _, st := range a.traffic.Streams {
		stall := st.Stall(began)
		if moved(before[st.Partition], now[st.Partition]) {
			list = append(list, stall)
		} else {
			rest = max(rest, stall)
		}
	}
	return list, rest, nil
}

// victim is the router with the most streams. (The one that lives on keeps what it took until membership has caught up.)
func (a *arena) victim() (*clustertest.Process, error) {
	owners, err := traffic.Owners(a.c)
	if err != nil {
		return nil, err
	}
	streams := map[*clustertest.Process]int{}
	var most *clustertest.Process
	for _, st := range a.traffic.Streams {
		p := owners[st.Partition]
		if streams[p]++; most == nil || streams[p] > streams[most] {
			most = p
		}
	}
	return most, nil
}

func wasOf(victim *clustertest.Process) func(before, now *clustertest.Process) bool {
	return func(before, _ *clustertest.Process) bool { return before == victim }
}

func (a *arena) killed(ctx context.Context) (spread, time.Duration, error) {
	victim, err := a.victim()
	if err != nil {
		return nil, 0, err
	}
	list, rest, err := a.measure(ctx, func() error { victim.Kill(); return nil }, wasOf(victim))
	return list, rest, a.replace(ctx, victim, err)
}

func (a *arena) stopped(ctx context.Context) (spread, time.Duration, error) {
	victim, err := a.victim()
	if err != nil {
		return nil, 0, err
	}
	list, rest, err := a.measure(ctx, func() error { return victim.Stop(ctx) }, wasOf(victim))
	return list, rest, a.replace(ctx, victim, err)
}

// replace adds a router for one that has gone.
func (a *arena) replace(ctx context.Context, gone *clustertest.Process, err error) error {
	if err != nil {
		return err
	}
	for i, r := range a.c.Routers {
		if r == gone {
			a.c.Routers = append(a.c.Routers[:i:i], a.c.Routers[i+1:]...)
		}
	}
	_, err = a.c.Add(ctx, "router")
	return err
}

func (a *arena) paused(ctx context.Context) (spread, time.Duration, error) {
	victim, err := a.victim()
	if err != nil {
		return nil, 0, err
	}
	list, rest, err := a.measure(ctx, func() error { return victim.Signal(syscall.SIGSTOP) }, wasOf(victim))
	if err != nil {
		return nil, 0, err
	}
	// It comes back stale, and must do no harm; then it goes, so that the next round has one that owns something.
	if err := victim.Signal(syscall.SIGCONT); err != nil {
		return nil, 0, err
	}
	if err := a.settle(ctx); err != nil {
		return nil, 0, err
	}
	return list, rest, a.replace(ctx, victim, victim.Stop(ctx))
}

func (a *arena) cut(ctx context.Context) (spread, time.Duration, error) {
	host, err := a.c.AddHost(ctx)
	if err != nil {
		return nil, 0, err
	}
	victim, err := a.c.AddOn(ctx, host, "router")
	if err != nil {
		return nil, 0, err
	}
	list, rest, err := a.measure(ctx, func() error { return host.Cut(ctx, clustertest.Both) }, wasOf(victim))
	if err != nil {
		return nil, 0, err
	}
	dropped, err := host.Dropped(ctx)
	if err != nil || dropped == 0 {
		return nil, 0, fmt.Errorf("the fault did not hit: %d packets dropped, %w", dropped, err)
	}
	a.say("  cut off: %d packets dropped, %d streams of 12 moved", dropped, len(list))
	if err := host.Heal(ctx); err != nil {
		return nil, 0, err
	}
	if err := a.settle(ctx); err != nil {
		return nil, 0, err
	}
	if err := victim.Stop(ctx); err != nil {
		return nil, 0, err
	}
	a.c.Routers = a.c.Routers[:len(a.c.Routers)-1]
	return list, rest, nil
}

func (a *arena) added(ctx context.Context) (spread, time.Duration, error) {
	var added *clustertest.Process
	list, rest, err := a.measure(ctx, func() (err error) { added, err = a.c.Add(ctx, "router"); return err },
		func(before, now *clustertest.Process) bool { return before != now })
	if err != nil {
		return nil, 0, err
	}
	err = added.Stop(ctx)
	a.c.Routers = a.c.Routers[:len(a.c.Routers)-1]
	return list, rest, err
}

// late says which streams are behind.
func (a *arena) late() string {
	var b strings.Builder
	for _, st := range a.traffic.Streams {
		due, shown := st.Counts()
		fmt.Fprintf(&b, "%s (partition %d): %d of %d shown, %v late; ", st.Conversation, st.Partition, shown, due, st.Stall(time.Now().Add(-time.Second)))
	}
	return b.String()
}
