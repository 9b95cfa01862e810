package mysqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

// scanMessage reads a row of messageColumns.
func scanMessage(rows *sql.Rows) (*pb.Message, error) {
	m := &pb.Message{PrevKnown: true, Sender: new(pb.User)}
	var (
		n, sender   int64
		id          uuid.UUID
		body        []byte
		replySender sql.NullInt64
		replyID     []byte
	)
	err := rows.Scan(&m.Conversation, &m.Seq, &n, &m.PrevSeq, &sender, &m.Sender.Name, &id, &m.TimeMs, &body, &replySender, &replyID)
	if err != nil {
		return nil, err
	}
	m.Sender.Id, m.ClientMsgId = wire.FormatID(sender), id.String()
	if replySender.Valid {
		reply, err := uuid.FromBytes(replyID)
		if err != nil {
			return nil, fmt.Errorf("%s/%d: reply: %w", m.Conversation, m.Seq, err)
		}
		m.ReplyTo = &pb.Ref{SenderId: wire.FormatID(replySender.Int64), ClientMsgId: reply.String()}
	}
	if m.Payload, err = decodeBody(body); err != nil {
		return nil, fmt.Errorf("%s/%d: %w", m.Conversation, m.Seq, err)
	}
	return m, nil
}

// Messages implements chat.MessageStore.
func (s *Store) Messages(ctx context.Context, conversation string, after, before uint64, limit int, forward bool) ([]*pb.Message, error) {
	statement := sqlBackward
	if forward {
		statement = sqlForward
	}
	if before == 0 {
		before = math.MaxInt64
	}
	var page []*pb.Message
	err := s.query(ctx, s.read, func(rows *sql.Rows) error {
		m, err := scanMessage(rows)
		page = append(page, m)
		return err
	}, statement, conversation, position(after), position(before), max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("messages: %w", err)
	}
	if !forward {
		slices.Reverse(page)
	}
	return page, nil
}

// FindMessage implements chat.MessageStore.
func (s *Store) FindMessage(ctx context.Context, id chat.Identity) (*pb.Message, error) {
	u, err := parseMessageID(id.ClientMsgID)
	if err != nil {
		return nil, fmt.Errorf("find message: %w: %w", chat.ErrNotFound, err)
	}
	var found *pb.Message
	err = s.query(ctx, s.read, func(rows *sql.Rows) (err error) {
		found, err = scanMessage(rows)
		return err
	}, sqlFind, id.Conversation, id.Sender, u)
	if err == nil && found == nil {
		err = chat.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("find message: %w", err)
	}
	return found, nil
}

// parseMessageID gives the bytes of an id in its one spelling.
func parseMessageID(id string) ([]byte, error) {
	u, err := uuid.Parse(id)
	if err != nil {
		return nil, fmt.Errorf("client_msg_id: %w", err)
	}
	if u.String() != id {
		return nil, fmt.Errorf("client_msg_id is not spelled as it should be")
	}
	return u[:], nil
}

// LastMessages implements chat.MessageStore.
func (s *Store) LastMessages(ctx context.Context, conversations []string) (map[string]*pb.Message, error) {
	last := make(map[string]*pb.Message, len(conversations))
	heads, err := s.conversations(ctx, s.read, conversations)
	if err != nil {
		return nil, fmt.Errorf("last messages: %w", err)
	}
	at := make([]any, 0, 2*len(heads))
	for _, c := range heads {
		at = append(at, c.name, position(c.seq))
	}
	err = s.queryIn(ctx, s.read, func(rows *sql.Rows) error {
		m, err := scanMessage(rows)
		if err == nil {
			last[m.GetConversation()] = m
		}
		return err
	}, sqlAt, nil, at, 2)
	if err != nil {
		return nil, fmt.Errorf("last messages: %w", err)
	}
	return last, nil
}

// cursor is how far a user has read a conversation.
type cursor struct {
	conversation string
	seq          uint64
	n, own       int64
}

// Heads implements chat.MessageStore.
func (s *Store) Heads(ctx context.Context, user int64) ([]chat.Head, error) {
	cursors, err := s.cursors(ctx, sqlCursors, user)
	if err != nil {
		return nil, fmt.Errorf("heads: %w", err)
	}
	spans, err := s.spansOf(ctx, sqlSpansOf, user)
	if err != nil {
		return nil, fmt.Errorf("heads: %w", err)
	}
	heads, err := s.heads(ctx, user, cursors, spans)
	if err != nil {
		return nil, fmt.Errorf("heads: %w", err)
	}
	return heads, nil
}

