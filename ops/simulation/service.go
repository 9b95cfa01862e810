package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// service is a server that processes call over the network: the database, Redis, the log's brokers.
type service struct {
	w    *world
	name string
	rng  *rand.Rand
	// away is what a call fails with that was surely not carried out, lost one of unknown outcome.
	away, lost error
	// usual is about how long a message takes one way.
	usual time.Duration

	// By faults: how many of each hold now.
	refuses, silent, slow int
	// flaky is how often a call fails, in 1/1000: half of them before it is carried out, half of them its answer.
	flaky int
}

// patience is how long a port waits for an answer, if its caller does not say less.
const patience = 5 * time.Second

// latency draws how long a message takes one way: rarely long.
func (s *service) latency() time.Duration {
	d := s.usual/2 + time.Duration(s.rng.Int64N(int64(s.usual)))
	if s.rng.IntN(50) == 0 {
		d *= 20
	}
	if s.slow > 0 {
		d *= 100
	}
	return d
}

// answer is that of a call.
type answer[T any] struct {
	done  bool
	value T
	err   error
}

// call has a service do something for the running task of a process. What the service did it did, whether its answer arrives
// or not, also if the process is gone or stopped meanwhile.
func call[T any](ctx context.Context, p *proc, s *service, op string, do func() (T, error)) (T, error) {
	w := p.w
	var a answer[T]
	out, back, fate := s.latency(), s.latency(), s.rng.IntN(1000)
	until := w.now + patience
	fails := func(err error) { a.done, a.err = true, fmt.Errorf("%w: %s %s", err, s.name, op) }
	arrive := func() {
		if s.refuses > 0 {
			w.after(back, func() { fails(s.away); p.touch() })
			return
		}
		value, err := do()
		if s.silent > 0 || p.cuts[s]&cutAnswers != 0 || fate < s.flaky/2 {
			w.count("answers lost by " + s.name)
			w.tracef("%s %s %s: done, its answer is lost", p.name, s.name, op)
			w.at(until, p.touch)
			return
		}
		w.after(back, func() { a.done, a.value, a.err = true, value, err; p.touch() })
	}
	switch {
	case s.refuses > 0 || fate >= s.flaky/2 && fate < s.flaky:
		w.count("calls refused by " + s.name)
		w.after(out+back, func() { fails(s.away); p.touch() })
	case s.silent > 0 || p.cuts[s]&cutRequests != 0:
		w.count("requests lost to " + s.name)
		w.at(until, p.touch)
	default:
		w.after(out, arrive)
	}
	p.blockUntil(ctx, func() bool { return a.done || w.now >= until })
	if !a.done {
		fails(s.lost)
	}
	if a.err != nil {
		w.tracef("%s %s %s: %v", p.name, s.name, op, a.err)
	}
	return a.value, a.err
}

// do is call for what gives nothing.
func do(ctx context.Context, p *proc, s *service, op string, f func() error) error {
	_, err := call(ctx, p, s, op, func() (struct{}, error) { return struct{}{}, f() })
	return err
}
