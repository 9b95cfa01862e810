package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/ops/config"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/eventlog/kafkalog"
)

// Migrate makes or updates tables and topics, and tells out what it does. It waits for servers that are away until ctx ends.
func Migrate(ctx context.Context, cfg *config.Config, out io.Writer) error {
	return migrate(ctx, cfg, zap.NewNop(), out)
}

func migrate(ctx context.Context, cfg *config.Config, log *zap.Logger, out io.Writer) (err error) {
	if out == nil {
		out = io.Discard
	}
	store, err := openStore(ctx, cfg.MySQL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := patiently(ctx, out, "database at "+databaseName(cfg.MySQL), store.Ping); err != nil {
		return err
	}
	done, err := store.Migrate(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "tables: current, %d migrations applied\n", done)

	l, err := openLog(cfg, log, kafkalog.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(ctx)) }()
	reach := func(ctx context.Context) error {
		_, err := l.Topic(ctx, chat.TopicMessages)
		if errors.Is(err, eventlog.ErrNoTopic) {
			return nil
		}
		return err
	}
	if err := patiently(ctx, out, "kafka at "+cfg.Kafka.String(), reach); err != nil {
		return err
	}
	known, err := store.LogState(ctx, chat.TopicMessages)
	if err != nil && !errors.Is(err, chat.ErrNotFound) {
		return err
	}
	if err == nil {
		// It was made before: only compare. To make it anew would take the offsets of lost messages for others.
		if err := eventlog.Verify(ctx, l, known); err != nil {
			return err
		}
		fmt.Fprintf(out, "topic %s: current, %d partitions\n", chat.TopicMessages, known.Partitions)
		return makeTopic(ctx, l, cfg, chat.TopicPush, known.Partitions, out)
	}
	if err := makeTopic(ctx, l, cfg, chat.TopicMessages, cfg.Partitions, out); err != nil {
		return err
	}
	info, err := l.Topic(ctx, chat.TopicMessages)
	if err != nil {
		return err
	}
	if err := store.SaveLogState(ctx, eventlog.State{
		Topic: chat.TopicMessages, ID: info.ID, Partitions: info.Partitions, Epoch: 1,
	}); err != nil {
		return err
	}
	return makeTopic(ctx, l, cfg, chat.TopicPush, cfg.Partitions, out)
}

func makeTopic(ctx context.Context, l eventlog.Log, cfg *config.Config, name string, partitions int, out io.Writer) error {
	err := l.CreateTopic(ctx, eventlog.TopicSpec{
		Name: name, Partitions: partitions, Replication: cfg.Replication, MinInSync: cfg.MinInSync, Retention: cfg.Retention,
	})
	if err != nil {
		return fmt.Errorf("topic %s: %w", name, err)
	}
	fmt.Fprintf(out, "topic %s: %d partitions, %d copies, %d of them before a message is acknowledged\n",
		name, partitions, cfg.Replication, cfg.MinInSync)
	return nil
}

// patiently tries until it works.
func patiently(ctx context.Context, out io.Writer, what string, try func(context.Context) error) error {
	const pause, patience = time.Second, 5 * time.Second
	for said := false; ; said = true {
		attempt, cancel := context.WithTimeout(ctx, patience)
		err := try(attempt)
		cancel()
		if err == nil {
			return nil
		}
		if !said {
			fmt.Fprintf(out, "waiting for %s: %v\n", what, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}
