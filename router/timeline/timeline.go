// Package timeline reads conversations: from the recents, the database and, where a message is in neither yet, the log. What it
// answers says exactly for which range it is complete, and it never leaves anything out in silence.
//
// Everything rests on the order of reading:
//
//   - A caller is registered in presence before it asks (I4). A router appends to the recents and then looks up who is
//     registered. So what is not in the recents when they are read here will be delivered to the caller, and what is
//     is in the answer. That is why nothing that was read for an earlier caller may stand in for the recents or the log's end.
//   - First the recents, then the history offset H, then the database. The recents are trimmed only below the history offset, so
//     the H that is read later covers what was trimmed before. The database has all below an H that was read before it.
//   - Last the log's end: all that was ever in the recents is below it, even if they were lost.
//
// Start reading at Reader.History; page.go puts the sources together, tail.go reads the log, heads.go is for Sync.
package timeline

import (
	"cmp"
	"context"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/presence"
)

// Store is what is read of the database.
type Store interface {
	HistoryOffsets(ctx context.Context, topic string) (map[int32]int64, error)
	GroupsOf(ctx context.Context, user int64) ([]int64, error)
	Readable(ctx context.Context, group, user int64) (spans []chat.SeqSpan, pending bool, err error)
	chat.MessageStore
}

// Recents is what is read of presence.
type Recents interface {
	Page(ctx context.Context, conversation string, after, before uint64, limit int, forward bool) (presence.Page, error)
	Heads(ctx context.Context, user int64) (map[string]uint64, error)
	Newest(ctx context.Context, conversations []string) (map[string]uint64, error)
}

// Log is what is read of the log.
type Log interface {
	Open(ctx context.Context, topic string, partition int32, from int64) (eventlog.Reader, error)
	Bounds(ctx context.Context, topic string, partition int32) (start, end int64, err error)
}

// Options for New. Store, Recents, Log and Topic are required.
type Options struct {
	Store   Store
	Recents Recents
	Log     Log
	// Topic is what is known of chat.TopicMessages: partitions and epoch.
	Topic eventlog.State
	// MaxRecords is how many records one request may read from the log, over all partitions. Default 2,000.
	MaxRecords int
	// LogReads is how many requests read the log at a time. Default 8.
	LogReads int
	// Patience is how long one request may read the database or the log. Default 3 s.
	Patience time.Duration
	// Clock is time and goroutines. Default clock.Real.
	Clock clock.Clock
}

// Reader reads conversations. Its methods are safe for concurrent use. An error is, or holds, a *wire.Error.
type Reader struct {
	opts   Options
	reads  chan struct{}
	flight flight
}

// New makes a Reader.
func New(o Options) *Reader {
	o.MaxRecords = cmp.Or(o.MaxRecords, 2000)
	o.LogReads = cmp.Or(o.LogReads, 8)
	o.Patience = cmp.Or(o.Patience, 3*time.Second)
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	return &Reader{opts: o, reads: make(chan struct{}, o.LogReads)}
}

func (r *Reader) partition(conversation string) int32 {
	return eventlog.PartitionOf(conversation, r.opts.Topic.Partitions)
}

// seq gives the position of an offset of the log as it is now.
func (r *Reader) seq(offset int64) uint64 { return eventlog.Seq(r.opts.Topic.Epoch, offset) }

// History reads a page of a conversation. NOT_FOUND if the user may not read it, UNAVAILABLE, or PENDING if what was asked for is
// durable but cannot be read yet.
//
// covers_before is given as a number, also when there is no upper bound in the request: everything below it is complete, and what
// comes after was either not routed when the recents were read, and so is delivered, or is fetched by asking on from there.
func (r *Reader) History(ctx context.Context, user int64, req *pb.HistoryRequest) (*pb.HistoryResponse, error) {
	ctx, cancel := r.opts.Clock.WithTimeout(ctx, r.opts.Patience)
	defer cancel()
	if c, err := wire.ParseConversation(req.GetConversation()); err == nil && c.Kind == 'g' {
		return r.groupPage(ctx, user, c.A, newQuery(req))
	}
	if err := chat.MayRead(user, req.GetConversation()); err != nil {
		return nil, err
	}
	return r.page(ctx, newQuery(req))
}
