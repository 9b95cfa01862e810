package chattest

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

func batch(from, next int64, messages ...*pb.Message) chat.Batch {
	return chat.Batch{Topic: chat.TopicMessages, From: from, Next: next, Messages: messages}
}

func (s suite) offsets(t *testing.T) {
	f := s.fixture(t)
	offsets, err := f.HistoryOffsets(f.ctx, chat.TopicMessages)
	f.must(err)
	if len(offsets) != 0 {
		t.Fatalf("an empty store has offsets %v", offsets)
	}
	f.write(0, Message("d:1:2", 1, 0, "a"))
	f.write(0, Message("d:1:2", 1, 9, "b")) // offsets between may have been anything
	f.write(7, Message("d:1:3", 1, 4, "c"))
	_, err = f.WriteBatch(f.ctx, chat.Batch{Topic: "other", From: 0, Next: 3}) // a batch without anything moves it too
	f.must(err)
	offsets, err = f.HistoryOffsets(f.ctx, chat.TopicMessages)
	f.must(err)
	if len(offsets) != 2 || offsets[0] != 10 || offsets[7] != 5 {
		t.Fatalf("got %v", offsets)
	}
	if offsets, err = f.HistoryOffsets(f.ctx, "other"); err != nil || len(offsets) != 1 || offsets[0] != 3 {
		t.Fatalf("got %v, %v", offsets, err)
	}
}

func (s suite) fenced(t *testing.T) {
	f := s.fixture(t)
	if _, err := f.WriteBatch(f.ctx, batch(5, 6, Message("d:1:2", 1, 5, "x"))); !errors.Is(err, chat.ErrFenced) {
		t.Fatalf("a first batch from 5: %v", err)
	}
	f.write(0, Message("d:1:2", 1, 0, "a"), Message("d:1:2", 1, 1, "b"))
	for _, from := range []int64{0, 1, 3} {
		if _, err := f.WriteBatch(f.ctx, batch(from, from+1, Message("d:1:2", 1, 5+from, "x"))); !errors.Is(err, chat.ErrFenced) {
			t.Fatalf("from %d: %v", from, err)
		}
	}
	if got := texts(f.page("d:1:2")); got != "a b" || f.due(0) != 2 {
		t.Fatalf("has %q, offset %d", got, f.due(0))
	}
}

func (s suite) fencedAtOnce(t *testing.T) {
	f := s.fixture(t)
	const rounds, writers = 5, 4
	for round := range int64(rounds) {
		var won atomic.Int32
		atOnce(writers, func(i int) {
			_, err := f.WriteBatch(f.ctx, batch(round, round+1, Message("d:1:2", 1, round, fmt.Sprint(round))))
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, chat.ErrFenced):
				t.Error(err)
			}
		})
		if won.Load() != 1 {
			t.Fatalf("round %d: %d writers won", round, won.Load())
		}
	}
	if got := texts(f.page("d:1:2")); got != "0 1 2 3 4" {
		t.Fatalf("got %q", got)
	}
}

func (s suite) atomic(t *testing.T) {
	f := s.fixture(t)
	f.write(0, Message("d:1:2", 1, 7, "a"))
	// The last is not above the head of its conversation: a fault of the writer, and nothing may be left of the batch.
	bad := batch(8, 20, Message("d:1:2", 1, 8, "b"), Message("d:3:4", 3, 9, "c"), Message("d:1:2", 2, 3, "d"))
	bad.Dead = []chat.DeadRecord{{Offset: 10, Reason: "x"}}
	if _, err := f.WriteBatch(f.ctx, bad); err == nil || errors.Is(err, chat.ErrFenced) {
		t.Fatalf("got %v", err)
	}
	if got := texts(f.page("d:1:2")) + texts(f.page("d:3:4")); got != "a" || f.due(0) != 8 {
		t.Fatalf("has %q, offset %d", got, f.due(0))
	}
	if h := f.head(2, "d:1:2"); h.Unread != 1 {
		t.Fatalf("got %+v", h)
	}
	if _, err := f.Head(f.ctx, 3, "d:3:4"); !errors.Is(err, chat.ErrNotFound) {
		t.Fatal(err)
	}
}

