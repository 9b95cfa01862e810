package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

const partitions = 8

// cell is a small cluster in one bubble of fake time: a log, a Redis, a database, and nodes that are inboxes.
type cell struct {
	t       *testing.T
	log     *eventlog.Memory
	redis   *presence.Memory
	sql     *chat.Memory
	members *cluster.Static

	mu        sync.Mutex
	sqlAway   bool
	redisAway bool
	nodes     map[string]*cellNode // by address
	sent      map[string][]uint64  // seqs by conversation
	links     uint64
}

type cellNode struct {
	inbox    *deliver.Inbox
	silent   bool
	got      map[string][]uint64 // by "user conversation"
	compares int
}

func newCell(t *testing.T) *cell {
	c := &cell{t: t, members: cluster.NewStatic(), nodes: map[string]*cellNode{}, sent: map[string][]uint64{}}
	c.log = eventlog.NewMemory(eventlog.MemoryOptions{})
	c.redis = presence.NewMemory(presence.MemoryOptions{Fault: func(presence.Op) error { return c.away(&c.redisAway, presence.ErrUnavailable) }})
	c.sql = chat.NewMemory(chat.MemoryOptions{Fault: func(chat.Op) error { return c.away(&c.sqlAway, errAway) }})
	t.Cleanup(func() { _ = c.log.Close(context.Background()) })
	ctx := t.Context()
	for _, topic := range []string{chat.TopicMessages, chat.TopicPush} {
		if err := c.log.CreateTopic(ctx, eventlog.TopicSpec{Name: topic, Partitions: partitions}); err != nil {
			t.Fatal(err)
		}
	}
	info, err := c.log.Topic(ctx, chat.TopicMessages)
	if err != nil {
		t.Fatal(err)
	}
	err = c.sql.SaveLogState(ctx, eventlog.State{Topic: chat.TopicMessages, ID: info.ID, Partitions: partitions, Epoch: logEpoch})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cell) away(what *bool, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *what {
		return err
	}
	return nil
}

func (c *cell) set(what *bool, to bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*what = to
}

// node starts a node with a session for each user. Its lease never runs out here.
func (c *cell) node(name string, users ...int64) *cellNode {
	n := &cellNode{inbox: deliver.NewInbox(), got: map[string][]uint64{}}
	c.mu.Lock()
	c.nodes[name+":1"] = n
	c.mu.Unlock()
	ctx := c.t.Context()
	if ok, err := c.redis.Acquire(ctx, presence.IncarnationLease(name), name, name+":1", 24*time.Hour); !ok || err != nil {
		c.t.Fatal(ok, err)
	}
	var entries []presence.Entry
	for _, u := range users {
		entries = append(entries, presence.Entry{User: u, Place: presence.Place{Incarnation: name, Connection: uint64(u)}})
	}
	if _, err := c.redis.Register(ctx, entries); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// pool is a router's links to the nodes.
type pool struct {
	c    *cell
	link uint64
}

func (c *cell) pool() *pool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.links++
	return &pool{c, c.links}
}

func (p *pool) Send(addr string, f peer.Forward, timeout time.Duration, done func(peer.Answer, error)) {
	p.c.mu.Lock()
	n := p.c.nodes[addr]
	if n == nil || n.silent {
		p.c.mu.Unlock()
		time.AfterFunc(timeout, func() { done(peer.Answer{}, peer.ErrTimeout) })
		return
	}
	r := n.inbox.Receive(p.link, f)
	if r.Compare {
		n.compares++
	}
	for _, m := range r.Messages {
		for _, to := range m.Recipients {
			key := fmt.Sprint(to.User, " ", f.Partition)
			n.got[key] = append(n.got[key], m.Seq)
		}
	}
	p.c.mu.Unlock()
	done(peer.Answer{Status: r.Status}, nil)
}

