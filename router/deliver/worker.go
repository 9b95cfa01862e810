package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

const (
	storeTimeout = 5 * time.Second // a call of the database or of the log's brokers
	redisTimeout = time.Second     // a call of presence
	// An append of a whole batch. The store bounds each of its round trips; together they may take longer on a server that is slow,
	// and a batch that is given up is tried again as it is.
	appendTimeout = 10 * time.Second
	sendTimeout   = 2 * time.Second        // a frame's answer; the partition has given the node up long before
	batchBytes    = 1 << 20                // of record values; a frame must stay well below what a link takes
	haltedRetry   = 30 * time.Second       // an operator may have raised the epoch
	readPause     = 100 * time.Millisecond // after a read that failed
)

// lostLog is why a partition was lost whose next record is gone: it is verified anew, and halts.
const lostLog = "log"

// worker is the one goroutine of an owned partition. It does what is waited for (Redis, reading) by itself, so that a message
// passes without changing goroutines; answers of nodes and of the log come by its mailbox.
type worker struct {
	r         *Router
	partition int32
	log       *zap.Logger
	mail      *mailbox
	leaving   chan struct{} // closed by release
	done      chan struct{} // closed at the end

	// Set by others.
	lease   atomic.Pointer[time.Time] // until when it is ours
	history atomic.Int64
	stored  atomic.Pointer[Stored]

	// Read by others.
	live atomic.Bool // past takeover

	// Owned by the router's assigning goroutine.
	released    bool
	deputyUntil time.Time

	// Owned by the worker.
	p       *Partition
	tail    presence.Tail   // of the recents that it appends to; as found by takeOver
	reader  eventlog.Reader // likewise
	readCtx context.Context // ended by an urgent event
	endRead context.CancelFunc
	unread  []eventlog.Record
	local   []Event
	known   struct {
		lease, stored any
		history       int64
	}
	end       Effect // Lost or Released
	gaveUp    bool   // the takeover; read by the assigning goroutine when done is closed
	lostLog   bool
	phase     phase
	phaseAt   time.Time
	newest    time.Time // of the records of the batch
	suspects  int
	haltedNow bool
}

func (r *Router) newWorker(partition int32, leaseUntil time.Time) *worker {
	w := &worker{
		r: r, partition: partition, log: r.o.Logger.With(zap.Int32("partition", partition)),
		mail: newMailbox(), leaving: make(chan struct{}), done: make(chan struct{}),
	}
	w.lease.Store(&leaseUntil)
	return w
}

// release asks the worker to finish; from the assigning goroutine.
func (w *worker) release() {
	if !w.released {
		w.released = true
		close(w.leaving)
		w.mail.post(Release{})
	}
}

func (w *worker) now() time.Time { return w.r.o.Clock.Now() }

func (w *worker) leased() bool { return w.now().Before(*w.lease.Load()) }

// run takes the partition over and delivers it until it is released or lost, or ctx ends.
func (w *worker) run(ctx context.Context) {
	defer close(w.done)
	c, ok := w.takeOver(ctx)
	w.setHalted(false)
	if ok {
		w.deliver(ctx, c)
		w.live.Store(false)
		w.r.metrics.owned.Dec()
		w.r.metrics.suspects.Sub(float64(w.suspects))
	}
	if ctx.Err() != nil {
		return // as if killed: the lease runs out
	}
	rctx, cancel := w.r.o.Clock.WithTimeout(ctx, redisTimeout)
	defer cancel()
	if err := w.r.o.Presence.Release(rctx, w.r.leaseName(w.partition), w.r.o.Self.ID); err != nil {
		w.log.Warn("a partition's lease was not released, and runs out", zap.Error(err))
	}
}

// ---- takeover

// takeOver finds where to begin. It is tried until it succeeds, as long as the lease is held: a database that is away holds
// up takeovers and nothing else. Now and then another router tries. It reports false when the partition is not to be delivered any more.
func (w *worker) takeOver(ctx context.Context) (Config, bool) {
	began := w.now()
	for fails := 0; ; fails++ {
		c, err := w.prepare(ctx)
		if err == nil {
			return c, true
		}
		pause := jittered(min(50*time.Millisecond<<min(fails, 10), 2*time.Second), w.r.o.Rand)
		switch {
		case ctx.Err() != nil:
			return c, false
		case errors.Is(err, eventlog.ErrHalted), errors.Is(err, eventlog.ErrOutOfRange):
			w.setHalted(true)
			pause = haltedRetry
			w.log.Error("HALTED: this partition is not delivered, since the log is not the one that was known; an operator must decide",
				zap.Error(err))
		default:
			w.setHalted(false)
			w.log.Warn("a takeover waits", zap.Error(err))
			if w.gaveUp = w.now().Sub(began) >= giveUpAfter; w.gaveUp {
				return c, false
			}
		}
		if !w.pause(ctx, pause) {
			return c, false
		}
	}
}

