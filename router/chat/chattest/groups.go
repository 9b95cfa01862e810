package chattest

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

func groupNotice(g chat.Group) *pb.Message {
	return &pb.Message{
		Conversation: wire.Group(g.ID), Sender: &pb.User{Id: wire.FormatID(g.Owner), Name: "owner"}, ClientMsgId: wire.NewMessageID(),
		Payload: &pb.Payload{Kind: &pb.Payload_Group{Group: &pb.GroupNotice{
			Change: pb.GroupNotice_CHANGE_CREATED, Count: uint32(g.Members), Name: g.Name, Version: g.Version,
		}}},
	}
}

// group makes a group of accounts, the first of which is its owner.
func (f *fixture) group(members ...int64) (chat.Group, chat.Outgoing) {
	f.Helper()
	g, out, err := f.CreateGroup(f.ctx, chat.Group{Name: "club", Owner: members[0], CreatedMs: 7}, members, func(g chat.Group) (*pb.Message, error) {
		return groupNotice(g), nil
	})
	f.must(err)
	return g, out
}

// change has people join and leave a group.
func (f *fixture) change(group int64, join, leave []int64) chat.Outgoing {
	f.Helper()
	_, out, err := f.ChangeGroup(f.ctx, group, append(slices.Clone(join), leave...), func(g chat.Group, _ []chat.Span) (chat.GroupChange, error) {
		g.Version++
		g.Members += len(join) - len(leave)
		return chat.GroupChange{Group: g, Join: join, Leave: leave, Notice: groupNotice(g)}, nil
	})
	f.must(err)
	return out
}

// at gives an outbox row's message as the log has it at an offset.
func at(out chat.Outgoing, offset int64) *pb.Message {
	m := again(out.Message, offset)
	m.Conversation = out.Message.GetConversation()
	return m
}

