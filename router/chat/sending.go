package chat

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/eventlog"
)

// Basis is what a node knows of itself when a right is checked.
type Basis struct {
	// Life is the incarnation under which it holds its lease, empty if it holds none. A removal waits for each node that has one, so
	// what was looked up under a lease that is still held may be taken for granted, and nothing else: who had none may have missed
	// that a right ended.
	Life string
	// LogEnd is a lower bound of where the conversation's partition of the log ends.
	LogEnd int64
}

// Sending is a message that may go to the log: the record, and the permit that is to be released once the log has answered.
type Sending struct {
	Record Record
	Permit *Permit
}

// PrepareSend checks the rules and makes the record. NOT_FRIENDS for strangers and nobody alike, FORBIDDEN for notices, NOT_FOUND
// for a group that the user is no member of, and for none. If the rule is not known and cannot be asked for it is UNAVAILABLE:
// refused, never allowed.
func (s *Service) PrepareSend(ctx context.Context, b Basis, user Account, r *pb.SendRequest) (Sending, error) {
	peer, group, err := s.recipient(user, r)
	if err != nil {
		return Sending{}, err
	}
	permit := s.permits.Take(r.GetConversation()) // before anything is looked at
	var version uint64
	if group != 0 {
		version, err = s.membership(ctx, b.Life, permit, user.ID, group)
	} else {
		version, err = s.friendship(ctx, b.Life, permit, user.ID, peer)
	}
	if err != nil {
		permit.Release()
		return Sending{}, err
	}
	return checked(b, user, r, version, permit), nil
}

// friendship gives the version of a pair of friends.
func (s *Service) friendship(ctx context.Context, life string, permit *Permit, user, peer int64) (uint64, error) {
	version, known, fresh := s.friends.get(s.opts.Now(), life, user, peer)
	if fresh {
		return version, nil
	}
	switch p, err := s.store.Pair(ctx, user, peer); {
	case err != nil && !known:
		return 0, away("send", err)
	case err != nil:
		// Known, though not of late. That it ended meanwhile would have been told to this node before it was answered, as long as it
		// holds its lease (exact removals): so people go on chatting while the database is away (I8).
		permit.Remember(version, func() { s.friends.put(s.opts.Now().Add(retryStore-s.opts.FriendTTL), life, user, peer, version) })
		return version, nil //nolint:nilerr // known, and the database is away
	case p.State != PairFriends:
		s.friends.drop(user, peer)
		return 0, notFriends()
	default:
		permit.Remember(p.Version, func() { s.friends.put(s.opts.Now(), life, user, peer, p.Version) })
		return p.Version, nil
	}
}

// membership gives the version of a group that a user is a member of. As for friends.
func (s *Service) membership(ctx context.Context, life string, permit *Permit, user, group int64) (uint64, error) {
	version, known, fresh := s.members.get(s.opts.Now(), life, user, -group)
	if fresh {
		return version, nil
	}
	now, found, err := s.store.Memberships(ctx, group, []int64{user})
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, noGroup()
	case err != nil && !known:
		return 0, away("send", err)
	case err != nil:
		permit.Remember(version, func() { s.members.put(s.opts.Now().Add(retryStore-s.opts.FriendTTL), life, user, -group, version) })
		return version, nil //nolint:nilerr // as for friends: what is known holds while the lease does
	case len(found) == 0 || !found[0].Open():
		s.members.drop(user, -group)
		return 0, noGroup()
	}
	permit.Remember(now, func() { s.members.put(s.opts.Now(), life, user, -group, now) })
	return now, nil
}

// PrepareCached is PrepareSend where that needs no database: decided is false if it does. It never blocks.
func (s *Service) PrepareCached(b Basis, user Account, r *pb.SendRequest) (send Sending, decided bool, err error) {
	peer, group, err := s.recipient(user, r)
	if err != nil {
		return Sending{}, true, err
	}
	permit := s.permits.Take(r.GetConversation())
	known := s.friends
	if group != 0 {
		known, peer = s.members, -group
	}
	version, _, fresh := known.get(s.opts.Now(), b.Life, user.ID, peer)
	if !fresh {
		permit.Release()
		return Sending{}, false, nil
	}
	return checked(b, user, r, version, permit), true, nil
}

