package e2e

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/eventlog/kafkalog"
)

// manyMessages is how many messages two friends exchange, both ways together.
const manyMessages = 10_000

// exchange has two people send n messages each, all at once, while carol logs in and out; halfway calls between.
func exchange(t *testing.T, c *clustertest.Cluster, a, b *person, conversation string, n int, halfway func()) {
	t.Helper()
	errs := make(chan error, 2)
	var once sync.Once
	for _, p := range []*person{a, b} {
		go func() { errs <- sendMany(ctxFor(t), p, conversation, n, func() { once.Do(halfway) }) }()
	}
	stop, stopped := context.WithCancel(t.Context())
	guest := make(chan struct{})
	go func() {
		defer close(guest)
		comeAndGo(stop, t, c.Nodes[len(c.Nodes)-1].Addr)
	}()
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	stopped()
	<-guest
}

// window is how many of a person's messages may await their acknowledgement; the SDK's own bound is above it.
const window = 500

// sendMany sends texts numbered from 1 and waits until all are acknowledged.
func sendMany(ctx context.Context, p *person, conversation string, n int, half func()) error {
	pending := make([]*future.Pending, 0, n)
	acknowledged := func(i int) error {
		if _, err := pending[i].Wait(ctx); err != nil {
			return fmt.Errorf("%s's message %d: %w", p.name, i+1, err)
		}
		return nil
	}
	for i := range n {
		s, err := p.SendAsync(conversation, fmt.Sprintf("%s %d", p.name, i+1))
		if err != nil {
			return fmt.Errorf("%s sends %d: %w", p.name, i+1, err)
		}
		pending = append(pending, s)
		if i >= window {
			if err := acknowledged(i - window); err != nil {
				return err
			}
		}
		if i == n/2 {
			half()
		}
	}
	for i := max(0, n-window); i < n; i++ {
		if err := acknowledged(i); err != nil {
			return err
		}
	}
	return nil
}

// comeAndGo logs carol in and out until ctx ends.
func comeAndGo(ctx context.Context, t *testing.T, addr string) {
	for ctx.Err() == nil {
		client, err := future.Dial(ctx, []string{addr})
		if err == nil {
			if _, err = client.Login(ctx, "carol", password); err == nil {
				err = client.Logout(ctx)
			}
			if closing := client.Close(); closing != nil {
				t.Error(closing)
			}
		}
		if err != nil && ctx.Err() == nil {
			t.Errorf("carol comes and goes: %v", err)
			return
		}
	}
}

// trio is alice on node 1 and bob on node 2, friends, and carol registered on node 3.
func trio(t *testing.T, c *clustertest.Cluster) (alice, bob *person, conversation string) {
	t.Helper()
	alice, bob = newPerson(t, "alice", c.Nodes[0].Addr), newPerson(t, "bob", c.Nodes[1].Addr)
	carol := newPerson(t, "carol", c.Nodes[2].Addr)
	must(t, carol.Logout(ctxFor(t)))
	conversation = befriend(t, alice, bob)
	for _, p := range []*person{alice, bob} {
		p.awaitCount(conversation, 2) // asked, accepted
	}
	return alice, bob, conversation
}

// wantRows waits until the database has n messages of a conversation, each once.
func wantRows(t *testing.T, db *sql.DB, conversation string, n int) {
	t.Helper()
	rows := func() int { return count(t, db, "SELECT COUNT(*) FROM messages WHERE conversation = ?", conversation) }
	eventually(t, fmt.Sprintf("%d messages in the database", n), func() bool { return rows() >= n })
	if got := rows(); got != n {
		t.Errorf("the database has %d messages, want %d", got, n)
	}
}

// wantStored is wantRows for two friends, who begin with two notices; all else has a text of its own.
func wantStored(t *testing.T, c *clustertest.Cluster, conversation string, n int) {
	t.Helper()
	db := database(t, c)
	wantRows(t, db, conversation, n)
	// Readable with plain SQL (R32).
	expr := "JSON_VALUE(body, '$.text.text')"
	if !c.Real {
		expr = "json_extract(body, '$.text.text')"
	}
	if got := count(t, db, "SELECT COUNT(DISTINCT "+expr+") FROM messages WHERE conversation = ?", conversation); got != n-2 {
		t.Errorf("the database has %d texts, want %d", got, n-2)
	}
}

