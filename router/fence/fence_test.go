package fence_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/fence"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const conversation = "d:1:2"

// world is a cluster as a Fencer sees it.
type world struct {
	*testing.T
	store   *presence.Memory
	failing bool // the store
	fencer  *fence.Fencer

	mu      sync.Mutex
	members []cluster.Member
	nodes   map[string]peer.Fenced // by address: what they answer; who is not here is silent
	asked   map[string]int
	own     int
	calls   sync.WaitGroup // that are under way
}

func (w *world) Members() ([]cluster.Member, <-chan struct{}) { return w.members, nil }

func (w *world) Fence(addr string, f peer.Fence, timeout time.Duration, done func(peer.Fenced, error)) {
	w.mu.Lock()
	w.asked[addr]++
	answer, there := w.nodes[addr]
	w.mu.Unlock()
	if f.Conversation != conversation {
		w.Errorf("asked of %s", f.Conversation)
	}
	w.calls.Go(func() {
		if there {
			done(answer, nil)
			return
		}
		time.Sleep(timeout)
		done(peer.Fenced{}, peer.ErrTimeout)
	})
}

// newWorld is a cluster of this process, self at own:1, and of nodes a and b that answer. Its store is old enough.
func newWorld(t *testing.T) *world {
	w := &world{T: t, nodes: map[string]peer.Fenced{}, asked: map[string]int{}}
	t.Cleanup(w.calls.Wait)
	w.store = presence.NewMemory(presence.MemoryOptions{Fault: func(presence.Op) error {
		if w.failing {
			return presence.ErrUnavailable
		}
		return nil
	}})
	w.join("self", "own:1")
	w.join("a", "a:1")
	w.join("b", "b:1")
	w.fencer = w.another("self")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _ = w.fencer.Run(ctx) }()
	t.Cleanup(cancel)
	time.Sleep(2 * presence.LeaseTTL)
	for _, id := range []string{"self", "a", "b"} {
		w.lease(id)
	}
	return w
}

func (w *world) another(self string) *fence.Fencer {
	f, err := fence.New(fence.Options{
		Store: w.store, Members: w, Link: w, Self: self,
		Own: func(_ peer.Fence, done func(string)) { w.own++; done("life of " + self) },
	})
	w.must(err)
	w.Cleanup(func() { _ = f.Close() })
	return f
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) join(id, addr string) {
	w.members = append(w.members, cluster.Member{ID: id, Name: id, Peer: addr, Roles: []cluster.Role{cluster.RoleNode}})
	w.nodes[addr] = peer.Fenced{Self: id, Incarnation: "life of " + id}
}

func (w *world) addr(id string) string {
	if id == "self" {
		return "own:1"
	}
	return id + ":1"
}

func (w *world) lease(id string) {
	w.Helper()
	ok, err := w.store.Acquire(w.Context(), presence.IncarnationLease("life of "+id), "life of "+id, w.addr(id), time.Hour)
	if err != nil || !ok {
		w.Fatal(ok, err)
	}
}

// fence fences and gives how long it took.
func (w *world) fence(f *fence.Fencer, version uint64) (time.Duration, error) {
	began := time.Now()
	err := f.Fence(w.Context(), conversation, version)
	return time.Since(began), err
}

// wantWait checks that a fence takes as long as it must, and no longer.
func (w *world) wantWait(version uint64, from, to time.Duration) {
	w.Helper()
	if took, err := w.fence(w.fencer, version); err != nil || took < from || took > to {
		w.Errorf("fenced within %v: %v; want %v to %v", took, err, from, to)
	}
}

func TestFence_AllConfirm_AtOnceAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.wantWait(3, 0, 0)
		w.wantWait(3, 0, 0) // done is done
		if w.asked["a:1"] != 1 || w.asked["b:1"] != 1 || w.asked["own:1"] != 0 || w.own != 1 {
			t.Errorf("asked %v, and this process %d times", w.asked, w.own)
		}
		w.wantWait(5, 0, 0)
		if w.asked["a:1"] != 2 {
			t.Errorf("asked %v", w.asked)
		}
	})
}

