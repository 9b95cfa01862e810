package simulation

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"slices"
	"time"

	"github.com/futurechat/future/router/clock"
)

// proc is one life of a process, of a server's role or of a client's program. It is a clock.Clock: what the product's loops wait
// by. Its tasks are the product's goroutines, run one at a time.
type proc struct {
	w      *world
	name   string
	skew   time.Duration // how far its clock is off at the beginning
	drift  float64       // how much faster than true time it goes
	dead   bool
	paused bool
	ended  context.CancelFunc
	ctx    context.Context // ends with the process

	backlog []func() // what came while it was paused
	tasks   []*task
	touched bool
	onKill  []func()

	cuts map[*service]cut // from here to a service
}

// cut is what does not get through.
type cut uint8

const (
	cutRequests cut = 1 << iota
	cutAnswers
)

var _ clock.Clock = (*proc)(nil)

func (w *world) start(name string) *proc {
	r := w.stream("clocks")
	p := &proc{w: w, name: fmt.Sprintf("%s/%d", name, w.id()), cuts: map[*service]cut{}}
	if skew, drift := r.Float64(), r.Float64(); w.o.on("skew") {
		const most, mostDrift = 20 * time.Second, 0.01
		p.skew = time.Duration((2*skew - 1) * float64(most))
		p.drift = (2*drift - 1) * mostDrift
		w.count("fault skew")
	}
	p.ctx, p.ended = context.WithCancel(context.Background())
	w.procs = append(w.procs, p)
	w.tracef("%s starts", p.name)
	return p
}

// kill ends a process at once, as SIGKILL does.
func (p *proc) kill() {
	if p.dead {
		return
	}
	p.w.tracef("%s is gone", p.name)
	p.dead = true
	p.ended()
	for len(p.tasks) > 0 {
		t := p.tasks[len(p.tasks)-1]
		p.tasks = p.tasks[:len(p.tasks)-1]
		t.stop()
	}
	p.backlog = nil
	p.w.procs = slices.DeleteFunc(p.w.procs, func(o *proc) bool { return o == p })
	for _, f := range p.onKill {
		f()
	}
}

// pause stops a process, as SIGSTOP does; resume lets it go on with all that came meanwhile.
func (p *proc) pause() { p.paused = true }

func (p *proc) resume() {
	if p.dead || !p.paused {
		return
	}
	p.paused = false
	backlog := p.backlog
	p.backlog = nil
	for _, f := range backlog {
		p.exec(f)
	}
	p.touch()
}

// exec has a process take what comes from outside.
func (p *proc) exec(f func()) {
	switch {
	case p.dead:
	case p.paused:
		p.backlog = append(p.backlog, f)
	default:
		f()
		p.touch()
	}
}

// touch has the process look what it can go on with.
func (p *proc) touch() {
	if !p.touched && !p.dead {
		p.touched = true
		p.w.dirty = append(p.w.dirty, p)
	}
}

// ---- tasks

// task is a goroutine of the product, as a coroutine. One that has ended is used again.
type task struct {
	p     *proc
	f     func() // what it does; nil: it has ended
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	ready func() bool // what it waits for; nil: it has not begun
}

// killed unwinds a task whose process is gone.
var killed any = new(int)

// spawn begins a task, which runs when the process does.
func (p *proc) spawn(f func()) {
	if p.dead {
		return
	}
	var t *task
	if n := len(p.w.idle); n > 0 {
		t = p.w.idle[n-1]
		p.w.idle = p.w.idle[:n-1]
	} else {
		t = new(task)
		t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
			t.yield = yield
			for t.work(); yield(struct{}{}); t.work() {
			}
		})
	}
	t.p, t.f, t.ready = p, f, nil
	p.tasks = append(p.tasks, t)
	p.touch()
}

func (t *task) work() {
	defer func() {
		if r := recover(); r != nil && r != killed {
			t.p.w.violate("panic", "%s: %v\n%s", t.p.name, r, debug.Stack())
		}
		t.f = nil
	}()
	t.f()
}

