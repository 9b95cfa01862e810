//go:build realservers

package e2e

import (
	"context"
	"testing"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
	"github.com/futurechat/future/ops/e2e/traffic"
)

// These cut a host off, which needs root: without it startCluster fails and says so. No test here may be skipped.

// addOn starts a process on a host of its own.
func addOn(t *testing.T, c *clustertest.Cluster, role string, env ...string) (*clustertest.Host, *clustertest.Process) {
	t.Helper()
	host, err := c.AddHost(ctxFor(t))
	must(t, err)
	p, err := c.AddOn(ctxFor(t), host, role, env...)
	must(t, err)
	return host, p
}

// cut cuts a host off, and gives what heals it; then it must have dropped something.
func cut(t *testing.T, host *clustertest.Host) (heal func()) {
	t.Helper()
	must(t, host.Cut(ctxFor(t), clustertest.Both))
	healed := false
	heal = func() {
		if healed {
			return
		}
		healed = true
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		dropped, err := host.Dropped(ctx)
		must(t, err)
		if t.Logf("%d packets dropped", dropped); dropped == 0 {
			t.Error("no packet was dropped: the fault did not hit")
		}
		must(t, host.Heal(ctx))
	}
	t.Cleanup(heal) // the process on it is to end in order
	return heal
}

func TestR34_RouterCutOff_PartitionsMove_AndItComesBackHarmless(t *testing.T) {
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 1, Histories: 1, Hosts: true})
	tr := flow(t, c)
	var host *clustertest.Host
	var victim *clustertest.Process
	for { // until it has a partition that messages flow through
		host, victim = addOn(t, c, "router")
		owners, err := traffic.Owners(c)
		must(t, err)
		if owners[tr.Streams[0].Partition] == victim {
			break
		}
		must(t, victim.Stop(ctxFor(t)))
		c.Routers = c.Routers[:len(c.Routers)-1]
	}
	must(t, tr.AwaitFlow(ctxFor(t)))
	var heal func()
	stalled(t, c, tr, 5*time.Second, func(*clustertest.Process) { heal = cut(t, host) })
	heal()
	for range 3 { // it is given the time to do harm
		must(t, tr.AwaitFlow(ctxFor(t)))
	}
}

func TestR34_NodeCutOff_OthersWaitOnce(t *testing.T) {
	c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 2, Histories: 1, Hosts: true})
	host, node := addOn(t, c, "node")
	tr := flow(t, c)
	device, err := future.Dial(ctxFor(t), []string{node.Addr}, future.WithInsecurePasswords(), future.WithHandlers(future.Handlers{}))
	must(t, err)
	t.Cleanup(func() { must(t, device.Close()) })
	_, err = device.Login(ctxFor(t), tr.Name, tr.Password)
	must(t, err)
	must(t, tr.AwaitFlow(ctxFor(t)))
	const suspected = "future_router_nodes_suspected_total"
	before, began := metricOf(t, c.Routers, suspected), time.Now()
	heal := cut(t, host)
	eventually(t, "the node to be suspected", func() bool { return metricOf(t, c.Routers, suspected) > before })
	must(t, tr.AwaitFlow(ctxFor(t)))
	for _, s := range tr.Streams {
		if took := s.Stall(began); took > leaseFor/2 {
			t.Errorf("partition %d stood still for %v: it waited for the node's lease", s.Partition, took)
		}
	}
	heal()
}

// The friend is hidden when the lease of his node has run out, and shown again when the host is back and his client has found its node
// again.
func TestR05_HostGone_FriendIsHidden_AndShownWhenItIsBack(t *testing.T) {
	const silence = 4 * time.Second
	c := startCluster(t, clustertest.Options{
		Nodes: 1, Routers: 1, Histories: 1, Hosts: true, Env: []string{"FUTURE_PING=2s", "FUTURE_SILENCE=4s"},
	})
	host, node := addOn(t, c, "node")
	alice := newPerson(t, "alice", c.Nodes[0].Addr)
	bob, err := future.Dial(ctxFor(t), []string{node.Addr}, future.WithInsecurePasswords(), future.WithHandlers(future.Handlers{}))
	must(t, err)
	t.Cleanup(func() { must(t, bob.Close()) })
	_, err = bob.Register(ctxFor(t), "bob", password)
	must(t, err)
	must(t, alice.AddFriend(ctxFor(t), "bob", "hello"))
	must(t, bob.AnswerFriend(ctxFor(t), "alice", true))
	awaitOnline(t, alice, true)

	heal := cut(t, host)
	wantWithin(t, "shown after its host was gone", awaitOnline(t, alice, false), leaseFor)
	heal()
	wantWithin(t, "not shown after its host was back", awaitOnline(t, alice, true), silence+2*time.Second)
}
