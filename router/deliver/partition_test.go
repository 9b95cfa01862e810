package deliver_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

var errAway = errors.New("away")

func TestPartition_AppendsBeforeItLocates(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0), d(1)), "append 0 1")
	rec := r.last[0].(deliver.AppendRecents)
	if got := rec.Messages[0].Users; len(got) != 2 || got[0] != 1 || got[1] != 2 {
		t.Fatalf("users are %v", got)
	}
	// While a part of the append is not answered nobody is looked up, whatever else happens.
	r.pass(time.Second)
	r.step(deliver.Appended{Err: errAway})
	r.step(deliver.Appended{Prevs: make([]presence.Prev, 1), Epoch: "e1"})
	r.pass(time.Second, "append 0 1")
	r.step(appended(2), "locate 1 2")
	r.step(at(on("a"), on("b")), "send a#1 0 1", "send b#1 0 1")
}

func TestPartition_NothingIsDoneBeforeAnswers(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0)), "append 0")
	r.step(appended(1), "locate 1 2")
	r.step(at(on("a"), on("b")), "send a#1 0", "send b#1 0")
	r.step(answer("a", 1))
	r.idle(false)
	r.step(answer("b", 1), "commit 1")
	r.idle(true)
}

func TestPartition_PushIsDurableBeforeCommit(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0), d(1)), "append 0 1")
	r.step(appended(2), "locate 1 2")
	r.step(at(on("a"), nil), "send a#1 0 1")
	r.step(answer("a", 1), "push 0:[2] 1:[2]")
	push := r.last[0].(deliver.Push).Records[0]
	if push.Conversation != "d:1:2" || push.Sender != 1 || push.ClientMsgID != messageID(0) || push.TimeMs != began.UnixMilli() {
		t.Fatalf("push record is %+v", push)
	}
	r.step(deliver.Pushed{Failed: []deliver.PushRecord{push}})
	r.idle(false)
	r.pass(20*time.Millisecond, "push 0:[2]") // only what failed
	r.step(deliver.Pushed{}, "commit 2")
	r.idle(true)
}

func TestPartition_ReachedByOnePlace_SenderNeverCounts(t *testing.T) {
	r := newRig(t, nil)
	miss := func(user int64, conn uint64) peer.Missed {
		return peer.Missed{Seq: seq(0), Recipient: peer.Recipient{User: user, Connection: conn}}
	}
	r.step(records(t, d(0)), "append 0")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("a", "a/2", "b")), "send a#1 0", "send b#1 0")
	r.step(answer("b", 1, miss(2, 1)))
	r.step(answer("a", 1, miss(2, 1)), "commit 1") // connection 2 on a took it; the sender has no place at all

	r.step(records(t, d(1)), "append 1")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("a")), "send a#2 1")
	r.step(answer("a", 2, peer.Missed{Seq: seq(1), Recipient: peer.Recipient{User: 2, Connection: 1}}), "push 1:[2]")
}

func TestPartition_NoticesGoToTheirUser(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, msg{Offset: 0, Conversation: "n:5", Sender: 9, ID: 1}), "append 0")
	r.step(appended(1), "locate 5")
	r.step(at(nil), "push 0:[5]")
}

func TestPartition_PassesOverWhatItCannotRead(t *testing.T) {
	r := newRig(t, nil)
	bad, odd := d(1).record(t), d(2).record(t)
	bad.Value = []byte{0xff}
	odd.Headers = []eventlog.Header{{Key: "k", Value: []byte("later")}}
	r.step(deliver.Records{Records: []eventlog.Record{bad, odd}}, "commit 3")
	r.idle(true)
	if s := r.p.TakeStats(); s.Passed != 2 || s.Records != 2 {
		t.Fatalf("stats are %+v", s)
	}
}

