package history

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/eventlog"
)

// worker brings one partition into the database. One goroutine owns it.
type worker struct {
	h         *History
	partition int32
	logger    *zap.Logger

	state   eventlog.State // what is remembered of the log
	next    int64          // the offset due
	reader  eventlog.Reader
	pending []eventlog.Record // read, not stored yet
	bytes   int               // of pending
	stored  time.Time         // when the last batch was

	retry  *backoff // of what failed
	fenced *backoff // of losing to another writer
}

// run works on a partition until ctx ends.
func (h *History) run(ctx context.Context, partition int32) {
	w := &worker{
		h: h, partition: partition,
		logger: h.opts.Logger.With(zap.String("topic", h.opts.Topic), zap.Int32("partition", partition)),
		retry:  h.backoff(), fenced: h.backoff(),
	}
	for ctx.Err() == nil {
		err := w.open(ctx)
		if err == nil {
			err = w.follow(ctx)
		}
		w.close()
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, eventlog.ErrHalted):
			w.halt(ctx, err)
		case errors.Is(err, chat.ErrFenced):
			// Harmless, but two that write the same do it half as fast: who loses often comes back seldom.
			h.metrics.fenced.Inc()
			w.logger.Info("history: another writer has moved the offset, going on behind it", zap.Int64("from", w.next))
			w.fenced.wait(ctx)
		default:
			h.failed(ctx, "read", partition, err)
			w.retry.wait(ctx)
		}
	}
}

// open finds the offset due and opens a reader there. Whether the log still is the one that is remembered is found out before
// anything is read.
func (w *worker) open(ctx context.Context) error {
	state, err := w.h.remembered(ctx)
	if err != nil {
		return err
	}
	w.state, w.next = state, state.Seen[w.partition]
	known := state
	known.Seen = map[int32]int64{w.partition: w.next} // the others are none of this worker's business
	if err := eventlog.Verify(ctx, w.h.opts.Log, known); err != nil {
		return err
	}
	w.reader, err = w.h.opts.Log.Open(ctx, w.h.opts.Topic, w.partition, w.next)
	if err != nil {
		return err
	}
	w.h.metrics.halted.WithLabelValues(label(w.partition)).Set(0)
	w.h.at(w.partition, w.next)
	return nil
}

func (w *worker) close() {
	w.pending, w.bytes = nil, 0
	if w.reader == nil {
		return
	}
	if err := w.reader.Close(); err != nil {
		w.logger.Warn("history: close reader", zap.Error(err))
	}
	w.reader = nil
}

// follow stores what it reads until something is wrong.
func (w *worker) follow(ctx context.Context) error {
	for {
		if err := w.gather(ctx); err != nil {
			return err
		}
		n := take(w.pending, w.h.opts.BatchSize, w.h.opts.BatchBytes)
		b := makeBatch(w.h.opts.Topic, w.state.Epoch, w.next, w.pending[:n])
		if err := w.write(ctx, b); err != nil {
			return err
		}
		for _, r := range w.pending[:n] {
			w.bytes -= size(r)
		}
		if w.pending = w.pending[n:]; len(w.pending) == 0 {
			w.pending = nil // its array goes with it
		}
	}
}

// gather waits for a record and, if the last batch was only just stored, for more, until a batch is full or MaxWait is over.
func (w *worker) gather(ctx context.Context) error {
	if len(w.pending) == 0 {
		if err := w.read(ctx); err != nil {
			return err
		}
	}
	due := w.stored.Add(w.h.opts.MaxWait)
	if !w.h.opts.Clock.Now().Before(due) {
		return nil
	}
	// What is at hand, then a pause, then what has come: to wait for each record by itself would be a request each, and those
	// compete at the broker with the messages that people wait for.
	if err := w.poll(ctx); err != nil || w.full() {
		return err
	}
	if !clock.Sleep(ctx, w.h.opts.Clock, due.Sub(w.h.opts.Clock.Now())) {
		return ctx.Err()
	}
	return w.poll(ctx)
}

func (w *worker) full() bool {
	return len(w.pending) >= w.h.opts.BatchSize || w.bytes >= w.h.opts.BatchBytes
}

// poll reads what is at hand, up to a full batch.
func (w *worker) poll(ctx context.Context) error {
	now, cancel := context.WithCancel(ctx)
	cancel() // a reader gives what is at hand all the same
	for !w.full() {
		if err := w.read(now); err != nil {
			if errors.Is(err, context.Canceled) && ctx.Err() == nil {
				return nil
			}
			return err
		}
	}
	return nil
}

func (w *worker) read(ctx context.Context) error {
	records, err := w.reader.Next(ctx)
	for _, r := range records {
		w.bytes += size(r)
	}
	if len(records) > 0 {
		w.retry.reset()
	}
	w.pending = append(w.pending, records...)
	return err
}

// write stores a batch, as long as it takes.
func (w *worker) write(ctx context.Context, b chat.Batch) error {
	m := w.h.metrics
	for {
		written, err := w.tryWrite(ctx, b)
		switch {
		case err == nil:
			w.retry.reset()
			w.fenced.reset()
			w.next, w.stored = b.Next, w.h.opts.Clock.Now()
			w.h.at(w.partition, w.next)
			m.batches.Inc()
			m.messages.Add(float64(len(b.Messages) - written.Duplicates - written.Invalid))
			m.duplicates.Add(float64(written.Duplicates))
			m.differing.Add(float64(written.Differing))
			m.invalid.Add(float64(written.Invalid))
			m.dead.Add(float64(len(b.Dead)))
			for _, d := range b.Dead {
				w.logger.Error("history: dead record", zap.Int64("offset", d.Offset), zap.String("reason", d.Reason))
			}
			return nil
		case errors.Is(err, chat.ErrFenced) || ctx.Err() != nil:
			return err
		}
		w.h.failed(ctx, "write", w.partition, err)
		if !w.retry.wait(ctx) {
			return ctx.Err()
		}
	}
}

func (w *worker) tryWrite(ctx context.Context, b chat.Batch) (written chat.Written, err error) {
	if ctx.Err() != nil {
		return written, ctx.Err()
	}
	select {
	case w.h.writing <- struct{}{}:
		defer func() { <-w.h.writing }()
	case <-ctx.Done():
		return written, ctx.Err()
	}
	ctx, cancel := w.h.opts.Clock.WithTimeout(ctx, w.h.opts.Patience)
	defer cancel()
	begun := w.h.opts.Clock.Now()
	written, err = w.h.opts.Store.WriteBatch(ctx, b)
	if err == nil {
		w.h.metrics.seconds.Observe(w.h.opts.Clock.Now().Sub(begun).Seconds())
	}
	return written, err
}

// halt waits until an operator has changed what is remembered of the log. The log itself is not looked at again: it may grow
// past the offset that is due, and would look whole then.
func (w *worker) halt(ctx context.Context, why error) {
	w.h.forget(w.partition)
	w.h.metrics.halted.WithLabelValues(label(w.partition)).Set(1)
	w.logger.Error("history: partition halted until an operator decides (chatd admin epoch raise)", zap.Error(why))
	for clock.Sleep(ctx, w.h.opts.Clock, w.h.opts.RetryMax) {
		state, err := w.h.remembered(ctx)
		switch {
		case err != nil:
			w.h.failed(ctx, "state", w.partition, err)
		case state.ID != w.state.ID || state.Epoch != w.state.Epoch || state.Partitions != w.state.Partitions:
			w.logger.Info("history: the remembered log was changed, trying again", zap.Uint32("epoch", state.Epoch))
			return
		}
	}
}
