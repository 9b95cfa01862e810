package chat

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// AddFriend asks somebody to be friends, or accepts if they have asked already. INVALID for oneself, NOT_FOUND, ALREADY, LIMIT.
// What it returns is to be published from the outbox at once.
func (s *Service) AddFriend(ctx context.Context, user Account, r *pb.AddFriendRequest) (Outgoing, error) {
	const op = "add friend"
	if r.GetName() == user.Name {
		return Outgoing{}, wire.Invalid("name", errors.New("is your own"))
	}
	other, err := s.byName(ctx, op, r.GetName())
	if err != nil {
		return Outgoing{}, err
	}
	// The limit is a bound on lists, not a rule between two people: counted outside the transaction it may be passed by as many
	// as ask at once.
	full := ""
	for _, who := range []struct {
		id  int64
		say string
	}{{user.ID, "you have"}, {other.ID, "that person has"}} {
		n, err := s.store.CountPairs(ctx, who.id)
		if err != nil {
			return Outgoing{}, away(op, err)
		}
		if n >= s.opts.MaxPairs && full == "" {
			full = who.say
		}
	}
	return s.change(ctx, op, user, other, func(p Pair) (Pair, pb.FriendNotice_Change, error) {
		switch {
		case p.State == PairFriends:
			return p, 0, wire.Errorf(pb.Code_CODE_ALREADY, "you are friends already")
		case p.State == PairAsked && p.AskedBy == user.ID:
			return p, 0, wire.Errorf(pb.Code_CODE_ALREADY, "you have asked already")
		case p.State == PairAsked:
			p.State = PairFriends
			return p, pb.FriendNotice_CHANGE_ACCEPTED, nil
		case full != "":
			return p, 0, wire.Errorf(pb.Code_CODE_LIMIT, "%s as many friends and requests as are allowed: %d", full, s.opts.MaxPairs)
		}
		p.State, p.AskedBy, p.Greeting = PairAsked, user.ID, r.GetGreeting()
		return p, pb.FriendNotice_CHANGE_REQUESTED, nil
	}, r.GetGreeting())
}

// AnswerFriend accepts or rejects what somebody asked. NOT_FOUND if they have not, ALREADY if both are friends and it accepts.
func (s *Service) AnswerFriend(ctx context.Context, user Account, r *pb.AnswerFriendRequest) (Outgoing, error) {
	const op = "answer friend"
	nothing := wire.Errorf(pb.Code_CODE_NOT_FOUND, "nobody of that name has asked you")
	other, err := s.another(ctx, op, user, r.GetName(), nothing)
	if err != nil {
		return Outgoing{}, err
	}
	return s.change(ctx, op, user, other, func(p Pair) (Pair, pb.FriendNotice_Change, error) {
		switch {
		case p.State == PairFriends && r.GetAccept():
			return p, 0, wire.Errorf(pb.Code_CODE_ALREADY, "you are friends already")
		case p.State != PairAsked || p.AskedBy != other.ID:
			return p, 0, nothing
		case r.GetAccept():
			p.State = PairFriends
			return p, pb.FriendNotice_CHANGE_ACCEPTED, nil
		}
		p.State, p.Greeting = PairNone, ""
		return p, pb.FriendNotice_CHANGE_REJECTED, nil
	}, "")
}

