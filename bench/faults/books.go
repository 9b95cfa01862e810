package faults

import (
	"fmt"
	"hash/fnv"
	"io"
	"time"
)

// Books are all that is known of a run. Times are since its beginning; 0 says that something did not happen.
type Books struct {
	// Conversations by the number of the pair.
	Conversations []string
	Devices       []Device
	Offers        []Offer
	// Rows of the run's messages in the database, by conversation and seq.
	Rows []Row
	// History is, per partition of the log, the offset below which history has taken everything; its length is the number of
	// partitions.
	History []int64
	// Fault is when the fault began, Healed when its cause was gone, Ended when the books were closed.
	Fault, Healed, Ended time.Duration
	// Stated is how long after healing messages may be refused or late without counting against the cluster.
	Stated time.Duration
}

// Offer is a message that somebody wanted to send.
type Offer struct {
	// Number is its own in the run, and rises with each message of a device. From is the device.
	Number, From int
	// Due is when it was to be sent, Acked when the acknowledgement came, with Seq. Late is how long after Due this program sent it.
	Due, Acked, Late time.Duration
	Seq              uint64
	// Refused is the code of a refusal for good.
	Refused string
}

// Device is a session of one of a pair. Both friends' devices get every message of theirs.
type Device struct {
	Pair int
	// Hit says that the fault was its own: its node was a target, or it lost its session meanwhile: Lost.
	Hit, Lost bool
	// Back is when it had a session again; 0 also if it has none in the end.
	Back time.Duration
	// Arrivals are what the program was told, in that order.
	Arrivals []Arrival
}

// Arrival is a message at a device.
type Arrival struct {
	Number int
	Seq    uint64
	At     time.Duration
}

// Row is a message in the database.
type Row struct {
	Pair, Number int
	Seq          uint64
}

// Tally is what became of the messages. Those under "zero" are promises.
type Tally struct {
	Offered      int            `json:"offered"`
	Acknowledged int            `json:"acknowledged"`
	Refused      map[string]int `json:"refused"`
	// Unanswered were neither acknowledged nor refused when the books were closed.
	Unanswered int `json:"unanswered"`
	// Delivered counts messages at devices, each once, of Expected: the acknowledged ones times the devices of the two friends.
	Delivered int `json:"delivered"`
	Expected  int `json:"expected"`
	// Stored are rows.
	Stored int `json:"stored"`

	Zero

	// OtherSeq were acknowledged at another position than they have: allowed, when one that was sent again is in the log twice.
	OtherSeq int `json:"acknowledged_at_other_seq"`
	// AckedOutside is how much of what was due outside the fault and its stated stall was acknowledged, in percent.
	AckedOutside float64 `json:"acknowledged_outside_percent"`
	// Examples tell of some messages that are counted under zero.
	Examples []string `json:"examples,omitempty"`
}

// Zero is what must not happen. Messages are counted, not devices.
type Zero struct {
	// Lost were acknowledged and are not in the database, or not at a device of the two friends: NotStored, NotDelivered.
	Lost         int `json:"lost"`
	NotStored    int `json:"lost_not_stored"`
	NotDelivered int `json:"lost_not_delivered"`
	// Late came at a device more than 30 s after healing, or after their acknowledgement if that came later.
	Late int `json:"late"`
	// Doubled were shown twice by a device, or have two rows.
	Doubled int `json:"doubled"`
	// OutOfOrder came, at a device or in the database, after one that was sent later from the same device, or has a higher seq; or
	// their seq is not the same everywhere.
	OutOfOrder int `json:"out_of_order"`
	// AckedThenDropped were acknowledged and have no row, though history is past them.
	AckedThenDropped int `json:"acked_then_dropped"`
}

// deadline is how long after healing everything must have arrived.
const deadline = 30 * time.Second

// tallying is a Tally on its way.
type tallying struct {
	*Books
	Tally
	byNumber map[int]*Offer
	rows     map[int]Row
	late     map[int]bool
	doubled  map[int]bool
	disorder map[int]bool
}

// Count makes the Tally.
func (b *Books) Count() Tally {
	t := &tallying{
		Books: b, Tally: Tally{Refused: map[string]int{}}, byNumber: map[int]*Offer{}, rows: map[int]Row{},
		late: map[int]bool{}, doubled: map[int]bool{}, disorder: map[int]bool{},
	}
	for i := range b.Offers {
		t.byNumber[b.Offers[i].Number] = &b.Offers[i]
	}
	t.offers()
	t.database()
	got := make([]map[int]bool, len(b.Devices))
	of := map[int][]int{} // pair → devices
	for d := range b.Devices {
		got[d] = t.device(d)
		t.Delivered += len(got[d])
		of[b.Devices[d].Pair] = append(of[b.Devices[d].Pair], d)
	}
	for i := range b.Offers {
		if o := &b.Offers[i]; o.Acked > 0 {
			t.acknowledged(o, of[b.Devices[o.From].Pair], got)
		}
	}
	t.Late, t.Doubled, t.OutOfOrder = len(t.late), len(t.doubled), len(t.disorder)
	return t.Tally
}

