package groups

import (
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

// Event is what happens to an Index: one of the types below. C identifies a connection and is never used again.
type Event interface{ event() }

type (
	// Tick lets time pass; due at Next at the latest.
	Tick struct{}
	// Entered: a connection's user is registered in presence. Ready answers it. Late: the session goes on already, since presence was
	// away; it is told to compare heads instead.
	Entered[C comparable] struct {
		Connection C
		User       int64
		Late       bool
	}
	// Ended is the end of a connection.
	Ended[C comparable] struct{ Connection C }
	// GroupsLoaded answers LoadGroups.
	GroupsLoaded struct {
		ID     uint64
		User   int64
		Groups []int64
		Err    error
	}
	// MembersLoaded answers LoadMembers: as chat.GroupStore's Memberships does.
	MembersLoaded struct {
		ID      uint64
		Version uint64
		Members []chat.Membership
		Err     error
	}
	// Registered: presence has this node for a group. If Lost it had not for a while.
	Registered struct {
		Group int64
		Lost  bool
	}
	// Message is a router's message for a group, as of Version. Notice is set if it is one. To are connections that it is for as persons,
	// whether members or not.
	Message[C comparable] struct {
		Group   int64
		Version uint64
		Frame   []byte
		Notice  *pb.GroupNotice
		To      []C
	}
	// Missed: messages of a group were dropped before they came here. Notice: one of them was a notice, so somebody may have joined.
	Missed struct {
		Group  int64
		Notice bool
	}
	// Doubted: a notice of somebody's joining may have been lost on its way, for one user or, if 0, for all: his groups are read again
	// with the next Synced.
	Doubted struct{ User int64 }
	// Synced: a user's client is comparing heads.
	Synced struct{ User int64 }
	// Renewed: the node has a new lease, and may have been told of no Fence without one.
	Renewed struct{}
	// Fence: what is known of a group below this version must not be used any more.
	Fence struct {
		Group   int64
		Version uint64
	}
)

func (Tick) event()          {}
func (Entered[C]) event()    {}
func (Ended[C]) event()      {}
func (GroupsLoaded) event()  {}
func (MembersLoaded) event() {}
func (Registered) event()    {}
func (Message[C]) event()    {}
func (Missed) event()        {}
func (Doubted) event()       {}
func (Synced) event()        {}
func (Renewed) event()       {}
func (Fence) event()         {}

// Effect is what the shell is to do, in order: one of the types below.
type Effect interface{ effect() }

type (
	// LoadGroups reads the groups that a user is a member of.
	LoadGroups struct {
		ID   uint64
		User int64
	}
	// LoadMembers reads which of users are members of a group. What was committed before is to be seen.
	LoadMembers struct {
		ID    uint64
		Group int64
		Users []int64
	}
	// RegisterGroup has the node registered for a group; Registered answers. UnregisterGroup ends that.
	RegisterGroup   struct{ Group int64 }
	UnregisterGroup struct{ Group int64 }
	// Ready answers Entered: the session may read its heads.
	Ready[C comparable] struct{ Connection C }
	// Deliver hands a frame to connections. To must not be changed.
	Deliver[C comparable] struct {
		Frame []byte
		To    []C
	}
	// Compare tells connections to compare heads.
	Compare[C comparable] struct{ To []C }
)

func (LoadGroups) effect()      {}
func (LoadMembers) effect()     {}
func (RegisterGroup) effect()   {}
func (UnregisterGroup) effect() {}
func (Ready[C]) effect()        {}
func (Deliver[C]) effect()      {}
func (Compare[C]) effect()      {}