func TestPartition_BodyHasPrev_RecentsHaveNot(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(5), d(6), d(7)), "append 5 6 7")
	decode := func(b []byte) *pb.Message {
		m := new(pb.Message)
		if err := m.UnmarshalVT(b); err != nil {
			t.Fatal(err)
		}
		return m
	}
	recent := decode(r.last[0].(deliver.AppendRecents).Messages[1].Message)
	if recent.GetSeq() != seq(6) || recent.GetTimeMs() != began.UnixMilli() || recent.GetPrevKnown() || recent.GetPrevSeq() != 0 {
		t.Fatalf("recent is %v", recent)
	}
	r.step(deliver.Appended{Prevs: []presence.Prev{{}, known(5), {Seq: 0, Known: true}}, Epoch: "e1"}, "locate 1 2")
	r.step(at(on("a"), nil), "send a#1 5 6 7")
	sent := r.last[0].(deliver.Send).Forward.Messages
	first, second := decode(sent[0].Body), decode(sent[1].Body)
	if first.GetPrevKnown() || first.GetPrevSeq() != 0 {
		t.Fatalf("first is %v", first)
	}
	if !second.GetPrevKnown() || second.GetPrevSeq() != seq(5) {
		t.Fatalf("second is %v", second)
	}
	second.PrevKnown, second.PrevSeq = false, 0
	if !second.EqualVT(recent) {
		t.Fatalf("%v differs from %v", second, recent)
	}
}

