// Package eventlog is the port of the ordered, partitioned, durable log that every message goes through, with a memory
// implementation for tests and simulation. It knows no broker; the adapter for Kafka is package kafkalog, and package
// eventlogtest holds what every implementation must pass.
//
// The promise that everything else rests on is about order: within a partition, records are written in the order of their
// Append calls, each at most once, and a failed append can never be overtaken by one that was appended behind it.
package eventlog

import (
	"context"
	"errors"
	"hash/fnv"
	"io"
	"time"
)

// What appends, reads and lookups answer. Match with errors.Is; the text around them is for operators.
var (
	// ErrBacklog refuses an append because the bound of records or bytes not yet answered is reached. Come back later.
	ErrBacklog = errors.New("eventlog: backlog full")
	// ErrUnavailable says that the log could not be reached or would not take the record. It was surely not written.
	ErrUnavailable = errors.New("eventlog: unavailable, not written")
	// ErrUnknownOutcome says that the record may or may not have been written.
	ErrUnknownOutcome = errors.New("eventlog: outcome unknown, may be written")
	// ErrTooLarge says that the record is over the limit. It was surely not written, and never will be.
	ErrTooLarge = errors.New("eventlog: record too large")
	// ErrBehindFailed says that an append before this one failed, so this one was not tried. It was surely not written.
	ErrBehindFailed = errors.New("eventlog: an earlier append failed, not written")
	// ErrOutOfRange says that an offset is not, or no longer, within the log: something would be skipped.
	ErrOutOfRange = errors.New("eventlog: offset out of range")
	// ErrNoTopic says that there is no such topic, or no such partition of it.
	ErrNoTopic = errors.New("eventlog: no such topic or partition")
	// ErrTopicDiffers says that a topic exists with another number of partitions than asked for.
	ErrTopicDiffers = errors.New("eventlog: topic exists with other partitions")
	// ErrClosed says that the log or the reader was closed. An append refused with it was surely not written.
	ErrClosed = errors.New("eventlog: closed")
)

// Header is a named value carried beside a record.
type Header struct {
	Key   string
	Value []byte
}

// Entry is a record to append. Its slices belong to the log from Append until done is called, and must not be changed.
type Entry struct {
	Topic     string
	Partition int32
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Size is what the entry counts against the bounds: its bytes plus an allowance for framing.
func (e Entry) Size() int {
	n := 64 + len(e.Key) + len(e.Value)
	for _, h := range e.Headers {
		n += 10 + len(h.Key) + len(h.Value)
	}
	return n
}

// Appended says where and when a record was written: Time is the log's own clock (LogAppendTime), in milliseconds.
type Appended struct {
	Partition int32
	Offset    int64
	Time      time.Time
}

// Record is a record read back. Its slices are read-only and stay valid; batches share memory, so copy what is kept long.
type Record struct {
	Partition int32
	Offset    int64
	Time      time.Time
	Key       []byte
	Value     []byte
	Headers   []Header
}

// TopicSpec describes a topic to create. Retention of zero keeps records forever.
type TopicSpec struct {
	Name        string
	Partitions  int
	Replication int
	MinInSync   int
	Retention   time.Duration
}

// TopicInfo is what is known of a topic. ID changes when a topic of the same name is deleted and made anew: its offsets
// then mean other records.
type TopicInfo struct {
	ID          string
	Partitions  int
	Replication int
}

// Log is an ordered, partitioned, durable log.
type Log interface {
	// Append takes a record for writing and never blocks. With a nil error, done is called exactly once, from another
	// goroutine or before Append returns; for one partition in the order of the Append calls. With an error (ErrBacklog,
	// ErrTooLarge, ErrBehindFailed, ErrClosed) it is not called, and nothing was written.
	//
	// done gets where the record is, once it is on all in-sync replicas, or ErrUnavailable, ErrUnknownOutcome, ErrTooLarge,
	// ErrBehindFailed or ErrNoTopic. When an append fails, all that are queued behind it for that partition fail with
	// ErrBehindFailed; until the last of those done calls has returned, Append refuses that partition with ErrBehindFailed.
	// So whoever appends again after a failure knows of it. done must not block.
	Append(e Entry, done func(Appended, error)) error

	// Open reads a partition from an offset on. from may be the log's end. An offset below the log's start or above its end
	// is ErrOutOfRange, compared before anything is read.
	Open(ctx context.Context, topic string, partition int32, from int64) (Reader, error)

	// Bounds gives the offset of the first record that is kept, and the offset that the next record will get.
	Bounds(ctx context.Context, topic string, partition int32) (start, end int64, err error)

	// Topic looks a topic up, or answers ErrNoTopic.
	Topic(ctx context.Context, name string) (TopicInfo, error)

	// CreateTopic makes a topic stamped with the log's own clock. One that exists with as many partitions is left as it is;
	// with another number it is ErrTopicDiffers.
	CreateTopic(ctx context.Context, spec TopicSpec) error

	// Committed gives the next offset to read per partition, for those that the group ever committed.
	Committed(ctx context.Context, group, topic string) (map[int32]int64, error)

	// Commit stores the next offset to read for some partitions. Others stay as they are. Nothing is fenced: the last wins.
	Commit(ctx context.Context, group, topic string, offsets map[int32]int64) error

	// Close refuses new appends, waits for those pending until ctx ends, then fails what is left, and ends all readers.
	// When it returns, every done was called.
	Close(ctx context.Context) error
}

// Reader reads one partition in offset order. It is for one goroutine, but Close may come from any.
type Reader interface {
	// Next waits for at least one record and gives all that are at hand, up to a bounded batch. It never skips: when the
	// record that is due is gone it answers ErrOutOfRange. A record at hand is given even if ctx has ended, so a context that
	// has ended makes it a poll. After an error other than ErrOutOfRange and ErrClosed it may be called again, and goes on
	// where it was.
	Next(ctx context.Context) ([]Record, error)
	io.Closer
}

// PartitionOf gives the partition of a conversation: FNV-1a (32 bits) modulo the number of partitions. It is part of the
// stored format: a change would part a conversation from its past.
func PartitionOf(conversation string, partitions int) int32 {
	h := fnv.New32a()
	_, _ = io.WriteString(h, conversation)
	return int32(h.Sum32() % uint32(partitions))
}
