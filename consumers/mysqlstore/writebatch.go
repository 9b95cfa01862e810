package mysqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

// conversation is the head of one. Only the partition's writer changes it.
type conversation struct {
	name       string
	parsed     wire.Conversation
	seq        uint64
	n          int64
	ownA, ownB int64
	fresh      bool // not in the database yet
}

// slot is where the count of a user's messages is, or nil if it is in the table senders.
func (c *conversation) slot(user int64) *int64 {
	switch {
	case c.parsed.Kind == 'g':
		return nil
	case user == c.parsed.A:
		return &c.ownA
	case user == c.parsed.B:
		return &c.ownB
	}
	return nil
}

type senderKey struct {
	conversation string
	sender       int64
}

// conversations reads those that are known.
func (s *Store) conversations(ctx context.Context, on runner, names []string) (map[string]*conversation, error) {
	known := make(map[string]*conversation, len(names))
	err := s.queryIn(ctx, on, func(rows *sql.Rows) error {
		c := new(conversation)
		err := rows.Scan(&c.name, &c.seq, &c.n, &c.ownA, &c.ownB)
		if err == nil {
			c.parsed, err = wire.ParseConversation(c.name)
		}
		known[c.name] = c
		return err
	}, sqlHeads, nil, anys(names), 1)
	return known, err
}

// senders reads running counts; who is not there has sent nothing.
func (s *Store) senders(ctx context.Context, on runner, keys []senderKey) (map[senderKey]int64, error) {
	args := make([]any, 0, 2*len(keys))
	for _, k := range keys {
		args = append(args, k.conversation, k.sender)
	}
	counts := make(map[senderKey]int64, len(keys))
	err := s.queryIn(ctx, on, func(rows *sql.Rows) error {
		var k senderKey
		var own int64
		err := rows.Scan(&k.conversation, &k.sender, &own)
		counts[k] = own
		return err
	}, sqlSenders, nil, args, 2)
	return counts, err
}

// errDuplicate says within WriteBatch that a message of the batch is in the database.
var errDuplicate = errors.New("a message is known")

// row is a message of a batch, ready but for what its conversation gives it.
type row struct {
	m           *pb.Message
	id          chat.Identity
	uuid        []byte
	body        string
	replySender any
	replyID     any

	n, own int64
	prev   uint64
}

// batch is what WriteBatch works on: the messages, each identity once.
type batch struct {
	chat.Batch
	rows                  []*row
	duplicates, differing int // within the batch
}

func newBatch(b chat.Batch) (*batch, error) {
	p := &batch{Batch: b, rows: make([]*row, 0, len(b.Messages))}
	first := make(map[chat.Identity]*row, len(b.Messages))
	for _, m := range b.Messages {
		r := &row{m: m, id: chat.IdentityOf(m)}
		if earlier := first[r.id]; earlier != nil {
			p.duplicates++
			if !chat.SameContent(earlier.m, m) {
				p.differing++
			}
			continue
		}
		first[r.id] = r
		if err := r.encode(); err != nil {
			return nil, fmt.Errorf("message %s/%d: %w", m.GetConversation(), m.GetSeq(), err)
		}
		p.rows = append(p.rows, r)
	}
	return p, nil
}

func (r *row) encode() (err error) {
	if r.uuid, err = parseMessageID(r.id.ClientMsgID); err != nil {
		return err
	}
	if r.body, err = encodeBody(r.m.GetPayload()); err != nil {
		return err
	}
	if ref := r.m.GetReplyTo(); ref != nil {
		sender, err := wire.ParseID(ref.GetSenderId())
		if err != nil {
			return fmt.Errorf("reply: %w", err)
		}
		id, err := parseMessageID(ref.GetClientMsgId())
		if err != nil {
			return fmt.Errorf("reply: %w", err)
		}
		r.replySender, r.replyID = sender, id
	}
	return nil
}

// WriteBatch implements chat.HistoryStore. It takes all messages for new at first, which the unique key on the identity proves
// or refutes; only when it refutes is the batch done anew, with those that are known looked up first. So what nearly never
// happens costs what nearly always happens nothing.
func (s *Store) WriteBatch(ctx context.Context, b chat.Batch) (duplicates, differing int, err error) {
	const op = "write batch"
	p, err := newBatch(b)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", op, err)
	}
	for _, lookUp := range []bool{false, true} {
		err = s.inTx(ctx, op, func(tx *sql.Tx) error {
			duplicates, differing = p.duplicates, p.differing
			if err := s.moveOffset(ctx, tx, b); err != nil {
				return err
			}
			if err := s.insertDead(ctx, tx, b); err != nil {
				return err
			}
			rows := p.rows
			if lookUp {
				known, different, err := s.known(ctx, tx, rows)
				if err != nil {
					return err
				}
				duplicates, differing = duplicates+len(known), differing+different
				rows = slices.DeleteFunc(slices.Clone(rows), func(r *row) bool { return known[r.id] })
			}
			return s.insertMessages(ctx, tx, rows)
		})
		if !errors.Is(err, errDuplicate) {
			break
		}
	}
	if err != nil {
		return 0, 0, err
	}
	return duplicates, differing, nil
}

// moveOffset moves the partition's offset, which locks it against every other writer until the transaction ends.
func (s *Store) moveOffset(ctx context.Context, tx *sql.Tx, b chat.Batch) error {
	matched, err := s.exec(ctx, tx, sqlMoveOffset, b.Next, b.Topic, b.Partition, b.From)
	if err != nil || matched == 1 {
		return err
	}
	if b.From == 0 {
		_, err := s.exec(ctx, tx, sqlFirstOffset, b.Topic, b.Partition, b.Next)
		if !s.dialect.Duplicate(err) {
			return err
		}
	}
	return fmt.Errorf("%w: %s/%d is not at %d", chat.ErrFenced, b.Topic, b.Partition, b.From)
}

