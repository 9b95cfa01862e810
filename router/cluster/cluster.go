// Package cluster is the port to who is alive: the processes of the cluster find each other through it. Package gossip is
// the adapter; Static is for tests and for a cluster in one process.
//
// What it says is late and may differ from place to place: a process that died shows for seconds, and two sides of a cut each
// see their own. So nothing that must be exact rests on it alone: partitions are guarded by leases and router epochs,
// presence by the nodes' leases.
package cluster

import (
	"context"
	"slices"
)

// Role is what a process does.
type Role string

// Roles.
const (
	RoleNode    Role = "node"
	RoleRouter  Role = "router"
	RoleHistory Role = "history"
)

// State is what a member is about. An empty one, of a version that told none, is Serving.
type State string

// States.
const (
	Starting State = "starting"
	Serving  State = "serving"
	// Draining: it goes, and hands over what it has. It gets nothing new.
	Draining State = "draining"
)

// Member is a process that is thought alive.
type Member struct {
	// ID is the process's life, never reused.
	ID string
	// Name is for people: host name and port, or what the operator calls it. Two of one role must not have the same (see Rivals).
	Name  string
	Roles []Role
	// Peer is the address of its peer link, host:port.
	Peer string
	// Version is the program's.
	Version string
	// Client is where clients may be told to connect, host:port; empty if they may not be told.
	Client string
	State  State
	// SinceMs is when it started, by its own clock, in Unix milliseconds.
	SinceMs int64
	// Generation is above that of all whose name or address it took because they did not answer (see Yields).
	Generation uint64
}

// Has reports whether the member has a role.
func (m Member) Has(role Role) bool {
	return slices.Contains(m.Roles, role)
}

// Membership is the view of one process.
type Membership interface {
	// Members gives those thought alive, itself included, sorted by ID, and a channel that is closed at the next change. The
	// slice is shared: do not change it.
	Members() ([]Member, <-chan struct{})
	// Announce changes what the others are told of this process; the ID must stay. They hear of it soon after; an error says that
	// it may take longer.
	Announce(ctx context.Context, self Member) error
	// Leave tells the others that this process goes, and ends the membership.
	Leave(ctx context.Context) error
}
