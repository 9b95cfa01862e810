package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
)

// flood sends texts as fast as they are acknowledged until it is refused, and gives those that were acknowledged, by id.
type flood struct {
	mu      sync.Mutex
	acked   map[string]string // text by message id
	refused error
	ended   chan struct{}
}

// startFlood calls begun once some have been acknowledged.
func startFlood(ctx context.Context, p *person, conversation string, begun func()) *flood {
	f := &flood{acked: map[string]string{}, ended: make(chan struct{})}
	type sent struct {
		*future.Pending
		text string
	}
	pending := make(chan sent, 100)
	go func() {
		defer close(pending)
		for n := 1; ctx.Err() == nil && f.err() == nil; n++ {
			text := fmt.Sprintf("%s %d", p.name, n)
			s, err := p.SendAsync(conversation, text)
			if err != nil {
				f.end(err)
				return
			}
			pending <- sent{s, text}
		}
	}()
	go func() {
		defer close(f.ended)
		for s := range pending {
			if _, err := s.Wait(ctx); err != nil {
				f.end(err)
				continue
			}
			f.mu.Lock()
			f.acked[s.ID] = s.text
			n := len(f.acked)
			f.mu.Unlock()
			if n == 200 {
				begun()
			}
		}
	}()
	return f
}

func (f *flood) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused
}

func (f *flood) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused == nil {
		f.refused = err
	}
}

// wantExact checks a removal: each acknowledged message is in the database and was shown to both, once and in order, and nothing was
// shown or stored behind the notice of the end. It returns acked_then_dropped.
func wantExact(t *testing.T, c *clustertest.Cluster, conversation string, acked map[string]string, people ...*person) {
	t.Helper()
	db := database(t, c)
	expr := "JSON_VALUE(body, '$.text.text')"
	if !c.Real {
		expr = "json_extract(body, '$.text.text')"
	}
	for _, p := range people {
		got := p.await(conversation, "the end of the friendship", func(all []future.Message) bool {
			return len(all) > 0 && all[len(all)-1].Friend != nil && all[len(all)-1].Friend.Change == future.FriendRemoved
		})
		shown := map[string]bool{}
		for _, m := range got {
			shown[m.ID] = true
		}
		dropped := 0
		for id := range acked {
			if !shown[id] {
				dropped++
			}
		}
		t.Logf("%s was shown %d messages; acknowledged %d, acked_then_dropped %d", p.name, len(got), len(acked), dropped)
		if dropped != 0 {
			t.Errorf("%d acknowledged messages were not shown to %s", dropped, p.name)
		}
	}
	wantSame(t, conversation, people...)
	shown := len(people[0].messages(conversation))
	eventually(t, "all in the database", func() bool {
		return count(t, db, "SELECT COUNT(*) FROM messages WHERE conversation = ?", conversation) == shown
	})
	stored := map[string]bool{}
	rows, err := db.QueryContext(t.Context(), "SELECT "+expr+" FROM messages WHERE conversation = ? AND "+expr+" IS NOT NULL", conversation)
	must(t, err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var text string
		must(t, rows.Scan(&text))
		stored[text] = true
	}
	must(t, rows.Err())
	for _, text := range acked {
		if !stored[text] {
			t.Errorf("acknowledged, and not in the database: %q", text)
		}
	}
}

// wantRefusedEverywhere checks that no node takes a message between two people.
func wantRefusedEverywhere(t *testing.T, nodes []*clustertest.Process, conversation string, names ...string) {
	t.Helper()
	for _, n := range nodes {
		for _, name := range names {
			other := dialWith(t, name, directly, n.Addr)
			if _, err := other.Login(ctxFor(t), name, password); err != nil {
				t.Fatal(err)
			}
			if _, err := other.Send(ctxFor(t), conversation, "still?"); !errors.Is(err, future.ErrNotFriends) {
				t.Errorf("%s at %s: %v", name, n.Name, err)
			}
		}
	}
}