// pause waits, and reports false if the partition is to be let go.
func (w *worker) pause(ctx context.Context, d time.Duration) bool {
	until := w.now().Add(d)
	for ctx.Err() == nil && !clock.Closed(w.leaving) && w.leased() {
		if !w.now().Before(until) {
			return true
		}
		w.r.o.Clock.Wait(ctx, until, w.mail.wake, w.leaving)
	}
	return false
}

func (w *worker) setHalted(halted bool) {
	if w.haltedNow != halted {
		w.haltedNow = halted
		if halted {
			w.r.metrics.halted.Inc()
		} else {
			w.r.metrics.halted.Dec()
		}
	}
}

// prepare reads where the partition stands, makes sure that the log still has what is due and all that was seen before, and
// opens it. The lease was taken before, so the former owner has stopped or is about to: nodes refuse it by its lower epoch.
func (w *worker) prepare(ctx context.Context) (Config, error) {
	ctx, cancel := w.r.o.Clock.WithTimeout(ctx, storeTimeout)
	defer cancel()
	c, o, topic := w.r.config, w.r.o, chat.TopicMessages
	state, err := o.Store.LogState(ctx, topic)
	if err != nil {
		return c, fmt.Errorf("log state: %w", err)
	}
	history, err := o.Store.HistoryOffsets(ctx, topic)
	if err != nil {
		return c, fmt.Errorf("history offsets: %w", err)
	}
	committed, err := o.Log.Committed(ctx, Group, topic)
	if err != nil {
		return c, fmt.Errorf("committed offsets: %w", err)
	}
	// Where nothing was ever committed all is delivered that history has not: an offset that is missing there is 0.
	c.Partition, c.History, c.LogEpoch = w.partition, history[w.partition], state.Epoch
	at, ever := committed[w.partition]
	if !ever {
		at = c.History
	}
	// Who had a lease is asked after what was committed: what a former owner commits later is done again from here on.
	err = clock.Each(o.Clock, 2, 2, func(i int) error {
		if i == 0 {
			return w.lookAtRecents(ctx, &c, min(at, c.History))
		}
		return w.lookForNodes(ctx, &c)
	})
	if err != nil {
		return c, err
	}
	state.Seen = map[int32]int64{w.partition: c.Start}
	if err := eventlog.Verify(ctx, o.Log, state); err != nil {
		return c, fmt.Errorf("verify: %w", err)
	}
	if err := eventlog.VerifyOffset(ctx, o.Log, topic, w.partition, max(at, c.History)); err != nil {
		return c, fmt.Errorf("verify: %w", err)
	}
	if c.RouterEpoch, err = o.Store.NextRouterEpoch(ctx, topic, w.partition); err != nil {
		return c, fmt.Errorf("router epoch: %w", err)
	}
	// The first time: who comes after an owner that died before its first commit would else take all that history has by then for delivered.
	// And down: what an append of this owner that meets a new life of the stored data leaves there has no tail, and the next begins below it.
	if c.Start < at || !ever {
		if err := o.Log.Commit(ctx, Group, topic, map[int32]int64{w.partition: c.Start}); err != nil {
			return c, fmt.Errorf("first commit, or down: %w", err)
		}
	}
	w.reader, err = o.Log.Open(ctx, topic, w.partition, c.Start)
	if err != nil {
		return c, fmt.Errorf("open log: %w", err)
	}
	w.history.Store(c.History)
	return c, nil
}

// lookAtRecents finds which life of the recents there is, and where to begin so that they get no hole: at start, or lower.
func (w *worker) lookAtRecents(ctx context.Context, c *Config, start int64) (err error) {
	o := w.r.o
	if c.StoreEpoch, err = o.Presence.Epoch(ctx); err != nil {
		return fmt.Errorf("presence epoch: %w", err)
	}
	_, end, err := o.Log.Bounds(ctx, chat.TopicMessages, w.partition)
	if err != nil {
		return fmt.Errorf("bounds: %w", err)
	}
	w.tail, err = o.Presence.Tail(ctx, presence.Tail{
		Partition: presence.TailName(chat.TopicMessages, c.LogEpoch, w.partition), Epoch: c.StoreEpoch, Offset: start, Again: end,
	})
	if err != nil {
		return fmt.Errorf("tail of the recents: %w", err)
	}
	c.Start, c.Again = min(start, w.tail.Offset), w.tail.Again
	return nil
}

