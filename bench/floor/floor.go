// Package floor measures the product against the barest way to do the same, in one run on one machine: its figures are ratios,
// since a figure alone says more of the machine than of the product.
//
// What is compared takes turns (A B B A), each time several rounds, and medians are told. A baseline is a process of its own
// (bench/baselines); while it runs there is no cluster, which would cost it time even when idle. A goal that is missed is told with
// its figure: nothing here may be bent to meet one.
package floor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/futurechat/future/bench/load"
	"github.com/futurechat/future/ops/clustertest"
)

// Options for Run. Defaults gives what they should be.
type Options struct {
	// Only are the parts to run: see Parts. None: all.
	Only []string

	// Nodes and Routers of the cluster whose latency is measured; it has one history consumer.
	Nodes, Routers int
	// Pairs of friends, Rate in messages a second of all together, Size of a text in bytes.
	Pairs, Rate, Size int
	// Partitions of the log.
	Partitions int
	// Blocks of four rounds each: baseline, product, product, baseline.
	Blocks int
	// Warmup and Duration of a round.
	Warmup, Duration time.Duration

	// HistoryRows are in the database before the last measurement of the history consumer; 0: only the empty one is measured.
	HistoryRows int
	// HistoryMessages are stored in each measurement, HistoryConversations share them.
	HistoryMessages, HistoryConversations int
	// HistoryRounds into an empty database.
	HistoryRounds int

	// Profile is a folder for profiles and traces of the first round of latency; empty: none are taken.
	Profile string
	// Progress is told what is going on.
	Progress func(format string, args ...any)
}

// Parts of the floor.
const (
	PartLatency = "latency"
	PartHistory = "history"
)

// Parts are all parts.
func Parts() []string { return []string{PartLatency, PartHistory} }

// Defaults are the options of the record; the full one has HistoryRows 5,000,000.
func Defaults() Options {
	return Options{
		Nodes: 2, Routers: 1, Pairs: 10, Rate: 200, Size: 100, Partitions: 16,
		Blocks: 3, Warmup: 3 * time.Second, Duration: 10 * time.Second,
		HistoryMessages: 200_000, HistoryConversations: 20_000, HistoryRounds: 3,
	}
}

// FullHistoryRows is how many rows the second goal of the history consumer is about.
const FullHistoryRows = 5_000_000

// Check says what is wrong with the options.
func (o *Options) Check() error {
	for _, part := range o.Only {
		if !slices.Contains(Parts(), part) {
			return fmt.Errorf("there is no part %q: %v", part, Parts())
		}
	}
	least := func(name string, value, least int) error {
		if value < least {
			return fmt.Errorf("%s: %d, at least %d is wanted", name, value, least)
		}
		return nil
	}
	const room = 24 // for a message's number in its text
	return errors.Join(
		least("nodes", o.Nodes, 2), least("routers", o.Routers, 1), least("pairs", o.Pairs, 1), least("rate", o.Rate, 1),
		least("size", o.Size, room), least("partitions", o.Partitions, 1), least("blocks", o.Blocks, 1),
		least("warmup (s)", int(o.Warmup/time.Second), 0), least("duration (s)", int(o.Duration/time.Second), 1),
		least("history-rows", o.HistoryRows, 0), least("history-messages", o.HistoryMessages, 1000),
		least("history-conversations", o.HistoryConversations, 1), least("history-rounds", o.HistoryRounds, 1),
	)
}

func (o *Options) has(part string) bool { return len(o.Only) == 0 || slices.Contains(o.Only, part) }

// Outcome is what a run gave.
type Outcome struct {
	Rows []Row `json:"rows"`
	// Real says that Kafka, Redis and the database were real servers.
	Real    bool   `json:"real_servers"`
	Servers string `json:"servers"`
	// Database is its version and the settings that history's figures depend on; empty if it is SQLite or was not used.
	Database string `json:"database,omitempty"`
	// Rounds are the figures that the rows are medians of.
	Rounds []Round `json:"rounds"`
}

// Round is one measurement of one side.
type Round struct {
	Part string `json:"part"`
	// Side is "baseline" or "product".
	Side    string             `json:"side"`
	Began   time.Time          `json:"began"`
	Figures map[string]float64 `json:"figures"`
}

const (
	baseline = "baseline"
	product  = "product"
)

// floor is a run under way.
type floor struct {
	Options
	dir     string // for everything; removed in the end
	servers *clustertest.Servers
	out     *Outcome
	tools   map[string]string // baselines built, by name
	serial  int               // of clusters

	profiled bool
}

