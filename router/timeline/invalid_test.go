package timeline_test

import (
	"errors"
	"testing"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/chat/chattest"
	"github.com/futurechat/future/router/eventlog"
)

// sendChecked appends a message that was checked against a version when the log ended at from at least; version 0 makes it the
// notice that ends the friendship by version 3.
func (w *world) sendChecked(text string, version uint64, from int64) {
	w.Helper()
	m := chattest.Message(talk, 1, 0, text)
	m.Seq, m.TimeMs = 0, 0
	if version == 0 {
		m.Payload = &pb.Payload{Kind: &pb.Payload_Friend{Friend: &pb.FriendNotice{Change: pb.FriendNotice_CHANGE_REMOVED, Version: 3}}}
	}
	entry, err := chat.Record{Kind: chat.KindMessage, Message: m, Checked: version != 0, Version: version, CheckedFrom: from}.Entry(1)
	w.must(err)
	w.must(w.log.Append(entry, func(at eventlog.Appended, err error) {
		w.must(err)
		w.end = at.Offset + 1
	}))
	for w.log.Step() {
	}
}

// What is read from the log has no message that stands behind the end of its sender's right, wherever that end is.
func TestHistory_WhatIsInvalidIsNotReadFromTheLog(t *testing.T) {
	w := newWorld(t, 10)
	w.sendChecked("before", 2, 0)
	w.sendChecked("", 0, 0)
	w.sendChecked("behind", 2, 0)
	w.sendChecked("anew", 5, 1)
	for from := range int64(3) { // history has nothing, or all up to the end of the friendship, or more
		if from > 0 {
			_, err := w.store.WriteBatch(t.Context(), chat.Batch{Topic: chat.TopicMessages, From: from - 1, Next: from})
			w.must(err)
		}
		a, err := w.reader.History(t.Context(), 2, &pb.HistoryRequest{Conversation: talk, Limit: 50})
		w.must(err)
		var got []string
		for _, m := range a.GetMessages() {
			got = append(got, m.GetPayload().GetText().GetText())
		}
		if n := len(got); n != 3-int(from) || got[n-1] != "anew" {
			t.Errorf("history at %d: the log is read as %q", from, got)
		}
	}
	w.away["presence"] = true
	heads, err := w.reader.Heads(t.Context(), 2)
	w.must(err)
	if len(heads) != 1 || heads[0].GetUnread() != 1 || heads[0].GetSeq() != eventlog.Seq(1, 3) {
		t.Errorf("heads %v", heads)
	}
}

// If it lies too far below, it is told that the page is to be had later, not guessed.
func TestHistory_AnEndTooFarBelowIsPending(t *testing.T) {
	w := newWorld(t, 2)
	for range 5 {
		w.say(1, "x")
	}
	w.sendChecked("late", 2, 0)
	_, err := w.store.WriteBatch(t.Context(), chat.Batch{Topic: chat.TopicMessages, Next: 5})
	w.must(err)
	if _, err := w.reader.History(t.Context(), 2, &pb.HistoryRequest{Conversation: talk, Limit: 50}); !errors.Is(err, wire.ErrPending) {
		t.Errorf("got %v", err)
	}
}
