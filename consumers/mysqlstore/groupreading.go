package mysqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"math"

	"github.com/futurechat/future/clientsdk/wire"
	"github.com/futurechat/future/router/chat"
)

// changeKey names a change of a group.
type changeKey struct {
	group   int64
	version uint64
}

// change is where its notice stands: at seq, as the n-th message, and the own-th of its sender.
type change struct {
	seq         uint64
	n           int64
	sender, own int64
}

// changes reads those that history has stored.
func (s *Store) changes(ctx context.Context, keys []changeKey) (map[changeKey]change, error) {
	args := make([]any, 0, 2*len(keys))
	for _, k := range keys {
		if k.version != 0 {
			args = append(args, k.group, position(k.version))
		}
	}
	found := make(map[changeKey]change, len(keys))
	err := s.queryIn(ctx, s.read, func(rows *sql.Rows) error {
		var k changeKey
		var c change
		err := rows.Scan(&k.group, &k.version, &c.seq, &c.n, &c.sender, &c.own)
		found[k] = c
		return err
	}, sqlGroupChanges, nil, args, 2)
	return found, err
}

// noteChanges stores where the notices among rows, which have their places, stand. The first of a version counts.
func (s *Store) noteChanges(ctx context.Context, tx *sql.Tx, rows []*row) error {
	var notes rowArgs
	for _, r := range rows {
		version := r.m.GetPayload().GetGroup().GetVersion()
		if c, err := wire.ParseConversation(r.id.Conversation); version != 0 && err == nil && c.Kind == 'g' {
			notes.add(0, c.A, position(version), position(r.m.GetSeq()), r.n, r.id.Sender, r.own)
		}
	}
	return s.insertRows(ctx, tx, sqlNoteChange, &notes)
}

// Readable implements chat.GroupStore.
func (s *Store) Readable(ctx context.Context, group, user int64) (spans []chat.SeqSpan, pending bool, err error) {
	all, err := s.spansOf(ctx, sqlSpansIn, user, group)
	if err != nil {
		return nil, false, fmt.Errorf("readable: %w", err)
	}
	var keys []changeKey
	for _, m := range all {
		keys = append(keys, changeKey{group, m.Joined}, changeKey{group, m.Left})
	}
	at, err := s.changes(ctx, keys)
	if err != nil {
		return nil, false, fmt.Errorf("readable: %w", err)
	}
	for _, m := range all {
		from, to := at[changeKey{group, m.Joined}].seq, uint64(math.MaxUint64)
		if m.Left != 0 {
			to = at[changeKey{group, m.Left}].seq
		}
		if from == 0 || to == 0 {
			return spans, true, nil
		}
		spans = append(spans, chat.SeqSpan{From: from, To: to})
	}
	return spans, false, nil
}

// groupSpan is a user's span in a group.
type groupSpan struct {
	group int64
	chat.Span
	again bool // he had been a member before
}

// spansOf reads spans of one user, by group and rising.
func (s *Store) spansOf(ctx context.Context, statement string, args ...any) ([]groupSpan, error) {
	var all []groupSpan
	err := s.query(ctx, s.read, func(rows *sql.Rows) error {
		var m groupSpan
		err := rows.Scan(&m.group, &m.Joined, &m.Left)
		m.again = len(all) > 0 && all[len(all)-1].group == m.group
		all = append(all, m)
		return err
	}, statement, args...)
	return all, err
}

// groupHeads gives a user's heads in groups. A member's reads from his joining on, and of who has left up to that. What history has no
// notice of yet is left out. The cursors of these groups, if they have one, are given.
func (s *Store) groupHeads(ctx context.Context, user int64, spans []groupSpan, cursors map[string]cursor) ([]chat.Head, error) {
	newest := make(map[int64]groupSpan, len(spans))
	var order []int64
	for _, m := range spans {
		if _, known := newest[m.group]; !known {
			order = append(order, m.group)
		}
		newest[m.group] = m
	}
	var keys []changeKey
	var names []string
	var counted []senderKey
	for _, g := range order {
		keys = append(keys, changeKey{g, newest[g].Joined}, changeKey{g, newest[g].Left})
		names = append(names, wire.Group(g))
		counted = append(counted, senderKey{wire.Group(g), user})
	}
	at, err := s.changes(ctx, keys)
	if err != nil {
		return nil, err
	}
	known, err := s.conversations(ctx, s.read, names)
	if err != nil {
		return nil, err
	}
	owns, err := s.senders(ctx, s.read, counted)
	if err != nil {
		return nil, err
	}
	var heads []chat.Head
	for _, g := range order {
		name, m := wire.Group(g), newest[g]
		joined, c := at[changeKey{g, m.Joined}], known[name]
		if joined.seq == 0 || c == nil {
			continue
		}
		end := change{seq: c.seq, n: c.n}
		if left := at[changeKey{g, m.Left}]; left.seq != 0 {
			end = left
		}
		read, err := s.readFrom(ctx, user, cursors[name], name, joined, m.again)
		if err != nil {
			return nil, err
		}
		unread := max(end.n-read.n-(owns[senderKey{name, user}]-read.own), 0)
		heads = append(heads, chat.Head{Conversation: name, Seq: end.seq, ReadSeq: read.seq, Unread: uint32(min(unread, math.MaxUint32))})
	}
	return heads, nil
}

// readFrom is a member's cursor, or where he joined if that is above it: what was said before is not for him to read.
func (s *Store) readFrom(ctx context.Context, user int64, at cursor, name string, joined change, again bool) (cursor, error) {
	if at.seq >= joined.seq {
		return at, nil
	}
	from := cursor{conversation: name, seq: joined.seq, n: joined.n, own: at.own}
	switch {
	case joined.sender == user:
		from.own = joined.own // he made the group
		return from, nil
	case !again:
		return from, nil // nobody writes before he joins
	}
	err := s.queryRow(ctx, s.read, sqlOwnAt, []any{name, position(at.seq), position(joined.seq), user}, &from.own)
	if err != nil && !isNotFound(err) {
		return cursor{}, err
	}
	return from, nil
}
