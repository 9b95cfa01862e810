package timeline_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/chat/chattest"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/presence"
	"github.com/futurechat/future/router/timeline"
)

// club is a group with a log of its own: what is said is in history at once, up to written.
type club struct {
	*testing.T
	store  *chat.Memory
	recent *presence.Memory
	reader *timeline.Reader
	group  int64
	all    []*pb.Message
}

func newClub(t *testing.T, members ...int64) *club {
	k := &club{T: t, store: chat.NewMemory(chat.MemoryOptions{}), recent: presence.NewMemory(presence.MemoryOptions{})}
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	t.Cleanup(func() { _ = log.Close(t.Context()) })
	k.must(log.CreateTopic(t.Context(), eventlog.TopicSpec{Name: chat.TopicMessages, Partitions: 1}))
	k.reader = timeline.New(timeline.Options{Store: k.store, Recents: k.recent, Log: log, Topic: eventlog.State{Partitions: 1, Epoch: 1}})
	g, out, err := k.store.CreateGroup(t.Context(), chat.Group{Name: "club", Owner: members[0]}, members, func(g chat.Group) (*pb.Message, error) {
		return k.notice(g), nil
	})
	k.must(err)
	k.group = g.ID
	k.routed(out.Message)
	return k
}

func (k *club) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

func (k *club) notice(g chat.Group) *pb.Message {
	m := chattest.Message(wire.Group(g.ID), g.Owner, 0, "")
	m.Payload = &pb.Payload{Kind: &pb.Payload_Group{Group: &pb.GroupNotice{Version: g.Version}}}
	return m
}

// routed puts a message into the recents, as the next of the log.
func (k *club) routed(m *pb.Message) {
	k.Helper()
	m.Seq = eventlog.Seq(1, int64(10*len(k.all)+10))
	encoded, err := m.MarshalVT()
	k.must(err)
	_, _, err = k.recent.Append(k.Context(), []presence.Recent{{Conversation: m.GetConversation(), Seq: m.GetSeq(), Message: encoded}}, 0, "")
	k.must(err)
	k.all = append(k.all, m)
}

func (k *club) say(sender int64) {
	k.routed(chattest.Message(wire.Group(k.group), sender, 0, fmt.Sprint(len(k.all))))
}

// change has somebody join or leave.
func (k *club) change(join, leave []int64) {
	k.Helper()
	_, out, err := k.store.ChangeGroup(k.Context(), k.group, append(join, leave...), func(g chat.Group, _ []chat.Span) (chat.GroupChange, error) {
		g.Version++
		return chat.GroupChange{Group: g, Join: join, Leave: leave, Notice: k.notice(g)}, nil
	})
	k.must(err)
	k.routed(out.Message)
}

// write brings history up to here.
func (k *club) write() {
	k.Helper()
	offsets, err := k.store.HistoryOffsets(k.Context(), chat.TopicMessages)
	k.must(err)
	b := chat.Batch{Topic: chat.TopicMessages, From: offsets[0]}
	for _, m := range k.all {
		if _, offset := eventlog.SplitSeq(m.GetSeq()); offset >= b.From {
			b.Messages, b.Next = append(b.Messages, m), offset+1
		}
	}
	_, err = k.store.WriteBatch(k.Context(), b)
	k.must(err)
}

// reads holds that a user gets exactly the messages at these places, forward in pages and backward.
func (k *club) reads(user int64, want ...int) {
	k.Helper()
	var wanted []uint64
	for _, i := range want {
		wanted = append(wanted, k.all[i].GetSeq())
	}
	end := k.all[want[len(want)-1]].GetSeq() + 1
	for _, forward := range []bool{true, false} {
		var got []uint64
		q := &pb.HistoryRequest{Conversation: wire.Group(k.group), Limit: 2, Forward: forward}
		for range 20 {
			page, err := k.reader.History(k.Context(), user, q)
			k.must(err)
			if page.GetCoversAfter() > q.GetAfter() && forward {
				k.Fatalf("user %d: a hole from %d to %d", user, q.GetAfter(), page.GetCoversAfter())
			}
			for _, m := range page.GetMessages() {
				got = append(got, m.GetSeq())
			}
			if forward {
				q.After = page.GetCoversBefore() - 1
			} else {
				q.Before = page.GetCoversAfter() + 1
			}
			if forward && q.After+1 >= end || !forward && !page.GetMore() {
				break
			}
		}
		if slices.Sort(got); !slices.Equal(got, wanted) {
			k.Errorf("user %d reads %d (forward: %t), want %d", user, got, forward, wanted)
		}
	}
}

func TestR17_Group_IsReadWhileAMember(t *testing.T) {
	k := newClub(t, 1, 2)
	_, err := k.reader.History(t.Context(), 1, &pb.HistoryRequest{Conversation: wire.Group(k.group)})
	if !errors.Is(err, wire.ErrPending) {
		t.Errorf("before history has the notice: %v", err)
	}
	k.write()
	for range 3 {
		k.say(1) // 1 to 3
	}
	k.change([]int64{3}, nil) // 4
	k.say(3)                  // 5
	k.write()
	k.say(2) // 6, not in history
	k.reads(1, 0, 1, 2, 3, 4, 5, 6)
	k.reads(3, 4, 5, 6)
	k.change(nil, []int64{3}) // 7
	k.say(1)
	k.say(1)
	k.write()
	k.say(1) // 10
	k.reads(3, 4, 5, 6, 7)
	k.change([]int64{3}, nil) // 11
	k.say(2)
	k.write()
	k.say(2) // 13
	k.reads(3, 4, 5, 6, 7, 11, 12, 13)
	k.reads(2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
	for _, q := range []*pb.HistoryRequest{{}, {After: k.all[8].GetSeq(), Forward: true}} {
		q.Conversation = wire.Group(k.group)
		if _, err := k.reader.History(t.Context(), 4, q); !errors.Is(err, wire.ErrNotFound) {
			t.Errorf("a stranger: %v", err)
		}
	}
}

func TestGroup_HeadsAreOfWhatOneMayRead(t *testing.T) {
	k := newClub(t, 1, 2)
	k.write()
	k.say(1)
	want := func(user int64, at int, unread uint32) {
		t.Helper()
		heads, err := k.reader.Heads(t.Context(), user)
		k.must(err)
		if len(heads) != 1 || heads[0].GetSeq() != k.all[at].GetSeq() || heads[0].GetUnread() != unread {
			t.Errorf("user %d has heads %v, want %d, %d unread", user, heads, k.all[at].GetSeq(), unread)
		}
	}
	want(1, 1, 0)
	want(2, 1, 1) // in the recents alone
	k.change(nil, []int64{2})
	k.write()
	k.say(1)
	want(2, 2, 2)
	if heads, err := k.reader.Heads(t.Context(), 3); err != nil || len(heads) != 0 {
		t.Errorf("a stranger has %v, %v", heads, err)
	}
}