// lookForNodes finds for whom a former owner may have left something out.
func (w *worker) lookForNodes(ctx context.Context, c *Config) error {
	lives, err := w.r.o.Presence.Lives(ctx)
	if err != nil {
		return fmt.Errorf("nodes: %w", err)
	}
	for _, l := range lives {
		if !l.Revoked {
			c.Before = append(c.Before, presence.Place{Incarnation: l.Incarnation, Addr: l.Addr})
		}
	}
	return nil
}

// ---- delivering

func (w *worker) deliver(ctx context.Context, c Config) {
	now := w.now()
	w.p, w.phaseAt = NewPartition(now, c), now
	w.readCtx, w.endRead = context.WithCancel(ctx)
	defer func() { w.endRead(); w.closeReader() }()
	w.live.Store(true)
	w.r.metrics.takeovers.Inc()
	w.r.metrics.owned.Inc()
	w.log.Info("delivering a partition", zap.Uint64("router_epoch", c.RouterEpoch), zap.Int64("from", c.Start), zap.Int64("history", c.History))
	w.r.poke()

	for w.end == nil && ctx.Err() == nil {
		w.step(ctx, Tick{})
		for _, e := range w.mail.take() {
			w.step(ctx, e)
		}
		switch {
		case w.end != nil:
		case w.p.Idle():
			w.next(ctx)
		default:
			w.wait(ctx)
		}
	}
	w.count()
	switch end := w.end.(type) {
	case Lost:
		reason := string(end.Reason)
		if w.lostLog {
			reason = lostLog
		}
		w.r.metrics.lost.WithLabelValues(reason).Inc()
		w.log.Warn("lost a partition", zap.String("reason", reason))
	case Released:
		w.log.Info("released a partition", zap.Int64("done", w.p.done))
	}
}

// wait waits for an answer or the next deadline.
func (w *worker) wait(ctx context.Context) {
	at, ok := w.p.Deadline()
	if !ok {
		at = time.Time{}
	}
	w.r.o.Clock.Wait(ctx, at, w.mail.wake)
}

// next reads records and hands them to the partition.
func (w *worker) next(ctx context.Context) {
	if len(w.unread) == 0 {
		records, err := w.read()
		switch {
		case err == nil:
			w.unread = records
		case errors.Is(err, errInterrupted):
			if w.readCtx.Err() != nil {
				w.readCtx, w.endRead = context.WithCancel(ctx)
			}
			return
		case errors.Is(err, eventlog.ErrOutOfRange):
			// Never read on from elsewhere. The next owner, perhaps this router, verifies and halts.
			w.end, w.lostLog = Lost{}, true
			w.log.Error("the record that is due is gone from the log", zap.Error(err))
			return
		default:
			w.log.Warn("reading the log failed", zap.Error(err))
			w.pause(ctx, jittered(readPause, w.r.o.Rand))
			return
		}
	}
	n, size := 0, 0
	for n < len(w.unread) && (n == 0 || size+len(w.unread[n].Value) <= batchBytes) {
		size += len(w.unread[n].Value)
		n++
	}
	batch := w.unread[:n:n]
	w.unread = w.unread[n:]
	if n > 0 {
		w.newest = batch[n-1].Time
		w.r.metrics.batch.Observe(float64(n))
		w.step(ctx, Records{batch})
	}
}

var errInterrupted = errors.New("there is something else to do")

// read waits for records; errInterrupted at an urgent event or the next deadline.
func (w *worker) read() ([]eventlog.Record, error) {
	if !w.mail.reading(w.endRead, w.p.commitWaits()) {
		return nil, errInterrupted
	}
	defer w.mail.read()
	ctx := w.readCtx
	if at, ok := w.p.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = w.r.o.Clock.WithTimeout(ctx, at.Sub(w.now()))
		defer cancel()
	}
	records, err := w.reader.Next(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, errInterrupted
	}
	return records, err
}

func (w *worker) closeReader() {
	_ = w.reader.Close() // nothing of it is used any more
}

// step gives the partition an event, after what it must know first, and carries out what follows, until nothing more does
// by itself.
func (w *worker) step(ctx context.Context, e Event) {
	w.local = append(w.local, e)
	for len(w.local) > 0 && w.end == nil {
		e := w.local[0]
		w.local = w.local[1:]
		w.tell(ctx)
		w.apply(ctx, e)
	}
}

