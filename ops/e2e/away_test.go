package e2e

import (
	"fmt"
	"testing"

	"github.com/futurechat/future/ops/clustertest"
)

// I8: with Redis away messages are acknowledged all the same, somebody can log in, and when it is back everything arrives, once and in
// order: also to who logged in meanwhile.
func TestI8_RedisAway_SendsAreAcknowledgedAndArriveLater(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 2, Histories: 1, RelayRedis: true})
	alice, bob := newPerson(t, "alice", c.Nodes[0].Addr), newPerson(t, "bob", c.Nodes[1].Addr)
	conversation := befriend(t, alice, bob)
	bob.awaitCount(conversation, 2)

	c.RedisRelay.Cut()
	const n = 200
	for i := range n {
		if _, err := alice.Send(ctxFor(t), conversation, fmt.Sprintf("alice %d", i+1)); err != nil {
			t.Fatalf("message %d with Redis away: %v", i+1, err)
		}
	}
	phone := dialWith(t, "bob", directly, c.Nodes[0].Addr)
	s, err := phone.Login(ctxFor(t), "bob", password)
	must(t, err)
	if !s.Degraded {
		t.Error("the session that began with Redis away is not called degraded")
	}
	c.RedisRelay.Heal()

	for _, p := range []*person{alice, bob} {
		p.awaitCount(conversation, n+2)
	}
	_, err = alice.Send(ctxFor(t), conversation, fmt.Sprintf("alice %d", n+1))
	must(t, err)
	for _, p := range []*person{alice, bob} {
		p.awaitCount(conversation, n+3)
	}
	wantSame(t, conversation, alice, bob)
	phone.awaitCount(conversation, 1) // what comes after the log-in at least
	wantStored(t, c, conversation, n+3)
}