// Head implements chat.MessageStore.
func (s *Store) Head(ctx context.Context, user int64, conversation string) (chat.Head, error) {
	cursors, err := s.cursors(ctx, sqlCursor, user, conversation)
	if err != nil {
		return chat.Head{}, fmt.Errorf("head: %w", err)
	}
	var spans []groupSpan
	if c, err := wire.ParseConversation(conversation); err == nil && c.Kind == 'g' {
		if spans, err = s.spansOf(ctx, sqlSpansIn, user, c.A); err != nil {
			return chat.Head{}, fmt.Errorf("head: %w", err)
		}
	}
	heads, err := s.heads(ctx, user, cursors, spans)
	if err == nil && len(heads) == 0 {
		err = chat.ErrNotFound
	}
	if err != nil {
		return chat.Head{}, fmt.Errorf("head: %w", err)
	}
	return heads[0], nil
}

func (s *Store) cursors(ctx context.Context, statement string, args ...any) ([]cursor, error) {
	var cursors []cursor
	err := s.query(ctx, s.read, func(rows *sql.Rows) error {
		var c cursor
		err := rows.Scan(&c.conversation, &c.seq, &c.n, &c.own)
		cursors = append(cursors, c)
		return err
	}, statement, args...)
	return cursors, err
}

// heads joins cursors and heads here, as they may be on different machines one day. The cursors were read first: a head read
// later is never below them. In a group who has not read yet has no cursor; spans say which groups there are.
func (s *Store) heads(ctx context.Context, user int64, cursors []cursor, spans []groupSpan) ([]chat.Head, error) {
	var names []string
	inGroups := make(map[string]cursor)
	for _, c := range cursors {
		if parsed, err := wire.ParseConversation(c.conversation); err == nil && parsed.Kind == 'g' {
			inGroups[c.conversation] = c
			continue
		}
		names = append(names, c.conversation)
	}
	known, err := s.conversations(ctx, s.read, names)
	if err != nil {
		return nil, err
	}
	heads, err := s.groupHeads(ctx, user, spans, inGroups)
	if err != nil {
		return nil, err
	}
	for _, at := range cursors {
		c := known[at.conversation]
		if c == nil || c.slot(user) == nil {
			continue // a group
		}
		unread := max(c.n-at.n-(*c.slot(user)-at.own), 0)
		heads = append(heads, chat.Head{Conversation: at.conversation, Seq: c.seq, ReadSeq: at.seq, Unread: uint32(min(unread, math.MaxUint32))})
	}
	slices.SortFunc(heads, func(a, b chat.Head) int { return strings.Compare(a.Conversation, b.Conversation) })
	return heads, nil
}

// MarkRead implements chat.MessageStore.
func (s *Store) MarkRead(ctx context.Context, user int64, conversation string, seq uint64) (chat.Head, error) {
	parsed, err := wire.ParseConversation(conversation)
	isGroup := err == nil && parsed.Kind == 'g'
	if isGroup {
		h, err := s.Head(ctx, user, conversation)
		if err != nil || seq <= h.ReadSeq {
			return h, err
		}
		seq = min(seq, h.Seq) // who has left reads no further
	}
	at := cursor{conversation: conversation}
	var sender int64
	err = s.queryRow(ctx, s.read, sqlPositionAt, []any{conversation, position(seq)}, &at.seq, &at.n, &sender, &at.own)
	switch {
	case isNotFound(err):
		return s.Head(ctx, user, conversation)
	case err != nil:
		return chat.Head{}, fmt.Errorf("mark read: %w", err)
	}
	if sender != user {
		if at.own, err = s.ownAt(ctx, user, at, sender); err != nil {
			return chat.Head{}, fmt.Errorf("mark read: %w", err)
		}
	}
	err = s.inTx(ctx, "mark read", func(tx *sql.Tx) error {
		if isGroup {
			_, err := s.exec(ctx, tx, sqlReadGroup, user, conversation, position(at.seq), at.n, at.own)
			return err
		}
		_, err := s.exec(ctx, tx, sqlMoveCursor, position(at.seq), at.n, at.own, user, conversation)
		return err
	})
	if err != nil {
		return chat.Head{}, err
	}
	return s.Head(ctx, user, conversation)
}

// ownAt gives how many messages up to a position are the user's, where the message there is another's. In a direct
// conversation all that is not the other's is his. Elsewhere his last one is looked for, only above where he has read: so
// over time each message is passed over once for each reader.
func (s *Store) ownAt(ctx context.Context, user int64, at cursor, sender int64) (int64, error) {
	c, err := wire.ParseConversation(at.conversation)
	if err == nil && c.Kind == 'd' && c.Has(user) && c.Has(sender) {
		return at.n - at.own, nil
	}
	var had cursor
	err = s.queryRow(ctx, s.read, sqlCursor, []any{user, at.conversation}, &had.conversation, &had.seq, &had.n, &had.own)
	if err != nil && !isNotFound(err) {
		return 0, err
	}
	own := had.own
	err = s.queryRow(ctx, s.read, sqlOwnAt, []any{at.conversation, position(had.seq), position(at.seq), user}, &own)
	if err != nil && !isNotFound(err) {
		return 0, err
	}
	return own, nil
}
