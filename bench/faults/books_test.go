package faults

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const second = time.Second

// clean are the books of a run in which all went well: two pairs, the second with two devices a person; three messages each, from two
// devices in turn, one of them due in the fault's stall.
func clean() *Books {
	b := &Books{
		Conversations: []string{"d:1:2", "d:3:4"}, History: make([]int64, 4),
		Devices: []Device{{Pair: 0}, {Pair: 0}, {Pair: 1}, {Pair: 1}, {Pair: 1}, {Pair: 1}},
		Fault:   10 * second, Healed: 20 * second, Stated: 2 * second, Ended: 60 * second,
	}
	from := [][]int{{0, 1, 0}, {2, 4, 2}}
	number := 0
	for pair, senders := range from {
		for i, sender := range senders {
			due := time.Duration(5+8*i) * second
			seq := uint64(100*pair + 10*i + 1)
			b.Offers = append(b.Offers, Offer{Number: number, From: sender, Due: due, Acked: due + 2*time.Millisecond, Seq: seq})
			b.Rows = append(b.Rows, Row{Pair: pair, Number: number, Seq: seq})
			for d := range b.Devices {
				if b.Devices[d].Pair == pair {
					b.Devices[d].Arrivals = append(b.Devices[d].Arrivals, Arrival{number, seq, due + 5*time.Millisecond})
				}
			}
			number++
		}
	}
	for p := range b.History {
		b.History[p] = 1000
	}
	return b
}

func TestCount_AllWell_Passes(t *testing.T) {
	got := clean().Count()
	if got.Zero != (Zero{}) || got.AckedOutside != 100 || got.Offered != 6 || got.Acknowledged != 6 || got.Stored != 6 ||
		got.Delivered != 3*2+3*4 || got.Expected != got.Delivered || got.Unanswered != 0 || len(got.Refused) != 0 {
		t.Errorf("got %+v", got)
	}
	if f := got.Failures(true, false); len(f) != 0 {
		t.Errorf("fails: %v", f)
	}
}

// Whatever is planted into clean books is found, as what it is, and fails the verdict.
func TestCount_WhatIsPlanted_IsFoundAndFails(t *testing.T) {
	for _, tc := range []struct {
		name  string
		plant func(b *Books)
		want  Zero
	}{
		{"acknowledged, and not at one device", func(b *Books) {
			b.Devices[5].Arrivals = slices.Delete(b.Devices[5].Arrivals, 1, 2)
		}, Zero{Lost: 1, NotDelivered: 1}},
		{"acknowledged, and not at the sender's other device", func(b *Books) {
			b.Devices[3].Arrivals = b.Devices[3].Arrivals[:2]
		}, Zero{Lost: 1, NotDelivered: 1}},
		{"acknowledged, and no row where history is not yet", func(b *Books) {
			b.Rows = slices.Delete(b.Rows, 1, 2)
			clear(b.History)
		}, Zero{Lost: 1, NotStored: 1}},
		{"acknowledged, and no row though history is past it", func(b *Books) { b.Rows = slices.Delete(b.Rows, 1, 2) },
			Zero{Lost: 1, NotStored: 1, AckedThenDropped: 1}},
		{"lost in both ways counts once", func(b *Books) {
			b.Rows = slices.Delete(b.Rows, 1, 2)
			b.Devices[0].Arrivals = slices.Delete(b.Devices[0].Arrivals, 1, 2)
		}, Zero{Lost: 1, NotStored: 1, NotDelivered: 1, AckedThenDropped: 1}},
		{"shown twice by a device", func(b *Books) {
			a := b.Devices[1].Arrivals
			b.Devices[1].Arrivals = append(a, a[0])
		}, Zero{Doubled: 1}},
		{"two rows", func(b *Books) { b.Rows = slices.Insert(b.Rows, 3, Row{Pair: 0, Number: 1, Seq: 50}) }, Zero{Doubled: 1}},
		{"two messages the wrong way round at a device", func(b *Books) {
			a := b.Devices[4].Arrivals
			a[0], a[1] = a[1], a[0]
		}, Zero{OutOfOrder: 1}},
		{"in the log against the order of sending, and so everywhere", func(b *Books) {
			b.Rows[0].Number, b.Rows[2].Number = b.Rows[2].Number, b.Rows[0].Number
			for d := range 2 {
				a := b.Devices[d].Arrivals
				a[0].Number, a[2].Number = a[2].Number, a[0].Number
			}
		}, Zero{OutOfOrder: 1}},
		{"against the order of sending at a device, unacknowledged and not stored", func(b *Books) {
			b.Offers[0].Acked, b.Offers[2].Acked = 0, 0
			b.Rows = slices.Delete(slices.Delete(b.Rows, 2, 3), 0, 1)
			a := b.Devices[0].Arrivals
			a[0].Number, a[2].Number = a[2].Number, a[0].Number
		}, Zero{OutOfOrder: 1}},
		{"another seq at a device than in the database", func(b *Books) { b.Devices[0].Arrivals[2].Seq++ }, Zero{OutOfOrder: 1}},
		{"in another conversation", func(b *Books) {
			b.Devices[2].Arrivals = append(b.Devices[2].Arrivals, Arrival{Number: 0, Seq: 900, At: 30 * second})
		}, Zero{OutOfOrder: 1}},
		{"at a device 30 s after healing", func(b *Books) { b.Devices[1].Arrivals[2].At = b.Healed + 31*second + 1*second }, Zero{Late: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := clean()
			tc.plant(b)
			got := b.Count()
			if got.Zero != tc.want {
				t.Errorf("got %+v, want %+v", got.Zero, tc.want)
			}
			if f := got.Failures(true, false); len(f) == 0 {
				t.Error("the verdict passes")
			}
			if len(got.Examples) == 0 && got.AckedThenDropped == got.NotStored {
				t.Error("no example is told")
			}
		})
	}
}