// send appends a message from 1 to user, and waits for the log.
func (c *cell) send(to int64, n int) {
	c.t.Helper()
	m := msg{Conversation: fmt.Sprintf("d:1:%d", to), Sender: 1, ID: int(to)*100_000 + n, Text: "hi"}
	rec := m.record(c.t)
	p := eventlog.PartitionOf(m.Conversation, partitions)
	done := make(chan error, 1)
	err := c.log.Append(eventlog.Entry{Topic: chat.TopicMessages, Partition: p, Key: rec.Key, Value: rec.Value, Headers: rec.Headers},
		func(a eventlog.Appended, err error) {
			if err == nil {
				c.mu.Lock()
				key := fmt.Sprint(to, " ", p)
				c.sent[key] = append(c.sent[key], eventlog.Seq(logEpoch, a.Offset))
				c.mu.Unlock()
			}
			done <- err
		})
	if err == nil {
		err = <-done
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// running is a router that runs.
type running struct {
	*deliver.Router
	c    *cell
	seat cluster.Membership
	kill context.CancelFunc
	over chan error
	reg  *prometheus.Registry
}

func (c *cell) router(id string, change func(o *deliver.Options)) *running {
	c.t.Helper()
	self := cluster.Member{ID: id, Roles: []cluster.Role{cluster.RoleRouter}, Peer: id + ":1"}
	r := &running{c: c, reg: prometheus.NewRegistry(), over: make(chan error, 1)}
	o := deliver.Options{
		Self: self, Membership: c.members.Join(self), Log: c.log, Store: c.sql, Presence: c.redis, Pool: c.pool(),
		Logger: zaptest.NewLogger(c.t), Registerer: r.reg, Rand: func() float64 { return 0.5 },
	}
	if change != nil {
		change(&o)
	}
	r.seat = o.Membership
	var err error
	if r.Router, err = deliver.New(o); err != nil {
		c.t.Fatal(err)
	}
	ctx, kill := context.WithCancel(context.Background())
	r.kill = kill
	go func() { r.over <- r.Run(ctx) }()
	c.t.Cleanup(kill)
	return r
}

func (r *running) stop() {
	r.c.t.Helper()
	if err := r.Stop(r.c.t.Context()); err != nil {
		r.c.t.Fatal(err)
	}
	if err := errors.Join(<-r.over, r.seat.Leave(r.c.t.Context())); err != nil {
		r.c.t.Fatal(err)
	}
}

// value reads a counter or gauge, summed over its labels.
func (r *running) value(name string) (sum float64) {
	r.c.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.c.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "future_router_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() // whichever it is
		}
	}
	return sum
}

// waitFor lets fake time go by until a condition holds.
func (c *cell) waitFor(within time.Duration, what string, holds func() bool) {
	c.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		if holds() {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("not within %v: %s", within, what)
		}
	}
}

func (c *cell) waitReady(rs ...*running) {
	c.t.Helper()
	for _, r := range rs {
		c.waitFor(5*time.Second, "ready", func() bool {
			select {
			case <-r.Ready():
				return true
			default:
				return false
			}
		})
	}
}

// arrived reports whether the nodes got all that was sent, each once and in order.
func (c *cell) arrived() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, want := range c.sent {
		var got []uint64
		for _, n := range c.nodes {
			got = append(got, n.got[key]...)
		}
		if len(got) > len(want) {
			c.t.Fatalf("%s got %d messages of %d", key, len(got), len(want))
		}
		if !slices.Equal(got, want) {
			return false
		}
	}
	return true
}

func bubble(t *testing.T, f func(t *testing.T, c *cell)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newCell(t)) })
}

