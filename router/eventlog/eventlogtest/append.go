package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/futurechat/future/router/eventlog"
)

func (s suite) order(t *testing.T) {
	log := s.newLog(t, Tune{}).Log
	const partitions, each = 3, 200
	topic := newTopic(t, log, partitions)
	a := newAcks()
	for i := range partitions * each {
		must(t, log.Append(entry(topic, int32(i%partitions), fmt.Sprint(i/partitions)), a.done(i)))
	}
	times := make(map[int32][]time.Time)
	for _, k := range a.waitGood(t, partitions*each) {
		want := int64(k.id / partitions)
		if k.Partition != int32(k.id%partitions) || k.Offset != want || int64(len(times[k.Partition])) != want {
			t.Fatalf("append %d answered as number %d with %d/%d", k.id, len(times[k.Partition]), k.Partition, k.Offset)
		}
		times[k.Partition] = append(times[k.Partition], k.Time)
	}
	for p := range int32(partitions) {
		records := read(t, log, topic, p, 0, each)
		wantValues(t, records, numbered(0, each))
		for i, r := range records {
			if !r.Time.Equal(times[p][i]) || r.Time.IsZero() {
				t.Fatalf("record %d/%d read with time %v, answered with %v", p, i, r.Time, times[p][i])
			}
		}
	}
}