func (s suite) createGroup(t *testing.T) {
	f := s.fixture(t)
	p := f.people("alice", "bob", "carol")
	g, out := f.group(p[0].ID, p[1].ID)
	want := chat.Group{ID: g.ID, Name: "club", Owner: p[0].ID, Version: 1, Members: 2, CreatedMs: 7}
	if got, err := f.Group(f.ctx, g.ID); err != nil || g != want || got != want {
		t.Fatalf("made %+v, read %+v, %v", g, got, err)
	}
	unsent, err := f.Unsent(f.ctx, wire.Group(g.ID), 9, 10)
	f.must(err)
	if len(unsent) != 1 || unsent[0].ID != out.ID || unsent[0].Version != 1 || !unsent[0].Message.EqualVT(out.Message) {
		t.Fatalf("outbox has %+v, told was %+v", unsent, out)
	}
	second, _ := f.group(p[1].ID)
	if second.ID <= g.ID {
		t.Errorf("ids %d, %d", g.ID, second.ID)
	}
	if of, err := f.GroupsOf(f.ctx, p[1].ID); err != nil || !slices.Equal(of, []int64{g.ID, second.ID}) {
		t.Errorf("bob is in %v, %v", of, err)
	}
	if of, err := f.GroupsOf(f.ctx, p[2].ID); err != nil || len(of) != 0 {
		t.Errorf("carol is in %v, %v", of, err)
	}
	refused := errors.New("no")
	if _, _, err := f.CreateGroup(f.ctx, want, []int64{p[2].ID}, func(chat.Group) (*pb.Message, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	if of, err := f.GroupsOf(f.ctx, p[2].ID); err != nil || len(of) != 0 {
		t.Errorf("after a refusal carol is in %v, %v", of, err)
	}
	if _, err := f.Group(f.ctx, 1<<40); !errors.Is(err, chat.ErrNotFound) {
		t.Errorf("a group that is not: %v", err)
	}
	if _, _, err := f.Memberships(f.ctx, 1<<40, []int64{1}); !errors.Is(err, chat.ErrNotFound) {
		t.Errorf("a group that is not: %v", err)
	}
}

func (s suite) changeGroup(t *testing.T) {
	f := s.fixture(t)
	p := f.people("alice", "bob", "carol")
	a, b, c := p[0].ID, p[1].ID, p[2].ID
	g, _ := f.group(a, b)
	f.change(g.ID, []int64{c}, nil)
	f.change(g.ID, nil, []int64{b})
	check := func(version uint64, want ...chat.Membership) {
		t.Helper()
		got, found, err := f.Memberships(f.ctx, g.ID, []int64{c, b, a, 1 << 40})
		f.must(err)
		if got != version || !slices.Equal(found, want) {
			t.Errorf("version %d: %+v, want %d: %+v", got, found, version, want)
		}
	}
	ever := func(user int64, joined, left uint64) chat.Membership {
		return chat.Membership{User: user, Span: chat.Span{Joined: joined, Left: left}}
	}
	check(3, ever(c, 2, 0), ever(b, 1, 3), ever(a, 1, 0))
	f.change(g.ID, []int64{b}, []int64{c})
	check(4, ever(c, 2, 4), ever(b, 4, 0), ever(a, 1, 0))
	list, err := f.Members(f.ctx, g.ID, 0, 10)
	f.must(err)
	if len(list) != 2 || list[0].ID != a || list[0].Name != "alice" || list[1].ID != b {
		t.Errorf("members are %+v", list)
	}
	if page, err := f.Members(f.ctx, g.ID, a, 1); err != nil || len(page) != 1 || page[0].ID != b {
		t.Errorf("after alice: %+v, %v", page, err)
	}
	var was []chat.Span
	refused := wire.Errorf(pb.Code_CODE_FORBIDDEN, "no")
	_, _, err = f.ChangeGroup(f.ctx, g.ID, []int64{c, 1 << 40, a}, func(g chat.Group, spans []chat.Span) (chat.GroupChange, error) {
		was = slices.Clone(spans)
		return chat.GroupChange{Group: g}, refused
	})
	if !errors.Is(err, refused) || !slices.Equal(was, []chat.Span{{Joined: 2, Left: 4}, {}, {Joined: 1}}) {
		t.Errorf("decide got %+v, answered %v", was, err)
	}
	check(4, ever(c, 2, 4), ever(b, 4, 0), ever(a, 1, 0))
	if _, _, err := f.ChangeGroup(f.ctx, 1<<40, nil, nil); !errors.Is(err, chat.ErrNotFound) {
		t.Errorf("a group that is not: %v", err)
	}
}

func (s suite) changeGroupAtOnce(t *testing.T) {
	f := s.fixture(t)
	p := f.people("alice", "bob", "carol", "dora", "eve")
	g, _ := f.group(p[0].ID)
	atOnce(4, func(i int) {
		who := []int64{p[i+1].ID}
		for range 4 {
			for _, c := range [][2][]int64{{who, nil}, {nil, who}} {
				_, _, err := f.ChangeGroup(f.ctx, g.ID, who, func(g chat.Group, _ []chat.Span) (chat.GroupChange, error) {
					g.Version++
					return chat.GroupChange{Group: g, Join: c[0], Leave: c[1], Notice: groupNotice(g)}, nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	unsent, err := f.Unsent(f.ctx, wire.Group(g.ID), 1<<40, 100)
	f.must(err)
	for i, o := range unsent {
		if o.Version != uint64(i+1) || o.Message.GetPayload().GetGroup().GetVersion() != o.Version {
			t.Fatalf("row %d has version %d", i, o.Version)
		}
	}
	if len(unsent) != 33 {
		t.Errorf("%d outbox rows", len(unsent))
	}
}

// largeGroup: 10,000 members, of which one notice tells.
func (s suite) largeGroup(t *testing.T) {
	f := s.fixture(t)
	const n = 10_000
	members := make([]int64, n)
	for i := range members {
		members[i] = int64(i + 1)
	}
	g, _ := f.group(members...)
	version, found, err := f.Memberships(f.ctx, g.ID, members)
	f.must(err)
	if version != 1 || len(found) != n || found[n-1] != (chat.Membership{User: n, Span: chat.Span{Joined: 1}}) {
		t.Errorf("version %d, %d members", version, len(found))
	}
	if unsent, err := f.Unsent(f.ctx, "", 0, 10); err != nil || len(unsent) != 1 {
		t.Errorf("%d notices, %v", len(unsent), err)
	}
}

// readable: from one's own joining on, up to one's leaving.
func (s suite) readable(t *testing.T) {
	f := s.fixture(t)
	p := f.people("alice", "bob", "carol")
	a, b, c := p[0].ID, p[1].ID, p[2].ID
	g, made := f.group(a)
	conv := wire.Group(g.ID)
	check := func(user int64, pending bool, want ...chat.SeqSpan) {
		t.Helper()
		got, later, err := f.Readable(f.ctx, g.ID, user)
		f.must(err)
		if later != pending || !pending && !slices.Equal(got, want) {
			t.Errorf("user %d reads %+v, pending %t; want %+v, %t", user, got, later, want, pending)
		}
	}
	seq := func(offset int64) uint64 { return eventlog.Seq(1, offset) }
	check(a, true)
	check(b, false)
	joined := f.change(g.ID, []int64{b}, nil)
	f.write(1, at(made, 5), Message(conv, a, 6, "one"))
	check(a, false, chat.SeqSpan{From: seq(5), To: math.MaxUint64})
	check(b, true)
	left := f.change(g.ID, nil, []int64{b})
	f.write(1, at(joined, 7), Message(conv, b, 8, "two"))
	check(b, true)
	back := f.change(g.ID, []int64{b}, nil)
	f.write(1, at(left, 9), Message(conv, a, 10, "three"), at(joined, 11), at(back, 12)) // one is a copy
	check(b, false, chat.SeqSpan{From: seq(7), To: seq(9)}, chat.SeqSpan{From: seq(12), To: math.MaxUint64})
	check(c, false)
}

// groupHeads: a member counts from his joining on, whoever has left up to that.
func (s suite) groupHeads(t *testing.T) {
	f := s.fixture(t)
	p := f.people("alice", "bob", "carol")
	a, b, c := p[0].ID, p[1].ID, p[2].ID
	g, made := f.group(a, b)
	conv := wire.Group(g.ID)
	seq := func(offset int64) uint64 { return eventlog.Seq(1, offset) }
	want := func(user int64, head, read int64, unread uint32) {
		t.Helper()
		h := chat.Head{Conversation: conv, Seq: seq(head), ReadSeq: seq(read), Unread: unread}
		if got := f.head(user, conv); got != h {
			t.Errorf("user %d has %+v, want %+v", user, got, h)
		}
		all, err := f.Heads(f.ctx, user)
		f.must(err)
		if len(all) != 1 || all[0] != h {
			t.Errorf("user %d has heads %+v, want %+v", user, all, h)
		}
	}
	none := func(user int64) {
		t.Helper()
		if all, err := f.Heads(f.ctx, user); err != nil || len(all) != 0 {
			t.Errorf("user %d has heads %+v, %v", user, all, err)
		}
		if _, err := f.Head(f.ctx, user, conv); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("user %d's head: %v", user, err)
		}
		if _, err := f.MarkRead(f.ctx, user, conv, seq(99)); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("user %d marks: %v", user, err)
		}
	}
	none(a)
	f.write(1, at(made, 1), Message(conv, a, 2, "x"), Message(conv, b, 3, "x"), Message(conv, a, 4, "x"))
	want(a, 4, 1, 1)
	want(b, 4, 1, 2)
	none(c)
	joined := f.change(g.ID, []int64{c}, nil)
	none(c)
	f.write(1, at(joined, 5), Message(conv, a, 6, "x"), Message(conv, c, 7, "x"), Message(conv, b, 8, "x"))
	want(c, 8, 5, 2)
	h, err := f.MarkRead(f.ctx, c, conv, seq(6))
	f.must(err)
	if h.ReadSeq != seq(6) || h.Unread != 1 {
		t.Errorf("carol read 6: %+v", h)
	}
	left := f.change(g.ID, nil, []int64{c})
	f.write(1, at(left, 9), Message(conv, a, 10, "after"))
	want(c, 9, 6, 2) // and the notice
	if h, err := f.MarkRead(f.ctx, c, conv, seq(99)); err != nil || h.ReadSeq != seq(9) || h.Unread != 0 {
		t.Errorf("carol read all: %+v, %v", h, err)
	}
	back := f.change(g.ID, []int64{c}, nil)
	f.write(1, at(back, 11), Message(conv, c, 12, "x"), Message(conv, b, 13, "x"))
	want(c, 13, 11, 1)
	if h, err := f.MarkRead(f.ctx, b, conv, seq(99)); err != nil || h.Seq != seq(13) || h.Unread != 0 || h.ReadSeq != seq(13) {
		t.Errorf("bob read all: %+v, %v", h, err)
	}
	if h, err := f.MarkRead(f.ctx, b, conv, seq(2)); err != nil || h.ReadSeq != seq(13) {
		t.Errorf("bob read less: %+v, %v", h, err)
	}
}
