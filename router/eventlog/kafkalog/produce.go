package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/eventlog"
)

const (
	// workersPerBroker bounds the produce requests under way to a broker. Fewer make larger requests and more waiting; one
	// would let a partition that waits for a replica hold up all others.
	workersPerBroker = 4
	// maxRequest is how many bytes of records are enough for a request.
	maxRequest = 8 << 20
	// restampAt is the sequence from which a partition goes on with the next epoch, long before sequences wrap.
	restampAt = 1 << 30
	// logTry is the try at which a batch is worth a line in the log.
	logTry = 5
)

type partitionID struct {
	topic     string
	partition int32
}

// pending is an append not yet answered.
type pending struct {
	entry eventlog.Entry
	done  func(eventlog.Appended, error)
	size  int
	at    time.Time
}

type partitionState int

const (
	idle     partitionState = iota // nothing to send
	ready                          // in the list of its leader
	sending                        // a worker has it
	unrouted                       // in the router's list, or the router has it
)

// partition is what one partition has to send.
type partition struct {
	id partitionID // set at start

	// guarded by Log.mu
	queue   []pending
	state   partitionState
	failing bool  // its appends are being failed
	leader  int32 // -1 if not known

	// guarded by Log.mu while idle or ready, else owned by the worker or router that has it
	batch    *batch // the oldest appends, once they are to be sent together
	stamp    stamp  // of the next batch; its producer is -1 until the router gives one
	spent    int64  // the producer id whose epochs are used up; -1 for none
	atMost   int    // records in a batch, after the broker found one too large; 0 for no bound
	tries    int    // that failed since the last success
	failedAt time.Time
	retryAt  time.Time
	last     error // of the last try
}

// batch is appends that are written together, all or none.
type batch struct {
	entries []pending
	stamp   stamp
	time    time.Time // in the records
	encoded []byte    // nil before the first try
	unsure  bool      // a try may have written it
}

// broker is a broker that leads partitions.
type broker struct {
	id int32

	// guarded by Log.mu
	ready   []*partition
	waiting int // workers without work
	idle    *sync.Cond
}

func (l *Log) partitionLocked(id partitionID) *partition {
	p := l.partitions[id]
	if p == nil {
		p = &partition{id: id, leader: -1, stamp: stamp{producer: -1}, spent: -1}
		l.partitions[id] = p
	}
	return p
}

// readyLocked hands a partition with something to send to its leader's workers, or to the router if that is not known.
func (l *Log) readyLocked(p *partition) {
	if p.leader < 0 || p.stamp.producer < 0 {
		p.state = unrouted
		l.unrouted = append(l.unrouted, p)
		l.nudgeRouter()
		return
	}
	b := l.brokers[p.leader]
	if b == nil {
		b = &broker{id: p.leader, idle: sync.NewCond(&l.mu)}
		l.brokers[p.leader] = b
		if !l.ended {
			for range workersPerBroker {
				l.workers.Go(func() { l.work(b) })
			}
		}
	}
	p.state = ready
	b.ready = append(b.ready, p)
	if b.waiting > 0 {
		l.sealLocked(p) // it goes now; what is appended behind it goes next
		b.idle.Signal()
	}
}

// sealLocked makes a batch of the oldest appends.
func (l *Log) sealLocked(p *partition) {
	if p.batch != nil {
		return
	}
	n, size := 0, 0
	limit := max(l.opts.MaxRecordBytes, 1_000_000)
	for n < len(p.queue) && (n == 0 || size+p.queue[n].size <= limit && (p.atMost == 0 || n < p.atMost)) {
		size += p.queue[n].size
		n++
	}
	p.batch = &batch{entries: p.queue[:n:n]}
	if p.queue = p.queue[n:]; len(p.queue) == 0 {
		p.queue = nil
	}
}

// headLocked is the append that is due next.
func (p *partition) headLocked() *pending {
	if p.batch != nil {
		return &p.batch.entries[0]
	}
	return &p.queue[0]
}

// work is one of a broker's workers.
func (l *Log) work(b *broker) {
	for {
		send, expired := l.take(b)
		if len(send)+len(expired) == 0 {
			return
		}
		for _, p := range expired {
			l.fail(p, p.expired())
		}
		if len(send) > 0 {
			l.send(b, send)
		}
	}
}

var errExpired = errors.New("waited too long")

// expired is why a partition's appends have waited too long.
func (p *partition) expired() error {
	if p.last != nil {
		return p.last
	}
	return errExpired
}

