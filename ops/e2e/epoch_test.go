package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
)

// A topic that was made anew halts every role, which names what differs; raising the epoch is the way on, and positions still
// rise.
func TestEpoch_TopicMadeAnew_HaltsUntilRaised(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 1, Routers: 1, Histories: 1})
	alice, bob := newPerson(t, "alice", c.Nodes[0].Addr), newPerson(t, "bob", c.Nodes[0].Addr)
	conversation := befriend(t, alice, bob)
	before, err := alice.Send(ctxFor(t), conversation, "before")
	must(t, err)
	bob.awaitCount(conversation, 3)
	db := database(t, c)
	eventually(t, "all of it in the database", func() bool {
		return count(t, db, "SELECT COUNT(*) FROM messages WHERE conversation = ?", conversation) == 3
	})
	for _, p := range []*clustertest.Process{c.Nodes[0], c.Routers[0], c.Histories[0]} {
		must(t, p.Stop(ctxFor(t)))
		p.Kill() // its end was meant
	}
	makeAnew(t, c, "chat.messages", 16)

	for _, role := range []string{"node", "router", "history", "migrate"} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		out, err := c.Command(ctx, role).CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), "was deleted and made anew") {
			t.Errorf("chatd %s on another topic: %v\n%s", role, err, out)
		}
	}
	raise := func(args ...string) (string, error) {
		out, err := c.Command(ctxFor(t), "admin", append([]string{"epoch", "raise"}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := raise(); err == nil || !strings.Contains(out, "was made anew") || !strings.Contains(out, "-yes") {
		t.Errorf("without -yes: %v\n%s", err, out)
	}
	if out, err := raise("-yes"); err != nil || !strings.Contains(out, "the epoch is 2") {
		t.Fatalf("raise: %v\n%s", err, out)
	}
	for _, role := range []string{"history", "router", "node"} {
		_, err := c.Add(t.Context(), role)
		must(t, err)
	}
	addr := c.Nodes[1].Addr
	again := dialWith(t, "alice", directly, addr)
	_, err = again.Login(ctxFor(t), "alice", password)
	must(t, err)
	after, err := again.Send(ctxFor(t), conversation, "after")
	must(t, err)
	if after.Seq <= before.Seq {
		t.Errorf("seq %d after %d", after.Seq, before.Seq)
	}
	again.awaitCount(conversation, 1)
	var texts []string
	for m, err := range again.History(ctxFor(t), conversation, future.HistoryOptions{Forward: true}) {
		must(t, err)
		if m.Text != "" {
			texts = append(texts, m.Text)
		}
	}
	if strings.Join(texts, ",") != "before,after" {
		t.Errorf("history is %v", texts)
	}
}

// makeAnew deletes a topic and creates it again.
func makeAnew(t *testing.T, c *clustertest.Cluster, topic string, partitions int) {
	t.Helper()
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(strings.Split(c.Kafka, ",")...), Transport: transport}
	name := c.Namespace + topic
	deleted, err := client.DeleteTopics(ctxFor(t), &kafka.DeleteTopicsRequest{Topics: []string{name}})
	must(t, err)
	must(t, deleted.Errors[name])
	// Brokers delete in their own time.
	eventually(t, "the topic made anew", func() bool {
		made, err := client.CreateTopics(ctxFor(t), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
			Topic: name, NumPartitions: partitions, ReplicationFactor: 1,
			ConfigEntries: []kafka.ConfigEntry{{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"}},
		}}})
		return err == nil && made.Errors[name] == nil
	})
}
