package eventlog

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"
)

// Op names a step of the memory log at which a fault can be injected.
type Op string

// The steps that MemoryOptions.Fault is asked about. A fault at OpAppend refuses the record before it is written; one at
// OpAck comes after it was written, so that the answer is lost.
const (
	OpAppend    Op = "append"
	OpAck       Op = "ack"
	OpOpen      Op = "open"
	OpNext      Op = "next"
	OpBounds    Op = "bounds"
	OpTopic     Op = "topic"
	OpCreate    Op = "create"
	OpCommitted Op = "committed"
	OpCommit    Op = "commit"
)

// MemoryOptions configure a Memory. The zero value is usable.
type MemoryOptions struct {
	// Now is the log's clock. Default time.Now.
	Now func() time.Time
	// Fault is asked before each step; a non-nil error makes the step fail with it. It must not call the log. At OpAppend
	// the error should be one of ErrUnavailable, ErrTooLarge, at OpAck ErrUnknownOutcome.
	Fault func(op Op, topic string, partition int32) error
	// Manual leaves pending appends where they are until Step is called, so that one goroutine drives everything.
	Manual bool
	// MaxRecords, MaxBytes bound appends not yet answered. Defaults 65,536 and 64 MiB.
	MaxRecords int
	MaxBytes   int
	// MaxRecordBytes is the largest Entry.Size accepted. Default 1,000,000.
	MaxRecordBytes int
	// MaxBatch is the largest number of records that one Next gives. Default 512.
	MaxBatch int
}

// Memory is a Log in memory: deterministic, lost with the process. Appends are written strictly in the order of the calls,
// over all partitions.
type Memory struct {
	opts MemoryOptions // set at start

	mu        sync.Mutex
	topics    map[string]*memTopic
	made      int // topics ever created, for their ids
	committed map[memCommit]int64
	pending   []memAppend
	bytes     int // of pending
	records   int // pending and not yet answered
	failing   map[memPartitionID]bool
	held      bool
	closed    bool
	ended     bool // readers too
	changed   chan struct{}

	stepping sync.Mutex // one Step at a time, so done calls come in order
	wake     chan struct{}
	stop     chan struct{}
	worker   sync.WaitGroup
}

type memPartitionID struct {
	topic     string
	partition int32
}

type memCommit struct {
	group string
	memPartitionID
}

type memTopic struct {
	info       TopicInfo
	partitions []memPartition
}

type memPartition struct {
	start   int64
	records []Record
}

func (p *memPartition) end() int64 { return p.start + int64(len(p.records)) }

type memAppend struct {
	e    Entry
	done func(Appended, error)
}

var _ Log = (*Memory)(nil)

// NewMemory makes an empty log. Close it, or with Manual let it go.
func NewMemory(opts MemoryOptions) *Memory {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Fault == nil {
		opts.Fault = func(Op, string, int32) error { return nil }
	}
	opts.MaxRecords = cmp.Or(opts.MaxRecords, 65_536)
	opts.MaxBytes = cmp.Or(opts.MaxBytes, 64<<20)
	opts.MaxRecordBytes = cmp.Or(opts.MaxRecordBytes, 1_000_000)
	opts.MaxBatch = cmp.Or(opts.MaxBatch, 512)
	m := &Memory{
		opts:      opts,
		topics:    make(map[string]*memTopic),
		committed: make(map[memCommit]int64),
		failing:   make(map[memPartitionID]bool),
		changed:   make(chan struct{}),
		wake:      make(chan struct{}, 1),
		stop:      make(chan struct{}),
	}
	if !opts.Manual {
		m.worker.Go(m.work)
	}
	return m
}

func (m *Memory) work() {
	for {
		select {
		case <-m.wake:
			for m.Step() {
			}
		case <-m.stop:
			return
		}
	}
}

// Hold leaves pending appends unanswered until Release, as a log that does not answer would.
func (m *Memory) Hold() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = true
}

// Release ends Hold.
func (m *Memory) Release() {
	m.mu.Lock()
	m.held = false
	m.broadcastLocked()
	m.mu.Unlock()
	m.nudge()
}