// known tells which rows are in the database already, and how many of them with other content.
func (s *Store) known(ctx context.Context, tx *sql.Tx, rows []*row) (known map[chat.Identity]bool, differing int, err error) {
	asked := make(map[chat.Identity]*row, len(rows))
	args := make([]any, 0, 3*len(rows))
	for _, r := range rows {
		asked[r.id] = r
		args = append(args, r.id.Conversation, r.id.Sender, r.uuid)
	}
	known = make(map[chat.Identity]bool)
	err = s.queryIn(ctx, tx, func(found *sql.Rows) error {
		m, err := scanMessage(found)
		if err != nil {
			return err
		}
		id := chat.IdentityOf(m)
		known[id] = true
		if r := asked[id]; r != nil && !chat.SameContent(m, r.m) {
			differing++
		}
		return nil
	}, sqlFindMany, nil, args, 3)
	return known, differing, err
}

// insertMessages gives each message its place in its conversation, and stores messages, heads and counts.
func (s *Store) insertMessages(ctx context.Context, tx *sql.Tx, rows []*row) error {
	if len(rows) == 0 {
		return nil
	}
	names := make(map[string]bool)
	for _, r := range rows {
		names[r.id.Conversation] = true
	}
	known, err := s.conversations(ctx, tx, slices.Sorted(maps.Keys(names)))
	if err != nil {
		return err
	}
	for name := range names {
		if known[name] != nil {
			continue
		}
		parsed, err := wire.ParseConversation(name)
		if err != nil {
			return err
		}
		known[name] = &conversation{name: name, parsed: parsed, fresh: true}
	}
	others := make(map[senderKey]bool)
	for _, r := range rows {
		if known[r.id.Conversation].slot(r.id.Sender) == nil {
			others[senderKey{r.id.Conversation, r.id.Sender}] = true
		}
	}
	counts, err := s.senders(ctx, tx, slices.Collect(maps.Keys(others)))
	if err != nil {
		return err
	}
	if err := place(rows, known, counts); err != nil {
		return err
	}
	return s.store(ctx, tx, rows, known, counts)
}

// place numbers the messages, and moves heads and counts to where they are after them.
func place(rows []*row, known map[string]*conversation, counts map[senderKey]int64) error {
	for _, r := range rows {
		c := known[r.id.Conversation]
		if r.m.GetSeq() <= c.seq {
			return fmt.Errorf("message %s/%d is not above its conversation's head %d", c.name, r.m.GetSeq(), c.seq)
		}
		r.prev = c.seq
		c.n++
		c.seq, r.n = r.m.GetSeq(), c.n
		if slot := c.slot(r.id.Sender); slot != nil {
			*slot++
			r.own = *slot
			continue
		}
		k := senderKey{c.name, r.id.Sender}
		counts[k]++
		r.own = counts[k]
	}
	return nil
}

func (s *Store) store(ctx context.Context, tx *sql.Tx, rows []*row, known map[string]*conversation, counts map[senderKey]int64) error {
	// By key, so that rows of one page come together.
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b *row) int { return strings.Compare(a.id.Conversation, b.id.Conversation) })
	var messages, heads, senders, cursors rowArgs
	for _, r := range rows {
		messages.add(len(r.body), r.id.Conversation, position(r.m.GetSeq()), r.n, r.own, position(r.prev), r.id.Sender,
			r.m.GetSender().GetName(), r.uuid, r.m.GetTimeMs(), r.body, r.replySender, r.replyID)
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		c := known[name]
		heads.add(0, name, position(c.seq), c.n, c.ownA, c.ownB)
		if !c.fresh || c.parsed.Kind == 'g' {
			continue
		}
		cursors.add(0, c.parsed.A, name)
		if c.parsed.B != 0 {
			cursors.add(0, c.parsed.B, name)
		}
	}
	for k, own := range counts {
		senders.add(0, k.conversation, k.sender, own)
	}
	if err := s.insertRows(ctx, tx, sqlInsertMessage, &messages); err != nil {
		if s.dialect.Duplicate(err) {
			err = fmt.Errorf("%w: %w", errDuplicate, err)
		}
		return err
	}
	if err := s.insertRows(ctx, tx, sqlMoveHead, &heads); err != nil {
		return err
	}
	if err := s.insertRows(ctx, tx, sqlMoveSender, &senders); err != nil {
		return err
	}
	return s.insertRows(ctx, tx, sqlNewCursor, &cursors)
}

func (s *Store) insertDead(ctx context.Context, tx *sql.Tx, b chat.Batch) error {
	var dead rowArgs
	for _, d := range b.Dead {
		headers, err := json.Marshal(d.Headers)
		if err != nil {
			return fmt.Errorf("dead record %d/%d: %w", d.Partition, d.Offset, err)
		}
		dead.add(len(d.Key)+len(d.Value)+len(headers), b.Topic, d.Partition, d.Offset, d.TimeMs, clean(d.Reason), notNil(d.Key), notNil(d.Value), string(headers))
	}
	return s.insertRows(ctx, tx, sqlDead, &dead)
}

// clean makes a reason fit its column.
func clean(s string) string {
	const most = 500
	s = strings.ToValidUTF8(s, "\uFFFD")
	for len(s) > most {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