func TestR36_Router_OneOfTwoKilled_AllArriveOnceInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		r1, r2 := c.router("r1", nil), c.router("r2", nil)
		c.waitReady(r1, r2)
		a, b := c.node("a", 2, 3, 4), c.node("b", 5, 6, 7)
		if o1, o2 := r1.value("partitions_owned"), r2.value("partitions_owned"); o1+o2 != partitions || o1 == 0 || o2 == 0 {
			t.Fatalf("r1 has %v partitions and r2 %v", o1, o2)
		}
		for n := range 50 {
			for to := int64(2); to <= 7; to++ {
				c.send(to, n)
			}
		}
		c.waitFor(time.Second, "all arrived", c.arrived)
		if a.compares+b.compares > 0 {
			t.Fatalf("%d compares in a steady cluster", a.compares+b.compares)
		}
		// Killed in the midst of it. Membership still shows it: its deputy takes over by the leases.
		r1.kill()
		if err := <-r1.over; !errors.Is(err, context.Canceled) {
			t.Fatalf("Run returned %v", err)
		}
		for n := range 50 {
			for to := int64(2); to <= 7; to++ {
				c.send(to, 100+n)
			}
		}
		c.waitFor(3*time.Second, "all arrived though a router was killed", c.arrived)
		if got := r2.value("partitions_owned"); got != partitions {
			t.Fatalf("r2 has %v partitions", got)
		}
		r2.stop()
		at, err := c.log.Committed(t.Context(), deliver.Group, chat.TopicMessages)
		if err != nil {
			t.Fatal(err)
		}
		for p := range int32(partitions) {
			if _, end, _ := c.log.Bounds(t.Context(), chat.TopicMessages, p); at[p] != end {
				t.Errorf("partition %d: committed %d of %d", p, at[p], end)
			}
		}
	})
}

func TestR34_Router_JoinsAndLeaves_PartitionsMove(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		c.node("a", 2, 3, 4, 5, 6, 7)
		r1 := c.router("r1", nil)
		c.waitReady(r1)
		n := 0
		all := func() {
			for to := int64(2); to <= 7; to++ {
				n++
				c.send(to, n)
			}
		}
		all()
		r2 := c.router("r2", nil)
		all()
		c.waitReady(r2)
		all()
		c.waitFor(time.Second, "all arrived after a join", c.arrived)
		if o1, o2 := r1.value("partitions_owned"), r2.value("partitions_owned"); o1+o2 != partitions || o2 == 0 {
			t.Fatalf("r1 has %v partitions and r2 %v", o1, o2)
		}
		if lost := r1.value("partitions_lost_total"); lost != 0 {
			t.Fatalf("%v partitions were lost, not handed over", lost)
		}
		r2.stop()
		all()
		c.waitFor(time.Second, "all arrived after a stop", c.arrived)
		r1.stop()
	})
}

func TestRouter_DatabaseAway_KeepsPartitions_TakeoverWaits(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		c.node("a", 2, 3, 4, 5, 6, 7)
		r1 := c.router("r1", nil)
		c.waitReady(r1)
		c.set(&c.sqlAway, true)
		time.Sleep(time.Minute)
		for to := int64(2); to <= 7; to++ {
			c.send(to, 1)
		}
		c.waitFor(time.Second, "all arrived without the database", c.arrived)
		// A takeover waits for it.
		r1.kill()
		<-r1.over //nolint:errcheck // its error is of no interest: it was killed
		c.members.Set()
		r2 := c.router("r2", nil)
		time.Sleep(10 * time.Second)
		c.send(2, 2)
		time.Sleep(time.Second)
		if c.arrived() || r2.value("partitions_owned") != 0 {
			t.Fatal("taken over without a router epoch")
		}
		c.set(&c.sqlAway, false)
		c.waitReady(r2)
		c.waitFor(time.Second, "all arrived", c.arrived)
		r2.stop()
	})
}

// cutOff is the database for a router that cannot reach it once it has started.
type cutOff struct{ *chat.Memory }

func (cutOff) NextRouterEpoch(context.Context, string, int32) (uint64, error) { return 0, errAway }