// Append implements Log.
func (m *Memory) Append(e Entry, done func(Appended, error)) error {
	size := e.Size()
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return ErrClosed
	case size > m.opts.MaxRecordBytes:
		return fmt.Errorf("%w: %d bytes of at most %d", ErrTooLarge, size, m.opts.MaxRecordBytes)
	case m.failing[memPartitionID{e.Topic, e.Partition}]:
		return ErrBehindFailed
	case m.records+1 > m.opts.MaxRecords || m.bytes+size > m.opts.MaxBytes:
		return ErrBacklog
	}
	m.records++
	m.bytes += size
	m.pending = append(m.pending, memAppend{e, done})
	m.nudge()
	return nil
}

func (m *Memory) nudge() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Step answers the oldest pending append, and when it fails those queued behind it too. It reports whether there was one.
func (m *Memory) Step() bool { return m.step(nil) }

// step answers one append; a non-nil refusal is the answer instead of a try.
func (m *Memory) step(refusal error) bool {
	m.stepping.Lock()
	defer m.stepping.Unlock()
	m.mu.Lock()
	if len(m.pending) == 0 || (m.held && refusal == nil) {
		m.mu.Unlock()
		return false
	}
	head := m.pending[0]
	m.pending = m.pending[1:]
	m.forgetLocked(head)
	at, err := Appended{}, refusal
	if err == nil {
		at, err = m.writeLocked(head.e)
	}
	id := memPartitionID{head.e.Topic, head.e.Partition}
	var behind []memAppend
	if err != nil {
		behind = m.cutLocked(id)
		m.failing[id] = true
	}
	m.mu.Unlock()

	head.done(at, err)
	for _, a := range behind {
		a.done(Appended{}, ErrBehindFailed)
	}
	if err != nil {
		m.mu.Lock()
		delete(m.failing, id)
		m.mu.Unlock()
	}
	return true
}

func (m *Memory) forgetLocked(a memAppend) {
	m.records--
	m.bytes -= a.e.Size()
}

// cutLocked takes what is queued for a partition out of the queue.
func (m *Memory) cutLocked(id memPartitionID) (cut []memAppend) {
	var rest []memAppend
	for _, a := range m.pending {
		if a.e.Topic == id.topic && a.e.Partition == id.partition {
			cut = append(cut, a)
			m.forgetLocked(a)
		} else {
			rest = append(rest, a)
		}
	}
	m.pending = rest
	return cut
}

func (m *Memory) writeLocked(e Entry) (Appended, error) {
	if err := m.opts.Fault(OpAppend, e.Topic, e.Partition); err != nil {
		return Appended{}, err
	}
	p, err := m.partitionLocked(e.Topic, e.Partition)
	if err != nil {
		return Appended{}, err
	}
	r := Record{
		Partition: e.Partition,
		Offset:    p.end(),
		Time:      m.opts.Now().Truncate(time.Millisecond),
		Key:       bytes.Clone(e.Key),
		Value:     bytes.Clone(e.Value),
	}
	for _, h := range e.Headers {
		r.Headers = append(r.Headers, Header{h.Key, bytes.Clone(h.Value)})
	}
	p.records = append(p.records, r)
	m.broadcastLocked()
	if err := m.opts.Fault(OpAck, e.Topic, e.Partition); err != nil {
		return Appended{}, err
	}
	return Appended{Partition: r.Partition, Offset: r.Offset, Time: r.Time}, nil
}

func (m *Memory) broadcastLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Memory) partitionLocked(topic string, partition int32) (*memPartition, error) {
	t := m.topics[topic]
	if t == nil || partition < 0 || int(partition) >= len(t.partitions) {
		return nil, fmt.Errorf("%w: %s/%d", ErrNoTopic, topic, partition)
	}
	return &t.partitions[partition], nil
}

// Bounds implements Log.
func (m *Memory) Bounds(ctx context.Context, topic string, partition int32) (start, end int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkLocked(ctx, OpBounds, topic, partition); err != nil {
		return 0, 0, err
	}
	p, err := m.partitionLocked(topic, partition)
	if err != nil {
		return 0, 0, err
	}
	return p.start, p.end(), nil
}

