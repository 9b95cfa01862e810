package floor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/futurechat/future/ops/clustertest"
)

// Rounds of the history consumer, by what is in the database.
const (
	partEmpty  = "history, empty"
	partFilled = "history, filled"
)

// history measures how fast the history consumer, alone with the servers, stores what is in the log before it starts.
func (f *floor) history(ctx context.Context) error {
	for round := range f.HistoryRounds {
		f.Progress("history: round %d of %d, %d messages into an empty database", round+1, f.HistoryRounds, f.HistoryMessages)
		last := round == f.HistoryRounds-1
		if err := f.historyRound(ctx, round%2 == 0, last); err != nil {
			return err
		}
	}
	f.historyRows()
	return nil
}

// historyRound measures in a fresh database. In the last round that is then filled, and measured again.
func (f *floor) historyRound(ctx context.Context, baselineFirst, last bool) (err error) {
	c, err := f.start(ctx, clustertest.Options{})
	if err != nil {
		return err
	}
	defer f.stop(ctx, c)
	db, err := c.OpenDatabase()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := f.settings(ctx, c, db); err != nil {
		return err
	}
	h := &historyRun{floor: f, c: c, db: db}
	if baselineFirst {
		if err := f.rawMySQL(ctx, c, partEmpty, false); err != nil {
			return err
		}
	}
	if err := h.fill(ctx, f.HistoryMessages); err != nil {
		return err
	}
	// The process that fills the database is the one whose memory is watched.
	p, err := h.measure(ctx, partEmpty)
	if err != nil {
		return err
	}
	if !baselineFirst {
		if err := f.rawMySQL(ctx, c, partEmpty, false); err != nil {
			return err
		}
	}
	if !last {
		return nil
	}
	if f.HistoryRows == 0 {
		return h.memory(p)
	}
	return h.filled(ctx, p)
}

// settings notes what the figures of a database depend on most: whether the rows fit into its memory, and when a commit is safe.
func (f *floor) settings(ctx context.Context, c *clustertest.Cluster, db *sql.DB) error {
	if !c.Real || f.out.Database != "" {
		return nil
	}
	var version string
	var pool, flush int64
	if err := db.QueryRowContext(ctx, "SELECT VERSION(), @@innodb_buffer_pool_size, @@innodb_flush_log_at_trx_commit").Scan(&version, &pool, &flush); err != nil {
		return fmt.Errorf("database settings: %w", err)
	}
	f.out.Database = fmt.Sprintf("%s, innodb_buffer_pool_size %.0f MiB, innodb_flush_log_at_trx_commit %d", version, mib(pool), flush)
	f.Progress("database: %s", f.out.Database)
	return nil
}

// historyRun is a cluster without nodes and routers, whose log is filled by hand.
type historyRun struct {
	*floor
	c  *clustertest.Cluster
	db *sql.DB

	appended int // messages in the log
	rss      struct{ start, peak int64 }
}

func (h *historyRun) fill(ctx context.Context, n int) error {
	began := time.Now()
	if err := h.c.FillLog(ctx, clustertest.Filling{
		Messages: n, Conversations: h.HistoryConversations, Text: strings.Repeat("x", h.Size), From: h.appended,
	}); err != nil {
		return err
	}
	h.appended += n
	h.Progress("  %d messages appended to the log in %.1f s", n, time.Since(began).Seconds())
	return nil
}

