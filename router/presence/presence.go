// Package presence is the port to what the cluster keeps in Redis: who is connected where, the last messages of each
// conversation, and leases. All of it may be lost at any time, whole or in part (I2): it is rebuilt from the log, the
// database and the nodes themselves. Package redispresence is the adapter; presencetest holds what every implementation must
// pass; Memory is for tests and simulation; Keeper is a node's side of presence as a step function.
//
// The order that everything rests on (I4): a router appends to the recents, and only then looks up who is online; a
// session is registered, and only then reads its heads. So a message and a log-in that race are seen by one side.
package presence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrUnavailable is matched by errors.Is when the store could not be reached or did not answer in time: what was asked may or
// may not have been done. All calls are idempotent, so they may be made again.
var ErrUnavailable = errors.New("presence: unavailable")

// Place is one connection of a user: a field of its own, never reused, since incarnation and connection never are.
type Place struct {
	// Incarnation is one life of a node: it changes when the node restarts or has lost its lease.
	Incarnation string
	// Connection is unique within the incarnation.
	Connection uint64
	// Device is the client's device id.
	Device string
	// Addr is the peer address of the node, from its lease; set by Locate alone.
	Addr string
}

// Entry is a user's place, or, if Group is set instead, that an incarnation has members of that group: it then has no connection and
// no device.
type Entry struct {
	User  int64
	Group int64
	Place Place
}

// AllNodes is the group that every node registers for: what goes to it goes to all.
const AllNodes int64 = -1

// Registry is who is connected where. A place counts only while the lease of its incarnation lives.
type Registry interface {
	// Register stores entries, and says of each whether it was not there before: who had it registered knows then that it had
	// been lost.
	Register(ctx context.Context, entries []Entry) (added []bool, err error)
	// Unregister removes exactly these entries.
	Unregister(ctx context.Context, entries []Entry) error
	// Locate gives the places of each user, as the users are ordered, leaving out those whose incarnation has no lease.
	Locate(ctx context.Context, users []int64) ([][]Place, error)
	// LocateGroups is Locate for users and groups at once, in no more round trips. nodes has, per group, the incarnations with members,
	// each once.
	LocateGroups(ctx context.Context, users, groups []int64) (places, nodes [][]Place, err error)
	// Epoch names the life of the stored data: it changes when all was lost, or when the last of it may have been, say since the
	// server was started anew. The first caller after a loss makes a new one.
	Epoch(ctx context.Context) (string, error)
}

// Leases are keys that their owner must renew. A lease name is one of IncarnationLease, PartitionLease and OutboxLease, or the
// history consumer's own (history.LeaseName).
type Leases interface {
	// Acquire takes a lease if nobody has it, for ttl, with a value for others to read. If its owner has it already it is
	// renewed. owner is unique to the taker.
	Acquire(ctx context.Context, name, owner, value string, ttl time.Duration) (bool, error)
	// Renew prolongs a lease if owner still has it, and says whether.
	Renew(ctx context.Context, name, owner string, ttl time.Duration) (bool, error)
	// Release gives it up if owner still has it.
	Release(ctx context.Context, name, owner string) error
}

// LeaseSets are calls for many leases at once, but not those of incarnations (see Lives): one round trip to one server, whatever their number. The answers are ordered as
// the names. With an error nothing is known of any of them.
type LeaseSets interface {
	// Owners tells who has each lease, "" for nobody.
	Owners(ctx context.Context, names []string) ([]string, error)
	// AcquireEach is Acquire, and says of each whether it is the owner's now.
	AcquireEach(ctx context.Context, names []string, owner, value string, ttl time.Duration) ([]bool, error)
	// RenewEach is Renew, and says of each whether it still is the owner's.
	RenewEach(ctx context.Context, names []string, owner string, ttl time.Duration) ([]bool, error)
}

// LeaseTTL is how long others reckon with a node after it renewed its lease last. All nodes of a cluster have the same.
const LeaseTTL = 10 * time.Second

// Life is an incarnation that others reckon with.
type Life struct {
	Incarnation string
	// Addr is the node's peer address, from its lease; empty if Revoked.
	Addr string
	// Revoked: its lease was taken from it not long ago. The node may not have noticed yet.
	Revoked bool
}

// Lives is for who must know of every node that may take messages.
type Lives interface {
	// Lives gives all incarnations with a lease, and those whose lease was revoked not longer ago than was told then, by
	// incarnation. All that was lost is missing: see Epoch.
	Lives(ctx context.Context) ([]Life, error)
	// Revoke takes an incarnation's lease from it: it is not to be had again, by nobody. It stays among the Lives for a time,
	// counted from when the lease was gone, or for longer.
	Revoke(ctx context.Context, incarnation string, stay time.Duration) error
}

