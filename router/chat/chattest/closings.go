package chattest

import (
	"slices"
	"testing"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

// closing is the notice that ends a friendship by a version.
func closing(conversation string, sender, offset int64, version uint64) *pb.Message {
	m := Message(conversation, sender, offset, "")
	m.Payload = &pb.Payload{Kind: &pb.Payload_Friend{Friend: &pb.FriendNotice{
		Change: pb.FriendNotice_CHANGE_REMOVED, By: m.GetSender(), To: &pb.User{Id: "2", Name: "b"}, Version: version,
	}}}
	return m
}

// checkedBatch is a batch whose messages were checked against versions; 0: a notice, or of a program that did not say.
func checkedBatch(from, next int64, messages []*pb.Message, versions ...uint64) chat.Batch {
	b := batch(from, next, messages...)
	for _, v := range versions {
		b.Checks = append(b.Checks, chat.Check{Checked: v != 0, Version: v})
	}
	return b
}

func (f *fixture) wantWritten(want chat.Written, b chat.Batch) {
	f.Helper()
	got, err := f.WriteBatch(f.ctx, b)
	f.must(err)
	if got != want {
		f.Errorf("from %d: %+v, want %+v", b.From, got, want)
	}
}

// What stands behind the end of its sender's right is not stored, whether the end is in the same batch or came long before.
func (s suite) invalid(t *testing.T) {
	f := s.fixture(t)
	const c = "d:1:2"
	before, end, behind := Message(c, 1, 0, "before"), closing(c, 2, 1, 3), Message(c, 1, 2, "behind")
	anew, old := Message(c, 1, 3, "of the friendship after it"), Message(c, 2, 4, "of a program that says nothing")
	elsewhere := Message("d:1:3", 1, 5, "elsewhere")
	f.wantWritten(chat.Written{Invalid: 1},
		checkedBatch(0, 6, []*pb.Message{before, end, behind, anew, old, elsewhere}, 2, 0, 2, 5, 0, 2))
	f.wantWritten(chat.Written{Invalid: 2},
		checkedBatch(6, 9, []*pb.Message{Message(c, 1, 6, "late"), Message(c, 2, 7, "late too"), Message("d:1:3", 1, 8, "elsewhere")}, 2, 1, 2))
	page := f.page(c)
	if got := texts(page); got != texts([]*pb.Message{before, end, anew, old}) {
		t.Fatalf("stored are %s", got)
	}
	f.chained(page, 0) // prev_seq joins valid ones
	// 1 sees unread what 2 wrote: the notice and the old one; 2 what 1 did.
	if a, b := f.head(1, c), f.head(2, c); a.Unread != 2 || b.Unread != 2 || a.Seq != old.GetSeq() {
		t.Errorf("heads %+v and %+v", a, b)
	}
	// A second end, and a copy of the first behind it: the higher counts.
	f.wantWritten(chat.Written{Duplicates: 1, Invalid: 1},
		checkedBatch(9, 12, []*pb.Message{closing(c, 2, 9, 7), again(end, 10), Message(c, 1, 11, "of the one between")}, 0, 0, 5))
	f.wantWritten(chat.Written{Invalid: 1}, checkedBatch(12, 13, []*pb.Message{Message(c, 1, 12, "later")}, 5))
}

// An invalid message is no first of its identity: what is sent again when the right is back is stored.
func (s suite) invalidIsNoFirst(t *testing.T) {
	f := s.fixture(t)
	const c = "d:1:2"
	first := Message(c, 1, 1, "a")
	f.wantWritten(chat.Written{Invalid: 1}, checkedBatch(0, 3, []*pb.Message{closing(c, 2, 0, 3), first, again(first, 2)}, 0, 2, 5))
	second := Message(c, 1, 3, "b")
	f.wantWritten(chat.Written{Invalid: 1}, checkedBatch(3, 4, []*pb.Message{second}, 2))
	if _, err := f.FindMessage(f.ctx, chat.IdentityOf(second)); err == nil {
		t.Error("an invalid message is found")
	}
	f.wantWritten(chat.Written{}, checkedBatch(4, 5, []*pb.Message{again(second, 4)}, 5))
	// The copy of a valid one is a duplicate, invalid or not.
	f.wantWritten(chat.Written{Duplicates: 1}, checkedBatch(5, 6, []*pb.Message{again(second, 5)}, 5))
	got := f.page(c)
	if !slices.EqualFunc(got[1:], []*pb.Message{again(first, 2), again(second, 4)}, func(a, b *pb.Message) bool {
		return a.GetSeq() == b.GetSeq() && a.GetClientMsgId() == b.GetClientMsgId()
	}) {
		t.Errorf("stored are %s", texts(got))
	}
}

// A conversation whose only message is invalid is nobody's.
func (s suite) invalidAlone(t *testing.T) {
	f := s.fixture(t)
	const c = "d:1:2"
	f.wantWritten(chat.Written{}, checkedBatch(0, 1, []*pb.Message{closing(c, 2, 0, 3)}, 0))
	f.wantWritten(chat.Written{}, batch(1, 2))
	f.wantWritten(chat.Written{Invalid: 1}, checkedBatch(2, 3, []*pb.Message{Message(c, 1, 2, "x")}, 2))
	if got := f.page(c); len(got) != 1 || got[0].GetPayload().GetFriend().GetVersion() != 3 {
		t.Errorf("stored are %v", got)
	}
}
