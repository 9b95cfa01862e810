package simulation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/presence"
)

// redis is presence, as one server. Leases in it end by true time.
type redis struct {
	service
	memory *presence.Memory
}

func newRedis(w *world) *redis {
	return &redis{
		service: service{
			w: w, name: "redis", rng: w.stream("redis"), usual: 300 * time.Microsecond,
			away: presence.ErrUnavailable, lost: presence.ErrUnavailable,
		},
		memory: presence.NewMemory(presence.MemoryOptions{Now: w.time}),
	}
}

// redisPort is presence as a process reaches it.
type redisPort struct {
	p *proc
	r *redis
}

var _ presence.Store = redisPort{}

func (w *world) redisPort(p *proc) redisPort { return redisPort{p, w.redis} }

func (r redisPort) Register(ctx context.Context, entries []presence.Entry) ([]bool, error) {
	return call(ctx, r.p, &r.r.service, "Register", func() ([]bool, error) { return r.r.memory.Register(at, entries) })
}

func (r redisPort) Unregister(ctx context.Context, entries []presence.Entry) error {
	return do(ctx, r.p, &r.r.service, "Unregister", func() error { return r.r.memory.Unregister(at, entries) })
}

func (r redisPort) Locate(ctx context.Context, users []int64) ([][]presence.Place, error) {
	return call(ctx, r.p, &r.r.service, "Locate", func() ([][]presence.Place, error) { return r.r.memory.Locate(at, users) })
}

func (r redisPort) LocateGroups(ctx context.Context, users, groups []int64) (places, nodes [][]presence.Place, err error) {
	type located struct{ places, nodes [][]presence.Place }
	l, err := call(ctx, r.p, &r.r.service, "Locate", func() (l located, err error) {
		l.places, l.nodes, err = r.r.memory.LocateGroups(at, users, groups)
		return l, err
	})
	return l.places, l.nodes, err
}

func (r redisPort) Newest(ctx context.Context, conversations []string) (map[string]uint64, error) {
	return call(ctx, r.p, &r.r.service, "Newest", func() (map[string]uint64, error) { return r.r.memory.Newest(at, conversations) })
}

func (r redisPort) Epoch(ctx context.Context) (string, error) {
	return call(ctx, r.p, &r.r.service, "Epoch", func() (string, error) { return r.r.memory.Epoch(at) })
}

func (r redisPort) Acquire(ctx context.Context, name, owner, value string, ttl time.Duration) (bool, error) {
	return call(ctx, r.p, &r.r.service, "Acquire", func() (bool, error) {
		ok, err := r.r.memory.Acquire(at, name, owner, value, ttl)
		if ok {
			r.p.w.truth.leased(name, owner)
		}
		return ok, err
	})
}

func (r redisPort) Renew(ctx context.Context, name, owner string, ttl time.Duration) (bool, error) {
	return call(ctx, r.p, &r.r.service, "Renew", func() (bool, error) {
		ok, err := r.r.memory.Renew(at, name, owner, ttl)
		if err == nil && !ok {
			r.p.w.count("leases lost")
			r.p.w.tracef("%s has lost %s", r.p.name, name)
		}
		return ok, err
	})
}

func (r redisPort) Owners(ctx context.Context, names []string) ([]string, error) {
	return call(ctx, r.p, &r.r.service, "Owners", func() ([]string, error) { return r.r.memory.Owners(at, names) })
}

func (r redisPort) AcquireEach(ctx context.Context, names []string, owner, value string, ttl time.Duration) ([]bool, error) {
	return call(ctx, r.p, &r.r.service, "AcquireEach", func() ([]bool, error) {
		got, err := r.r.memory.AcquireEach(at, names, owner, value, ttl)
		for i, ok := range got {
			if ok {
				r.p.w.truth.leased(names[i], owner)
			}
		}
		return got, err
	})
}

func (r redisPort) RenewEach(ctx context.Context, names []string, owner string, ttl time.Duration) ([]bool, error) {
	return call(ctx, r.p, &r.r.service, "RenewEach", func() ([]bool, error) {
		held, err := r.r.memory.RenewEach(at, names, owner, ttl)
		for i, ok := range held {
			if !ok {
				r.p.w.count("leases lost")
				r.p.w.tracef("%s has lost %s", r.p.name, names[i])
			}
		}
		return held, err
	})
}

func (r redisPort) Release(ctx context.Context, name, owner string) error {
	return do(ctx, r.p, &r.r.service, "Release", func() error { return r.r.memory.Release(at, name, owner) })
}

func (r redisPort) Lives(ctx context.Context) ([]presence.Life, error) {
	return call(ctx, r.p, &r.r.service, "Lives", func() ([]presence.Life, error) { return r.r.memory.Lives(at) })
}

func (r redisPort) Revoke(ctx context.Context, incarnation string, stay time.Duration) error {
	return do(ctx, r.p, &r.r.service, "Revoke", func() error { return r.r.memory.Revoke(at, incarnation, stay) })
}

func (r redisPort) Append(ctx context.Context, messages []presence.Recent, keepAbove uint64, epoch string) ([]presence.Prev, string, error) {
	type appended struct {
		prevs []presence.Prev
		epoch string
	}
	a, err := call(ctx, r.p, &r.r.service, "Append", func() (appended, error) {
		if lies := r.p.w.planted.recents; lies != nil && lies() {
			epoch, err := r.r.memory.Epoch(at)
			return appended{make([]presence.Prev, len(messages)), epoch}, err
		}
		if part := r.r.rng.IntN(len(messages) + 1); r.r.rng.IntN(2000) < r.r.flaky && part > 0 && part < len(messages) {
			r.p.w.count("appends to recents done in part")
			_, _, err := r.r.memory.Append(at, messages[:part], keepAbove, epoch)
			return appended{}, errors.Join(presence.ErrUnavailable, err)
		}
		prevs, now, err := r.r.memory.Append(at, messages, keepAbove, epoch)
		if err == nil && now == epoch {
			r.p.w.truth.appended(messages, prevs)
			r.p.w.tracef("%s appends to the recents of %s: %s", r.p.name, epoch, recentNames(messages))
		}
		return appended{prevs, now}, err
	})
	return a.prevs, a.epoch, err
}

func (r redisPort) Page(ctx context.Context, conversation string, after, before uint64, limit int, forward bool) (presence.Page, error) {
	return call(ctx, r.p, &r.r.service, "Page", func() (presence.Page, error) {
		page, err := r.r.memory.Page(at, conversation, after, before, limit, forward)
		if err == nil && page.ContiguousFrom == 0 {
			r.p.w.count("recents asked for in vain")
		}
		return page, err
	})
}

func (r redisPort) Heads(ctx context.Context, user int64) (map[string]uint64, error) {
	return call(ctx, r.p, &r.r.service, "Heads", func() (map[string]uint64, error) { return r.r.memory.Heads(at, user) })
}

func (r redisPort) Tail(ctx context.Context, t presence.Tail) (presence.Tail, error) {
	return call(ctx, r.p, &r.r.service, "Tail", func() (presence.Tail, error) { return r.r.memory.Tail(at, t) })
}

func (r redisPort) RaiseTails(ctx context.Context, tails []presence.Tail) error {
	return do(ctx, r.p, &r.r.service, "RaiseTails", func() error { return r.r.memory.RaiseTails(at, tails) })
}

// recentNames says which messages these are, for traces.
func recentNames(messages []presence.Recent) string {
	var b strings.Builder
	for _, m := range messages {
		_, offset := eventlog.SplitSeq(m.Seq)
		fmt.Fprintf(&b, " %s@%d", m.Conversation, offset)
	}
	return b.String()
}
