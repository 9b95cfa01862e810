package deliver

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/cluster"
)

const (
	// assignEvery is how often leases that others have are looked at: one read in Redis for all of them. A killed router's
	// partitions are delivered again after what is left of its lease (three quarters to all of the TTL, since it was renewed a
	// quarter ago at most), this, and the takeover itself; those of one that leaves after this and the takeover.
	assignEvery = 100 * time.Millisecond
	// settleFor is how long a partition's new owner is left to take it, before its deputy may.
	settleFor = 3 * time.Second
	// deputyFor is how long a deputy keeps what it took, if the owner does not come off the list of members: longer than
	// memberlist takes to notice a death.
	deputyFor = 15 * time.Second
	// giveUpAfter is how long a takeover may fail before it is left to the other of owner and deputy, who may be able to: a router that
	// is cut off from the database or the brokers alone is a member like any other. It is longer than one call that is not answered.
	giveUpAfter = storeTimeout + time.Second
	// sitOut is how long who has given up leaves the partition to the other one. It is shorter than that one's takeover may fail, so that
	// while nobody can take it over, somebody is always trying.
	sitOut = 3 * time.Second
	// leaseMargin is by which share of the TTL sooner the owner itself takes a lease for over. It reckons from before the renewal was
	// sent, so only clocks that run at different speeds could have two think that it is theirs; 1/20 allows for 5 %, where
	// clocks that are disciplined differ by 0.05 %. What no margin helps against is an owner that is paused after it has looked at
	// its lease, and a server whose clock is set: therefore nodes refuse frames of a lower router epoch.
	leaseMargin = 20
)

// claim is what the assigning goroutine knows of a partition.
type claim struct {
	owner, deputy string    // ids of members
	since         time.Time // when the owner became the owner
	sitsOut       time.Time // until when this router leaves it to the other
}

// assign keeps this router's share of the partitions until Stop is called or ctx ends.
//
// A partition belongs to the first by rendezvous hashing over the routers that are thought alive. Memberlist needs 5 s to
// notice that one was killed, and that is too long. So the second by the same hashing, the deputy, keeps trying the lease as
// well, once the owner has had time to take it: it gets it only when the owner has let it run out, 2 s after its death. It
// keeps the partition until membership has caught up; if the owner turns out to live, it hands over. At any time the lease
// decides, and behind it the router epoch, which nodes check.
func (r *Router) assign(ctx context.Context, delivering clock.Group) {
	claims := make([]claim, r.partitions)
	var known <-chan struct{} // closed when the members are not those any more that claims was worked out from
	var first []int32         // that were ours at first and are not all delivered
	for round := 0; ctx.Err() == nil && !clock.Closed(r.stop); round++ {
		next := r.o.Clock.Now().Add(assignEvery)
		members, changed := r.o.Membership.Members()
		if known != changed {
			known = changed
			r.claim(claims, members)
		}
		if round == 0 {
			for p, c := range claims {
				if c.owner == r.o.Self.ID {
					first = append(first, int32(p))
				}
			}
		}
		r.takeAndGive(ctx, claims, delivering)
		if first = r.missing(claims, first); len(first) == 0 && !clock.Closed(r.ready) {
			close(r.ready)
		}
		r.o.Clock.Wait(ctx, next, changed, r.wake, r.stop)
	}
}

// claim works out whose each partition is.
func (r *Router) claim(claims []claim, members []cluster.Member) {
	routers := cluster.InOffice(members, cluster.RoleRouter)
	if !slices.ContainsFunc(members, func(m cluster.Member) bool { return m.ID == r.o.Self.ID }) {
		routers = append(routers, r.o.Self) // membership has not noticed us yet
	}
	now := r.o.Clock.Now()
	for p := range claims {
		owner, _ := cluster.Rendezvous(int32(p), routers)
		others := slices.DeleteFunc(slices.Clone(routers), func(m cluster.Member) bool { return m.ID == owner.ID })
		deputy, _ := cluster.Rendezvous(int32(p), others)
		if c := &claims[p]; c.owner != owner.ID {
			*c = claim{owner: owner.ID, deputy: deputy.ID, since: now}
		} else {
			c.deputy = deputy.ID
		}
	}
}

// missing gives those of first that are still ours and not being delivered.
func (r *Router) missing(claims []claim, first []int32) []int32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(first, func(p int32) bool {
		w := r.workers[p]
		return claims[p].owner != r.o.Self.ID || w != nil && w.live.Load()
	})
}