// take waits for partitions that are ready and gives them to the caller; none when the log has ended.
func (l *Log) take(b *broker) (send, expired []*partition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.waiting++
	for len(b.ready) == 0 && !l.ended {
		b.idle.Wait()
	}
	b.waiting--
	if l.ended {
		return nil, nil
	}
	oldest := time.Now().Add(-l.opts.Patience)
	size, n := 0, 0
	for ; n < len(b.ready) && size < maxRequest; n++ {
		p := b.ready[n]
		l.sealLocked(p)
		p.state = sending
		if p.batch.entries[0].at.Before(oldest) {
			expired = append(expired, p)
			continue
		}
		for i := range p.batch.entries {
			size += p.batch.entries[i].size
		}
		send = append(send, p)
	}
	if b.ready = b.ready[n:]; len(b.ready) == 0 {
		b.ready = nil
	} else {
		b.idle.Signal()
	}
	return send, expired
}

// verdict is how a try ended for one partition.
type verdict struct {
	code   int16
	offset int64     // of the first record
	time   time.Time // zero if the broker left the producer's
	err    error     // no answer
	sent   bool      // with err: it may have left
}

// send tries a batch of each partition, and sees to what comes of it.
func (l *Log) send(b *broker, parts []*partition) {
	verdicts := l.try(b, parts)
	l.mu.Lock()
	for i, p := range parts {
		if verdicts[i].good() {
			l.forgetLocked(p.batch.entries)
		}
	}
	l.mu.Unlock()
	now := time.Now()
	for i, p := range parts {
		if v := verdicts[i]; v.good() {
			l.metrics.appended(p.batch, now)
			p.batch.answer(p.id.partition, v)
		}
	}
	l.mu.Lock()
	for i, p := range parts {
		if verdicts[i].good() {
			l.writtenLocked(p)
		}
	}
	l.mu.Unlock()
	for i, p := range parts {
		if !verdicts[i].good() {
			l.judge(p, verdicts[i])
		}
	}
}

func (v verdict) good() bool { return v.err == nil && v.code == 0 }

func (b *batch) answer(partition int32, v verdict) {
	at := v.time
	if at.IsZero() {
		at = b.time
	}
	for i := range b.entries {
		b.entries[i].done(eventlog.Appended{Partition: partition, Offset: v.offset + int64(i), Time: at}, nil)
	}
}

// writtenLocked goes on after a batch was written.
func (l *Log) writtenLocked(p *partition) {
	p.stamp.sequence += int32(len(p.batch.entries))
	if p.stamp.sequence >= restampAt {
		p.restamp()
	}
	p.batch, p.tries, p.atMost, p.last = nil, 0, 0, nil
	if p.state = idle; len(p.queue) > 0 {
		l.readyLocked(p)
	}
}

// restamp begins a new epoch. From its first record on, the broker refuses whatever of the older ones is still under way.
func (p *partition) restamp() {
	if p.stamp.epoch == math.MaxInt16 {
		p.spent, p.stamp = p.stamp.producer, stamp{producer: -1}
		return
	}
	p.stamp.epoch++
	p.stamp.sequence = 0
}

// try sends one produce request and gives what it says of each partition.
func (l *Log) try(b *broker, parts []*partition) []verdict {
	now := time.Now()
	deadline := now
	m := &produceMessage{raw: l.raw(protocol.Produce, b.id), req: rawproduce.Request{
		Acks: -1, Timeout: int32(requestTimeout.Milliseconds()),
	}}
	topics := make(map[string]int)
	for _, p := range parts {
		if p.batch.encoded == nil {
			p.batch.stamp, p.batch.time = p.stamp, now.Truncate(time.Millisecond)
			p.batch.encoded = encodeBatch(p.batch.entries, p.stamp, now)
		}
		if d := p.batch.entries[0].at.Add(l.opts.Patience); d.After(deadline) {
			deadline = d
		}
		i, ok := topics[p.id.topic]
		if !ok {
			i = len(m.req.Topics)
			topics[p.id.topic] = i
			m.req.Topics = append(m.req.Topics, rawproduce.RequestTopic{Topic: p.id.topic})
		}
		t := &m.req.Topics[i]
		t.Partitions = append(t.Partitions, rawproduce.RequestPartition{
			Partition: p.id.partition, RecordSet: recordSet(p.batch.encoded),
		})
	}
	if latest := now.Add(requestTimeout); deadline.After(latest) {
		deadline = latest
	}
	ctx, cancel := context.WithDeadline(l.ctx, deadline)
	defer cancel()
	l.metrics.requests.WithLabelValues("produce").Inc()
	res, err := l.exchange(ctx, m)
	sent := err != nil && !m.abandon()
	return readVerdicts(parts, res, err, sent)
}

