package node

import (
	"slices"
	"testing"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/groups"
)

// A queue of groups' messages that is full drops none in silence: whom a notice was for as a person compares, and the index looks who
// has joined.
func TestGroupLoop_Full_NoticesAreLookedFor(t *testing.T) {
	r := newRig(t)
	c, conn, _ := r.enter(1, "alice")
	l := newGroupLoop(r.node) // nobody runs it
	for range queuedMessages {
		l.post(groups.Message[*Client]{Group: 7, Version: 1})
	}
	l.post(groups.Message[*Client]{Group: 7, Version: 1})
	for range 2 {
		l.post(groups.Message[*Client]{Group: 7, Version: 2, Notice: &pb.GroupNotice{}, To: []*Client{c}})
	}
	conn.await(func(e *pb.Envelope) bool { return e.GetCompareHeads() != nil })
	got := l.take()[queuedMessages:]
	want := []groups.Event{groups.Missed{Group: 7}, groups.Missed{Group: 7, Notice: true}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
