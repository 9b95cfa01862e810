package kafkalog_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/eventlog/eventlogtest"
	"github.com/futurechat/future/router/eventlog/kafkalog"
)

// startFake starts a cluster that faults can be put into.
func startFake(t *testing.T, brokers int) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(brokers))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), eventlogtest.Wait)
	t.Cleanup(cancel)
	return ctx
}

func createTopic(t *testing.T, log *kafkalog.Log, name string, partitions int) {
	t.Helper()
	spec := eventlog.TopicSpec{Name: name, Partitions: partitions, Replication: 1, MinInSync: 1}
	if err := log.CreateTopic(within(t), spec); err != nil {
		t.Fatal(err)
	}
}

// answers are what done was called with, in that order.
type answers struct {
	mu   sync.Mutex
	errs []error
	more chan struct{}
}

func newAnswers() *answers { return &answers{more: make(chan struct{}, 1)} }

func (a *answers) done(_ eventlog.Appended, err error) {
	a.mu.Lock()
	a.errs = append(a.errs, err)
	a.mu.Unlock()
	select {
	case a.more <- struct{}{}:
	default:
	}
}

func (a *answers) wait(t *testing.T, n int) []error {
	t.Helper()
	ctx := within(t)
	for {
		a.mu.Lock()
		errs := slices.Clone(a.errs)
		a.mu.Unlock()
		if len(errs) == n {
			return errs
		}
		select {
		case <-a.more:
		case <-ctx.Done():
			t.Fatalf("%d answers, want %d", len(errs), n)
		}
	}
}

// append appends values. The log may refuse the first while done calls of a failure have not all returned.
func (a *answers) append(t *testing.T, log *kafkalog.Log, topic string, partition int32, values ...string) {
	t.Helper()
	limit := within(t)
	for i, v := range values {
		err := eventlog.ErrBehindFailed
		for err != nil {
			err = log.Append(eventlog.Entry{Topic: topic, Partition: partition, Value: []byte(v)}, a.done)
			if err != nil && (i > 0 || !errors.Is(err, eventlog.ErrBehindFailed) || limit.Err() != nil) {
				t.Fatal(err)
			}
			runtime.Gosched()
		}
	}
}

// appendGood appends values and waits until they are written.
func appendGood(t *testing.T, log *kafkalog.Log, topic string, partition int32, values ...string) {
	t.Helper()
	a := newAnswers()
	a.append(t, log, topic, partition, values...)
	for i, err := range a.wait(t, len(values)) {
		if err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
}

// contents are all values of a partition.
func contents(t *testing.T, log *kafkalog.Log, topic string, partition int32) (values []string) {
	t.Helper()
	start, end, err := log.Bounds(within(t), topic, partition)
	if err != nil {
		t.Fatal(err)
	}
	r, err := log.Open(within(t), topic, partition, start)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for int64(len(values)) < end-start {
		records, err := r.Next(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range records {
			values = append(values, string(rec.Value))
		}
	}
	return values
}

func wantContents(t *testing.T, log *kafkalog.Log, topic string, partition int32, want ...string) {
	t.Helper()
	if got := contents(t, log, topic, partition); !slices.Equal(got, want) {
		t.Fatalf("log holds %.200q, want %.200q", got, want)
	}
}

func numbered(from, to int) (values []string) {
	for i := from; i < to; i++ {
		values = append(values, fmt.Sprint(i))
	}
	return values
}

// What the broker answers for a while, and what comes of it. Each record must be there once, and in order.
func TestAppend_OutlastsWhatTheBrokerAnswers(t *testing.T) {
	for _, c := range []struct {
		err   *kerr.Error
		count int
	}{
		{kerr.NotEnoughReplicas, 4},
		{kerr.NotLeaderForPartition, 3},
		{kerr.CorruptMessage, 1},
		{kerr.RequestTimedOut, 3}, // and has written it all the same
		{kerr.NotEnoughReplicasAfterAppend, 2},
		{kerr.OutOfOrderSequenceNumber, 1},
		{kerr.UnknownProducerID, 1},
		{kerr.InvalidProducerEpoch, 1},
		{kerr.UnknownServerError, 2},
	} {
		t.Run(c.err.Message, func(t *testing.T) {
			cluster := startFake(t, 1)
			log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs()})
			createTopic(t, log, "t", 1)
			appendGood(t, log, "t", 0, numbered(0, 3)...)
			faults := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: c.err, Count: c.count})
			appendGood(t, log, "t", 0, numbered(3, 10)...)
			if hits := faults.Hits(); hits != c.count {
				t.Fatalf("%d faults hit, want %d", hits, c.count)
			}
			appendGood(t, log, "t", 0, numbered(10, 12)...)
			wantContents(t, log, "t", 0, numbered(0, 12)...)
		})
	}
}

