package cluster

import (
	"cmp"
	"slices"
)

// Rivals are other members that claim what only one may have: the name, among those of a role, or the peer address. A member that
// has died stands among them until it is seen dead.
func Rivals(self Member, members []Member) []Member {
	return slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.ID == self.ID || Claim(self, m) == "" })
}

// Claim says in words what two members both claim, or nothing.
func Claim(a, b Member) string {
	switch {
	case a.Peer != "" && a.Peer == b.Peer:
		return "the peer address " + a.Peer
	case a.Name == b.Name && slices.ContainsFunc(a.Roles, b.Has):
		return "the name " + a.Name
	}
	return ""
}

// Defers reports whether m, which starts, has to give up to a rival that lives. Of two that start at once one goes on: else they
// would stop each other, and again each time they are started anew.
func (m Member) Defers(rival Member) bool { return rival.State != Starting || m.Yields(rival) }

// Yields reports whether m has to go if both it and its rival live. All come to the same answer: the one of the lower generation goes,
// since the other took its place when it did not answer; of one generation, the one that came later.
func (m Member) Yields(rival Member) bool {
	return cmp.Or(cmp.Compare(rival.Generation, m.Generation), cmp.Compare(m.SinceMs, rival.SinceMs), cmp.Compare(m.ID, rival.ID)) > 0
}
