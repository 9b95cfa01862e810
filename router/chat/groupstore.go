package chat

import (
	"context"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Group is a group of people. Its conversation is `g:<ID>`.
type Group struct {
	ID   int64
	Name string
	// Owner is who made it, or whom it was handed to.
	Owner int64
	// Version rises by one with each change of the group or of its members; 1 when it was made.
	Version uint64
	// Members counts who is in it.
	Members   int
	CreatedMs int64
}

// Span is a stretch of a group's versions through which somebody is a member: from Joined on, and below Left. Left 0 is no end.
type Span struct{ Joined, Left uint64 }

// Open tells that the span has not ended. The zero Span is that of somebody who never was a member.
func (s Span) Open() bool { return s.Joined != 0 && s.Left == 0 }

// Has tells whether it covers a version.
func (s Span) Has(version uint64) bool {
	return s.Joined != 0 && s.Joined <= version && (s.Left == 0 || version < s.Left)
}

// Membership is a user's newest span in a group.
type Membership struct {
	User int64
	Span
}

// GroupChange is what was decided about a group. Join and Leave are among the subjects: who joins is no member, who leaves is one.
type GroupChange struct {
	Group       Group // Version raised by one, Members counted
	Join, Leave []int64
	Notice      *pb.Message
}

// SeqSpan is a stretch of a conversation's positions that somebody may read: From <= seq <= To.
type SeqSpan struct{ From, To uint64 }

// GroupStore has the groups. Who is a member is kept as spans of versions; at which position a version took effect is known from
// the notices that history stores. So a change of 10,000 members is one notice, and what each may read follows from the two.
type GroupStore interface {
	// CreateGroup stores a group at version 1 with its first members, and the outbox row of its notice, in one transaction. notice
	// is given the group with its id; it may be called more than once and must only compute. The members exist, each once.
	CreateGroup(ctx context.Context, g Group, members []int64, notice func(Group) (*pb.Message, error)) (Group, Outgoing, error)
	// ChangeGroup reads a group and the newest span of each subject (zero: never a member) under the group's row lock, asks decide,
	// and stores what it decides with an outbox row that holds its notice, in one transaction. An error from decide is given back
	// as it is, and nothing is changed. decide may be called more than once and must only compute. ErrNotFound.
	ChangeGroup(ctx context.Context, group int64, subjects []int64, decide func(Group, []Span) (GroupChange, error)) (Group, Outgoing, error)
	// Group reads a group. ErrNotFound.
	Group(ctx context.Context, id int64) (Group, error)
	// Members lists who is a member, by rising id above after, at most limit.
	Members(ctx context.Context, group, after int64, limit int) ([]Account, error)
	// Memberships gives those of users that ever were members, as the users are ordered, and a version of the group: every change
	// up to it is in the answer, and perhaps later ones. What was committed before the call is seen. ErrNotFound.
	Memberships(ctx context.Context, group int64, users []int64) (version uint64, found []Membership, err error)
	// GroupsOf gives the groups that a user is a member of, by id.
	GroupsOf(ctx context.Context, user int64) ([]int64, error)
	// Readable gives what a user may read of a group: rising, and empty for one who never was a member. pending: history has not
	// stored all notices of his joining and leaving yet, so it cannot be told.
	Readable(ctx context.Context, group, user int64) (spans []SeqSpan, pending bool, err error)
}
