package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/createtopics"
	"github.com/segmentio/kafka-go/protocol/findcoordinator"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"

	"github.com/futurechat/future/router/eventlog"
)

// call sends a message in kafka-go's coding to a broker; a negative one is any.
func (l *Log) call(ctx context.Context, broker int32, req protocol.Message) (protocol.Message, error) {
	l.metrics.requests.WithLabelValues("other").Inc()
	res, err := l.exchange(ctx, &call{raw: l.raw(req.ApiKey(), broker), req: req})
	if err != nil {
		return nil, err
	}
	a, ok := res.(*callAnswer)
	if !ok {
		return nil, errAnswer
	}
	return a.res, nil
}

// settled reports errors that asking again will not change.
func settled(err error) bool {
	for _, e := range []error{eventlog.ErrNoTopic, eventlog.ErrTopicDiffers, eventlog.ErrOutOfRange, eventlog.ErrClosed} {
		if errors.Is(err, e) {
			return true
		}
	}
	var code kafka.Error
	return errors.As(err, &code) && final(int16(code))
}

// lookup tries until it is answered, ctx ends or patience does. failed is when the last try failed, for topicAfter.
func (l *Log) lookup(ctx context.Context, what string, try func(ctx context.Context, failed time.Time) error) error {
	within, cancel := context.WithTimeout(ctx, l.opts.Patience)
	defer cancel()
	defer context.AfterFunc(l.ctx, cancel)()
	var failed time.Time
	var last error
	for tries := 1; ; tries++ {
		attempt, done := context.WithTimeout(within, requestTimeout)
		err := try(attempt, failed)
		done()
		if err == nil {
			return nil
		}
		if settled(err) {
			return fmt.Errorf("kafkalog: %s: %w", what, err)
		}
		if failed = time.Now(); within.Err() == nil || last == nil {
			last = err
		}
		wait := time.NewTimer(backoff(tries))
		select {
		case <-wait.C:
		case <-within.Done():
			wait.Stop()
			switch {
			case l.ctx.Err() != nil:
				return fmt.Errorf("kafkalog: %s: %w", what, eventlog.ErrClosed)
			case ctx.Err() != nil:
				return fmt.Errorf("kafkalog: %s: %w: %w", what, ctx.Err(), last)
			}
			return fmt.Errorf("kafkalog: %s: %w: %w", what, eventlog.ErrUnavailable, last)
		}
	}
}

// Topic implements eventlog.Log. It always asks a broker, so it also tells whether one can be reached.
func (l *Log) Topic(ctx context.Context, name string) (info eventlog.TopicInfo, err error) {
	err = l.lookup(ctx, "topic "+name, func(ctx context.Context, _ time.Time) error {
		t, err := l.askTopic(ctx, name, -1)
		if err != nil {
			return err
		}
		info = t.TopicInfo
		return nil
	})
	return info, err
}

// CreateTopic implements eventlog.Log. It returns when all brokers know the topic.
func (l *Log) CreateTopic(ctx context.Context, spec eventlog.TopicSpec) error {
	if spec.Name == "" || spec.Partitions < 1 {
		return fmt.Errorf("kafkalog: create topic %q with %d partitions", spec.Name, spec.Partitions)
	}
	what := "create topic " + spec.Name
	err := l.lookup(ctx, what, func(ctx context.Context, _ time.Time) error {
		res, err := l.call(ctx, -1, &createtopics.Request{
			Topics: []createtopics.RequestTopic{l.newTopic(spec)}, TimeoutMs: int32(requestTimeout.Milliseconds()),
		})
		if err != nil {
			return err
		}
		r, ok := res.(*createtopics.Response)
		if !ok || len(r.Topics) != 1 {
			return errAnswer
		}
		if t := r.Topics[0]; t.ErrorCode != 0 && t.ErrorCode != codeTopicExists {
			return fmt.Errorf("%w: %s", kafka.Error(t.ErrorCode), t.ErrorMessage)
		}
		return nil
	})
	if err != nil {
		return err
	}
	known := make(map[int32]bool)
	return l.lookup(ctx, what, func(ctx context.Context, _ time.Time) error { return l.knownToAll(ctx, spec, known) })
}

