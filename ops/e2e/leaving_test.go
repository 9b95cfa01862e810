package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
)

// noticed is what a person was told of the connection, besides Online.
func (p *person) noticed() (all []future.StateChange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.states {
		if s.State != future.Online && s.State != future.LoggedOut { // LoggedOut comes before the first log-in
			all = append(all, s)
		}
	}
	return all
}

// wantUnnoticed checks that people were told of nothing but messages.
func wantUnnoticed(t *testing.T, people ...*person) {
	t.Helper()
	for _, p := range people {
		if told := p.noticed(); len(told) > 0 {
			t.Errorf("%s was told %+v", p.name, told)
		}
		p.mu.Lock()
		if len(p.failed) > 0 {
			t.Errorf("of %s's messages failed: %+v", p.name, p.failed)
		}
		p.mu.Unlock()
	}
}

// chatter has two friends send each other messages, and ask for their friends, until it is told to stop; then all must be there.
type chatter struct {
	t            *testing.T
	a, b         *person
	conversation string
	stop         context.CancelFunc
	wait         sync.WaitGroup
	sent         [2]int
}

func startChatter(t *testing.T, c *clustertest.Cluster, addrs ...string) *chatter {
	t.Helper()
	ch := &chatter{t: t, a: newPerson(t, "alice", addrs...), b: newPerson(t, "bob", addrs...)}
	ch.conversation = befriend(t, ch.a, ch.b)
	ctx, stop := context.WithCancel(t.Context())
	ch.stop = stop
	for i, p := range []*person{ch.a, ch.b} {
		ch.wait.Go(func() {
			for n := 1; ctx.Err() == nil; n++ {
				if _, err := p.Send(ctxFor(t), ch.conversation, fmt.Sprintf("%s %d", p.name, n)); err != nil {
					t.Errorf("%s sends %d: %v", p.name, n, err)
					return
				}
				ch.sent[i] = n
			}
		})
		ch.wait.Go(func() {
			for ctx.Err() == nil {
				if _, err := p.Friends(ctxFor(t)); err != nil {
					t.Errorf("%s asks for friends: %v", p.name, err)
					return
				}
			}
		})
	}
	return ch
}

// end stops the chatter and checks that both were shown the same, each message once and in order, and that all of it is stored.
func (ch *chatter) end(c *clustertest.Cluster) {
	ch.t.Helper()
	ch.stop()
	ch.wait.Wait()
	n := ch.sent[0] + ch.sent[1]
	if n == 0 {
		ch.t.Error("nothing was sent")
	}
	for _, p := range []*person{ch.a, ch.b} {
		p.awaitCount(ch.conversation, n+2)
	}
	wantSame(ch.t, ch.conversation, ch.a, ch.b)
	wantStored(ch.t, c, ch.conversation, n+2)
	ch.t.Logf("%d messages", n)
}

// progress waits until both have sent some more.
func (ch *chatter) progress(more int) {
	ch.t.Helper()
	for _, p := range []*person{ch.a, ch.b} {
		p.awaitCount(ch.conversation, len(p.messages(ch.conversation))+more)
	}
}

// R35: every process is restarted in turn while friends chat, and they notice nothing.
func TestR35_RollingRestart_NobodyNotices(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 2, Histories: 2})
	ch := startChatter(t, c, c.Addrs()...)
	restart := func(p *clustertest.Process) {
		ch.progress(20)
		began := time.Now()
		must(t, p.Stop(ctxFor(t)))
		ended := time.Now()
		again, err := c.Restart(ctxFor(t), p)
		must(t, err)
		t.Logf("%s restarted: it ended after %v, the new one was ready %v later", again.Name, ended.Sub(began).Round(time.Millisecond), time.Since(ended).Round(time.Millisecond))
	}
	for i := range c.Nodes {
		restart(c.Nodes[i])
	}
	for i := range c.Routers {
		restart(c.Routers[i])
	}
	for i := range c.Histories {
		restart(c.Histories[i])
	}
	ch.progress(20)
	ch.end(c)
	wantUnnoticed(t, ch.a, ch.b)
}

