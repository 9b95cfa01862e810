// Command rawkafka produces to a topic of its own at an open-loop rate and consumes from it, with kafka-go alone, and prints how
// long that took from the moment at which each record was meant to be sent, and what CPU it cost this process.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

type options struct {
	brokers                             []string
	topic                               string
	partitions, replication, minInSync  int
	keys                                []string
	rate, size                          int
	warmup, duration, patience, maxWait time.Duration
	produce, consume                    string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "rawkafka:", err)
		os.Exit(2)
	}
	result, err := run(ctx, o)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rawkafka:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("rawkafka", flag.ContinueOnError)
	brokers := fs.String("brokers", "127.0.0.1:9092", "Kafka brokers, separated by commas")
	keys := fs.String("keys", "a,b,c,d,e,f,g,h", "keys of the records, separated by commas; each has one partition, by FNV-1a as in Future")
	fs.StringVar(&o.topic, "topic", fmt.Sprintf("rawkafka-%d", os.Getpid()), "topic that is made for this run, and deleted")
	fs.IntVar(&o.partitions, "partitions", 16, "its partitions")
	fs.IntVar(&o.replication, "replication", 1, "its copies")
	fs.IntVar(&o.minInSync, "min-insync", 1, "copies that must have a record before it is acknowledged")
	fs.IntVar(&o.rate, "rate", 200, "records a second")
	fs.IntVar(&o.size, "size", 100, "bytes of a record's value")
	fs.DurationVar(&o.warmup, "warmup", 2*time.Second, "sent first and not counted")
	fs.DurationVar(&o.duration, "duration", 10*time.Second, "how long is counted")
	fs.DurationVar(&o.patience, "patience", 20*time.Second, "how long the last records are waited for")
	fs.DurationVar(&o.maxWait, "max-wait", 10*time.Second, "how long a fetch waits for a record")
	// The defaults are what was fastest: medians of 5 runs in turn at 200/s, one broker on the same 2 cores, end to end /
	// acknowledgement p50 in ms: client and fetch 1.00 / 0.94, writer and fetch 1.03 / 0.96, client and reader 1.04 / 0.97, writer
	// and reader 1.06 / 0.99; CPU-ms a message 0.53, 0.57, 0.46, 0.52.
	fs.StringVar(&o.produce, "produce", "client", "client: Client.Produce as soon as none is in flight for the partition, with all that wait; writer: Writer with the least BatchTimeout")
	fs.StringVar(&o.consume, "consume", "fetch", "fetch: Client.Fetch in a loop per partition; reader: a Reader per partition")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	o.brokers, o.keys = strings.Split(*brokers, ","), strings.Split(*keys, ",")
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.rate < 1 || o.size < minSize || o.partitions < 1 || o.duration <= 0 || o.warmup < 0:
		return nil, fmt.Errorf("rate, partitions and duration must be above 0, size at least %d", minSize)
	case o.produce != "client" && o.produce != "writer":
		return nil, fmt.Errorf("-produce %q: client or writer", o.produce)
	case o.consume != "reader" && o.consume != "fetch":
		return nil, fmt.Errorf("-consume %q: reader or fetch", o.consume)
	}
	return o, nil
}

// Result is what is printed.
type Result struct {
	Rate     int     `json:"rate"`
	Messages int     `json:"messages"`
	E2E      Spread  `json:"e2e_ms"`
	Ack      Spread  `json:"ack_ms"`
	CPU      float64 `json:"cpu_ms_per_message"`
	Produce  string  `json:"produce"`
	Consume  string  `json:"consume"`
}

// run measures once.
func run(ctx context.Context, o *options) (_ Result, err error) {
	k := newKafka(o)
	defer k.transport.CloseIdleConnections()
	if err := k.makeTopic(ctx); err != nil {
		return Result{}, err
	}
	defer func() {
		deleting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, k.deleteTopic(deleting))
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	warmup, counted := count(o.rate, o.warmup), count(o.rate, o.duration)
	s := newStamps(warmup, counted)
	var consumers sync.WaitGroup
	defer func() { // ends before the topic is deleted
		cancel(errDone)
		consumers.Wait()
	}()
	for p := range o.partitions {
		consumers.Go(func() {
			if err := k.consume(ctx, p, s.received); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	p := k.producer(ctx, s.acked, cancel)
	// Readers must have asked before the first record is due, or the start of the run would be measured. What comes after
	// is warmed up by records.
	if err := sleep(ctx, time.Second); err != nil {
		return Result{}, errors.Join(err, p.close())
	}
	began, err := drive(ctx, o, s, p)
	if err == nil {
		err = s.wait(ctx, o.patience)
	}
	used := cpu() - began
	if err := errors.Join(err, p.close()); err != nil {
		return Result{}, err
	}
	return Result{
		Rate: o.rate, Messages: counted, E2E: spread(s.e2e()), Ack: spread(s.ack()),
		CPU:     float64(used) / float64(time.Millisecond) / float64(counted),
		Produce: o.produce, Consume: o.consume,
	}, nil
}

var errDone = errors.New("done")

// drive sends records when they are due, however long the others take, and gives the CPU used when the counted ones began.
func drive(ctx context.Context, o *options, s *stamps, p producer) (began time.Duration, err error) {
	began = cpu()
	start := time.Now().Add(10 * time.Millisecond)
	for i := range s.due {
		if i == s.warmup {
			began = cpu()
		}
		due := start.Add(time.Duration(i) * time.Second / time.Duration(o.rate))
		if err := sleep(ctx, time.Until(due)); err != nil {
			return began, err
		}
		s.due[i].Store(due.UnixNano())
		if err := p.send(ctx, o.keys[i%len(o.keys)], value(i, o.size)); err != nil {
			return began, err
		}
	}
	return began, nil
}

func count(rate int, d time.Duration) int { return int(int64(rate) * int64(d) / int64(time.Second)) }

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// cpu is what this process has used, in user and system mode.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // only for a bad argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
