package deliver

import (
	"time"

	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// Event is what happened to a partition: one of the types below.
type Event interface{ event() }

type (
	// Records are the next records of the partition, without a hole. Only an Idle partition takes them.
	Records struct{ Records []eventlog.Record }
	// Refilled answers Refill, in as many pieces as the shell likes, in offset order; the last has Done or Err.
	Refilled struct {
		Records []eventlog.Record
		Done    bool
		Err     error
	}
	// Appended answers AppendRecents.
	Appended struct {
		Prevs []presence.Prev
		Epoch string // the life of the stored data after the append
		Err   error
	}
	// Located answers Locate.
	Located struct {
		Places [][]presence.Place // as Users
		Nodes  [][]presence.Place // as Groups
		Err    error
	}
	// Answered answers Send; Err is peer.ErrLost or peer.ErrTimeout.
	Answered struct {
		Incarnation string
		Number      uint64
		Answer      peer.Answer
		Err         error
	}
	// Pushed answers Push, once all were answered: Failed are those to put again.
	Pushed struct{ Failed []PushRecord }
	// Committed answers Commit.
	Committed struct {
		Offset int64
		Err    error
	}
	// Leased says until when the partition is surely ours. Of no use later: whoever acts for it must know it first.
	Leased struct{ Until time.Time }
	// History is the partition's history offset: all below is in the database.
	History struct{ Offset int64 }
	// Stored is the life of the stored data as it was asked for at a time, besides what Appended tells.
	Stored struct {
		Epoch string
		Asked time.Time
	}
	// Release asks to finish what is in flight, commit and end.
	Release struct{}
	// Tick says that the time of Deadline has come.
	Tick struct{}
)

func (Records) event()   {}
func (Refilled) event()  {}
func (Appended) event()  {}
func (Located) event()   {}
func (Answered) event()  {}
func (Pushed) event()    {}
func (Committed) event() {}
func (Leased) event()    {}
func (History) event()   {}
func (Stored) event()    {}
func (Release) event()   {}
func (Tick) event()      {}

// Effect is what the shell is to do: one of the types below, in the order given.
type Effect interface{ effect() }

type (
	// Refill reads the log from From, or its start if that is higher, up to To, for the dedupe window and the closings.
	Refill struct{ From, To int64 }
	// AppendRecents appends to the recents.
	AppendRecents struct {
		Messages  []presence.Recent
		KeepAbove uint64
	}
	// Locate looks up where users are, and which nodes have members of groups.
	Locate struct{ Users, Groups []int64 }
	// Send sends a frame to a node. It is answered even if that is long after the partition gave it up.
	Send struct {
		Addr    string
		Forward peer.Forward
	}
	// Push appends to chat.push.
	Push struct{ Records []PushRecord }
	// Commit commits an offset: all below it was done.
	Commit struct{ Offset int64 }
	// Lost ends the partition here: it is not ours any more, and nothing may be committed. Nothing follows.
	Lost struct{ Reason LostReason }
	// Released ends the partition here, after Release: the lease can be given up. Nothing follows.
	Released struct{}
)

// LostReason says why a partition was lost, for a metric.
type LostReason string

// Reasons.
const (
	// LostStale: a node knows a router with a higher epoch.
	LostStale LostReason = "stale"
	// LostLease: the lease has ended, or was not renewed in time.
	LostLease LostReason = "lease"
	// LostStore: Redis lost its data, and the lease with it: whose the partition is now is not known. Who owns it next appends all to the
	// recents again that the database does not have. An owner that went on meanwhile would leave recents with holes.
	LostStore LostReason = "store"
	// LostFault: the shell gave records while others were on their way.
	LostFault LostReason = "fault"
)

func (Refill) effect()        {}
func (AppendRecents) effect() {}
func (Locate) effect()        {}
func (Send) effect()          {}
func (Push) effect()          {}
func (Commit) effect()        {}
func (Lost) effect()          {}
func (Released) effect()      {}

// Stats is what a partition counted since it was last asked.
type Stats struct {
	Records    int // read
	Messages   int // of those, delivered to whoever is there
	Passed     int // of a kind that is not known, or unreadable
	Duplicates int
	IDReused   int // of the duplicates, with other content
	Invalid    int // dropped, since the sender's right had ended before them in the log
	Reached    int // recipients
	Unreached  int // recipients, put on chat.push
	Suspected  int // nodes given up
	Skipped    int // frames not sent, or given up
	TailLost   int // prevs made unknown since the recents had lost what was appended
	Refills    int
	Retries    int
}