// tell brings the partition what others have found out meanwhile.
func (w *worker) tell(ctx context.Context) {
	if l := w.lease.Load(); any(l) != w.known.lease {
		w.known.lease = l
		w.apply(ctx, Leased{Until: *l})
	}
	if h := w.history.Load(); h != w.known.history {
		w.known.history = h
		w.apply(ctx, History{Offset: h})
	}
	if s := w.stored.Load(); s != nil && any(s) != w.known.stored {
		w.known.stored = s
		w.apply(ctx, *s)
	}
}

func (w *worker) apply(ctx context.Context, e Event) {
	if w.end != nil {
		return
	}
	effects := w.p.Step(w.now(), e)
	w.observe()
	for _, e := range effects {
		w.carryOut(ctx, e)
	}
}

// observe notes how long a batch was in the phase that it has left.
func (w *worker) observe() {
	if w.p.phase == w.phase {
		return
	}
	now := w.now()
	if w.phase >= refilling && w.phase <= pushing {
		w.r.metrics.stage.WithLabelValues(w.phase.String()).Observe(now.Sub(w.phaseAt).Seconds())
	}
	w.phase, w.phaseAt = w.p.phase, now
	if w.phase == idle {
		w.r.metrics.age.Observe(max(now.Sub(w.newest).Seconds(), 0))
		w.count()
	}
}

func (w *worker) count() {
	w.r.metrics.count(w.p.TakeStats())
	w.r.metrics.suspects.Add(float64(w.p.nodes.suspects - w.suspects))
	w.suspects = w.p.nodes.suspects
}

// ---- effects

func (w *worker) carryOut(ctx context.Context, e Effect) {
	switch e := e.(type) {
	case AppendRecents:
		ctx, cancel := w.r.o.Clock.WithTimeout(ctx, appendTimeout)
		defer cancel()
		prevs, epoch, err := w.r.o.Presence.Append(ctx, e.Messages, e.KeepAbove, w.tail.Epoch)
		w.warn("appending to the recents failed", err)
		w.local = append(w.local, Appended{prevs, epoch, err})
	case Locate:
		ctx, cancel := w.r.o.Clock.WithTimeout(ctx, redisTimeout)
		defer cancel()
		places, nodes, err := w.r.o.Presence.LocateGroups(ctx, e.Users, e.Groups)
		w.warn("looking up presence failed", err)
		w.local = append(w.local, Located{places, nodes, err})
	case Send:
		mail, incarnation, number := w.mail, e.Forward.Incarnation, e.Forward.Number
		w.r.o.Pool.Send(e.Addr, e.Forward, sendTimeout, func(a peer.Answer, err error) {
			mail.post(Answered{incarnation, number, a, err})
		})
	case Push:
		w.r.push(e.Records, w.mail)
	case Commit:
		w.r.commits.put(w, e.Offset, w.p.phase == leaving)
	case Refill:
		w.refill(ctx, e)
	case Lost, Released:
		w.end = e
	}
}

func (w *worker) warn(what string, err error) {
	if err != nil {
		w.log.Warn(what, zap.Error(err))
	}
}

// refill reads a stretch of the log again, piece by piece, so that its length does not matter.
func (w *worker) refill(ctx context.Context, e Refill) {
	err := w.reread(ctx, e)
	if err != nil && ctx.Err() == nil {
		w.log.Warn("reading the log again failed", zap.Int64("from", e.From), zap.Int64("to", e.To), zap.Error(err))
		w.local = append(w.local, Refilled{Err: err})
	}
}

func (w *worker) reread(ctx context.Context, e Refill) error {
	start, _, err := w.r.o.Log.Bounds(ctx, chat.TopicMessages, w.partition)
	if err != nil {
		return fmt.Errorf("bounds: %w", err)
	}
	at := max(e.From, start)
	if at >= e.To {
		w.local = append(w.local, Refilled{Done: true})
		return nil
	}
	reader, err := w.r.o.Log.Open(ctx, chat.TopicMessages, w.partition, at)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = reader.Close() }()
	for at < e.To && w.end == nil {
		if clock.Closed(w.leaving) {
			return errInterrupted
		}
		rctx, cancel := w.r.o.Clock.WithTimeout(ctx, storeTimeout)
		records, err := reader.Next(rctx)
		cancel()
		if err != nil {
			return fmt.Errorf("next: %w", err)
		}
		at = records[len(records)-1].Offset + 1
		if at >= e.To {
			w.local = append(w.local, Refilled{Records: records, Done: true})
			return nil
		}
		w.tell(ctx)
		w.apply(ctx, Refilled{Records: records})
	}
	return nil
}
