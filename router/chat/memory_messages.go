package chat

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/eventlog"
)

// read gives message i as a reader gets it.
func (t *memTalk) read(i int) *pb.Message {
	m := clone(t.messages[i])
	m.PrevSeq, m.PrevKnown = 0, true
	if i > 0 {
		m.PrevSeq = t.messages[i-1].GetSeq()
	}
	return m
}

// below gives how many messages have a seq under the bound.
func (t *memTalk) below(seq uint64) int {
	i, _ := slices.BinarySearchFunc(t.messages, seq, func(m *pb.Message, seq uint64) int {
		switch {
		case m.GetSeq() < seq:
			return -1
		case m.GetSeq() > seq:
			return 1
		}
		return 0
	})
	return i
}

// talkLocked gives a conversation to read; one that is not known is empty.
func (m *Memory) talkLocked(conversation string) *memTalk {
	if t := m.talks[conversation]; t != nil {
		return t
	}
	return new(memTalk)
}

// Messages implements Store.
func (m *Memory) Messages(ctx context.Context, conversation string, after, before uint64, limit int, forward bool) ([]*pb.Message, error) {
	if err := m.enter(ctx, OpMessages); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	t := m.talkLocked(conversation)
	from, to := t.below(after+1), len(t.messages)
	if before != 0 {
		to = max(t.below(before), from)
	}
	if limit = max(limit, 0); to-from > limit {
		if forward {
			to = from + limit
		} else {
			from = to - limit
		}
	}
	var page []*pb.Message
	for i := from; i < to; i++ {
		page = append(page, t.read(i))
	}
	return page, nil
}

// FindMessage implements Store.
func (m *Memory) FindMessage(ctx context.Context, id Identity) (*pb.Message, error) {
	if err := m.enter(ctx, OpFindMessage); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	t := m.talkLocked(id.Conversation)
	found := t.byID[id]
	if found == nil {
		return nil, fmt.Errorf("find message: %w", ErrNotFound)
	}
	return t.read(t.below(found.GetSeq())), nil
}

// LastMessages implements Store.
func (m *Memory) LastMessages(ctx context.Context, conversations []string) (map[string]*pb.Message, error) {
	if err := m.enter(ctx, OpLastMessages); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	last := make(map[string]*pb.Message, len(conversations))
	for _, c := range conversations {
		if t := m.talks[c]; t != nil {
			last[c] = t.read(len(t.messages) - 1)
		}
	}
	return last, nil
}

// Heads implements Store.
func (m *Memory) Heads(ctx context.Context, user int64) ([]Head, error) {
	if err := m.enter(ctx, OpHeads); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var heads []Head
	for _, conversation := range slices.Sorted(maps.Keys(m.talks)) {
		if h, err := m.headLocked(user, conversation); err == nil {
			heads = append(heads, h)
		}
	}
	return heads, nil
}

// Head implements Store.
func (m *Memory) Head(ctx context.Context, user int64, conversation string) (Head, error) {
	if err := m.enter(ctx, OpHead); err != nil {
		return Head{}, err
	}
	defer m.mu.Unlock()
	return m.headLocked(user, conversation)
}

func (m *Memory) headLocked(user int64, conversation string) (Head, error) {
	t := m.talks[conversation]
	c, err := wire.ParseConversation(conversation)
	if err == nil && c.Kind == 'g' {
		return m.groupHeadLocked(user, t, conversation, c.A)
	}
	if t == nil || err != nil || !c.Has(user) {
		return Head{}, fmt.Errorf("head: %w", ErrNotFound)
	}
	at, n := m.cursors[memReader{user, conversation}], len(t.messages)
	return Head{
		Conversation: conversation, Seq: t.messages[n-1].GetSeq(), ReadSeq: at.seq,
		Unread: uint32(n - at.n - (t.sent[user] - at.own)),
	}, nil
}

// MarkRead implements Store.
func (m *Memory) MarkRead(ctx context.Context, user int64, conversation string, seq uint64) (Head, error) {
	if err := m.enter(ctx, OpMarkRead); err != nil {
		return Head{}, err
	}
	defer m.mu.Unlock()
	head, err := m.headLocked(user, conversation)
	if err != nil {
		return Head{}, err
	}
	t, reader := m.talks[conversation], memReader{user, conversation}
	n := t.below(min(seq, head.Seq) + 1)
	if n > m.cursors[reader].n {
		at := memCursor{seq: t.messages[n-1].GetSeq(), n: n}
		for _, sent := range t.messages[:n] {
			if IdentityOf(sent).Sender == user {
				at.own++
			}
		}
		m.cursors[reader] = at
	}
	head, err = m.headLocked(user, conversation)
	if err != nil {
		return Head{}, err
	}
	return head, m.fault(OpMarkRead.Answer())
}