func TestPartition_PrevIsUnknownWhenRecentsLostTheirTail(t *testing.T) {
	r, nodes := newRig(t, nil), map[string]uint64{}
	r.deliver(d(5), nodes, on("a"), on("a"))
	prevOf := func(m msg, p presence.Prev) *pb.Message {
		t.Helper()
		r.p.Step(r.now, records(t, m))
		r.p.Step(r.now, deliver.Appended{Prevs: []presence.Prev{p}, Epoch: "e1"})
		s := r.p.Step(r.now, at(on("a"), nil))[0].(deliver.Send)
		r.p.Step(r.now, answer("a", s.Forward.Number))
		r.p.Step(r.now, deliver.Pushed{})
		got := new(pb.Message)
		if err := got.UnmarshalVT(s.Forward.Messages[0].Body); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if m := prevOf(d(6), known(3)); m.GetPrevKnown() {
		t.Fatalf("prev is %v: 5 was appended before 6, so 3 is not it", m)
	}
	if m := prevOf(d(7), known(6)); !m.GetPrevKnown() || m.GetPrevSeq() != seq(6) {
		t.Fatalf("prev is %v", m)
	}
	if m := prevOf(d(8), presence.Prev{}); m.GetPrevKnown() {
		t.Fatalf("prev is %v: the recents did not know it, and it must not be inferred", m)
	}
	if s := r.p.TakeStats(); s.TailLost != 1 {
		t.Fatalf("stats are %+v", s)
	}
}

func TestPartition_DuplicateIsDropped(t *testing.T) {
	r := newRig(t, nil)
	again, other := d(1), d(2)
	again.ID, other.ID = 0, 0
	other.Text = "something else"
	// One of the same content is dropped silently, one of other content is told its sender.
	r.step(records(t, d(0), again, other, d(3)), "append 0 3")
	r.step(appended(2), "locate 1 2")
	r.step(at(on("a"), on("b")), "send a#1 0 3 reject 2", "send b#1 0 3")
	rej := r.last[0].(deliver.Send).Forward.Rejections[0]
	if rej.Rejected.GetError().GetCode() != pb.Code_CODE_ID_REUSED || rej.Rejected.GetClientMsgId() != messageID(0) ||
		rej.Rejected.GetConversation() != "d:1:2" || rej.Recipients[0].User != 1 {
		t.Fatalf("rejection is %+v", rej)
	}
	// Alone in a batch, later.
	again.Offset, other.Offset = 4, 5
	r.step(answer("a", 1))
	r.step(answer("b", 1), "commit 4")
	r.step(records(t, again))
	r.idle(true)
	r.step(records(t, other), "locate 1")
	r.step(at(on("a")), "send a#2 reject 5")
	r.step(answer("a", 2))
	r.idle(true)
	if s := r.p.TakeStats(); s.Duplicates != 4 || s.IDReused != 2 {
		t.Fatalf("stats are %+v", s)
	}
}

func resent(offset, from int64, id int) msg {
	m := d(offset)
	m.Resend, m.SearchFrom, m.ID = true, from, id
	return m
}

func TestPartition_ResendIsJudgedAfterRefill(t *testing.T) {
	start := func(c *deliver.Config) { c.Start, c.History, c.Window = 10, 10, 4 }
	t.Run("found", func(t *testing.T) {
		r := newRig(t, start)
		r.step(records(t, resent(10, 5, 6), d(11)), "refill 5-10")
		r.step(deliver.Refilled{Records: records(t, d(5), d(6)).Records})
		r.step(deliver.Refilled{Records: records(t, d(9)).Records, Done: true}, "append 11")
		// Now the window reaches to 5.
		r.step(appended(1), "locate 1 2")
		r.step(at(on("a"), on("a")), "send a#1 11")
		r.step(answer("a", 1), "commit 12")
		r.step(records(t, resent(12, 5, 9)))
		r.idle(true)
	})
	t.Run("not found", func(t *testing.T) {
		r := newRig(t, start)
		r.step(records(t, resent(10, 5, 99)), "refill 5-10")
		r.step(deliver.Refilled{Done: true}, "append 10")
	})
	t.Run("too much for the window", func(t *testing.T) {
		r := newRig(t, start)
		r.step(records(t, resent(10, 0, 4)), "refill 0-10")
		r.step(deliver.Refilled{Records: records(t, d(0), d(1), d(2), d(3), d(4), d(5)).Records, Done: true}, "commit 11")
		r.idle(true)
		r.step(records(t, resent(11, 0, 5)), "refill 0-10") // the window stayed as it was
	})
	t.Run("failed", func(t *testing.T) {
		r := newRig(t, start)
		r.step(records(t, resent(10, 5, 6)), "refill 5-10")
		r.step(deliver.Refilled{Records: records(t, d(5)).Records})
		r.step(deliver.Refilled{Err: errAway})
		r.pass(20*time.Millisecond, "refill 5-10")
		r.step(deliver.Refilled{Records: records(t, d(5), d(6)).Records, Done: true}, "commit 11")
	})
	t.Run("not needed", func(t *testing.T) {
		r := newRig(t, start)
		r.step(records(t, resent(10, 10, 6)), "append 10")
	})
}

// A node that was cut off writes a message when it is back, after its client has sent it again by another: the copy that lies
// behind is not marked, and a new owner of the partition has not seen the one before.
func TestPartition_WindowIsFilledAtTakeover(t *testing.T) {
	late := d(12)
	late.ID = 9
	late.At = began.Add(30 * time.Second)
	old := func(offset int64) msg { m := d(offset); m.At = began.Add(-31 * time.Second); return m }
	r := newRig(t, func(c *deliver.Config) { c.Start, c.History, c.Reach = 12, 12, 8 })
	r.step(records(t, late), "refill 4-12")
	r.step(deliver.Refilled{Records: records(t, old(4), old(5)).Records})
	r.step(deliver.Refilled{Records: records(t, d(6), d(9), resent(11, 2, 5)).Records, Done: true}, "commit 13")
	r.idle(true)
	// Once; and it says exactly how far back it is filled.
	r.step(records(t, resent(13, 6, 6)))
	r.idle(true)
	r.step(records(t, resent(14, 5, 6)), "refill 5-6")
}

func TestPartition_WindowKeepsWhatCanBeAskedFor(t *testing.T) {
	one := func(r *rig, offset int64, at time.Duration) {
		t.Helper()
		m := d(offset)
		m.At = began.Add(at)
		r.take(m, "e1")
	}
	dup := func(id int, offset int64) msg { m := d(offset); m.ID = id; return m }
	r := newRig(t, nil)
	one(r, 0, 0)
	one(r, 1, 10*time.Second)
	// Older than a minute, but history has not got there: kept.
	r.now = began.Add(61 * time.Second)
	one(r, 2, 61*time.Second)
	r.step(records(t, dup(0, 3)))
	r.idle(true)
	// History is above since now: what was stamped a minute ago may still come. Kept.
	r.step(deliver.History{Offset: 3})
	one(r, 4, 62*time.Second)
	r.step(records(t, dup(0, 5)))
	r.idle(true)
	// Since a minute: gone, and a resend that reaches below asks for it.
	r.now = began.Add(130 * time.Second)
	one(r, 6, 130*time.Second)
	r.step(records(t, resent(7, 1, 1)), "refill 1-3")
	r.step(deliver.Refilled{Records: records(t, d(1), d(2)).Records, Done: true})
	r.idle(true)

	few := newRig(t, func(c *deliver.Config) { c.Window = 2 })
	for i := range int64(4) {
		one(few, i, 0)
	}
	few.step(records(t, resent(4, 1, 0)), "refill 1-2")
}

// A router that is behind history still needs what is young by the log's clock.
func TestPartition_WindowKeepsWhatIsYoung(t *testing.T) {
	r := newRig(t, nil)
	r.step(deliver.History{Offset: 10})
	r.now = began.Add(70 * time.Second)
	r.take(d(3), "e1")
	r.take(d(4), "e1")
	dup := d(5)
	dup.ID = 3
	r.step(records(t, dup))
	r.idle(true)
}

func TestPartition_SilentNodeIsSkipped_AndNoticesTheHole(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0)), "append 0")
	r.step(appended(1), "locate 1 2")
	r.step(at(on("a"), on("b")), "send a#1 0", "send b#1 0")
	r.step(answer("a", 1))
	if got := r.deadline(); got != 250*time.Millisecond {
		t.Fatalf("waits %v", got)
	}
	r.pass(249 * time.Millisecond)
	r.pass(time.Millisecond, "push 0:[2]")
	r.step(deliver.Pushed{}, "commit 1")
	// b is suspect now: nothing is sent and nothing is waited for, but its number rises.
	r.step(records(t, d(1)), "append 1")
	r.step(appended(1), "locate 1 2")
	r.step(at(on("a"), on("b")), "send a#2 1")
	r.step(answer("a", 2), "push 1:[2]")
	r.step(deliver.Pushed{})
	// It answers after all: it is brought up to date at once.
	r.step(answer("b", 1), "send b#3")
	r.step(answer("b", 3))
	r.step(records(t, d(2)), "append 2")
	r.step(appended(1), "locate 1 2")
	r.step(at(on("a"), on("b")), "send a#3 2", "send b#4 2")
}

