package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/futurechat/future/bench/floor"
)

const floorHelp = `bench floor: measure Future against the barest way to do the same, all in one run on this machine.

The servers are those that FUTURE_TEST_KAFKA, FUTURE_TEST_REDIS and FUTURE_TEST_MYSQL name:
  env=$(ops/testservers/servers start --brokers 1) && eval "$env"
Without them Kafka and Redis are embedded and the database is SQLite: good to see that it runs, not to compare with the goals.

  go run ./bench floor                                          about 7 minutes
  go run ./bench floor -duration 3s -blocks 1 -history-rounds 1 -history-messages 20000      a quick look
  go run ./bench floor -history-rows 5000000 -o bench/results   for the record, 5 to 15 minutes more

Five million rows and their indexes are 2 GB: a database whose memory is smaller waits for the disk, whoever inserts. The test servers'
MariaDB has 64 MiB; what its makers recommend for a server of its own is most of the machine's memory:
  mariadb -S DATA/mariadb/sock -uroot -e 'SET GLOBAL innodb_buffer_pool_size = 2147483648'
The record says what it was.

The table, or with -json one object a row, goes to standard output, what is going on to standard error. A missed goal is a row like
any other ("met": false); the exit code is 0 when all was measured, 1 when something failed, 2 for wrong usage, 130 after Ctrl-C.
Do not use the machine meanwhile: the load average before and after is part of the record.

Flags:
`

// errUsage is matched by what is wrong with the arguments.
var errUsage = errors.New("usage")

type floorFlags struct {
	floor.Options
	json bool
	out  string
}

func parseFloor(args []string, out io.Writer) (*floorFlags, error) {
	f := &floorFlags{Options: floor.Defaults()}
	fs := flag.NewFlagSet("floor", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.BoolVar(&f.json, "json", false, "print one JSON object a row")
	fs.StringVar(&f.out, "o", "", "write the record to this `file` too, or into this folder as DATE-floor.json")
	only := fs.String("only", "", "`parts` to measure, separated by commas: "+strings.Join(floor.Parts(), ", ")+"; empty: all")
	fs.IntVar(&f.Nodes, "nodes", f.Nodes, "nodes of the cluster")
	fs.IntVar(&f.Routers, "routers", f.Routers, "routers of the cluster")
	fs.IntVar(&f.Pairs, "pairs", f.Pairs, "pairs of friends, each on two nodes")
	fs.IntVar(&f.Rate, "rate", f.Rate, "messages a second, all pairs together")
	fs.IntVar(&f.Size, "size", f.Size, "bytes of a text")
	fs.IntVar(&f.Partitions, "partitions", f.Partitions, "partitions of the log")
	fs.IntVar(&f.Blocks, "blocks", f.Blocks, "blocks of four rounds each: baseline, Future, Future, baseline")
	fs.DurationVar(&f.Warmup, "warmup", f.Warmup, "what is sent first in a round and not counted")
	fs.DurationVar(&f.Duration, "duration", f.Duration, "what is counted of a round")
	fs.IntVar(&f.HistoryRows, "history-rows", f.HistoryRows, "rows in the database before history is measured a last time; 0: only into an empty one")
	fs.IntVar(&f.HistoryMessages, "history-messages", f.HistoryMessages, "messages that history stores in each measurement")
	fs.IntVar(&f.HistoryConversations, "history-conversations", f.HistoryConversations, "conversations that they are of, in turn")
	fs.IntVar(&f.HistoryRounds, "history-rounds", f.HistoryRounds, "rounds into an empty database")
	fs.StringVar(&f.Profile, "profile", "", "`folder` for CPU profiles and traces of the servers in the first round, which they slow down: not for the record")
	if err := parse(fs, args, floorHelp, out); err != nil {
		return nil, err
	}
	if *only != "" {
		f.Only = strings.Split(*only, ",")
	}
	if err := f.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return f, nil
}

func runFloor(ctx context.Context, args []string, out, errs io.Writer) error {
	f, err := parseFloor(args, out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	f.Progress = func(format string, args ...any) { fmt.Fprintf(errs, "floor: "+format+"\n", args...) }
	r := &record{frame: newFrame(ctx, append([]string{"go", "run", "./bench", "floor"}, args...))}
	r.Outcome, err = floor.Run(ctx, f.Options)
	r.finish(err)

	write := r.table
	if f.json {
		write = r.objects
	}
	if len(r.Rows) > 0 {
		var failed error
		r.Output, failed = printed(out, write)
		err = errors.Join(err, failed)
	}
	return errors.Join(err, keep(f.out, "floor", r.Began, r, f.Progress))
}
