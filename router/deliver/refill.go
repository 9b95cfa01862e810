package deliver

import (
	"time"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

// refill is what a batch needs of the log below what the partition knows, before it can be judged: where the resends in it came
// first, identities for the window after a takeover, and the ends of rights that its messages may stand behind.
//
// What is found is judged itself: an invalid message is no first of its identity, or a valid resend would be dropped for it. For
// that the ends of rights from its CheckedFrom on must be known. Where that lies below what was read the stretch between is read as
// well, for these alone.
type refill struct {
	from, to int64 // what is read now
	lowest   int64 // of all that was read
	whole    bool  // up to where closings are known
	gap      bool  // the stretch below the first is read now

	windowFrom int64             // from where on what is found is for the window
	searchFrom int64             // from where on nothing may be left out for its age
	wanted     map[identity]bool // the resends' identities

	// Found so far.
	candidates []candidate // for the window
	overflow   bool        // they were too many for it: hits alone count
	hits       []candidate // of what is wanted
	first      chat.Closings
	below      chat.Closings // in the gap
	ends       []end
}

// candidate is a message that was found, and what its validity depends on.
type candidate struct {
	seen
	chat.Check
	checkedFrom int64
	closed      uint64 // the highest end of its sender's right that was found before it
}

// end is a closing and where it stands.
type end struct {
	chat.Closing
	offset int64
}

// begin forgets what was found of the stretch that is read now.
func (f *refill) begin() {
	if f.gap {
		f.below = chat.Closings{}
		return
	}
	f.candidates, f.overflow, f.hits, f.first, f.ends = nil, false, nil, chat.Closings{}, nil
}

// take takes a record of the stretch. windowStart is where the window begins, most how many it takes, newest the log's time.
func (f *refill) take(epoch uint32, r eventlog.Record, windowStart int64, most int, newest time.Time) {
	rec, err := chat.ParseRecord(epoch, r)
	if err != nil || rec.Message == nil || r.Offset >= f.to {
		return
	}
	if c, closes := chat.ClosingOf(rec.Message); closes {
		f.ends = append(f.ends, end{c, r.Offset})
		if f.gap {
			f.below.Note(rec.Message)
		} else {
			f.first.Note(rec.Message)
		}
	}
	if f.gap || r.Offset < f.windowFrom || r.Offset >= windowStart || f.first.Invalid(rec) {
		return
	}
	if r.Offset < f.searchFrom && newest.Sub(r.Time) > windowAge {
		f.windowFrom, f.candidates = r.Offset+1, nil
		return
	}
	id := chat.IdentityOf(rec.Message)
	c := candidate{
		seen:  seen{id, firstSeen{r.Offset, r.Time, hashContent(rec.Message)}},
		Check: chat.Check{Checked: rec.Checked, Version: rec.Version}, checkedFrom: rec.CheckedFrom,
		closed: f.first.Highest(id.Conversation, id.Sender),
	}
	if f.wanted[id] {
		f.hits = append(f.hits, c)
	}
	// A range too large for the window is searched for the wanted alone, and the window stays as it is.
	if f.overflow = f.overflow || len(f.candidates) >= most; !f.overflow {
		f.candidates = append(f.candidates, c)
	}
}

// more says whether there is a gap to be read, and goes to it.
func (f *refill) more() bool {
	f.lowest = min(f.lowest, f.from)
	if f.gap {
		return false
	}
	from := f.from
	for _, list := range [][]candidate{f.candidates, f.hits} {
		for _, c := range list {
			if c.Checked {
				from = min(from, max(c.checkedFrom, 0))
			}
		}
	}
	if from == f.from {
		return false
	}
	f.from, f.to, f.gap = from, f.from, true
	return true
}

// valid keeps what was found and is valid.
func (f *refill) valid(list []candidate) []seen {
	out := make([]seen, 0, len(list))
	for _, c := range list {
		if c.Checked && max(c.closed, f.below.Highest(c.id.Conversation, c.id.Sender)) > c.Version {
			continue
		}
		out = append(out, c.seen)
	}
	return out
}

// closings are the ends of rights that were read last in a partition: for all offsets from from to where the partition is, but that
// of a key only the highest version is kept. Two generations, so that between half of most and most keys are kept.
type closings struct {
	most          int
	from          int64
	recent, older map[chat.ClosingKey]lastEnd
}

type lastEnd struct {
	version uint64
	offset  int64
}

func newClosings(from int64, most int) closings {
	return closings{most: most, from: from, recent: map[chat.ClosingKey]lastEnd{}}
}

func (c *closings) get(k chat.ClosingKey) lastEnd {
	if e, ok := c.recent[k]; ok {
		return e
	}
	return c.older[k]
}

// highest is the version of the highest end of a sender's right, 0 if there is none.
func (c *closings) highest(conversation string, sender int64) uint64 {
	if len(c.recent)+len(c.older) == 0 {
		return 0 // nearly always
	}
	keys := chat.ClosedFor(conversation, sender)
	return max(c.get(keys[0]).version, c.get(keys[1]).version)
}

// note remembers an end. What is forgotten for it raises from above where it stood.
func (c *closings) note(e end) {
	k := e.Key()
	known := c.get(k)
	if _, ok := c.recent[k]; !ok && len(c.recent) >= max(c.most/2, 1) {
		for _, gone := range c.older { // only the highest counts
			c.from = max(c.from, gone.offset+1)
		}
		c.recent, c.older = map[chat.ClosingKey]lastEnd{}, c.recent
	}
	c.recent[k] = lastEnd{max(known.version, e.Version), max(known.offset, e.offset)}
}
