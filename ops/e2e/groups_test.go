package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/clientsdk/wire"
	"github.com/futurechat/future/consumers/mysqlstore"
	"github.com/futurechat/future/ops/clustertest"
	"github.com/futurechat/future/router/chat"
)

// club is a group and its members, each on one device. What nobody can ask a node for yet is done in the database, as a node would
// do it; the nodes' outbox brings it to the log.
type club struct {
	t       *testing.T
	c       *clustertest.Cluster
	store   *mysqlstore.Store
	service *chat.Service

	conversation string
	id           int64
	accounts     []chat.Account
	members      []*person
}

func openStore(t *testing.T, c *clustertest.Cluster) *mysqlstore.Store {
	t.Helper()
	s, err := c.OpenStore(t.Context())
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// newClub makes n people, spread over the nodes, and a group of them that belongs to the first.
func newClub(t *testing.T, c *clustertest.Cluster, n int) *club {
	t.Helper()
	store := openStore(t, c)
	k := &club{t: t, c: c, store: store, service: chat.New(chat.Options{Store: store})}
	var wait sync.WaitGroup
	k.accounts, k.members = make([]chat.Account, n), make([]*person, n)
	for i := range n {
		k.accounts[i], k.members[i] = k.newMember(fmt.Sprintf("member%d", i), i)
	}
	for _, m := range k.members {
		wait.Go(func() {
			if _, err := m.Friends(ctxFor(t)); err != nil { // its session is there
				t.Errorf("%s: %v", m.name, err)
			}
		})
	}
	wait.Wait()
	g, _, err := k.service.CreateGroup(ctxFor(t), k.accounts[0], "the club", k.accounts[1:])
	must(t, err)
	k.id, k.conversation = g.ID, wire.Group(g.ID)
	for _, m := range k.members {
		m.awaitCount(k.conversation, 1) // the notice
	}
	return k
}

// newMember makes an account with a session, without the cost of a password, and connects it to a node, or to another if that goes.
func (k *club) newMember(name string, node int) (chat.Account, *person) {
	t := k.t
	t.Helper()
	a, err := k.store.CreateAccount(ctxFor(t), chat.Account{Name: name, PasswordHash: "none"})
	must(t, err)
	seat, err := clustertest.NewSeat(ctxFor(t), k.store, a)
	must(t, err)
	all := k.c.Addrs()
	addrs := append(slices.Clone(all[node%len(all):]), all[:node%len(all)]...)
	client, err := future.Dial(ctxFor(t), addrs, future.WithBackoff(20*time.Millisecond, time.Second), future.WithToken(seat.Token), future.WithDevice(seat.Device, "test"))
	must(t, err)
	p := &person{t: t, name: name, Client: client, more: make(chan struct{}, 1), done: make(chan struct{})}
	go p.watch()
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		<-p.done
	})
	return a, p
}

// say has some members send n messages each, all at once, and waits until all are acknowledged. first is the number of each's first.
func (k *club) say(senders []*person, first, n int, halfway func()) {
	k.t.Helper()
	errs := make(chan error, len(senders))
	var once sync.Once
	for _, p := range senders {
		go func() { errs <- sayAll(ctxFor(k.t), p, k.conversation, first, n, func() { once.Do(halfway) }) }()
	}
	for range senders {
		if err := <-errs; err != nil {
			k.t.Error(err)
		}
	}
}

func sayAll(ctx context.Context, p *person, conversation string, first, n int, half func()) error {
	for i := range n {
		if i == n/2 {
			half()
		}
		if _, err := p.Send(ctx, conversation, fmt.Sprintf("%s %d", p.name, first+i)); err != nil {
			return fmt.Errorf("%s sends %d: %w", p.name, first+i, err)
		}
	}
	return nil
}

// same waits until all these have n messages, and holds that they are the same.
func (k *club) same(n int, members []*person) {
	k.t.Helper()
	for _, m := range members {
		m.awaitCount(k.conversation, n)
	}
	wantSame(k.t, k.conversation, members...)
}

