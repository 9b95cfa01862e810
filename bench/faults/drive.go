package faults

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	future "github.com/futurechat/future/clientsdk"
)

// run is the traffic of one fault: what was offered and what came of it.
type run struct {
	id    string
	size  int
	crowd *crowd
	began time.Time

	// rate in messages a second that all drivers together follow. It is read once a message.
	rate atomic.Int64
	// most, if above 0, is how many messages a device has unacknowledged before it refuses its person's next, as a program may.
	most    atomic.Int32
	drivers []*driver
	wait    sync.WaitGroup
	cancel  context.CancelFunc
}

// offer is an Offer under way.
type offer struct {
	Offer
	arrived atomic.Int32 // at how many devices

	mu   sync.Mutex // guards Acked, Seq and Refused
	open bool
}

// driver sends for some of the pairs, each in turn.
type driver struct {
	run   *run
	first int // it has the pairs first, first+drivers, …

	mu     sync.RWMutex
	chunks [][]offer // an offer stays where it is
	n      int
}

const chunk = 4096

// drivers is enough for what a machine can take, and leaves the order of a device's messages alone: a device has one driver.
const drivers = 4

func newRun(c *crowd, size int) *run {
	r := &run{id: strings.ToLower(rand.Text()[:8]), size: size, crowd: c, began: time.Now()}
	for i := range min(drivers, len(c.pairs)) {
		r.drivers = append(r.drivers, &driver{run: r, first: i})
	}
	return r
}

func (r *run) now() time.Duration { return time.Since(r.began) }

// start sends until stop, or until ctx ends.
func (r *run) start(ctx context.Context, rate int) {
	r.rate.Store(int64(rate))
	ctx, r.cancel = context.WithCancel(ctx)
	for _, d := range r.drivers {
		r.wait.Go(func() { d.drive(ctx) })
	}
}

func (r *run) stop() {
	r.cancel()
	r.wait.Wait()
}

// drive sends what is due when it is due, however late it is. A rate that changes counts from the next message on.
func (d *driver) drive(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	n := len(d.run.drivers)
	due, last := d.run.now()+time.Duration(d.first)*time.Millisecond, int64(0)
	for i := 0; ctx.Err() == nil; i++ {
		rate := d.run.rate.Load()
		if rate != last {
			due, last = max(d.run.now(), due), rate // what this program itself was behind with is not for the new rate
		}
		pause := 50 * time.Millisecond // to look whether there is a rate again
		if rate > 0 {
			pause = time.Second * time.Duration(n) / time.Duration(rate)
		}
		due += pause
		if ahead := due - d.run.now(); ahead > 0 {
			timer.Reset(ahead)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		if rate > 0 {
			d.send(i, due)
		} else {
			due = d.run.now()
		}
	}
}

// send sends the message of a turn: the pairs take turns, then the two friends, then their devices.
func (d *driver) send(turn int, due time.Duration) {
	pairs := d.run.crowd.pairs
	mine := (len(pairs) - d.first + len(d.run.drivers) - 1) / len(d.run.drivers)
	p := pairs[d.first+turn%mine*len(d.run.drivers)]
	turn /= mine
	devices := p.sessions[turn%2]
	x := devices[turn/2%len(devices)]
	o := d.add(x.number, due)
	if most := d.run.most.Load(); most > 0 && x.unacked.Load() >= most {
		o.outcome(d.run.now(), 0, future.ErrOutboxFull)
		return
	}
	pending, err := x.client.SendAsync(p.conversation, d.run.text(o.Number))
	if err != nil {
		o.outcome(d.run.now(), 0, err)
		return
	}
	x.unacked.Add(1)
	x.sent <- sent{d.run, o, pending}
}

func (d *driver) add(from int, due time.Duration) *offer {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n%chunk == 0 {
		d.chunks = append(d.chunks, make([]offer, chunk))
	}
	o := &d.chunks[d.n/chunk][d.n%chunk]
	o.Number, o.From, o.Due, o.Late, o.open = d.n*len(d.run.drivers)+d.first, from, due, d.run.now()-due, true
	d.n++
	return o
}

func (o *offer) outcome(at time.Duration, seq uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case errors.Is(err, future.ErrClosed): // the program ends
	case err != nil:
		o.Refused, o.open = code(err), false
	default:
		o.Acked, o.Seq, o.open = at, seq, false
	}
}

func (r *run) arrived(number int) {
	d := r.drivers[number%len(r.drivers)]
	d.mu.RLock()
	defer d.mu.RUnlock()
	if i := number / len(r.drivers); i < d.n {
		d.chunks[i/chunk][i%chunk].arrived.Add(1)
	}
}

// progress is how things stand: what was offered, what is not answered, what was acknowledged and is not yet everywhere, and when
// the last acknowledgement came.
type progress struct {
	offered, acked, unanswered, missing int
	lastAck                             time.Duration
}

func (r *run) progress() progress {
	var p progress
	r.all(func(o *offer) {
		p.offered++
		switch {
		case o.Acked > 0:
			p.acked++
			p.lastAck = max(p.lastAck, o.Acked)
			if int(o.arrived.Load()) < r.crowd.devicesOf(o.From) {
				p.missing++
			}
		case o.open:
			p.unanswered++
		}
	})
	return p
}

// all calls f for all offers, by driver, each locked.
func (r *run) all(f func(*offer)) {
	for _, d := range r.drivers {
		d.mu.RLock()
		chunks, n := d.chunks, d.n
		d.mu.RUnlock()
		for i := range n {
			o := &chunks[i/chunk][i%chunk]
			o.mu.Lock()
			f(o)
			o.mu.Unlock()
		}
	}
}

func (c *crowd) devicesOf(session int) int {
	p := c.pairs[c.sessions[session].pair]
	return len(p.sessions[0]) + len(p.sessions[1])
}

// text is the message numbered i of a run: both, and filling.
func (r *run) text(i int) string { return fmt.Sprintf("%-*s", r.size, r.id+" "+strconv.Itoa(i)) }

// number reads it back; false for what is not of this run.
func (r *run) number(text string) (int, bool) {
	rest, ok := strings.CutPrefix(text, r.id+" ")
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(strings.TrimRight(rest, " "))
	return i, err == nil && i >= 0
}

// books closes the books, but for the database. targets are the processes that the fault was about.
func (r *run) books(targets map[string]bool) *Books {
	b := &Books{Ended: r.now()}
	for _, p := range r.crowd.pairs {
		b.Conversations = append(b.Conversations, p.conversation)
	}
	r.all(func(o *offer) { b.Offers = append(b.Offers, o.Offer) })
	for _, x := range r.crowd.sessions {
		x.mu.Lock()
		d := Device{Pair: x.pair, Hit: x.lost || targets[x.marked], Lost: x.lost, Arrivals: x.arrivals}
		if x.node != "" {
			d.Back = x.back
		}
		b.Devices = append(b.Devices, d)
		x.mu.Unlock()
	}
	return b
}
