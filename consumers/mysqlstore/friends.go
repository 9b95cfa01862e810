package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

func pairInto(p *chat.Pair) []any {
	return []any{&p.Lo.ID, &p.Hi.ID, &p.State, &p.AskedBy, &p.Greeting, &p.Version, &p.ChangedMs}
}

// Pair implements chat.FriendStore.
func (s *Store) Pair(ctx context.Context, a, b int64) (chat.Pair, error) {
	p, err := s.pair(ctx, s.read, sqlPair, min(a, b), max(a, b))
	if err != nil {
		return chat.Pair{}, fmt.Errorf("pair: %w", err)
	}
	return p, nil
}

func (s *Store) pair(ctx context.Context, on runner, statement string, lo, hi int64) (chat.Pair, error) {
	var p chat.Pair
	err := s.queryRow(ctx, on, statement, []any{lo, hi}, pairInto(&p)...)
	if err != nil && !isNotFound(err) {
		return chat.Pair{}, err
	}
	names, err := s.names(ctx, on, lo, hi)
	p.Lo, p.Hi = chat.Account{ID: lo, Name: names[lo]}, chat.Account{ID: hi, Name: names[hi]}
	return p, err
}

// Pairs implements chat.FriendStore.
func (s *Store) Pairs(ctx context.Context, user int64, limit int) ([]chat.Pair, error) {
	names, err := s.names(ctx, s.read, user)
	if err != nil {
		return nil, fmt.Errorf("pairs: %w", err)
	}
	var pairs []chat.Pair
	err = s.query(ctx, s.read, func(rows *sql.Rows) error {
		var p chat.Pair
		var other string
		if err := rows.Scan(append(pairInto(&p), &other)...); err != nil {
			return err
		}
		p.Lo.Name, p.Hi.Name = names[user], other
		if p.Hi.ID == user {
			p.Lo.Name, p.Hi.Name = other, names[user]
		}
		pairs = append(pairs, p)
		return nil
	}, sqlPairs, user, user, limit)
	if err != nil {
		return nil, fmt.Errorf("pairs: %w", err)
	}
	return pairs, nil
}

// CountPairs implements chat.FriendStore.
func (s *Store) CountPairs(ctx context.Context, user int64) (n int, err error) {
	if err := s.queryRow(ctx, s.read, sqlCountPairs, []any{user, user}, &n); err != nil {
		return 0, fmt.Errorf("count pairs: %w", err)
	}
	return n, nil
}

// ChangePair implements chat.FriendStore.
func (s *Store) ChangePair(ctx context.Context, lo, hi int64, decide func(chat.Pair) (chat.Pair, *pb.Message, error)) (chat.Pair, chat.Outgoing, error) {
	if lo >= hi {
		return chat.Pair{}, chat.Outgoing{}, errors.New("change pair: lower and higher account are the wrong way round")
	}
	var p chat.Pair
	var out chat.Outgoing
	err := s.inTx(ctx, "change pair", func(tx *sql.Tx) (err error) {
		if _, err := s.exec(ctx, tx, sqlLockPair, lo, hi); err != nil {
			return err
		}
		if p, err = s.pair(ctx, tx, sqlReadLockedPair, lo, hi); err != nil {
			return err
		}
		var notice *pb.Message
		if p, notice, err = decide(p); err != nil {
			return refusal{err}
		}
		if _, err := s.exec(ctx, tx, sqlChangePair, p.State, p.AskedBy, p.Greeting, position(p.Version), p.ChangedMs, lo, hi); err != nil {
			return err
		}
		out, err = s.putOutgoing(ctx, tx, notice, p.Version)
		return err
	})
	if err != nil {
		return chat.Pair{}, chat.Outgoing{}, err
	}
	return p, out, nil
}

// Unsent implements chat.OutboxStore.
func (s *Store) Unsent(ctx context.Context, conversation string, upTo uint64, limit int) ([]chat.Outgoing, error) {
	statement, args := sqlUnsent, []any{limit}
	if conversation != "" {
		statement, args = sqlUnsentOf, []any{conversation, position(upTo), limit}
	}
	var list []chat.Outgoing
	err := s.query(ctx, s.read, func(rows *sql.Rows) error {
		o := chat.Outgoing{Message: new(pb.Message)}
		var encoded []byte
		if err := rows.Scan(&o.ID, &o.Version, &encoded); err != nil {
			return err
		}
		if err := o.Message.UnmarshalVT(encoded); err != nil {
			return fmt.Errorf("row %d: %w", o.ID, err)
		}
		list = append(list, o)
		return nil
	}, statement, args...)
	if err != nil {
		return nil, fmt.Errorf("unsent: %w", err)
	}
	return list, nil
}

// Sent implements chat.OutboxStore.
func (s *Store) Sent(ctx context.Context, ids []int64) error {
	return s.inTx(ctx, "sent", func(tx *sql.Tx) error {
		return s.execIn(ctx, tx, sqlSent, anys(ids))
	})
}