// A router that is alive but cannot take its partitions over leaves them to one that can.
func TestR34_Router_ThatCannotTakeOver_LeavesItToItsDeputy(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		c.node("a", 2, 3, 4, 5, 6, 7)
		r1 := c.router("r1", nil)
		c.waitReady(r1)
		r2 := c.router("r2", func(o *deliver.Options) { o.Store = cutOff{c.sql} })
		for n := range 3 {
			for to := int64(2); to <= 7; to++ {
				c.send(to, n+1)
			}
			c.waitFor(10*time.Second, "all arrived though their owner cannot deliver", c.arrived)
			time.Sleep(20 * time.Second)
		}
		// Once it can, nobody sits out.
		c.set(&c.sqlAway, true)
		r1.kill()
		<-r1.over //nolint:errcheck // its error is of no interest: it was killed
		r3 := c.router("r3", nil)
		time.Sleep(time.Minute)
		c.set(&c.sqlAway, false)
		c.waitReady(r3)
		r2.kill()
		r3.stop()
	})
}

func TestRouter_RedisAway_DeliveryHaltsAndResumes(t *testing.T) {
	for _, d := range []time.Duration{500 * time.Millisecond, time.Minute} {
		t.Run(d.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, c *cell) {
				c.node("a", 2, 3)
				r := c.router("r", nil)
				c.waitReady(r)
				c.set(&c.redisAway, true)
				c.send(2, 1)
				c.send(3, 1)
				time.Sleep(d)
				if c.arrived() {
					t.Fatal("delivered without Redis")
				}
				if owned := r.value("partitions_owned"); (owned == 0) != (d > 2*time.Second) {
					t.Fatalf("has %v partitions", owned)
				}
				c.set(&c.redisAway, false)
				c.waitFor(3*time.Second, "all arrived", c.arrived)
				r.stop()
			})
		})
	}
}

func TestRouter_LogCutShort_HaltsThatPartitionAlone(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		c.node("a", 2, 3, 4, 5, 6, 7)
		r1 := c.router("r1", nil)
		c.waitReady(r1)
		for to := int64(2); to <= 7; to++ {
			c.send(to, 1)
			c.send(to, 2)
		}
		c.waitFor(time.Second, "all arrived", c.arrived)
		r1.stop()
		cut := eventlog.PartitionOf("d:1:2", partitions)
		if err := c.log.TruncateTo(chat.TopicMessages, cut, 1); err != nil {
			t.Fatal(err)
		}
		r2 := c.router("r2", nil)
		c.waitFor(5*time.Second, "the others are delivered", func() bool { return r2.value("partitions_owned") == partitions-1 })
		time.Sleep(time.Minute)
		if got := r2.value("halted"); got != 1 {
			t.Fatalf("%v partitions are halted", got)
		}
		select {
		case <-r2.Ready():
			t.Fatal("ready, with a partition halted")
		default:
		}
		r2.stop()
	})
}

func TestRouter_SilentNode_OthersGoOn_AndItIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		c.node("a", 3)
		b := c.node("b", 2)
		r := c.router("r", nil)
		c.waitReady(r)
		c.send(2, 1)
		c.waitFor(time.Second, "arrived", c.arrived)
		if b.compares != partitions {
			t.Fatalf("%d compares after a takeover of %d partitions", b.compares, partitions)
		}
		c.set(&b.silent, true)
		c.send(2, 2)
		c.waitFor(time.Second, "suspect", func() bool { return r.value("suspect_nodes") == 1 })
		c.send(3, 1)
		time.Sleep(5 * time.Second)
		c.set(&b.silent, false)
		c.waitFor(4*time.Second, "b was told to compare", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return b.compares == partitions+1 })
		c.send(2, 3)
		c.waitFor(time.Second, "b gets messages again", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(b.got[fmt.Sprint(2, " ", eventlog.PartitionOf("d:1:2", partitions))]) == 2
		})
		// What b missed is on chat.push.
		push, err := c.log.Open(t.Context(), chat.TopicPush, eventlog.PartitionOf("d:1:2", partitions), 0)
		if err != nil {
			t.Fatal(err)
		}
		records, err := push.Next(t.Context())
		if err != nil || len(records) != 1 {
			t.Fatalf("%d push records, %v", len(records), err)
		}
		if p, err := deliver.ParsePush(records[0].Value); err != nil || !slices.Equal(p.Users, []deliver.UserID{2}) {
			t.Fatalf("push record is %+v, %v", p, err)
		}
		r.stop()
	})
}