func TestR18_ThreeNodes_EveryMessageOnceInOrder(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1})
	alice, bob, conversation := trio(t, c)
	exchange(t, c, alice, bob, conversation, manyMessages/2, func() {})
	for _, p := range []*person{alice, bob} {
		p.awaitCount(conversation, manyMessages+2)
	}
	wantSame(t, conversation, alice, bob)
	wantStored(t, c, conversation, manyMessages+2)
}

func TestR36_RouterKilledMidway_EveryMessageOnceInOrder(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1})
	alice, bob, conversation := trio(t, c)
	victim := owner(t, c, conversation)
	exchange(t, c, alice, bob, conversation, manyMessages/2, func() {
		t.Logf("%s is killed", victim.Name)
		victim.Kill()
	})
	for _, p := range []*person{alice, bob} {
		p.awaitCount(conversation, manyMessages+2)
	}
	wantSame(t, conversation, alice, bob)
	wantStored(t, c, conversation, manyMessages+2)
}

// owner is the router that delivers a conversation's partition: the one that took it over last, by its log.
func owner(t *testing.T, c *clustertest.Cluster, conversation string) *clustertest.Process {
	t.Helper()
	line := fmt.Sprintf(`"msg":"delivering a partition","partition":%d,`, eventlog.PartitionOf(conversation, 16))
	var found *clustertest.Process
	var highest uint64
	for _, r := range c.Routers {
		log, err := r.Log()
		must(t, err)
		for text := range strings.Lines(log) {
			var said struct {
				Epoch uint64 `json:"router_epoch"`
			}
			if strings.Contains(text, line) && json.Unmarshal([]byte(text), &said) == nil && said.Epoch > highest {
				found, highest = r, said.Epoch
			}
		}
	}
	if found == nil {
		t.Fatal("no router delivers the conversation's partition")
	}
	return found
}

// Records that are in the log twice, as a produce retry without idempotence leaves them, are shown and stored once.
func TestR18_RecordsDoubledInTheLog_ShownOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1})
	alice, bob, conversation := trio(t, c)
	log, err := kafkalog.New(kafkalog.Options{Brokers: strings.Split(c.Kafka, ",")})
	must(t, err)
	defer func() { must(t, log.Close(ctxFor(t))) }()
	own := eventlog.Prefixed(log, c.Namespace)
	partition := eventlog.PartitionOf(conversation, 16)
	copies := make(chan int, 1)
	stop, stopped := context.WithCancel(t.Context())
	go func() { copies <- doubleRecords(stop, t, own, partition, conversation) }()

	const n = 2000
	exchange(t, c, alice, bob, conversation, n/2, func() {})
	for _, p := range []*person{alice, bob} {
		p.awaitCount(conversation, n+2)
	}
	stopped()
	doubled := <-copies
	t.Logf("%d records were doubled", doubled)
	if doubled < n/10 {
		t.Errorf("only %d records were doubled", doubled)
	}
	// A last message shows that all before it was handled.
	_, err = alice.Send(ctxFor(t), conversation, fmt.Sprintf("alice %d", n/2+1))
	must(t, err)
	for _, p := range []*person{alice, bob} {
		p.awaitCount(conversation, n+3)
	}
	wantSame(t, conversation, alice, bob)
	wantStored(t, c, conversation, n+3)
}

// doubleRecords appends a copy of every record of a conversation that it reads, each once, until ctx ends.
func doubleRecords(ctx context.Context, t *testing.T, log eventlog.Log, partition int32, conversation string) int {
	const topic = "chat.messages"
	r, err := log.Open(ctxFor(t), topic, partition, 0)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer func() { _ = r.Close() }()
	seen := map[string]bool{}
	for {
		records, err := r.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return len(seen)
		}
		for _, rec := range records {
			if string(rec.Key) != conversation || seen[string(rec.Value)] {
				continue
			}
			seen[string(rec.Value)] = true
			e := eventlog.Entry{Topic: topic, Partition: partition, Key: rec.Key, Value: rec.Value, Headers: rec.Headers}
			if err := log.Append(e, func(eventlog.Appended, error) {}); err != nil {
				t.Error(err)
			}
		}
	}
}