func TestPartition_LateAnswerWithoutAHoleNeedsNoKnock(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0)), "append 0")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("b")), "send b#1 0")
	r.pass(300*time.Millisecond, "push 0:[2]")
	r.step(answer("b", 1))
	r.step(deliver.Pushed{}, "commit 1")
	r.step(records(t, d(1)), "append 1")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("b")), "send b#2 1")
}

func TestPartition_BrokenLink(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0)), "append 0")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("b")), "send b#1 0")
	r.step(failed("b", 1, peer.ErrLost), "send b#1 0") // over a new link, the very same
	r.step(failed("b", 1, peer.ErrLost), "push 0:[2]") // no need to wait
	// Knocks have numbers of their own, and come at growing distances.
	r.pass(19 * time.Millisecond)
	r.pass(time.Millisecond, "send b#2")
	r.step(failed("b", 2, peer.ErrLost))
	r.pass(20 * time.Millisecond)
	r.pass(20*time.Millisecond, "send b#3")
	r.step(deliver.Pushed{}, "commit 1")
	r.step(answer("b", 3)) // higher than what was lost: it has noticed
	r.step(records(t, d(1)), "append 1")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("b")), "send b#4 1")
}

func TestPartition_DeadNodeIsNotKnockedAtForever(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0)), "append 0")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("b")), "send b#1 0")
	r.step(failed("b", 1, peer.ErrTimeout), "push 0:[2]")
	r.step(deliver.Pushed{}, "commit 1")
	r.step(deliver.Committed{Offset: 1})
	knocks, end := 0, r.now.Add(time.Hour)
	for r.now.Before(end) {
		at, ok := r.p.Deadline()
		if !ok {
			break
		}
		r.now = at
		for _, e := range r.p.Step(r.now, deliver.Tick{}) {
			knocks++
			r.p.Step(r.now, failed("b", e.(deliver.Send).Forward.Number, peer.ErrLost))
		}
	}
	if knocks < 20 || knocks > 60 || r.now.Sub(began) > 40*time.Second {
		t.Fatalf("%d knocks, the last after %v", knocks, r.now.Sub(began))
	}
}