// RemoveFriend ends a friendship. NOT_FOUND if there is none. What it returns is to be brought to the log before the removal is
// answered (design.md, "Exact removals"). Who asks again while that is under way gets the same once more.
func (s *Service) RemoveFriend(ctx context.Context, user Account, r *pb.RemoveFriendRequest) (Outgoing, error) {
	const op = "remove friend"
	nothing := wire.Errorf(pb.Code_CODE_NOT_FOUND, "you have no friend of that name")
	other, err := s.another(ctx, op, user, r.GetName(), nothing)
	if err != nil {
		return Outgoing{}, err
	}
	var was Pair
	out, err := s.change(ctx, op, user, other, func(p Pair) (Pair, pb.FriendNotice_Change, error) {
		if was = p; p.State != PairFriends {
			return p, 0, nothing
		}
		p.State, p.Greeting = PairNone, ""
		return p, pb.FriendNotice_CHANGE_REMOVED, nil
	}, "")
	if !errors.Is(err, wire.ErrNotFound) || was.State != PairNone {
		return out, err
	}
	const most = 200 // of one pair, not yet in the log
	rows, err := s.store.Unsent(ctx, wire.Direct(user.ID, other.ID), was.Version, most)
	if err != nil {
		return Outgoing{}, away(op, err)
	}
	for _, row := range rows {
		if c, closes := ClosingOf(row.Message); closes && c.Version == was.Version {
			return row, nil
		}
	}
	return Outgoing{}, nothing
}

// another finds somebody other than user by name; if there is nobody, it answers nothing.
func (s *Service) another(ctx context.Context, op string, user Account, name string, nothing error) (Account, error) {
	other, err := s.byName(ctx, op, name)
	if errors.Is(err, wire.ErrNotFound) || err == nil && other.ID == user.ID {
		return Account{}, nothing
	}
	return other, err
}

// change decides on a pair and makes the notice that tells both, in the conversation of the two.
func (s *Service) change(ctx context.Context, op string, by, to Account, rule func(Pair) (Pair, pb.FriendNotice_Change, error), greeting string) (Outgoing, error) {
	var refused error // by the rule: given back as it is
	_, out, err := s.store.ChangePair(ctx, min(by.ID, to.ID), max(by.ID, to.ID), func(p Pair) (Pair, *pb.Message, error) {
		refused = nil
		p, change, err := rule(p)
		if err != nil {
			refused = err
			return p, nil, err
		}
		id, err := s.newMessageID()
		if err != nil {
			refused = err
			return p, nil, err
		}
		p.Version++
		p.ChangedMs = s.nowMs()
		return p, &pb.Message{
			Conversation: wire.Direct(by.ID, to.ID), Sender: by.User(), ClientMsgId: id,
			Payload: &pb.Payload{Kind: &pb.Payload_Friend{Friend: &pb.FriendNotice{
				Change: change, By: by.User(), To: to.User(), Greeting: greeting, Version: p.Version,
			}}},
		}, nil
	})
	switch {
	case refused != nil:
		return Outgoing{}, refused
	case err != nil:
		return Outgoing{}, away(op, err)
	}
	return out, nil
}

// newMessageID makes a UUID of version 7 (RFC 9562) from the service's clock and randomness.
func (s *Service) newMessageID() (string, error) {
	var u [16]byte
	if _, err := io.ReadFull(s.opts.Rand, u[6:]); err != nil {
		return "", fmt.Errorf("chat: random bytes: %w", err)
	}
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(s.nowMs()))
	copy(u[:6], ms[2:])
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
}

// ListFriends gives a user's friends and open requests, by name. Online is left to the caller.
func (s *Service) ListFriends(ctx context.Context, user int64) ([]*pb.Friend, error) {
	pairs, err := s.store.Pairs(ctx, user, s.opts.MaxPairs)
	if err != nil {
		return nil, away("list friends", err)
	}
	list := make([]*pb.Friend, 0, len(pairs))
	for _, p := range pairs {
		other := p.Other(user)
		f := &pb.Friend{
			User: other.User(), Greeting: p.Greeting, TimeMs: p.ChangedMs, Conversation: wire.Direct(p.Lo.ID, p.Hi.ID),
			State: pb.Friend_STATE_ASKED_BY_THEM,
		}
		switch {
		case p.State == PairFriends:
			f.State = pb.Friend_STATE_FRIEND
		case p.AskedBy == user:
			f.State = pb.Friend_STATE_ASKED_BY_ME
		}
		list = append(list, f)
	}
	return list, nil
}
