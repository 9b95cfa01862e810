package clock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/futurechat/future/router/clock"
)

func TestWait_WakesByEachOfItsCauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		never, full, closed := make(chan struct{}), make(chan struct{}, 1), make(chan struct{})
		full <- struct{}{}
		close(closed)
		ended, end := context.WithCancel(t.Context())
		end()
		clock.Real.Wait(t.Context(), time.Time{}, never, full)
		clock.Real.Wait(t.Context(), time.Time{}, nil, nil, closed)
		clock.Real.Wait(ended, time.Time{}, never)
		if took := time.Since(began); took != 0 {
			t.Fatalf("waited %v for what was there", took)
		}
		if len(full) != 0 {
			t.Fatal("what woke it was not taken")
		}
		clock.Real.Wait(t.Context(), began.Add(time.Second), never, full)
		if took := time.Since(began); took != time.Second {
			t.Fatalf("waited %v for a second", took)
		}
		if clock.Sleep(ended, clock.Real, time.Hour) || !clock.Sleep(t.Context(), clock.Real, time.Second) {
			t.Fatal("Sleep does not tell whether it was ended")
		}
	})
}

func TestEach_CallsEachOnceAndAtMostSoManyAtATime(t *testing.T) {
	var now, most, calls atomic.Int64
	third := errors.New("third")
	err := clock.Each(clock.Real, 20, 4, func(i int) error {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		calls.Add(1)
		if i == 3 {
			return third
		}
		return nil
	})
	if !errors.Is(err, third) || calls.Load() != 20 || most.Load() > 4 {
		t.Fatalf("%v after %d calls, %d at a time", err, calls.Load(), most.Load())
	}
}

func TestOffset_WaitsAsLongAsARightClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := clock.Offset(clock.Real, -3*time.Hour)
		if got := c.Now().Sub(began); got != -3*time.Hour {
			t.Fatalf("it is off by %v", got)
		}
		c.Wait(t.Context(), c.Now().Add(time.Second))
		if took := time.Since(began); took != time.Second {
			t.Fatalf("waited %v for a second", took)
		}
	})
}