func TestAppend_FailsWithWhatIsTrue(t *testing.T) {
	const patience = 300 * time.Millisecond
	for _, c := range []struct {
		name   string
		faults []kfake.Fault
		want   error
		stays  bool // the record is in the log
	}{
		{"refused for too long", []kfake.Fault{{Err: kerr.NotEnoughReplicas, Count: -1}}, eventlog.ErrUnavailable, false},
		{"not allowed", []kfake.Fault{{Err: kerr.TopicAuthorizationFailed, Count: -1}}, eventlog.ErrUnavailable, false},
		{"too large for the broker", []kfake.Fault{{Err: kerr.MessageTooLarge, Count: -1}}, eventlog.ErrTooLarge, false},
		{"written, never told", []kfake.Fault{{Err: kerr.RequestTimedOut, Count: -1}}, eventlog.ErrUnknownOutcome, true},
		{"perhaps written, then refused", []kfake.Fault{
			{Err: kerr.RequestTimedOut}, {Err: kerr.NotEnoughReplicas, Count: -1},
		}, eventlog.ErrUnknownOutcome, true},
		{"perhaps written, then the sequence is lost", []kfake.Fault{
			{Err: kerr.RequestTimedOut}, {Err: kerr.OutOfOrderSequenceNumber, Count: -1},
		}, eventlog.ErrUnknownOutcome, true},
		{"perhaps written, then the sequence is lost once", []kfake.Fault{
			{Err: kerr.RequestTimedOut}, {Err: kerr.OutOfOrderSequenceNumber},
		}, eventlog.ErrUnknownOutcome, true},
		{"written before, not where", []kfake.Fault{{Err: kerr.DuplicateSequenceNumber, Count: -1}}, eventlog.ErrUnknownOutcome, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := startFake(t, 1)
			log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs(), Patience: patience})
			createTopic(t, log, "t", 1)
			appendGood(t, log, "t", 0, "before")
			for i := range c.faults {
				c.faults[i].Keys = []kmsg.Key{kmsg.Produce}
			}
			faults := cluster.Fault(c.faults...)
			a := newAnswers()
			a.append(t, log, "t", 0, "failed")
			err := a.wait(t, 1)[0]
			faults.Remove()
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			appendGood(t, log, "t", 0, "after")
			want := []string{"before", "after"}
			if c.stays {
				want = []string{"before", "failed", "after"}
			}
			wantContents(t, log, "t", 0, want...)
		})
	}
}

// A request that the client gave up is still under way, and newer records are written before it arrives. The broker must refuse
// it, or the order would be lost.
func TestAppend_LateRequestNeverComesBehind(t *testing.T) {
	onEachCluster(t, func(t *testing.T, brokers []string) {
		n := newNetwork()
		t.Cleanup(n.close)
		log := newLog(t, kafkalog.Options{Brokers: brokers, Dial: n.dial, Patience: 200 * time.Millisecond})
		topic := fmt.Sprintf("late-%d", time.Now().UnixNano())
		createTopic(t, log, topic, 1)
		appendGood(t, log, topic, 0, "before")
		n.stall()
		a := newAnswers()
		a.append(t, log, topic, 0, "late")
		if err := a.wait(t, 1)[0]; !errors.Is(err, eventlog.ErrUnknownOutcome) {
			t.Fatalf("got %v, want ErrUnknownOutcome", err)
		}
		n.pass()
		appendGood(t, log, topic, 0, "after")
		n.resume()
		n.flushes.Wait()
		appendGood(t, log, topic, 0, "later")
		wantContents(t, log, topic, 0, "before", "after", "later")
	})
}

