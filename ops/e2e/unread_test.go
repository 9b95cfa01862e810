package e2e

import (
	"fmt"
	"testing"

	"github.com/futurechat/future/ops/clustertest"
)

// R19, R21: what was read stays read, on every device and after return; one's own messages never count.
func TestR19_UnreadCounts(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 1, Histories: 1})
	alice, bob := newPerson(t, "alice", c.Nodes[0].Addr), newPerson(t, "bob", c.Nodes[1].Addr)
	conversation := befriend(t, alice, bob)
	unread := func(p *person) int {
		t.Helper()
		all, err := p.Conversations(ctxFor(t))
		must(t, err)
		for _, conv := range all {
			if conv.ID == conversation {
				return conv.Unread
			}
		}
		return 0
	}
	for i := range 3 {
		_, err := alice.Send(ctxFor(t), conversation, fmt.Sprint(i))
		must(t, err)
	}
	got := bob.awaitCount(conversation, 5)
	// At once: it may come before history has the message, and then waits for it.
	must(t, bob.MarkRead(ctxFor(t), conversation, got[2].Seq))
	eventually(t, "bob has two unread", func() bool { return unread(bob) == 2 })
	must(t, bob.MarkRead(ctxFor(t), conversation, got[0].Seq))
	if n := unread(bob); n != 2 {
		t.Errorf("marking backwards left %d unread", n)
	}
	eventually(t, "alice has one unread, that bob accepted", func() bool { return unread(alice) == 1 })

	second := dialWith(t, "bob", directly, c.Nodes[0].Addr)
	_, err := second.Login(ctxFor(t), "bob", password)
	must(t, err)
	if n := unread(second); n != 2 {
		t.Errorf("bob's other device has %d unread", n)
	}
	_, err = second.Send(ctxFor(t), conversation, "mine")
	must(t, err)
	bob.awaitCount(conversation, 6)
	must(t, second.MarkRead(ctxFor(t), conversation, got[4].Seq))
	eventually(t, "bob has nothing unread", func() bool { return unread(bob) == 0 })
	eventually(t, "alice has bob's message unread too", func() bool { return unread(alice) == 2 })
}
