package eventlog

import (
	"context"
	"fmt"
	"slices"
)

// Open implements Log.
func (m *Memory) Open(ctx context.Context, topic string, partition int32, from int64) (Reader, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkLocked(ctx, OpOpen, topic, partition); err != nil {
		return nil, err
	}
	p, err := m.partitionLocked(topic, partition)
	if err != nil {
		return nil, err
	}
	if from < p.start || from > p.end() {
		return nil, fmt.Errorf("%w: %s/%d at %d of [%d, %d]", ErrOutOfRange, topic, partition, from, p.start, p.end())
	}
	return &memReader{m: m, topic: topic, partition: partition, at: from, closed: make(chan struct{})}, nil
}

type memReader struct {
	m         *Memory
	topic     string
	partition int32
	at        int64         // owned by the goroutine that calls Next
	closed    chan struct{} // closed under m.mu
}

// Next implements Reader.
func (r *memReader) Next(ctx context.Context) ([]Record, error) {
	for {
		records, changed, err := r.take()
		if err != nil || len(records) > 0 {
			return records, err
		}
		select {
		case <-changed:
		case <-r.closed:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *memReader) take() ([]Record, <-chan struct{}, error) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	select {
	case <-r.closed:
		return nil, nil, ErrClosed
	default:
	}
	if r.m.ended {
		return nil, nil, ErrClosed
	}
	if err := r.m.opts.Fault(OpNext, r.topic, r.partition); err != nil {
		return nil, nil, err
	}
	p, err := r.m.partitionLocked(r.topic, r.partition)
	if err != nil {
		return nil, nil, err
	}
	if r.at < p.start || r.at > p.end() {
		return nil, nil, fmt.Errorf("%w: %s/%d at %d of [%d, %d]", ErrOutOfRange, r.topic, r.partition, r.at, p.start, p.end())
	}
	rest := p.records[r.at-p.start:]
	records := slices.Clone(rest[:min(len(rest), r.m.opts.MaxBatch)])
	r.at += int64(len(records))
	return records, r.m.changed, nil
}

// Close implements Reader.
func (r *memReader) Close() error {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	select {
	case <-r.closed:
	default:
		close(r.closed)
	}
	return nil
}
