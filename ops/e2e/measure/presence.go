package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
)

// presence measures the two ways in which the friends' list can be wrong: who is gone is still shown online, and who is there
// is not. Somebody asks for the list over and over at one node; the friend is at another, to which the faults are done.
func presence(ctx context.Context, s settings) error {
	c, stop, err := s.start(ctx, clustertest.Options{Nodes: 1, Routers: 1, Histories: 1, Hosts: true})
	if err != nil {
		return err
	}
	defer stop()
	w := &watch{settings: s, c: c}
	if err := w.befriend(ctx); err != nil {
		return err
	}
	defer func() { _ = w.asker.Close() }()
	for _, m := range []struct {
		name string
		do   func(context.Context) (time.Duration, error)
	}{
		{"shown after its node was killed (SIGKILL)", w.shownAfter(func(_ context.Context, _ *clustertest.Host, p *clustertest.Process) error { p.Kill(); return nil })},
		{"shown after its node was paused (SIGSTOP)", w.shownAfter(func(_ context.Context, _ *clustertest.Host, p *clustertest.Process) error {
			return p.Signal(syscall.SIGSTOP)
		})},
		{"shown after its node's host was gone (packets dropped)", w.shownAfter(func(ctx context.Context, h *clustertest.Host, _ *clustertest.Process) error {
			return h.Cut(ctx, clustertest.Both)
		})},
		{"shown after its node was stopped (SIGTERM)", w.shownAfter(func(_ context.Context, _ *clustertest.Host, p *clustertest.Process) error {
			return p.Signal(syscall.SIGTERM)
		})},
		{"not shown after the log-in was answered", w.login},
		{"not shown after its node went on (SIGCONT), paused for longer than its lease", w.missing(
			func(_ context.Context, _ *clustertest.Host, p *clustertest.Process) error {
				return p.Signal(syscall.SIGSTOP)
			},
			func(_ context.Context, _ *clustertest.Host, p *clustertest.Process) error {
				return p.Signal(syscall.SIGCONT)
			})},
		{"not shown after its node's host was back, away for longer than its lease", w.missing(
			func(ctx context.Context, h *clustertest.Host, _ *clustertest.Process) error {
				return h.Cut(ctx, clustertest.Both)
			},
			func(ctx context.Context, h *clustertest.Host, _ *clustertest.Process) error { return h.Heal(ctx) })},
		{"not shown after Redis was emptied", w.emptied},
	} {
		if !strings.Contains(m.name, s.only) {
			continue
		}
		var all spread
		for range s.rounds {
			d, err := m.do(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			all = append(all, d)
		}
		s.say("%s: %v", m.name, all)
		s.say("  all, ms: %s", all.raw())
	}
	return nil
}

type watch struct {
	settings
	c     *clustertest.Cluster
	asker *future.Client
}

const (
	friendName = "friend"
	password   = "correct horse battery"
)

func (w *watch) dial(ctx context.Context, addrs ...string) (*future.Client, error) {
	return future.Dial(ctx, addrs, future.WithInsecurePasswords(), future.WithHandlers(future.Handlers{}),
		future.WithBackoff(20*time.Millisecond, time.Second))
}

func (w *watch) befriend(ctx context.Context) (err error) {
	if w.asker, err = w.dial(ctx, w.c.Nodes[0].Addr); err != nil {
		return err
	}
	friend, err := w.dial(ctx, w.c.Nodes[0].Addr)
	if err != nil {
		return err
	}
	defer func() { _ = friend.Close() }()
	for _, step := range []func() error{
		func() error { _, err := w.asker.Register(ctx, "asker", password); return err },
		func() error { _, err := friend.Register(ctx, friendName, password); return err },
		func() error { return w.asker.AddFriend(ctx, friendName, "hello") },
		func() error { return friend.AnswerFriend(ctx, "asker", true) },
		func() error { return friend.Logout(ctx) },
		func() error { _, err := w.until(ctx, false); return err },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (w *watch) shown(ctx context.Context) (bool, error) {
	list, err := w.asker.Friends(ctx)
	if err != nil {
		return false, err
	}
	for _, f := range list {
		if f.User.Name == friendName {
			return f.Online, nil
		}
	}
	return false, fmt.Errorf("no %s in the list", friendName)
}

// until asks until the friend is shown online, or is not, and tells how long that took.
func (w *watch) until(ctx context.Context, online bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for began := time.Now(); ; {
		is, err := w.shown(ctx)
		if err != nil {
			return 0, err
		}
		if is == online {
			return time.Since(began), nil
		}
		if err := clustertest.Sleep(ctx, 20*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// at has the friend log in at a node of its own, on a host of its own, and calls do.
func (w *watch) at(ctx context.Context, do func(h *clustertest.Host, p *clustertest.Process) (time.Duration, error)) (time.Duration, error) {
	host, err := w.c.AddHost(ctx)
	if err != nil {
		return 0, err
	}
	p, err := w.c.AddOn(ctx, host, "node")
	if err != nil {
		return 0, err
	}
	defer func() {
		p.Kill()
		w.c.Nodes = w.c.Nodes[:len(w.c.Nodes)-1]
	}()
	friend, err := w.dial(ctx, p.Addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = friend.Close() }()
	if _, err := friend.Login(ctx, friendName, password); err != nil {
		return 0, err
	}
	if _, err := w.until(ctx, true); err != nil {
		return 0, err
	}
	return do(host, p)
}

type fault func(context.Context, *clustertest.Host, *clustertest.Process) error

func (w *watch) shownAfter(f fault) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		return w.at(ctx, func(h *clustertest.Host, p *clustertest.Process) (time.Duration, error) {
			began := time.Now()
			if err := f(ctx, h, p); err != nil {
				return 0, err
			}
			_, err := w.until(ctx, false)
			return time.Since(began), err
		})
	}
}

// missing does a fault, waits until the friend is not shown any more, undoes it, and tells how long until he is.
func (w *watch) missing(fault, undo fault) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		return w.at(ctx, func(h *clustertest.Host, p *clustertest.Process) (time.Duration, error) {
			if err := fault(ctx, h, p); err != nil {
				return 0, err
			}
			if _, err := w.until(ctx, false); err != nil {
				return 0, err
			}
			if err := undo(ctx, h, p); err != nil {
				return 0, err
			}
			return w.until(ctx, true)
		})
	}
}

func (w *watch) login(ctx context.Context) (time.Duration, error) {
	friend, err := w.dial(ctx, w.c.Nodes[0].Addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = friend.Close() }()
	if _, err := friend.Login(ctx, friendName, password); err != nil {
		return 0, err
	}
	took, err := w.until(ctx, true)
	if err != nil {
		return 0, err
	}
	if err := friend.Logout(ctx); err != nil {
		return 0, err
	}
	_, err = w.until(ctx, false)
	return took, err
}

// emptied tells how long the friend was not shown in all, from when Redis was emptied until he is shown for good.
func (w *watch) emptied(ctx context.Context) (time.Duration, error) {
	return w.at(ctx, func(*clustertest.Host, *clustertest.Process) (time.Duration, error) {
		if _, err := w.c.EmptyRedis(ctx); err != nil {
			return 0, err
		}
		began := time.Now()
		if is, err := w.shown(ctx); err != nil || is {
			return 0, fmt.Errorf("the fault did not hit: shown %v, %w", is, err)
		}
		_, err := w.until(ctx, true)
		return time.Since(began), err
	})
}
