package peer

import (
	"errors"
	"testing"
	"time"
)

type fenceResult struct {
	Fenced
	err error
}

func TestFence_IsAnsweredWhenItIsDone_AndHoldsUpNothing(t *testing.T) {
	node := newFakeNode()
	server := startServer(t, serverOptions(node))
	pool := startPool(t, poolOptions())
	results := make(chan fenceResult, 2)
	ask := func(version uint64) {
		pool.Fence(server.Addr(), Fence{Conversation: "d:1:2", Version: version}, wait, func(f Fenced, err error) { results <- fenceResult{f, err} })
	}
	ask(3)
	ask(5)
	node.waitFor(t, "two fences", func() bool { return len(node.fences) == 2 })
	// What comes behind on the link is handled meanwhile.
	answers := make(chan error, 1)
	pool.Send(server.Addr(), Forward{Incarnation: "life", Number: 1}, wait, func(_ Answer, err error) { answers <- err })
	if err := <-answers; err != nil {
		t.Fatal(err)
	}
	if got := node.fences[0].Fence; got != (Fence{Conversation: "d:1:2", Version: 3}) {
		t.Errorf("asked %+v", got)
	}
	node.fences[1].done("life")
	if got := <-results; got.err != nil || got.Incarnation != "life" || got.Self != "server" {
		t.Errorf("answered %+v", got)
	}
	node.fences[0].done("")
	if got := <-results; got.err != nil || got.Incarnation != "" {
		t.Errorf("answered %+v", got)
	}
}

func TestFence_SilentOrGone(t *testing.T) {
	node := newFakeNode()
	server := startServer(t, serverOptions(node))
	pool := startPool(t, poolOptions())
	results := make(chan fenceResult, 1)
	pool.Fence(server.Addr(), Fence{Conversation: "d:1:2", Version: 3}, 50*time.Millisecond, func(f Fenced, err error) { results <- fenceResult{f, err} })
	if got := <-results; !errors.Is(got.err, ErrTimeout) {
		t.Errorf("silent: %+v", got)
	}
	pool.Fence("127.0.0.1:1", Fence{}, wait, func(f Fenced, err error) { results <- fenceResult{f, err} })
	if got := <-results; !errors.Is(got.err, ErrLost) {
		t.Errorf("gone: %+v", got)
	}
}
