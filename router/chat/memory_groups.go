package chat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// The operations of GroupStore.
const (
	OpCreateGroup Op = "CreateGroup"
	OpChangeGroup Op = "ChangeGroup"
	OpGroup       Op = "Group"
	OpMembers     Op = "Members"
	OpMemberships Op = "Memberships"
	OpGroupsOf    Op = "GroupsOf"
	OpReadable    Op = "Readable"
)

// memGroup is a group, with every span of everybody who ever was in it, oldest first.
type memGroup struct {
	Group
	spans map[int64][]Span
}

// newest is a user's newest span.
func (g *memGroup) newest(user int64) Span {
	if all := g.spans[user]; len(all) > 0 {
		return all[len(all)-1]
	}
	return Span{}
}

// CreateGroup implements Store.
func (m *Memory) CreateGroup(ctx context.Context, g Group, members []int64, notice func(Group) (*pb.Message, error)) (Group, Outgoing, error) {
	if err := m.enter(ctx, OpCreateGroup); err != nil {
		return Group{}, Outgoing{}, err
	}
	defer m.mu.Unlock()
	g.ID, g.Version, g.Members = int64(len(m.groups)+1), 1, len(members)
	n, err := notice(g)
	if err != nil {
		return Group{}, Outgoing{}, err
	}
	made := &memGroup{Group: g, spans: make(map[int64][]Span, len(members))}
	for _, user := range members {
		made.spans[user] = []Span{{Joined: 1}}
	}
	m.groups = append(m.groups, made)
	return g, m.outgoingLocked(n, g.Version), m.fault(OpCreateGroup.Answer())
}

// outgoingLocked adds a row to the outbox.
func (m *Memory) outgoingLocked(notice *pb.Message, version uint64) Outgoing {
	m.lastOut++
	m.outbox = append(m.outbox, Outgoing{ID: m.lastOut, Message: clone(notice), Version: version})
	return Outgoing{ID: m.lastOut, Message: notice, Version: version}
}

// groupLocked gives a group or nil.
func (m *Memory) groupLocked(id int64) *memGroup {
	if id < 1 || id > int64(len(m.groups)) {
		return nil
	}
	return m.groups[id-1]
}

// ChangeGroup implements Store.
func (m *Memory) ChangeGroup(ctx context.Context, group int64, subjects []int64, decide func(Group, []Span) (GroupChange, error)) (Group, Outgoing, error) {
	if err := m.enter(ctx, OpChangeGroup); err != nil {
		return Group{}, Outgoing{}, err
	}
	defer m.mu.Unlock()
	g := m.groupLocked(group)
	if g == nil {
		return Group{}, Outgoing{}, fmt.Errorf("change group: %w", ErrNotFound)
	}
	spans := make([]Span, len(subjects))
	for i, user := range subjects {
		spans[i] = g.newest(user)
	}
	c, err := decide(g.Group, spans)
	if err != nil {
		return Group{}, Outgoing{}, err
	}
	for _, user := range c.Join {
		g.spans[user] = append(g.spans[user], Span{Joined: c.Group.Version})
	}
	for _, user := range c.Leave {
		all := g.spans[user]
		if !g.newest(user).Open() {
			return Group{}, Outgoing{}, errors.New("change group: who leaves is no member")
		}
		all[len(all)-1].Left = c.Group.Version
	}
	g.Group = c.Group
	return c.Group, m.outgoingLocked(c.Notice, c.Group.Version), m.fault(OpChangeGroup.Answer())
}

// Group implements Store.
func (m *Memory) Group(ctx context.Context, id int64) (Group, error) {
	if err := m.enter(ctx, OpGroup); err != nil {
		return Group{}, err
	}
	defer m.mu.Unlock()
	g := m.groupLocked(id)
	if g == nil {
		return Group{}, fmt.Errorf("group: %w", ErrNotFound)
	}
	return g.Group, nil
}

// Members implements Store.
func (m *Memory) Members(ctx context.Context, group, after int64, limit int) ([]Account, error) {
	if err := m.enter(ctx, OpMembers); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	g := m.groupLocked(group)
	if g == nil {
		return nil, nil
	}
	var list []Account
	for _, user := range slices.Sorted(maps.Keys(g.spans)) {
		if user > after && g.newest(user).Open() && len(list) < limit {
			list = append(list, Account{ID: user, Name: m.accountLocked(user).Name})
		}
	}
	return list, nil
}

// Memberships implements Store.
func (m *Memory) Memberships(ctx context.Context, group int64, users []int64) (uint64, []Membership, error) {
	if err := m.enter(ctx, OpMemberships); err != nil {
		return 0, nil, err
	}
	defer m.mu.Unlock()
	g := m.groupLocked(group)
	if g == nil {
		return 0, nil, fmt.Errorf("memberships: %w", ErrNotFound)
	}
	var found []Membership
	for _, user := range users {
		if s := g.newest(user); s != (Span{}) {
			found = append(found, Membership{user, s})
		}
	}
	return g.Version, found, nil
}

// GroupsOf implements Store.
func (m *Memory) GroupsOf(ctx context.Context, user int64) ([]int64, error) {
	if err := m.enter(ctx, OpGroupsOf); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var ids []int64
	for _, g := range m.groups {
		if g.newest(user).Open() {
			ids = append(ids, g.ID)
		}
	}
	return ids, nil
}

// Readable implements Store.
func (m *Memory) Readable(ctx context.Context, group, user int64) ([]SeqSpan, bool, error) {
	if err := m.enter(ctx, OpReadable); err != nil {
		return nil, false, err
	}
	defer m.mu.Unlock()
	g := m.groupLocked(group)
	if g == nil {
		return nil, false, nil
	}
	spans, pending := m.readableLocked(g, user)
	return spans, pending, nil
}

func (m *Memory) readableLocked(g *memGroup, user int64) (spans []SeqSpan, pending bool) {
	t := m.talkLocked(wire.Group(g.ID))
	for _, s := range g.spans[user] {
		from, to := t.changes[s.Joined], uint64(math.MaxUint64)
		if s.Left != 0 {
			to = t.changes[s.Left]
		}
		if from == 0 || to == 0 {
			return spans, true
		}
		spans = append(spans, SeqSpan{from, to})
	}
	return spans, false
}

// groupHeadLocked is a member's head: up to his leaving, and counted from his joining on.
func (m *Memory) groupHeadLocked(user int64, t *memTalk, conversation string, group int64) (Head, error) {
	g := m.groupLocked(group)
	if g == nil || t == nil {
		return Head{}, fmt.Errorf("head: %w", ErrNotFound)
	}
	s := g.newest(user)
	joined := t.changes[s.Joined]
	if joined == 0 {
		return Head{}, fmt.Errorf("head: %w", ErrNotFound) // never a member, or history does not know of it yet
	}
	end := len(t.messages)
	if left := t.changes[s.Left]; left != 0 {
		end = t.below(left + 1)
	}
	at := m.cursors[memReader{user, conversation}]
	from := max(at.n, t.below(joined+1))
	h := Head{Conversation: conversation, Seq: t.messages[end-1].GetSeq(), ReadSeq: max(at.seq, joined)}
	for _, sent := range t.messages[min(from, end):end] {
		if IdentityOf(sent).Sender != user {
			h.Unread++
		}
	}
	return h, nil
}