func TestR4_RemovedWhileTheOtherFloods_ExactAtBothSides(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1})
	alice, bob, conversation := trio(t, c)
	begun := make(chan struct{})
	f := startFlood(ctxFor(t), bob, conversation, func() { close(begun) })
	<-begun
	began := time.Now()
	must(t, alice.RemoveFriend(ctxFor(t), "bob"))
	t.Logf("removed within %v", time.Since(began))
	wantRefusedEverywhere(t, c.Nodes, conversation, "alice", "bob")
	<-f.ended
	if err := f.err(); !errors.Is(err, future.ErrNotFriends) {
		t.Fatalf("bob is told %v", err)
	}
	wantExact(t, c, conversation, f.acked, alice, bob)
	for _, p := range []*person{alice, bob} {
		if friends, err := p.Friends(ctxFor(t)); err != nil || len(friends) != 0 {
			t.Errorf("%s has friends %v, %v", p.name, friends, err)
		}
	}
	if err := alice.RemoveFriend(ctxFor(t), "bob"); !errors.Is(err, future.ErrNotFound) {
		t.Errorf("once more: %v", err)
	}
	// Friends anew: nothing of the end holds them back.
	before := len(alice.messages(conversation))
	befriend(t, bob, alice)
	_, err := bob.Send(ctxFor(t), conversation, "again")
	must(t, err)
	for _, p := range []*person{alice, bob} {
		if got := p.awaitCount(conversation, before+3); got[before+2].Text != "again" {
			t.Errorf("%s was shown %s", p.name, texts(got))
		}
	}
	// By now the cluster knows that its presence store is whole: nobody has to be waited for.
	began = time.Now()
	must(t, bob.RemoveFriend(ctxFor(t), "alice"))
	t.Logf("removed within %v", time.Since(began))
	if time.Since(began) > 5*time.Second {
		t.Error("somebody was waited for")
	}
}

// A node that is stopped has taken messages and not answered them. It is waited out; what it does after that is not acknowledged.
func TestR4_ANodeStoppedDuringARemoval_IsWaitedOut(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1})
	alice, bob, conversation := trio(t, c)
	begun := make(chan struct{})
	f := startFlood(ctxFor(t), bob, conversation, func() { close(begun) })
	<-begun
	must(t, c.Nodes[1].Signal(syscall.SIGSTOP)) // bob's
	began := time.Now()
	err := alice.RemoveFriend(ctxFor(t), "bob")
	t.Logf("removed within %v: %v", time.Since(began), err)
	must(t, err)
	if time.Since(began) < 5*time.Second {
		t.Error("nobody was waited for")
	}
	wantRefusedEverywhere(t, []*clustertest.Process{c.Nodes[0], c.Nodes[2]}, conversation, "alice")
	must(t, c.Nodes[1].Signal(syscall.SIGCONT))
	<-f.ended
	if err := f.err(); !errors.Is(err, future.ErrNotFriends) {
		t.Fatalf("bob is told %v", err)
	}
	wantExact(t, c, conversation, f.acked, alice, bob)
	wantRefusedEverywhere(t, c.Nodes, conversation, "bob")
}

// The node that decided a removal dies before the removal is in the log. The sweeper of another goes on where it stood: exactly too.
func TestR4_TheRemovingNodeKilled_TheSweeperFinishes(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"outbox/before-produce", "outbox/after-fence"} {
		t.Run(strings.TrimPrefix(at, "outbox/"), func(t *testing.T) {
			c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1})
			_, bob, conversation := trio(t, c)
			doomed, err := c.Add(t.Context(), "node", "FUTURE_TEST_KILL_AT="+at)
			must(t, err)
			alice := dialWith(t, "alice", func(ctx context.Context, network, _ string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, doomed.Addr)
				if err != nil {
					conn, err = (&net.Dialer{}).DialContext(ctx, network, c.Nodes[0].Addr)
				}
				return conn, err
			}, doomed.Addr)
			_, err = alice.Login(ctxFor(t), "alice", password)
			must(t, err)
			begun := make(chan struct{})
			f := startFlood(ctxFor(t), bob, conversation, func() { close(begun) })
			<-begun
			if err := alice.RemoveFriend(ctxFor(t), "bob"); !errors.Is(err, future.ErrDisconnected) {
				t.Fatalf("the request that kills its node: %v", err)
			}
			<-doomed.Done()
			doomed.Kill() // so that its end counts as meant
			<-f.ended
			if err := f.err(); !errors.Is(err, future.ErrNotFriends) {
				t.Fatalf("bob is told %v", err)
			}
			// Who asks again joins what is under way, or is told that it was done.
			if err := alice.RemoveFriend(ctxFor(t), "bob"); err != nil && !errors.Is(err, future.ErrNotFound) {
				t.Errorf("asked again: %v", err)
			}
			wantExact(t, c, conversation, f.acked, bob)
			wantRefusedEverywhere(t, c.Nodes[:3], conversation, "bob")
		})
	}
}
