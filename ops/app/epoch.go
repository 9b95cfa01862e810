package app

import (
	"context"
	"errors"
	"fmt"
	"io"

	"go.uber.org/zap"

	"github.com/futurechat/future/ops/config"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/eventlog/kafkalog"
)

// RaiseEpoch takes the log as it is now for the one that is known, under a higher epoch: the only way on after a halt
// (eventlog.ErrHalted). It tells out what was lost; unless sure, that is all it does. Everything that the log has is read again
// from its start: what the database knows already is dropped there by its identity. A topic that is gone is made.
//
// No other process of the cluster may run meanwhile: each knows the epoch that it started with.
func RaiseEpoch(ctx context.Context, cfg *config.Config, sure bool, out io.Writer) (err error) {
	store, err := openStore(ctx, cfg.MySQL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	l, err := openLog(cfg, zap.NewNop(), kafkalog.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(ctx)) }()

	known, err := store.LogState(ctx, chat.TopicMessages)
	if err != nil {
		return fmt.Errorf("what is known of the log: %w", err)
	}
	if known.Epoch >= eventlog.MaxEpoch {
		return fmt.Errorf("the epoch is %d, the highest there is", known.Epoch)
	}
	info, err := l.Topic(ctx, chat.TopicMessages)
	if errors.Is(err, eventlog.ErrNoTopic) && sure {
		if err = makeTopic(ctx, l, cfg, chat.TopicMessages, known.Partitions, out); err == nil {
			info, err = l.Topic(ctx, chat.TopicMessages)
		}
	}
	if errors.Is(err, eventlog.ErrNoTopic) {
		fmt.Fprintf(out, "topic %s is gone, with all that was in it and not yet in the database\n", chat.TopicMessages)
		return errNotSure
	}
	if err != nil {
		return err
	}
	starts, err := compare(ctx, l, known, info, out)
	if err != nil {
		return err
	}
	if !sure {
		return errNotSure
	}
	for p, start := range starts {
		// History's offset may move down here, which nobody else may do.
		if from := known.Seen[p]; from != start {
			if _, err := store.WriteBatch(ctx, chat.Batch{Topic: chat.TopicMessages, Partition: p, From: from, Next: start}); err != nil {
				return fmt.Errorf("offset of partition %d: %w", p, err)
			}
		}
	}
	if err := l.Commit(ctx, deliver.Group, chat.TopicMessages, starts); err != nil {
		return fmt.Errorf("routers' offsets: %w", err)
	}
	raised := eventlog.State{Topic: chat.TopicMessages, ID: info.ID, Partitions: info.Partitions, Epoch: known.Epoch + 1}
	if err := store.SaveLogState(ctx, raised); err != nil {
		return err
	}
	fmt.Fprintf(out, "the epoch is %d: start the cluster's processes\n", raised.Epoch)
	return nil
}

// errNotSure ends RaiseEpoch before it has changed anything.
var errNotSure = errors.New("nothing was changed; to go on with the log as it is, stop all processes of the cluster and repeat with -yes")

// compare tells how the log differs from what is known, and gives where each partition begins.
func compare(ctx context.Context, l eventlog.Log, known eventlog.State, info eventlog.TopicInfo, out io.Writer) (map[int32]int64, error) {
	if info.ID != known.ID {
		fmt.Fprintf(out, "topic %s was made anew: id %s, known is %s\n", known.Topic, info.ID, known.ID)
	}
	if info.Partitions != known.Partitions {
		fmt.Fprintf(out, "it has %d partitions, known are %d\n", info.Partitions, known.Partitions)
	}
	starts := make(map[int32]int64, info.Partitions)
	for p := range int32(info.Partitions) {
		start, end, err := l.Bounds(ctx, known.Topic, p)
		if err != nil {
			return nil, err
		}
		starts[p] = start
		switch seen := known.Seen[p]; {
		case info.ID != known.ID && seen > 0:
			fmt.Fprintf(out, "partition %d: records up to %d were stored, what came after them is lost\n", p, seen-1)
		case seen < start:
			fmt.Fprintf(out, "partition %d: records %d to %d are gone unread\n", p, seen, start-1)
		case seen > end:
			fmt.Fprintf(out, "partition %d: records %d to %d, which were stored, are no longer in the log\n", p, end, seen-1)
		}
	}
	return starts, nil
}
