package peer

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testCluster = "test"

var secret = bytes.Repeat([]byte{7}, 32)

// wait is how long a test waits for what must happen.
const wait = 20 * time.Second

// fakeNode is a Handler that keeps what came.
type fakeNode struct {
	forward func(link uint64, f Forward) Answer // nil: delivered

	mu       sync.Mutex
	changed  chan struct{}
	forwards []Forward
	links    map[uint64]int // forwards by link
	kicks    []Kick
	lost     []uint64
	fences   []fenceAsked
	late     int // forwards after LinkLost
}

// fenceAsked is a Fence that awaits its answer.
type fenceAsked struct {
	Fence
	done func(incarnation string)
}

func newFakeNode() *fakeNode {
	return &fakeNode{changed: make(chan struct{}), links: make(map[uint64]int)}
}

func (n *fakeNode) Forward(link uint64, f Forward) Answer {
	a := Answer{Status: StatusDelivered}
	if n.forward != nil {
		a = n.forward(link, f)
	}
	n.change(func() {
		n.forwards = append(n.forwards, f)
		n.links[link]++
		for _, l := range n.lost {
			if l == link {
				n.late++
			}
		}
	})
	return a
}

func (n *fakeNode) Kick(k Kick) { n.change(func() { n.kicks = append(n.kicks, k) }) }
func (n *fakeNode) Fence(f Fence, done func(string)) {
	n.change(func() { n.fences = append(n.fences, fenceAsked{f, done}) })
}

func (n *fakeNode) LinkLost(link uint64) { n.change(func() { n.lost = append(n.lost, link) }) }

func (n *fakeNode) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	close(n.changed)
	n.changed = make(chan struct{})
}

// seen gives how many links forwards came over, how many were lost, and how many forwards came after that.
func (n *fakeNode) seen() (links, lost, late int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.links), len(n.lost), n.late
}

func (n *fakeNode) got() []Forward {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.forwards)
}

// waitFor waits until ok, which is called with the lock held.
func (n *fakeNode) waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(wait)
	for {
		n.mu.Lock()
		good, changed := ok(), n.changed
		n.mu.Unlock()
		if good {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func serverOptions(h Handler) ServerOptions {
	return ServerOptions{Addr: "127.0.0.1:0", Secret: secret, Cluster: testCluster, Self: "server", Handler: h, Logger: zap.NewNop()}
}

func poolOptions() PoolOptions {
	return PoolOptions{
		Secret: secret, Cluster: testCluster, Self: "pool", Logger: zap.NewNop(),
		timing: timing{backoff: 2 * time.Millisecond, backoffTo: 20 * time.Millisecond},
	}
}

func startServer(t testing.TB, o ServerOptions) *Server {
	t.Helper()
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

func startPool(t testing.TB, o PoolOptions) *Pool {
	t.Helper()
	p, err := NewPool(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close pool: %v", err)
		}
	})
	return p
}

type outcome struct {
	answer Answer
	err    error
}

// send sends and gives where the outcome comes.
func send(p *Pool, addr string, f Forward, timeout time.Duration) <-chan outcome {
	c := make(chan outcome, 2) // two, so that a second call shows
	p.Send(addr, f, timeout, func(a Answer, err error) { c <- outcome{a, err} })
	return c
}

func get[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(wait):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

// waitUp sends until it is answered: what was down comes up by itself.
func waitUp(t testing.TB, p *Pool, addr string) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		if o := get(t, send(p, addr, Forward{}, wait)); o.err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s stays down", addr)
		}
		// Until the next try there is nothing to wait on but time itself.
		<-time.After(2 * time.Millisecond)
	}
}

// waitUntil waits for what nothing tells of.
func waitUntil(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("still waits for: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func full() Forward {
	return Forward{
		Incarnation: "boot-1", Partition: 63, RouterEpoch: 1 << 40, Number: 1<<64 - 1,
		Messages: []Message{
			{Seq: 1 << 48, Body: []byte("body"), Recipients: []Recipient{{User: 1, Connection: 2}, {User: -3, Connection: 1<<64 - 1}}},
			{Seq: 2, Body: []byte{}, Recipients: nil},
			{Seq: 3, Body: []byte("g"), Recipients: []Recipient{{User: 1, Connection: 2}}, Group: 1 << 40, Version: 1<<64 - 1},
		},
		Rejections: []Rejection{{Seq: 3, Recipients: []Recipient{{User: 4, Connection: 5}}, Rejected: &pb.Rejected{ClientMsgId: "id"}}},
	}
}

func numbered(n int) Forward {
	return Forward{Incarnation: "boot", Partition: 1, Number: uint64(n), Messages: []Message{{Seq: uint64(n), Body: fmt.Append(nil, n)}}}
}
