package chat

import (
	"context"
	"errors"
	"slices"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// MaxSubjects is how many subjects a GroupNotice names: above, it counts them, and members are asked for by page.
const MaxSubjects = 200

// CreateGroup makes a group of its owner and others. INVALID for a name that is none, LIMIT for too many members. What it returns is
// to be published from the outbox at once.
func (s *Service) CreateGroup(ctx context.Context, owner Account, name string, others []Account) (Group, Outgoing, error) {
	const op = "create group"
	if err := wire.CheckName(name); err != nil {
		return Group{}, Outgoing{}, wire.Invalid("name", err)
	}
	members := []Account{owner}
	named := map[int64]bool{owner.ID: true}
	for _, a := range others {
		if !named[a.ID] {
			named[a.ID] = true
			members = append(members, a)
		}
	}
	if len(members) > s.opts.MaxMembers {
		return Group{}, Outgoing{}, s.groupFull()
	}
	id, err := s.newMessageID()
	if err != nil {
		return Group{}, Outgoing{}, err
	}
	g := Group{Name: name, Owner: owner.ID, CreatedMs: s.nowMs()}
	g, out, err := s.store.CreateGroup(ctx, g, ids(members), func(g Group) (*pb.Message, error) {
		return groupNotice(g, id, pb.GroupNotice_CHANGE_CREATED, owner, members), nil
	})
	if err != nil {
		return Group{}, Outgoing{}, away(op, err)
	}
	return g, out, nil
}

func (s *Service) groupFull() error {
	return wire.Errorf(pb.Code_CODE_LIMIT, "a group has at most %d members", s.opts.MaxMembers)
}

func ids(accounts []Account) []int64 {
	list := make([]int64, len(accounts))
	for i, a := range accounts {
		list[i] = a.ID
	}
	return list
}

func groupNotice(g Group, id string, change pb.GroupNotice_Change, by Account, subjects []Account) *pb.Message {
	n := &pb.GroupNotice{Change: change, By: by.User(), Count: uint32(len(subjects)), Name: g.Name, Version: g.Version}
	if len(subjects) <= MaxSubjects {
		for _, a := range subjects {
			n.Subjects = append(n.Subjects, a.User())
		}
	}
	return &pb.Message{
		Conversation: wire.Group(g.ID), Sender: by.User(), ClientMsgId: id,
		Payload: &pb.Payload{Kind: &pb.Payload_Group{Group: n}},
	}
}

// AddMembers takes people into a group; those who are in it stay as they are. FORBIDDEN for all but the owner, NOT_FOUND for who is
// no member, ALREADY if all are in it, LIMIT. What it returns is to be published from the outbox at once.
func (s *Service) AddMembers(ctx context.Context, by Account, group int64, people []Account) (Outgoing, error) {
	subjects := append([]Account{by}, people...)
	return s.changeGroup(ctx, "add members", by, group, subjects, func(g Group, spans []Span) (GroupChange, pb.GroupNotice_Change, []Account, error) {
		c := GroupChange{Group: g}
		var joined []Account
		for i, a := range subjects {
			if i > 0 && !spans[i].Open() && !slices.Contains(c.Join, a.ID) {
				c.Join, joined = append(c.Join, a.ID), append(joined, a)
			}
		}
		switch {
		case g.Owner != by.ID:
			return c, 0, nil, wire.Errorf(pb.Code_CODE_FORBIDDEN, "only the owner takes people into this group")
		case len(c.Join) == 0:
			return c, 0, nil, wire.Errorf(pb.Code_CODE_ALREADY, "they are members already")
		case g.Members+len(c.Join) > s.opts.MaxMembers:
			return c, 0, nil, s.groupFull()
		}
		c.Group.Members += len(c.Join)
		return c, pb.GroupNotice_CHANGE_JOINED, joined, nil
	})
}

// RemoveMember takes somebody out of a group: its owner whom he likes, everybody else himself. NOT_FOUND if either is no member,
// FORBIDDEN. What it returns is to be published from the outbox at once.
func (s *Service) RemoveMember(ctx context.Context, by Account, group int64, who Account) (Outgoing, error) {
	return s.changeGroup(ctx, "remove member", by, group, []Account{by, who}, func(g Group, spans []Span) (GroupChange, pb.GroupNotice_Change, []Account, error) {
		c, change := GroupChange{Group: g, Leave: []int64{who.ID}}, pb.GroupNotice_CHANGE_REMOVED
		if by.ID == who.ID {
			change = pb.GroupNotice_CHANGE_LEFT
		}
		switch {
		case g.Owner == who.ID:
			return c, 0, nil, wire.Errorf(pb.Code_CODE_FORBIDDEN, "the owner stays in his group")
		case by.ID != who.ID && g.Owner != by.ID:
			return c, 0, nil, wire.Errorf(pb.Code_CODE_FORBIDDEN, "only the owner takes others out of this group")
		case !spans[1].Open():
			return c, 0, nil, wire.Errorf(pb.Code_CODE_NOT_FOUND, "that person is no member")
		}
		c.Group.Members--
		return c, change, []Account{who}, nil
	})
}

// changeGroup decides under the group's lock. subjects[0] is who asks, who must be a member.
func (s *Service) changeGroup(ctx context.Context, op string, by Account, group int64, subjects []Account,
	rule func(Group, []Span) (GroupChange, pb.GroupNotice_Change, []Account, error),
) (Outgoing, error) {
	var refused error
	_, out, err := s.store.ChangeGroup(ctx, group, ids(subjects), func(g Group, spans []Span) (GroupChange, error) {
		refused = nil
		if !spans[0].Open() {
			refused = noGroup()
			return GroupChange{}, refused
		}
		c, change, about, err := rule(g, spans)
		if err != nil {
			refused = err
			return c, err
		}
		id, err := s.newMessageID()
		if err != nil {
			refused = err
			return c, err
		}
		c.Group.Version++
		c.Notice = groupNotice(c.Group, id, change, by, about)
		return c, nil
	})
	switch {
	case refused != nil:
		return Outgoing{}, refused
	case errors.Is(err, ErrNotFound):
		return Outgoing{}, noGroup()
	case err != nil:
		return Outgoing{}, away(op, err)
	}
	return out, nil
}

// noGroup is the same for a group that one is no member of and for none.
func noGroup() error { return wire.Errorf(pb.Code_CODE_NOT_FOUND, "there is no such group") }

// GroupsOf gives the groups that a user is a member of.
func (s *Service) GroupsOf(ctx context.Context, user int64) ([]int64, error) {
	return s.store.GroupsOf(ctx, user)
}

// Memberships gives how users stand to a group, as GroupStore has it.
func (s *Service) Memberships(ctx context.Context, group int64, users []int64) (uint64, []Membership, error) {
	return s.store.Memberships(ctx, group, users)
}
