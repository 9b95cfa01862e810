package outbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/chat/chattest"
	"github.com/futurechat/future/router/outbox"
)

// remove commits the end of a friendship with its row.
func (f *fixture) remove(lo, hi int64) chat.Outgoing {
	f.Helper()
	_, out, err := f.store.ChangePair(f.Context(), lo, hi, func(p chat.Pair) (chat.Pair, *pb.Message, error) {
		p.State = chat.PairNone
		p.Version++
		m := chattest.Message(wire.Direct(lo, hi), lo, 0, "")
		m.Seq, m.TimeMs = 0, 0
		m.Payload = &pb.Payload{Kind: &pb.Payload_Friend{Friend: &pb.FriendNotice{Change: pb.FriendNotice_CHANGE_REMOVED, Version: p.Version}}}
		return p, m, nil
	})
	f.must(err)
	return out
}

func TestPublish_TheEndOfARightIsFencedBeforeItIsProduced(t *testing.T) {
	f := newFixture(t)
	var failure error
	var fenced []chat.Closing
	o := outbox.Options{Store: f.store, Log: f.log, Partitions: partitions, Fence: func(_ context.Context, conversation string, version uint64) error {
		for _, rec := range f.records(conversation) {
			r, err := chat.ParseRecord(1, rec)
			f.must(err)
			if c, closes := chat.ClosingOf(r.Message); closes && c.Version == version {
				t.Error("produced before it was fenced")
			}
		}
		fenced = append(fenced, chat.Closing{Conversation: conversation, Version: version})
		return failure
	}}
	p, err := outbox.New(o)
	f.must(err)
	f.change(1, 2)
	out := f.remove(1, 2)
	failure = errors.New("a node is silent")
	if err := p.Publish(t.Context(), "d:1:2", out.Version); !errors.Is(err, failure) {
		t.Fatalf("published without a fence: %v", err)
	}
	if n := len(f.records("d:1:2")); n != 1 || f.unsent() != 1 {
		t.Fatalf("%d records, %d rows left: only the one before it was to go", n, f.unsent())
	}
	failure = nil
	f.must(p.Publish(t.Context(), "d:1:2", out.Version))
	if n := len(f.records("d:1:2")); n != 2 || f.unsent() != 0 {
		t.Errorf("%d records, %d rows left", n, f.unsent())
	}
	want := chat.Closing{Conversation: "d:1:2", Version: 2}
	if len(fenced) != 2 || fenced[0] != want || fenced[1] != want {
		t.Errorf("fenced %v", fenced)
	}

	o.Fence = nil
	bare, err := outbox.New(o)
	f.must(err)
	again := f.remove(1, 2)
	if err := bare.Publish(t.Context(), "d:1:2", again.Version); err == nil || f.unsent() != 1 {
		t.Error("without a way to fence the end of a right was produced")
	}
}
