//go:build realservers

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/futurechat/future/ops/clustertest"
)

// servers asks the tool that runs the real servers to do something to one of them.
func servers(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../testservers/servers", args...)
	cmd.Env = os.Environ()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// I8, I2: with the database away, and away for good until it is started again, friends chat on; with Redis killed and emptied, and
// with a broker that stands still, messages are acknowledged or wait, and all arrive once and in order.
func TestI8_RealServersAwayAndBack_EverythingArrivesOnce(t *testing.T) {
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 2, Histories: 1})
	alice, bob := newPerson(t, "alice", c.Nodes[0].Addr), newPerson(t, "bob", c.Nodes[1].Addr)
	conversation := befriend(t, alice, bob)
	n := 0
	say := func(k int) {
		for range k {
			n++
			if _, err := alice.Send(ctxFor(t), conversation, fmt.Sprintf("alice %d", n)); err != nil {
				t.Fatalf("message %d: %v", n, err)
			}
		}
	}
	say(10)
	bob.awaitCount(conversation, n+2)
	servers(t, "pause", "mariadb")
	say(50)
	bob.awaitCount(conversation, n+2)
	servers(t, "resume", "mariadb")
	servers(t, "kill", "mariadb")
	say(50)
	bob.awaitCount(conversation, n+2)
	servers(t, "restart", "mariadb")
	servers(t, "kill", "redis")
	say(20)
	servers(t, "restart", "redis")
	bob.awaitCount(conversation, n+2)
	done := make(chan error, 1)
	servers(t, "pause", "kafka-1")
	go func() {
		p, err := alice.SendAsync(conversation, fmt.Sprintf("alice %d", n+1))
		if err == nil {
			_, err = p.Wait(ctxFor(t))
		}
		done <- err
	}()
	servers(t, "resume", "kafka-1")
	if err := <-done; err != nil {
		t.Error(err)
	}
	n++
	say(10)
	for _, p := range []*person{alice, bob} {
		p.awaitCount(conversation, n+2)
	}
	wantSame(t, conversation, alice, bob)
	wantStored(t, c, conversation, n+2)
}
