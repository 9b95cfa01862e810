package eventlogtest

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/futurechat/future/router/eventlog"
)

func (s suite) bounds(t *testing.T) {
	fx := s.newLog(t, Tune{})
	topic := newTopic(t, fx.Log, 2)
	check := func(partition int32, wantStart, wantEnd int64) {
		t.Helper()
		start, end, err := fx.Log.Bounds(ctxFor(t), topic, partition)
		must(t, err)
		if start != wantStart || end != wantEnd {
			t.Fatalf("partition %d: bounds %d, %d, want %d, %d", partition, start, end, wantStart, wantEnd)
		}
	}
	check(0, 0, 0)
	appendAll(t, fx.Log, topic, 1, numbered(0, 10)...)
	check(0, 0, 0)
	check(1, 0, 10)
	fx.Trim(t, topic, 1, 4)
	check(1, 4, 10)
}

func (s suite) outOfRange(t *testing.T) {
	fx := s.newLog(t, Tune{})
	topic := newTopic(t, fx.Log, 1)
	refused := func(from int64) {
		t.Helper()
		if _, err := fx.Log.Open(ctxFor(t), topic, 0, from); !errors.Is(err, eventlog.ErrOutOfRange) {
			t.Fatalf("Open at %d: %v, want ErrOutOfRange", from, err)
		}
	}
	refused(-1)
	refused(1)
	appendAll(t, fx.Log, topic, 0, numbered(0, 10)...)
	refused(11)
	fx.Trim(t, topic, 0, 4)
	refused(3)
	refused(0)
	wantValues(t, read(t, fx.Log, topic, 0, 4, 6), numbered(4, 10))
	r, err := fx.Log.Open(ctxFor(t), topic, 0, 10)
	must(t, err)
	must(t, r.Close())
}

func (s suite) trimmedUnderReader(t *testing.T) {
	fx := s.newLog(t, Tune{})
	topic := newTopic(t, fx.Log, 1)
	appendAll(t, fx.Log, topic, 0, numbered(0, 10)...)
	r, err := fx.Log.Open(ctxFor(t), topic, 0, 2)
	must(t, err)
	defer func() { must(t, r.Close()) }()
	fx.Trim(t, topic, 0, 6)
	if records, err := r.Next(ctxFor(t)); !errors.Is(err, eventlog.ErrOutOfRange) {
		t.Fatalf("got %d records and %v, want ErrOutOfRange", len(records), err)
	}
}

func (s suite) resume(t *testing.T) {
	log := s.newLog(t, Tune{}).Log
	topic := newTopic(t, log, 1)
	appendAll(t, log, topic, 0, numbered(0, 50)...)
	wantValues(t, read(t, log, topic, 0, 30, 20), numbered(30, 50))
	r, err := log.Open(ctxFor(t), topic, 0, 49)
	must(t, err)
	defer func() { must(t, r.Close()) }()
	wantValues(t, readOn(t, r, 0, 49, 1), numbered(49, 50))
	appendAll(t, log, topic, 0, numbered(50, 60)...)
	wantValues(t, readOn(t, r, 0, 50, 10), numbered(50, 60))
}

func (s suite) readerWaits(t *testing.T) {
	log := s.newLog(t, Tune{}).Log
	topic := newTopic(t, log, 1)
	r, err := log.Open(ctxFor(t), topic, 0, 0)
	must(t, err)
	defer func() { must(t, r.Close()) }()
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if records, err := r.Next(short); len(records) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Next on an empty log: %d records, %v", len(records), err)
	}
	for i := range 20 {
		got := make(chan []eventlog.Record, 1)
		go func() {
			records, err := r.Next(ctxFor(t))
			if err != nil {
				t.Error(err)
			}
			got <- records
		}()
		appendAll(t, log, topic, 0, numbered(i, i+1)...)
		wantValues(t, <-got, numbered(i, i+1))
	}
}

func (s suite) readerClose(t *testing.T) {
	log := s.newLog(t, Tune{}).Log
	topic := newTopic(t, log, 1)
	r, err := log.Open(ctxFor(t), topic, 0, 0)
	must(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := r.Next(context.WithoutCancel(t.Context()))
		ended <- err
	}()
	must(t, r.Close())
	must(t, r.Close())
	if err := <-ended; !errors.Is(err, eventlog.ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
}

func (s suite) offsets(t *testing.T) {
	log := s.newLog(t, Tune{}).Log
	topic, group := newTopic(t, log, 3), name(t)
	check := func(group string, want map[int32]int64) {
		t.Helper()
		got, err := log.Committed(ctxFor(t), group, topic)
		must(t, err)
		if !maps.Equal(got, want) {
			t.Fatalf("committed %v, want %v", got, want)
		}
	}
	check(group, nil)
	must(t, log.Commit(ctxFor(t), group, topic, map[int32]int64{0: 5, 2: 0}))
	check(group, map[int32]int64{0: 5, 2: 0})
	must(t, log.Commit(ctxFor(t), group, topic, map[int32]int64{0: 3, 1: 9}))
	check(group, map[int32]int64{0: 3, 1: 9, 2: 0})
	check(group+"-other", nil)
}

func (s suite) topics(t *testing.T) {
	log := s.newLog(t, Tune{}).Log
	topic := newTopic(t, log, 2)
	first, err := log.Topic(ctxFor(t), topic)
	must(t, err)
	if first.ID == "" || first.Partitions != 2 || first.Replication < 1 {
		t.Fatalf("topic is %+v", first)
	}
	must(t, log.CreateTopic(ctxFor(t), eventlog.TopicSpec{Name: topic, Partitions: 2, Replication: 1}))
	err = log.CreateTopic(ctxFor(t), eventlog.TopicSpec{Name: topic, Partitions: 3, Replication: 1})
	if !errors.Is(err, eventlog.ErrTopicDiffers) {
		t.Fatalf("created with other partitions: %v, want ErrTopicDiffers", err)
	}
	again, err := log.Topic(ctxFor(t), topic)
	must(t, err)
	if again != first {
		t.Fatalf("topic was %+v and is %+v", first, again)
	}
	other, err := log.Topic(ctxFor(t), newTopic(t, log, 1))
	must(t, err)
	if other.ID == first.ID {
		t.Fatalf("two topics with the id %s", other.ID)
	}
}

func (s suite) missing(t *testing.T) {
	log := s.newLog(t, Tune{Patience: time.Second}).Log
	topic := newTopic(t, log, 1)
	wantNoTopic := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, eventlog.ErrNoTopic) {
			t.Fatalf("%s: %v, want ErrNoTopic", what, err)
		}
	}
	_, err := log.Topic(ctxFor(t), "missing")
	wantNoTopic("Topic", err)
	for _, at := range []struct {
		topic     string
		partition int32
	}{{"missing", 0}, {topic, 1}, {topic, -1}} {
		_, _, err = log.Bounds(ctxFor(t), at.topic, at.partition)
		wantNoTopic("Bounds", err)
		_, err = log.Open(ctxFor(t), at.topic, at.partition, 0)
		wantNoTopic("Open", err)
		a := newAcks()
		must(t, log.Append(entry(at.topic, at.partition, "v"), a.done(0)))
		wantNoTopic("Append", a.wait(t, 1)[0].err)
	}
	_, err = log.Committed(ctxFor(t), name(t), "missing")
	wantNoTopic("Committed", err)
	wantNoTopic("Commit", log.Commit(ctxFor(t), name(t), topic, map[int32]int64{1: 1}))
}
