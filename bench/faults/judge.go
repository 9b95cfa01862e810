package faults

import (
	"fmt"
	"slices"
	"time"

	"github.com/futurechat/future/bench/load"
)

// Timing is how long things took, in milliseconds.
type Timing struct {
	// Before is from due to received, at all devices, before the fault; Meanwhile the same from the fault until it was healed, the stated stall over and
	// the sessions were back, between devices that were not hit themselves (if all were: between all).
	Before    load.Spread `json:"before_ms"`
	Meanwhile load.Spread `json:"others_meanwhile_ms"`
	// LongestStall is the longest time from due to received of what was under way when the fault came, or due later. OthersStall is
	// the same between devices that were not hit; AckStall is up to the acknowledgement.
	LongestStall float64 `json:"longest_stall_ms"`
	OthersStall  float64 `json:"longest_stall_of_others_ms"`
	AckStall     float64 `json:"longest_until_acknowledged_ms"`
	// Partitions are the longest stalls of others, one per partition, the worst first: as many as the fault hit, or all.
	Partitions []float64 `json:"partition_stalls_ms,omitempty"`
	// Behind is how far this program was behind with sending.
	Behind load.Spread `json:"behind_ms"`
	// Hit is how many sessions were at a target or lost their node. Back is how long after the fault those that lost it had another;
	// Away is how many had none in the end.
	Hit  int         `json:"sessions_hit"`
	Back load.Spread `json:"sessions_back_ms"`
	Away int         `json:"sessions_not_back"`
	// Normal is how long after healing the last message was due that took longer than three times the 99th percentile before (100 ms
	// at least).
	Normal float64 `json:"normal_after_healing_ms"`
}

// Time makes the Timing. hit is how many partitions the fault was about; 0: not known.
func (b *Books) Time(hit int) Timing {
	var t Timing
	var before, meanwhile, back []time.Duration
	none := !slices.ContainsFunc(b.Devices, func(d Device) bool { return !d.Hit })
	until := b.Healed + b.Stated
	for _, d := range b.Devices {
		if d.Hit {
			t.Hit++
		}
		switch {
		case !d.Lost:
		case d.Back == 0:
			t.Away++
		default:
			back = append(back, d.Back-b.Fault)
			until = max(until, d.Back)
		}
	}
	stalls := make([]time.Duration, len(b.History))
	var longest, others time.Duration
	b.deliveries(func(o *Offer, d *Device, took time.Duration) {
		if o.Due+took < b.Fault {
			before = append(before, took)
			return
		}
		longest = max(longest, took)
		if (d.Hit || b.Devices[o.From].Hit) && !none {
			return
		}
		others = max(others, took)
		p := b.partition(o)
		stalls[p] = max(stalls[p], took)
		if o.Due >= b.Fault && o.Due <= until {
			meanwhile = append(meanwhile, took)
		}
	})
	t.Before, t.Meanwhile, t.Back = load.SpreadOf(before), load.SpreadOf(meanwhile), load.SpreadOf(back)
	t.LongestStall, t.OthersStall = ms(longest), ms(others)
	slices.Sort(stalls)
	slices.Reverse(stalls)
	if hit > 0 && hit < len(stalls) {
		stalls = stalls[:hit]
	}
	for _, s := range stalls {
		t.Partitions = append(t.Partitions, ms(s))
	}
	t.acks(b)
	t.normal(b, none)
	return t
}

// deliveries calls f for each device at which an acknowledged message was to come: once, with how long it took. What did not come
// took until the books were closed.
func (b *Books) deliveries(f func(o *Offer, d *Device, took time.Duration)) {
	at := make([]map[int]time.Duration, len(b.Devices))
	of := map[int][]int{}
	for i, d := range b.Devices {
		at[i] = make(map[int]time.Duration, len(d.Arrivals))
		for _, a := range d.Arrivals {
			if _, twice := at[i][a.Number]; !twice {
				at[i][a.Number] = a.At
			}
		}
		of[d.Pair] = append(of[d.Pair], i)
	}
	for i := range b.Offers {
		o := &b.Offers[i]
		if o.Acked == 0 {
			continue
		}
		for _, d := range of[b.Devices[o.From].Pair] {
			end, ok := at[d][o.Number]
			if !ok {
				end = b.Ended
			}
			f(o, &b.Devices[d], end-o.Due)
		}
	}
}

func (t *Timing) acks(b *Books) {
	late := make([]time.Duration, 0, len(b.Offers))
	for _, o := range b.Offers {
		late = append(late, o.Late)
		if o.Acked >= b.Fault {
			t.AckStall = max(t.AckStall, ms(o.Acked-o.Due))
		}
	}
	t.Behind = load.SpreadOf(late)
}

func (t *Timing) normal(b *Books, none bool) {
	const least, times = 100, 3
	limit := max(times*t.Before.P99, least)
	b.deliveries(func(o *Offer, d *Device, took time.Duration) {
		if o.Due >= b.Healed && ms(took) > limit && (none || !d.Hit && !b.Devices[o.From].Hit) {
			t.Normal = max(t.Normal, ms(o.Due-b.Healed))
		}
	})
}

func ms(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// leastAcked is how much of what was offered outside the stated stall must have been acknowledged, in percent: a cluster that
// refuses everything loses nothing.
const leastAcked = 95

// Failures says in sentences what a run must not do, and has done. hit says that the fault was seen to hit; idle that nothing was
// to be sent.
func (t *Tally) Failures(hit, idle bool) []string {
	var all []string
	zero := func(n int, what string) {
		if n != 0 {
			all = append(all, fmt.Sprintf("%d %s", n, what))
		}
	}
	zero(t.Lost, "acknowledged messages are lost")
	zero(t.Late, fmt.Sprintf("messages came later than %v after healing", deadline))
	zero(t.Doubled, "messages are doubled")
	zero(t.OutOfOrder, "messages are out of order")
	zero(t.AckedThenDropped, "messages were acknowledged and then dropped")
	if t.AckedOutside < leastAcked {
		all = append(all, fmt.Sprintf("only %.1f %% of what was offered outside the stated stall was acknowledged; %d %% is wanted", t.AckedOutside, leastAcked))
	}
	if !idle && t.Acknowledged == 0 {
		all = append(all, "nothing was acknowledged, so nothing was proved")
	}
	if !hit {
		all = append(all, "the fault was not seen to hit")
	}
	return all
}

// Goal is a figure that is wanted. One that is missed does not make a run fail.
type Goal struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Most  float64 `json:"at_most"`
	Unit  string  `json:"unit"`
	Met   bool    `json:"met"`
}

func goal(what string, value, most float64, unit string) Goal {
	return Goal{what, value, most, unit, value <= most}
}

// percentile of figures, by the nearest rank.
func percentile(all []float64, percent int) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[max((len(sorted)*percent+99)/100, 1)-1]
}