// Run measures. What was measured before an error is in the outcome.
func Run(ctx context.Context, o Options) (_ Outcome, err error) {
	if err := o.Check(); err != nil {
		return Outcome{}, err
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	f := &floor{Options: o, out: &Outcome{}, tools: map[string]string{}}
	if f.dir, err = os.MkdirTemp("", "future-floor-"); err != nil {
		return Outcome{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(f.dir)) }()
	if f.servers, err = clustertest.FindServers(ctx, filepath.Join(f.dir, "embedded")); err != nil {
		return Outcome{}, err
	}
	defer func() { err = errors.Join(err, f.servers.Stop()) }()
	f.out.Real = f.servers.Real
	f.out.Servers = f.servers.String()
	if !f.out.Real {
		f.out.Servers += ": NOT the real servers that the goals are about"
	}
	f.Progress("servers: %s", f.out.Servers)
	if o.has(PartLatency) {
		if err := f.latency(ctx); err != nil {
			return *f.out, err
		}
	}
	if o.has(PartHistory) {
		if err := f.history(ctx); err != nil {
			return *f.out, err
		}
	}
	return *f.out, nil
}

// start starts a cluster in a folder of its own.
func (f *floor) start(ctx context.Context, o clustertest.Options) (*clustertest.Cluster, error) {
	f.serial++
	o.Dir = filepath.Join(f.dir, fmt.Sprintf("cluster-%d", f.serial))
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		return nil, err
	}
	o.Servers, o.Partitions = f.servers, f.Partitions
	return clustertest.Start(ctx, o)
}

// stop stops a cluster, also when ctx has ended. That it does not end well is told, but makes no figure wrong.
func (f *floor) stop(ctx context.Context, c *clustertest.Cluster) {
	const patience = 60 * time.Second
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	// A terminal's Ctrl-C goes to its processes too, which then have ended by themselves.
	if err := c.Stop(stopping); err != nil && ctx.Err() == nil {
		f.Progress("the cluster did not end well: %v", err)
	}
}

func (f *floor) round(part, side string, began time.Time, figures map[string]float64) {
	f.out.Rounds = append(f.out.Rounds, Round{part, side, began, figures})
}

// latency measures messages from one node to another.
func (f *floor) latency(ctx context.Context) error {
	for block := range f.Blocks {
		f.Progress("latency: block %d of %d", block+1, f.Blocks)
		if err := f.rawKafka(ctx); err != nil {
			return err
		}
		if err := f.twice(ctx); err != nil {
			return err
		}
		if err := f.rawKafka(ctx); err != nil {
			return err
		}
	}
	f.latencyRows()
	return nil
}

// twice starts a cluster and measures it in two rounds.
func (f *floor) twice(ctx context.Context) (err error) {
	c, err := f.start(ctx, clustertest.Options{Nodes: f.Nodes, Routers: f.Routers, Histories: 1})
	if err != nil {
		return err
	}
	defer f.stop(ctx, c)
	l, err := load.Connect(ctx, load.Options{Addrs: c.Addrs(), Pairs: f.Pairs})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for range 2 {
		round := func() error { return f.once(ctx, c, l) }
		if f.Profile != "" && !f.profiled {
			f.profiled = true
			err = f.profile(ctx, c, round)
		} else {
			err = round()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// once measures the product for one round.
func (f *floor) once(ctx context.Context, c *clustertest.Cluster, l *load.Load) error {
	began := time.Now()
	var before cpuUse
	var failed error
	r, err := l.Run(ctx, load.Plan{
		Rate: f.Rate, Warmup: f.Warmup, Duration: f.Duration, Size: f.Size, Patience: patience,
		Counted: func() { before, failed = usage(c) },
	})
	if err != nil {
		return err
	}
	after, err := usage(c)
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	each := func(d time.Duration) float64 { return ms(d) / float64(r.Messages) }
	figures := map[string]float64{
		"e2e_p50_ms": r.E2E.P50, "e2e_p90_ms": r.E2E.P90, "e2e_p99_ms": r.E2E.P99, "e2e_max_ms": r.E2E.Max,
		"ack_p50_ms": r.Ack.P50, "ack_p90_ms": r.Ack.P90, "ack_p99_ms": r.Ack.P99, "ack_max_ms": r.Ack.Max,
		"late_p50_ms": r.Late.P50, "late_p99_ms": r.Late.P99,
		"cpu_nodes_ms": each(after.nodes - before.nodes), "cpu_routers_ms": each(after.routers - before.routers),
		"cpu_histories_ms": each(after.histories - before.histories),
	}
	figures["cpu_ms"] = figures["cpu_nodes_ms"] + figures["cpu_routers_ms"] + figures["cpu_histories_ms"]
	f.round(PartLatency, product, began, figures)
	f.Progress("  Future:       end to end p50 %.2f p99 %.2f ms, acknowledged p50 %.2f p99 %.2f ms, %.2f CPU-ms a message",
		r.E2E.P50, r.E2E.P99, r.Ack.P50, r.Ack.P99, figures["cpu_ms"])
	return nil
}

// patience is how long the last messages of a round are waited for.
const patience = 30 * time.Second

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// cpuUse is the CPU that the processes of each role have used.
type cpuUse struct{ nodes, routers, histories time.Duration }

func usage(c *clustertest.Cluster) (cpuUse, error) {
	var use cpuUse
	for _, role := range []struct {
		processes []*clustertest.Process
		sum       *time.Duration
	}{{c.Nodes, &use.nodes}, {c.Routers, &use.routers}, {c.Histories, &use.histories}} {
		for _, p := range role.processes {
			u, err := p.Usage()
			if err != nil {
				return use, err
			}
			*role.sum += u.CPU
		}
	}
	return use, nil
}
