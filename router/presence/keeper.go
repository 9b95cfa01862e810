package presence

import (
	"cmp"
	"container/list"
	"time"
)

// KeeperOptions configure a Keeper. All but NewIncarnation have defaults.
type KeeperOptions struct {
	// NewIncarnation makes a boot id that nobody ever used.
	NewIncarnation func() string
	// LeaseTTL is how long others reckon with the node after it renewed its lease last. Default presence.LeaseTTL.
	LeaseTTL time.Duration
	// LeaseMargin is how much sooner the node itself stops, for clocks that run at another speed. Default 500 ms.
	LeaseMargin time.Duration
	// RenewEvery is the time between renewals. Default 3 s.
	RenewEvery time.Duration
	// RetryAfter is the pause after a call that failed. Default 500 ms.
	RetryAfter time.Duration
	// AnswerWithin is how long a Register waits before it is answered degraded. Default 1 s.
	AnswerWithin time.Duration
	// RewriteShare: with each renewal one of that many entries is written again. Default 30.
	RewriteShare int
	// MaxBatch bounds the entries of one write. Default 512.
	MaxBatch int
	// CompareBatch connections are told to compare heads every CompareEvery, so that a whole node's sessions do not all read
	// at once. Default 200 every 100 ms.
	CompareBatch int
	CompareEvery time.Duration
	// RemoveAgain: a write whose answer was lost may be done late, after its connection was unregistered. So such a connection
	// is unregistered once more after this time. Default 60 s.
	RemoveAgain time.Duration
}

func (o KeeperOptions) withDefaults() KeeperOptions {
	o.LeaseTTL = cmp.Or(o.LeaseTTL, LeaseTTL)
	o.LeaseMargin = cmp.Or(o.LeaseMargin, 500*time.Millisecond)
	o.RenewEvery = cmp.Or(o.RenewEvery, 3*time.Second)
	o.RetryAfter = cmp.Or(o.RetryAfter, 500*time.Millisecond)
	o.AnswerWithin = cmp.Or(o.AnswerWithin, time.Second)
	o.RewriteShare = cmp.Or(o.RewriteShare, 30)
	o.MaxBatch = cmp.Or(o.MaxBatch, 512)
	o.CompareBatch = cmp.Or(o.CompareBatch, 200)
	o.CompareEvery = cmp.Or(o.CompareEvery, 100*time.Millisecond)
	o.RemoveAgain = cmp.Or(o.RemoveAgain, time.Minute)
	return o
}

// Keeper is a node's side of presence: its lease, and the entries of its connections. It is a step function, so the caller
// owns time and I/O. What it remembers is bounded by the connections that there are, and those that ended within RemoveAgain
// while the store was failing.
//
// The lease of an incarnation is asked for once, and after that only renewed; an entry is written only after the answer. So an
// entry whose incarnation has no lease is dead for ever, and whoever finds it may remove it.
type Keeper struct {
	o KeeperOptions

	incarnation string    // held, or being acquired
	held        bool      // and not late
	deadline    time.Time // of the lease as this node reckons it; if held
	leaseID     uint64    // the request not yet answered, 0: none
	leaseSent   time.Time
	leaseAt     time.Time // when the next one is due
	epoch       string    // "" until it is known for the first time
	epochKnown  bool      // epoch was read under this incarnation
	epochID     uint64
	epochAt     time.Time // when to ask again, if not zero
	failing     bool      // the last answer was an error

	sessions    map[keptKey]*kept
	rotation    *list.List // of *kept, those not gone; the one written longest ago first
	dirty       []*kept    // to be written, in order
	flight      []*kept    // in the write that is not yet answered
	registering int        // how many of flight, from its start, are registered and not removed
	writeID     uint64
	writeAt     time.Time // not before
	waiting     []*kept   // not yet told that they are registered, by time
	compares    []*kept   // to be told to compare
	compared    time.Time // when some were told last
	again       []*kept   // to be removed once more, by time

	stopping  bool
	releasing uint64
	stopped   bool

	lastID  uint64
	effects []Effect
}