// admin runs a chatd admin command and returns what it printed, and its exit code.
func admin(t *testing.T, c *clustertest.Cluster, args ...string) (string, int) {
	t.Helper()
	cmd := c.Command(ctxFor(t), "admin", args...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func wantIn(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(out, p) {
			t.Errorf("not told of %q:\n%s", p, out)
		}
	}
}

func TestR35_AdminDrain_ANodeGoesAndNobodyNotices(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 1, Histories: 1})
	ch := startChatter(t, c, c.Nodes[0].Addr)
	ch.progress(20)
	node, at := c.Nodes[0], c.Routers[0].Peer

	out, code := admin(t, c, "members", "-at", at)
	wantIn(t, out, node.Name, node.Peer, node.Addr, c.Routers[0].Name, c.Histories[0].Name, "serving")
	if code != 0 {
		t.Errorf("members: exit code %d", code)
	}
	out, code = admin(t, c, "drain", "nobody", "-at", at)
	wantIn(t, out, "no process has the name, id or peer address nobody", node.Name)
	if code == 0 {
		t.Error("drain of nobody: exit code 0")
	}
	out, code = admin(t, c, "drain", node.Name, "-at", at)
	wantIn(t, out, "clients left", node.Name+" is gone")
	if code != 0 {
		t.Errorf("drain: exit code %d\n%s", code, out)
	}
	must(t, node.Ended(ctxFor(t)))
	ch.progress(20)
	ch.end(c)
	wantUnnoticed(t, ch.a, ch.b)
	for _, p := range []*person{ch.a, ch.b} {
		if s := p.Stats(); s.Addr != c.Nodes[1].Addr && s.Addr != c.Nodes[2].Addr {
			t.Errorf("%s is at %s", p.name, s.Addr)
		}
	}
	out, _ = admin(t, c, "members", "-at", at)
	if strings.Contains(out, node.Name) {
		t.Errorf("it is still listed:\n%s", out)
	}
}

// fleet is many clients that are each connected to some node.
type fleet struct {
	t     *testing.T
	mu    sync.Mutex
	since map[*future.Client]online
	told  int // how often one of them was told Offline
}

type online struct {
	addr string
	at   time.Time
}

// startFleet connects n clients, all to the first node.
func startFleet(t *testing.T, c *clustertest.Cluster, n int) *fleet {
	t.Helper()
	seats, err := c.SeedSessions(ctxFor(t), "fleet", n)
	must(t, err)
	f := &fleet{t: t, since: map[*future.Client]online{}}
	places, addrs := make(chan struct{}, 64), c.Addrs()
	var dialled sync.WaitGroup
	began := time.Now()
	for i, s := range seats {
		places <- struct{}{}
		dialled.Go(func() {
			defer func() { <-places }()
			f.dial(s, addrs, firstFirst(uint64(i), len(addrs)))
		})
	}
	dialled.Wait()
	t.Logf("%d clients are there after %v", n, time.Since(began).Round(time.Millisecond))
	return f
}

// firstFirst is chance by which a client tries the first of its addresses first.
func firstFirst(number uint64, addrs int) *rand.Rand {
	for seed := number << 20; ; seed++ {
		if rand.New(rand.NewPCG(seed, seed)).IntN(addrs) == 0 {
			return rand.New(rand.NewPCG(seed, seed))
		}
	}
}

func (f *fleet) dial(s clustertest.Seat, addrs []string, chance *rand.Rand) {
	c, err := future.Dial(ctxFor(f.t), addrs, future.WithToken(s.Token), future.WithDevice(s.Device, ""), future.WithRand(chance))
	if err != nil {
		f.t.Errorf("one of the fleet: %v", err)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range c.Events() {
			if s, ok := e.(future.StateChange); ok {
				f.mu.Lock()
				if delete(f.since, c); s.State == future.Online {
					f.since[c] = online{s.Addr, time.Now()}
				}
				if s.State == future.Offline {
					f.told++
				}
				f.mu.Unlock()
			}
		}
	}()
	f.t.Cleanup(func() {
		_ = c.Close() // it keeps nothing
		<-done
	})
}

// at are the clients that are online at an address.
func (f *fleet) at(addr string) (all []*future.Client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c, o := range f.since {
		if o.addr == addr {
			all = append(all, c)
		}
	}
	return all
}

// back waits until clients are online, at another address than the one they were at, and prints how long that took since an event.
func (f *fleet) back(clients []*future.Client, from string, since time.Time) {
	f.t.Helper()
	var took []time.Duration
	eventually(f.t, fmt.Sprintf("%d clients to be back", len(clients)), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		took = took[:0]
		for _, c := range clients {
			if o, ok := f.since[c]; ok && o.addr != from {
				took = append(took, o.at.Sub(since))
			}
		}
		return len(took) == len(clients)
	})
	slices.Sort(took)
	at := func(q float64) time.Duration {
		return took[min(int(q*float64(len(took))), len(took)-1)].Round(time.Millisecond)
	}
	f.t.Logf("%d clients are back elsewhere: half after %v, 90 %% after %v, 99 %% after %v, all after %v", len(took), at(0.5), at(0.9), at(0.99), at(1))
}

// sessions is how many the fleet has: FUTURE_TEST_SESSIONS, for who wants to see figures, or some hundred.
func sessions(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("FUTURE_TEST_SESSIONS"))
	if err != nil {
		return 450
	}
	return n
}

func TestR34_NodeKilled_ItsClientsAreBackElsewhere(t *testing.T) {
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 1, Histories: 1})
	f := startFleet(t, c, sessions(t))
	ch := startChatter(t, c, c.Addrs()...)
	ch.progress(20)
	victim := c.Nodes[0]
	eventually(t, "clients at the node to be killed", func() bool { return len(f.at(victim.Addr)) == sessions(t) })
	there := f.at(victim.Addr)
	began := time.Now()
	victim.Kill()
	f.back(there, victim.Addr, began)
	ch.progress(20)
	ch.end(c)
}

