package redispresence

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/futurechat/future/router/presence"
)

// trips counts round trips: what waits for an answer once.
type trips struct{ n atomic.Int64 }

func (c *trips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

func (c *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmds)
	}
}

func (c *trips) want(t *testing.T, n int64, what string) {
	t.Helper()
	if got := c.n.Swap(0); got != n {
		t.Errorf("%s took %d round trips, want %d", what, got, n)
	}
}

// What a router and a node do for a batch and a log-in takes so many round trips, whatever is in it.
func TestRoundTrips_PerBatchAndLogin(t *testing.T) {
	m := miniredis.RunT(t)
	s := open(t, Options{Addrs: []string{m.Addr()}})
	count := &trips{}
	ctx := t.Context()
	for _, node := range []string{"a", "b", "c"} {
		if ok, err := s.Acquire(ctx, presence.IncarnationLease(node), node, node+":1", time.Hour); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	const users = 2 * appendAtOnce
	var entries []presence.Entry
	var messages []presence.Recent
	var who []int64
	for u := range int64(users) {
		node := string("abc"[u%3])
		entries = append(entries, presence.Entry{User: u, Place: presence.Place{Incarnation: node, Connection: uint64(u)}})
		who = append(who, u)
	}
	for i := range appendAtOnce {
		a, b := int64(2*i), int64(2*i+1)
		messages = append(messages, presence.Recent{Conversation: fmt.Sprintf("d:%d:%d", a, b), Seq: uint64(i + 1), Users: []int64{a, b}, Message: []byte("m")})
	}
	if _, err := s.Register(ctx, entries); err != nil {
		t.Fatal(err)
	}
	epoch, err := s.Epoch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	batch := func() {
		t.Helper()
		if _, _, err := s.Append(ctx, messages, 0, epoch); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Locate(ctx, who); err != nil {
			t.Fatal(err)
		}
	}
	batch() // brings the scripts, and learns which nodes there are
	s.client.AddHook(count)
	batch()
	count.want(t, 2, fmt.Sprintf("a batch of %d messages to %d users on 3 nodes", appendAtOnce, users))

	// A log-in looks for other connections of its device, and is registered. (Its heads are read by a request of its own, Sync.)
	if _, err := s.Locate(ctx, []int64{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Register(ctx, []presence.Entry{{User: 1, Place: presence.Place{Incarnation: "a", Connection: 1000}}}); err != nil {
		t.Fatal(err)
	}
	count.want(t, 2, "a log-in")

	names := make([]string, 64)
	for p := range names {
		names[p] = presence.PartitionLease("t", int32(p))
	}
	if _, err := s.AcquireEach(ctx, names, "r", "", time.Hour); err != nil {
		t.Fatal(err)
	}
	count.n.Store(0) // with the script
	if _, err := s.RenewEach(ctx, names, "r", time.Hour); err != nil {
		t.Fatal(err)
	}
	count.n.Store(0)
	for range 2 {
		if _, err := s.RenewEach(ctx, names, "r", time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Owners(ctx, names); err != nil {
			t.Fatal(err)
		}
		count.want(t, 2, "renewing and looking at 64 partitions' leases")
	}
}