// IncarnationLease is the lease of a node's life; its owner is the incarnation, its value the node's peer address.
func IncarnationLease(incarnation string) string { return incarnationLease + incarnation }

const incarnationLease = "node:"

// LeasedIncarnation is whose lease a name is, if it is one of IncarnationLease.
func LeasedIncarnation(name string) (incarnation string, ok bool) {
	return strings.CutPrefix(name, incarnationLease)
}

// RevokedLease is where a store notes that an incarnation's lease was revoked.
func RevokedLease(incarnation string) string { return "revoked:" + incarnation }

// Recent is a message among a conversation's last ones.
type Recent struct {
	Conversation string
	Seq          uint64
	// Users get this seq into their heads, if it is higher. For `d:` and `n:`: the members.
	Users []int64
	// Message is the encoded wire Message with seq and time, but no prev_seq.
	Message []byte
}

// Prev is what was before an appended message.
type Prev struct {
	// Seq is the greatest lower seq in the recents, valid only if Known. It is never inferred: when the recents were lost or
	// had expired it is not known.
	Seq   uint64
	Known bool
}

// Page is a stretch of a conversation's recents.
type Page struct {
	// Messages are encoded, in seq order.
	Messages []RecentMessage
	// ContiguousFrom: the recents have every message of the conversation with seq at or above this, as far as they go. 0 if there are none.
	ContiguousFrom uint64
	// Newest is the greatest seq in the recents, 0 if there are none.
	Newest uint64
}

// RecentMessage is a message in a Page.
type RecentMessage struct {
	Seq     uint64
	Message []byte
}

// Recents are the last messages of each conversation, and the heads.
type Recents interface {
	// Append adds messages, in the order given, idempotent by conversation and seq. It returns what was before each, and the
	// epoch of the stored data as it was after the last append: if that has changed, all that was appended before is lost.
	// keepAbove is the partition's history position: messages at or above it are never trimmed by count, since the database
	// does not have them yet; the byte bound then raises ContiguousFrom instead of breaking it.
	// Whoever appends must do so in the log's order and leave out nothing: what is above the newest is taken for what follows it.
	// epoch is the life that what he appended before is in; "" if he does not care. In another one, as the answer says, nothing that is
	// there has these for what follows it: they may be left out. He begins again at keepAbove or below, and until that has reached what
	// was appended since, it is kept apart: no Page has it, so nothing seems whole that is not.
	Append(ctx context.Context, messages []Recent, keepAbove uint64, epoch string) ([]Prev, string, error)
	// Page reads the recents of one conversation with after < seq < before (0: no bound), at most limit: the lowest if forward,
	// else the highest.
	Page(ctx context.Context, conversation string, after, before uint64, limit int, forward bool) (Page, error)
	// Newest gives the newest seq of those conversations whose recents are kept.
	Newest(ctx context.Context, conversations []string) (map[string]uint64, error)
	// Heads gives the heads of all of a user's `d:` and `n:` conversations that are kept. Some may be missing: whoever asks takes
	// the higher of this and the database's.
	Heads(ctx context.Context, user int64) (map[string]uint64, error)
}

// Tails say how far the recents go: in one life of the stored data, everything of a partition was appended to them from where that began up
// to an offset, its tail. What is committed to the log cannot say that: it is true of every life, and a late commit comes in any.
type Tails interface {
	// Tail gives a partition's tail in a life of the stored data, see Registry.Epoch. Where there is none it is t from now on. Whoever
	// appends asks before his first append, and begins at the tail or below.
	Tail(ctx context.Context, t Tail) (Tail, error)
	// RaiseTails raises the offsets of tails that are lower. One of a life that is over is of no effect.
	RaiseTails(ctx context.Context, tails []Tail) error
}

// Tail is that of a partition.
type Tail struct {
	// Partition is a TailName, Epoch the life of the stored data that was appended to.
	Partition, Epoch string
	// Offset is the log's: all below was appended.
	Offset int64
	// Again was the log's end when this life's first owner came. What lies below was perhaps delivered in a former life, and is in these
	// recents only once the tail has reached it. It never changes.
	Again int64
}

// TailName names a partition in one epoch of the log: in the next its offsets begin anew.
func TailName(topic string, logEpoch uint32, partition int32) string {
	return fmt.Sprintf("%s:%d:%d", topic, logEpoch, partition)
}

// Store is all of it, as one server has it.
type Store interface {
	Registry
	Leases
	LeaseSets
	Lives
	Recents
	Tails
}

// PartitionLease is the lease of the router that owns a partition.
func PartitionLease(topic string, partition int32) string {
	return fmt.Sprintf("partition:%s:%d", topic, partition)
}

// OutboxLease is the lease of the one who sweeps the outbox.
const OutboxLease = "outbox"
