package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/futurechat/future/bench/faults"
)

const faultsHelp = `bench faults: break parts of a cluster while friends chat, and judge what became of every message.

The cluster is of real processes, on the servers that FUTURE_TEST_KAFKA, FUTURE_TEST_REDIS and FUTURE_TEST_MYSQL name:
  env=$(ops/testservers/servers start --brokers 3) && eval "$env"
Without them Kafka and Redis are embedded and the database is SQLite: good to see that it runs, no proof.

  go run ./bench faults -faults list                              the faults, and what each does
  go run ./bench faults -faults node-kill -sessions 300 -rate 100 a quick look, a minute
  go run ./bench faults -o bench/results                          all of them, for the record: about half an hour
  go run ./bench faults -faults router-kill -repeat 10            how long a router's partitions stand still, in percentiles

Sessions resume by tokens that are seeded into the database. They write at a steady rate in an open loop: a message counts from when
it was due. A run is: -before of traffic; the fault, healed at once or after -hold; -duration of traffic; then all has 30 s to arrive.

A verdict passes if of the acknowledged messages none is lost (it has a row in the database, and was shown by every device of both
friends within 30 s of healing), doubled, out of order, or dropped; if 95 % of what was offered outside the fault and its stated stall
was acknowledged; and if the fault was seen to hit. Goals are figures besides, and do not make a verdict fail. How long exactly one part
stands still, without thousands of sessions beside it, is what ops/e2e/measure prints.

Hosts that are gone (node-cut, router-cut) need Linux and root: packets are dropped between network namespaces. redis-empty empties the
whole Redis server. Names of roles stand for all faults of theirs: -faults node,overload.

The table, or with -json one object a verdict, goes to standard output, what is going on to standard error. The exit code is 0 when all
verdicts pass, 1 when one fails or something broke, 2 for wrong usage, 130 after Ctrl-C. Do not use the machine meanwhile.

Flags:
`

type faultsFlags struct {
	faults.Options
	json, list bool
	out        string
}

func parseFaults(args []string, out io.Writer) (*faultsFlags, error) {
	f := &faultsFlags{Options: faults.Defaults()}
	fs := flag.NewFlagSet("faults", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.BoolVar(&f.json, "json", false, "print one JSON object a verdict")
	fs.StringVar(&f.out, "o", "", "write the record to this `file` too, or into this folder as DATE-faults.json")
	which := fs.String("faults", "", "`names` of faults, separated by commas, or list; empty: all")
	fs.IntVar(&f.Repeat, "repeat", f.Repeat, "how often each fault is carried out, each time on another process")
	fs.IntVar(&f.Nodes, "nodes", f.Nodes, "nodes of the cluster")
	fs.IntVar(&f.Routers, "routers", f.Routers, "routers of the cluster")
	fs.IntVar(&f.Histories, "histories", f.Histories, "history consumers of the cluster")
	fs.IntVar(&f.Partitions, "partitions", f.Partitions, "partitions of the log")
	fs.IntVar(&f.Sessions, "sessions", f.Sessions, "sessions, spread over the nodes; of five pairs of friends one has two devices a person")
	fs.IntVar(&f.Rate, "rate", f.Rate, "messages a second, all together")
	fs.IntVar(&f.Size, "size", f.Size, "bytes of a text")
	fs.DurationVar(&f.Before, "before", f.Before, "traffic before the fault")
	fs.DurationVar(&f.After, "duration", f.After, "traffic after the fault was healed")
	fs.DurationVar(&f.Hold, "hold", f.Hold, "how long a process is paused or cut off")
	fs.DurationVar(&f.Idle, "idle", f.Idle, "how long nobody writes, in the fault idle")
	fs.DurationVar(&f.Burst, "burst", f.Burst, "how long too much is offered, in the fault overload")
	fs.IntVar(&f.Flood, "flood", f.Flood, "messages a second that are offered to find what the cluster can take, in the fault overload")
	if err := parse(fs, args, faultsHelp, out); err != nil {
		return nil, err
	}
	if f.list = *which == "list"; !f.list && *which != "" {
		f.Faults = strings.Split(*which, ",")
	}
	if err := f.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return f, nil
}

// errVerdict is matched by a campaign in which all was judged, and something failed.
var errVerdict = errors.New("failed")

// faultsRecord is what somebody else needs to judge verdicts by, or to have them again.
type faultsRecord struct {
	frame
	faults.Outcome
	Output string `json:"output"`
}

func runFaults(ctx context.Context, args []string, out, errs io.Writer) error {
	f, err := parseFaults(args, out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case f.list:
		return listFaults(out)
	}
	f.Progress = func(format string, args ...any) {
		fmt.Fprintf(errs, "%s faults: "+format+"\n", append([]any{time.Now().UTC().Format(time.TimeOnly)}, args...)...)
	}
	f.Done = func(v faults.Verdict) { f.Progress("%s", &v) }
	r := &faultsRecord{frame: newFrame(ctx, append([]string{"go", "run", "./bench", "faults"}, args...))}
	if r.Outcome, err = faults.Run(ctx, f.Options); err == nil && r.Failed() > 0 {
		err = fmt.Errorf("%d of %d verdicts %w", r.Failed(), len(r.Verdicts), errVerdict)
	}
	r.finish(err)

	write := r.table
	if f.json {
		write = r.objects
	}
	if len(r.Verdicts) > 0 {
		var failed error
		r.Output, failed = printed(out, write)
		err = errors.Join(err, failed)
	}
	return errors.Join(err, keep(f.out, "faults", r.Began, r, f.Progress))
}

func listFaults(out io.Writer) error {
	for _, f := range faults.Catalog() {
		if _, err := fmt.Fprintf(out, "%-16s %s\n", f.Name, f.About); err != nil {
			return err
		}
	}
	return nil
}

// table prints for people.
func (r *faultsRecord) table(w io.Writer) error {
	if err := r.heading(w, r.Servers); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "cluster: %s\n\n", r.Setting); err != nil {
		return err
	}
	return faults.Table(w, r.Verdicts)
}

// objects prints one JSON object a verdict.
func (r *faultsRecord) objects(w io.Writer) error {
	return encode(w, r.Verdicts, func(v faults.Verdict) any {
		return struct {
			faults.Verdict
			RealServers bool   `json:"real_servers"`
			Servers     string `json:"servers"`
			Setting     string `json:"setting"`
			evidence
		}{v, r.Real, r.Servers, r.Setting, r.evidence}
	})
}
