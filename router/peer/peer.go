package peer

import (
	"errors"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// What sending answers; match with errors.Is.
var (
	// ErrLost says that the link broke, or could not be made, before the answer: the frame may or may not have arrived.
	ErrLost = errors.New("peer: link lost")
	// ErrTimeout says that no answer came in time: the frame may still arrive.
	ErrTimeout = errors.New("peer: no answer in time")
	// ErrFull says that too much waits to be sent on this link: the frame was not sent.
	ErrFull = errors.New("peer: too much waits to be sent")
	// ErrTooLarge says that the frame is over MaxFrame: it was not sent.
	ErrTooLarge = errors.New("peer: frame too large")
)

// Recipient is one connection of a user on the node addressed.
type Recipient struct {
	User       int64
	Connection uint64
}

// Message is a message for some connections.
type Message struct {
	Seq uint64
	// Body is the encoded wire Message, with seq, prev_seq and time.
	Body       []byte
	Recipients []Recipient
	// Group, if not 0, is whose members' sessions the message is for besides Recipients: those of who is a member at Version of the
	// group. Such sessions are never Missed.
	Group   int64
	Version uint64
}

// Rejection tells a sender that a message was dropped for good.
type Rejection struct {
	Seq        uint64 // of the record that was dropped
	Recipients []Recipient
	Rejected   *pb.Rejected
}

// Forward is what a partition's router has for one node. Forwards of one (partition, router epoch) are numbered from 1 per
// node without a hole, whether sent or not: a number left out tells the node that it missed something. A Forward without
// messages only brings the number up to date.
type Forward struct {
	// Incarnation is the life of the node that is meant: another one answers WrongIncarnation.
	Incarnation string
	Partition   int32
	RouterEpoch uint64
	Number      uint64
	Messages    []Message
	Rejections  []Rejection
}

// Status is what became of a Forward.
type Status uint8

// Statuses. They go over the link: never renumber.
const (
	StatusDelivered Status = 1
	// StatusStale: the node knows a higher router epoch for this partition. Nothing was delivered: stop owning it.
	StatusStale Status = 2
	// StatusWrongIncarnation: the node has another life by now. Nothing was delivered.
	StatusWrongIncarnation Status = 3
)

// Answer is a node's answer to a Forward.
type Answer struct {
	Status Status
	// Missed are recipients without a session here: not reached.
	Missed []Missed
}

// Missed is a recipient that a message did not reach.
type Missed struct {
	Seq       uint64
	Recipient Recipient
}

// Kick ends connections of a node.
type Kick struct {
	Incarnation string
	Connections []uint64
	Reason      pb.Closing_Reason
}

// Fence asks a node to have no message on its way to a conversation that was checked against a version below this one.
type Fence struct {
	Conversation string
	Version      uint64
}

// Fenced is a node's answer to a Fence: it is so.
type Fenced struct {
	// Self is the process's life, Incarnation what it held when the Fence came, or empty: so that nobody takes it for another
	// node's answer who now has that one's address.
	Self, Incarnation string
}

// Handler takes what comes over links. Calls of one link come one at a time, in order; different links at the same time.
type Handler interface {
	// Forward must not block for long: the router waits. link is unique to the link it came over. f's slices may be kept.
	Forward(link uint64, f Forward) Answer
	Kick(k Kick)
	// Fence must not wait. It has done called once it is fenced, from any goroutine and perhaps at once, with the incarnation that
	// it held when it was called.
	Fence(f Fence, done func(incarnation string))
	// LinkLost says that this link broke: nothing more comes over it, and something may have been on its way. A link that its
	// dialer closed with a good-bye (of TLS), having nothing under way, is not lost.
	LinkLost(link uint64)
}
