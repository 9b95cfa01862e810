package simulation

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/presence"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

// fault is something that happens to a cluster. Each kind has numbers of its own, so that leaving one out changes the others little.
type fault struct {
	name string
	// most is how often it happens in a run at most, long how long it lasts at most.
	most int
	long time.Duration
	// begin has it happen, and gives what ends it; nil: it does not last, or there was nobody for it to happen to.
	begin func(w *world, r *rand.Rand) (end func())
}

// ambient are the kinds that are not in faults, since they are there all the time.
var ambient = []string{"skew", "doubled"}

var faults = []fault{
	{"node-crash", 2, 5 * time.Second, process(cluster.RoleNode, crash)},
	{"node-pause", 2, 13 * time.Second, process(cluster.RoleNode, pause)},
	{"node-stop", 2, 4 * time.Second, process(cluster.RoleNode, stop)},
	{"router-crash", 2, 5 * time.Second, process(cluster.RoleRouter, crash)},
	{"router-pause", 2, 8 * time.Second, process(cluster.RoleRouter, pause)},
	{"router-stop", 1, 4 * time.Second, process(cluster.RoleRouter, stop)},
	{"history-crash", 1, 5 * time.Second, process(cluster.RoleHistory, crash)},
	{"history-pause", 1, 8 * time.Second, process(cluster.RoleHistory, pause)},
	{"service-cut", 3, 6 * time.Second, cutService},
	{"redis-away", 1, 5 * time.Second, away(func(w *world) *service { return &w.redis.service })},
	{"redis-slow", 1, 4 * time.Second, slow(func(w *world) *service { return &w.redis.service })},
	{"redis-flaky", 1, 8 * time.Second, flaky(func(w *world) *service { return &w.redis.service })},
	{"redis-emptied", 1, 0, func(w *world, _ *rand.Rand) func() { w.redis.memory.Wipe(); return nil }},
	{"redis-forgets", 3, 0, forget},
	{"redis-failover", 1, 0, failOver},
	{"database-away", 1, 5 * time.Second, away(func(w *world) *service { return &w.db.service })},
	{"database-slow", 1, 4 * time.Second, slow(func(w *world) *service { return &w.db.service })},
	{"database-flaky", 1, 8 * time.Second, flaky(func(w *world) *service { return &w.db.service })},
	{"log-away", 1, 3 * time.Second, away(func(w *world) *service { return &w.broker.service })},
	{"log-slow", 1, 4 * time.Second, slow(func(w *world) *service { return &w.broker.service })},
	{"log-flaky", 2, 8 * time.Second, flaky(func(w *world) *service { return &w.broker.service })},
	{"log-leader", 2, 3 * time.Second, stuckPartition},
	{"log-late", 3, 600 * time.Millisecond, partLate},
	{"link-break", 4, 0, breakLink},
	{"link-cut", 2, 5 * time.Second, cutPeers},
	{"link-slow", 1, 3 * time.Second, slowPeers},
	{"membership", 3, 5 * time.Second, misjudge},
	{"client-break", 6, 0, breakConn},
	{"client-hold", 4, 12 * time.Second, holdConn},
	{"client-crash", 3, 4 * time.Second, crashClient},
	{"client-pause", 2, 6 * time.Second, pauseClient},
}

