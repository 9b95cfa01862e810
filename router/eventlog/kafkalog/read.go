package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/eventlog"
)

const (
	// fetchWait is how long a broker holds a fetch back until there is a record. A broker that is gone without a word is noticed this
	// and requestTimeout after a fetch was sent: that is sooner than the other brokers put a new leader in its place, 9 s by
	// default. Idle partitions cost a request each time.
	fetchWait = 5 * time.Second
	// fetchBytes is about how much one fetch gives. A larger batch comes whole.
	fetchBytes = 512 << 10
	// fetchPatience is how long a reader tries before Next tells of it.
	fetchPatience = 5 * time.Second
)

// Open implements eventlog.Log.
func (l *Log) Open(ctx context.Context, topic string, partition int32, from int64) (eventlog.Reader, error) {
	start, end, info, err := l.bounds(ctx, topic, partition)
	if err != nil {
		return nil, err
	}
	if from < start || from > end {
		return nil, fmt.Errorf("kafkalog: open: %w: %s/%d at %d of [%d, %d]", eventlog.ErrOutOfRange, topic, partition, from, start, end)
	}
	r := &reader{
		l:         l,
		topic:     topic,
		topicID:   info.ID,
		partition: partition,
		want:      make(chan struct{}, 1),
		got:       make(chan fetched, 1),
		leader:    -1,
		at:        from,
	}
	r.ctx, r.cancel = context.WithCancel(l.ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		r.cancel()
		return nil, eventlog.ErrClosed
	}
	l.readers.Go(r.run)
	return r, nil
}

// reader reads one partition. Its goroutine fetches when it is asked to; Next asks, and asks ahead once when it took a batch.
type reader struct {
	// set at start
	l         *Log
	topic     string
	topicID   string
	partition int32
	ctx       context.Context
	cancel    context.CancelFunc
	want      chan struct{} // a fetch is wanted
	got       chan fetched  // its result, one for each want

	// owned by the goroutine that calls Next
	asked bool
	rest  fetched

	// owned by the reader's goroutine
	leader   int32
	failedAt time.Time
	at       int64
}

// fetched is what a fetch gave: records, then an error.
type fetched struct {
	records []eventlog.Record
	err     error
}

// Next implements eventlog.Reader.
func (r *reader) Next(ctx context.Context) ([]eventlog.Record, error) {
	if r.ctx.Err() != nil {
		return nil, eventlog.ErrClosed
	}
	for len(r.rest.records) == 0 {
		if err := r.rest.err; err != nil {
			r.rest.err = nil
			return nil, err
		}
		r.ask()
		select {
		case r.rest = <-r.got:
			r.asked = false
			continue
		default:
		}
		select {
		case r.rest = <-r.got:
			r.asked = false
		case <-r.ctx.Done():
			return nil, eventlog.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	n := min(len(r.rest.records), r.l.opts.MaxBatch)
	records := r.rest.records[:n:n]
	r.rest.records = r.rest.records[n:]
	if r.rest.err == nil {
		r.ask()
	}
	return records, nil
}

// ask wants a fetch, if none is under way.
func (r *reader) ask() {
	if !r.asked {
		r.asked = true
		r.want <- struct{}{}
	}
}

// Close implements eventlog.Reader.
func (r *reader) Close() error {
	r.cancel()
	return nil
}

func (r *reader) run() {
	defer r.cancel()
	for {
		select {
		case <-r.want:
		case <-r.ctx.Done():
			return
		}
		records, err := r.fetch()
		if r.ctx.Err() != nil {
			return
		}
		r.got <- fetched{records, err}
	}
}

// fetch waits for records, or an error that has lasted or is settled.
func (r *reader) fetch() ([]eventlog.Record, error) {
	began := time.Now()
	for tries := 0; ; {
		records, err := r.fetchOnce()
		if len(records) > 0 || settled(err) || r.ctx.Err() != nil {
			return records, err
		}
		if err == nil { // nothing new for a while
			tries, began = 0, time.Now()
			continue
		}
		r.leader, r.failedAt = -1, time.Now()
		if time.Since(began) > fetchPatience {
			kind := eventlog.ErrUnavailable
			if errors.Is(err, kafka.UnknownTopicOrPartition) {
				kind = eventlog.ErrNoTopic
			}
			return nil, fmt.Errorf("kafkalog: read %s/%d: %w: %w", r.topic, r.partition, kind, err)
		}
		if tries++; tries == logTry {
			r.l.opts.Logger.Warn("read is tried again and again", zap.String("topic", r.topic),
				zap.Int32("partition", r.partition), zap.Int("tries", tries), zap.Error(err))
		}
		wait := time.NewTimer(backoff(tries))
		select {
		case <-wait.C:
		case <-r.ctx.Done():
			wait.Stop()
			return nil, eventlog.ErrClosed
		}
	}
}

// fetchOnce asks the leader for records, which may be none.
func (r *reader) fetchOnce() ([]eventlog.Record, error) {
	ctx, cancel := context.WithTimeout(r.ctx, fetchWait+requestTimeout)
	defer cancel()
	if err := r.findLeader(ctx); err != nil {
		return nil, err
	}
	r.l.metrics.requests.WithLabelValues("fetch").Inc()
	res, err := r.l.exchange(ctx, &fetchMessage{raw: r.l.raw(protocol.Fetch, r.leader), req: fetch.Request{
		ReplicaID:    -1,
		MaxWaitTime:  int32(fetchWait.Milliseconds()),
		MinBytes:     1,
		MaxBytes:     fetchBytes,
		SessionEpoch: -1, // no session
		Topics: []fetch.RequestTopic{{Topic: r.topic, Partitions: []fetch.RequestPartition{{
			Partition: r.partition, CurrentLeaderEpoch: -1, FetchOffset: r.at, LogStartOffset: -1, PartitionMaxBytes: fetchBytes,
		}}}},
	}})
	if err != nil {
		return nil, err
	}
	a, ok := res.(*fetchAnswer)
	if !ok {
		return nil, errAnswer
	}
	switch {
	case a.code == codeOutOfRange:
		return nil, fmt.Errorf("kafkalog: read: %w: %s/%d at %d", eventlog.ErrOutOfRange, r.topic, r.partition, r.at)
	case a.code != 0:
		return nil, kafka.Error(a.code)
	}
	records, next, err := decodeBatches(a.batches, r.partition, r.at)
	if err == nil && next == r.at && len(a.batches) > 0 {
		err = fmt.Errorf("%w: %d bytes without a record", errCorrupt, len(a.batches))
	}
	if err != nil {
		err = fmt.Errorf("kafkalog: read %s/%d: %w", r.topic, r.partition, err)
	}
	r.at = next
	return records, err
}

// findLeader finds the partition's leader, and sees that the topic is still the one that was opened.
func (r *reader) findLeader(ctx context.Context) error {
	if r.leader >= 0 {
		return nil
	}
	info, err := r.l.topicAfter(ctx, r.topic, r.failedAt)
	leader, err := info.leader(r.topic, r.partition, err)
	if errors.Is(err, eventlog.ErrNoTopic) {
		return kafka.UnknownTopicOrPartition // it was there, and some broker may only not know it yet
	}
	if err != nil {
		return err
	}
	if info.ID != r.topicID {
		return fmt.Errorf("kafkalog: read: %w: topic %s was made anew", eventlog.ErrOutOfRange, r.topic)
	}
	r.leader = leader
	return nil
}
