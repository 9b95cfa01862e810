package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/initproducerid"

	"github.com/futurechat/future/router/eventlog"
)

// nudgeRouter wakes the router. It never blocks.
func (l *Log) nudgeRouter() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// route is the router: the goroutine that has the partitions whose leader is not known, or whose last try failed.
func (l *Log) route() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.wake:
		case <-timer.C:
		case <-l.ctx.Done():
			return
		}
		l.routeDue()
		if next, ok := l.nextRoute(); ok {
			timer.Reset(time.Until(next))
		}
	}
}

// nextRoute is when the next partition in the router's list is due.
func (l *Log) nextRoute() (next time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.unrouted {
		at := p.retryAt
		if expiry := p.headLocked().at.Add(l.opts.Patience); expiry.Before(at) {
			at = expiry
		}
		if !ok || at.Before(next) {
			next, ok = at, true
		}
	}
	return next, ok
}

// routeDue gives the partitions that are due to their leaders, and fails those that waited too long.
func (l *Log) routeDue() {
	byTopic := make(map[string][]*partition)
	noID := false
	for _, p := range l.takeDue() {
		byTopic[p.id.topic] = append(byTopic[p.id.topic], p)
		noID = noID || p.stamp.producer < 0
	}
	if noID {
		l.giveIDs(byTopic)
	}
	for topic, parts := range byTopic {
		l.routeTopic(topic, parts)
	}
}

// takeDue takes what is due out of the router's list.
func (l *Log) takeDue() (due []*partition) {
	now := time.Now()
	oldest := now.Add(-l.opts.Patience)
	var expired, later []*partition
	l.mu.Lock()
	for _, p := range l.unrouted {
		switch {
		case p.headLocked().at.Before(oldest):
			expired = append(expired, p)
		case p.retryAt.After(now):
			later = append(later, p)
		default:
			due = append(due, p)
		}
	}
	l.unrouted = later
	l.mu.Unlock()
	for _, p := range expired {
		l.fail(p, p.expired())
	}
	return due
}

// giveIDs gives a producer id to the partitions that have none. When there is none to be had they are put back.
func (l *Log) giveIDs(byTopic map[string][]*partition) {
	var failed error // asked for once, not for each partition
	for topic, parts := range byTopic {
		kept := parts[:0]
		for _, p := range parts {
			if p.stamp.producer >= 0 {
				kept = append(kept, p)
				continue
			}
			var s stamp
			if failed == nil {
				s, failed = l.producerID(p.spent)
			}
			if failed != nil {
				l.putBack(p, fmt.Errorf("producer id: %w", failed))
				continue
			}
			p.stamp = s
			kept = append(kept, p)
		}
		byTopic[topic] = kept
	}
}

// producerID gives a stamp to begin with, of any producer id but the one that is spent.
func (l *Log) producerID(spent int64) (stamp, error) {
	l.mu.Lock()
	s := l.producer
	l.mu.Unlock()
	if s.producer >= 0 && s.producer != spent {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(l.ctx, requestTimeout)
	defer cancel()
	// kafka-go's own request goes to the coordinator of transactions, which a producer without them does not need.
	res, err := l.call(ctx, -1, &initproducerid.Request{TransactionTimeoutMs: 60_000, ProducerID: -1, ProducerEpoch: -1})
	if err != nil {
		return stamp{}, err
	}
	r, ok := res.(*initproducerid.Response)
	if !ok {
		return stamp{}, errAnswer
	}
	if r.ErrorCode != 0 {
		return stamp{}, kafka.Error(r.ErrorCode)
	}
	s = stamp{producer: r.ProducerID, epoch: r.ProducerEpoch}
	l.mu.Lock()
	l.producer = s
	l.mu.Unlock()
	return s, nil
}

// routeTopic gives partitions of a topic to their leaders.
func (l *Log) routeTopic(topic string, parts []*partition) {
	if len(parts) == 0 {
		return
	}
	var after time.Time
	for _, p := range parts {
		if p.failedAt.After(after) {
			after = p.failedAt
		}
	}
	ctx, cancel := context.WithTimeout(l.ctx, lookupTimeout)
	info, err := l.topicAfter(ctx, topic, after)
	cancel()
	for _, p := range parts {
		leader, err := info.leader(topic, p.id.partition, err)
		if err != nil {
			l.putBack(p, err)
			continue
		}
		l.mu.Lock()
		p.leader = leader
		l.readyLocked(p)
		l.mu.Unlock()
	}
}

// putBack puts a partition that could not be routed back into the router's list.
func (l *Log) putBack(p *partition, err error) {
	// What the broker said of the last try matters more than that its leader is not known meanwhile.
	if p.last == nil || errors.Is(err, eventlog.ErrNoTopic) || errors.Is(p.last, eventlog.ErrNoTopic) {
		p.last = err
	}
	l.retry(p)
}

// topicInfo is what metadata said of a topic.
type topicInfo struct {
	eventlog.TopicInfo
	leaders []int32 // by partition; -1 for none at present
	brokers []int32 // of the cluster
	asked   time.Time
}

// leader gives a partition's leader. err is what came instead of the info.
func (t *topicInfo) leader(topic string, partition int32, err error) (int32, error) {
	switch {
	case err != nil:
		return -1, err
	case partition < 0 || int(partition) >= len(t.leaders):
		return -1, fmt.Errorf("%w: %s/%d", eventlog.ErrNoTopic, topic, partition)
	case t.leaders[partition] < 0:
		return -1, kafka.LeaderNotAvailable
	}
	return t.leaders[partition], nil
}

// topicAfter gives what is known of a topic, asked for after that time.
func (l *Log) topicAfter(ctx context.Context, topic string, after time.Time) (*topicInfo, error) {
	for {
		l.mu.Lock()
		info := l.topics[topic]
		l.mu.Unlock()
		if info != nil && info.asked.After(after) {
			return info, nil
		}
		// One question at a time for a topic, whoever waits for it. One that was under way before may answer too old.
		done := l.asking.DoChan(topic, func() (any, error) {
			ctx, cancel := context.WithTimeout(l.ctx, lookupTimeout)
			defer cancel()
			return l.askTopic(ctx, topic, -1)
		})
		select {
		case r := <-done:
			if r.Err != nil {
				return nil, r.Err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// askTopic asks a broker about a topic; -1 for any.
func (l *Log) askTopic(ctx context.Context, topic string, broker int32) (*topicInfo, error) {
	asked := time.Now()
	l.metrics.requests.WithLabelValues("metadata").Inc()
	res, err := l.exchange(ctx, &topicMessage{raw: l.raw(protocol.Metadata, broker), topic: topic})
	if err != nil {
		return nil, err
	}
	a, ok := res.(*topicAnswer)
	if !ok {
		return nil, errAnswer
	}
	switch {
	case a.code == codeUnknownTopic || a.code == codeInvalidTopic:
		return nil, fmt.Errorf("%w: %s", eventlog.ErrNoTopic, topic)
	case a.code != 0:
		return nil, kafka.Error(a.code)
	}
	info := &topicInfo{
		TopicInfo: eventlog.TopicInfo{ID: fmt.Sprintf("%x", a.id), Partitions: len(a.leaders), Replication: a.replication},
		leaders:   a.leaders,
		brokers:   a.brokers,
		asked:     asked,
	}
	l.mu.Lock()
	if old := l.topics[topic]; old == nil || old.asked.Before(asked) {
		l.topics[topic] = info
	}
	l.mu.Unlock()
	return info, nil
}
