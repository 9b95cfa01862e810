package e2e

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/eventlog/kafkalog"
)

// The process that decided a change dies before the change's notice is in the log, or before it is known to be. Another brings it
// there: everybody sees it once.
func TestOutbox_KilledBetweenCommitAndProduce_NoticeComesOnce(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"outbox/before-produce", "outbox/before-delete"} {
		t.Run(strings.TrimPrefix(at, "outbox/"), func(t *testing.T) {
			c := startCluster(t, clustertest.Options{Nodes: 2, Routers: 1, Histories: 1})
			doomed, err := c.Add(t.Context(), "node", "FUTURE_TEST_KILL_AT="+at)
			must(t, err)
			// She comes to the doomed node as long as it lives, and to another after that.
			alice := dialWith(t, "alice", func(ctx context.Context, network, _ string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, doomed.Addr)
				if err != nil {
					conn, err = (&net.Dialer{}).DialContext(ctx, network, c.Nodes[0].Addr)
				}
				return conn, err
			}, doomed.Addr)
			alice.register()
			bob := newPerson(t, "bob", c.Nodes[1].Addr)

			err = alice.AddFriend(ctxFor(t), "bob", "100% sure, it's \"me\"\n+ you")
			if err == nil || !errors.Is(err, future.ErrDisconnected) {
				t.Fatalf("the request that kills its node: %v", err)
			}
			<-doomed.Done()
			doomed.Kill() // so that its end counts as meant

			conversation := "d:" + alice.session.User.ID + ":" + bob.session.User.ID
			for _, p := range []*person{alice, bob} {
				got := p.awaitCount(conversation, 1)
				if n := got[0].Friend; n == nil || n.Change != future.FriendRequested || n.Greeting != "100% sure, it's \"me\"\n+ you" {
					t.Errorf("%s was shown %+v", p.name, got[0])
				}
			}
			// What comes after shows that nothing is still on its way.
			must(t, bob.AnswerFriend(ctxFor(t), "alice", true))
			for _, p := range []*person{alice, bob} {
				if got := p.awaitCount(conversation, 2); got[1].Friend == nil || got[1].Friend.Change != future.FriendAccepted {
					t.Errorf("%s was shown %+v after the request", p.name, got[1])
				}
			}
			wantSame(t, conversation, alice, bob)
			copies := map[string]int{}
			for _, m := range rawMessages(t, c, conversation) {
				copies[m.Message.GetPayload().GetFriend().GetChange().String()]++
			}
			t.Logf("in the log: %v", copies)
			if n := copies["CHANGE_REQUESTED"]; n < 1 || at == "outbox/before-produce" && n != 1 {
				t.Errorf("the request is in the log %d times", n)
			}
			db := database(t, c)
			eventually(t, "both notices in the database, and an empty outbox", func() bool {
				return count(t, db, "SELECT COUNT(*) FROM messages WHERE conversation = ?", conversation) == 2 &&
					count(t, db, "SELECT COUNT(*) FROM outbox") == 0
			})
		})
	}
}

// rawMessages reads what the log has of a conversation.
func rawMessages(t *testing.T, c *clustertest.Cluster, conversation string) (all []chat.Record) {
	t.Helper()
	log, err := kafkalog.New(kafkalog.Options{Brokers: strings.Split(c.Kafka, ",")})
	must(t, err)
	defer func() { must(t, log.Close(ctxFor(t))) }()
	own := eventlog.Prefixed(log, c.Namespace)
	partition := eventlog.PartitionOf(conversation, 16)
	start, end, err := own.Bounds(ctxFor(t), chat.TopicMessages, partition)
	must(t, err)
	r, err := own.Open(ctxFor(t), chat.TopicMessages, partition, start)
	must(t, err)
	defer func() { must(t, r.Close()) }()
	for next := start; next < end; {
		records, err := r.Next(ctxFor(t))
		must(t, err)
		for _, rec := range records {
			next = rec.Offset + 1
			parsed, err := chat.ParseRecord(1, rec)
			must(t, err)
			if parsed.Message.GetConversation() == conversation {
				all = append(all, parsed)
			}
		}
	}
	return all
}

// A part that is missing at the start is named in one line, readiness says no, and when the part comes all goes on by itself.
func TestStart_AMissingPartIsNamedAndWaitedFor(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 1, Routers: 1, Histories: 1})
	for _, test := range []struct{ flag, addr, name string }{
		{"-kafka", "127.0.0.1:1", "kafka"},
		{"-redis", "127.0.0.1:1", "redis"},
		{"-mysql", "future:hush@tcp(127.0.0.1:1)/future", "database"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			cmd := c.Command(ctx, "node", test.flag, test.addr)
			var log strings.Builder
			lines := &watcher{want: `"part":"` + test.name + `"`, found: make(chan struct{}), all: &log}
			cmd.Stderr = lines
			must(t, cmd.Start())
			select {
			case <-lines.found:
			case <-ctx.Done():
				t.Errorf("no line names %s", test.name)
			}
			must(t, cmd.Process.Signal(interrupt))
			if err := cmd.Wait(); err != nil {
				t.Errorf("told to end while it waits: %v", err)
			}
			if strings.Contains(log.String(), "hush") {
				t.Error("the log has the password")
			}
			if n := strings.Count(log.String(), `"part":"`+test.name+`"`); n > 3 {
				t.Errorf("said %d times:\n%s", n, log.String())
			}
			if !strings.Contains(log.String(), "127.0.0.1:1") {
				t.Errorf("where is not said:\n%s", log.String())
			}
		})
	}
}