func (t *tallying) offers() {
	outside, acked := 0, 0
	for _, o := range t.Offers {
		t.Offered++
		switch {
		case o.Acked > 0:
			t.Acknowledged++
		case o.Refused != "":
			t.Refused[o.Refused]++
		default:
			t.Unanswered++
		}
		if o.Due >= t.Fault && o.Due < t.Healed+t.Stated {
			continue
		}
		outside++
		if o.Acked > 0 {
			acked++
		}
	}
	t.AckedOutside = 100
	if outside > 0 {
		t.AckedOutside = 100 * float64(acked) / float64(outside)
	}
}

// database goes through the rows, which are by conversation and seq.
func (t *tallying) database() {
	last := map[int]int{} // device → highest number so far
	for _, r := range t.Rows {
		o := t.byNumber[r.Number]
		if _, twice := t.rows[r.Number]; twice {
			t.note(t.doubled, r.Number, "has two rows")
			continue
		}
		t.rows[r.Number] = r
		t.Stored++
		if o == nil || t.Devices[o.From].Pair != r.Pair {
			t.note(t.disorder, r.Number, "is in the database, in a conversation where nobody offered it")
			continue
		}
		if before, ok := last[o.From]; ok && r.Number < before {
			t.note(t.disorder, r.Number, fmt.Sprintf("is in the database behind %d, which was sent later", before))
		}
		last[o.From] = max(last[o.From], r.Number)
		if o.Acked > 0 && o.Seq != r.Seq {
			t.OtherSeq++
		}
	}
}

// device goes through what a device was told.
func (t *tallying) device(d int) map[int]bool {
	got := map[int]bool{}
	last := map[int]int{}
	var seq uint64
	for _, a := range t.Devices[d].Arrivals {
		o := t.byNumber[a.Number]
		switch {
		case got[a.Number]:
			t.note(t.doubled, a.Number, fmt.Sprintf("came twice at device %d", d))
			continue
		case o == nil || t.Devices[o.From].Pair != t.Devices[d].Pair:
			t.note(t.disorder, a.Number, fmt.Sprintf("came at device %d, where nobody offered it", d))
			continue
		case a.Seq <= seq:
			t.note(t.disorder, a.Number, fmt.Sprintf("came at device %d with seq %d, behind %d", d, a.Seq, seq))
		case a.Number < last[o.From]:
			t.note(t.disorder, a.Number, fmt.Sprintf("came at device %d behind %d, which was sent later", d, last[o.From]))
		}
		got[a.Number] = true
		last[o.From] = max(last[o.From], a.Number)
		seq = max(seq, a.Seq)
		if r, ok := t.rows[a.Number]; ok && r.Seq != a.Seq {
			t.note(t.disorder, a.Number, fmt.Sprintf("has seq %d at device %d and %d in the database", a.Seq, d, r.Seq))
		}
		if o.Acked > 0 && a.At > max(t.Healed, o.Acked)+deadline {
			t.note(t.late, a.Number, fmt.Sprintf("came at device %d %v after it was due", d, a.At-o.Due))
		}
	}
	return got
}

// acknowledged looks for an acknowledged message everywhere.
func (t *tallying) acknowledged(o *Offer, devices []int, got []map[int]bool) {
	_, stored := t.rows[o.Number]
	delivered := true
	for _, d := range devices {
		t.Expected++
		if !got[d][o.Number] {
			delivered = false
			t.example("message %d, acknowledged at %v, did not come at device %d", o.Number, o.Acked, d)
		}
	}
	if !stored {
		t.NotStored++
		const offset = 1<<48 - 1 // of a seq; the rest is the epoch
		p := t.partition(o)
		if p < len(t.History) && int64(o.Seq&offset) < t.History[p] {
			t.AckedThenDropped++
			t.example("message %d, acknowledged with seq %d, has no row, and history is past it", o.Number, o.Seq)
		}
	}
	if !delivered {
		t.NotDelivered++
	}
	if !stored || !delivered {
		t.Lost++
	}
}

func (t *tallying) note(of map[int]bool, number int, what string) {
	of[number] = true
	t.example("message %d %s", number, what)
}

func (t *tallying) example(format string, args ...any) {
	const most = 10
	if len(t.Examples) < most {
		t.Examples = append(t.Examples, fmt.Sprintf(format, args...))
	}
}

// partition is that of the log in which an offer's conversation lies.
func (b *Books) partition(o *Offer) int { return b.partitionOf(b.Devices[o.From].Pair) }

func (b *Books) partitionOf(pair int) int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, b.Conversations[pair]) // never fails
	return int(h.Sum32() % uint32(len(b.History)))
}