func (s suite) concurrent(t *testing.T) {
	log := s.newLog(t, Tune{}).Log
	const appenders, each, partitions = 8, 150, 2
	topic := newTopic(t, log, partitions)
	a := newAcks()
	var wg sync.WaitGroup
	for w := range appenders {
		wg.Go(func() {
			for i := range each {
				if err := log.Append(entry(topic, int32(i%partitions), fmt.Sprintf("%d:%d", w, i)), a.done(w)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	a.waitGood(t, appenders*each)
	for p := range partitions {
		next := make(map[int]int)
		for _, r := range read(t, log, topic, int32(p), 0, appenders*each/partitions) {
			var w, i int
			if _, err := fmt.Sscanf(string(r.Value), "%d:%d", &w, &i); err != nil {
				t.Fatal(err)
			}
			if want := next[w]*partitions + p; i != want {
				t.Fatalf("partition %d: appender %d wrote %d where %d was due", p, w, i, want)
			}
			next[w]++
		}
	}
}

func (s suite) big(t *testing.T) {
	fx := s.newLog(t, Tune{})
	topic := newTopic(t, fx.Log, 1)
	var values []string
	for i := range 3000 {
		values = append(values, fmt.Sprintf("%d %s", i, strings.Repeat("x", 300)))
	}
	for i := range 8 {
		values = append(values, fmt.Sprintf("%d %s", i, strings.Repeat("y", fx.MaxRecordBytes-200)))
	}
	appendAll(t, fx.Log, topic, 0, values...)
	wantValues(t, read(t, fx.Log, topic, 0, 0, len(values)), values)
}

func (s suite) tooLarge(t *testing.T) {
	fx := s.newLog(t, Tune{})
	topic := newTopic(t, fx.Log, 1)
	err := fx.Log.Append(entry(topic, 0, strings.Repeat("x", fx.MaxRecordBytes)), func(eventlog.Appended, error) {
		t.Error("done called for a refused append")
	})
	if !errors.Is(err, eventlog.ErrTooLarge) {
		t.Fatalf("got %v, want ErrTooLarge", err)
	}
	appendAll(t, fx.Log, topic, 0, "after")
	wantValues(t, read(t, fx.Log, topic, 0, 0, 1), []string{"after"})
}

func (s suite) contents(t *testing.T) {
	log := s.newLog(t, Tune{}).Log
	topic := newTopic(t, log, 1)
	entries := []eventlog.Entry{
		{Topic: topic, Value: []byte("no key")},
		{Topic: topic, Key: []byte("no value")},
		{Topic: topic, Key: []byte{}, Value: []byte{}},
		{Topic: topic, Key: []byte{0, 255}, Value: []byte("v"), Headers: []eventlog.Header{{Key: "a", Value: []byte("1")}, {Key: "b"}, {Key: "", Value: []byte{}}}},
	}
	a := newAcks()
	for i, e := range entries {
		must(t, log.Append(e, a.done(i)))
	}
	a.waitGood(t, len(entries))
	for i, r := range read(t, log, topic, 0, 0, len(entries)) {
		e := entries[i]
		if show(r.Key) != show(e.Key) || show(r.Value) != show(e.Value) || len(r.Headers) != len(e.Headers) {
			t.Fatalf("record %d: %s %s %v, want %s %s %v", i, show(r.Key), show(r.Value), r.Headers, show(e.Key), show(e.Value), e.Headers)
		}
		for j, h := range r.Headers {
			if h.Key != e.Headers[j].Key || show(h.Value) != show(e.Headers[j].Value) {
				t.Fatalf("record %d header %d: %v, want %v", i, j, h, e.Headers[j])
			}
		}
	}
}

// show tells nil from empty.
func show(b []byte) string {
	if b == nil {
		return "nil"
	}
	return fmt.Sprintf("%q", b)
}

func (s suite) backlog(t *testing.T) {
	const bound = 10
	fx := s.newLog(t, Tune{MaxRecords: bound})
	topic := newTopic(t, fx.Log, 2)
	appendAll(t, fx.Log, topic, 0, "0")
	fx.Stall()
	a := newAcks()
	for i := range bound {
		must(t, fx.Log.Append(entry(topic, 0, fmt.Sprint(i+1)), a.done(i)))
	}
	for p := range int32(2) {
		if err := fx.Log.Append(entry(topic, p, "over"), a.done(-1)); !errors.Is(err, eventlog.ErrBacklog) {
			t.Fatalf("append over the bound: %v, want ErrBacklog", err)
		}
	}
	fx.Resume()
	a.waitGood(t, bound)
	appendAll(t, fx.Log, topic, 0, numbered(bound+1, 2*bound)...)
	wantValues(t, read(t, fx.Log, topic, 0, 0, 2*bound), numbered(0, 2*bound))
}

func (s suite) closeWaits(t *testing.T) {
	log := s.newLog(t, Tune{}).Log
	topic := newTopic(t, log, 2)
	a := newAcks()
	for i := range 100 {
		must(t, log.Append(entry(topic, int32(i%2), "v"), a.done(i)))
	}
	must(t, log.Close(ctxFor(t)))
	a.waitGood(t, 100)
	if err := log.Append(entry(topic, 0, "v"), a.done(100)); !errors.Is(err, eventlog.ErrClosed) {
		t.Fatalf("append after Close: %v, want ErrClosed", err)
	}
}

func (s suite) closePending(t *testing.T) {
	fx := s.newLog(t, Tune{})
	topic := newTopic(t, fx.Log, 1)
	appendAll(t, fx.Log, topic, 0, "0")
	reader, err := fx.Log.Open(ctxFor(t), topic, 0, 1)
	must(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := reader.Next(context.WithoutCancel(t.Context()))
		ended <- err
	}()
	fx.Stall()
	a := newAcks()
	for i := range 5 {
		must(t, fx.Log.Append(entry(topic, 0, fmt.Sprint(i+1)), a.done(i)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := fx.Log.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Close gave %v, want that it could not wait", err)
	}
	for i, k := range a.wait(t, 5) {
		if k.id != i || k.err == nil {
			t.Fatalf("answer %d is of append %d: %v", i, k.id, k.err)
		}
	}
	if err := <-ended; !errors.Is(err, eventlog.ErrClosed) {
		t.Fatalf("reader of a closed log got %v, want ErrClosed", err)
	}
	fx.Resume()
}

func (s suite) failure(t *testing.T) {
	fx := s.newLog(t, Tune{Patience: 500 * time.Millisecond})
	topic := newTopic(t, fx.Log, 2)
	appendAll(t, fx.Log, topic, 0, "before")
	fx.Stall()
	a := newAcks()
	for i := range 10 {
		must(t, fx.Log.Append(entry(topic, 0, fmt.Sprintf("failed %d", i)), a.done(i)))
		if i == 0 && fx.Stalled != nil {
			fx.Stalled(t)
		}
	}
	fx.FailStalled()
	failed := a.wait(t, 10)
	fx.Resume()
	behind, unknown := 0, 0
	for i, k := range failed {
		switch {
		case k.id != i:
			t.Fatalf("answer %d is of append %d", i, k.id)
		case errors.Is(k.err, eventlog.ErrBehindFailed):
			behind++
		case behind > 0 || !errors.Is(k.err, eventlog.ErrUnknownOutcome) && !errors.Is(k.err, eventlog.ErrUnavailable):
			t.Fatalf("append %d: %v", i, k.err)
		case errors.Is(k.err, eventlog.ErrUnknownOutcome):
			unknown++
		}
	}
	if behind == 0 {
		t.Fatal("nothing failed for being behind")
	}
	appendAfterFailure(t, fx.Log, topic, 0, "after 0", "after 1")
	start, end, err := fx.Log.Bounds(ctxFor(t), topic, 0)
	must(t, err)
	var kept []string
	for _, r := range read(t, fx.Log, topic, 0, start, int(end-start)) {
		kept = append(kept, string(r.Value))
	}
	// What failed as unknown may be there, but only in its place.
	want := []string{"before"}
	for i := range min(unknown, max(0, len(kept)-3)) {
		want = append(want, fmt.Sprintf("failed %d", i))
	}
	if want = append(want, "after 0", "after 1"); !slices.Equal(kept, want) {
		t.Fatalf("log holds %q, want %q", kept, want)
	}
}

func (s suite) cut(t *testing.T) {
	fx := s.newLog(t, Tune{})
	if fx.CutNext == nil {
		return // nothing to cut
	}
	topic := newTopic(t, fx.Log, 3)
	const rounds, burst = 8, 20
	a := newAcks()
	for i := range rounds {
		fx.CutNext()
		for j := range burst {
			n := i*burst + j
			must(t, fx.Log.Append(entry(topic, int32(n%2), fmt.Sprint(n)), a.done(n)))
		}
		a.waitGood(t, (i+1)*burst)
	}
	for p := range 2 {
		var want []string
		for n := p; n < rounds*burst; n += 2 {
			want = append(want, fmt.Sprint(n))
		}
		wantEnd(t, fx.Log, topic, int32(p), int64(len(want)))
		wantValues(t, read(t, fx.Log, topic, int32(p), 0, len(want)), want)
	}
}