func TestR16_Group_EveryMessageOnceInOrder_WhateverGoes(t *testing.T) {
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1})
	k := newClub(t, c, 300)
	senders := []*person{k.members[1], k.members[2], k.members[3], k.members[100], k.members[200]}
	const n = 20
	all := 1

	k.say(senders, 1, n, func() {})
	all += n * len(senders)
	k.same(all, k.members)
	k.mostlyLive()

	t.Log("a member is taken out meanwhile")
	gone := k.members[150]
	k.say(senders, n+1, n, func() {
		_, err := k.service.RemoveMember(ctxFor(t), k.accounts[0], k.id, k.accounts[150])
		must(t, err)
	})
	all += n*len(senders) + 1
	rest := slices.Delete(slices.Clone(k.members), 150, 151)
	k.same(all, rest)
	k.onlyUpTo(gone)
	k.say(senders, 2*n+1, n, func() {})
	all += n * len(senders)
	k.same(all, rest)
	k.onlyUpTo(gone)

	t.Log("somebody joins, and reads from there on")
	account, late := k.newMember("late", 1)
	_, err := late.Friends(ctxFor(t))
	must(t, err)
	_, err = k.service.AddMembers(ctxFor(t), k.accounts[0], k.id, []chat.Account{account})
	must(t, err)
	all++
	late.awaitCount(k.conversation, 1)
	k.same(all, rest)

	t.Log("a node is killed")
	k.say(senders, 3*n+1, n, c.Nodes[2].Kill)
	all += n * len(senders)
	k.same(all, rest)

	t.Log("Redis is emptied")
	k.say(senders, 4*n+1, n, func() { emptyRedis(t, c) })
	all += n * len(senders)
	k.same(all, rest)

	late.awaitCount(k.conversation, 1+2*n*len(senders))
	full := rest[0].messages(k.conversation)
	for i, m := range late.messages(k.conversation) {
		if want := full[len(full)-1-2*n*len(senders)+i]; want.ID != m.ID {
			t.Fatalf("message %d of who came late is %q, want %q", i, m.Text, want.Text)
		}
	}
	k.onlyUpTo(gone)
	wantRows(t, database(t, c), k.conversation, all)
}

// onlyUpTo holds that somebody who was taken out has what came up to that, and nothing else, live or by asking; and may not write.
func (k *club) onlyUpTo(gone *person) {
	k.t.Helper()
	full := k.members[0].messages(k.conversation)
	last := slices.IndexFunc(full[1:], func(m future.Message) bool { return m.Text == "" }) + 1 // the second notice
	got := gone.awaitCount(k.conversation, last+1)
	if len(got) != last+1 || got[last].ID != full[last].ID {
		k.t.Errorf("who was taken out has %d messages, want %d: %s", len(got), last+1, texts(got))
	}
	var read []future.Message
	for m, err := range gone.History(ctxFor(k.t), k.conversation, future.HistoryOptions{}) {
		must(k.t, err)
		read = append(read, m)
	}
	if newest := slices.IndexFunc(read, func(m future.Message) bool { return m.ID == full[last].ID }); len(read) != last+1 || newest < 0 {
		k.t.Errorf("who was taken out reads %d messages, want %d", len(read), last+1)
	}
	if _, err := gone.Send(ctxFor(k.t), k.conversation, "let me in"); !errors.Is(err, future.ErrNotFound) {
		k.t.Errorf("who was taken out writes: %v", err)
	}
}

// mostlyLive holds that messages came as deliveries, and were not fetched, but for a few of the first.
func (k *club) mostlyLive() {
	k.t.Helper()
	fetched, all := 0, 0
	for _, p := range k.members {
		for _, m := range p.messages(k.conversation) {
			all++
			if m.Missed {
				fetched++
			}
		}
	}
	k.t.Logf("%d of %d messages were fetched", fetched, all)
	if fetched > all/10 {
		k.t.Errorf("%d of %d messages were not delivered but fetched", fetched, all)
	}
}

func emptyRedis(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	keys, err := c.EmptyRedis(ctxFor(t))
	must(t, err)
	t.Logf("Redis had %d keys", keys)
}
