// Command measure prints how long the cluster's parts stand still for each fault, as README states it: real processes, messages
// flowing, the fault done and undone, over and over.
//
//	go run ./ops/e2e/measure handover       routers killed, paused, cut off, stopped, added
//	go run ./ops/e2e/measure node           nodes killed, paused, cut off: how long others' messages wait
//	go run ./ops/e2e/measure presence       how long who is gone is shown, and who is there is not
//	go run ./ops/e2e/measure idle           what a cluster costs in which nothing is said
//	go run ./ops/e2e/measure redis          what comes of losing Redis
//
// It runs on the real servers that FUTURE_TEST_KAFKA, FUTURE_TEST_REDIS and FUTURE_TEST_MYSQL name, or else on embedded ones.
// What is cut off needs root (see clustertest.Host). With -record FILE all that is printed goes into the file as well, under the
// commit, the machine and the command.
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
	record := flag.String("record", "", "file to write what is printed to, too")
	flag.IntVar(&s.rounds, "rounds", 10, "how often each fault is done")
	flag.IntVar(&s.partitions, "partitions", 16, "partitions of the message log")
	flag.IntVar(&s.sessions, "sessions", 9000, "sessions that are held")
	flag.DurationVar(&s.length, "length", time.Minute, "how long idleness is looked at")
	flag.DurationVar(&s.absent, "absent", 30*time.Second, "how long Redis is away")
	flag.StringVar(&s.only, "only", "", "do only the faults whose name contains this")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "measure [flags] handover|node|presence|idle|redis")
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
