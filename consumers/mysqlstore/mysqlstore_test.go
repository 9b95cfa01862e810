package mysqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/consumers/mysqlstore"
	"github.com/futurechat/future/consumers/mysqlstore/storetest"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func message(conversation string, sender int64, offset int64, text string) *pb.Message {
	return &pb.Message{
		Conversation: conversation, Seq: eventlog.Seq(1, offset), ClientMsgId: wire.NewMessageID(), TimeMs: 1000 + offset,
		Sender:  &pb.User{Id: wire.FormatID(sender), Name: fmt.Sprint("user", sender)},
		Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: text}}},
	}
}

func write(t testing.TB, s *mysqlstore.Store, from, next int64, messages ...*pb.Message) (duplicates, differing int) {
	t.Helper()
	written, err := s.WriteBatch(t.Context(), chat.Batch{Topic: chat.TopicMessages, From: from, Next: next, Messages: messages})
	if err != nil {
		t.Fatal(err)
	}
	return written.Duplicates, written.Differing
}

func TestCheck_SaysWhatToDo(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		s := k.Fresh(t)()
		if err := s.Check(t.Context()); !errors.Is(err, mysqlstore.ErrSchema) {
			t.Fatalf("got %v, want ErrSchema", err)
		}
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Check(t.Context()); !errors.Is(err, mysqlstore.ErrSchema) {
			t.Fatalf("after a look: %v: looking must not change the schema", err)
		}
		if n, err := s.Migrate(t.Context()); err != nil || n == 0 {
			t.Fatalf("%d steps, %v", n, err)
		}
		if err := s.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Migrate(t.Context()); err != nil || n != 0 {
			t.Fatalf("again: %d steps, %v", n, err)
		}
	})
}

func TestMigrate_ManyAtOnceAreSafe(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		open := k.Fresh(t)
		var all sync.WaitGroup
		for range 6 {
			s := open()
			all.Go(func() {
				if _, err := s.Migrate(t.Context()); err != nil {
					t.Error(err)
				}
				if err := s.Check(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

func TestWriteBatch_OfTwoWritersOneIsFenced(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		open := k.Fresh(t)
		one, two := open(), open()
		if _, err := one.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		const rounds = 20
		for round := range int64(rounds) {
			m := message("d:1:2", 1, round, "x")
			b := chat.Batch{Topic: chat.TopicMessages, From: round, Next: round + 1, Messages: []*pb.Message{m}}
			var errs [2]error
			var both sync.WaitGroup
			for i, s := range []*mysqlstore.Store{one, two} {
				both.Go(func() { _, errs[i] = s.WriteBatch(t.Context(), b) })
			}
			both.Wait()
			won := 0
			for _, err := range errs {
				if err == nil {
					won++
				} else if !errors.Is(err, chat.ErrFenced) {
					t.Fatal(err)
				}
			}
			if won != 1 {
				t.Fatalf("round %d: %d won: %v", round, won, errs)
			}
		}
		head, err := one.Head(t.Context(), 2, "d:1:2")
		if err != nil || head.Unread != rounds {
			t.Fatalf("%+v, %v", head, err)
		}
	})
}

func TestWriteBatch_DuplicatesWithinAndAcross(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		s := k.Open(t)
		again := func(m *pb.Message, offset int64) *pb.Message {
			m = proto.Clone(m).(*pb.Message)
			m.Seq = eventlog.Seq(1, offset)
			return m
		}
		a, b, c := message("d:1:2", 1, 0, "a"), message("d:1:2", 2, 1, "b"), message("d:1:2", 1, 5, "c")
		other := again(b, 3)
		other.Payload.GetText().Text = "not b"
		if d, diff := write(t, s, 0, 4, a, b, again(a, 2), other); d != 2 || diff != 1 {
			t.Fatalf("within: %d duplicates, %d differ", d, diff)
		}
		if d, diff := write(t, s, 4, 8, again(a, 4), c, again(other, 6), again(c, 7)); d != 3 || diff != 1 {
			t.Fatalf("across: %d duplicates, %d differ", d, diff)
		}
		page, err := s.Messages(t.Context(), "d:1:2", 0, 0, 10, true)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		for _, m := range page {
			got += m.GetPayload().GetText().GetText()
		}
		if got != "abc" || page[2].GetPrevSeq() != b.GetSeq() {
			t.Fatalf("%q, prev %d", got, page[2].GetPrevSeq())
		}
		head, err := s.Head(t.Context(), 1, "d:1:2")
		if err != nil || head.Unread != 1 {
			t.Fatalf("%+v, %v", head, err)
		}
	})
}

func TestWriteBatch_RefusesWhatIsBelowTheHead(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		s := k.Open(t)
		write(t, s, 0, 10, message("d:1:2", 1, 9, "x"))
		_, err := s.WriteBatch(t.Context(), chat.Batch{Topic: chat.TopicMessages, From: 10, Next: 11, Messages: []*pb.Message{message("d:1:2", 1, 5, "old")}})
		if err == nil {
			t.Fatal("taken")
		}
		offsets, err := s.HistoryOffsets(t.Context(), chat.TopicMessages)
		if err != nil || offsets[0] != 10 {
			t.Fatalf("%v, %v: the offset moved without the rows", offsets, err)
		}
	})
}

