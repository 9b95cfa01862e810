package tcpgate

import "time"

const wheelSlots = 256

// wheel finds connections whose time is over. Every connection of the loop is
// in exactly one slot. A deadline that moves away is not followed: the
// connection is looked at when its slot comes, and put into a later one. So a
// frame costs the wheel nothing. Owned by the loop's goroutine.
type wheel struct {
	tick  int64 // nanoseconds per slot
	now   int64 // ticks done
	slots [wheelSlots]*Conn
	size  int
}

// newWheel has slots of an eighth of the shortest limit, between 5 ms and 1 s:
// a limit is met at most that much late. 0 means that there is no limit.
func newWheel(shortest time.Duration, now int64) wheel {
	tick := time.Second
	if shortest > 0 {
		tick = min(max(shortest/8, 5*time.Millisecond), tick)
	}
	return wheel{tick: int64(tick), now: now / int64(tick)}
}

// add puts c where it is looked at no earlier than at due, or at the horizon if
// that comes first.
func (w *wheel) add(c *Conn, due int64) {
	ticks := min(max((due+w.tick-1)/w.tick, w.now+1), w.now+wheelSlots-1)
	c.slot = int(ticks % wheelSlots)
	head := &w.slots[c.slot]
	c.wheelNext, c.wheelPrev = *head, nil
	if *head != nil {
		(*head).wheelPrev = c
	}
	*head = c
	w.size++
}

func (w *wheel) remove(c *Conn) {
	if c.wheelPrev != nil {
		c.wheelPrev.wheelNext = c.wheelNext
	} else {
		w.slots[c.slot] = c.wheelNext
	}
	if c.wheelNext != nil {
		c.wheelNext.wheelPrev = c.wheelPrev
	}
	c.wheelNext, c.wheelPrev = nil, nil
	w.size--
}

// advance calls look for every connection whose slot has come; look must add it
// again.
func (w *wheel) advance(now int64, look func(*Conn)) {
	target := now / w.tick
	if target-w.now > wheelSlots {
		w.now = target - wheelSlots
	}
	for w.now < target {
		w.now++
		slot := w.now % wheelSlots
		for c := w.slots[slot]; c != nil; c = w.slots[slot] {
			w.remove(c)
			look(c)
		}
	}
}

// next is the time of the next slot.
func (w *wheel) next() int64 { return (w.now + 1) * w.tick }

// each visits all connections; visit must not add or remove.
func (w *wheel) each(visit func(*Conn)) {
	for _, c := range w.slots {
		for ; c != nil; c = c.wheelNext {
			visit(c)
		}
	}
}