func (s suite) duplicates(t *testing.T) {
	f := s.fixture(t)
	a, b, c := Message("d:1:2", 1, 0, "a"), Message("d:1:2", 2, 1, "b"), Message("d:1:2", 1, 5, "c")
	if d, diff := f.write(0, a, b, again(a, 2), other(b, 3)); d != 2 || diff != 1 {
		t.Fatalf("within a batch: %d duplicates, %d differ", d, diff)
	}
	if d, diff := f.write(0, again(a, 4), c, other(b, 6), again(c, 7), again(a, 8)); d != 4 || diff != 1 {
		t.Fatalf("across batches: %d duplicates, %d differ", d, diff)
	}
	if d, diff := f.write(0, again(a, 20), again(b, 21)); d != 2 || diff != 0 {
		t.Fatalf("nothing but duplicates: %d, %d differ", d, diff)
	}
	withReply := again(a, 30)
	withReply.ReplyTo = &pb.Ref{SenderId: "2", ClientMsgId: b.GetClientMsgId()}
	if d, diff := f.write(0, withReply); d != 1 || diff != 1 {
		t.Fatalf("another reply_to: %d, %d differ", d, diff)
	}
	page := f.page("d:1:2")
	if texts(page) != "a b c" || page[0].GetSeq() != a.GetSeq() || page[1].GetSeq() != b.GetSeq() || page[2].GetSeq() != c.GetSeq() {
		t.Fatalf("got %v", page)
	}
	f.chained(page, 0)
	if one, two := f.head(1, "d:1:2"), f.head(2, "d:1:2"); one.Unread != 1 || two.Unread != 2 || one.Seq != c.GetSeq() || f.due(0) != 31 {
		t.Fatalf("heads %+v, %+v: duplicates must not count", one, two)
	}
}

func (s suite) identity(t *testing.T) {
	f := s.fixture(t)
	a := Message("d:1:2", 1, 0, "a")
	b, c := other(a, 1), other(a, 2)
	b.Sender = &pb.User{Id: "2", Name: "user 2"}
	c.Conversation = "d:1:3"
	if d, _ := f.write(0, a, b, c); d != 0 {
		t.Fatalf("%d of another sender or conversation taken for duplicates", d)
	}
	for _, m := range []*pb.Message{a, b, c} {
		got, err := f.FindMessage(f.ctx, chat.IdentityOf(m))
		f.must(err)
		if got.GetSeq() != m.GetSeq() || got.GetConversation() != m.GetConversation() || got.GetSender().GetId() != m.GetSender().GetId() {
			t.Fatalf("got %v, want %v", got, m)
		}
	}
}

func (s suite) dead(t *testing.T) {
	f := s.fixture(t)
	raw := []byte{0, 1, 2, 0xff, '\'', '\\', 0x1a}
	b := batch(0, 5, Message("d:1:2", 1, 1, "a"))
	b.Dead = []chat.DeadRecord{
		{Offset: 0, Key: raw, Value: raw, Headers: []eventlog.Header{{Key: "k", Value: raw}, {Key: "empty"}}, TimeMs: 5, Reason: "bad \xff" + strings.Repeat("🙂", 400)},
		{Offset: 2, TimeMs: 6},
		{Offset: 3, Value: []byte(strings.Repeat("x", 200_000))},
	}
	if _, err := f.WriteBatch(f.ctx, b); err != nil {
		t.Fatal(err)
	}
	if got := texts(f.page("d:1:2")); got != "a" || f.due(0) != 5 {
		t.Fatalf("has %q, offset %d", got, f.due(0))
	}
	_, err := f.WriteBatch(f.ctx, chat.Batch{Topic: chat.TopicMessages, From: 5, Next: 6, Dead: []chat.DeadRecord{{Offset: 5}}})
	f.must(err)
}

// large is a batch over the bounds that a database has for one statement.
func (s suite) large(t *testing.T) {
	f := s.fixture(t)
	const n = 1500
	conversations := []string{"d:1:2", "d:1:3", "n:3"}
	var sent []*pb.Message
	for i := range int64(n) {
		c := conversations[i%3]
		m := Message(c, 1, i, fmt.Sprint(i))
		if i%25 == 0 {
			m.GetPayload().GetText().Text = strings.Repeat("'\"\\`\n\x1a%?🙂", 1300)
		}
		sent = append(sent, m)
	}
	f.write(0, sent...)
	for i, c := range conversations {
		page := f.page(c)
		if len(page) != n/3 {
			t.Fatalf("%s has %d messages, want %d", c, len(page), n/3)
		}
		f.chained(page, 0)
		for k, m := range page {
			if want := sent[3*k+i]; m.GetSeq() != want.GetSeq() || !chat.SameContent(m, want) {
				t.Fatalf("%s: message %d is %d, want %d", c, k, m.GetSeq(), want.GetSeq())
			}
		}
	}
	if d, diff := f.write(0, append([]*pb.Message{Message("d:1:2", 2, n, "new")}, sameAgain(sent, n+1)...)...); d != n || diff != 0 {
		t.Fatalf("%d duplicates, %d differ", d, diff)
	}
	if h := f.head(1, "d:1:2"); h.Unread != 1 || h.Seq != eventlog.Seq(1, n) {
		t.Fatalf("got %+v", h)
	}
}