func TestFence_ASilentNodeIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		delete(w.nodes, "b:1")
		w.wantWait(3, presence.LeaseTTL, presence.LeaseTTL+3*time.Second)
		if held, err := w.store.Renew(t.Context(), presence.IncarnationLease("life of b"), "life of b", time.Hour); held || err != nil {
			t.Errorf("the silent node keeps its lease: %v, %v", held, err)
		}
		if held, _ := w.store.Renew(t.Context(), presence.IncarnationLease("life of a"), "life of a", time.Hour); !held {
			t.Error("the other lost its lease")
		}
	})
}

// Who only has the address of the one that is meant confirms nothing.
func TestFence_AnotherLifeAtTheAddressDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.nodes["b:1"] = peer.Fenced{Self: "c", Incarnation: "life of c"}
		w.wantWait(3, presence.LeaseTTL, presence.LeaseTTL+3*time.Second)
	})
}

// Each of the two that say who is there is enough.
func TestFence_ANodeThatOnlyOneOfTheTwoShowsIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.store.LoseLease(presence.IncarnationLease("life of b"))
		delete(w.nodes, "b:1")
		w.wantWait(3, presence.LeaseTTL, presence.LeaseTTL+3*time.Second)
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.members = w.members[:2]
		delete(w.nodes, "b:1")
		w.wantWait(3, presence.LeaseTTL, presence.LeaseTTL+3*time.Second)
	})
}

// A node whose lease another remover has just taken may not know yet.
func TestFence_ARevokedNodeIsWaitedForByOthersToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.members = w.members[:2]
		w.must(w.store.Revoke(t.Context(), "life of b", presence.LeaseTTL))
		w.wantWait(3, presence.LeaseTTL, presence.LeaseTTL+time.Second)
		time.Sleep(presence.LeaseTTL)
		w.wantWait(5, 0, 0)
	})
}

// A store that lost everything does not list who still reckons with a lease.
func TestFence_AStoreThatLostItsDataIsNotTrustedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.members = w.members[:1] // nor does gossip
		w.store.Wipe()
		w.wantWait(3, presence.LeaseTTL, presence.LeaseTTL+4*time.Second)
		w.wantWait(5, 0, 0)
		fresh := w.another("self") // a process that does not know how old it is
		if took, err := w.fence(fresh, 7); err != nil || took < presence.LeaseTTL {
			t.Errorf("fenced within %v: %v", took, err)
		}
	})
}

func TestFence_NobodyCanBeAsked_IsNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.failing = true
		if _, err := w.fence(w.fencer, 3); !errors.Is(err, presence.ErrUnavailable) {
			t.Fatalf("without the store: %v", err)
		}
		w.failing = false
		w.wantWait(3, 0, 0)
	})
}

// Who gives up waiting does not end it: who comes again joins, and many ask each node once.
func TestFence_IsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		delete(w.nodes, "b:1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.fencer.Fence(ctx, conversation, 3); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("after a second: %v", err)
		}
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { w.wantWait(3, presence.LeaseTTL, presence.LeaseTTL+2*time.Second) })
		}
		all.Wait()
		if w.asked["a:1"] != 1 {
			t.Errorf("asked %v", w.asked)
		}
	})
}

func TestFence_Closed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		delete(w.nodes, "b:1")
		result := make(chan error, 1)
		go func() { result <- w.fencer.Fence(t.Context(), conversation, 3) }()
		synctest.Wait()
		w.must(w.fencer.Close())
		if err := <-result; err == nil {
			t.Error("called done though nobody waited for it to be")
		}
		if _, err := w.fence(w.fencer, 5); err == nil {
			t.Error("fenced when closed")
		}
	})
}