func TestPartition_OneFrameInFlightPerNode(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0)), "append 0")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("b")), "send b#1 0")
	r.pass(300*time.Millisecond, "push 0:[2]")
	r.step(deliver.Pushed{}, "commit 1")
	r.step(records(t, d(1)), "append 1")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("b")), "push 1:[2]")
	r.step(deliver.Pushed{})
	r.step(answer("b", 1), "send b#3") // not suspect any more, and a frame in flight
	r.step(records(t, d(2)), "append 2")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("b"))) // waits for b#3
	r.idle(false)
	r.step(answer("b", 3), "send b#4 2")
	r.step(answer("b", 4))
	r.idle(true)
}

func TestPartition_FrameBehindASilentOneIsGivenUp(t *testing.T) {
	for _, how := range []string{"deadline", "lost"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, nil)
			r.step(records(t, d(0)), "append 0")
			r.step(appended(1), "locate 1 2")
			r.step(at(nil, on("b")), "send b#1 0")
			r.pass(300*time.Millisecond, "push 0:[2]")
			r.step(deliver.Pushed{}, "commit 1")
			r.step(records(t, d(1)), "append 1")
			r.step(appended(1), "locate 1 2")
			r.step(at(nil, on("b")), "push 1:[2]")
			r.step(deliver.Pushed{})
			r.step(answer("b", 1), "send b#3")
			r.step(records(t, d(2)), "append 2")
			r.step(appended(1), "locate 1 2")
			r.step(at(nil, on("b")))
			if how == "deadline" {
				r.pass(300*time.Millisecond, "push 2:[2]")
				r.step(answer("b", 3), "send b#5") // 4 was left out
			} else {
				r.step(failed("b", 3, peer.ErrLost), "push 2:[2]")
				r.pass(20*time.Millisecond, "send b#5")
			}
		})
	}
}

// More nodes than are remembered take turns. One that comes back must get no number that it has seen: it would take a new frame for a
// late one, and notice no hole.
func TestPartition_AForgottenNodeGetsNoNumberTwice(t *testing.T) {
	r := newRig(t, func(c *deliver.Config) { c.Nodes = 1 })
	nodes := map[string]uint64{}
	for i := range int64(3) {
		r.deliver(d(i), nodes, on("a"), on("a"))
	}
	r.deliver(d(3), nodes, on("b"), on("b"))
	before := nodes["a"]
	r.deliver(d(4), nodes, on("a"), on("a"))
	if nodes["a"] <= before {
		t.Fatalf("frame %d after %d", nodes["a"], before)
	}
}

