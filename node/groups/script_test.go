package groups_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/groups"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/presence"
)

// script gives an Index events one by one, and says what it wants done.
type script struct {
	*testing.T
	x    *groups.Index[uint64]
	now  time.Time
	read uint64 // the last read of members that it asked for
}

// newScript is an Index with users 1 and 2, on connections of the same numbers, in group 7 at version 4.
func newScript(t *testing.T) *script {
	s := &script{T: t, x: groups.New[uint64](groups.Options{}), now: time.Unix(1e9, 0)}
	s.step(groups.Tick{}, fmt.Sprint("register ", presence.AllNodes))
	s.step(groups.Entered[uint64]{Connection: 1, User: 1}, "groups of 1")
	s.step(groups.Entered[uint64]{Connection: 2, User: 2}, "groups of 2")
	s.step(groups.GroupsLoaded{ID: 1, User: 1, Groups: []int64{7}}, "register 7")
	s.step(groups.GroupsLoaded{ID: 2, User: 2, Groups: []int64{7}})
	s.step(groups.Registered{Group: 7}, "members [1 2]")
	s.known(4, map[int64]chat.Span{1: {Joined: 1}, 2: {Joined: 1}}, "ready 1", "ready 2")
	return s
}

func (s *script) step(e groups.Event, want ...string) {
	s.Helper()
	var got []string
	for _, effect := range s.x.Step(s.now, e) {
		switch e := effect.(type) {
		case groups.LoadGroups:
			got = append(got, fmt.Sprint("groups of ", e.User))
		case groups.LoadMembers:
			s.read = e.ID
			got = append(got, fmt.Sprint("members ", e.Users))
		case groups.RegisterGroup:
			got = append(got, fmt.Sprint("register ", e.Group))
		case groups.Ready[uint64]:
			got = append(got, fmt.Sprint("ready ", e.Connection))
		case groups.Deliver[uint64]:
			got = append(got, fmt.Sprint(string(e.Frame), " to ", e.To))
		default:
			got = append(got, fmt.Sprintf("%T%+v", effect, effect))
		}
	}
	if g, w := strings.Join(got, ", "), strings.Join(want, ", "); g != w {
		s.Fatalf("%T%+v: wants %q done, not %q", e, e, g, w)
	}
}

// known answers the last read of members.
func (s *script) known(version uint64, spans map[int64]chat.Span, want ...string) {
	s.Helper()
	var found []chat.Membership
	for _, u := range []int64{1, 2} {
		if span, ok := spans[u]; ok {
			found = append(found, chat.Membership{User: u, Span: span})
		}
	}
	s.step(groups.MembersLoaded{ID: s.read, Version: version, Members: found}, want...)
}

func (s *script) message(version uint64, want ...string) {
	s.Helper()
	s.step(groups.Message[uint64]{Group: 7, Version: version, Frame: []byte("m")}, want...)
}

// Of 2, who has left by version 5, nothing is known here yet.
var twoLeft = map[int64]chat.Span{1: {Joined: 1}, 2: {Joined: 1, Left: 5}}

// A node that was told of no fence, since it was cut off, must not deliver by what it knew before.
func TestIndex_WhatIsAsOfAHigherVersionWaitsForARead(t *testing.T) {
	s := newScript(t)
	s.message(4, "m to [1 2]")
	s.message(5, "members [1 2]")
	s.known(5, twoLeft, "m to [1]")
	s.message(5, "m to [1]")
}

func TestIndex_AFenceOutdatesWhatIsKnown(t *testing.T) {
	s := newScript(t)
	s.step(groups.Fence{Group: 7, Version: 5})
	s.message(4, "members [1 2]")
	s.message(4)
	s.known(5, twoLeft, "m to [1]", "m to [1]")
}

// While it had no lease nobody had to tell it of an end.
func TestIndex_ANewLeaseOutdatesWhatIsKnown(t *testing.T) {
	s := newScript(t)
	s.step(groups.Renewed{})
	s.message(4, "members [1 2]")
	s.known(5, twoLeft, "m to [1]")
}

// A read that began under the lease before says nothing of what ended in between.
func TestIndex_AReadOfALeaseBeforeDoesNotCount(t *testing.T) {
	s := newScript(t)
	s.message(5, "members [1 2]")
	s.step(groups.Renewed{})
	s.known(5, map[int64]chat.Span{1: {Joined: 1}, 2: {Joined: 1}}, "members [1 2]")
	s.known(5, twoLeft, "m to [1]")
}

// Who joins while his first group is being read, and found no node, is in what is read after the registration (I4).
func TestI4_Index_MembersAreReadOnceTheNodeIsRegistered(t *testing.T) {
	s := newScript(t)
	joined := &pb.GroupNotice{Change: pb.GroupNotice_CHANGE_JOINED, Version: 2, Count: 1, Subjects: []*pb.User{{Id: wire.FormatID(1)}}}
	s.step(groups.Message[uint64]{Group: 8, Version: 2, Frame: []byte("n"), Notice: joined, To: []uint64{1}}, "n to [1]", "register 8")
	s.step(groups.Registered{Group: 8}, "members [1]")
	s.step(groups.MembersLoaded{ID: s.read, Err: errors.New("away")})
	s.now = s.now.Add(time.Second)
	s.step(groups.Tick{}, "members [1]")
	s.known(2, map[int64]chat.Span{1: {Joined: 2}}, "groups.Compare[uint64]{To:[1]}")
}