// checkLocked is what every call but Append begins with.
func (m *Memory) checkLocked(ctx context.Context, op Op, topic string, partition int32) error {
	if m.ended {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return m.opts.Fault(op, topic, partition)
}

// Topic implements Log.
func (m *Memory) Topic(ctx context.Context, name string) (TopicInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkLocked(ctx, OpTopic, name, -1); err != nil {
		return TopicInfo{}, err
	}
	t := m.topics[name]
	if t == nil {
		return TopicInfo{}, fmt.Errorf("%w: %s", ErrNoTopic, name)
	}
	return t.info, nil
}

// CreateTopic implements Log.
func (m *Memory) CreateTopic(ctx context.Context, spec TopicSpec) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkLocked(ctx, OpCreate, spec.Name, -1); err != nil {
		return err
	}
	if spec.Name == "" || spec.Partitions < 1 {
		return fmt.Errorf("eventlog: create topic %q with %d partitions", spec.Name, spec.Partitions)
	}
	if t := m.topics[spec.Name]; t != nil {
		if len(t.partitions) != spec.Partitions {
			return fmt.Errorf("%w: %s has %d, not %d", ErrTopicDiffers, spec.Name, len(t.partitions), spec.Partitions)
		}
		return nil
	}
	m.made++
	m.topics[spec.Name] = &memTopic{
		info:       TopicInfo{ID: fmt.Sprintf("memory-%d", m.made), Partitions: spec.Partitions, Replication: max(spec.Replication, 1)},
		partitions: make([]memPartition, spec.Partitions),
	}
	return nil
}

// DeleteTopic removes a topic with all its records. Made anew, it has another ID.
func (m *Memory) DeleteTopic(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.topics, name)
	m.broadcastLocked()
}

// TrimTo raises a partition's start, as retention does.
func (m *Memory) TrimTo(topic string, partition int32, start int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.partitionLocked(topic, partition)
	if err != nil {
		return err
	}
	if start < p.start || start > p.end() {
		return fmt.Errorf("%w: trim to %d of [%d, %d]", ErrOutOfRange, start, p.start, p.end())
	}
	p.records = append([]Record(nil), p.records[start-p.start:]...)
	p.start = start
	m.broadcastLocked()
	return nil
}

// TruncateTo cuts a partition's end off, as a power cut of all brokers may.
func (m *Memory) TruncateTo(topic string, partition int32, end int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.partitionLocked(topic, partition)
	if err != nil {
		return err
	}
	if end < p.start || end > p.end() {
		return fmt.Errorf("%w: truncate to %d of [%d, %d]", ErrOutOfRange, end, p.start, p.end())
	}
	// Copied, since readers were given slices of the old array and its tail is written anew.
	p.records = append([]Record(nil), p.records[:end-p.start]...)
	m.broadcastLocked()
	return nil
}

// Committed implements Log.
func (m *Memory) Committed(ctx context.Context, group, topic string) (map[int32]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkLocked(ctx, OpCommitted, topic, -1); err != nil {
		return nil, err
	}
	t := m.topics[topic]
	if t == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoTopic, topic)
	}
	offsets := make(map[int32]int64)
	for i := range t.partitions {
		if at, ok := m.committed[memCommit{group, memPartitionID{topic, int32(i)}}]; ok {
			offsets[int32(i)] = at
		}
	}
	return offsets, nil
}

// Commit implements Log.
func (m *Memory) Commit(ctx context.Context, group, topic string, offsets map[int32]int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkLocked(ctx, OpCommit, topic, -1); err != nil {
		return err
	}
	for p := range offsets {
		if _, err := m.partitionLocked(topic, p); err != nil {
			return err
		}
	}
	for p, at := range offsets {
		m.committed[memCommit{group, memPartitionID{topic, p}}] = at
	}
	return nil
}

// Close implements Log.
func (m *Memory) Close(ctx context.Context) error {
	m.mu.Lock()
	again := m.closed
	m.closed = true
	m.mu.Unlock()
	if again {
		return nil
	}
	m.drain(ctx)
	if !m.opts.Manual {
		close(m.stop)
		m.worker.Wait()
	}
	var err error
	for m.step(fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)) {
		err = ctx.Err()
	}
	m.mu.Lock()
	m.ended = true
	m.broadcastLocked()
	m.mu.Unlock()
	return err
}

// drain answers what is pending, until ctx ends.
func (m *Memory) drain(ctx context.Context) {
	for ctx.Err() == nil {
		if m.Step() {
			continue
		}
		m.mu.Lock()
		left, changed := len(m.pending), m.changed
		m.mu.Unlock()
		if left == 0 {
			return
		}
		select { // held back: released, or given up
		case <-changed:
		case <-ctx.Done():
		}
	}
}
