package deliver

import (
	"math"
	"time"

	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/presence"
)

// Config is what a Partition begins with, at takeover.
type Config struct {
	Partition   int32
	LogEpoch    uint32
	RouterEpoch uint64
	// Start is the lowest of what was committed, of History, the history offset, and of the tail of the recents (presence.Tails). Were it
	// above the tail the recents would get a hole: an owner that began again at history, since Redis had lost its data, and died half-way,
	// leaves them short of what was committed, and history may be above that too by now. The first message appended behind the hole
	// would get what is before it as its prev.
	Start, History int64
	// StoreEpoch is the life of the stored data, asked for at takeover: whatever is lost later shows, and ends the partition.
	StoreEpoch string
	// Again: what lies below was perhaps delivered before the stored data was lost (presence.Tail), and is in no recents until it is
	// done again. What nodes got is not handed on again there, by their marks: a session that came between the loss and the end of
	// this may have read heads that lack something, and does not get it either. So at the end, when that is done, all compare.
	Again int64
	// Before are the incarnations that had a lease at takeover. An owner before may have left something out for them, and they may not know
	// that there was one: so it is as if this one had, and they are told to compare.
	Before []presence.Place
	// Rand gives jitter, in [0,1).
	Rand func() float64

	// Wait bounds the wait for nodes' answers.
	Wait time.Duration
	// CommitEvery is the least time between commits.
	CommitEvery time.Duration
	// ReleaseWithin bounds what Release finishes.
	ReleaseWithin time.Duration
	// Backoff and BackoffMost are the first and the longest pause before a retry, and before knocking at a suspect node.
	Backoff, BackoffMost time.Duration
	// KnockFor is how long a suspect node is knocked at that no user was located on.
	KnockFor time.Duration
	// Reach is how many records below Start, at most, the dedupe window is filled with before the first is judged.
	Reach int64
	// Window, Conversations, Closings, Nodes bound what is remembered: identities, last positions, ends of rights, incarnations.
	Window, Conversations, Closings, Nodes int
}

// DefaultConfig has what does not depend on the partition. A window entry is about 250 bytes.
func DefaultConfig() Config {
	return Config{
		Wait: 250 * time.Millisecond, CommitEvery: time.Second, ReleaseWithin: 2 * time.Second,
		Backoff: 20 * time.Millisecond, BackoffMost: time.Second, KnockFor: 30 * time.Second,
		Reach: 4_096, Window: 16_384, Conversations: 8_192, Closings: 8_192, Nodes: 1_024,
	}
}

type phase uint8

// Phases of a batch, in order; then those of the end.
const (
	idle phase = iota
	refilling
	appending
	locating
	forwarding
	pushing
	leaving // the last commit is awaited
	ended
)

func (p phase) String() string {
	return [...]string{"idle", "refill", "append", "locate", "forward", "push", "leave", "ended"}[p]
}

// Partition is the delivery of one partition by one owner. It takes one batch of records at a time through its phases; the
// next is read when that is done. Not for concurrent use.
type Partition struct {
	c     Config
	stats Stats

	phase phase
	batch *batch // nil when idle
	// retryAt is when the phase's effect is asked for again; zero while its answer is awaited.
	retryAt time.Time
	fails   int // of the phase in a row

	done      int64 // all below is delivered
	committed int64
	asked     int64     // what was last put in a Commit that has not failed
	commitAt  time.Time // no Commit before
	inCommit  bool

	leaseUntil time.Time
	releaseBy  time.Time // zero: no Release

	storeEpoch   string
	storeEpochAt time.Time // when it was last known to be that
	redo         int64     // what is below is done again since stored data had been lost; 0: nothing
	history      int64
	settled      settling
	window       window
	closings     closings
	reach        int64 // to where the window is still to be filled, or full
	last         lastSeqs
	versions     lastSeqs // of groups, by conversation: the highest of the notices read
	nodes        nodes

	now time.Time // of the current Step
	out []Effect
}

