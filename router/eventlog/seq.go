package eventlog

import (
	"context"
	"errors"
	"fmt"
)

// MaxEpoch is the highest epoch of a log: a seq then still is an integer that a double holds exactly, so no client rounds it.
const MaxEpoch = 31

const offsetBits = 48

// Seq is a record's position as clients see it, `epoch<<48 | offset`. It rises within a partition, also when the log was made
// anew under a higher epoch. Epochs begin at 1, so no seq is 0.
func Seq(epoch uint32, offset int64) uint64 { return uint64(epoch)<<offsetBits | uint64(offset) }

// SplitSeq is the inverse of Seq.
func SplitSeq(seq uint64) (epoch uint32, offset int64) {
	return uint32(seq >> offsetBits), int64(seq & (1<<offsetBits - 1))
}

// State is what the cluster remembers of a topic, outside the log, so that it notices when the log is not the one it knew.
type State struct {
	Topic      string
	ID         string
	Partitions int
	// Epoch is 1 to MaxEpoch; an operator raises it when the log was lost.
	Epoch uint32
	// Seen is, per partition, the offset that must be within the log: everything below it was read before.
	Seen map[int32]int64
}

// ErrHalted is matched by errors.Is for a log that is not the one that was known. Nobody may go on by himself: records would be
// skipped, or others taken for those that were known.
var ErrHalted = errors.New("eventlog: halted")

// Verify compares the log with what is remembered of it, and answers ErrHalted, naming what differs and the range of offsets
// concerned, or any error of the log.
func Verify(ctx context.Context, log Log, known State) error {
	info, err := log.Topic(ctx, known.Topic)
	if err != nil {
		return fmt.Errorf("topic %s: %w", known.Topic, err)
	}
	if info.ID != known.ID {
		return fmt.Errorf("%w: topic %s has id %s, known is %s: it was deleted and made anew", ErrHalted, known.Topic, info.ID, known.ID)
	}
	if info.Partitions != known.Partitions {
		return fmt.Errorf("%w: topic %s has %d partitions, known are %d: conversations would part from their past",
			ErrHalted, known.Topic, info.Partitions, known.Partitions)
	}
	for p, seen := range known.Seen {
		if err := VerifyOffset(ctx, log, known.Topic, p, seen); err != nil {
			return err
		}
	}
	return nil
}

// VerifyOffset answers ErrHalted if offset is not within one partition of the log.
func VerifyOffset(ctx context.Context, log Log, topic string, partition int32, offset int64) error {
	start, end, err := log.Bounds(ctx, topic, partition)
	switch {
	case err != nil:
		return fmt.Errorf("bounds of %s/%d: %w", topic, partition, err)
	case offset < start:
		return fmt.Errorf("%w: %s/%d begins at %d, but %d is due: records %d to %d are gone unread", ErrHalted, topic, partition, start, offset, offset, start-1)
	case offset > end:
		return fmt.Errorf("%w: %s/%d ends at %d, but all below %d was seen: records %d to %d were lost", ErrHalted, topic, partition, end, offset, end, offset-1)
	}
	return nil
}
