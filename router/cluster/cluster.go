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

// Member is a process that is thought alive.
type Member struct {
	// ID is the process's life, never reused.
	ID string
	// Name is for people: host name and port, or what the operator calls it.
	Name  string
	Roles []Role
	// Peer is the address of its peer link, host:port; empty if it has none.
	Peer string
	// Version is the program's.
	Version string
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
	// Leave tells the others that this process goes, and ends the membership.
	Leave(ctx context.Context) error
}