// run lets each task go on that can, until none can.
func (p *proc) run() {
	w := p.w
	for rounds, progress := 0, true; progress && !p.dead && !p.paused && w.broken == nil; rounds++ {
		if progress = p.round(); rounds > 10_000 {
			w.violate("livelock", "%s works without end at one time", p.name)
		}
	}
}

// round begins with any of the tasks: a scheduler promises no order.
func (p *proc) round() (progress bool) {
	w := p.w
	n := len(p.tasks)
	if n == 0 {
		return false
	}
	first := 0
	if n > 1 {
		first = int(w.ties.Uint64() % uint64(n))
	}
	gone := false
	for i := range n {
		t := p.tasks[(first+i)%n]
		if t.ready != nil && !t.ready() {
			continue
		}
		progress = true
		w.current = t
		t.next()
		w.current = nil
		gone = gone || t.f == nil
	}
	if gone {
		p.tasks = slices.DeleteFunc(p.tasks, func(t *task) bool {
			if t.f == nil {
				w.idle = append(w.idle, t)
			}
			return t.f == nil
		})
	}
	return progress
}

// block gives the processor away until ready.
func (p *proc) block(ready func() bool) {
	t := p.w.current
	if p.dead || t == nil || t.p != p {
		panic(killed) //nolint:forbidigo // to the recover in spawn
	}
	t.ready = ready
	if !t.yield(struct{}{}) {
		panic(killed) //nolint:forbidigo // as above
	}
}

// blockUntil is block that ends with ctx as well, which the caller looks at.
func (p *proc) blockUntil(ctx context.Context, ready func() bool) {
	if at, ok := ctx.Deadline(); ok {
		p.wakeAt(at)
	}
	p.block(func() bool { return ready() || ctx.Err() != nil })
}

// wakeAt has the process look around at a time of its clock.
func (p *proc) wakeAt(at time.Time) { p.w.at(p.trueTime(at), p.touch) }

// ---- clock

// Now implements clock.Clock.
func (p *proc) Now() time.Time {
	return began.Add(p.skew + time.Duration(float64(p.w.now)*(1+p.drift)))
}

// trueTime is when this process's clock shows at, or a little later.
func (p *proc) trueTime(at time.Time) time.Duration {
	const rounding = time.Microsecond
	return time.Duration(float64(at.Sub(began)-p.skew)/(1+p.drift)) + rounding
}

// Wait implements clock.Clock.
func (p *proc) Wait(ctx context.Context, until time.Time, wakes ...<-chan struct{}) {
	if !until.IsZero() {
		p.wakeAt(until)
	}
	wakes = slices.Clone(wakes)
	p.blockUntil(ctx, func() bool {
		// Closed, or has one, which is taken.
		return slices.ContainsFunc(wakes, clock.Closed) || !until.IsZero() && !p.Now().Before(until)
	})
}

// WithTimeout implements clock.Clock.
func (p *proc) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	c := &deadline{parent: ctx, p: p, at: p.Now().Add(d)}
	if at, ok := ctx.Deadline(); ok && at.Before(c.at) {
		c.at = at
	}
	return c, func() { c.cancelled = true }
}

// NewGroup implements clock.Clock.
func (p *proc) NewGroup() clock.Group { return &group{p: p} }

type group struct {
	p *proc
	n int
}

func (g *group) Go(f func()) {
	g.n++
	g.p.spawn(func() { f(); g.n-- })
}

func (g *group) Wait() {
	if g.n > 0 {
		g.p.block(func() bool { return g.n == 0 })
	}
}

// deadline is a context that ends by a process's clock. It has no channel: who waits does so by the process.
type deadline struct {
	parent    context.Context
	p         *proc
	at        time.Time
	cancelled bool
}

func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }
func (d *deadline) Done() <-chan struct{}       { return nil }
func (d *deadline) Value(any) any               { return nil }

func (d *deadline) Err() error {
	switch {
	case d.parent.Err() != nil:
		return d.parent.Err()
	case d.cancelled:
		return context.Canceled
	case !d.p.Now().Before(d.at):
		return context.DeadlineExceeded
	}
	return nil
}