func checked(b Basis, user Account, r *pb.SendRequest, version uint64, permit *Permit) Sending {
	return Sending{Permit: permit, Record: Record{
		Kind: KindMessage, Message: makeMessage(user, r), Checked: true, Version: version, CheckedFrom: b.LogEnd,
	}}
}

// CheckAgain looks in the database whether the right that a record was checked against holds as it did, after the log took the
// record: for a node that cannot know whether a removal waited for it. If it does, every removal's record comes behind, and the
// message is valid. If not, the record may stand behind one: nothing may be acknowledged, though it may be valid all the same.
// NOT_FRIENDS if the right has ended, UNAVAILABLE if that is not known or it has ended and begun again: the message is to be
// sent again.
func (s *Service) CheckAgain(ctx context.Context, r Record) error {
	const op = "check again"
	c, err := wire.ParseConversation(r.Message.GetConversation())
	if err != nil {
		return wire.Invalid("conversation", err)
	}
	if c.Kind == 'g' {
		return s.memberStill(ctx, op, c.A, r)
	}
	switch p, err := s.store.Pair(ctx, c.A, c.B); {
	case err != nil:
		return away(op, err)
	case p.State != PairFriends:
		return notFriends()
	case p.Version != r.Version:
		again := wire.Errorf(pb.Code_CODE_UNAVAILABLE, "you became friends anew meanwhile: send it again")
		again.RetryAfter = time.Millisecond
		return again
	}
	return nil
}

// memberStill is CheckAgain for a group: the sender has to be a member through one span since the version that he was checked against.
func (s *Service) memberStill(ctx context.Context, op string, group int64, r Record) error {
	_, found, err := s.store.Memberships(ctx, group, []int64{IdentityOf(r.Message).Sender})
	switch {
	case errors.Is(err, ErrNotFound):
		return noGroup()
	case err != nil:
		return away(op, err)
	case len(found) == 0 || !found[0].Open():
		return noGroup()
	case !found[0].Has(r.Version):
		again := wire.Errorf(pb.Code_CODE_UNAVAILABLE, "you joined anew meanwhile: send it again")
		again.RetryAfter = time.Millisecond
		return again
	}
	return nil
}

// Fence sees to it that nothing is on its way from this process whose right was checked against a version of a conversation below
// this one: what is remembered is forgotten, and done is called once the log has answered what was under way. done must not wait,
// and may be called at once.
func (s *Service) Fence(conversation string, version uint64, done func()) {
	s.permits.Fence(conversation, version, func() {
		switch c, err := wire.ParseConversation(conversation); {
		case err != nil:
		case c.Kind == 'd':
			s.friends.dropBelow(c.A, c.B, version)
		case c.Kind == 'g':
			s.members.dropAllBelow(-c.A, version)
		}
	}, done)
}

func notFriends() *wire.Error {
	return wire.Errorf(pb.Code_CODE_NOT_FRIENDS, "you can write only to friends")
}

// recipient gives the other one of a direct conversation, or the group, that a user sends to.
func (s *Service) recipient(user Account, r *pb.SendRequest) (peer, group int64, err error) {
	c, err := wire.ParseConversation(r.GetConversation())
	switch {
	case err != nil:
		return 0, 0, wire.Invalid("conversation", err)
	case c.Kind == 'n':
		return 0, 0, wire.Errorf(pb.Code_CODE_FORBIDDEN, "nobody sends notices but the server")
	case c.Kind == 'g':
		return 0, c.A, nil
	case !c.Has(user.ID):
		return 0, 0, notFriends()
	}
	return c.Other(user.ID), 0, nil
}

// makeMessage takes of a request what this program knows, so that what the log has is what the database will have: a field that
// is not stored would make a retry look like another message.
func makeMessage(user Account, r *pb.SendRequest) *pb.Message {
	m := &pb.Message{
		Conversation: r.GetConversation(), Sender: user.User(), ClientMsgId: r.GetClientMsgId(),
		Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: r.GetPayload().GetText().GetText()}}},
	}
	if ref := r.GetReplyTo(); ref != nil {
		m.ReplyTo = &pb.Ref{SenderId: ref.GetSenderId(), ClientMsgId: ref.GetClientMsgId()}
	}
	return m
}

