package presence_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/futurechat/future/router/presence"
)

// calls is what a Node called back, in order.
type calls struct {
	mu  sync.Mutex
	all []string
}

func (c *calls) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, fmt.Sprintf(format, args...))
}

func (c *calls) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

func want(t *testing.T, c *calls, calls ...string) {
	t.Helper()
	if got := c.take(); !slices.Equal(got, calls) {
		t.Errorf("called back %q, want %q", got, calls)
	}
}

func newNode(store presence.NodeStore, c *calls) *presence.Node {
	var n atomic.Int64
	return presence.NewNode(presence.NodeOptions{
		Store: store, PeerAddr: "h:1",
		Keeper:     presence.KeeperOptions{NewIncarnation: func() string { return fmt.Sprint("inc", n.Add(1)) }},
		Registered: func(connection uint64, degraded bool) { c.add("registered %d %v", connection, degraded) },
		Compare:    func(connections []uint64) { c.add("compare %v", connections) },
		Suspend:    func() { c.add("suspend") },
		Resume:     func(incarnation string) { c.add("resume %s", incarnation) },
	})
}

// start runs a node until the test ends, and says what Run returned.
func start(t *testing.T, n *presence.Node) <-chan error {
	t.Helper()
	ran := make(chan error, 1)
	go func() { ran <- n.Run(t.Context()) }()
	return ran
}

func TestNode_RegistersAndLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c calls
		store := presence.NewMemory(presence.MemoryOptions{})
		n := newNode(store, &c)
		if got := n.Incarnation(); got != "" {
			t.Errorf("incarnation is %q before Run", got)
		}
		n.Register(1, 7, "phone") // may come before Run
		ran := start(t, n)
		synctest.Wait()
		want(t, &c, "resume inc1", "registered 1 false")
		places, err := store.Locate(t.Context(), []int64{7})
		if err != nil || len(places[0]) != 1 || places[0][0] != (presence.Place{Incarnation: "inc1", Connection: 1, Device: "phone", Addr: "h:1"}) {
			t.Errorf("user 7 is at %v, %v", places, err)
		}
		n.Register(2, 8, "web")
		n.Unregister(1)
		time.Sleep(time.Hour)
		want(t, &c, "registered 2 false")
		if got := n.Incarnation(); got != "inc1" {
			t.Errorf("incarnation is %q", got)
		}
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ran; err != nil {
			t.Error(err)
		}
		want(t, &c)
		if n.Incarnation() != "" || len(store.Live()) != 0 {
			t.Errorf("closed, it is %q, and %v are left", n.Incarnation(), store.Live())
		}
		if ok, err := store.Acquire(t.Context(), presence.IncarnationLease("inc1"), "x", "", time.Second); !ok || err != nil {
			t.Errorf("its lease is free: %v, %v", ok, err)
		}
	})
}

func TestNode_StoreAway_SuspendsInTimeAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c calls
		var down atomic.Bool
		store := presence.NewMemory(presence.MemoryOptions{Fault: func(presence.Op) error {
			if down.Load() {
				return presence.ErrUnavailable
			}
			return nil
		}})
		n := newNode(store, &c)
		ran := start(t, n)
		n.Register(1, 7, "phone")
		synctest.Wait()
		want(t, &c, "resume inc1", "registered 1 false")
		down.Store(true)
		time.Sleep(9 * time.Second)
		want(t, &c)
		time.Sleep(time.Second) // the lease ends now
		synctest.Wait()
		want(t, &c, "suspend")
		n.Register(2, 8, "web")
		synctest.Wait()
		want(t, &c, "registered 2 true")
		if n.Incarnation() != "" {
			t.Errorf("incarnation is %q", n.Incarnation())
		}
		down.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		// Every try took another incarnation.
		want(t, &c, "resume "+n.Incarnation(), "registered 2 false", "compare [1 2]")
		if len(store.Live()) != 2 {
			t.Errorf("others find %v", store.Live())
		}
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

// stuck does not answer until its context ends.
type stuck struct{ presence.NodeStore }

func (stuck) Acquire(ctx context.Context, _, _, _ string, _ time.Duration) (bool, error) {
	<-ctx.Done()
	return false, fmt.Errorf("%w: %w", presence.ErrUnavailable, ctx.Err())
}

func TestNode_StoreThatHangs_IsWaitedForNoLongerThanNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c calls
		n := newNode(stuck{presence.NewMemory(presence.MemoryOptions{})}, &c)
		ran := start(t, n)
		n.Register(1, 7, "phone")
		time.Sleep(time.Second)
		synctest.Wait()
		want(t, &c, "registered 1 true")
		began := time.Now()
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("close took %v", took)
		}
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

func TestNode_CloseGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c calls
		n := newNode(stuck{presence.NewMemory(presence.MemoryOptions{})}, &c)
		ran := start(t, n)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := n.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close answers %v", err)
		}
		if err := <-ran; err == nil {
			t.Error("run ended as if all were done")
		}
	})
}

func TestNode_RunsOnce(t *testing.T) {
	n := newNode(presence.NewMemory(presence.MemoryOptions{}), &calls{})
	if err := n.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := n.Run(t.Context()); err == nil {
		t.Error("it runs after it was closed")
	}
	if err := n.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
