package chat_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/chat/chattest"
	"github.com/futurechat/future/router/eventlog"
)

func (r *rig) friends(a, b chat.Account) {
	r.Helper()
	_, err := r.AddFriend(r.Context(), a, &pb.AddFriendRequest{Name: b.Name})
	r.must(err)
	_, err = r.AnswerFriend(r.Context(), b, &pb.AnswerFriendRequest{Name: a.Name, Accept: true})
	r.must(err)
}

// life is what a node with its lease checks rights on.
var life = chat.Basis{Life: "1"}

func text(conversation, text string) *pb.SendRequest {
	return &pb.SendRequest{
		Conversation: conversation, ClientMsgId: wire.NewMessageID(),
		Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: text}}},
	}
}

func TestR6_OnlyFriendsMayWrite(t *testing.T) {
	r := newRig(t)
	alice, bob, carol := r.register("alice"), r.register("bob"), r.register("carol")
	r.friends(alice, bob)
	_, err := r.AddFriend(t.Context(), alice, &pb.AddFriendRequest{Name: "carol"})
	r.must(err)
	for conversation, want := range map[string]pb.Code{
		wire.Direct(alice.ID, bob.ID):   0,
		wire.Direct(alice.ID, carol.ID): pb.Code_CODE_NOT_FRIENDS, // asked is not friends
		wire.Direct(alice.ID, 99):       pb.Code_CODE_NOT_FRIENDS, // nobody looks like a stranger
		wire.Direct(bob.ID, carol.ID):   pb.Code_CODE_NOT_FRIENDS,
		"n:1":                           pb.Code_CODE_FORBIDDEN,
		"g:1":                           pb.Code_CODE_NOT_FOUND,
		"d:1:1":                         pb.Code_CODE_INVALID, // to oneself
		"d:2:1":                         pb.Code_CODE_INVALID,
	} {
		q := text(conversation, "hello %s 🙂")
		q.ReplyTo = &pb.Ref{SenderId: "2", ClientMsgId: wire.NewMessageID()}
		got, err := r.PrepareSend(t.Context(), chat.Basis{Life: "1", LogEnd: 7}, alice, q)
		m := got.Record.Message
		if code(err) != want {
			t.Errorf("%s: got %v, want %v", conversation, err, want)
		}
		if err == nil && (!got.Record.Checked || got.Record.Version != 2 || got.Record.CheckedFrom != 7) {
			t.Errorf("got %+v", got.Record)
		}
		if err == nil && (m.GetSender().GetId() != wire.FormatID(alice.ID) || m.GetSeq() != 0 || m.GetTimeMs() != 0 || m.GetClientMsgId() != q.GetClientMsgId() ||
			!m.GetPayload().EqualVT(q.GetPayload()) || !m.GetReplyTo().EqualVT(q.GetReplyTo())) {
			t.Errorf("got %v", m)
		}
	}
	stranger, err1 := r.PrepareSend(t.Context(), life, alice, text(wire.Direct(alice.ID, carol.ID), "x"))
	nobody, err2 := r.PrepareSend(t.Context(), life, alice, text(wire.Direct(alice.ID, 99), "x"))
	if stranger != (chat.Sending{}) || nobody != (chat.Sending{}) || err1.Error() != err2.Error() {
		t.Fatalf("a stranger: %v, nobody: %v", err1, err2)
	}
}

func TestI8_ARuleThatIsNotKnownIsRefusedWhileTheDatabaseIsAway(t *testing.T) {
	r := newRig(t, func(o *chat.Options) { o.FriendTTL = time.Minute })
	alice, bob, carol := r.register("alice"), r.register("bob"), r.register("carol")
	r.friends(alice, bob)
	r.friends(alice, carol)
	node := chat.New(r.opts) // another node, which knows nothing yet
	send := func(to chat.Account) error {
		_, err := node.PrepareSend(t.Context(), life, alice, text(wire.Direct(alice.ID, to.ID), "x"))
		return err
	}
	cached := func(to chat.Account) bool {
		_, decided, err := node.PrepareCached(life, alice, text(wire.Direct(alice.ID, to.ID), "x"))
		r.must(err)
		return decided
	}
	if cached(bob) {
		t.Fatal("decided without having asked")
	}
	r.must(send(bob))
	if asked := r.count(chat.OpPair); !cached(bob) || send(bob) != nil || r.count(chat.OpPair) != asked {
		t.Fatal("asked again")
	}
	r.pass(2 * time.Minute)
	r.failing(chat.OpPair)
	if cached(bob) {
		t.Fatal("taken for granted for ever")
	}
	r.must(send(bob)) // known, and chat goes on
	r.away("not known", send(carol))
	r.failing()
	r.must(send(carol))
	// Who are not friends is never remembered.
	dora := r.register("dora")
	if err := send(dora); code(err) != pb.Code_CODE_NOT_FRIENDS {
		t.Fatal(err)
	}
	r.friends(alice, dora)
	r.must(send(dora))
}

