package history

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

func message(conversation string, sender int64, text string) *pb.Message {
	return &pb.Message{
		Conversation: conversation, ClientMsgId: wire.NewMessageID(), Sender: &pb.User{Id: wire.FormatID(sender), Name: "anna"},
		Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: text}}},
	}
}

func record(t testing.TB, offset int64, kind chat.Kind, m *pb.Message) eventlog.Record {
	t.Helper()
	e, err := chat.Record{Kind: kind, Message: m}.Entry(1)
	if err != nil {
		t.Fatal(err)
	}
	return eventlog.Record{Offset: offset, Time: time.UnixMilli(1000 + offset), Key: e.Key, Value: e.Value, Headers: e.Headers}
}

func TestMakeBatch_EveryRecordIsAMessageOrDead(t *testing.T) {
	const secret = "text that no reason may tell"
	broken := func(change func(*pb.Message)) *pb.Message {
		m := proto.Clone(message("d:1:2", 1, secret)).(*pb.Message)
		change(m)
		return m
	}
	dead := map[string]eventlog.Record{
		"unknown kind":    record(t, 0, "future", message("d:1:2", 1, secret)),
		"no kind":         {Value: []byte(secret)},
		"garbage":         {Value: []byte(secret), Headers: []eventlog.Header{{Key: "k", Value: []byte("m")}}},
		"conversation":    record(t, 0, chat.KindMessage, broken(func(m *pb.Message) { m.Conversation = "d:2:1" })),
		"no payload":      record(t, 0, chat.KindMessage, broken(func(m *pb.Message) { m.Payload = nil })),
		"new payload":     record(t, 0, chat.KindMessage, broken(func(m *pb.Message) { m.Payload = &pb.Payload{} })),
		"text not UTF-8":  record(t, 0, chat.KindMessage, broken(func(m *pb.Message) { m.Payload.GetText().Text += "\xff" })),
		"name not UTF-8":  record(t, 0, chat.KindMessage, broken(func(m *pb.Message) { m.Sender.Name = "\xff" })),
		"long text":       record(t, 0, chat.KindMessage, broken(func(m *pb.Message) { m.Payload.GetText().Text = strings.Repeat("x", wire.MaxTextBytes+1) })),
		"long name":       record(t, 0, chat.KindMessage, broken(func(m *pb.Message) { m.Sender.Name = strings.Repeat("x", 33) })),
		"reply to nobody": record(t, 0, chat.KindMessage, broken(func(m *pb.Message) { m.ReplyTo = &pb.Ref{SenderId: "0"} })),
		"reply to no id":  record(t, 0, chat.KindMessage, broken(func(m *pb.Message) { m.ReplyTo = &pb.Ref{SenderId: "1"} })),
	}
	for name, r := range dead {
		t.Run(name, func(t *testing.T) {
			r.Offset, r.Partition = 7, 3
			good := record(t, 9, chat.KindMessage, message("d:1:2", 2, "fine"))
			good.Partition = 3
			b := makeBatch("t", 2, 5, []eventlog.Record{r, good})
			if b.Topic != "t" || b.Partition != 3 || b.From != 5 || b.Next != 10 {
				t.Fatalf("%+v", b)
			}
			if len(b.Messages) != 1 || b.Messages[0].GetSeq() != eventlog.Seq(2, 9) || b.Messages[0].GetTimeMs() != 1009 {
				t.Fatalf("messages %v", b.Messages)
			}
			if len(b.Dead) != 1 || b.Dead[0].Offset != 7 || b.Dead[0].Partition != 3 || string(b.Dead[0].Value) != string(r.Value) {
				t.Fatalf("dead %+v", b.Dead)
			}
			if b.Dead[0].Reason == "" || strings.Contains(b.Dead[0].Reason, secret) {
				t.Fatalf("reason %q", b.Dead[0].Reason)
			}
		})
	}
}

func TestTake_KeepsTheBounds(t *testing.T) {
	r := eventlog.Record{Value: make([]byte, 10)}
	five := []eventlog.Record{r, r, r, r, r}
	for _, test := range []struct{ most, bytes, want int }{{5, 1000, 5}, {3, 1000, 3}, {5, 20, 2}, {5, 29, 2}, {5, 30, 3}, {5, 1, 1}, {1, 1, 1}} {
		if got := take(five, test.most, test.bytes); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
	if take(nil, 1, 1) != 0 {
		t.Error("none of none")
	}
}

func TestMakeBatch_SaysWhatWasChecked(t *testing.T) {
	checked, err := chat.Record{Kind: chat.KindMessage, Message: message("d:1:2", 1, "x"), Checked: true, Version: 7, CheckedFrom: 3}.Entry(1)
	if err != nil {
		t.Fatal(err)
	}
	records := []eventlog.Record{
		record(t, 5, chat.KindMessage, message("d:1:2", 1, "x")), {Offset: 6, Value: []byte("dead")},
		{Offset: 7, Key: checked.Key, Value: checked.Value, Headers: checked.Headers},
	}
	b := makeBatch("t", 1, 5, records)
	if len(b.Messages) != 2 || len(b.Checks) != 2 || b.Checks[0] != (chat.Check{}) || b.Checks[1] != (chat.Check{Checked: true, Version: 7}) {
		t.Errorf("%v with %+v", b.Messages, b.Checks)
	}
}
