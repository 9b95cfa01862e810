package deliver_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/presence"
)

// groupRecord is a record of group 7: a notice if change is set, else a message that was checked against version.
func groupRecord(t testing.TB, offset int64, version uint64, change pb.GroupNotice_Change, count int, subjects ...int64) eventlog.Record {
	m := &pb.Message{
		Conversation: "g:7", Sender: &pb.User{Id: "1"}, ClientMsgId: messageID(int(offset)),
		Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: "hi"}}},
	}
	r := chat.Record{Kind: chat.KindMessage, Message: m, Checked: true, Version: version, CheckedFrom: offset}
	if change != 0 {
		n := &pb.GroupNotice{Change: change, Version: version, Count: uint32(count)}
		for _, u := range subjects {
			n.Subjects = append(n.Subjects, &pb.User{Id: wire.FormatID(u)})
		}
		m.Payload = &pb.Payload{Kind: &pb.Payload_Group{Group: n}}
		r.Checked, r.Version = false, 0
	}
	e, err := r.Entry(1)
	if err != nil {
		t.Fatal(err)
	}
	return eventlog.Record{Offset: offset, Time: began, Key: e.Key, Value: e.Value, Headers: e.Headers}
}

// group takes records up to where they are located, and says what is asked for.
func (r *rig) group(want string, rs ...eventlog.Record) {
	r.t.Helper()
	r.p.Step(r.now, deliver.Records{Records: rs})
	effects := r.p.Step(r.now, appended(len(rs)))
	l, ok := effects[0].(deliver.Locate)
	if got := fmt.Sprint(l.Users, l.Groups); !ok || got != want {
		r.t.Fatalf("asks for %s, want %s", got, want)
	}
}

// found answers, and gives what each node is sent: of each message offset, version and as whom besides.
func (r *rig) found(places, nodes [][]presence.Place) (sent []string) {
	r.t.Helper()
	for _, e := range r.p.Step(r.now, deliver.Located{Places: places, Nodes: nodes}) {
		f := e.(deliver.Send).Forward
		s := f.Incarnation
		for _, m := range f.Messages {
			_, offset := eventlog.SplitSeq(m.Seq)
			s += fmt.Sprintf(" %d@%d", offset, m.Version)
			if m.Group != 7 {
				r.t.Errorf("message %d is of group %d", offset, m.Group)
			}
			for _, to := range m.Recipients {
				s += fmt.Sprintf("+%d", to.User)
			}
		}
		sent = append(sent, s)
	}
	return sent
}

func nodes(incarnations ...string) (all []presence.Place) {
	for _, i := range incarnations {
		all = append(all, presence.Place{Incarnation: i, Addr: i + ":1"})
	}
	return all
}

func wantSent(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestR16_Group_OneFrameANode_AsOfTheVersionThere(t *testing.T) {
	r := newRig(t, nil)
	r.group("[] [7]", groupRecord(t, 0, 4, 0, 0), groupRecord(t, 1, 3, 0, 0))
	wantSent(t, r.found(nil, [][]presence.Place{nodes("a", "b")}), "a 0@4 1@3", "b 0@4 1@3")
	r.p.Step(r.now, answer("a", 1))
	push := r.p.Step(r.now, answer("b", 1))[0].(deliver.Push)
	if len(push.Records) != 2 || push.Records[0].Version != 4 || push.Records[0].Conversation != "g:7" || len(push.Records[0].Users) != 0 {
		t.Errorf("push records %+v", push.Records)
	}
	r.p.Step(r.now, deliver.Pushed{})
	r.idle(true)
	// Behind a notice nothing is as of before it, whatever its sender's node knew. Who is named in it gets it as a person, wherever he is.
	r.group("[9] [7]", groupRecord(t, 2, 6, pb.GroupNotice_CHANGE_JOINED, 1, 9), groupRecord(t, 3, 5, 0, 0))
	wantSent(t, r.found([][]presence.Place{{{Incarnation: "c", Connection: 3, Addr: "c:1"}, {Incarnation: "a", Connection: 1, Addr: "a:1"}}},
		[][]presence.Place{nodes("a")}), "a 2@6+9 3@6", "c 2@6+9")
}

func TestGroup_NoticeOfTooManyToBeNamed_GoesToEveryNode(t *testing.T) {
	r := newRig(t, nil)
	r.group("[] [7 -1]", groupRecord(t, 0, 1, pb.GroupNotice_CHANGE_CREATED, 300))
	wantSent(t, r.found(nil, [][]presence.Place{nodes("b"), nodes("a", "b", "c")}), "b 0@1", "a 0@1", "c 0@1")
}

func TestGroup_EndOfTheSendersMembership_IsExact(t *testing.T) {
	r := newRig(t, nil)
	// 1 is taken out by version 5: what he sent by the one before is dropped, and he is told; what another sent is not.
	r.p.Step(r.now, deliver.Records{Records: []eventlog.Record{
		groupRecord(t, 0, 5, pb.GroupNotice_CHANGE_REMOVED, 1, 1), groupRecord(t, 1, 4, 0, 0),
	}})
	effects := r.p.Step(r.now, appended(1))
	if l, ok := effects[0].(deliver.Locate); !ok || fmt.Sprint(l.Users, l.Groups) != "[1] [7]" {
		t.Fatalf("asks for %v", effects)
	}
	out := r.p.Step(r.now, deliver.Located{Places: [][]presence.Place{{{Incarnation: "a", Connection: 1, Addr: "a:1"}}}, Nodes: [][]presence.Place{nodes("a")}})
	f := out[0].(deliver.Send).Forward
	if len(f.Messages) != 1 || f.Messages[0].Version != 5 || len(f.Messages[0].Recipients) != 1 || len(f.Rejections) != 1 {
		t.Errorf("sent %+v", f)
	}
}

// BenchmarkGroup is the router's work for a message to a group on so many nodes, and the making of the message. How many members it has the
// router does not see.
func BenchmarkGroup(b *testing.B) {
	for _, n := range []int{1, 3, 30} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			r := newRig(b, nil)
			at := make([]presence.Place, n)
			for i := range at {
				at[i] = presence.Place{Incarnation: fmt.Sprint("node", i), Addr: fmt.Sprint("h:", i)}
			}
			for offset := int64(0); b.Loop(); offset++ {
				r.p.Step(r.now, deliver.Records{Records: []eventlog.Record{groupRecord(b, offset, 1, 0, 0)}})
				r.p.Step(r.now, appended(1))
				for _, e := range r.p.Step(r.now, deliver.Located{Nodes: [][]presence.Place{at}}) {
					s := e.(deliver.Send)
					r.p.Step(r.now, answer(s.Forward.Incarnation, s.Forward.Number))
				}
				r.p.Step(r.now, deliver.Pushed{})
			}
		})
	}
}