// FaultKinds are the names of all kinds of faults, for Options.Without.
func FaultKinds() []string {
	names := slices.Clone(ambient)
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// plan draws when each fault happens, between two times.
func (w *world) plan(from, to time.Duration) {
	for _, f := range faults {
		if !w.o.on(f.name) {
			continue
		}
		r := w.stream("fault " + f.name)
		for range r.IntN(f.most + 1) {
			when := from + time.Duration(r.Int64N(int64(to-from)))
			lasts := time.Duration(r.Int64N(int64(f.long)/int64(time.Millisecond)+1)) * time.Millisecond
			w.at(when, func() {
				end := f.begin(w, r)
				if end == nil && f.long > 0 {
					return
				}
				w.count("fault " + f.name)
				w.tracef("FAULT %s for %v", f.name, lasts)
				w.lasting(lasts, f.name, end)
			})
		}
	}
}

// lasting ends a fault after a while, or at the time of healing.
func (w *world) lasting(d time.Duration, name string, end func()) {
	if end == nil {
		return
	}
	over := false
	once := func() {
		if !over {
			over = true
			w.tracef("%s ends", name)
			end()
		}
	}
	w.undo = append(w.undo, once)
	w.after(d, once)
}

// heal ends all faults: whoever is gone comes back.
func (w *world) heal() {
	w.healed = true
	w.tracef("everything heals")
	for _, undo := range w.undo {
		undo()
	}
	w.undo = nil
	for _, s := range w.slots {
		s.restart()
	}
	for _, p := range w.people {
		for _, d := range p.devices {
			d.up()
			d.comeBack()
		}
	}
	w.wakeAll()
}

// wakeAll has every process look around: something that it could not reach may be there again.
func (w *world) wakeAll() {
	for _, p := range w.procs {
		p.touch()
	}
}

func pick[T any](r *rand.Rand, from []T) (t T, ok bool) {
	if len(from) == 0 {
		return t, false
	}
	return from[r.IntN(len(from))], true
}

// slotOf draws a slot of a role whose process is there and not stopped.
func (w *world) slotOf(r *rand.Rand, role cluster.Role) *slot {
	s, _ := pick(r, slices.DeleteFunc(slices.Clone(w.slots), func(s *slot) bool { return s.role != role }))
	if s == nil || s.p.dead || s.p.paused || s.stops {
		return nil
	}
	return s
}

// restart starts a slot's next life, once the present one has ended if it is about to.
func (s *slot) restart() {
	switch {
	case s.p.dead:
		s.up()
	case s.stops:
		p := s.p
		p.onKill = append(p.onKill, func() { s.w.after(time.Millisecond, s.up) })
	}
}

// process does something to a process of a role, if there is one.
func process(role cluster.Role, do func(*slot) (heal func())) func(*world, *rand.Rand) func() {
	return func(w *world, r *rand.Rand) func() {
		s := w.slotOf(r, role)
		if s == nil {
			return nil
		}
		return do(s)
	}
}

func crash(s *slot) func() {
	s.p.kill()
	return s.restart
}

func pause(s *slot) func() {
	p := s.p
	p.pause()
	return p.resume
}

func stop(s *slot) func() {
	s.stops = true
	s.stop()
	return s.restart
}

// cutService parts a process from a service, perhaps one way.
func cutService(w *world, r *rand.Rand) func() {
	s, _ := pick(r, w.slots)
	to := [...]*service{&w.redis.service, &w.db.service, &w.broker.service}[r.IntN(3)]
	how := [...]cut{cutRequests, cutAnswers, cutRequests | cutAnswers}[r.IntN(3)]
	if s == nil || s.p.dead {
		return nil
	}
	p := s.p
	p.cuts[to] |= how
	if how != cutRequests|cutAnswers {
		w.count("cuts one way")
	}
	return func() {
		p.cuts[to] = 0
		p.touch()
	}
}

// away has a service refuse calls, or never answer.
func away(of func(*world) *service) func(*world, *rand.Rand) func() {
	return func(w *world, r *rand.Rand) func() {
		s := of(w)
		n := &s.refuses
		if r.IntN(2) == 0 {
			n = &s.silent
		}
		*n++
		return func() { *n--; w.wakeAll() }
	}
}

func slow(of func(*world) *service) func(*world, *rand.Rand) func() {
	return func(w *world, _ *rand.Rand) func() {
		s := of(w)
		s.slow++
		return func() { s.slow-- }
	}
}

func flaky(of func(*world) *service) func(*world, *rand.Rand) func() {
	return func(w *world, r *rand.Rand) func() {
		s := of(w)
		n := 20 + r.IntN(150)
		s.flaky += n
		return func() { s.flaky -= n }
	}
}

// forget has Redis lose something, which its epoch does not tell.
func forget(w *world, r *rand.Rand) func() {
	someone, _ := pick(r, w.people)
	friend, ok := pick(r, someone.friends)
	partition := int32(r.IntN(w.o.Partitions))
	switch r.IntN(4) {
	case 3:
		w.count("groups' nodes lost")
		w.redis.memory.LoseGroup(w.crowds[r.IntN(len(w.crowds))].id)
	case 0:
		w.count("places lost")
		w.redis.memory.LosePlaces(someone.id)
	case 1:
		w.count("leases forgotten")
		w.redis.memory.LoseLease(presence.PartitionLease(chat.TopicMessages, partition))
	case 2:
		if ok {
			w.count("recents lost")
			w.redis.memory.LoseRecents(direct(someone, friend))
		}
	}
	return nil
}

// failOver has a replica of Redis take over that does not have everything.
func failOver(w *world, r *rand.Rand) func() {
	var lost []int64
	for _, p := range w.people {
		if r.IntN(3) == 0 {
			lost = append(lost, p.id)
		}
	}
	w.redis.memory.FailOver(lost...)
	return nil
}

// stuckPartition has a partition's leader change: what is appended meanwhile is of unknown outcome.
func stuckPartition(w *world, r *rand.Rand) func() {
	p := w.broker.topics[chat.TopicMessages].partitions[r.IntN(w.o.Partitions)]
	p.stuck++
	return func() { p.stuck-- }
}

// partLate has people end a friendship while what they wrote is on its way into the log, and stays so until they are parted.
func partLate(w *world, r *rand.Rand) func() {
	someone, _ := pick(r, w.people)
	friend, ok := pick(r, someone.friends)
	d, other := someone.devices[0], r.IntN(2) == 0
	if !ok || !d.running() || d.p.paused || d.phase != phaseLive {
		return nil
	}
	conversation := direct(someone, friend)
	p := w.broker.topics[chat.TopicMessages].partitions[eventlog.PartitionOf(conversation, w.o.Partitions)]
	p.late++
	if writer := friend.devices[0]; other && writer.running() && len(writer.saved.outbox) < mostUnsent {
		writer.p.exec(func() { writer.submit(canary(w, friend, someone)) })
	} else if len(d.saved.outbox) < mostUnsent {
		d.p.exec(func() { d.submit(canary(w, someone, friend)) })
	}
	w.after(100*time.Millisecond, func() {
		if d.running() {
			d.p.exec(func() {
				if d.phase == phaseLive {
					someone.part(d, friend)
				}
			})
		}
	})
	return func() { p.late-- }
}

func breakLink(w *world, r *rand.Rand) func() {
	if l, ok := pick(r, w.peers.links); ok {
		w.peers.breakLink(l)
	}
	return nil
}

// cutPeers has a process and a node not reach each other, perhaps one way.
func cutPeers(w *world, r *rand.Rand) func() {
	from, _ := pick(r, w.slots)
	to := w.slotOf(r, cluster.RoleNode)
	how := [...]cut{cutRequests, cutAnswers, cutRequests | cutAnswers}[r.IntN(3)]
	if to == nil {
		return nil
	}
	key := [2]string{from.name, to.name}
	w.peers.cuts[key] = how
	return func() { w.peers.cuts[key] = 0 }
}

func slowPeers(w *world, _ *rand.Rand) func() {
	w.peers.slow++
	return func() { w.peers.slow-- }
}

// misjudge has a process take another for dead that is not.
func misjudge(w *world, r *rand.Rand) func() {
	v, ok := pick(r, w.view.views)
	who, ok2 := pick(r, w.view.members)
	if !ok || !ok2 || v.p.dead || who.ID == v.p.name {
		return nil
	}
	v.p.exec(func() { v.set(who, false) })
	return func() { w.view.tell(v, who, time.Second) }
}

func (w *world) connOf(r *rand.Rand) *conn {
	var all []*conn
	for _, p := range w.people {
		for _, d := range p.devices {
			if d.running() && d.conn != nil {
				all = append(all, d.conn)
			}
		}
	}
	c, _ := pick(r, all)
	return c
}

// breakConn breaks a client's connection: each end learns of it, or not.
func breakConn(w *world, r *rand.Rand) func() {
	c, nodeLearns, clientLearns := w.connOf(r), r.IntN(2) == 0, r.IntN(2) == 0
	if c == nil {
		return nil
	}
	if nodeLearns != clientLearns {
		w.count("connections half open")
	}
	c.breaks(nodeLearns, clientLearns)
	return nil
}

// holdConn holds up a client's connection, perhaps one way.
func holdConn(w *world, r *rand.Rand) func() {
	c, how := w.connOf(r), r.IntN(3)
	if c == nil {
		return nil
	}
	if how != 0 {
		c.heldUp++
	}
	if how != 1 {
		c.heldDown++
	}
	return func() {
		if how != 0 {
			c.heldUp--
		}
		if how != 1 {
			c.heldDown--
		}
		c.release()
	}
}

func (w *world) deviceOf(r *rand.Rand) *device {
	someone, _ := pick(r, w.people)
	d, _ := pick(r, someone.devices)
	if !d.running() || d.p.paused {
		return nil
	}
	return d
}

// crashClient ends a client's program. It comes back with what it had on disk, with what it had a while ago, or with nothing.
func crashClient(w *world, r *rand.Rand) func() {
	d, what, which := w.deviceOf(r), r.IntN(10), r.IntN(4)
	if d == nil {
		return nil
	}
	d.p.kill()
	switch {
	case what == 0:
		w.count("clients that lost all")
		d.wipe()
	case what < 4 && len(d.earlier) > 0:
		w.count("clients that lost some")
		d.saved = d.earlier[which%len(d.earlier)].clone()
		d.saved.segment = w.id()
	default:
		w.count("clients that lost nothing")
	}
	return d.up
}

func pauseClient(w *world, r *rand.Rand) func() {
	d := w.deviceOf(r)
	if d == nil {
		return nil
	}
	p := d.p
	p.pause()
	return p.resume
}
