package load

import (
	"context"
	"testing"
	"time"
)

func TestSpread_NearestRank(t *testing.T) {
	var all []time.Duration
	for i := 200; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Millisecond)
	}
	if got, want := SpreadOf(all), (Spread{100, 180, 198, 200}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := SpreadOf(nil); got != (Spread{}) {
		t.Errorf("of nothing: %v", got)
	}
}

func plan() Plan {
	return Plan{Rate: 10, Warmup: time.Second, Duration: 2 * time.Second, Size: 100, Patience: time.Second}
}

func TestText_ReadBack_OnlyOfThisRun(t *testing.T) {
	r, other := newRun(plan(), nil), newRun(plan(), nil)
	for i := range 30 {
		text := r.text(i)
		if len(text) != 100 {
			t.Fatalf("%q has %d bytes", text, len(text))
		}
		if got, ok := r.number(text); !ok || got != i {
			t.Fatalf("%q: got %d, %v", text, got, ok)
		}
		if _, ok := other.number(text); ok {
			t.Fatalf("%q is taken for one of another run", text)
		}
	}
	if _, ok := r.number(r.text(30)); ok {
		t.Error("a number that was not sent is taken")
	}
}

func TestNote_MessageTwice_FailsTheRun(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	r := newRun(plan(), cancel)
	r.note(r.got, 3, time.Now())
	if ctx.Err() != nil {
		t.Fatal(context.Cause(ctx))
	}
	r.note(r.got, 3, time.Now())
	if ctx.Err() == nil {
		t.Error("the run goes on")
	}
}

func TestSince_WarmupLeftOut(t *testing.T) {
	r := newRun(plan(), nil)
	for i := range r.due {
		r.due[i].Store(int64(i))
		r.got[i].Store(int64(2 * i))
	}
	if got := r.since(r.got); len(got) != 20 || got[0] != 10 {
		t.Errorf("got %v", got)
	}
}
