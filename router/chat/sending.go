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

// PrepareSend checks the rules and makes the message, without what the log gives it. NOT_FRIENDS for strangers and nobody
// alike, FORBIDDEN for notices, NOT_FOUND for groups, which there are none of yet. If the rule is not known and cannot be
// asked for it is UNAVAILABLE: refused, never allowed.
func (s *Service) PrepareSend(ctx context.Context, user Account, r *pb.SendRequest) (*pb.Message, error) {
	peer, err := s.recipient(user, r)
	if err != nil {
		return nil, err
	}
	known, fresh := s.friends.get(s.opts.Now(), user.ID, peer)
	if !fresh {
		switch p, err := s.store.Pair(ctx, user.ID, peer); {
		case err != nil && !known:
			return nil, away("send", err)
		case err != nil:
			// Known, though not of late. That it ended meanwhile would have been told to this node before it was answered (exact
			// removals), so people go on chatting while the database is away (I8).
			s.friends.put(s.opts.Now().Add(retryStore-s.opts.FriendTTL), user.ID, peer, 0)
		case p.State != PairFriends:
			s.friends.drop(user.ID, peer)
			return nil, notFriends()
		default:
			s.friends.put(s.opts.Now(), user.ID, peer, p.Version)
		}
	}
	return makeMessage(user, r), nil
}

// PrepareCached is PrepareSend where that needs no database: decided is false if it does. It never blocks.
func (s *Service) PrepareCached(user Account, r *pb.SendRequest) (m *pb.Message, decided bool, err error) {
	peer, err := s.recipient(user, r)
	if err != nil {
		return nil, true, err
	}
	if _, fresh := s.friends.get(s.opts.Now(), user.ID, peer); !fresh {
		return nil, false, nil
	}
	return makeMessage(user, r), true, nil
}

func notFriends() error {
	return wire.Errorf(pb.Code_CODE_NOT_FRIENDS, "you can write only to friends")
}

// recipient gives who gets what a user sends to a conversation.
func (s *Service) recipient(user Account, r *pb.SendRequest) (int64, error) {
	c, err := wire.ParseConversation(r.GetConversation())
	switch {
	case err != nil:
		return 0, wire.Invalid("conversation", err)
	case c.Kind == 'n':
		return 0, wire.Errorf(pb.Code_CODE_FORBIDDEN, "nobody sends notices but the server")
	case c.Kind == 'g':
		return 0, wire.Errorf(pb.Code_CODE_NOT_FOUND, "there is no such group")
	case !c.Has(user.ID):
		return 0, notFriends()
	}
	return c.Other(user.ID), nil
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

// FindSent is FindSent on the service's store, for a message that PrepareSend made.
func (s *Service) FindSent(ctx context.Context, m *pb.Message) (Sent, error) {
	return FindSent(ctx, s.store, s.opts.Topic.Partitions, m)
}

// friendCache remembers who are friends, never who are not: to become friends takes effect at once, everywhere.
//
// A friendship cannot end yet. When it can, this is the seam: a removal raises the pair's version in the database, each node
// drops the entry below that version and confirms once no produce that was checked against it is in flight (design.md,
// "Exact removals"); that is why the version is kept, and why an entry may outlive its TTL while the database is away.
type friendCache struct {
	ttl time.Duration

	mu    sync.Mutex
	known generations[[2]int64, friendship]
}

type friendship struct {
	version uint64
	until   time.Time
}

func newFriendCache(most int, ttl time.Duration) *friendCache {
	return &friendCache{ttl: ttl, known: newGenerations[[2]int64, friendship](most)}
}

func pairKey(a, b int64) [2]int64 { return [2]int64{min(a, b), max(a, b)} }

// get says whether two are known as friends, and whether that was looked up within the TTL.
func (c *friendCache) get(now time.Time, a, b int64) (known, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, known := c.known.get(pairKey(a, b))
	if !known {
		return false, false
	}
	c.known.put(pairKey(a, b), f) // used: it stays
	return true, now.Before(f.until)
}

// put remembers a friendship as it was looked up at a time. A lower version never replaces a higher one.
func (c *friendCache) put(at time.Time, a, b int64, version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, _ := c.known.get(pairKey(a, b))
	c.known.put(pairKey(a, b), friendship{version: max(version, f.version), until: at.Add(c.ttl)})
}

func (c *friendCache) drop(a, b int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.drop(pairKey(a, b))
}
