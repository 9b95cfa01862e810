package simulation

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/cluster"
)

// Options say what a run is like. What is 0 the seed decides.
type Options struct {
	Seed uint64
	// Nodes, Routers and Histories are how many processes there are of each role.
	Nodes, Routers, Histories int
	People, Partitions        int
	// Faults is for how long things go wrong, Heal how long it may take then until all is well.
	Faults, Heal time.Duration
	// Without are kinds of faults that do not happen; see FaultKinds.
	Without []string
	// Trace keeps what happened; WholeTrace all of it and not only the end.
	Trace, WholeTrace bool

	plant func(*world) // a fault of the simulation's own, for its tests
}

func (o *Options) on(fault string) bool { return !slices.Contains(o.Without, fault) }

// Result is what came of a run.
type Result struct {
	Seed uint64
	// Broken is the promise that was not kept, or nil.
	Broken *Violation
	// Hash is of all that happened: the same for each run of the same Options.
	Hash uint64
	// Counts is how often each thing happened.
	Counts map[string]int
	// Healed is how long it took until all was well.
	Healed time.Duration
	Events int
	Trace  []string
}

// warmUp is how long all goes well at first.
const warmUp = 2 * time.Second

// healWithin is how long it may take after the last fault until all is well.
const healWithin = time.Minute

// Run simulates a cluster. It uses no clock and no goroutine beside the caller's.
func Run(o Options) Result {
	w := newWorld(o)
	w.build()
	w.plan(warmUp, warmUp+w.o.Faults)
	for _, p := range w.people {
		p.live(warmUp + w.o.Faults)
	}
	w.govern(warmUp + w.o.Faults)
	w.at(warmUp+w.o.Faults, w.heal)
	if o.plant != nil {
		o.plant(w)
	}
	w.run(warmUp + w.o.Faults)
	healed := w.settleDown()
	if w.broken == nil {
		w.audit()
	}
	return w.end(healed)
}

// shape gives the options with what the seed decides.
func (o Options) shape() Options {
	r := newWorld(o).stream("shape")
	draw := func(n *int, least, most int) {
		if drawn := least + r.IntN(most-least+1); *n == 0 {
			*n = drawn
		}
	}
	draw(&o.Nodes, 3, 3)
	draw(&o.Routers, 2, 3)
	draw(&o.Histories, 2, 2)
	draw(&o.People, 5, 8)
	draw(&o.Partitions, 2, 4)
	if drawn := time.Duration(8+r.IntN(15)) * time.Second; o.Faults == 0 {
		o.Faults = drawn
	}
	o.Heal = cmp.Or(o.Heal, healWithin)
	return o
}

func (w *world) build() {
	w.o = w.o.shape()
	r := w.stream("starts")
	w.broker, w.redis, w.db, w.peers = newBroker(w), newRedis(w), newDatabase(w), newPeerNet(w)
	w.view = &membership{w: w, rng: w.stream("membership")}
	w.truth = newTruth(w)
	w.broker.create(chat.TopicMessages, w.o.Partitions)
	w.broker.create(chat.TopicPush, pushPartitions)
	if err := w.db.memory.SaveLogState(at, w.topic()); err != nil {
		w.violate("start", "log state: %v", err)
	}
	w.populate()
	w.gather()
	for _, role := range []struct {
		role cluster.Role
		n    int
	}{{cluster.RoleHistory, w.o.Histories}, {cluster.RoleRouter, w.o.Routers}, {cluster.RoleNode, w.o.Nodes}} {
		for i := range role.n {
			s := &slot{w: w, name: fmt.Sprintf("%s-%c", role.role, 'a'+i), role: role.role}
			w.slots = append(w.slots, s)
			w.at(time.Duration(r.Int64N(int64(200*time.Millisecond))), s.up)
		}
	}
	for _, p := range w.people {
		for _, d := range p.devices {
			w.at(500*time.Millisecond+time.Duration(r.Int64N(int64(4*time.Second))), d.up)
		}
	}
	w.snapshots()
}