func (r *rig) write(next int64, messages ...*pb.Message) {
	r.Helper()
	p := eventlog.PartitionOf("d:1:2", 4)
	offsets, err := r.store.HistoryOffsets(r.Context(), chat.TopicMessages)
	r.must(err)
	_, err = r.store.WriteBatch(r.Context(), chat.Batch{Topic: chat.TopicMessages, Partition: p, From: offsets[p], Next: next, Messages: messages})
	r.must(err)
}

func TestFindSent_FoundReusedOrWhereToSearch(t *testing.T) {
	r := newRig(t)
	m := chattest.Message("d:1:2", 1, 5, "a")
	r.write(9, m)
	ctx := t.Context()
	alice := chat.Account{ID: 1}
	again := func(m *pb.Message) *pb.SendRequest {
		return &pb.SendRequest{Conversation: m.GetConversation(), ClientMsgId: m.GetClientMsgId(), Payload: m.GetPayload(), Resend: true}
	}
	got, err := r.FindSent(ctx, alice, again(m)) // of friends or not: they may have been when it was sent
	r.must(err)
	if !got.Found || got.Seq != m.GetSeq() || got.TimeMs != m.GetTimeMs() {
		t.Fatalf("got %+v", got)
	}
	got, err = r.FindSent(ctx, alice, again(chattest.Message("d:1:2", 1, 0, "b")))
	r.must(err)
	if got.Found || got.SearchFrom != 9 {
		t.Fatalf("got %+v", got)
	}
	other := chattest.Message("d:1:2", 1, 0, "not a")
	other.ClientMsgId = m.GetClientMsgId()
	if _, err := r.FindSent(ctx, alice, again(other)); code(err) != pb.Code_CODE_ID_REUSED {
		t.Fatal(err)
	}
	for _, op := range []chat.Op{chat.OpFindMessage, chat.OpHistoryOffsets} {
		r.failing(op)
		_, err := r.FindSent(ctx, alice, again(m))
		r.away(string(op), err)
	}
}

// between writes a message after a read of the store, counted from 1.
type between struct {
	*chat.Memory
	at    int
	write func()
}

func (b *between) HistoryOffsets(ctx context.Context, topic string) (map[int32]int64, error) {
	defer b.read()
	return b.Memory.HistoryOffsets(ctx, topic)
}

func (b *between) FindMessage(ctx context.Context, id chat.Identity) (*pb.Message, error) {
	defer b.read()
	return b.Memory.FindMessage(ctx, id)
}

func (b *between) MarkRead(ctx context.Context, user int64, conversation string, seq uint64) (chat.Head, error) {
	defer b.read()
	return b.Memory.MarkRead(ctx, user, conversation, seq)
}

func (b *between) read() {
	if b.at--; b.at == 0 {
		b.write()
	}
}

func TestFindSent_ARowWrittenMeanwhileIsNotLost(t *testing.T) {
	for at := range 4 {
		r := newRig(t)
		m := chattest.Message("d:1:2", 1, 5, "a")
		got, err := chat.FindSent(t.Context(), &between{r.store, at, func() { r.write(9, m) }}, 4, m)
		r.must(err)
		if !got.Found && got.SearchFrom > 5 {
			t.Fatalf("%+v: the first try at 5 would not be searched for", got)
		}
	}
}

func TestMarkRead_ARowWrittenMeanwhileIsMarked(t *testing.T) {
	for at := range 4 {
		r := newRig(t)
		r.write(3, chattest.Message("d:1:2", 1, 2, "a"))
		r.opts.Store = &between{r.store, at, func() { r.write(9, chattest.Message("d:1:2", 1, 5, "b")) }}
		h, err := chat.New(r.opts).MarkRead(t.Context(), 2, &pb.ReadRequest{Conversation: "d:1:2", Seq: eventlog.Seq(1, 5)})
		if code(err) == pb.Code_CODE_PENDING {
			continue
		}
		if err != nil || h.ReadSeq != eventlog.Seq(1, 5) || h.Unread != 0 {
			t.Fatalf("written after read %d: %+v, %v", at, h, err)
		}
	}
}