// keptKey is a connection, or a group.
type keptKey struct {
	connection uint64
	group      int64
}

// kept is what a Keeper knows of a connection, or of a group that has members here.
type kept struct {
	keptKey
	user   int64
	device string
	place  *list.Element // in rotation

	asked    time.Time // when Register came
	told     bool      // that it is registered, or degraded
	degraded bool      // was told so last

	gone    bool // ended
	queued  bool // in dirty
	flying  bool // in flight
	changed bool // while flying: to be written once more

	// In the present incarnation:
	written bool // is known to be stored
	sent    bool // may be stored
	unsure  bool // the answer to a write was lost

	compare   bool // once it is written
	comparing bool // in compares
	removeAt  time.Time
}

// NewKeeper makes a Keeper. It does nothing until its first Step, which should come at once.
func NewKeeper(o KeeperOptions) *Keeper {
	return &Keeper{o: o.withDefaults(), sessions: make(map[keptKey]*kept), rotation: list.New()}
}

// Incarnation is the incarnation whose lease is held, and until when; "" while there is none. Past that time the node must not
// deliver, even if no Suspend came yet.
func (k *Keeper) Incarnation() (string, time.Time) {
	if !k.held {
		return "", time.Time{}
	}
	return k.incarnation, k.deadline
}

// Step tells what has happened, and returns what is to be done, in order. now must not go back.
func (k *Keeper) Step(now time.Time, e Event) []Effect {
	k.effects = nil
	if k.stopped {
		return nil
	}
	// First of all, since a lease that was late may have been gone in between, whatever an answer says now.
	if k.held && !now.Before(k.deadline) {
		k.suspend()
	}
	switch e := e.(type) {
	case Register:
		k.register(now, e)
	case Unregister:
		k.unregister(e)
	case LeaseAnswered:
		k.leaseAnswered(now, e)
	case EpochAnswered:
		k.epochAnswered(now, e)
	case EntriesWritten:
		k.entriesWritten(now, e)
	case Shutdown:
		k.shutdown()
	case LeaseReleased:
		if e.ID == k.releasing && e.ID != 0 {
			k.stopped = true
			k.emit(Stopped{})
		}
	}
	if !k.stopped {
		k.proceed(now)
	}
	return k.effects
}

func (k *Keeper) emit(e Effect) { k.effects = append(k.effects, e) }

func (k *Keeper) nextID() uint64 {
	k.lastID++
	return k.lastID
}

// proceed does what is due.
func (k *Keeper) proceed(now time.Time) {
	if k.leaseID == 0 && !now.Before(k.leaseAt) && !k.stopping {
		k.askLease(now)
	}
	if k.epochID == 0 && k.held && !k.epochAt.IsZero() && !now.Before(k.epochAt) {
		k.epochID, k.epochAt = k.nextID(), time.Time{}
		k.emit(ReadEpoch{k.epochID})
	}
	for len(k.again) > 0 && !now.Before(k.again[0].removeAt) {
		s := k.again[0]
		k.again = k.again[1:]
		s.unsure = false
		if k.sessions[s.keptKey] == s {
			k.mark(s)
		}
	}
	k.write(now)
	k.answerLate(now)
	k.tellCompare(now)
	k.finish(now)
}

