package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

// CreateGroup implements chat.GroupStore.
func (s *Store) CreateGroup(ctx context.Context, g chat.Group, members []int64, notice func(chat.Group) (*pb.Message, error)) (chat.Group, chat.Outgoing, error) {
	var made chat.Group
	var out chat.Outgoing
	err := s.inTx(ctx, "create group", func(tx *sql.Tx) (err error) {
		made = g
		made.Version, made.Members = 1, len(members)
		if made.ID, err = s.insert(ctx, tx, sqlCreateGroup, g.Name, g.Owner, made.Version, made.Members, g.CreatedMs); err != nil {
			return err
		}
		if err := s.join(ctx, tx, made, members); err != nil {
			return err
		}
		var m *pb.Message
		if m, err = notice(made); err != nil {
			return refusal{err}
		}
		out, err = s.putOutgoing(ctx, tx, m, made.Version)
		return err
	})
	if err != nil {
		return chat.Group{}, chat.Outgoing{}, err
	}
	return made, out, nil
}

// join begins spans at the group's version.
func (s *Store) join(ctx context.Context, tx *sql.Tx, g chat.Group, users []int64) error {
	var rows rowArgs
	for _, user := range users {
		rows.add(0, g.ID, user, position(g.Version))
	}
	return s.insertRows(ctx, tx, sqlJoinGroup, &rows)
}

// putOutgoing adds a row to the outbox.
func (s *Store) putOutgoing(ctx context.Context, tx *sql.Tx, notice *pb.Message, version uint64) (chat.Outgoing, error) {
	encoded, err := notice.MarshalVT()
	if err != nil {
		return chat.Outgoing{}, err
	}
	out := chat.Outgoing{Message: notice, Version: version}
	out.ID, err = s.insert(ctx, tx, sqlCreateOutgoing, notice.GetConversation(), position(version), encoded)
	return out, err
}

// ChangeGroup implements chat.GroupStore.
func (s *Store) ChangeGroup(ctx context.Context, group int64, subjects []int64, decide func(chat.Group, []chat.Span) (chat.GroupChange, error)) (chat.Group, chat.Outgoing, error) {
	var c chat.GroupChange
	var out chat.Outgoing
	err := s.inTx(ctx, "change group", func(tx *sql.Tx) error {
		g, err := s.group(ctx, tx, sqlLockGroup, group)
		if err != nil {
			return err
		}
		newest, err := s.newestSpans(ctx, tx, group, subjects)
		if err != nil {
			return err
		}
		spans := make([]chat.Span, len(subjects))
		for i, user := range subjects {
			spans[i] = newest[user]
		}
		if c, err = decide(g, spans); err != nil {
			return refusal{err}
		}
		if _, err := s.exec(ctx, tx, sqlChangeGroup, c.Group.Name, c.Group.Owner, position(c.Group.Version), c.Group.Members, group); err != nil {
			return err
		}
		if err := s.join(ctx, tx, c.Group, c.Join); err != nil {
			return err
		}
		if err := s.leave(ctx, tx, c.Group, c.Leave); err != nil {
			return err
		}
		out, err = s.putOutgoing(ctx, tx, c.Notice, c.Group.Version)
		return err
	})
	if err != nil {
		return chat.Group{}, chat.Outgoing{}, err
	}
	return c.Group, out, nil
}

var errNoMember = errors.New("who leaves is no member")

// leave ends open spans at the group's version.
func (s *Store) leave(ctx context.Context, tx *sql.Tx, g chat.Group, users []int64) error {
	for _, user := range users {
		n, err := s.exec(ctx, tx, sqlLeaveGroup, position(g.Version), g.ID, user)
		switch {
		case err != nil:
			return err
		case n != 1:
			return errNoMember
		}
	}
	return nil
}

// Group implements chat.GroupStore.
func (s *Store) Group(ctx context.Context, id int64) (chat.Group, error) {
	g, err := s.group(ctx, s.read, sqlGroup, id)
	if err != nil {
		return chat.Group{}, fmt.Errorf("group: %w", err)
	}
	return g, nil
}

func (s *Store) group(ctx context.Context, on runner, statement string, id int64) (chat.Group, error) {
	g := chat.Group{ID: id}
	err := s.queryRow(ctx, on, statement, []any{id}, &g.Name, &g.Owner, &g.Version, &g.Members, &g.CreatedMs)
	return g, err
}

// Members implements chat.GroupStore.
func (s *Store) Members(ctx context.Context, group, after int64, limit int) ([]chat.Account, error) {
	var list []chat.Account
	err := s.query(ctx, s.read, func(rows *sql.Rows) error {
		var a chat.Account
		err := rows.Scan(&a.ID, &a.Name)
		list = append(list, a)
		return err
	}, sqlMembers, group, after, max(limit, 0))
	if err != nil {
		return nil, fmt.Errorf("members: %w", err)
	}
	return list, nil
}

// Memberships implements chat.GroupStore. The version is read first: what changes meanwhile is above it, and may be seen all the same.
func (s *Store) Memberships(ctx context.Context, group int64, users []int64) (uint64, []chat.Membership, error) {
	g, err := s.group(ctx, s.read, sqlGroup, group)
	if err != nil {
		return 0, nil, fmt.Errorf("memberships: %w", err)
	}
	newest, err := s.newestSpans(ctx, s.read, group, users)
	if err != nil {
		return 0, nil, fmt.Errorf("memberships: %w", err)
	}
	found := make([]chat.Membership, 0, len(newest))
	for _, user := range users {
		if span, ok := newest[user]; ok {
			found = append(found, chat.Membership{User: user, Span: span})
		}
	}
	return g.Version, found, nil
}

// newestSpans gives the newest span of each user that ever was a member.
func (s *Store) newestSpans(ctx context.Context, on runner, group int64, users []int64) (map[int64]chat.Span, error) {
	newest := make(map[int64]chat.Span, len(users))
	err := s.queryIn(ctx, on, func(rows *sql.Rows) error {
		var user int64
		var span chat.Span
		err := rows.Scan(&user, &span.Joined, &span.Left)
		if span.Joined > newest[user].Joined {
			newest[user] = span
		}
		return err
	}, sqlMemberSpans, []any{group}, anys(users), 1)
	return newest, err
}

// GroupsOf implements chat.GroupStore.
func (s *Store) GroupsOf(ctx context.Context, user int64) ([]int64, error) {
	var ids []int64
	err := s.query(ctx, s.read, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, sqlGroupsOf, user)
	if err != nil {
		return nil, fmt.Errorf("groups of: %w", err)
	}
	return ids, nil
}
