package chat_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/chat/chattest"
	"github.com/futurechat/future/router/eventlog"
)

func TestRecord_ComesBackAsItWas(t *testing.T) {
	for _, resend := range []bool{false, true} {
		m := chattest.Message("d:1:2", 1, 0, "%s 🙂")
		m.Seq, m.TimeMs = 0, 0
		m.ReplyTo = &pb.Ref{SenderId: "2", ClientMsgId: wire.NewMessageID()}
		e, err := chat.Record{Kind: chat.KindMessage, Message: m, Resend: resend, SearchFrom: 77, Checked: resend, Version: 5, CheckedFrom: 70}.Entry(16)
		if err != nil {
			t.Fatal(err)
		}
		if e.Partition != eventlog.PartitionOf("d:1:2", 16) || string(e.Key) != "d:1:2" || e.Topic != chat.TopicMessages {
			t.Fatalf("got %+v", e)
		}
		at := time.UnixMilli(123456)
		r, err := chat.ParseRecord(3, eventlog.Record{Partition: e.Partition, Offset: 9, Time: at, Value: e.Value, Headers: e.Headers})
		if err != nil {
			t.Fatal(err)
		}
		m.Seq, m.TimeMs = eventlog.Seq(3, 9), 123456
		if r.Kind != chat.KindMessage || r.Resend != resend || resend && r.SearchFrom != 77 || r.Checked != resend ||
			resend && (r.Version != 5 || r.CheckedFrom != 70) || !r.Message.EqualVT(m) {
			t.Fatalf("got %+v", r)
		}
	}
}

func TestParseRecord_UnknownKindsPassAndBadOnesAreBad(t *testing.T) {
	good, err := chattest.Message("d:1:2", 1, 0, "x").MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	kind := func(k string) eventlog.Header { return eventlog.Header{Key: "k", Value: []byte(k)} }
	if r, err := chat.ParseRecord(1, eventlog.Record{Value: []byte{0xff}, Headers: []eventlog.Header{kind("later")}}); err != nil || r.Message != nil || r.Kind != "later" {
		t.Fatalf("%+v, %v", r, err)
	}
	change := func(f func(m *pb.Message)) []byte {
		m := chattest.Message("d:1:2", 1, 0, "x")
		f(m)
		b, err := m.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, rec := range map[string]eventlog.Record{
		"no message":   {Value: []byte{0xff}, Headers: []eventlog.Header{kind("m")}},
		"empty":        {Headers: []eventlog.Header{kind("m")}},
		"resend":       {Value: good, Headers: []eventlog.Header{kind("m"), {Key: "r", Value: []byte("x")}}},
		"rule":         {Value: good, Headers: []eventlog.Header{kind("m"), {Key: "v", Value: []byte("5")}}},
		"conversation": {Value: change(func(m *pb.Message) { m.Conversation = "d:2:1" }), Headers: []eventlog.Header{kind("m")}},
		"sender":       {Value: change(func(m *pb.Message) { m.Sender = nil }), Headers: []eventlog.Header{kind("m")}},
		"id":           {Value: change(func(m *pb.Message) { m.ClientMsgId = "x" }), Headers: []eventlog.Header{kind("m")}},
	} {
		if _, err := chat.ParseRecord(1, rec); !errors.Is(err, chat.ErrBadRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	text := chattest.Message("d:1:2", 1, 0, "hello")
	text.ClientMsgId = "018f3c1e-7b2a-7c3d-8e4f-5a6b7c8d9e0f"
	notice := chattest.Message("d:1:2", 2, 0, "")
	notice.Payload = &pb.Payload{Kind: &pb.Payload_Friend{Friend: &pb.FriendNotice{Change: 1, By: &pb.User{Id: "1", Name: "a"}, Version: 3}}}
	for _, m := range []*pb.Message{text, notice, {}, {Conversation: "g:1", Sender: &pb.User{Id: "01"}}} {
		value, err := m.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add("m", "", value)
		f.Add("m", "12", value)
		f.Add("other", "-1", value[:len(value)/2])
	}
	f.Fuzz(func(t *testing.T, kind, resend string, value []byte) {
		rec := eventlog.Record{Offset: 5, Time: time.UnixMilli(9), Value: bytes.Clone(value), Headers: []eventlog.Header{{Key: "k", Value: []byte(kind)}}}
		if resend != "" {
			rec.Headers = append(rec.Headers, eventlog.Header{Key: "r", Value: []byte(resend)})
		}
		r, err := chat.ParseRecord(1, rec)
		if err != nil {
			if !errors.Is(err, chat.ErrBadRecord) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(rec.Value, value) {
			t.Fatal("the record was changed")
		}
		if r.Message == nil {
			if r.Kind == chat.KindMessage {
				t.Fatal("a message without a message")
			}
			return
		}
		// What was read can be written and is the same then.
		id := chat.IdentityOf(r.Message)
		if id.Sender <= 0 || r.Message.GetSeq() != eventlog.Seq(1, 5) || r.Message.GetTimeMs() != 9 {
			t.Fatalf("got %+v", r)
		}
		e, err := r.Entry(8)
		if err != nil {
			t.Fatal(err)
		}
		again, err := chat.ParseRecord(1, eventlog.Record{Offset: 5, Time: time.UnixMilli(9), Value: e.Value, Headers: e.Headers})
		if err != nil || chat.IdentityOf(again.Message) != id || !chat.SameContent(again.Message, r.Message) || again.SearchFrom != r.SearchFrom {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}