// takeAndGive releases what has another owner, and tries the leases of what should be ours.
func (r *Router) takeAndGive(ctx context.Context, claims []claim, delivering clock.Group) {
	now, self := r.o.Clock.Now(), r.o.Self.ID
	var want []int32
	r.mu.Lock()
	for p, c := range claims {
		w := r.workers[int32(p)]
		if w != nil && clock.Closed(w.done) {
			delete(r.workers, int32(p))
			if w.gaveUp && c.owner != "" && c.deputy != "" {
				claims[p].sitsOut = now.Add(sitOut)
			}
			w = nil
		}
		switch {
		case w != nil && c.owner == self:
			w.deputyUntil = time.Time{} // ours by right now; should another become the owner it gets it at once
		case w != nil && now.After(w.deputyUntil):
			w.release()
			claims[p].since = now // the owner is left time to take it
		case w != nil, now.Before(claims[p].sitsOut):
		case c.owner == self, c.deputy == self && now.Sub(c.since) >= settleFor:
			want = append(want, int32(p))
		}
	}
	r.mu.Unlock()

	got := r.acquire(ctx, want)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range got {
		w := r.newWorker(l.partition, l.until)
		if claims[l.partition].owner != self {
			w.deputyUntil = now.Add(deputyFor)
		}
		r.workers[l.partition] = w
		delivering.Go(func() { w.run(ctx); r.poke() })
	}
}

type lease struct {
	partition int32
	until     time.Time
}

// acquire tries leases and gives those it got.
func (r *Router) acquire(ctx context.Context, want []int32) []lease {
	if len(want) == 0 {
		return nil
	}
	ctx, cancel := r.o.Clock.WithTimeout(ctx, redisTimeout)
	defer cancel()
	got, err := r.tryAcquire(ctx, want)
	if err != nil && ctx.Err() == nil {
		r.o.Logger.Warn("partitions' leases could not be tried", zap.Error(err))
	}
	return got
}

// tryAcquire looks first: most of the time all is as it should be, and that costs the least.
func (r *Router) tryAcquire(ctx context.Context, want []int32) (got []lease, err error) {
	names := r.leaseNames(want)
	owners, err := r.o.Presence.Owners(ctx, names)
	if err != nil {
		return nil, err
	}
	var free []int32
	for i, p := range want {
		if owners[i] == "" || owners[i] == r.o.Self.ID {
			free = append(free, p)
		}
	}
	if len(free) == 0 {
		return nil, nil
	}
	asked := r.o.Clock.Now()
	taken, err := r.o.Presence.AcquireEach(ctx, r.leaseNames(free), r.o.Self.ID, r.o.Self.Peer, r.o.LeaseTTL)
	if err != nil {
		return nil, err
	}
	for i, p := range free {
		if taken[i] {
			got = append(got, lease{p, r.leaseUntil(asked)})
		}
	}
	return got, nil
}

func (r *Router) leaseNames(partitions []int32) []string {
	names := make([]string, len(partitions))
	for i, p := range partitions {
		names[i] = r.leaseName(p)
	}
	return names
}

// leaseUntil is until when a lease is counted on that was asked for at a time: that is before the store gave it its TTL.
func (r *Router) leaseUntil(asked time.Time) time.Time {
	return asked.Add(r.o.LeaseTTL - r.o.LeaseTTL/leaseMargin)
}

// renewLeases renews the leases of all workers, in one round trip.
func (r *Router) renewLeases(ctx context.Context) {
	every := r.o.LeaseTTL / 4
	for due := r.o.Clock.Now().Add(every); clock.Sleep(ctx, r.o.Clock, due.Sub(r.o.Clock.Now())); {
		if due = due.Add(every); due.Before(r.o.Clock.Now()) {
			due = r.o.Clock.Now() // it was late, perhaps stopped for a while: nothing is made up for
		}
		workers := slices.DeleteFunc(r.owned(), func(w *worker) bool {
			if !w.leased() {
				w.mail.poke() // late, perhaps while it reads: it is to notice
				return true
			}
			return clock.Closed(w.done)
		})
		if len(workers) > 0 {
			r.renew(ctx, workers)
		}
	}
}

func (r *Router) renew(ctx context.Context, workers []*worker) {
	rctx, cancel := r.o.Clock.WithTimeout(ctx, r.o.LeaseTTL/2)
	defer cancel()
	partitions := make([]int32, len(workers))
	for i, w := range workers {
		partitions[i] = w.partition
	}
	asked := r.o.Clock.Now()
	until := r.leaseUntil(asked)
	held, err := r.o.Presence.RenewEach(rctx, r.leaseNames(partitions), r.o.Self.ID, r.o.LeaseTTL)
	if err != nil && ctx.Err() == nil {
		r.o.Logger.Warn("partitions' leases were not renewed", zap.Int("partitions", len(workers)), zap.Error(err))
	}
	for i, w := range workers {
		switch {
		case err != nil:
		case held[i]:
			w.lease.Store(&until)
		default:
			w.lease.Store(&asked) // somebody else has it, or Redis lost it
			w.mail.poke()
		}
		if !w.leased() {
			w.mail.poke()
		}
	}
}