func TestMarkRead_ExactOrPending(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	at := func(o int64) uint64 { return eventlog.Seq(1, o) }
	read := func(user int64, seq uint64) (chat.Head, error) {
		return r.MarkRead(ctx, user, &pb.ReadRequest{Conversation: "d:1:2", Seq: seq})
	}
	if _, err := read(2, at(3)); code(err) != pb.Code_CODE_PENDING || chat.Answer(err).RetryAfter <= 0 {
		t.Fatalf("history has nothing yet: %v", err)
	}
	r.write(10, chattest.Message("d:1:2", 1, 3, "a"), chattest.Message("d:1:2", 1, 6, "b"))
	for _, step := range []struct {
		seq, read uint64
		unread    uint32
	}{{at(3), at(3), 1}, {at(5), at(3), 1}, {at(6), at(6), 0}, {at(8), at(6), 0}, {at(3), at(6), 0}} {
		if h, err := read(2, step.seq); err != nil || h.ReadSeq != step.read || h.Unread != step.unread {
			t.Fatalf("to %d: %+v, %v", step.seq, h, err)
		}
	}
	if _, err := read(1, at(12)); code(err) != pb.Code_CODE_PENDING {
		t.Fatalf("history is behind: %v", err)
	}
	if h, err := r.store.Head(ctx, 1, "d:1:2"); err != nil || h.ReadSeq != at(6) {
		t.Fatalf("what can be marked is: %+v, %v", h, err)
	}
	if _, err := read(3, at(3)); code(err) != pb.Code_CODE_NOT_FOUND {
		t.Fatalf("not a member: %v", err)
	}
	r.failing(chat.OpMarkRead)
	_, err := read(1, at(3))
	r.away("read", err)
}

// A client takes frames of 1 MiB, and asks again when the connection breaks over a larger one.
func TestConversations_FitAFrame(t *testing.T) {
	r := newRig(t)
	alice := r.register("alice")
	const others = 100
	var messages []*pb.Message
	var heads []*pb.Head
	for i := range int64(others) {
		id := alice.ID + 1 + i
		m := chattest.Message(wire.Direct(alice.ID, id), id, i+1, strings.Repeat("x", wire.MaxTextBytes))
		m.TimeMs = i
		messages, heads = append(messages, m), append(heads, &pb.Head{Conversation: m.GetConversation(), Seq: m.GetSeq()})
	}
	r.write(others+1, messages...)
	list, err := r.Conversations(t.Context(), alice.ID, heads)
	r.must(err)
	frame, err := wire.AppendFrame(nil, &pb.Envelope{Body: &pb.Envelope_ConversationList{ConversationList: &pb.ConversationsResponse{Conversations: list}}})
	r.must(err)
	if len(list) != others || list[0].GetLast() == nil || list[others-1].GetLast() != nil || len(frame) > 512<<10 {
		t.Errorf("%d conversations in %d bytes, the newest with %v", len(list), len(frame), list[0].GetLast().GetSeq())
	}
}

func TestConversations_NewestFirstWithPeers(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	alice, bob, carol := r.register("alice"), r.register("bob"), r.register("carol")
	r.friends(alice, bob)
	withCarol := chattest.Message(wire.Direct(alice.ID, carol.ID), carol.ID, 1, "from carol") // not friends any more
	withBob := chattest.Message(wire.Direct(alice.ID, bob.ID), bob.ID, 2, "from bob")
	withBob.TimeMs, withCarol.TimeMs = 100, 200
	r.write(3, withCarol, withBob, chattest.Message(wire.Direct(bob.ID, carol.ID), bob.ID, 2, "not hers"))
	heads := []*pb.Head{{Conversation: wire.Direct(alice.ID, bob.ID), Unread: 1}, {Conversation: wire.Direct(alice.ID, carol.ID)}}
	list, err := r.Conversations(ctx, alice.ID, heads)
	r.must(err)
	if len(list) != 2 || list[0].GetPeer().GetName() != "carol" || list[1].GetPeer().GetName() != "bob" || list[1].GetUnread() != 1 ||
		list[0].GetLast().GetPayload().GetText().GetText() != "from carol" || list[0].GetId() != "d:1:3" {
		t.Fatalf("got %v", list)
	}
	for _, op := range []chat.Op{chat.OpLastMessages, chat.OpPairs, chat.OpPair} {
		r.failing(op)
		_, err := r.Conversations(ctx, alice.ID, heads)
		r.away(string(op), err)
	}
}
