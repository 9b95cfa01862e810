package deliver_test

import (
	"testing"
	"time"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/presence"
)

// v is a message that was checked against a version, when the log ended at from at least.
func v(offset int64, version uint64, from int64) msg {
	m := d(offset)
	m.Version, m.From = version, from
	return m
}

// closes is the notice that ends the friendship by a version.
func closes(offset int64, version uint64) msg {
	m := d(offset)
	m.Closes = version
	return m
}

// appended answers the append.
func (r *rig) appended(want ...string) {
	r.t.Helper()
	prevs := 0
	for _, e := range r.last {
		if a, ok := e.(deliver.AppendRecents); ok {
			prevs = len(a.Messages)
		}
	}
	r.step(deliver.Appended{Prevs: make([]presence.Prev, prevs), Epoch: "e1"}, want...)
}

func TestPartition_WhatStandsBehindAClosingIsDropped(t *testing.T) {
	r := newRig(t, nil)
	// Before the closing, behind it, and behind it but of the friendship that came after.
	r.step(records(t, v(0, 2, 0), closes(1, 3), v(2, 2, 0), v(3, 5, 0), d(4)), "append 0 1 3 4")
	r.appended("locate 1 2")
	r.step(deliver.Located{Places: [][]presence.Place{{{Incarnation: "a", Connection: 1, Addr: "a"}}, nil}}, "send a#1 0 1 3 4 reject 2")
	send := r.last[0].(deliver.Send).Forward
	if got := send.Rejections[0].Rejected; got.GetError().GetCode() != pb.Code_CODE_NOT_FRIENDS || got.GetClientMsgId() != messageID(2) {
		t.Fatalf("its sender is told %v", got)
	}
	if s := r.p.TakeStats(); s.Invalid != 1 || s.Duplicates != 0 {
		t.Fatalf("counted %+v", s)
	}
}

// Or the resend of the friendship that came after would be taken for its copy, and an acknowledged message were lost.
func TestPartition_AnInvalidRecordIsNoFirstOfItsIdentity(t *testing.T) {
	again := v(3, 5, 0)
	again.ID, again.Resend = 2, true
	t.Run("in a batch", func(t *testing.T) {
		r := newRig(t, nil)
		r.step(records(t, closes(1, 3), v(2, 2, 0), again), "append 1 3")
	})
	t.Run("refilled at a takeover", func(t *testing.T) {
		r := newRig(t, func(c *deliver.Config) { c.Start, c.History, c.Reach = 3, 3, 3 })
		r.step(records(t, again), "refill 0-3")
		r.step(deliver.Refilled{Records: records(t, closes(1, 3), v(2, 2, 0)).Records, Done: true}, "append 3")
	})
	t.Run("refilled, with the closing below", func(t *testing.T) {
		r := newRig(t, func(c *deliver.Config) { c.Start, c.History, c.Reach = 3, 3, 1 })
		again := again
		again.SearchFrom, again.From = 2, 2
		r.step(records(t, again), "refill 2-3")
		r.step(deliver.Refilled{Records: records(t, v(2, 2, 0)).Records, Done: true}, "refill 0-2")
		r.step(deliver.Refilled{Err: errAway})
		r.pass(20*time.Millisecond, "refill 0-2")
		r.step(deliver.Refilled{Records: records(t, d(0), closes(1, 3)).Records, Done: true}, "append 3")
	})
	t.Run("but a valid one is", func(t *testing.T) {
		r := newRig(t, func(c *deliver.Config) { c.Start, c.History, c.Reach = 3, 3, 1 })
		again := again
		again.SearchFrom, again.From = 2, 2
		r.step(records(t, again), "refill 2-3")
		r.step(deliver.Refilled{Records: records(t, v(2, 2, 0)).Records, Done: true}, "refill 0-2")
		r.step(deliver.Refilled{Records: records(t, d(0), d(1)).Records, Done: true}, "commit 4")
	})
}

// A closing that the partition has not read itself, or has forgotten, is looked for in the log.
func TestPartition_ClosingsBelowWhatIsKnownAreReadFromTheLog(t *testing.T) {
	t.Run("a new owner", func(t *testing.T) {
		r := newRig(t, func(c *deliver.Config) { c.Start, c.History = 5, 5 })
		r.step(records(t, v(5, 2, 2)), "refill 2-5")
		r.step(deliver.Refilled{Records: records(t, d(2), closes(3, 3), d(4)).Records, Done: true}, "locate 1")
		r.step(deliver.Located{Places: [][]presence.Place{nil}}, "commit 6")
		// What was read once is known.
		r.step(records(t, v(6, 2, 2)), "locate 1")
		r.step(deliver.Located{Places: [][]presence.Place{nil}})
		r.idle(true)
		r.step(records(t, v(7, 3, 2)), "append 7")
	})
	t.Run("forgotten", func(t *testing.T) {
		r := newRig(t, func(c *deliver.Config) { c.Closings = 2 })
		other := func(offset int64, conversation string) msg {
			m := closes(offset, 3)
			m.Conversation = conversation
			return m
		}
		r.take(closes(0, 3), "e1")
		r.take(other(1, "d:1:3"), "e1")
		r.take(other(2, "d:1:4"), "e1")
		r.step(records(t, v(3, 2, 0)), "refill 0-1")
		r.step(deliver.Refilled{Records: records(t, closes(0, 3)).Records, Done: true}, "locate 1")
	})
}