// NewPartition begins a partition, Idle and with no lease: Leased must come first.
func NewPartition(now time.Time, c Config) *Partition {
	p := &Partition{
		c: c, done: c.Start, committed: c.Start, asked: c.Start,
		storeEpoch: c.StoreEpoch, storeEpochAt: now, history: c.History,
		window: newWindow(c.Start, c.Window), closings: newClosings(c.Start, c.Closings), last: newLastSeqs(c.Conversations),
		versions: newLastSeqs(c.Conversations), nodes: newNodes(c.Nodes),
	}
	p.fill(c.Start)
	if c.Again > c.Start {
		p.redo = c.Again
	}
	return p
}

// full is the reach of a window that needs no more.
const full = math.MaxInt64

// fill has the window filled below where it begins, before the next record is judged.
func (p *Partition) fill(start int64) {
	if p.reach = max(start-p.c.Reach, 0); p.reach >= start {
		p.reach = full
	}
}

// Idle reports whether the partition takes Records.
func (p *Partition) Idle() bool { return p.phase == idle }

// TakeStats gives what was counted since the last call.
func (p *Partition) TakeStats() Stats {
	s := p.stats
	p.stats = Stats{}
	return s
}

// Step takes an event at a time and returns what to do, in order. Time never goes back.
func (p *Partition) Step(now time.Time, e Event) []Effect {
	if p.phase == ended {
		return nil
	}
	p.now, p.out = now, nil
	if l, ok := e.(Leased); ok {
		p.leaseUntil = l.Until
	}
	// Before anything: who is not surely the owner appends, sends and commits nothing.
	if !now.Before(p.leaseUntil) {
		p.lose(LostLease)
		return p.out
	}
	if p.c.Before != nil {
		p.greet()
	}
	switch e := e.(type) {
	case Records:
		p.begin(e.Records)
	case Refilled:
		p.refilled(e)
	case Appended:
		p.appended(e)
	case Located:
		p.located(e)
	case Answered:
		p.answered(e)
	case Pushed:
		p.pushed(e)
	case Committed:
		p.committedUpTo(e)
	case History:
		p.history = max(p.history, e.Offset)
		p.settled.sample(now, p.history)
	case Stored:
		p.stored(e)
	case Release:
		p.release()
	case Leased, Tick:
	}
	p.timers()
	return p.out
}

// Deadline is when a Tick is due at the latest, if ever.
func (p *Partition) Deadline() (time.Time, bool) {
	var d time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (d.IsZero() || t.Before(d)) {
			d = t
		}
	}
	sooner(p.retryAt)
	sooner(p.releaseBy)
	if p.phase == forwarding {
		sooner(p.batch.deadline)
	}
	if p.commitDue() {
		sooner(p.commitAt)
	}
	if p.phase != leaving {
		sooner(p.nodes.nextKnock(p.now, p.c.KnockFor))
	}
	return d, !d.IsZero() && p.phase != ended
}

// timers does what has become due.
func (p *Partition) timers() {
	if p.phase == ended {
		return
	}
	if !p.releaseBy.IsZero() && !p.now.Before(p.releaseBy) {
		p.leave()
		if p.phase != ended {
			p.end(Released{}) // the last commit was not answered: the next owner does some of it again
		}
		return
	}
	if !p.retryAt.IsZero() && !p.now.Before(p.retryAt) {
		p.ask()
	}
	if p.phase == forwarding && !p.now.Before(p.batch.deadline) {
		p.giveUp()
	}
	p.knock()
	p.commit()
}

func (p *Partition) emit(e Effect) { p.out = append(p.out, e) }

// ---- retries

// ask begins the current phase's work, or begins it again.
func (p *Partition) ask() {
	p.retryAt = time.Time{}
	b := p.batch
	switch p.phase {
	case refilling:
		b.refill.begin()
		p.emit(Refill{From: b.refill.from, To: b.refill.to})
	case appending:
		p.emit(AppendRecents{Messages: b.recents(), KeepAbove: eventlog.Seq(p.c.LogEpoch, p.history)})
	case locating:
		p.emit(Locate{Users: b.users, Groups: b.groups})
	case pushing:
		p.emit(Push{Records: b.push})
	case idle, forwarding, leaving, ended:
	}
}