// measure starts a history process and takes the time from the first stored batch until all is stored.
func (h *historyRun) measure(ctx context.Context, part string) (*clustertest.Process, error) {
	before, err := h.stored(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	p, err := h.c.Add(ctx, "history")
	if err != nil {
		return nil, err
	}
	var first struct {
		at  time.Time
		n   int
		use clustertest.Usage
	}
	half := before + (h.appended-before)/2
	h.rss.start, h.rss.peak = 0, 0
	err = h.watch(ctx, p, 10*time.Millisecond, func(n int, use clustertest.Usage) {
		if n > before && first.at.IsZero() {
			first.at, first.n, first.use = time.Now(), n, use
		}
		if n >= half && h.rss.start == 0 {
			h.rss.start = use.RSS
		}
	})
	if err != nil {
		return nil, err
	}
	took := time.Since(first.at)
	end, err := p.Usage()
	if err != nil {
		return nil, err
	}
	n := h.appended - first.n
	if n < h.HistoryMessages/2 {
		return nil, fmt.Errorf("history had stored %d messages before it was looked at: more messages are wanted", first.n-before)
	}
	rate, each := float64(n)/took.Seconds(), ms(end.CPU-first.use.CPU)/float64(n)
	h.round(part, product, began, map[string]float64{
		"rate": rate, "cpu_ms": each, "rows_before": float64(before), "rss_mib": mib(end.RSS), "rss_peak_mib": mib(h.rss.peak),
	})
	h.Progress("  Future:       %.0f messages/s behind %d rows, %.4f CPU-ms a message, RSS %.1f MiB", rate, before, each, mib(end.RSS))
	return p, nil
}

// filled has the process p fill the database, and measures another one behind that.
func (h *historyRun) filled(ctx context.Context, p *clustertest.Process) error {
	began := time.Now()
	if rest := h.HistoryRows - h.appended; rest > 0 {
		h.Progress("  filling the database up to %d rows", h.HistoryRows)
		if err := h.fill(ctx, rest); err != nil {
			return err
		}
		told := began
		if err := h.watch(ctx, p, 500*time.Millisecond, func(n int, use clustertest.Usage) {
			const every = 30 * time.Second
			if time.Since(told) > every {
				told = time.Now()
				h.Progress("  %d rows after %.0f s, RSS %.1f MiB", n, time.Since(began).Seconds(), mib(use.RSS))
			}
		}); err != nil {
			return err
		}
	}
	if err := h.memory(p); err != nil {
		return err
	}
	if err := p.Stop(ctx); err != nil {
		return err
	}
	if err := h.fill(ctx, h.HistoryMessages); err != nil {
		return err
	}
	if _, err := h.measure(ctx, partFilled); err != nil {
		return err
	}
	return h.rawMySQL(ctx, h.c, partFilled, true)
}

// memory notes how the memory of a process has developed since it was half through its first messages.
func (h *historyRun) memory(p *clustertest.Process) error {
	use, err := p.Usage()
	if err != nil {
		return err
	}
	h.round(partMemory, product, time.Now(), map[string]float64{
		"rss_start_mib": mib(h.rss.start), "rss_end_mib": mib(use.RSS), "rss_peak_mib": mib(max(h.rss.peak, use.RSS)),
		"rows": float64(h.appended),
	})
	return nil
}

const partMemory = "history, memory"

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// watch looks at the database and at p every now and then, until all that was appended is stored.
func (h *historyRun) watch(ctx context.Context, p *clustertest.Process, every time.Duration, saw func(n int, use clustertest.Usage)) error {
	const patience = time.Minute // without any progress
	tick := time.NewTicker(every)
	defer tick.Stop()
	at, since := -1, time.Now()
	for {
		n, err := h.stored(ctx)
		if err != nil {
			return err
		}
		use, err := p.Usage()
		if err != nil {
			return err
		}
		h.rss.peak = max(h.rss.peak, use.RSS)
		saw(n, use)
		if n >= h.appended {
			return nil
		}
		if n != at {
			at, since = n, time.Now()
		}
		if time.Since(since) > patience {
			return fmt.Errorf("history stands at %d of %d for %v\n%s", n, h.appended, patience, clustertest.Tail(p.LogFile))
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("%s has ended\n%s", p.Name, clustertest.Tail(p.LogFile))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// stored is how many messages are: the sum of the partitions' offsets, which move in the same transactions as the rows come.
func (h *historyRun) stored(ctx context.Context) (int, error) {
	var n int
	err := h.db.QueryRowContext(ctx, "SELECT COALESCE(SUM(next_offset), 0) FROM log_offsets WHERE topic = 'chat.messages'").Scan(&n)
	if err != nil && ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return n, err
}