// Sent is what is known of a message that may have been sent before.
type Sent struct {
	// Found: history has it, at Seq and TimeMs.
	Found  bool
	Seq    uint64
	TimeMs int64
	// SearchFrom, if it was not found: the log below this offset surely does not have it (Record.SearchFrom).
	SearchFrom int64
}

// SentStore is what FindSent reads.
type SentStore interface {
	FindMessage(ctx context.Context, id Identity) (*pb.Message, error)
	HistoryOffsets(ctx context.Context, topic string) (map[int32]int64, error)
}

// FindSent looks for a message that may have been sent before. ID_REUSED if history has another of that identity.
//
// The order matters: first the history offset, then the message. So a record below the offset was in the database when it was
// looked for. The other way round its row could be written in between, and the router would not look for it where it is.
func FindSent(ctx context.Context, store SentStore, partitions int, m *pb.Message) (Sent, error) {
	const op = "find sent"
	offsets, err := store.HistoryOffsets(ctx, TopicMessages)
	if err != nil {
		return Sent{}, away(op, err)
	}
	found, err := store.FindMessage(ctx, IdentityOf(m))
	switch {
	case errors.Is(err, ErrNotFound):
		return Sent{SearchFrom: offsets[eventlog.PartitionOf(m.GetConversation(), partitions)]}, nil
	case err != nil:
		return Sent{}, away(op, err)
	case !SameContent(found, m):
		return Sent{}, wire.Errorf(pb.Code_CODE_ID_REUSED, "another message has this client_msg_id")
	}
	return Sent{Found: true, Seq: found.GetSeq(), TimeMs: found.GetTimeMs()}, nil
}

// FindSent is FindSent on the service's store, for what a user sends again. It asks for no right: what was stored was allowed
// when it was sent. But it answers as PrepareSend does for what never was.
func (s *Service) FindSent(ctx context.Context, user Account, r *pb.SendRequest) (Sent, error) {
	if _, _, err := s.recipient(user, r); err != nil {
		return Sent{}, err
	}
	return FindSent(ctx, s.store, s.opts.Topic.Partitions, makeMessage(user, r))
}

// friendCache remembers who are friends, never who are not: to become friends takes effect at once, everywhere. An entry counts
// only under the node's life in which it was looked up (Basis.Life), and may outlive its TTL while the database is away.
type friendCache struct {
	ttl time.Duration

	mu    sync.Mutex
	known generations[[2]int64, friendship]
	// floors are versions below which nothing of anybody and this other is used: a fence of a group looks at no member.
	floors map[int64]uint64
}

// mostFloors bounds them: above, all is forgotten.
const mostFloors = 4096

type friendship struct {
	version uint64
	life    string
	until   time.Time
}

func newFriendCache(most int, ttl time.Duration) *friendCache {
	return &friendCache{ttl: ttl, known: newGenerations[[2]int64, friendship](most), floors: map[int64]uint64{}}
}

func pairKey(a, b int64) [2]int64 { return [2]int64{min(a, b), max(a, b)} }

// get says whether two are known as friends in a life, by which version, and whether that was looked up within the TTL.
func (c *friendCache) get(now time.Time, life string, a, b int64) (version uint64, known, fresh bool) {
	if life == "" {
		return 0, false, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f, known := c.known.get(pairKey(a, b))
	if !known || f.life != life || f.version < max(c.floors[a], c.floors[b]) {
		return 0, false, false
	}
	c.known.put(pairKey(a, b), f) // used: it stays
	return f.version, true, now.Before(f.until)
}

// put remembers a friendship as it was looked up at a time.
func (c *friendCache) put(at time.Time, life string, a, b int64, version uint64) {
	if life == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, _ := c.known.get(pairKey(a, b)); f.life == life && f.version > version {
		return // of a look that was answered late
	}
	c.known.put(pairKey(a, b), friendship{version: version, life: life, until: at.Add(c.ttl)})
}

func (c *friendCache) drop(a, b int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.drop(pairKey(a, b))
}

func (c *friendCache) dropBelow(a, b int64, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, known := c.known.get(pairKey(a, b)); known && f.version < version {
		c.known.drop(pairKey(a, b))
	}
}

// dropAllBelow forgets what is known of anybody and one other that is below a version.
func (c *friendCache) dropAllBelow(other int64, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.floors) >= mostFloors {
		c.known.clear()
		clear(c.floors)
	}
	c.floors[other] = max(c.floors[other], version)
}
