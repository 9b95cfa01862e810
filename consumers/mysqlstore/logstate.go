package mysqlstore

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/futurechat/future/router/eventlog"
)

// LogState implements chat.LogStore.
func (s *Store) LogState(ctx context.Context, topic string) (eventlog.State, error) {
	state := eventlog.State{Topic: topic}
	err := s.queryRow(ctx, s.read, sqlLogState, []any{topic}, &state.ID, &state.Partitions, &state.Epoch)
	if err == nil {
		state.Seen, err = s.HistoryOffsets(ctx, topic)
	}
	if err != nil {
		return eventlog.State{}, fmt.Errorf("log state: %w", err)
	}
	return state, nil
}

// SaveLogState implements chat.LogStore.
func (s *Store) SaveLogState(ctx context.Context, state eventlog.State) error {
	return s.inTx(ctx, "save log state", func(tx *sql.Tx) error {
		_, err := s.exec(ctx, tx, sqlSaveLogState, state.Topic, state.ID, state.Partitions, state.Epoch)
		return err
	})
}

// NextRouterEpoch implements chat.LogStore.
func (s *Store) NextRouterEpoch(ctx context.Context, topic string, partition int32) (epoch uint64, err error) {
	err = s.inTx(ctx, "next router epoch", func(tx *sql.Tx) error {
		if _, err := s.exec(ctx, tx, sqlRaiseRouterEpoch, topic, partition); err != nil {
			return err
		}
		return s.queryRow(ctx, tx, sqlRouterEpoch, []any{topic, partition}, &epoch)
	})
	return epoch, err
}

// HistoryOffsets implements chat.HistoryStore.
func (s *Store) HistoryOffsets(ctx context.Context, topic string) (map[int32]int64, error) {
	offsets := make(map[int32]int64)
	err := s.query(ctx, s.read, func(rows *sql.Rows) error {
		var partition int32
		var next int64
		err := rows.Scan(&partition, &next)
		offsets[partition] = next
		return err
	}, sqlOffsets, topic)
	if err != nil {
		return nil, fmt.Errorf("history offsets: %w", err)
	}
	return offsets, nil
}
