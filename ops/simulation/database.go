package simulation

import (
	"context"
	"errors"
	"time"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

// database is the store, as one server.
type database struct {
	service
	memory *chat.Memory
}

var errDatabase = errors.New("database away")

func newDatabase(w *world) *database {
	return &database{
		service: service{
			w: w, name: "database", rng: w.stream("database"), usual: time.Millisecond,
			away: errDatabase, lost: errors.Join(errDatabase, context.DeadlineExceeded),
		},
		memory: chat.NewMemory(chat.MemoryOptions{}),
	}
}

// dbPort is the store as a process reaches it. What is not here of chat.Store answers at once and never fails.
type dbPort struct {
	chat.Store
	p *proc
	d *database
}

var _ chat.Store = dbPort{}

func (w *world) dbPort(p *proc) dbPort { return dbPort{w.db.memory, p, w.db} }

// at is the context of what happens at the server, which a caller's does not end.
var at = context.Background()

func (d dbPort) AccountByName(ctx context.Context, name string) (chat.Account, error) {
	return call(ctx, d.p, &d.d.service, "AccountByName", func() (chat.Account, error) { return d.Store.AccountByName(at, name) })
}

func (d dbPort) CreateSession(ctx context.Context, s chat.Session, token chat.TokenHash) (chat.Session, error) {
	return call(ctx, d.p, &d.d.service, "CreateSession", func() (chat.Session, error) { return d.Store.CreateSession(at, s, token) })
}

func (d dbPort) SessionByToken(ctx context.Context, token chat.TokenHash) (chat.Session, error) {
	return call(ctx, d.p, &d.d.service, "SessionByToken", func() (chat.Session, error) { return d.Store.SessionByToken(at, token) })
}

func (d dbPort) EndSession(ctx context.Context, id int64) error {
	return do(ctx, d.p, &d.d.service, "EndSession", func() error { return d.Store.EndSession(at, id) })
}

func (d dbPort) Pair(ctx context.Context, a, b int64) (chat.Pair, error) {
	return call(ctx, d.p, &d.d.service, "Pair", func() (chat.Pair, error) { return d.Store.Pair(at, a, b) })
}

func (d dbPort) ChangeGroup(ctx context.Context, group int64, subjects []int64, decide func(chat.Group, []chat.Span) (chat.GroupChange, error)) (chat.Group, chat.Outgoing, error) {
	type changed struct {
		g chat.Group
		o chat.Outgoing
	}
	c, err := call(ctx, d.p, &d.d.service, "ChangeGroup", func() (changed, error) {
		var made chat.GroupChange
		g, o, err := d.Store.ChangeGroup(at, group, subjects, func(g chat.Group, spans []chat.Span) (chat.GroupChange, error) {
			var err error
			made, err = decide(g, spans)
			return made, err
		})
		if err == nil {
			d.d.w.truth.membersChanged(made)
		}
		return changed{g, o}, err
	})
	return c.g, c.o, err
}

func (d dbPort) Memberships(ctx context.Context, group int64, users []int64) (uint64, []chat.Membership, error) {
	type read struct {
		version uint64
		found   []chat.Membership
	}
	r, err := call(ctx, d.p, &d.d.service, "Memberships", func() (r read, err error) {
		r.version, r.found, err = d.Store.Memberships(at, group, users)
		return r, err
	})
	return r.version, r.found, err
}

func (d dbPort) Readable(ctx context.Context, group, user int64) ([]chat.SeqSpan, bool, error) {
	type read struct {
		spans   []chat.SeqSpan
		pending bool
	}
	r, err := call(ctx, d.p, &d.d.service, "Readable", func() (r read, err error) {
		r.spans, r.pending, err = d.Store.Readable(at, group, user)
		return r, err
	})
	return r.spans, r.pending, err
}

func (d dbPort) GroupsOf(ctx context.Context, user int64) ([]int64, error) {
	return call(ctx, d.p, &d.d.service, "GroupsOf", func() ([]int64, error) { return d.Store.GroupsOf(at, user) })
}

func (d dbPort) CountPairs(ctx context.Context, user int64) (int, error) {
	return call(ctx, d.p, &d.d.service, "CountPairs", func() (int, error) { return d.Store.CountPairs(at, user) })
}

func (d dbPort) ChangePair(ctx context.Context, lo, hi int64, decide func(chat.Pair) (chat.Pair, *pb.Message, error)) (chat.Pair, chat.Outgoing, error) {
	type changed struct {
		p chat.Pair
		o chat.Outgoing
	}
	c, err := call(ctx, d.p, &d.d.service, "ChangePair", func() (changed, error) {
		p, o, err := d.Store.ChangePair(at, lo, hi, decide)
		if err == nil {
			d.d.w.truth.pairChanged(p)
		}
		return changed{p, o}, err
	})
	return c.p, c.o, err
}

func (d dbPort) Unsent(ctx context.Context, conversation string, upTo uint64, limit int) ([]chat.Outgoing, error) {
	return call(ctx, d.p, &d.d.service, "Unsent", func() ([]chat.Outgoing, error) { return d.Store.Unsent(at, conversation, upTo, limit) })
}

func (d dbPort) Sent(ctx context.Context, ids []int64) error {
	return do(ctx, d.p, &d.d.service, "Sent", func() error {
		d.d.w.truth.removes(ids)
		return d.Store.Sent(at, ids)
	})
}

func (d dbPort) Messages(ctx context.Context, conversation string, after, before uint64, limit int, forward bool) ([]*pb.Message, error) {
	return call(ctx, d.p, &d.d.service, "Messages", func() ([]*pb.Message, error) {
		return d.Store.Messages(at, conversation, after, before, limit, forward)
	})
}

func (d dbPort) FindMessage(ctx context.Context, id chat.Identity) (*pb.Message, error) {
	return call(ctx, d.p, &d.d.service, "FindMessage", func() (*pb.Message, error) { return d.Store.FindMessage(at, id) })
}

func (d dbPort) Heads(ctx context.Context, user int64) ([]chat.Head, error) {
	return call(ctx, d.p, &d.d.service, "Heads", func() ([]chat.Head, error) { return d.Store.Heads(at, user) })
}

func (d dbPort) Head(ctx context.Context, user int64, conversation string) (chat.Head, error) {
	return call(ctx, d.p, &d.d.service, "Head", func() (chat.Head, error) { return d.Store.Head(at, user, conversation) })
}

func (d dbPort) MarkRead(ctx context.Context, user int64, conversation string, seq uint64) (chat.Head, error) {
	return call(ctx, d.p, &d.d.service, "MarkRead", func() (chat.Head, error) { return d.Store.MarkRead(at, user, conversation, seq) })
}

func (d dbPort) WriteBatch(ctx context.Context, b chat.Batch) (chat.Written, error) {
	return call(ctx, d.p, &d.d.service, "WriteBatch", func() (chat.Written, error) {
		if d.d.w.planted.store != nil {
			d.d.w.planted.store(&b)
		}
		written, err := d.Store.WriteBatch(at, b)
		if err == nil {
			d.d.w.truth.stored(b, written)
		}
		return written, err
	})
}

func (d dbPort) HistoryOffsets(ctx context.Context, topic string) (map[int32]int64, error) {
	return call(ctx, d.p, &d.d.service, "HistoryOffsets", func() (map[int32]int64, error) { return d.Store.HistoryOffsets(at, topic) })
}

func (d dbPort) LogState(ctx context.Context, topic string) (eventlog.State, error) {
	return call(ctx, d.p, &d.d.service, "LogState", func() (eventlog.State, error) { return d.Store.LogState(at, topic) })
}

func (d dbPort) NextRouterEpoch(ctx context.Context, topic string, partition int32) (uint64, error) {
	return call(ctx, d.p, &d.d.service, "NextRouterEpoch", func() (uint64, error) { return d.Store.NextRouterEpoch(at, topic, partition) })
}