func TestAppend_WhatTheTopicFindsTooLargeIsSplit(t *testing.T) {
	cluster := startFake(t, 1)
	limit := "1000"
	if err := cluster.CreateTopic("t", 1, map[string]string{"max.message.bytes": limit}); err != nil {
		t.Fatal(err)
	}
	n := newNetwork()
	t.Cleanup(n.close)
	log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs(), Dial: n.dial})
	appendGood(t, log, "t", 0, "0")
	var values []string
	for i := range 50 {
		values = append(values, fmt.Sprint(i, strings.Repeat("x", 200)))
	}
	n.stall() // so that all but the first are one batch
	a := newAnswers()
	a.append(t, log, "t", 0, values[0])
	n.waitStalled(t)
	a.append(t, log, "t", 0, values[1:]...)
	n.resume()
	for i, err := range a.wait(t, len(values)) {
		if err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
	}
	wantContents(t, log, "t", 0, append([]string{"0"}, values...)...)

	n.stall()
	a = newAnswers()
	a.append(t, log, "t", 0, "small", strings.Repeat("x", 2000), "behind")
	n.resume()
	errs := a.wait(t, 3)
	if errs[0] != nil || !errors.Is(errs[1], eventlog.ErrTooLarge) || !errors.Is(errs[2], eventlog.ErrBehindFailed) {
		t.Fatalf("got %v", errs)
	}
}

// What waits while all workers of a broker are busy goes in one request, however many partitions it is for.
func TestAppend_OneRequestForAllPartitions(t *testing.T) {
	cluster := startFake(t, 1)
	n := newNetwork()
	t.Cleanup(n.close)
	log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs(), Dial: n.dial})
	const partitions = 40
	createTopic(t, log, "t", partitions)
	for p := range int32(partitions) {
		appendGood(t, log, "t", p, "0")
	}
	var mu sync.Mutex
	var sizes []int
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		if r, ok := req.(*kmsg.ProduceRequest); ok {
			sizes = append(sizes, len(r.Topics[0].Partitions))
		}
		return nil, nil, false
	})
	n.stall()
	a := newAnswers()
	for p := range int32(partitions) {
		a.append(t, log, "t", p, "1", "2")
	}
	n.resume()
	for _, err := range a.wait(t, 2*partitions) {
		if err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	// Four workers, the rest in one or, when the four do not end at once, a few.
	if len(sizes) > 12 || slices.Max(sizes) < partitions/4 {
		t.Errorf("requests for %v partitions", sizes)
	}
}

// Nothing is acknowledged before all in-sync replicas have it: the broker holds back its answer for them only if it is asked to.
func TestI1_EveryProduceWaitsForAllInSyncReplicas(t *testing.T) {
	cluster := startFake(t, 3)
	log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs()})
	const partitions = 8
	createTopic(t, log, "t", partitions)
	var mu sync.Mutex
	var acks []int16
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		if r, ok := req.(*kmsg.ProduceRequest); ok {
			acks = append(acks, r.Acks)
		}
		return nil, nil, false
	})
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: 1}) // what is tried again asks, too
	for p := range int32(partitions) {
		appendGood(t, log, "t", p, "0", "1")
	}
	mu.Lock()
	defer mu.Unlock()
	const all = -1
	if len(acks) == 0 || slices.ContainsFunc(acks, func(a int16) bool { return a != all }) {
		t.Errorf("requests had acks %v, want only %d", acks, all)
	}
}

func TestAppend_DoneMayAppend(t *testing.T) {
	cluster := startFake(t, 1)
	log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs(), MaxRecords: 1})
	createTopic(t, log, "t", 1)
	a := newAnswers()
	var next func(i int)
	next = func(i int) {
		err := log.Append(eventlog.Entry{Topic: "t", Value: fmt.Append(nil, i)}, func(at eventlog.Appended, err error) {
			a.done(at, err)
			if i < 9 && err == nil {
				next(i + 1)
			}
		})
		if err != nil {
			a.done(eventlog.Appended{}, err)
		}
	}
	next(0)
	for _, err := range a.wait(t, 10) {
		if err != nil {
			t.Fatal(err)
		}
	}
	wantContents(t, log, "t", 0, numbered(0, 10)...)
}

// Leaders move all the time while records are written and read.
func TestLog_FollowsLeaders(t *testing.T) {
	cluster := startFake(t, 3)
	log := newLog(t, kafkalog.Options{Brokers: cluster.ListenAddrs()})
	createTopic(t, log, "t", 1)
	r, err := log.Open(within(t), "t", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	const rounds, each = 12, 20
	read := 0
	for i := range rounds {
		if err := cluster.MoveTopicPartition("t", 0, int32(i%3)); err != nil {
			t.Fatal(err)
		}
		appendGood(t, log, "t", 0, numbered(i*each, (i+1)*each)...)
		for read < (i+1)*each {
			records, err := r.Next(within(t))
			if err != nil {
				t.Fatal(err)
			}
			for _, rec := range records {
				if string(rec.Value) != fmt.Sprint(read) {
					t.Fatalf("read %q, want %d", rec.Value, read)
				}
				read++
			}
		}
	}
	wantContents(t, log, "t", 0, numbered(0, rounds*each)...)
}
