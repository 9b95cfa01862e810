package cluster

import (
	"cmp"
	"context"
	"slices"
	"sync"
)

// Static is a membership that only its owner changes: for tests, and for a cluster in one process. It is safe for concurrent
// use. All that share it see the same.
type Static struct {
	mu      sync.Mutex
	members []Member // sorted by ID; replaced as a whole, since callers hold it
	changed chan struct{}
}

var (
	_ Membership = (*Static)(nil)
	_ Membership = (*seat)(nil)
)

// NewStatic returns a membership of these members.
func NewStatic(members ...Member) *Static {
	return &Static{members: sorted(members), changed: make(chan struct{})}
}

// Members gives those that were set last.
func (s *Static) Members() ([]Member, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members, s.changed
}

// Set replaces the members. Of those with the same ID the last one counts.
func (s *Static) Set(members ...Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(sorted(members))
}

// Announce changes one of the members, if it is there.
func (s *Static) Announce(_ context.Context, self Member) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.members, func(m Member) bool { return m.ID == self.ID }) {
		s.setLocked(sorted(append(slices.Clone(s.members), self)))
	}
	return nil
}

// Leave does nothing: nobody in particular looks through s. See Join.
func (s *Static) Leave(context.Context) error { return nil }

// Join adds a member and gives its own membership, whose Leave takes the member out again.
func (s *Static) Join(m Member) Membership {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(sorted(append(slices.Clone(s.members), m)))
	return &seat{shared: s, id: m.ID}
}

func (s *Static) setLocked(members []Member) {
	s.members = members
	close(s.changed)
	s.changed = make(chan struct{})
}

// leave takes a member out and returns what there was before.
func (s *Static) leave(id string) []Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.members
	s.setLocked(slices.DeleteFunc(slices.Clone(before), func(m Member) bool { return m.ID == id }))
	return before
}

// seat is one member's view of a Static.
type seat struct {
	shared *Static
	id     string

	mu   sync.Mutex
	left bool
	last []Member // what was seen at Leave
}

func (s *seat) Members() ([]Member, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return s.last, nil
	}
	return s.shared.Members()
}

func (s *seat) Announce(ctx context.Context, self Member) error { return s.shared.Announce(ctx, self) }

func (s *seat) Leave(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.left {
		s.left = true
		s.last = s.shared.leave(s.id)
	}
	return nil
}

// sorted sorts by ID and keeps the last of each.
func sorted(members []Member) []Member {
	members = slices.Clone(members)
	slices.Reverse(members)
	slices.SortStableFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(members, func(a, b Member) bool { return a.ID == b.ID })
}
