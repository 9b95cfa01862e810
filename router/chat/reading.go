package chat

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/eventlog"
)

// MaxConversations is how many conversations a list has at most.
const MaxConversations = 1000

// retryHistory is when history will have what it does not have yet, most likely.
const retryHistory = 300 * time.Millisecond

// Pending is the answer for what is durable but not yet in the database.
func Pending(what string) *wire.Error {
	e := wire.Errorf(pb.Code_CODE_PENDING, "%s is not yet readable", what)
	e.RetryAfter = retryHistory
	return e
}

// MayRead answers NOT_FOUND for a conversation that is not the user's, as for one that there is not. Of groups it knows nothing:
// GroupStore.Readable does.
func MayRead(user int64, conversation string) error {
	c, err := wire.ParseConversation(conversation)
	if err != nil {
		return wire.Invalid("conversation", err)
	}
	if !c.Has(user) {
		return noConversation()
	}
	return nil
}

func noConversation() error {
	return wire.Errorf(pb.Code_CODE_NOT_FOUND, "there is no such conversation")
}

// MarkRead moves a user's reading up to r.Seq, and gives the head after. What history does not have yet cannot be marked
// exactly: then all that can be is, and the answer is PENDING. NOT_FOUND if the conversation is not the user's.
func (s *Service) MarkRead(ctx context.Context, user int64, r *pb.ReadRequest) (Head, error) {
	const op = "mark read"
	if err := s.hasConversation(ctx, op, user, r.GetConversation()); err != nil {
		return Head{}, err
	}
	h, err := s.store.MarkRead(ctx, user, r.GetConversation(), r.GetSeq())
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return Head{}, away(op, err)
	case err == nil && h.ReadSeq >= r.GetSeq():
		return h, nil
	}
	offsets, err := s.store.HistoryOffsets(ctx, TopicMessages)
	if err != nil {
		return Head{}, away(op, err)
	}
	due := offsets[eventlog.PartitionOf(r.GetConversation(), s.opts.Topic.Partitions)]
	if r.GetSeq() >= eventlog.Seq(s.opts.Topic.Epoch, due) {
		return Head{}, Pending("what is to be marked")
	}
	// History has all up to seq by now, but may have got it only after the mark was set: so set it once more.
	h, err = s.store.MarkRead(ctx, user, r.GetConversation(), r.GetSeq())
	switch {
	case errors.Is(err, ErrNotFound):
		return Head{}, noConversation()
	case err != nil:
		return Head{}, away(op, err)
	}
	return h, nil
}

// hasConversation is MayRead for groups too: of one that a user is or was a member of.
func (s *Service) hasConversation(ctx context.Context, op string, user int64, conversation string) error {
	c, err := wire.ParseConversation(conversation)
	if err != nil || c.Kind != 'g' {
		return MayRead(user, conversation)
	}
	_, found, err := s.store.Memberships(ctx, c.A, []int64{user})
	switch {
	case errors.Is(err, ErrNotFound), err == nil && len(found) == 0:
		return noConversation()
	case err != nil:
		return away(op, err)
	}
	return nil
}

// Conversations lists a user's conversations, newest first, at most MaxConversations, with the heads as timeline.Heads gives them:
// what is unread is exact, while the newest message shown is the newest that history has.
func (s *Service) Conversations(ctx context.Context, user int64, heads []*pb.Head) ([]*pb.Conversation, error) {
	const op = "conversations"
	// Positions of different partitions cannot be compared, so all last messages are needed to find the newest.
	names := make([]string, 0, len(heads))
	for _, h := range heads {
		names = append(names, h.GetConversation())
	}
	last, err := s.store.LastMessages(ctx, names)
	if err != nil {
		return nil, away(op, err)
	}
	list := make([]*pb.Conversation, 0, len(heads))
	for _, h := range heads {
		if newest := last[h.GetConversation()]; newest.GetSeq() > h.GetSeq() && strings.HasPrefix(h.GetConversation(), "g:") {
			// He has left, and must not see what came after. (Or it came just now.)
			upTo, err := s.store.Messages(ctx, h.GetConversation(), 0, h.GetSeq()+1, 1, false)
			if err != nil {
				return nil, away(op, err)
			}
			if last[h.GetConversation()] = nil; len(upTo) == 1 {
				last[h.GetConversation()] = upTo[0]
			}
		}
		list = append(list, &pb.Conversation{
			Id: h.GetConversation(), Last: last[h.GetConversation()], Unread: h.GetUnread(), ReadSeq: h.GetReadSeq(),
		})
	}
	slices.SortStableFunc(list, func(a, b *pb.Conversation) int {
		return cmp.Or(cmp.Compare(b.GetLast().GetTimeMs(), a.GetLast().GetTimeMs()), cmp.Compare(a.GetId(), b.GetId()))
	})
	list = list[:min(len(list), MaxConversations)]
	boundLast(list)
	if err := s.namePeers(ctx, op, user, list); err != nil {
		return nil, err
	}
	return list, nil
}

// maxLastBytes bounds the last messages of a list together: with them, 64 strangers' longest texts would make it larger than any
// client takes, and the list could not be had any more.
const maxLastBytes = 256 << 10

// boundLast leaves out the last messages of the older conversations where they are too much.
func boundLast(list []*pb.Conversation) {
	size := 0
	for _, c := range list {
		if size += c.GetLast().SizeVT(); size > maxLastBytes {
			c.Last = nil
		}
	}
}

// namePeers gives each direct conversation the other's name.
func (s *Service) namePeers(ctx context.Context, op string, user int64, list []*pb.Conversation) error {
	pairs, err := s.store.Pairs(ctx, user, s.opts.MaxPairs)
	if err != nil {
		return away(op, err)
	}
	names := make(map[int64]Account, len(pairs))
	for _, p := range pairs {
		names[p.Other(user).ID] = p.Other(user)
	}
	for _, c := range list {
		parsed, err := wire.ParseConversation(c.GetId())
		if err != nil || parsed.Kind != 'd' {
			continue
		}
		peer := parsed.Other(user)
		a, ok := names[peer]
		if !ok { // neither friends nor asked, any more
			p, err := s.store.Pair(ctx, user, peer)
			if err != nil {
				return away(op, err)
			}
			a = p.Other(user)
		}
		c.Peer = a.User()
	}
	return nil
}
