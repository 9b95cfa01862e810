// Command measure prints the figures of README's table "When something goes": see `go run ./ops/e2e/measure -h`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"github.com/futurechat/future/ops/clustertest"
)

const usage = `measure prints how long the parts of a cluster stand still for a fault, done and undone over and over: the figures of README's
table "When something goes". What becomes of each message, and whether that is good enough, is what bench faults judges.

  go run ./ops/e2e/measure [FLAGS] COMMAND

  handover   routers killed, paused, cut off, stopped, added: how long their partitions' messages wait
  node       nodes killed, paused, cut off: how long others' messages wait
  presence   the same, and Redis emptied: how long who is gone is shown online, and who is there is not
  idle       nothing: what a cluster costs in which nothing is said
  redis      Redis emptied, and away for -absent: how long until all are registered again, and that nothing else has changed

The cluster is of real processes, on the servers that FUTURE_TEST_KAFKA, FUTURE_TEST_REDIS and FUTURE_TEST_MYSQL name, or else on embedded
ones: good to see that it runs. handover, node and presence drop packets between network namespaces, which needs Linux and root.

Flags:
`

// settings are the command's flags.
type settings struct {
	rounds     int
	partitions int
	sessions   int
	length     time.Duration
	absent     time.Duration
	only       string
	out        io.Writer
}

var commands = map[string]func(context.Context, settings) error{
	"handover": handover,
	"node":     nodes,
	"presence": presence,
	"idle":     idle,
	"redis":    redisLost,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	s := settings{out: os.Stdout}
	record := flag.String("record", "", "`file` to write what is printed to as well")
	flag.IntVar(&s.rounds, "rounds", 10, "how often each fault is done, by handover, node and presence")
	flag.IntVar(&s.partitions, "partitions", 16, "partitions of the message log")
	flag.IntVar(&s.sessions, "sessions", 9000, "sessions that are live meanwhile, in idle and redis")
	flag.DurationVar(&s.length, "length", time.Minute, "how long idle looks")
	flag.DurationVar(&s.absent, "absent", 30*time.Second, "how long Redis is away, in redis")
	flag.StringVar(&s.only, "only", "", "do only the faults whose name contains this `text`, as SIGSTOP")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	command, ok := commands[flag.Arg(0)]
	if !ok || flag.NArg() != 1 {
		flag.Usage()
		return errors.New("one command is wanted")
	}
	if *record != "" {
		f, err := os.Create(*record)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		s.out = io.MultiWriter(os.Stdout, f)
	}
	s.head(ctx)
	return command(ctx, s)
}

func (s settings) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

func (s settings) head(ctx context.Context) {
	commit := "unknown"
	if out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(out))
	}
	s.say("command: measure %s", strings.Join(os.Args[1:], " "))
	s.say("date: %s", time.Now().UTC().Format(time.RFC3339))
	s.say("commit: %s", commit)
	model, mem := "", ""
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		model = field(string(b), "model name")
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		mem = field(string(b), "MemTotal")
	}
	s.say("machine: %d CPUs %s, %s, %s %s", runtime.NumCPU(), model, mem, runtime.GOOS, runtime.Version())
}

func field(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// start starts a cluster that ends with the command.
func (s settings) start(ctx context.Context, o clustertest.Options) (*clustertest.Cluster, func(), error) {
	dir, err := os.MkdirTemp("", "future-measure-")
	if err != nil {
		return nil, nil, err
	}
	o.Dir, o.Partitions = dir, s.partitions
	c, err := clustertest.Start(ctx, o)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	servers := "embedded Kafka and Redis, SQLite"
	if c.Real {
		servers = fmt.Sprintf("real Kafka (%d brokers), Redis, MariaDB", 1+strings.Count(c.Kafka, ","))
	}
	s.say("servers: %s; %d partitions", servers, s.partitions)
	return c, func() {
		const patience = time.Minute
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if err := errors.Join(c.Stop(stopping), os.RemoveAll(dir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}, nil
}