func TestR35_NodeStopped_ItsClientsAreSentElsewhere(t *testing.T) {
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 1, Histories: 1})
	f := startFleet(t, c, sessions(t))
	ch := startChatter(t, c, c.Addrs()...)
	ch.progress(20)
	victim := c.Nodes[0]
	eventually(t, "clients at the node to be stopped", func() bool { return len(f.at(victim.Addr)) == sessions(t) })
	there := f.at(victim.Addr)
	began := time.Now()
	must(t, victim.Stop(ctxFor(t)))
	t.Logf("it ended after %v", time.Since(began).Round(time.Millisecond))
	f.back(there, victim.Addr, began)
	f.mu.Lock()
	told := f.told
	f.mu.Unlock()
	if told > 0 {
		t.Errorf("of the fleet %d were told that they are offline", told)
	}
	ch.progress(20)
	ch.end(c)
	wantUnnoticed(t, ch.a, ch.b)
}

// A second process of a name, or at an address, that a living one has does not start, and says why.
func TestR34_NameOrAddressTaken_TheNewcomerRefuses(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 1, Routers: 1})
	node := c.Nodes[0]
	for what, args := range map[string][]string{
		"the name " + node.Name:         {"-name", node.Name},
		"the peer address " + node.Peer: {"-name", "other", "-peer-advertise", node.Peer},
		node.Name + " (id ":             {"-name", "other", "-peer-addr", node.Peer},
	} {
		out, err := c.Command(ctxFor(t), "node", append(args, "-seeds", c.Routers[0].Gossip)...).CombinedOutput()
		if err == nil {
			t.Errorf("%v: it started", args)
		}
		wantIn(t, string(out), what)
	}
	p := newPerson(t, "alice", node.Addr)
	if _, err := p.Friends(ctxFor(t)); err != nil {
		t.Errorf("the one that was there: %v", err)
	}
}

func TestR34_RestartAfterACrash_WithTheSameNameAndAddresses_AtOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 1, Histories: 1})
	ch := startChatter(t, c, c.Nodes[0].Addr)
	ch.progress(20)
	c.Nodes[0].Kill()
	began := time.Now()
	_, err := c.Restart(ctxFor(t), c.Nodes[0])
	must(t, err)
	t.Logf("ready after %v", time.Since(began).Round(time.Millisecond))
	ch.progress(20)
	ch.end(c)
}

// A process that was paused for long finds its place taken when it goes on, and ends.
func TestR34_PausedProcess_IsDisplacedAndEnds(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 1})
	old := c.Nodes[0]
	must(t, old.Signal(syscall.SIGSTOP))
	cmd := c.Command(context.WithoutCancel(t.Context()), "node", "-name", old.Name, "-seeds", c.Routers[0].Gossip)
	young, err := c.Run(ctxFor(t), "node", "young", cmd)
	must(t, err)
	must(t, old.Signal(syscall.SIGCONT))
	if err := old.Ended(ctxFor(t)); err == nil {
		t.Error("the displaced one says that it ended well")
	}
	log, err := old.Log()
	must(t, err)
	wantIn(t, log, "this process has been displaced")
	p := newPerson(t, "alice", young.Addr)
	if _, err := p.Friends(ctxFor(t)); err != nil {
		t.Errorf("at the one that took its place: %v", err)
	}
}

// Hosts whose clocks are hours off, either way, do their work like others: what is compared with the time of another host is measured
// there, by a lease's TTL in Redis or by the log's clock.
func TestClocksHoursOff_ChatGoesOnInOrder(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 1, Routers: 1, Histories: 1})
	for role, off := range map[string]string{"node": "5h", "router": "-7h", "history": "3h"} {
		_, err := c.Add(ctxFor(t), role, "FUTURE_TEST_CLOCK_OFFSET="+off)
		must(t, err)
	}
	right, wrong := c.Nodes[0], c.Nodes[1]
	p := newPerson(t, "carol", wrong.Addr)
	if _, err := p.Friends(ctxFor(t)); err != nil {
		t.Error(err)
	}
	ch := startChatter(t, c, right.Addr, wrong.Addr)
	ch.progress(20)
	// The wrong ones take over, and are left again.
	c.Routers[0].Kill()
	c.Histories[0].Kill()
	must(t, right.Stop(ctxFor(t)))
	ch.progress(20)
	_, err := c.Add(ctxFor(t), "node")
	must(t, err)
	must(t, wrong.Stop(ctxFor(t)))
	ch.progress(20)
	ch.end(c)
	wantUnnoticed(t, ch.a, ch.b)
	for i, m := range ch.a.messages(ch.conversation) {
		if off := time.Since(m.Time); off < -time.Minute || off > time.Hour {
			t.Fatalf("message %d is dated %v", i, m.Time)
		}
	}
}
