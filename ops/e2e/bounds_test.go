package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"syscall"
	"testing"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
	"github.com/futurechat/future/ops/e2e/traffic"
)

// The bounds that README states are what the product's times add up to, plus what a machine that does nothing else takes; the
// command ops/e2e/measure prints what it really takes. Here the machine may do much else: so a test allows slack, and fails when
// something took of another order of magnitude, or did not come at all.
const slack = 10 * time.Second

// flow begins traffic of eight streams from node 1 to node 2.
func flow(t *testing.T, c *clustertest.Cluster) *traffic.Traffic {
	t.Helper()
	tr, err := traffic.Start(ctxFor(t), traffic.Options{
		Writer: c.Nodes[0].Addr, Friends: []string{c.Nodes[1].Addr}, Streams: 8, Every: 50 * time.Millisecond, Partitions: 16,
	})
	must(t, err)
	t.Cleanup(func() { // every message once and in order, whatever was done
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := tr.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	must(t, tr.AwaitFlow(ctxFor(t)))
	return tr
}

// stalled does a fault to a router that owns some of the streams' partitions, waits until all flows that was due some time
// after it, and checks how long those partitions stood still.
func stalled(t *testing.T, c *clustertest.Cluster, tr *traffic.Traffic, bound time.Duration, fault func(victim *clustertest.Process)) {
	t.Helper()
	before, err := traffic.Owners(c)
	must(t, err)
	victim := before[tr.Streams[0].Partition]
	began := time.Now()
	fault(victim)
	for time.Since(began) < bound { // longer than that nothing may be on its way
		must(t, tr.AwaitFlow(ctxFor(t)))
		now, err := traffic.Owners(c)
		must(t, err)
		if now[tr.Streams[0].Partition] != victim {
			break
		}
	}
	must(t, tr.AwaitFlow(ctxFor(t)))
	now, err := traffic.Owners(c)
	must(t, err)
	for _, s := range tr.Streams {
		if before[s.Partition] != victim {
			continue
		}
		if now[s.Partition] == victim {
			t.Errorf("partition %d is still the victim's", s.Partition)
		}
		took := s.Stall(began)
		t.Logf("partition %d stood still for %v", s.Partition, took)
		if took > bound+slack {
			t.Errorf("partition %d stood still for %v, want at most %v and %v for a busy machine", s.Partition, took, bound, slack)
		}
	}
}

func TestR34_RouterKilledStoppedAdded_PartitionsMove(t *testing.T) {
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 2, Histories: 1})
	tr := flow(t, c)
	t.Log("killed")
	stalled(t, c, tr, 4*time.Second, func(victim *clustertest.Process) { victim.Kill() })
	_, err := c.Add(ctxFor(t), "router")
	must(t, err)
	must(t, tr.AwaitFlow(ctxFor(t)))
	t.Log("stopped")
	stalled(t, c, tr, 500*time.Millisecond, func(victim *clustertest.Process) { must(t, victim.Stop(ctxFor(t))) })

	t.Log("added, until some partitions have moved to one that is new")
	moved := map[int32]bool{}
	began := time.Now()
	for len(moved) == 0 {
		before, err := traffic.Owners(c)
		must(t, err)
		began = time.Now()
		_, err = c.Add(ctxFor(t), "router")
		must(t, err)
		now, err := traffic.Owners(c)
		must(t, err)
		for p, owner := range now {
			if owner != before[p] {
				moved[p] = true
			}
		}
	}
	must(t, tr.AwaitFlow(ctxFor(t)))
	for _, s := range tr.Streams {
		if took := s.Stall(began); moved[s.Partition] && took > 500*time.Millisecond+slack {
			t.Errorf("partition %d stood still for %v when a router was added", s.Partition, took)
		}
	}
}

// A router that was paused comes back believing what it believed. It must find out that its partitions are another's, and what it
// still sends must be refused: nothing is shown twice or out of order.
func TestR34_RouterPaused_PartitionsMove_AndItComesBackHarmless(t *testing.T) {
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 2, Histories: 1})
	tr := flow(t, c)
	var stale *clustertest.Process
	stalled(t, c, tr, 5*time.Second, func(victim *clustertest.Process) {
		stale = victim
		must(t, victim.Signal(syscall.SIGSTOP))
	})
	must(t, stale.Signal(syscall.SIGCONT))
	eventually(t, "the router that was paused to lose its partitions", func() bool {
		log, err := stale.Log()
		must(t, err)
		return strings.Contains(log, `"msg":"lost a partition"`)
	})
	for range 3 { // it is given the time to do harm
		must(t, tr.AwaitFlow(ctxFor(t)))
	}
}

// A node that stands still is waited for once by each partition, and then left out: long before its lease runs out.
func TestR34_NodePaused_OthersWaitOnce(t *testing.T) {
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1})
	tr := flow(t, c)
	device, err := future.Dial(ctxFor(t), []string{c.Nodes[2].Addr}, future.WithHandlers(future.Handlers{}))
	must(t, err)
	defer func() { must(t, device.Close()) }()
	_, err = device.Login(ctxFor(t), tr.Name, tr.Password)
	must(t, err)
	must(t, tr.AwaitFlow(ctxFor(t)))
	suspected := metricOf(t, c.Routers, "future_router_nodes_suspected_total")

	began := time.Now()
	must(t, c.Nodes[2].Signal(syscall.SIGSTOP))
	defer func() { must(t, c.Nodes[2].Signal(syscall.SIGCONT)) }()
	eventually(t, "the node to be suspected", func() bool { return metricOf(t, c.Routers, "future_router_nodes_suspected_total") > suspected })
	must(t, tr.AwaitFlow(ctxFor(t)))
	const lease = 10 * time.Second
	for _, s := range tr.Streams {
		took := s.Stall(began)
		t.Logf("partition %d stood still for %v", s.Partition, took)
		if took > lease/2 {
			t.Errorf("partition %d stood still for %v: it waited for the node's lease", s.Partition, took)
		}
	}
}