// enter begins a phase whose work may be retried.
func (p *Partition) enter(ph phase) {
	p.phase, p.fails = ph, 0
	p.ask()
}

// awaits reports whether an answer belongs to the phase.
func (p *Partition) awaits(ph phase) bool { return p.phase == ph && p.retryAt.IsZero() }

// failed puts the phase's work off. A partition that is to be released does not wait: the next owner begins with this batch.
func (p *Partition) failed() {
	if !p.releaseBy.IsZero() {
		p.leave()
		return
	}
	p.stats.Retries++
	p.retryAt = p.now.Add(p.backoff(p.fails))
	p.fails++
}

// backoff doubles from Backoff to BackoffMost and is jittered to half of that, so that partitions that failed together do not
// come back together.
func (p *Partition) backoff(fails int) time.Duration {
	d := min(p.c.Backoff<<min(fails, 16), p.c.BackoffMost)
	return d/2 + time.Duration(float64(d/2)*p.c.Rand())
}

// ---- the end of a batch, and of the partition

// finish counts the batch as done.
func (p *Partition) finish() {
	p.done = p.batch.next
	p.stats.Messages += len(p.batch.messages)
	if n := p.batch.newest; !n.IsZero() {
		p.window.trim(n, p.settled.advance(p.now))
	}
	p.phase, p.batch = idle, nil
	p.redone()
	if !p.releaseBy.IsZero() {
		p.leave()
	}
}

// redone tells the nodes to compare once all is done again that was done when stored data was lost.
func (p *Partition) redone() {
	if p.redo > 0 && p.done >= p.redo {
		p.redo = 0
		p.leaveOut()
	}
}

func (p *Partition) commitDue() bool { return !p.inCommit && p.done > p.asked }

// commitWaits reports whether the next commit can be asked for only when the last was answered: no deadline is due for it.
func (p *Partition) commitWaits() bool { return p.inCommit && p.done > p.asked }

// commit asks for a commit if there is something new, not too often.
func (p *Partition) commit() {
	if p.commitDue() && p.phase != ended && (p.phase == leaving || !p.now.Before(p.commitAt)) {
		p.asked, p.inCommit, p.commitAt = p.done, true, p.now.Add(p.c.CommitEvery)
		p.emit(Commit{Offset: p.done})
	}
}

func (p *Partition) committedUpTo(e Committed) {
	if !p.inCommit {
		return
	}
	p.inCommit = false
	if e.Err != nil {
		p.asked = p.committed
	} else {
		p.committed = e.Offset
	}
	if p.phase == leaving && (e.Err != nil || !p.commitDue()) {
		p.end(Released{})
	}
}

// release finishes what is in flight, if it can be done now, and leaves.
func (p *Partition) release() {
	if !p.releaseBy.IsZero() {
		return
	}
	p.releaseBy = p.now.Add(p.c.ReleaseWithin)
	if p.phase == idle || !p.retryAt.IsZero() {
		p.leave()
	}
}

// leave gives up the batch, if there is one, and commits what is done.
func (p *Partition) leave() {
	if p.phase == leaving || p.phase == ended {
		return
	}
	p.phase = leaving
	p.abandon()
	p.commit()
	if !p.inCommit {
		p.end(Released{})
	}
}

func (p *Partition) lose(why LostReason) { p.end(Lost{why}) }

func (p *Partition) end(last Effect) {
	p.phase = ended
	p.abandon()
	p.emit(last)
}

// ---- stored data lost

// stored looks whether the stored data is still the one that was appended to. What Appended told later counts more.
func (p *Partition) stored(e Stored) {
	if e.Asked.Before(p.storeEpochAt) {
		return
	}
	p.storeEpochAt = e.Asked
	if e.Epoch != p.storeEpoch {
		p.lose(LostStore)
	}
}