// A router gives a node up from its very first frame of a partition on, and dies before the node answers. The node has never heard of
// it, so what the next one sends must tell that something is missing.
func TestRouter_GivesUpANodeAndDies_TheNodeIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		r1 := c.router("r1", nil)
		c.waitReady(r1)
		b := c.node("b", 2)
		c.set(&b.silent, true)
		c.send(2, 1)
		c.waitFor(5*time.Second, "given up and committed", func() bool {
			at, err := c.log.Committed(t.Context(), deliver.Group, chat.TopicMessages)
			return err == nil && at[eventlog.PartitionOf("d:1:2", partitions)] == 1
		})
		r1.kill()
		<-r1.over //nolint:errcheck // its error is of no interest: it was killed
		if _, err := c.sql.WriteBatch(t.Context(), chat.Batch{
			Topic: chat.TopicMessages, Partition: eventlog.PartitionOf("d:1:2", partitions), Next: 1,
		}); err != nil {
			t.Fatal(err)
		}
		c.set(&b.silent, false)
		r2 := c.router("r2", nil)
		c.waitFor(20*time.Second, "taken over", func() bool { return r2.value("partitions_owned") == partitions })
		young := c.node("young", 2)
		c.send(2, 2)
		c.waitFor(time.Second, "the next arrived", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			key := fmt.Sprint(2, " ", eventlog.PartitionOf("d:1:2", partitions))
			return len(b.got[key]) == 1 && len(young.got[key]) == 1
		})
		if b.compares != partitions || young.compares != 0 {
			t.Errorf("the node that missed something compared %d times, one that came after the takeover %d times", b.compares, young.compares)
		}
		r2.stop()
	})
}

func TestRouter_ResendBelowTheWindow_IsFoundInTheLog(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		c.node("a", 2)
		r1 := c.router("r1", nil)
		c.waitReady(r1)
		for n := range 5 {
			c.send(2, n)
		}
		c.waitFor(time.Second, "arrived", c.arrived)
		r1.stop()
		// History has it all by the time of the takeover; the resend was stamped before.
		p := eventlog.PartitionOf("d:1:2", partitions)
		if _, err := c.sql.WriteBatch(t.Context(), chat.Batch{Topic: chat.TopicMessages, Partition: p, Next: 5}); err != nil {
			t.Fatal(err)
		}
		r2 := c.router("r2", nil)
		c.waitReady(r2)
		again := msg{Conversation: "d:1:2", Sender: 1, ID: 200_003, Text: "hi", Resend: true, SearchFrom: 2}.record(t)
		done := make(chan error, 1)
		err := c.log.Append(eventlog.Entry{Topic: chat.TopicMessages, Partition: p, Key: again.Key, Value: again.Value, Headers: again.Headers},
			func(_ eventlog.Appended, err error) { done <- err })
		if err := errors.Join(err, <-done); err != nil {
			t.Fatal(err)
		}
		c.send(2, 9)
		c.waitFor(time.Second, "arrived", c.arrived)
		r2.stop()
		if d, f := r2.value("duplicates_total"), r2.value("refills_total"); d != 1 || f != 1 {
			t.Fatalf("%v duplicates, %v refills", d, f)
		}
	})
}

