package simulation

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
)

// world is everything that happens: events in the order of their time. One goroutine runs it. What is drawn comes from named
// streams, so that one kind of fault that is left out leaves the others' choices much as they were.
type world struct {
	o      Options
	now    time.Duration // since the beginning, by the true time
	events eventHeap
	ties   *rand.Rand
	nth    uint64 // events made so far
	hash   uint64 // of all that happened

	procs   []*proc // alive, in the order of their start
	dirty   []*proc // something happened to them
	current *task   // runs now
	idle    []*task // have ended
	flushes []*conn // have something for their sockets

	healed  bool // no more faults
	undo    []func()
	counts  map[string]int
	broken  *Violation
	planted planted
	trace   *trace

	streams map[string]*rand.Rand
	broker  *broker
	redis   *redis
	db      *database
	peers   *peerNet
	view    *membership
	people  []*person
	crowds  []*crowd
	slots   []*slot
	nodes   []*nodeProc // alive
	truth   *truth
	nextID  int
}

// planted are faults of the simulated world itself, which tests put there to see them caught. Nil ones do nothing.
type planted struct {
	forward func(f *peer.Forward)          // changes a frame on its way
	append  func(e []eventlog.Entry) bool  // whether an append is acknowledged and not written
	write   func(p *simPartition)          // after a write
	commit  func(at int64) int64           // changes an offset that is committed
	show    func(d *device, m *pb.Message) // before a message is shown
	recents func() bool                    // whether recents are answered and not kept
	store   func(b *chat.Batch)            // changes what history stores
	fence   func() bool                    // whether nobody is asked by a fence
}

// began is the true time at which a run begins. Any will do that has a version 7 UUID.
var began = time.UnixMilli(1_800_000_000_000)

func newWorld(o Options) *world {
	w := &world{o: o, counts: map[string]int{}, streams: map[string]*rand.Rand{}, hash: o.Seed}
	if o.Trace {
		w.trace = new(trace)
	}
	w.ties = w.stream("ties")
	return w
}

// stream gives the random numbers of one concern.
func (w *world) stream(name string) *rand.Rand {
	r := w.streams[name]
	if r == nil {
		h := fnv.New64a()
		_, _ = h.Write([]byte(name))
		r = rand.New(rand.NewPCG(w.o.Seed, h.Sum64()))
		w.streams[name] = r
	}
	return r
}

// time is the true time.
func (w *world) time() time.Time { return began.Add(w.now) }

// id gives a number that was never given before.
func (w *world) id() int {
	w.nextID++
	return w.nextID
}

func (w *world) count(what string) { w.counts[what]++ }

// ---- events

type event struct {
	at       time.Duration
	tie, nth uint64
	do       func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }

func (h eventHeap) Less(i, j int) bool {
	switch a, b := &h[i], &h[j]; {
	case a.at != b.at:
		return a.at < b.at
	case a.tie != b.tie:
		return a.tie < b.tie
	default:
		return a.nth < b.nth
	}
}

func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h *eventHeap) Push(x any) { *h = append(*h, x.(event)) } // nobody pushes anything else

func (h *eventHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = event{}
	*h = (*h)[:last]
	return e
}

// after has do run once d has passed; among events of one time a draw decides.
func (w *world) after(d time.Duration, do func()) { w.at(w.now+max(d, 0), do) }

func (w *world) at(t time.Duration, do func()) {
	w.nth++
	heap.Push(&w.events, event{max(t, w.now), w.ties.Uint64(), w.nth, do})
}

// run lets time pass until a time, or until something is broken.
func (w *world) run(until time.Duration) {
	for w.broken == nil && len(w.events) > 0 && w.events[0].at <= until {
		e := heap.Pop(&w.events).(event) // nobody pushes anything else
		w.now = e.at
		w.mix(uint64(e.at))
		e.do()
		w.settle()
		w.flush()
	}
	w.now = max(w.now, until)
}

// settle lets every process do what it can do now.
func (w *world) settle() {
	for n := 0; len(w.dirty) > 0 && w.broken == nil; n++ {
		p := w.dirty[0]
		w.dirty = w.dirty[1:]
		p.touched = false
		p.run()
		if n > 100_000 {
			w.violate("livelock", "processes wake each other without end at one time, lastly %s", p.name)
		}
	}
	if len(w.dirty) == 0 {
		w.dirty = w.dirty[:0]
	}
}

// mix adds to the hash of the run (the finalizer of splitmix64).
func (w *world) mix(x uint64) {
	h := w.hash ^ x
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	w.hash = h ^ h>>31
}

// ---- what broke

// Violation is a promise that was not kept.
type Violation struct {
	// Check names the promise.
	Check string
	// What says how it was broken, At when, by the time of the run.
	What string
	At   time.Duration
}

func (v *Violation) Error() string { return fmt.Sprintf("%s at %v: %s", v.Check, v.At, v.What) }

// violate ends the run. The first counts.
func (w *world) violate(check, format string, args ...any) {
	if w.broken == nil {
		w.broken = &Violation{Check: check, What: fmt.Sprintf(format, args...), At: w.now}
		w.tracef("BROKEN %v", w.broken)
	}
}

// ---- trace

// trace keeps the last lines of what happened.
type trace struct {
	lines []string
}

const traceLines = 4000

func (w *world) tracef(format string, args ...any) {
	if w.trace == nil {
		return
	}
	w.trace.lines = append(w.trace.lines, fmt.Sprintf("%12.6f  ", w.now.Seconds())+fmt.Sprintf(format, args...))
	if !w.o.WholeTrace && len(w.trace.lines) > 2*traceLines {
		w.trace.lines = append([]string(nil), w.trace.lines[traceLines:]...)
	}
}
