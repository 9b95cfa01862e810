package presence

import "time"

// Event is what happens to a Keeper.
type Event interface{ keeperEvent() }

type (
	// Tick lets time pass; due at Keeper.Next at the latest.
	Tick struct{}
	// Register asks for a connection to be registered. It is answered by Registered, once or twice. Connection must never have
	// been used before. With a Group, and nothing else, it says that the node has members of that group; that is answered by
	// GroupRegistered, and may be asked for again after an Unregister.
	Register struct {
		Connection uint64
		User       int64
		Device     string
		Group      int64
	}
	// Unregister is told that a connection has ended, or that the node has no members of a Group. It is not answered.
	Unregister struct {
		Connection uint64
		Group      int64
	}
	// LeaseAnswered answers AcquireLease and RenewLease. An answer that is lost must be given with an Err.
	LeaseAnswered struct {
		ID   uint64
		Held bool
		Err  error
	}
	// EpochAnswered answers ReadEpoch.
	EpochAnswered struct {
		ID    uint64
		Epoch string
		Err   error
	}
	// EntriesWritten answers WriteEntries; Added belongs to its Register.
	EntriesWritten struct {
		ID    uint64
		Added []bool
		Err   error
	}
	// Shutdown ends the Keeper: it unregisters everything and gives the lease up, but tries each only once.
	Shutdown struct{}
	// LeaseReleased answers ReleaseLease if that had an ID.
	LeaseReleased struct{ ID uint64 }
)

func (Tick) keeperEvent()           {}
func (Register) keeperEvent()       {}
func (Unregister) keeperEvent()     {}
func (LeaseAnswered) keeperEvent()  {}
func (EpochAnswered) keeperEvent()  {}
func (EntriesWritten) keeperEvent() {}
func (Shutdown) keeperEvent()       {}
func (LeaseReleased) keeperEvent()  {}

// Effect is what a Keeper wants done. Of each kind with an ID at most one waits for its answer.
type Effect interface{ keeperEffect() }

type (
	// AcquireLease takes the lease of an incarnation that was never used before.
	AcquireLease struct {
		ID          uint64
		Incarnation string
		TTL         time.Duration
	}
	// RenewLease prolongs it by compare.
	RenewLease struct {
		ID          uint64
		Incarnation string
		TTL         time.Duration
	}
	// ReleaseLease gives it up. With ID 0 nobody waits for it, and it may fail.
	ReleaseLease struct {
		ID          uint64
		Incarnation string
	}
	// ReadEpoch asks for the epoch of the stored data.
	ReadEpoch struct{ ID uint64 }
	// WriteEntries registers and unregisters, in any order: no connection is in both.
	WriteEntries struct {
		ID         uint64
		Register   []Entry
		Unregister []Entry
	}
	// Registered answers Register. If Degraded, the connection is not found by others yet; another Registered and a Compare
	// follow when it is.
	Registered struct {
		Connection uint64
		Degraded   bool
	}
	// GroupRegistered: routers find this node for that group's messages. If Lost they may not have for a while: its members are
	// to compare heads.
	GroupRegistered struct {
		Group int64
		Lost  bool
	}
	// Compare tells connections that may have missed something to compare heads. They are registered by now.
	Compare struct{ Connections []uint64 }
	// Suspend: the lease is late or gone, so others reckon the node dead. It must not deliver until Resume.
	Suspend struct{}
	// Resume: the node lives under a new incarnation, and may deliver what is sent to that. It comes before the connections are
	// registered, since what is sent to them may arrive from that moment on; a Compare for each that had been registered before
	// follows as they are. The first Resume is without a Suspend before it.
	Resume struct{ Incarnation string }
	// Stopped: nothing happens after this.
	Stopped struct{}
)

func (AcquireLease) keeperEffect()    {}
func (RenewLease) keeperEffect()      {}
func (ReleaseLease) keeperEffect()    {}
func (ReadEpoch) keeperEffect()       {}
func (WriteEntries) keeperEffect()    {}
func (Registered) keeperEffect()      {}
func (GroupRegistered) keeperEffect() {}
func (Compare) keeperEffect()         {}
func (Suspend) keeperEffect()         {}
func (Resume) keeperEffect()          {}
func (Stopped) keeperEffect()         {}