func sameAgain(messages []*pb.Message, from int64) []*pb.Message {
	var all []*pb.Message
	for i, m := range messages {
		all = append(all, again(m, from+int64(i)))
	}
	return all
}

func (s suite) logState(t *testing.T) {
	f := s.fixture(t)
	if _, err := f.LogState(f.ctx, "x"); !errors.Is(err, chat.ErrNotFound) {
		t.Fatal(err)
	}
	f.must(f.SaveLogState(f.ctx, eventlog.State{Topic: chat.TopicMessages, ID: "id 1", Partitions: 16, Epoch: 1, Seen: map[int32]int64{3: 99}}))
	got, err := f.LogState(f.ctx, chat.TopicMessages)
	f.must(err)
	if got.Topic != chat.TopicMessages || got.ID != "id 1" || got.Partitions != 16 || got.Epoch != 1 || len(got.Seen) != 0 {
		t.Fatalf("got %+v", got)
	}
	f.write(2, Message("d:1:2", 1, 6, "a"))
	f.must(f.SaveLogState(f.ctx, eventlog.State{Topic: chat.TopicMessages, ID: "id 2", Partitions: 64, Epoch: 31}))
	f.must(f.SaveLogState(f.ctx, eventlog.State{Topic: "other", ID: "o", Partitions: 1, Epoch: 1}))
	got, err = f.LogState(f.ctx, chat.TopicMessages)
	f.must(err)
	if got.ID != "id 2" || got.Partitions != 64 || got.Epoch != 31 || len(got.Seen) != 1 || got.Seen[2] != 7 {
		t.Fatalf("got %+v", got)
	}
	if other, err := f.LogState(f.ctx, "other"); err != nil || other.ID != "o" || len(other.Seen) != 0 {
		t.Fatalf("got %+v, %v", other, err)
	}
}

func (s suite) routerEpoch(t *testing.T) {
	f := s.fixture(t)
	last := uint64(0)
	for range 5 {
		e, err := f.NextRouterEpoch(f.ctx, "x", 1)
		f.must(err)
		if e <= last {
			t.Fatalf("%d after %d", e, last)
		}
		last = e
		_, err = f.NextRouterEpoch(f.ctx, "x", 2)
		f.must(err)
	}
}

func (s suite) routerEpochAtOnce(t *testing.T) {
	f := s.fixture(t)
	const n, rounds = 6, 4
	given := make(chan uint64, n*rounds)
	atOnce(n, func(int) {
		last := uint64(0)
		for range rounds {
			e, err := f.NextRouterEpoch(f.ctx, "x", 0)
			if err != nil || e <= last {
				t.Errorf("%d after %d, %v", e, last, err)
			}
			last = e
			given <- e
		}
	})
	close(given)
	seen := map[uint64]bool{}
	for e := range given {
		if seen[e] {
			t.Fatalf("%d was given twice", e)
		}
		seen[e] = true
	}
}

func (s suite) ended(t *testing.T) {
	f := s.fixture(t)
	f.people("alice", "bob")
	ctx, cancel := contextEnded(t)
	defer cancel()
	_, created := f.CreateAccount(ctx, chat.Account{Name: "carol"})
	_, _, changed := f.ChangePair(ctx, 1, 2, ask(chat.PairAsked, ""))
	_, read := f.Messages(ctx, "d:1:2", 0, 0, 1, true)
	_, written := f.WriteBatch(ctx, batch(0, 1, Message("d:1:2", 1, 0, "a")))
	for _, err := range []error{created, changed, read, written} {
		if err == nil || errors.Is(err, chat.ErrNotFound) || errors.Is(err, chat.ErrFenced) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := f.AccountByName(f.ctx, "carol"); !errors.Is(err, chat.ErrNotFound) {
		t.Error(err)
	}
	if f.due(0) != 0 {
		t.Error("a batch was written")
	}
}
