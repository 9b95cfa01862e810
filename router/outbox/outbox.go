// Package outbox brings what was decided together with a change in the database to the log: at once after the commit
// (Publish, called by the node that decided), and by a sweeper (Run, one in the cluster by lease) for what a crash left behind.
//
// A row may be produced more than once: by the node and the sweeper at the same time, or again after a crash between produce
// and delete. It is seen once all the same. Before each produce the row is looked for as a resent message is
// (chat.FindSent): the history offset H is read, then the message. If it is found the row is only removed. If not, the record is
// marked Resend with SearchFrom = H, whoever produces it. Say there are copies at offsets a < b. When b's producer looked, the
// database had everything below its H and not this identity, so a is not below H; the router therefore looks for b's identity
// from H on, finds a, and drops b. This holds also for a copy that a broken connection wrote late, since it asks nothing of the
// order in which the copies were produced. The database keeps the lower of the two by its unique key.
//
// A row that ends somebody's right to write is produced only after a fence: whoever brings it, no message is on its way any more
// that was checked against an older version (design.md, "Exact removals").
//
// Earlier rows of a conversation go first: rows are read in version order, and each awaits the log's answer before the next is
// produced. A second publisher may repeat an earlier row behind a later one, but that is then a copy, and dropped.
package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/eventlog"
)

// Store has the rows, and what tells whether one was produced before.
type Store interface {
	chat.OutboxStore
	chat.SentStore
}

// Log takes records.
type Log interface {
	Append(e eventlog.Entry, done func(eventlog.Appended, error)) error
}

// Leases decide who sweeps. Two that sweep at a time do no harm but work.
type Leases interface {
	Acquire(ctx context.Context, name, owner, value string, ttl time.Duration) (bool, error)
	Renew(ctx context.Context, name, owner string, ttl time.Duration) (bool, error)
	Release(ctx context.Context, name, owner string) error
}

// Names of the points that Options.Failpoint is called at.
const (
	BeforeProduce = "outbox/before-produce"
	AfterFence    = "outbox/after-fence" // of a row that closes
	BeforeDelete  = "outbox/before-delete"
)

// Options for New. Store, Log and Partitions are required, for Run also Leases and Owner.
type Options struct {
	Store  Store
	Log    Log
	Leases Leases
	// Owner names who sweeps, unique in the cluster and among lives of a process.
	Owner string
	// Partitions is how many chat.TopicMessages has.
	Partitions int
	// Every is how often the sweeper looks. A row is left to the node that made it until it was seen twice. Default 1 s.
	Every time.Duration
	// LeaseTTL is how long after a sweeper's death another takes over. Default 10 s.
	LeaseTTL time.Duration
	// Batch is how many rows are read at a time. Default 200.
	Batch int
	// Clock is time and goroutines. Default clock.Real.
	Clock clock.Clock
	// Fence is called before a row that ends somebody's right to write (chat.ClosingOf) is produced: see package fence. Without it
	// such rows are not produced.
	Fence func(ctx context.Context, conversation string, version uint64) error
	// Failpoint, if not nil, is called at each named point, for tests that end the process there.
	Failpoint  func(name string)
	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// Publisher publishes rows. Its methods are safe for concurrent use, but Run is for one goroutine.
type Publisher struct {
	opts    Options
	metrics metrics

	// Owned by Run.
	leased bool
	seen   map[int64]bool  // rows of the last look
	failed map[string]bool // conversations whose rows could not be brought then
}

type metrics struct {
	rows    *prometheus.CounterVec // by result
	waiting prometheus.Gauge
}

var errNoFence = errors.New("outbox: the end of a right cannot be produced without a fence")

// New makes a Publisher.
func New(o Options) (*Publisher, error) {
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	o.Every = cmp.Or(o.Every, time.Second)
	o.LeaseTTL = cmp.Or(o.LeaseTTL, 10*time.Second)
	o.Batch = cmp.Or(o.Batch, 200)
	if o.Fence == nil {
		o.Fence = func(context.Context, string, uint64) error { return errNoFence }
	}
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	m := metrics{
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "future_outbox_rows_total", Help: "Outbox rows by what was done: produced, found (produced before), failed.",
		}, []string{"result"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "future_outbox_waiting_rows", Help: "Rows that the sweeper saw twice and could not remove at its last look.",
		}),
	}
	if o.Registerer != nil {
		for _, c := range []prometheus.Collector{m.rows, m.waiting} {
			if err := o.Registerer.Register(c); err != nil {
				return nil, fmt.Errorf("outbox: %w", err)
			}
		}
	}
	return &Publisher{opts: o, metrics: m}, nil
}

// Publish produces a conversation's rows up to a version, in order, and removes them. An error leaves the rows to the sweeper: the
// change has been made, so it is no reason to refuse what was asked.
func (p *Publisher) Publish(ctx context.Context, conversation string, upTo uint64) error {
	for {
		rows, err := p.opts.Store.Unsent(ctx, conversation, upTo, p.opts.Batch)
		if err != nil {
			return fmt.Errorf("outbox: publish: %w", err)
		}
		if err := p.bring(ctx, rows); err != nil {
			return fmt.Errorf("outbox: publish: %w", err)
		}
		if len(rows) < p.opts.Batch {
			return nil
		}
	}
}

// bring produces rows of one conversation in their order, and removes each.
func (p *Publisher) bring(ctx context.Context, rows []chat.Outgoing) error {
	for _, row := range rows {
		result, err := p.produce(ctx, row)
		if err == nil {
			p.opts.Failpoint(BeforeDelete)
			err = p.opts.Store.Sent(ctx, []int64{row.ID})
		}
		if err != nil {
			p.metrics.rows.WithLabelValues("failed").Inc()
			return fmt.Errorf("row %d, version %d: %w", row.ID, row.Version, err)
		}
		p.metrics.rows.WithLabelValues(result).Inc()
	}
	return nil
}

// produce brings a row to the log, if it is not there, and waits for the log's answer.
func (p *Publisher) produce(ctx context.Context, row chat.Outgoing) (result string, err error) {
	p.opts.Failpoint(BeforeProduce)
	sent, err := chat.FindSent(ctx, p.opts.Store, p.opts.Partitions, row.Message)
	switch {
	case err != nil:
		return "", err
	case sent.Found:
		return "found", nil
	}
	if c, closes := chat.ClosingOf(row.Message); closes {
		if err := p.opts.Fence(ctx, c.Conversation, c.Version); err != nil {
			return "", err
		}
		p.opts.Failpoint(AfterFence)
	}
	record := chat.Record{Kind: chat.KindMessage, Message: row.Message, Resend: true, SearchFrom: sent.SearchFrom}
	entry, err := record.Entry(p.opts.Partitions)
	if err != nil {
		return "", err
	}
	answered := make(chan struct{})
	var failed error // read once answered is closed
	if err := p.opts.Log.Append(entry, func(_ eventlog.Appended, err error) { failed = err; close(answered) }); err != nil {
		return "", err
	}
	p.opts.Clock.Wait(ctx, time.Time{}, answered)
	if !clock.Closed(answered) { // it may still be written: the row stays, and is looked for
		return "", errors.Join(eventlog.ErrUnknownOutcome, context.Cause(ctx))
	}
	return "produced", failed
}