// tail gives the tail of the partition that messages to 2 go to. Where there is none it is begin from then on.
func (c *cell) tail(begin int64) int64 {
	c.t.Helper()
	epoch, err := c.redis.Epoch(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	name := presence.TailName(chat.TopicMessages, logEpoch, eventlog.PartitionOf("d:1:2", partitions))
	at, err := c.redis.Tail(c.t.Context(), presence.Tail{Partition: name, Epoch: epoch, Offset: begin})
	if err != nil {
		c.t.Fatal(err)
	}
	return at.Offset
}

func TestRouter_StartsAtTheLowestOfCommittedHistoryAndTail(t *testing.T) {
	const unknown = -1
	for _, at := range []struct{ committed, history, tail, want int64 }{
		{2, 4, unknown, 2}, {4, 2, unknown, 2}, {unknown, 3, unknown, 3}, {unknown, 0, unknown, 0},
		{4, 5, 2, 2}, {unknown, 3, 1, 1}, {2, 4, 3, 2},
	} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			bubble(t, func(t *testing.T, c *cell) {
				n := c.node("a", 2)
				for i := range 5 {
					c.send(2, i)
				}
				p := eventlog.PartitionOf("d:1:2", partitions)
				if at.history > 0 {
					if _, err := c.sql.WriteBatch(t.Context(), chat.Batch{Topic: chat.TopicMessages, Partition: p, Next: at.history}); err != nil {
						t.Fatal(err)
					}
				}
				if at.committed >= 0 {
					if err := c.log.Commit(t.Context(), deliver.Group, chat.TopicMessages, map[int32]int64{p: at.committed}); err != nil {
						t.Fatal(err)
					}
				}
				if at.tail >= 0 {
					c.tail(at.tail)
				}
				r := c.router("r", nil)
				c.waitReady(r)
				c.waitFor(time.Second, "all appended", func() bool {
					newest, err := c.redis.Newest(t.Context(), []string{"d:1:2"})
					return err == nil && newest["d:1:2"] == seq(4)
				})
				r.stop()
				if got := c.tail(0); got != 5 {
					t.Errorf("all was appended, and the tail is %d", got)
				}
				var want []uint64
				for o := at.want; o < 5; o++ {
					want = append(want, seq(o))
				}
				if got := n.got[fmt.Sprint(2, " ", p)]; !slices.Equal(got, want) {
					t.Fatalf("delivered %v, want %v", got, want)
				}
			})
		})
	}
}

// An owner that dies before its first commit has said where its appends began: the next does not begin above that, wherever history is, and
// whatever a former owner's late commit says.
func TestRouter_KilledBeforeItsFirstCommit_NoHoleInTheRecents(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		n := c.node("a", 2)
		c.send(2, 0)
		c.send(2, 1)
		r1 := c.router("r1", nil)
		c.waitFor(5*time.Second, "arrived", c.arrived)
		r1.kill() // synctest's time stands still: nothing is committed yet
		<-r1.over //nolint:errcheck // its error is of no interest: it was killed
		c.send(2, 2)
		c.send(2, 3)
		p := eventlog.PartitionOf("d:1:2", partitions)
		if _, err := c.sql.WriteBatch(t.Context(), chat.Batch{Topic: chat.TopicMessages, Partition: p, Next: 4}); err != nil {
			t.Fatal(err)
		}
		if err := c.log.Commit(t.Context(), deliver.Group, chat.TopicMessages, map[int32]int64{p: 4}); err != nil {
			t.Fatal(err)
		}
		c.send(2, 4)
		r2 := c.router("r2", nil)
		c.waitFor(20*time.Second, "the newest arrived", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			got := n.got[fmt.Sprint(2, " ", p)]
			return len(got) > 0 && got[len(got)-1] == seq(4)
		})
		page, err := c.redis.Page(t.Context(), "d:1:2", 0, 0, 10, true)
		if err != nil || len(page.Messages) != 5 || page.ContiguousFrom != seq(0) {
			t.Fatalf("the recents claim to have all from %d on, and have %d messages: %v", page.ContiguousFrom, len(page.Messages), err)
		}
		r2.stop()
	})
}

