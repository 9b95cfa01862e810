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
	closed     uint64 // the version of the highest closing of anybody's right to write
	fresh      bool   // not in the database yet
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
	return s.readConversations(ctx, on, sqlHeads, names, func(*conversation) []any { return nil })
}

// conversationsToMove reads those that are known, with closed.
func (s *Store) conversationsToMove(ctx context.Context, tx *sql.Tx, names []string) (map[string]*conversation, error) {
	return s.readConversations(ctx, tx, sqlHeadsToMove, names, func(c *conversation) []any { return []any{&c.closed} })
}

func (s *Store) readConversations(ctx context.Context, on runner, statement string, names []string, more func(*conversation) []any) (map[string]*conversation, error) {
	known := make(map[string]*conversation, len(names))
	err := s.queryIn(ctx, on, func(rows *sql.Rows) error {
		c := new(conversation)
		err := rows.Scan(append([]any{&c.name, &c.seq, &c.n, &c.ownA, &c.ownB}, more(c)...)...)
		if err == nil {
			c.parsed, err = wire.ParseConversation(c.name)
		}
		known[c.name] = c
		return err
	}, statement, nil, anys(names), 1)
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
	at          int // in the batch
	m           *pb.Message
	id          chat.Identity
	uuid        []byte
	body        string
	replySender any
	replyID     any

	n, own int64
	prev   uint64
}

func encodeRows(b chat.Batch) ([]*row, error) {
	rows := make([]*row, 0, len(b.Messages))
	for i, m := range b.Messages {
		r := &row{at: i, m: m, id: chat.IdentityOf(m)}
		if err := r.encode(); err != nil {
			return nil, fmt.Errorf("message %s/%d: %w", m.GetConversation(), m.GetSeq(), err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// once keeps each identity where it comes first.
func once(rows []*row, w *chat.Written) []*row {
	kept := make([]*row, 0, len(rows))
	first := make(map[chat.Identity]*row, len(rows))
	for _, r := range rows {
		earlier := first[r.id]
		if earlier == nil {
			first[r.id] = r
			kept = append(kept, r)
			continue
		}
		w.Duplicates++
		if !chat.SameContent(earlier.m, r.m) {
			w.Differing++
		}
	}
	return kept
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
func (s *Store) WriteBatch(ctx context.Context, b chat.Batch) (written chat.Written, err error) {
	const op = "write batch"
	all, err := encodeRows(b)
	if err != nil {
		return chat.Written{}, fmt.Errorf("%s: %w", op, err)
	}
	for _, lookUp := range []bool{false, true} {
		err = s.inTx(ctx, op, func(tx *sql.Tx) error {
			written = chat.Written{}
			if err := s.moveOffset(ctx, tx, b); err != nil {
				return err
			}
			if err := s.insertDead(ctx, tx, b); err != nil {
				return err
			}
			talks, err := s.conversationsOf(ctx, tx, all)
			if err != nil {
				return err
			}
			rows, err := s.valid(ctx, tx, b, all, talks)
			if err != nil {
				return err
			}
			written.Invalid = len(all) - len(rows)
			rows = once(rows, &written)
			if lookUp {
				known, different, err := s.known(ctx, tx, rows)
				if err != nil {
					return err
				}
				written.Duplicates, written.Differing = written.Duplicates+len(known), written.Differing+different
				rows = slices.DeleteFunc(rows, func(r *row) bool { return known[r.id] })
			}
			return s.insertMessages(ctx, tx, rows, talks)
		})
		if !errors.Is(err, errDuplicate) {
			break
		}
	}
	if err != nil {
		return chat.Written{}, err
	}
	return written, nil
}

// conversationsOf gives the conversations of rows, also those that are new.
func (s *Store) conversationsOf(ctx context.Context, tx *sql.Tx, rows []*row) (map[string]*conversation, error) {
	names := make(map[string]bool)
	for _, r := range rows {
		names[r.id.Conversation] = true
	}
	talks, err := s.conversationsToMove(ctx, tx, slices.Sorted(maps.Keys(names)))
	if err != nil {
		return nil, err
	}
	for name := range names {
		if talks[name] != nil {
			continue
		}
		parsed, err := wire.ParseConversation(name)
		if err != nil {
			return nil, err
		}
		talks[name] = &conversation{name: name, parsed: parsed, fresh: true}
	}
	return talks, nil
}

// valid gives the rows that are valid, and stores the closings among them. Those of before are read only for a conversation that
// has any above what a message was checked against, which its head tells.
func (s *Store) valid(ctx context.Context, tx *sql.Tx, b chat.Batch, rows []*row, talks map[string]*conversation) ([]*row, error) {
	asked := map[chat.ClosingKey]bool{}
	for _, r := range rows {
		if b.Checks != nil && b.Checks[r.at].Checked && talks[r.id.Conversation].closed > b.Checks[r.at].Version {
			for _, k := range chat.ClosedFor(r.id.Conversation, r.id.Sender) {
				asked[k] = true
			}
		}
	}
	args := make([]any, 0, 2*len(asked))
	for k := range asked {
		args = append(args, k.Conversation, k.User)
	}
	closings := chat.Closings{}
	err := s.queryIn(ctx, tx, func(found *sql.Rows) error {
		var k chat.ClosingKey
		var version uint64
		err := found.Scan(&k.Conversation, &k.User, &version)
		closings[k] = version
		return err
	}, sqlClosings, nil, args, 2)
	if err != nil {
		return nil, err
	}
	kept := make([]*row, 0, len(rows))
	made := map[chat.ClosingKey]bool{}
	for _, r := range rows {
		if b.Invalid(r.at, closings) {
			continue
		}
		kept = append(kept, r)
		if c, closes := chat.ClosingOf(r.m); closes {
			closings.Note(r.m)
			made[c.Key()] = true
			talks[c.Conversation].closed = max(talks[c.Conversation].closed, c.Version)
		}
	}
	return kept, s.storeClosings(ctx, tx, closings, made)
}

func (s *Store) storeClosings(ctx context.Context, tx *sql.Tx, closings chat.Closings, made map[chat.ClosingKey]bool) error {
	var rows rowArgs
	for k := range made {
		rows.add(0, k.Conversation, k.User, position(closings[k]))
	}
	return s.insertRows(ctx, tx, sqlClose, &rows)
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
func (s *Store) insertMessages(ctx context.Context, tx *sql.Tx, rows []*row, talks map[string]*conversation) error {
	if len(rows) == 0 {
		return nil
	}
	used := make(map[string]*conversation, len(talks))
	others := make(map[senderKey]bool)
	for _, r := range rows {
		c := talks[r.id.Conversation]
		used[c.name] = c
		if c.slot(r.id.Sender) == nil {
			others[senderKey{r.id.Conversation, r.id.Sender}] = true
		}
	}
	counts, err := s.senders(ctx, tx, slices.Collect(maps.Keys(others)))
	if err != nil {
		return err
	}
	if err := place(rows, used, counts); err != nil {
		return err
	}
	return s.store(ctx, tx, rows, used, counts)
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
	if err := s.noteChanges(ctx, tx, rows); err != nil {
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