// For whom there was before the takeover an owner before may have left something out: the first number is left out, and that is told
// at once.
func TestPartition_NodesOfBeforeAreToldToCompare(t *testing.T) {
	before := []presence.Place{{Incarnation: "b", Addr: "b:1"}, {Incarnation: "c", Addr: "c:1"}}
	greeted := func(r *rig) string {
		var all []string
		for _, e := range r.greeting {
			s := e.(deliver.Send)
			all = append(all, fmt.Sprint(s.Addr, " ", s.Forward.Number, " ", len(s.Forward.Messages)))
			r.p.Step(r.now, answer(s.Forward.Incarnation, s.Forward.Number))
		}
		return strings.Join(all, ", ")
	}
	r := newRig(t, func(c *deliver.Config) { c.Before = before })
	if got := greeted(r); got != "b:1 2 0, c:1 2 0" {
		t.Fatalf("greeted: %s", got)
	}
	nodes := map[string]uint64{}
	r.deliver(d(0), nodes, on("a"), on("b"))
	if nodes["a"] != 1 || nodes["b"] != 3 {
		t.Fatalf("first numbers are %v", nodes)
	}
	// More than can be remembered: rather all compare once than one of them not.
	r = newRig(t, func(c *deliver.Config) { c.Before, c.Nodes = before, 1 })
	if got := greeted(r); got != "b:1 2 0" {
		t.Fatalf("greeted: %s", got)
	}
	r.deliver(d(0), nodes, on("c"), on("c"))
	if nodes["c"] < 2 {
		t.Fatalf("first numbers are %v", nodes)
	}
}

func TestPartition_WrongIncarnationIsNotReached(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0)), "append 0")
	r.step(appended(1), "locate 1 2")
	r.step(at(nil, on("b")), "send b#1 0")
	r.step(refused("b", 1, peer.StatusWrongIncarnation), "push 0:[2]")
	r.step(deliver.Pushed{}, "commit 1")
	r.step(deliver.Committed{Offset: 1})
	if _, due := r.p.Deadline(); due {
		t.Fatal("a life that is over is knocked at")
	}
}

func TestPartition_StaleEndsItWithoutCommit(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0)), "append 0")
	r.step(appended(1), "locate 1 2")
	r.step(at(on("a"), on("b")), "send a#1 0", "send b#1 0")
	r.step(answer("a", 1))
	r.step(refused("b", 1, peer.StatusStale), "lost stale")
	r.pass(time.Minute)
	r.step(deliver.Release{})
	r.step(records(t, d(1)))
}

func TestPartition_LateLeaseSendsNothing(t *testing.T) {
	r := newRig(t, nil)
	r.step(deliver.Leased{Until: began.Add(2 * time.Second)})
	r.step(records(t, d(0)), "append 0")
	r.now = began.Add(2 * time.Second)
	r.step(appended(1), "lost lease")
	r.step(at(on("a"), on("b")))

	r = newRig(t, nil)
	r.step(deliver.Leased{Until: began.Add(2 * time.Second)})
	r.step(records(t, d(0)), "append 0")
	r.step(appended(1), "locate 1 2")
	r.now = began.Add(3 * time.Second)
	r.step(at(on("a"), on("b")), "lost lease")
}

// The lease was in the same data: another router may own the partition by now, and append what comes behind.
func TestPartition_EndsWhenRedisLostItsData(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0)), "append 0")
	r.step(deliver.Appended{Prevs: make([]presence.Prev, 1), Epoch: "e2"}, "lost store")

	r = newRig(t, nil)
	r.take(d(0), "e1")
	r.now = began.Add(2 * time.Second)
	r.take(d(1), "e1")
	// Told by looking: what was asked before the last append does not count.
	r.step(deliver.Stored{Epoch: "e0", Asked: began.Add(time.Second)})
	r.step(deliver.Stored{Epoch: "e1", Asked: r.now})
	r.step(deliver.Stored{Epoch: "e2", Asked: r.now}, "lost store")
}

func TestPartition_AllIsDoneAgainAfterALoss_NodesCompare(t *testing.T) {
	r := newRig(t, func(c *deliver.Config) { c.Start, c.History, c.Again = 5, 5, 9 })
	r.step(records(t, d(5), d(6)), "append 5 6")
	r.step(appended(2), "locate 1 2")
	r.step(at(on("a"), on("a")), "send a#1 5 6")
	r.step(answer("a", 1), "commit 7")
	r.step(deliver.Committed{Offset: 7})
	// When all is done again that was, the nodes are told by a number left out.
	r.step(records(t, d(7), d(8)), "append 7 8")
	r.step(appended(2), "locate 1 2")
	r.step(at(on("a"), on("a")), "send a#2 7 8")
	r.step(answer("a", 2), "send a#4")
}