// WriteBatch implements Store.
func (m *Memory) WriteBatch(ctx context.Context, b Batch) (Written, error) {
	if err := m.enter(ctx, OpWriteBatch); err != nil {
		return Written{}, err
	}
	defer m.mu.Unlock()
	at := memPartition{b.Topic, b.Partition}
	if m.offsets[at] != b.From {
		return Written{}, fmt.Errorf("write batch: %w", ErrFenced)
	}
	// First all checks, then all changes: a batch is written whole or not at all.
	var written Written
	fresh, heads, closings := map[Identity]*pb.Message{}, map[string]uint64{}, maps.Clone(m.closings)
	var store []*pb.Message
	for i, message := range b.Messages {
		if b.Invalid(i, closings) {
			written.Invalid++
			continue
		}
		closings.Note(message)
		id := IdentityOf(message)
		t := m.talkLocked(id.Conversation)
		known := t.byID[id]
		if known == nil {
			known = fresh[id]
		}
		if known != nil {
			written.Duplicates++
			if !SameContent(known, message) {
				written.Differing++
			}
			continue
		}
		head := heads[id.Conversation]
		if n := len(t.messages); n > 0 {
			head = max(head, t.messages[n-1].GetSeq())
		}
		if _, err := wire.ParseConversation(id.Conversation); err != nil {
			return Written{}, fmt.Errorf("write batch: %w", err)
		}
		if message.GetSeq() <= head {
			return Written{}, fmt.Errorf("write batch: message %s/%d is not above its conversation's head %d", id.Conversation, message.GetSeq(), head)
		}
		heads[id.Conversation] = message.GetSeq()
		fresh[id] = message
		store = append(store, message)
	}
	for _, message := range store {
		m.storeLocked(clone(message))
	}
	for _, d := range b.Dead {
		d.Key, d.Value = slices.Clone(d.Key), slices.Clone(d.Value)
		m.dead[b.Topic] = append(m.dead[b.Topic], d)
	}
	m.offsets[at], m.closings = b.Next, closings
	return written, m.fault(OpWriteBatch.Answer())
}

func (m *Memory) storeLocked(message *pb.Message) {
	id := IdentityOf(message)
	t := m.talks[id.Conversation]
	if t == nil {
		t = &memTalk{sent: map[int64]int{}, byID: map[Identity]*pb.Message{}, changes: map[uint64]uint64{}}
		m.talks[id.Conversation] = t
	}
	t.messages = append(t.messages, message)
	if v := message.GetPayload().GetGroup().GetVersion(); v != 0 && t.changes[v] == 0 {
		t.changes[v] = message.GetSeq()
	}
	t.sent[id.Sender]++
	t.byID[id] = message
}

// Dead gives the dead records of a topic, as they were written.
func (m *Memory) Dead(topic string) []DeadRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.dead[topic])
}

// Conversations gives the names of all conversations that have messages.
func (m *Memory) Conversations() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Collect(maps.Keys(m.talks))
	slices.SortFunc(names, strings.Compare)
	return names
}

// HistoryOffsets implements Store.
func (m *Memory) HistoryOffsets(ctx context.Context, topic string) (map[int32]int64, error) {
	if err := m.enter(ctx, OpHistoryOffsets); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return m.offsetsLocked(topic), nil
}

func (m *Memory) offsetsLocked(topic string) map[int32]int64 {
	offsets := map[int32]int64{}
	for p, next := range m.offsets {
		if p.topic == topic {
			offsets[p.partition] = next
		}
	}
	return offsets
}

// LogState implements Store.
func (m *Memory) LogState(ctx context.Context, topic string) (eventlog.State, error) {
	if err := m.enter(ctx, OpLogState); err != nil {
		return eventlog.State{}, err
	}
	defer m.mu.Unlock()
	s, ok := m.states[topic]
	if !ok {
		return eventlog.State{}, fmt.Errorf("log state: %w", ErrNotFound)
	}
	s.Seen = m.offsetsLocked(topic)
	return s, nil
}

// SaveLogState implements Store.
func (m *Memory) SaveLogState(ctx context.Context, s eventlog.State) error {
	if err := m.enter(ctx, OpSaveLogState); err != nil {
		return err
	}
	defer m.mu.Unlock()
	s.Seen = nil
	m.states[s.Topic] = s
	return m.fault(OpSaveLogState.Answer())
}

// NextRouterEpoch implements Store.
func (m *Memory) NextRouterEpoch(ctx context.Context, topic string, partition int32) (uint64, error) {
	if err := m.enter(ctx, OpNextRouterEpoch); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	p := memPartition{topic, partition}
	m.epochs[p]++
	return m.epochs[p], m.fault(OpNextRouterEpoch.Answer())
}

// clone copies a message, so that what a caller does to his own changes nothing here.
func clone(m *pb.Message) *pb.Message {
	c := new(pb.Message)
	encoded, err := m.MarshalVT()
	if err == nil {
		err = c.UnmarshalVT(encoded)
	}
	if err != nil {
		return m // cannot happen: what was encoded here can be decoded
	}
	return c
}
