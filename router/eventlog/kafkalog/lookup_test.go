package kafkalog_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/eventlog/kafkalog"
)

func TestNew_WithoutABroker(t *testing.T) {
	n := newNetwork()
	n.refuse = true
	cluster := startFake(t, 1)
	log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs(), Dial: n.dial, Patience: 300 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := log.Topic(ctx, "t"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errCut) {
		t.Errorf("Topic: %v, want that time was up, and why", err)
	}
	if _, err := log.Topic(within(t), "t"); !errors.Is(err, eventlog.ErrUnavailable) {
		t.Errorf("Topic: %v, want ErrUnavailable", err)
	}
	a := newAnswers()
	a.append(t, log, "t", 0, "0", "1")
	if errs := a.wait(t, 2); !errors.Is(errs[0], eventlog.ErrUnavailable) || !errors.Is(errs[1], eventlog.ErrBehindFailed) {
		t.Errorf("Append: %v", errs)
	}
	// And then it comes.
	if err := cluster.CreateTopic("t", 1, nil); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	n.refuse = false
	n.mu.Unlock()
	for limit := within(t); ; { // patience is short here: it may take a few
		a := newAnswers()
		a.append(t, log, "t", 0, "2")
		err := a.wait(t, 1)[0]
		if err == nil {
			break
		}
		if !errors.Is(err, eventlog.ErrUnavailable) || limit.Err() != nil {
			t.Fatal(err)
		}
	}
	wantContents(t, log, "t", 0, "2")
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	for _, brokers := range [][]string{nil, {""}, {"host"}} {
		if log, err := kafkalog.New(kafkalog.Options{Brokers: brokers}); err == nil {
			t.Errorf("brokers %q: %v", brokers, log)
		}
	}
}

func TestReader_TopicMadeAnewIsTold(t *testing.T) {
	cluster := startFake(t, 1)
	log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs()})
	createTopic(t, log, "t", 1)
	r, err := log.Open(within(t), "t", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	poll, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Next(poll); !errors.Is(err, context.Canceled) { // so a fetch is under way
		t.Fatal(err)
	}
	unknown := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.UnknownTopicOrPartition, Count: -1})
	if err := cluster.DeleteTopic("t"); err != nil {
		t.Fatal(err)
	}
	if err := unknown.Wait(within(t), 1); err != nil {
		t.Fatal(err)
	}
	if err := cluster.CreateTopic("t", 1, nil); err != nil {
		t.Fatal(err)
	}
	unknown.Remove()
	if records, err := r.Next(within(t)); !errors.Is(err, eventlog.ErrOutOfRange) {
		t.Errorf("%v, %v, want ErrOutOfRange", records, err)
	}
}

// A poll with a context that has ended gives what is at hand.
func TestReader_Polls(t *testing.T) {
	cluster := startFake(t, 1)
	log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs(), MaxBatch: 3})
	createTopic(t, log, "t", 1)
	appendGood(t, log, "t", 0, numbered(0, 10)...)
	r, err := log.Open(within(t), "t", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	poll, cancel := context.WithCancel(t.Context())
	cancel()
	limit := within(t)
	for got := 0; got < 10; {
		records, err := r.Next(poll)
		if err != nil && !errors.Is(err, context.Canceled) || limit.Err() != nil {
			t.Fatal(err, limit.Err())
		}
		if len(records) > 3 {
			t.Fatalf("%d records at once", len(records))
		}
		got += len(records)
	}
}

func TestClose_EndsManyReadersAtOnce(t *testing.T) {
	cluster := startFake(t, 1)
	log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs()})
	const partitions = 64
	createTopic(t, log, "t", partitions)
	ended := make(chan error, partitions)
	for p := range int32(partitions) {
		r, err := log.Open(within(t), "t", p, 0)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := r.Next(context.WithoutCancel(t.Context()))
			ended <- err
		}()
	}
	began := time.Now()
	if err := log.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	for range partitions {
		if err := <-ended; !errors.Is(err, eventlog.ErrClosed) {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 700*time.Millisecond { // a fetch alone may wait for a second
		t.Errorf("took %v", took)
	}
	if err := log.Close(within(t)); err != nil {
		t.Errorf("again: %v", err)
	}
	for what, err := range map[string]error{
		"Topic":  second(log.Topic(within(t), "t")),
		"Open":   second(log.Open(within(t), "t", 0, 0)),
		"Commit": log.Commit(within(t), "g", "t", map[int32]int64{0: 0}),
	} {
		if !errors.Is(err, eventlog.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestMetrics(t *testing.T) {
	cluster := startFake(t, 1)
	registry := prometheus.NewPedanticRegistry()
	log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs(), Registerer: registry})
	if other, err := kafkalog.New(kafkalog.Options{Brokers: cluster.ListenAddrs(), Registerer: registry}); err == nil {
		t.Error("registered twice", other.Close(t.Context()))
	}
	createTopic(t, log, "t", 1)
	appendGood(t, log, "t", 0, numbered(0, 5)...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			got[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	if got["future_kafkalog_appends_total"] != 5 || got["future_kafkalog_append_seconds"] != 5 ||
		got["future_kafkalog_requests_total"] < 3 || got["future_kafkalog_pending_records"] != 0 {
		t.Errorf("got %v", got)
	}
	if err := log.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	if families, err := registry.Gather(); err != nil || len(families) > 0 {
		t.Errorf("after Close %v, %v", families, err)
	}
}