// Next is when a Tick is due.
func (k *Keeper) Next() time.Time {
	var next time.Time
	due := func(at time.Time, cond bool) {
		if cond && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	due(k.leaseAt, k.leaseID == 0 && !k.stopping)
	due(k.deadline, k.held)
	due(k.epochAt, k.held && k.epochID == 0 && !k.epochAt.IsZero())
	due(k.writeAt, k.mayWrite() && len(k.dirty) > 0)
	due(k.compared.Add(k.o.CompareEvery), k.held && len(k.compares) > 0)
	if len(k.again) > 0 {
		due(k.again[0].removeAt, true)
	}
	if len(k.waiting) > 0 {
		due(k.waiting[0].asked.Add(k.o.AnswerWithin), true)
	}
	if next.IsZero() { // an answer is awaited
		next = k.leaseSent.Add(k.o.LeaseTTL)
	}
	return next
}

// ---- lease

func (k *Keeper) askLease(now time.Time) {
	k.leaseID, k.leaseSent = k.nextID(), now
	if k.held {
		k.emit(RenewLease{k.leaseID, k.incarnation, k.o.LeaseTTL})
		return
	}
	// A new one for each try: one whose answer was lost might be taken late.
	k.incarnation = k.o.NewIncarnation()
	k.emit(AcquireLease{k.leaseID, k.incarnation, k.o.LeaseTTL})
}

// suspend gives the incarnation up. All are to be registered anew under the next one.
func (k *Keeper) suspend() {
	k.emit(Suspend{})
	// Its places are dead from now on, not only when the lease expires.
	k.emit(ReleaseLease{0, k.incarnation})
	k.held, k.leaseID, k.leaseAt = false, 0, time.Time{}
	k.epochID, k.epochAt, k.epochKnown = 0, time.Time{}, false
	k.flight, k.dirty, k.again, k.compares = nil, nil, nil, nil
	for at := k.rotation.Front(); at != nil; at = at.Next() {
		s := at.Value.(*kept)
		s.flying, s.changed, s.queued, s.comparing = false, false, false, false
		s.written, s.sent, s.unsure = false, false, false
		s.compare = s.compare || s.told
		k.mark(s)
	}
	// Those that are gone died with the incarnation.
	for id, s := range k.sessions { // nothing comes of the order
		if s.gone {
			delete(k.sessions, id)
		}
	}
}

func (k *Keeper) leaseAnswered(now time.Time, e LeaseAnswered) {
	if e.ID == 0 || e.ID != k.leaseID {
		return // of an incarnation that was given up
	}
	k.leaseID = 0
	k.failing = e.Err != nil
	until := k.leaseSent.Add(k.o.LeaseTTL - k.o.LeaseMargin)
	switch {
	case e.Err != nil:
		k.leaseAt = now.Add(k.o.RetryAfter)
	case !e.Held && k.held:
		k.suspend()
	case !e.Held, !now.Before(until): // taken by somebody else, against all odds; or taken, but too late
		k.leaseAt = now.Add(k.o.RetryAfter)
	default:
		k.deadline = until
		k.leaseAt = k.leaseSent.Add(k.o.RenewEvery)
		k.epochAt = now
		if !k.held {
			k.held = true
			k.emit(Resume{k.incarnation})
			return
		}
		k.rewriteShare()
	}
}

// rewriteShare has those entries written again that were written longest ago, to find out whether they are still there.
func (k *Keeper) rewriteShare() {
	n := (k.rotation.Len() + k.o.RewriteShare - 1) / k.o.RewriteShare
	for range n {
		at := k.rotation.Front()
		k.rotation.MoveToBack(at)
		k.mark(at.Value.(*kept))
	}
}

func (k *Keeper) epochAnswered(now time.Time, e EpochAnswered) {
	if e.ID == 0 || e.ID != k.epochID {
		return
	}
	k.epochID = 0
	k.failing = e.Err != nil
	if e.Err != nil {
		k.epochAt = now.Add(k.o.RetryAfter)
		return
	}
	lost := k.epoch != "" && k.epoch != e.Epoch
	k.epoch, k.epochKnown = e.Epoch, true
	if !lost {
		return
	}
	for at := k.rotation.Front(); at != nil; at = at.Next() {
		s := at.Value.(*kept)
		s.compare = s.compare || s.told
		k.mark(s)
	}
}