// A message that was never acknowledged may get lost, but not doubled or out of order.
func TestCount_Unacknowledged_MayBeLostButNotDoubled(t *testing.T) {
	b := clean()
	b.Offers[1].Acked, b.Offers[1].Refused = 0, "UNAVAILABLE"
	b.Rows = slices.Delete(b.Rows, 1, 2)
	got := b.Count()
	if got.Zero != (Zero{}) || got.Refused["UNAVAILABLE"] != 1 || got.Acknowledged != 5 {
		t.Errorf("got %+v", got)
	}
	b.Offers[1].Refused = ""
	b.Devices[0].Arrivals = append(b.Devices[0].Arrivals, b.Devices[0].Arrivals[1])
	if got := b.Count(); got.Doubled != 1 || got.Unanswered != 1 {
		t.Errorf("got %+v", got)
	}
}

// What is late, or lost in the fault's stated stall, does not count against the 95 %; what is refused outside does.
func TestCount_AckedOutside_LeavesOutTheStatedStall(t *testing.T) {
	b := clean()
	b.Offers[1].Acked, b.Offers[1].Refused = 0, "UNAVAILABLE" // due at 13 s, in the fault
	b.Offers[2].Acked, b.Offers[2].Refused = 0, "UNAVAILABLE" // due at 21 s, in the stated stall
	if got := b.Count(); got.AckedOutside != 100 {
		t.Errorf("got %v %%", got.AckedOutside)
	}
	b.Stated = 0
	got := b.Count()
	if got.AckedOutside != 75 {
		t.Errorf("got %v %%, want 3 of 4", got.AckedOutside)
	}
	if f := got.Failures(true, false); len(f) != 1 || !strings.Contains(f[0], "75.0 %") {
		t.Errorf("got %q", f)
	}
}

func TestFailures_NothingSentOrFaultNotSeen_Fails(t *testing.T) {
	got := clean().Count()
	if f := got.Failures(false, false); len(f) != 1 {
		t.Errorf("the fault was not seen: %q", f)
	}
	nothing := (&Books{History: make([]int64, 1)}).Count()
	if f := nothing.Failures(true, false); len(f) != 1 {
		t.Errorf("nothing was sent: %q", f)
	}
	if f := nothing.Failures(true, true); len(f) != 0 {
		t.Errorf("nothing was to be sent: %q", f)
	}
}

// A stall counts from when a message was due, what never came until the books were closed, and what the fault's own sessions
// waited for is not the others'.
func TestTime_Stalls(t *testing.T) {
	b := clean()
	b.Devices[1].Arrivals[1].At = 16 * second // due at 13 s
	b.Devices[2].Arrivals[1].At = 14 * second // due at 13 s
	got := b.Time(1)
	if got.LongestStall != 3000 || got.OthersStall != 3000 || got.Hit != 0 || len(got.Partitions) != 1 || got.Partitions[0] != 3000 {
		t.Errorf("got %+v", got)
	}
	if got.Before.Max != 5 {
		t.Errorf("before the fault: %+v", got.Before)
	}
	b.Devices[1].Hit, b.Devices[1].Lost, b.Devices[1].Back = true, true, 15*second
	got = b.Time(1)
	if got.LongestStall != 3000 || got.OthersStall != 1000 || got.Hit != 1 || got.Back.Max != 5000 || got.Away != 0 || got.Meanwhile.Max != 1000 {
		t.Errorf("got %+v", got)
	}
	b.Devices[1].Back = 0
	b.Devices[4].Arrivals = b.Devices[4].Arrivals[:2] // the third, due at 21 s, never came
	got = b.Time(0)
	if got.LongestStall != 39000 || got.Away != 1 || got.Normal != 1000 || len(got.Partitions) != 4 {
		t.Errorf("got %+v", got)
	}
}

func TestPartitionOf_IsTheLogs(t *testing.T) {
	// FNV-1a of 32 bits, as eventlog.PartitionOf has it.
	b := &Books{Conversations: []string{"d:1:2", "d:17:23"}, History: make([]int64, 64)}
	if got := []int{b.partitionOf(0), b.partitionOf(1)}; !slices.Equal(got, []int{want("d:1:2"), want("d:17:23")}) {
		t.Errorf("got %v", got)
	}
}

func want(conversation string) int {
	h := uint32(2166136261)
	for _, c := range []byte(conversation) {
		h = (h ^ uint32(c)) * 16777619
	}
	return int(h % 64)
}
