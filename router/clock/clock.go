// Package clock is time, waiting and goroutines as the roles of a server use them. A role whose loops wait through a Clock can be
// driven by one goroutine under simulated time (ops/simulation), with its real code. A process uses Real.
//
// It must stay this small: what a role waits for are its own channels, and what has happened it looks up by itself.
package clock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Clock is where a role has time and goroutines from. Its methods are safe for concurrent use.
type Clock interface {
	Now() time.Time
	// WithTimeout is context.WithTimeout by this clock.
	WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc)
	// Wait returns when one of wakes gives something, which is taken, or is closed; when it is until, unless that is zero; or when
	// ctx has ended. It may return for nothing: the caller looks what has happened. At most three wakes; nil ones never come.
	Wait(ctx context.Context, until time.Time, wakes ...<-chan struct{})
	// NewGroup gives a group of goroutines to be waited for.
	NewGroup() Group
}

// Group is goroutines that somebody waits for, as a sync.WaitGroup has them.
type Group interface {
	Go(f func())
	Wait()
}

// Real is the time of this machine.
var Real Clock = machine{}

type machine struct{}

func (machine) Now() time.Time { return time.Now() }

func (machine) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d)
}

func (machine) NewGroup() Group { return new(sync.WaitGroup) }

func (machine) Wait(ctx context.Context, until time.Time, wakes ...<-chan struct{}) {
	var due <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		due = t.C
	}
	var w [3]<-chan struct{}
	copy(w[:], wakes)
	select {
	case <-w[0]:
	case <-w[1]:
	case <-w[2]:
	case <-due:
	case <-ctx.Done():
	}
}

// Sleep waits for d; false if ctx ended before.
func Sleep(ctx context.Context, c Clock, d time.Duration) bool {
	for until := c.Now().Add(d); ctx.Err() == nil; c.Wait(ctx, until) {
		if !c.Now().Before(until) {
			return true
		}
	}
	return false
}

// Each calls do for 0 to n-1, at most atOnce at a time, waits for all, and joins their errors.
func Each(c Clock, n, atOnce int, do func(i int) error) error {
	if n <= 0 {
		return nil
	}
	var next atomic.Int64
	failed := make([]error, n)
	group := c.NewGroup()
	for range min(n, atOnce) {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				failed[i] = do(int(i))
			}
		})
	}
	group.Wait()
	return errors.Join(failed...)
}

// Closed reports whether a channel that nothing is sent on was closed.
func Closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Offset is a clock that shows another time of day than c: a host whose clock is wrong.
func Offset(c Clock, by time.Duration) Clock { return offset{c, by} }

type offset struct {
	Clock
	by time.Duration
}

func (o offset) Now() time.Time { return o.Clock.Now().Add(o.by) }

func (o offset) Wait(ctx context.Context, until time.Time, wakes ...<-chan struct{}) {
	if !until.IsZero() {
		until = until.Add(-o.by)
	}
	o.Clock.Wait(ctx, until, wakes...)
}
