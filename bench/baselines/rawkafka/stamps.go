package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// minSize leaves room for a record's number in its value.
const minSize = 12

// value is the record numbered i: its number, and filling.
func value(i, size int) []byte {
	return fmt.Appendf(make([]byte, 0, size), "%-*d", size, i)
}

func number(value []byte) (int, error) { return strconv.Atoi(strings.TrimRight(string(value), " ")) }

// stamps are the times of all records of a run, in nanoseconds since 1970; 0: not yet.
type stamps struct {
	warmup         int
	due, ack_, got []atomic.Int64
	missing        atomic.Int64 // acknowledgements and receipts that are still to come
	all            chan struct{}
}

func newStamps(warmup, counted int) *stamps {
	n := warmup + counted
	s := &stamps{
		warmup: warmup, due: make([]atomic.Int64, n), ack_: make([]atomic.Int64, n), got: make([]atomic.Int64, n),
		all: make(chan struct{}),
	}
	s.missing.Store(int64(2 * n))
	return s
}

func (s *stamps) acked(value []byte, at time.Time) error    { return s.set(s.ack_, value, at) }
func (s *stamps) received(value []byte, at time.Time) error { return s.set(s.got, value, at) }

// set notes the first time; a record that the log has twice counts once.
func (s *stamps) set(which []atomic.Int64, value []byte, at time.Time) error {
	i, err := number(value)
	if err != nil || i < 0 || i >= len(which) {
		return fmt.Errorf("record %q is none of ours", value)
	}
	if which[i].CompareAndSwap(0, at.UnixNano()) && s.missing.Add(-1) == 0 {
		close(s.all)
	}
	return nil
}

// wait waits until all have come. A record that is lost must not make the rest look good: it is an error.
func (s *stamps) wait(ctx context.Context, patience time.Duration) error {
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-s.all:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late.C:
		return fmt.Errorf("%d acknowledgements or records have not come within %v", s.missing.Load(), patience)
	}
}

func (s *stamps) e2e() []time.Duration { return s.since(s.got) }
func (s *stamps) ack() []time.Duration { return s.since(s.ack_) }

func (s *stamps) since(which []atomic.Int64) []time.Duration {
	var all []time.Duration
	for i := s.warmup; i < len(which); i++ {
		all = append(all, time.Duration(which[i].Load()-s.due[i].Load()))
	}
	return all
}

// Spread of latencies in milliseconds.
type Spread struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// spread takes percentiles by the nearest rank.
func spread(all []time.Duration) Spread {
	if len(all) == 0 {
		return Spread{}
	}
	slices.Sort(all)
	at := func(percent int) float64 {
		return float64(all[(len(all)*percent+99)/100-1]) / float64(time.Millisecond)
	}
	return Spread{at(50), at(90), at(99), at(100)}
}