func (l *Log) newTopic(spec eventlog.TopicSpec) createtopics.RequestTopic {
	t := createtopics.RequestTopic{Name: spec.Name, NumPartitions: int32(spec.Partitions), ReplicationFactor: int16(spec.Replication)}
	if spec.Replication <= 0 {
		t.ReplicationFactor = -1 // the cluster's default
	}
	retention := int64(-1)
	if spec.Retention > 0 {
		retention = spec.Retention.Milliseconds()
	}
	set := func(name, value string) {
		t.Configs = append(t.Configs, createtopics.RequestConfig{Name: name, Value: value})
	}
	set("message.timestamp.type", "LogAppendTime")
	set("cleanup.policy", "delete") // compaction would make holes
	set("retention.ms", strconv.FormatInt(retention, 10))
	set("retention.bytes", "-1")
	if spec.MinInSync > 0 {
		set("min.insync.replicas", strconv.Itoa(spec.MinInSync))
	}
	const brokersDefault = 1_048_588
	if need := l.opts.MaxRecordBytes + batchHeader; need > brokersDefault {
		set("max.message.bytes", strconv.Itoa(need))
	}
	return t
}

// knownToAll sees that each broker knows the topic and its leaders. A broker that cannot be reached is left out.
func (l *Log) knownToAll(ctx context.Context, spec eventlog.TopicSpec, known map[int32]bool) error {
	info, err := l.askTopic(ctx, spec.Name, -1)
	if errors.Is(err, eventlog.ErrNoTopic) {
		return kafka.UnknownTopicOrPartition // not yet
	}
	if err != nil {
		return err
	}
	if info.Partitions != spec.Partitions {
		return fmt.Errorf("%w: %s has %d, not %d", eventlog.ErrTopicDiffers, spec.Name, info.Partitions, spec.Partitions)
	}
	for _, b := range info.brokers {
		if known[b] {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		info, err := l.askTopic(ctx, spec.Name, b)
		cancel()
		if errors.Is(err, eventlog.ErrNoTopic) || err == nil && slices.Min(info.leaders) < 0 {
			return kafka.LeaderNotAvailable
		}
		known[b] = true
	}
	return nil
}

// Bounds implements eventlog.Log.
func (l *Log) Bounds(ctx context.Context, topic string, partition int32) (start, end int64, err error) {
	start, end, _, err = l.bounds(ctx, topic, partition)
	return start, end, err
}

func (l *Log) bounds(ctx context.Context, topic string, partition int32) (start, end int64, info *topicInfo, err error) {
	err = l.lookup(ctx, fmt.Sprintf("bounds of %s/%d", topic, partition), func(ctx context.Context, failed time.Time) error {
		info, err = l.topicAfter(ctx, topic, failed)
		leader, err := info.leader(topic, partition, err)
		if err != nil {
			return err
		}
		l.metrics.requests.WithLabelValues("offsets").Inc()
		res, err := l.exchange(ctx, &boundsMessage{raw: l.raw(protocol.ListOffsets, leader), topic: topic, partition: partition})
		if err != nil {
			return err
		}
		a, ok := res.(*boundsAnswer)
		if !ok {
			return errAnswer
		}
		if a.code != 0 {
			return kafka.Error(a.code)
		}
		start, end = a.start, a.end
		return nil
	})
	return start, end, info, err
}

// Committed implements eventlog.Log.
func (l *Log) Committed(ctx context.Context, group, topic string) (offsets map[int32]int64, err error) {
	err = l.lookup(ctx, "committed offsets of "+group, func(ctx context.Context, failed time.Time) error {
		info, err := l.topicAfter(ctx, topic, failed)
		if err != nil {
			return err
		}
		req := offsetfetch.RequestTopic{Name: topic}
		for p := range info.Partitions {
			req.PartitionIndexes = append(req.PartitionIndexes, int32(p))
		}
		res, err := l.callCoordinator(ctx, group, &offsetfetch.Request{GroupID: group, Topics: []offsetfetch.RequestTopic{req}})
		if err != nil {
			return err
		}
		r, ok := res.(*offsetfetch.Response)
		if !ok || r.ErrorCode == 0 && len(r.Topics) != 1 {
			return errAnswer
		}
		offsets = make(map[int32]int64)
		if r.ErrorCode == codeNoGroup {
			return nil // which never committed
		}
		if r.ErrorCode != 0 {
			return l.coordinatorFailed(group, r.ErrorCode)
		}
		for _, p := range r.Topics[0].Partitions {
			if p.ErrorCode != 0 {
				return l.coordinatorFailed(group, p.ErrorCode)
			}
			if p.CommittedOffset >= 0 {
				offsets[p.PartitionIndex] = p.CommittedOffset
			}
		}
		return nil
	})
	return offsets, err
}

// Commit implements eventlog.Log.
func (l *Log) Commit(ctx context.Context, group, topic string, offsets map[int32]int64) error {
	return l.lookup(ctx, "commit offsets of "+group, func(ctx context.Context, failed time.Time) error {
		info, err := l.topicAfter(ctx, topic, failed)
		if err != nil {
			return err
		}
		req := offsetcommit.RequestTopic{Name: topic}
		for p, at := range offsets {
			if p < 0 || int(p) >= info.Partitions {
				return fmt.Errorf("%w: %s/%d", eventlog.ErrNoTopic, topic, p)
			}
			req.Partitions = append(req.Partitions, offsetcommit.RequestPartition{
				PartitionIndex: p, CommittedOffset: at, CommitTimestamp: -1, CommittedLeaderEpoch: -1,
			})
		}
		// Generation -1 is that of a group without members: there is nothing that would fence.
		res, err := l.callCoordinator(ctx, group, &offsetcommit.Request{
			GroupID: group, GenerationID: -1, RetentionTimeMs: -1, Topics: []offsetcommit.RequestTopic{req},
		})
		if err != nil {
			return err
		}
		r, ok := res.(*offsetcommit.Response)
		if !ok || len(r.Topics) != 1 {
			return errAnswer
		}
		for _, p := range r.Topics[0].Partitions {
			if p.ErrorCode != 0 {
				return l.coordinatorFailed(group, p.ErrorCode)
			}
		}
		return nil
	})
}

// callCoordinator sends a message to a group's coordinator.
func (l *Log) callCoordinator(ctx context.Context, group string, req protocol.Message) (protocol.Message, error) {
	l.mu.Lock()
	broker, ok := l.coordinators[group]
	l.mu.Unlock()
	if !ok {
		res, err := l.call(ctx, -1, &findcoordinator.Request{Key: group})
		if err != nil {
			return nil, err
		}
		r, ok := res.(*findcoordinator.Response)
		if !ok {
			return nil, errAnswer
		}
		if r.ErrorCode != 0 {
			return nil, kafka.Error(r.ErrorCode)
		}
		broker = r.NodeID
		l.mu.Lock()
		l.coordinators[group] = broker
		l.mu.Unlock()
	}
	res, err := l.call(ctx, broker, req)
	if err != nil {
		return nil, errors.Join(err, l.coordinatorFailed(group, 0))
	}
	return res, nil
}

// coordinatorFailed forgets a group's coordinator, so that it is asked for again, and gives the code as an error.
func (l *Log) coordinatorFailed(group string, code int16) error {
	l.mu.Lock()
	delete(l.coordinators, group)
	l.mu.Unlock()
	if code == 0 {
		return nil
	}
	return kafka.Error(code)
}