func TestPartition_RedisAway_RetriesWithBackoff(t *testing.T) {
	r := newRig(t, nil)
	r.step(records(t, d(0)), "append 0")
	for _, pause := range []time.Duration{20, 40, 80, 160, 320, 640, 1000, 1000} {
		r.step(deliver.Appended{Err: errAway})
		if got := r.deadline(); got != pause*time.Millisecond {
			t.Fatalf("pause is %v, want %v ms", got, int(pause))
		}
		r.pass(pause*time.Millisecond, "append 0")
	}
	r.step(appended(1), "locate 1 2")
	r.step(deliver.Located{Err: errAway})
	r.pass(20*time.Millisecond, "locate 1 2") // what was appended is not appended again
	r.step(at(on("a"), on("a")), "send a#1 0")

	r = newRig(t, func(c *deliver.Config) { c.Rand = func() float64 { return 0 } })
	r.step(records(t, d(0)), "append 0")
	r.step(deliver.Appended{Err: errAway})
	if got := r.deadline(); got != 10*time.Millisecond {
		t.Fatalf("the shortest pause is %v", got)
	}
}

func TestPartition_CommitsOnceASecond(t *testing.T) {
	r, nodes := newRig(t, nil), map[string]uint64{}
	here := on("a")
	r.deliver(d(0), nodes, here, here) // commits 1
	r.step(deliver.Committed{Offset: 1})
	r.deliver(d(1), nodes, here, here)
	r.deliver(d(2), nodes, here, here)
	if got := r.deadline(); got != time.Second {
		t.Fatalf("the next commit is in %v", got)
	}
	r.pass(time.Second, "commit 3")
	r.step(deliver.Committed{Offset: 3, Err: errAway})
	r.pass(time.Second, "commit 3")
	r.step(deliver.Committed{Offset: 3})
	if _, due := r.p.Deadline(); due {
		t.Fatal("something is due")
	}
}

func TestPartition_ReleaseFinishesCommitsAndEnds(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		r := newRig(t, nil)
		r.step(deliver.Release{}, "released")
	})
	t.Run("in flight", func(t *testing.T) {
		r := newRig(t, nil)
		r.step(records(t, d(0)), "append 0")
		r.step(appended(1), "locate 1 2")
		r.step(at(on("a"), on("a")), "send a#1 0")
		r.step(deliver.Release{})
		r.step(answer("a", 1), "commit 1")
		r.idle(false)
		r.step(deliver.Committed{Offset: 1}, "released")
	})
	t.Run("a commit is in flight", func(t *testing.T) {
		r, nodes := newRig(t, nil), map[string]uint64{}
		r.deliver(d(0), nodes, on("a"), on("a"))
		r.deliver(d(1), nodes, on("a"), on("a"))
		r.step(deliver.Release{})
		r.step(deliver.Committed{Offset: 1}, "commit 2")
		r.step(deliver.Committed{Offset: 2}, "released")
	})
	t.Run("Redis away", func(t *testing.T) {
		r := newRig(t, nil)
		r.step(records(t, d(0)), "append 0")
		r.step(deliver.Appended{Err: errAway})
		r.step(deliver.Release{}, "released")
	})
	t.Run("bounded", func(t *testing.T) {
		r := newRig(t, nil)
		r.step(records(t, d(0)), "append 0")
		r.step(appended(1), "locate 1 2")
		r.step(at(nil, nil), "push 0:[2]")
		r.step(deliver.Release{})
		r.pass(2*time.Second, "released")
	})
	t.Run("the last commit is never answered", func(t *testing.T) {
		r := newRig(t, nil)
		r.take(d(0), "e1")
		r.step(deliver.Release{})
		r.pass(2*time.Second, "released")
	})
	t.Run("the lease is lost meanwhile", func(t *testing.T) {
		r := newRig(t, nil)
		r.step(records(t, d(0)), "append 0")
		r.step(deliver.Release{})
		r.step(deliver.Leased{Until: r.now}, "lost lease")
	})
}
