package peer

import (
	"container/heap"
	"time"
)

// call is a Forward or a Fence under way. It belongs to its remote's calls until that takes it out, and who took it out tells it: so it is
// told once.
type call struct {
	id       uint64
	done     func(Answer, error)
	fenced   func(Fenced, error) // instead of done: of a Fence
	begun    time.Time
	deadline time.Time
	err      error // what to tell, once it failed
	index    int   // in byDeadline
}

func (c *call) tell(m *poolMetrics, a Answer, err error) {
	if c.fenced != nil {
		c.tellFenced(m, Fenced{}, err)
		return
	}
	m.answers.WithLabelValues(resultOf(err, resultAnswered)).Inc()
	if err == nil {
		m.duration.Observe(time.Since(c.begun).Seconds())
	}
	c.done(a, err)
}

func (c *call) tellFenced(m *poolMetrics, f Fenced, err error) {
	m.fences.WithLabelValues(resultOf(err, resultAnswered)).Inc()
	c.fenced(f, err)
}

// calls are those under way on one remote: by id, and the earliest deadline first.
type calls struct {
	byID       map[uint64]*call
	byDeadline deadlines
}

func (cs *calls) add(c *call) {
	cs.byID[c.id] = c
	heap.Push(&cs.byDeadline, c)
}

func (cs *calls) take(id uint64) *call {
	c := cs.byID[id]
	if c != nil {
		delete(cs.byID, id)
		heap.Remove(&cs.byDeadline, c.index)
	}
	return c
}

// takeDue takes one whose deadline has come, or nil.
func (cs *calls) takeDue(now time.Time) *call {
	if len(cs.byDeadline) == 0 || cs.byDeadline[0].deadline.After(now) {
		return nil
	}
	return cs.take(cs.byDeadline[0].id)
}

// deadlines is a heap.
type deadlines []*call

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

func (d *deadlines) Push(x any) {
	c, ok := x.(*call)
	if !ok {
		return
	}
	c.index = len(*d)
	*d = append(*d, c)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	c := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return c
}