// readVerdicts sorts a produce answer by partition. One that it does not name got no answer.
func readVerdicts(parts []*partition, res protocol.Message, err error, sent bool) []verdict {
	verdicts := make([]verdict, len(parts))
	if err != nil {
		for i := range verdicts {
			verdicts[i] = verdict{err: err, sent: sent}
		}
		return verdicts
	}
	answered := make(map[partitionID]produce.ResponsePartition, len(parts))
	if r, ok := res.(*produce.Response); ok {
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				answered[partitionID{t.Topic, p.Partition}] = p
			}
		}
	}
	for i, p := range parts {
		a, ok := answered[p.id]
		if !ok {
			verdicts[i] = verdict{err: fmt.Errorf("%w: the partition is missing", errAnswer), sent: true}
			continue
		}
		verdicts[i] = verdict{code: a.ErrorCode, offset: a.BaseOffset}
		if a.LogAppendTime >= 0 {
			verdicts[i].time = time.UnixMilli(a.LogAppendTime)
		}
	}
	return verdicts
}

// judge decides about a batch whose try failed: another, or none.
func (l *Log) judge(p *partition, v verdict) {
	b := p.batch
	if v.err != nil {
		b.unsure = b.unsure || v.sent
		p.last = v.err
	} else {
		b.unsure = b.unsure || !surelyNotWritten(v.code)
		p.last = kafka.Error(v.code)
	}
	expired := time.Since(b.entries[0].at) >= l.opts.Patience
	switch {
	case l.ctx.Err() != nil:
		l.fail(p, eventlog.ErrClosed)
	case tooLarge(v.code) && !b.unsure && len(b.entries) > 1:
		l.split(p)
	case expired || final(v.code) || v.code == codeDuplicateSequence || lostSequence(v.code) && b.unsure:
		l.fail(p, p.last)
	default:
		if lostSequence(v.code) {
			p.restamp()
			b.encoded = nil
		}
		l.metrics.retries.Inc()
		l.retry(p)
	}
}

// split parts a batch that the broker found too large, though each record may do.
func (l *Log) split(p *partition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.atMost = (len(p.batch.entries) + 1) / 2
	p.queue = append(p.batch.entries, p.queue...)
	p.batch = nil
	l.readyLocked(p)
}

// retry hands a partition to the router, which looks for its leader before the next try.
func (l *Log) retry(p *partition) {
	p.tries++
	if p.tries == logTry {
		l.opts.Logger.Warn("append is tried again and again", zap.String("topic", p.id.topic),
			zap.Int32("partition", p.id.partition), zap.Int("tries", p.tries), zap.Error(p.last))
	}
	p.failedAt = time.Now()
	p.retryAt = p.failedAt.Add(backoff(p.tries))
	l.mu.Lock()
	defer l.mu.Unlock()
	p.leader = -1
	l.readyLocked(p)
}

// backoff is how long to wait after so many tries in a row: 5 ms, doubled up to 320 ms.
func backoff(tries int) time.Duration {
	return 5 * time.Millisecond << min(max(tries-1, 0), 6)
}

// fail ends the appends of a partition that the caller has: the first batch for this cause, and all behind it.
func (l *Log) fail(p *partition, cause error) {
	l.mu.Lock()
	if p.batch == nil {
		l.sealLocked(p)
	}
	b, behind := p.batch, p.queue
	p.batch, p.queue = nil, nil
	p.failing = true
	l.forgetLocked(b.entries)
	l.forgetLocked(behind)
	if b.unsure {
		p.restamp()
	}
	p.tries, p.atMost, p.last, p.retryAt = 0, 0, nil, time.Time{}
	p.leader, p.failedAt = -1, time.Now() // the next append is to find out
	l.mu.Unlock()

	first := outcome(b.unsure, cause)
	l.opts.Logger.Warn("append failed", zap.String("topic", p.id.topic), zap.Int32("partition", p.id.partition),
		zap.Int("records", len(b.entries)), zap.Int("behind", len(behind)), zap.Error(first))
	for i := range b.entries {
		err := first
		if i > 0 && !b.unsure {
			err = eventlog.ErrBehindFailed // in the same batch, but surely not written either
		}
		l.metrics.failed(err)
		b.entries[i].done(eventlog.Appended{}, err)
	}
	for i := range behind {
		l.metrics.failed(eventlog.ErrBehindFailed)
		behind[i].done(eventlog.Appended{}, eventlog.ErrBehindFailed)
	}
	l.mu.Lock()
	p.failing = false
	p.state = idle
	l.mu.Unlock()
}

// outcome is the error of an append that failed for a cause.
func outcome(unsure bool, cause error) error {
	var code kafka.Error
	errors.As(cause, &code)
	switch {
	case unsure:
		return fmt.Errorf("%w: %w", eventlog.ErrUnknownOutcome, cause)
	case errors.Is(cause, eventlog.ErrNoTopic):
		return cause
	case tooLarge(int16(code)):
		return fmt.Errorf("%w: %w", eventlog.ErrTooLarge, cause)
	case code == kafka.UnknownTopicOrPartition || code == kafka.InvalidTopic:
		return fmt.Errorf("%w: %w", eventlog.ErrNoTopic, cause)
	}
	return fmt.Errorf("%w: %w", eventlog.ErrUnavailable, cause)
}