// metricOf adds up a metric of some processes, over all its labels.
func metricOf(t *testing.T, of []*clustertest.Process, name string) (sum float64) {
	t.Helper()
	for _, p := range of {
		text, err := p.Metrics(ctxFor(t))
		must(t, err)
		for line := range strings.Lines(text) {
			series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if plain, _, _ := strings.Cut(series, "{"); plain != name {
				continue
			}
			var v float64
			if _, err := fmt.Sscan(value, &v); err != nil {
				t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

// ---- presence

// pair is two friends; bob is at a node of his own, to which the faults are done.
// alice asks for him at another.
func pair(t *testing.T, c *clustertest.Cluster, node *clustertest.Process) (alice *person) {
	t.Helper()
	alice, bob := newPerson(t, "alice", c.Nodes[0].Addr), newPerson(t, "bob", node.Addr)
	befriend(t, alice, bob)
	awaitOnline(t, alice, true)
	return alice
}

// awaitOnline waits until alice's one friend is shown online, or is not, and tells how long it took.
func awaitOnline(t *testing.T, alice *person, online bool) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, fmt.Sprintf("the friend to be shown online: %v", online), func() bool {
		friends, err := alice.Friends(ctxFor(t))
		must(t, err)
		return len(friends) == 1 && friends[0].Online == online
	})
	return time.Since(began)
}

// leaseFor is for how long a node that is gone still counts: the TTL of its lease.
const leaseFor = 10 * time.Second

func wantWithin(t *testing.T, what string, took, bound time.Duration) {
	t.Helper()
	t.Logf("%s: %v", what, took)
	if took > bound+slack {
		t.Errorf("%s: %v, want at most %v and %v for a busy machine", what, took, bound, slack)
	}
}

func TestR05_NodeKilled_FriendIsNotShownForLong(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 1, Histories: 1})
	alice := pair(t, c, c.Nodes[1])
	c.Nodes[1].Kill()
	wantWithin(t, "shown after SIGKILL", awaitOnline(t, alice, false), leaseFor)
}

func TestR05_NodePausedAndBack_FriendIsHiddenAndShownAgain(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 1, Histories: 1})
	alice := pair(t, c, c.Nodes[1])
	must(t, c.Nodes[1].Signal(syscall.SIGSTOP))
	wantWithin(t, "shown after SIGSTOP", awaitOnline(t, alice, false), leaseFor)
	must(t, c.Nodes[1].Signal(syscall.SIGCONT))
	wantWithin(t, "not shown after SIGCONT", awaitOnline(t, alice, true), 2*time.Second)
}

// ---- Redis

// I2: Redis is emptied, and away for longer than all leases and empty after it. Sessions, friends, requests, messages and unread
// counts are the same before and after, and everybody is shown online again.
func TestI2_RedisEmptiedAndAway_NothingIsDifferent(t *testing.T) {
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 2, Histories: 1, RelayRedis: true})
	alice, bob := newPerson(t, "alice", c.Nodes[0].Addr), newPerson(t, "bob", c.Nodes[1].Addr)
	carol := newPerson(t, "carol", c.Nodes[1].Addr)
	conversation := befriend(t, alice, bob)
	must(t, carol.AddFriend(ctxFor(t), "bob", "let me in"))
	for i := range 40 { // more than the recents keep
		_, err := alice.Send(ctxFor(t), conversation, fmt.Sprintf("alice %d", i+1))
		must(t, err)
	}
	wantStored(t, c, conversation, 42)
	clients := map[string]*future.Client{"alice": alice.Client, "bob": bob.Client, "carol": carol.Client}
	before, err := traffic.State(ctxFor(t), c, clients)
	must(t, err)

	for name, lose := range map[string]func(){
		"emptied": func() {},
		"away": func() {
			lost := func(n *clustertest.Process) int {
				log, err := n.Log()
				must(t, err)
				return strings.Count(log, "presence lease lost")
			}
			before := map[*clustertest.Process]int{}
			for _, n := range c.Nodes {
				before[n] = lost(n)
			}
			c.RedisRelay.Cut()
			for _, n := range c.Nodes { // the leases have run out, and the nodes know
				eventually(t, n.Name+" to lose its lease", func() bool { return lost(n) > before[n] })
			}
		},
	} {
		lose()
		emptyRedis(t, c)
		began := time.Now()
		c.RedisRelay.Heal()
		r, err := traffic.DialRedis(ctxFor(t), c.RedisRelay.To())
		must(t, err)
		eventually(t, "everybody to be registered again", func() bool {
			n, err := r.Places(c.Namespace)
			must(t, err)
			return n == 3
		})
		r.Close()
		wantWithin(t, name+": all registered again", time.Since(began), 4*time.Second)
		eventually(t, "all to be as before", func() bool {
			after, err := traffic.State(ctxFor(t), c, clients)
			must(t, err)
			return maps.Equal(before, after)
		})
	}
}
