// Command run simulates clusters under faults, one after the other, each decided by its seed alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/futurechat/future/ops/simulation"
)

const usage = `Simulates whole clusters, one seed after the other: nodes, routers and history consumers with their real code, and people with the real
state machine of the SDK, over a network, a log, a Redis and a database that fail in every way that is known. The same seed does the
same each time. After the faults all heals, and all that was acknowledged must have arrived, once and in order.

  go run ./ops/simulation/run -seeds 2000              many seeds; fails if one breaks a promise, or if a kind of fault never happened
  go run ./ops/simulation/run -seed 17                 one seed, with the end of its trace if it fails
  go run ./ops/simulation/run -seed 17 -trace all.txt  with all that happened, in a file

Flags:
`

func main() {
	if err := run(os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "simulation:", err)
		}
		os.Exit(1)
	}
}

type command struct {
	sweep  simulation.Sweep
	one    bool
	trace  string
	shrink bool
	counts bool
	lines  int
}

func parse(args []string) (command, error) {
	var c command
	o := &c.sweep.Options
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	f.Usage = func() { fmt.Fprint(f.Output(), usage); f.PrintDefaults() }
	seed := f.Uint64("seed", 0, "run this `seed` alone")
	f.Uint64Var(&c.sweep.From, "from", 1, "the first `seed`")
	f.IntVar(&c.sweep.Seeds, "seeds", 200, "how many seeds `n`")
	f.IntVar(&c.sweep.Twice, "twice", 0, "run the first `n` seeds twice: they must come out the same")
	f.IntVar(&c.sweep.Workers, "workers", runtime.GOMAXPROCS(0), "how many runs `n` at a time")
	f.BoolVar(&c.sweep.Keep, "keep-going", false, "do not end at the first failure")
	f.BoolVar(&c.shrink, "shrink", true, "look for a smaller run that fails alike")
	f.BoolVar(&c.counts, "counts", true, "tell at the end how often each thing happened")
	f.StringVar(&c.trace, "trace", "", "with -seed: write all that happened to this `file` (- for standard output)")
	f.IntVar(&c.lines, "lines", 60, "how many lines `n` of a failing run's trace are told")
	f.IntVar(&o.Nodes, "nodes", 0, "`n` nodes (0: as the seed decides; so for those below)")
	f.IntVar(&o.Routers, "routers", 0, "`n` routers")
	f.IntVar(&o.Histories, "histories", 0, "`n` history consumers")
	f.IntVar(&o.People, "people", 0, "`n` people")
	f.IntVar(&o.Partitions, "partitions", 0, "`n` partitions")
	f.DurationVar(&o.Faults, "faults", 0, "how long faults happen, by the run's time")
	f.DurationVar(&o.Heal, "heal", 0, "how long it may take then until all is well (default 1m0s)")
	without := f.String("without", "", "leave out these `kinds` of faults, parted by commas:\n"+strings.Join(simulation.FaultKinds(), ", "))
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, fmt.Errorf("%q is no flag: -h tells them", f.Arg(0))
	}
	if *without != "" {
		o.Without = strings.Split(*without, ",")
	}
	for _, kind := range o.Without {
		if !slices.Contains(simulation.FaultKinds(), kind) {
			return c, fmt.Errorf("-without %s: there is no such kind of fault: there are %s", kind, strings.Join(simulation.FaultKinds(), ", "))
		}
	}
	f.Visit(func(set *flag.Flag) { c.one = c.one || set.Name == "seed" })
	if c.one {
		o.Seed, c.sweep.From, c.sweep.Seeds = *seed, *seed, 1
	}
	if c.trace != "" && !c.one {
		return c, errors.New("-trace is for one run: say which by -seed")
	}
	return c, nil
}

// collectAt is how much memory may grow, in percent, before garbage is collected: runs are short and leave much behind.
const collectAt = 400

func run(args []string) error {
	debug.SetGCPercent(collectAt)
	c, err := parse(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if c.trace != "" {
		if err := c.writeTrace(); err != nil {
			return err
		}
	}
	told := time.Now()
	c.sweep.Progress = func(done, failed int) {
		if time.Since(told) >= 5*time.Second {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "%d of %d seeds, %d failed\n", done, c.sweep.Seeds, failed)
		}
	}
	report := c.sweep.Run(ctx)
	if c.counts {
		if err := report.WriteCounts(os.Stdout); err != nil {
			return err
		}
	}
	fmt.Printf("%d seeds from %d in %v, %.0f a second; %d events; all was well within %v of healing; hash %016x\n", report.Seeds, c.sweep.From,
		report.Took.Round(time.Millisecond), float64(report.Seeds)/report.Took.Seconds(), report.Events, report.Healed, report.Hash)
	if len(report.Failed) > 0 {
		c.explain(ctx, report.Failed)
		return fmt.Errorf("%d of %d seeds failed", len(report.Failed), report.Seeds)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted after %d of %d seeds; none of them failed", report.Seeds, c.sweep.Seeds)
	}
	const enough = 2000 // runs in which everything must have happened
	if never := report.Never(); len(never) > 0 && report.Seeds >= enough && len(c.sweep.Options.Without) == 0 {
		return fmt.Errorf("in %d seeds these never happened, so nothing is proved of them: %s", report.Seeds, strings.Join(never, ", "))
	}
	return nil
}

// explain tells what broke, how to see it again, and a smaller run of the first.
func (c command) explain(ctx context.Context, failed []simulation.Result) {
	for _, r := range failed {
		o := c.sweep.Options
		o.Seed = r.Seed
		fmt.Printf("\nseed %d: %v\nagain: %s%s\n", r.Seed, r.Broken, program, o.Args())
	}
	first := c.sweep.Options
	first.Seed, first.Trace = failed[0].Seed, true
	again := simulation.Run(first)
	fmt.Printf("\nThe end of seed %d:\n", first.Seed)
	for _, line := range again.Trace[max(0, len(again.Trace)-c.lines):] {
		fmt.Println(line)
	}
	if c.shrink && ctx.Err() == nil && failed[0].Broken.Check != "repeatable" {
		const runs, patience = 400, 30 * time.Second
		until := time.Now().Add(patience)
		first.Trace = false
		small := simulation.Shrink(first, failed[0].Broken.Check, runs, func() bool { return ctx.Err() != nil || time.Now().After(until) })
		fmt.Printf("\nA smaller run that breaks the same:\n%s%s\n", program, small.Args())
	}
}

const program = "go run ./ops/simulation/run "

// writeTrace runs the seed once more, for its trace.
func (c command) writeTrace() error {
	o := c.sweep.Options
	o.Trace, o.WholeTrace = true, true
	text := strings.Join(simulation.Run(o).Trace, "\n") + "\n"
	if c.trace == "-" {
		_, err := os.Stdout.WriteString(text)
		return err
	}
	return os.WriteFile(c.trace, []byte(text), 0o600)
}
