package groups_test

import (
	"slices"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/groups"
	"github.com/futurechat/future/router/chat"
)

// small drives an index by hand.
type small struct {
	t    *testing.T
	x    *groups.Index[uint64]
	now  time.Time
	last map[int64]groups.LoadMembers // by group
	of   map[int64]groups.LoadGroups  // by user
	got  []uint64                     // to whom the last message went
}

func newSmall(t *testing.T) *small {
	return &small{
		t: t, x: groups.New[uint64](groups.Options{}), now: time.Unix(1e9, 0), last: map[int64]groups.LoadMembers{}, of: map[int64]groups.LoadGroups{},
	}
}

func (s *small) step(e groups.Event) {
	s.t.Helper()
	s.got = nil
	for _, effect := range s.x.Step(s.now, e) {
		switch e := effect.(type) {
		case groups.LoadMembers:
			s.last[e.Group] = e
		case groups.LoadGroups:
			s.of[e.User] = e
		case groups.Deliver[uint64]:
			s.got = append(s.got, e.To...)
		}
	}
}

// enter has a user be there by a connection of the same number, in group 7.
func (s *small) enter(user int64) {
	s.step(groups.Entered[uint64]{Connection: uint64(user), User: user})
	s.step(groups.GroupsLoaded{ID: s.of[user].ID, User: user, Groups: []int64{7}})
}

// spans answers the last read of group 7's members.
func (s *small) spans(version uint64, members ...chat.Membership) {
	s.step(groups.MembersLoaded{ID: s.last[7].ID, Version: version, Members: members})
}

// A read of the spans of somebody who has just logged in is answered late: meanwhile he was taken out, and the notice, being of the
// very next version, was applied without a read.
func TestIndex_ANoticeOvertakesARead_WhoWasTakenOutGetsNothing(t *testing.T) {
	s := newSmall(t)
	open := chat.Span{Joined: 1}
	s.enter(1)
	s.step(groups.Registered{Group: 7})
	s.spans(5, chat.Membership{User: 1, Span: open})
	s.enter(2) // the read that is under way now sees version 5
	s.step(groups.Fence{Group: 7, Version: 6})
	notice := &pb.GroupNotice{Change: pb.GroupNotice_CHANGE_REMOVED, Subjects: []*pb.User{{Id: wire.FormatID(2)}}, Count: 1, Version: 6}
	s.step(groups.Message[uint64]{Group: 7, Version: 6, Frame: []byte("notice"), Notice: notice, To: []uint64{2}})
	s.spans(5, chat.Membership{User: 2, Span: open})
	s.step(groups.Message[uint64]{Group: 7, Version: 6, Frame: []byte("after")})
	if slices.Contains(s.got, 2) {
		t.Fatal("who was taken out got a message that came after")
	}
	s.spans(6, chat.Membership{User: 2, Span: chat.Span{Joined: 1, Left: 6}})
	s.step(groups.Message[uint64]{Group: 7, Version: 6, Frame: []byte("later")})
	if !slices.Equal(s.got, []uint64{1}) {
		t.Fatalf("a message went to %v", s.got)
	}
}

// The notice by which somebody here became a member was dropped, and nobody else here is one.
func TestIndex_ANoticeWasDropped_WhoJoinedIsFound(t *testing.T) {
	s := newSmall(t)
	s.step(groups.Entered[uint64]{Connection: 2, User: 2})
	s.step(groups.GroupsLoaded{ID: s.of[2].ID, User: 2})
	s.step(groups.Missed{Group: 7, Notice: true})
	s.spans(3, chat.Membership{User: 2, Span: chat.Span{Joined: 3}}) // who of all is in it
	s.step(groups.Registered{Group: 7})
	s.spans(3, chat.Membership{User: 2, Span: chat.Span{Joined: 3}})
	s.step(groups.Message[uint64]{Group: 7, Version: 3, Frame: []byte("hello")})
	if !slices.Equal(s.got, []uint64{2}) {
		t.Fatalf("a message went to %v", s.got)
	}
}

// The last member here leaves while the notice of another's joining waits: the group is not given up under him.
func TestIndex_TheLastLeavesWhileANoticeWaits_WhoJoinedStays(t *testing.T) {
	s := newSmall(t)
	s.enter(1)
	s.step(groups.Registered{Group: 7}) // and the read of his span is not answered
	s.step(groups.Entered[uint64]{Connection: 2, User: 2})
	s.step(groups.GroupsLoaded{ID: s.of[2].ID, User: 2})
	notice := &pb.GroupNotice{Change: pb.GroupNotice_CHANGE_JOINED, Subjects: []*pb.User{{Id: wire.FormatID(2)}}, Count: 1, Version: 5}
	s.step(groups.Message[uint64]{Group: 7, Version: 5, Frame: []byte("notice"), Notice: notice, To: []uint64{2}})
	s.step(groups.Ended[uint64]{Connection: 1})
	s.spans(5, chat.Membership{User: 1, Span: chat.Span{Joined: 1}})
	s.spans(5, chat.Membership{User: 2, Span: chat.Span{Joined: 5}})
	s.now = s.now.Add(2 * time.Minute)
	s.step(groups.Tick{})
	s.step(groups.Message[uint64]{Group: 7, Version: 5, Frame: []byte("hello")})
	if !slices.Equal(s.got, []uint64{2}) {
		t.Fatalf("a message went to %v", s.got)
	}
}

// Presence tells of a registration that the index has given up meanwhile: that is not the one that it asked for since.
func TestIndex_ALateWordOfAnOldRegistration_IsNotTheNewOnes(t *testing.T) {
	s := newSmall(t)
	s.enter(1)
	s.step(groups.Registered{Group: 7})
	s.spans(5, chat.Membership{User: 1, Span: chat.Span{Joined: 1}})
	s.step(groups.Ended[uint64]{Connection: 1})
	s.now = s.now.Add(2 * time.Minute)
	s.step(groups.Tick{})
	delete(s.last, 7)
	s.enter(2)
	s.step(groups.Registered{Group: 7, Lost: true})
	if _, read := s.last[7]; read {
		t.Fatal("a span was read before the node was registered for the group")
	}
	s.step(groups.Registered{Group: 7})
	if _, read := s.last[7]; !read {
		t.Fatal("no span is read")
	}
}