// Everything that may be large or strange in one batch, over the bounds of a statement.
func TestWriteBatch_LargeAndStrange(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		s := k.Open(t)
		const awkward = "'\"\\`\n\x1a%?"
		large := make([]byte, wire.MaxTextBytes)
		for i := range large {
			large[i] = awkward[i%len(awkward)]
		}
		var sent []*pb.Message
		for i := range int64(1200) {
			conversation := []string{"g:7", "n:3", "d:1:2"}[i%3]
			m := message(conversation, 1+i%5, i, "🙂 päö \x01 ?")
			switch i % 4 {
			case 1:
				m.Payload.GetText().Text = string(large)
			case 2:
				m.ReplyTo = &pb.Ref{SenderId: "9", ClientMsgId: wire.NewMessageID()}
			case 3:
				m.Payload = &pb.Payload{Kind: &pb.Payload_Friend{Friend: &pb.FriendNotice{Change: 1, By: &pb.User{Id: "1"}, Greeting: "?'", Version: 1 << 62}}}
			}
			sent = append(sent, m)
		}
		write(t, s, 0, 1200, sent...)
		for _, m := range sent {
			got, err := s.FindMessage(t.Context(), chat.IdentityOf(m))
			if err != nil {
				t.Fatal(err)
			}
			want := proto.Clone(m).(*pb.Message)
			want.PrevSeq, want.PrevKnown = got.GetPrevSeq(), true
			if !got.EqualVT(want) {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
		last, err := s.LastMessages(t.Context(), []string{"g:7", "n:3", "d:1:2", "d:5:6"})
		if err != nil || len(last) != 3 {
			t.Fatalf("%v, %v", last, err)
		}
	})
}

func TestWriteBatch_KeepsDeadRecordsAsTheyAre(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		s := k.Open(t)
		raw := []byte{0, 1, 2, 0xff, '\'', '\\', 0x1a}
		b := chat.Batch{Topic: chat.TopicMessages, Next: 2, Dead: []chat.DeadRecord{
			{Offset: 0, Key: raw, Value: raw, Headers: []eventlog.Header{{Key: "k", Value: raw}}, TimeMs: 5, Reason: "bad \xff"},
			{Offset: 1, TimeMs: 6},
		}}
		if _, err := s.WriteBatch(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if _, err := s.WriteBatch(t.Context(), b); !errors.Is(err, chat.ErrFenced) {
			t.Fatal(err)
		}
	})
}

func TestNextRouterEpoch_ManyAtOnceGetDifferentOnes(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		s := k.Open(t)
		var mu sync.Mutex
		seen := map[uint64]bool{}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 5 {
					e, err := s.NextRouterEpoch(t.Context(), "t", 3)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					if seen[e] {
						t.Errorf("%d given twice", e)
					}
					seen[e] = true
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if e, err := s.NextRouterEpoch(t.Context(), "t", 3); err != nil || e != 41 {
			t.Errorf("%d, %v", e, err)
		}
	})
}

func TestChangePair_ManyAtOnceEachSeeTheOneBefore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		s := k.Open(t)
		a, err := s.CreateAccount(t.Context(), chat.Account{Name: "anna"})
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.CreateAccount(t.Context(), chat.Account{Name: "bert"})
		if err != nil {
			t.Fatal(err)
		}
		const writers, each = 8, 5
		var all sync.WaitGroup
		for range writers {
			all.Go(func() {
				for range each {
					_, _, err := s.ChangePair(t.Context(), a.ID, b.ID, func(p chat.Pair) (chat.Pair, *pb.Message, error) {
						if p.Lo.Name != "anna" || p.Hi.Name != "bert" {
							return p, nil, fmt.Errorf("names %q %q", p.Lo.Name, p.Hi.Name)
						}
						p.Version++
						p.State = chat.PairFriends
						return p, message(wire.Direct(a.ID, b.ID), a.ID, 0, "x"), nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		p, err := s.Pair(t.Context(), b.ID, a.ID)
		if err != nil || p.Version != writers*each {
			t.Fatalf("%+v, %v", p, err)
		}
		unsent, err := s.Unsent(t.Context(), "", 0, 1000)
		if err != nil || len(unsent) != writers*each {
			t.Fatalf("%d unsent, %v", len(unsent), err)
		}
		for i, o := range unsent {
			if o.Version != uint64(i+1) {
				t.Fatalf("unsent %d has version %d", i, o.Version)
			}
		}
	})
}

func TestCreateSession_SameDeviceAtOnceLeavesOne(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		s := k.Open(t)
		a, err := s.CreateAccount(t.Context(), chat.Account{Name: "anna"})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		const logins = 12
		for i := range logins {
			all.Go(func() {
				if _, err := s.CreateSession(t.Context(), chat.Session{Account: a, DeviceID: "one"}, chat.TokenHash{byte(i)}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		left := 0
		for i := range logins {
			if _, err := s.SessionByToken(t.Context(), chat.TokenHash{byte(i)}); err == nil {
				left++
			} else if !errors.Is(err, chat.ErrNotFound) {
				t.Fatal(err)
			}
		}
		if left != 1 {
			t.Fatalf("%d sessions are left", left)
		}
	})
}

func TestStore_GivesUpWhenItsContextEnds(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		s := k.Open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.WriteBatch(ctx, chat.Batch{Topic: "t", Next: 1}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := s.Heads(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}
