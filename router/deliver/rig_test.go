package deliver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

const logEpoch = 1

var began = time.UnixMilli(1_700_000_000_000)

func seq(offset int64) uint64 { return eventlog.Seq(logEpoch, offset) }

// fataler is what a test and a rapid test have in common here.
type fataler interface{ Fatal(args ...any) }

// msg is a message as it lies in the log. Its identity's number is ID.
type msg struct {
	Offset       int64
	Conversation string
	Sender       int64
	ID           int
	Text         string
	Resend       bool
	SearchFrom   int64
	At           time.Time
	// Version and From, if Version is not 0, are what the sender's right was checked against. Closes, if not 0, makes it the notice
	// that ends the right of both by that version.
	Version uint64
	From    int64
	Closes  uint64
}

func messageID(n int) string { return fmt.Sprintf("0192f0c1-0000-7000-8000-%012d", n) }

func (m msg) record(t fataler) eventlog.Record {
	payload := &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: m.Text}}}
	if m.Closes != 0 {
		payload.Kind = &pb.Payload_Friend{Friend: &pb.FriendNotice{Change: pb.FriendNotice_CHANGE_REMOVED, Version: m.Closes}}
	}
	e, err := chat.Record{
		Kind: chat.KindMessage, Resend: m.Resend, SearchFrom: m.SearchFrom,
		Checked: m.Version != 0, Version: m.Version, CheckedFrom: m.From,
		Message: &pb.Message{
			Conversation: m.Conversation, Sender: &pb.User{Id: wire.FormatID(m.Sender)}, ClientMsgId: messageID(m.ID),
			Payload: payload,
		},
	}.Entry(1)
	if err != nil {
		t.Fatal(err)
	}
	if m.At.IsZero() {
		m.At = began
	}
	return eventlog.Record{Offset: m.Offset, Time: m.At, Key: e.Key, Value: e.Value, Headers: e.Headers}
}

// d is a message from 1 to 2 with an identity of its own.
func d(offset int64) msg {
	return msg{Offset: offset, Conversation: "d:1:2", Sender: 1, ID: int(offset), Text: "hi"}
}

func records(t fataler, ms ...msg) deliver.Records {
	var rs []eventlog.Record
	for _, m := range ms {
		rs = append(rs, m.record(t))
	}
	return deliver.Records{Records: rs}
}

// rig drives one partition by hand and names its effects shortly.
type rig struct {
	t    testing.TB
	p    *deliver.Partition
	now  time.Time
	last []deliver.Effect
	// greeting is what the partition does first.
	greeting []deliver.Effect
}

// take takes a message through with nobody online. epoch is the life of the stored data.
func (r *rig) take(m msg, epoch string) {
	r.t.Helper()
	r.p.Step(r.now, records(r.t, m))
	r.p.Step(r.now, deliver.Appended{Prevs: make([]presence.Prev, 1), Epoch: epoch})
	r.p.Step(r.now, deliver.Located{Places: [][]presence.Place{nil, nil}})
	r.p.Step(r.now, deliver.Pushed{})
	r.idle(true)
}

func newRig(t testing.TB, change func(c *deliver.Config)) *rig {
	c := deliver.DefaultConfig()
	c.Reach = 0 // but for the test of it
	c.LogEpoch, c.RouterEpoch, c.StoreEpoch = logEpoch, 7, "e1"
	c.Rand = func() float64 { return 1 } // the longest pauses
	if change != nil {
		change(&c)
	}
	r := &rig{t: t, p: deliver.NewPartition(began, c), now: began}
	r.greeting = r.p.Step(r.now, deliver.Leased{Until: began.Add(time.Hour)})
	return r
}

// step gives an event and checks the effects.
func (r *rig) step(e deliver.Event, want ...string) {
	r.t.Helper()
	r.last = r.p.Step(r.now, e)
	got := []string{}
	for _, e := range r.last {
		got = append(got, name(e))
	}
	if !slices.Equal(got, want) && len(got)+len(want) > 0 {
		r.t.Fatalf("%T gave %q, want %q", e, got, want)
	}
}