// snapshots keeps what devices had on disk a while ago.
func (w *world) snapshots() {
	const every, kept = 1500 * time.Millisecond, 4
	for _, p := range w.people {
		for _, d := range p.devices {
			d.earlier = append(d.earlier, d.saved.clone())
			d.earlier = d.earlier[max(0, len(d.earlier)-kept):]
		}
	}
	if !w.healed {
		w.after(every, w.snapshots)
	}
}

// settleDown runs until all is well, and says how long that took.
func (w *world) settleDown() time.Duration {
	const step = 250 * time.Millisecond
	began := w.now
	w.run(began + time.Second)
	w.canaries()
	for w.broken == nil && w.now < began+w.o.Heal {
		if w.unwell() == "" {
			return w.now - began
		}
		w.run(w.now + step)
	}
	if w.broken == nil {
		if why := w.unwell(); why != "" {
			w.violate("liveness", "%v after everything healed: %s", w.o.Heal, why)
		}
	}
	return w.now - began
}

// canaries has everybody write to every friend once more: all must get through.
func (w *world) canaries() {
	for _, p := range w.people {
		d := p.devices[0]
		for _, f := range p.friends {
			if d.running() {
				d.p.exec(func() { d.submit(canary(w, p, f)) })
			}
		}
	}
}

// unwell says what is not yet as it should be once everything has healed; empty: nothing.
func (w *world) unwell() string {
	for i, part := range w.broker.topics[chat.TopicMessages].partitions {
		p := int32(i)
		if w.truth.history[p] != part.end() {
			return fmt.Sprintf("history has partition %d up to %d of %d", p, w.truth.history[p], part.end())
		}
		// The highest commit counts: a former owner's, which was long on its way, may have put the offset down again. That costs the
		// next owner a repetition and nothing else.
		if at := w.truth.judged[p]; at != part.end() {
			return fmt.Sprintf("partition %d is delivered up to %d of %d", p, at, part.end())
		}
	}
	if rows, _ := w.db.memory.Unsent(at, "", 0, 1); len(rows) > 0 {
		return "the outbox has a row for " + rows[0].Message.GetConversation()
	}
	for _, p := range w.people {
		for _, d := range p.devices {
			if why := d.unwell(); why != "" {
				return d.name + " " + why
			}
		}
	}
	return ""
}

func (d *device) unwell() string {
	switch {
	case !d.running() || d.phase != phaseLive:
		return "has no session"
	case d.machine.Outbox() > 0:
		return fmt.Sprintf("has %d messages that are not acknowledged", d.machine.Outbox())
	case len(d.later) > 0 || d.asks(forRemoval):
		return "awaits the end of a removal"
	case len(d.queue) > 0:
		return "has not taken all"
	}
	for _, name := range d.w.truth.conversations() {
		if last := d.w.truth.lastFor(d.person.id, name); d.pos[name] < last && !d.w.truth.former(d.person.id, name) {
			return fmt.Sprintf("shows %s up to %d of %d", name, d.pos[name], last)
		}
	}
	places, _ := d.w.redis.memory.Locate(at, []int64{d.person.id}) // it cannot fail
	for _, p := range places[0] {
		if p.Device == d.saved.id && p.Connection == d.conn.id {
			return ""
		}
	}
	return "is not in presence"
}

// end gives the result, and lets go of everything.
func (w *world) end(healed time.Duration) Result {
	for len(w.procs) > 0 {
		w.procs[len(w.procs)-1].kill()
	}
	for _, t := range w.idle {
		t.stop()
	}
	r := Result{Seed: w.o.Seed, Broken: w.broken, Hash: w.hash, Counts: w.counts, Healed: healed, Events: int(w.nth)}
	if w.trace != nil {
		r.Trace = w.trace.lines
	}
	return r
}