// All that Redis had is lost, and a router that was not there then takes over. Who logs in meanwhile reads heads without what was delivered,
// and does not get it when it is done again: so at the end of that the node is told once more.
func TestRouter_NewAfterALoss_NodesCompareWhenAllIsDoneAgain(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		c.node("a", 2)
		for i := range 3 {
			c.send(2, i)
		}
		r1 := c.router("r1", nil)
		c.waitFor(5*time.Second, "arrived", c.arrived)
		r1.kill()
		<-r1.over //nolint:errcheck // its error is of no interest: it was killed
		c.redis.Wipe()
		a := c.node("a", 2) // its entries are written again
		r2 := c.router("r2", nil)
		c.waitFor(20*time.Second, "done again, and told", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(a.got[fmt.Sprint(2, " ", eventlog.PartitionOf("d:1:2", partitions))]) == 3 && a.compares == partitions+1
		})
		r2.stop()
	})
}

// Killed before its first commit, with the database ahead by then: what was not delivered must not be taken for delivered.
func TestRouter_KilledBeforeItsFirstCommit_AllArrive(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		c.node("a", 2)
		r1 := c.router("r1", nil)
		c.waitReady(r1)
		r1.kill()
		<-r1.over //nolint:errcheck // its error is of no interest: it was killed
		const n = 5
		for i := range n {
			c.send(2, i)
		}
		p := eventlog.PartitionOf("d:1:2", partitions)
		if _, err := c.sql.WriteBatch(t.Context(), chat.Batch{Topic: chat.TopicMessages, Partition: p, Next: n}); err != nil {
			t.Fatal(err)
		}
		r2 := c.router("r2", nil)
		c.waitFor(20*time.Second, "all arrived", c.arrived)
		r2.stop()
	})
}

// The second message is done while the commit of the first is under way, and nothing comes after it.
func TestRouter_NothingMoreComes_TheLastOffsetIsCommitted(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		r := c.router("a", nil)
		c.waitReady(r)
		c.send(2, 1)
		time.Sleep(1240 * time.Millisecond) // fake time: commits are asked for at 0 and 1 s, and wait 250 ms for others
		c.send(2, 2)
		time.Sleep(5 * time.Millisecond)
		c.send(2, 3)
		c.waitFor(5*time.Second, "the commit of all", func() bool {
			committed, err := c.log.Committed(t.Context(), deliver.Group, chat.TopicMessages)
			sum := int64(0)
			for _, at := range committed {
				sum += at
			}
			return err == nil && sum == 3
		})
	})
}

func TestRouter_LeaseTaken_StopsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		c.node("a", 2)
		r := c.router("r", nil)
		c.waitReady(r)
		lease := presence.PartitionLease(chat.TopicMessages, 3)
		if err := c.redis.Release(t.Context(), lease, "r"); err != nil {
			t.Fatal(err)
		}
		if ok, err := c.redis.Acquire(t.Context(), lease, "thief", "", time.Minute); !ok || err != nil {
			t.Fatal(ok, err)
		}
		c.waitFor(600*time.Millisecond, "it stops", func() bool { return r.value("partitions_owned") == partitions-1 })
		r.stop()
	})
}

func TestRouter_StopIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, c *cell) {
		b := c.node("b", 2)
		r := c.router("r", func(o *deliver.Options) { o.Wait = time.Hour })
		c.waitReady(r)
		c.set(&b.silent, true)
		c.send(2, 1)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Stop returned %v", err)
		}
		<-r.over                    //nolint:errcheck // its error is of no interest: it was killed
		time.Sleep(5 * time.Second) // the pool's timers
	})
}

func TestNew_RefusesWhatIsMissing(t *testing.T) {
	if _, err := deliver.New(deliver.Options{}); err == nil {
		t.Fatal("no error")
	}
}