// pass lets time go by, and checks what is due at its end.
func (r *rig) pass(d time.Duration, want ...string) {
	r.t.Helper()
	r.now = r.now.Add(d)
	r.step(deliver.Tick{}, want...)
}

func (r *rig) deadline() time.Duration {
	r.t.Helper()
	at, ok := r.p.Deadline()
	if !ok {
		r.t.Fatal("no deadline")
	}
	return at.Sub(r.now)
}

func (r *rig) idle(want bool) {
	r.t.Helper()
	if r.p.Idle() != want {
		r.t.Fatalf("idle is %v", r.p.Idle())
	}
}

func name(e deliver.Effect) string {
	offset := func(s uint64) int64 { _, o := eventlog.SplitSeq(s); return o }
	switch e := e.(type) {
	case deliver.AppendRecents:
		s := "append"
		for _, m := range e.Messages {
			s += fmt.Sprintf(" %d", offset(m.Seq))
		}
		return s
	case deliver.Locate:
		return "locate " + strings.Trim(fmt.Sprint(e.Users), "[]")
	case deliver.Send:
		s := fmt.Sprintf("send %s#%d", e.Forward.Incarnation, e.Forward.Number)
		for _, m := range e.Forward.Messages {
			s += fmt.Sprintf(" %d", offset(m.Seq))
		}
		for _, m := range e.Forward.Rejections {
			s += fmt.Sprintf(" reject %d", offset(m.Seq))
		}
		return s
	case deliver.Push:
		s := "push"
		for _, p := range e.Records {
			s += fmt.Sprintf(" %d:%v", offset(p.Seq), p.Users)
		}
		return s
	case deliver.Commit:
		return fmt.Sprintf("commit %d", e.Offset)
	case deliver.Refill:
		return fmt.Sprintf("refill %d-%d", e.From, e.To)
	case deliver.Lost:
		return "lost " + string(e.Reason)
	case deliver.Released:
		return "released"
	}
	return fmt.Sprintf("%T", e)
}

func appended(n int) deliver.Appended {
	return deliver.Appended{Prevs: make([]presence.Prev, n), Epoch: "e1"}
}

func known(offset int64) presence.Prev { return presence.Prev{Seq: seq(offset), Known: true} }

// at makes places: "a" is incarnation a, connection 1; "a/2" connection 2.
func at(users ...[]string) deliver.Located {
	l := deliver.Located{Places: [][]presence.Place{}}
	for _, places := range users {
		var ps []presence.Place
		for _, s := range places {
			inc, conn, found := strings.Cut(s, "/")
			p := presence.Place{Incarnation: inc, Connection: 1, Addr: inc + ":1"}
			if found {
				p.Connection = uint64(conn[0] - '0')
			}
			ps = append(ps, p)
		}
		l.Places = append(l.Places, ps)
	}
	return l
}

func on(places ...string) []string { return places }

func answer(inc string, number uint64, missed ...peer.Missed) deliver.Answered {
	return deliver.Answered{Incarnation: inc, Number: number, Answer: peer.Answer{Status: peer.StatusDelivered, Missed: missed}}
}

func refused(inc string, number uint64, s peer.Status) deliver.Answered {
	return deliver.Answered{Incarnation: inc, Number: number, Answer: peer.Answer{Status: s}}
}

func failed(inc string, number uint64, err error) deliver.Answered {
	return deliver.Answered{Incarnation: inc, Number: number, Err: err}
}

// deliver takes one message through to nodes that answer at once.
func (r *rig) deliver(m msg, nodes map[string]uint64, where ...[]string) {
	r.t.Helper()
	r.p.Step(r.now, records(r.t, m))
	r.p.Step(r.now, appended(1))
	for _, e := range r.p.Step(r.now, at(where...)) {
		s := e.(deliver.Send)
		r.p.Step(r.now, answer(s.Forward.Incarnation, s.Forward.Number))
		nodes[s.Forward.Incarnation] = s.Forward.Number
	}
	if !r.p.Idle() {
		r.t.Fatal("not delivered")
	}
}
