package groups

import (
	"testing"
	"time"

	"github.com/futurechat/future/router/chat"
)

// A group in which nobody writes takes no more memory for all who came and went.
func TestIndex_PeopleComeAndGo_NothingIsKept(t *testing.T) {
	x := New[uint64](Options{})
	now := time.Unix(1e9, 0)
	read := map[int64]uint64{} // by user: his groups; 0: the members
	step := func(e Event) {
		for _, effect := range x.Step(now, e) {
			switch e := effect.(type) {
			case LoadGroups:
				read[e.User] = e.ID
			case LoadMembers:
				read[0] = e.ID
			}
		}
	}
	enter := func(connection uint64, user int64) {
		step(Entered[uint64]{Connection: connection, User: user})
		step(GroupsLoaded{ID: read[user], User: user, Groups: []int64{7}})
		step(Registered{Group: 7})
		step(MembersLoaded{ID: read[0], Version: 1, Members: []chat.Membership{{User: user, Span: chat.Span{Joined: 1}}}})
	}
	enter(1, 1) // stays
	for i := range uint64(1000) {
		enter(i+2, 2)
		step(Ended[uint64]{Connection: i + 2})
	}
	if n := len(x.groups[7].order); n > 4 {
		t.Errorf("%d members are kept of one", n)
	}
}
