package deliver_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// world is one partition with everything around it, driven by one goroutine: routers that come and go, nodes that are slow,
// cut off or dead to the world, a Redis that fails and forgets, a history that lags.
type world struct {
	t   *rapid.T
	now time.Time
	log []msg
	dup map[int64]bool // offsets of duplicates, and of what was dropped as invalid
	// version is of each conversation's pair, closed the version of its last closing in the log.
	version, closed map[string]uint64
	ids             int
	stuck           []msg // checked, and on their way to the log for long
	closing         []msg // decided, not in the log yet
	hist            int64
	comm            int64

	recents map[string][]int64 // offsets
	store   int                // life of the stored data
	places  map[int64][]*connection

	nodes    []*simNode
	conns    []*connection
	nextConn uint64

	router *simRouter
	epoch  uint64
	forgot int64 // the log's end when Redis lost its data
	calm   bool  // no more faults

	acked, pushed map[string]bool // "offset user"
}

type connection struct {
	user int64
	node *simNode
	id   uint64
	// knows are the offsets that it got or read; live are those it got, in order.
	knows map[int64]bool
	live  []int64
}

type simNode struct {
	name  string
	inbox *deliver.Inbox
	conns map[uint64]*connection
	store int // life of the stored data that it has noticed
}

type simRouter struct {
	p      *deliver.Partition
	at     int64 // next offset to read
	link   uint64
	todo   []deliver.Effect // to be carried out
	flying []deliver.Send
	// failing are the nodes whose last frame was not answered.
	failing map[string]bool
	// appended are the offsets of the batch whose append was answered.
	appended map[int64]bool
	pending  []int64 // of the last AppendRecents
}

func (w *world) chance(what string, oneIn int) bool {
	return !w.calm && rapid.IntRange(1, oneIn).Draw(w.t, what) == 1
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, now: began, dup: map[int64]bool{}, version: map[string]uint64{}, closed: map[string]uint64{}, recents: map[string][]int64{}, places: map[int64][]*connection{},
		acked: map[string]bool{}, pushed: map[string]bool{},
	}
	for _, n := range []string{"a", "b"} {
		w.nodes = append(w.nodes, &simNode{name: n, inbox: deliver.NewInbox(), conns: map[uint64]*connection{}})
	}
	return w
}

func usersOf(conversation string) []int64 {
	c, _ := wire.ParseConversation(conversation)
	return []int64{c.A, c.B}
}

// ---- sessions

func (w *world) connect() {
	w.nextConn++
	c := &connection{
		user: int64(rapid.IntRange(1, 3).Draw(w.t, "user")), node: rapid.SampledFrom(w.nodes).Draw(w.t, "node"),
		id: w.nextConn, knows: map[int64]bool{},
	}
	c.node.conns[c.id] = c
	w.conns = append(w.conns, c)
	w.register(c)
}

// register is I4: first into presence, then read what is there.
func (w *world) register(c *connection) {
	if !slices.Contains(w.places[c.user], c) {
		w.places[c.user] = append(w.places[c.user], c)
	}
	w.resync(c)
}

// resync reads the recents and the database.
func (w *world) resync(c *connection) {
	for conversation, offsets := range w.recents {
		if slices.Contains(usersOf(conversation), c.user) {
			for _, o := range offsets {
				c.knows[o] = true
			}
		}
	}
	for o, m := range w.log[:w.hist] {
		if slices.Contains(usersOf(m.Conversation), c.user) {
			c.knows[int64(o)] = true
		}
	}
}

func (w *world) disconnect() {
	if len(w.conns) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.conns)-1).Draw(w.t, "connection")
	c := w.conns[i]
	w.conns = slices.Delete(w.conns, i, i+1)
	delete(c.node.conns, c.id)
	if rapid.Bool().Draw(w.t, "clean") { // else its place stays in presence
		w.places[c.user] = slices.DeleteFunc(w.places[c.user], func(o *connection) bool { return o == c })
	}
}

// ---- the log

func (w *world) produce() {
	o := int64(len(w.log))
	m := d(o)
	w.ids++
	m.ID = w.ids
	m.Conversation = rapid.SampledFrom([]string{"d:1:2", "d:1:3"}).Draw(w.t, "conversation")
	m.Sender = 1
	// A resend comes only of what the node did not find in the database.
	written := map[int]bool{}
	for o, m := range w.log[:w.hist] {
		if w.valid(int64(o)) {
			written[m.ID] = true
		}
	}
	unsettled := slices.DeleteFunc(slices.Clone(w.log[w.hist:]), func(m msg) bool { return written[m.ID] })
	if len(unsettled) > 0 && rapid.IntRange(1, 4).Draw(w.t, "resend") == 1 {
		first := rapid.SampledFrom(unsettled).Draw(w.t, "first")
		m = first
		m.Resend, m.SearchFrom = true, w.hist
	}
	if m.Closes == 0 {
		m.Version, m.From = w.version[m.Conversation]+1, w.seen()
	}
	if rapid.IntRange(1, 5).Draw(w.t, "stuck") <= 2 && m.Closes == 0 {
		w.stuck = append(w.stuck, m)
		return
	}
	w.write(m)
}

func (w *world) valid(offset int64) bool { return !w.dup[offset] }

// ---- the router

func (w *world) takeover() {
	w.epoch++
	c := deliver.DefaultConfig()
	c.LogEpoch, c.RouterEpoch, c.StoreEpoch = logEpoch, w.epoch, fmt.Sprint(w.store)
	c.History, c.Start = w.hist, min(w.comm, w.hist)
	w.comm = c.Start
	c.Rand, c.Window, c.Reach = func() float64 { return 0.5 }, 4, 3
	if w.store > 0 {
		c.Again = int64(len(w.log))
	}
	w.router = &simRouter{p: deliver.NewPartition(w.now, c), at: c.Start, link: w.epoch, appended: map[int64]bool{}, failing: map[string]bool{}}
	w.step(deliver.Leased{Until: w.now.Add(24 * time.Hour)})
}

func (w *world) step(e deliver.Event) {
	r := w.router
	for _, e := range r.p.Step(w.now, e) {
		switch e := e.(type) {
		case deliver.AppendRecents:
			r.appended, r.pending = map[int64]bool{}, nil
			for _, m := range e.Messages {
				_, o := eventlog.SplitSeq(m.Seq)
				if !w.valid(o) {
					w.t.Fatalf("duplicate %d is appended", o)
				}
				r.pending = append(r.pending, o)
			}
			r.todo = append(r.todo, e)
		case deliver.Locate:
			for _, o := range r.pending {
				if !r.appended[o] {
					w.t.Fatalf("users are looked up before %d was appended", o)
				}
			}
			r.todo = append(r.todo, e)
		case deliver.Send:
			for _, f := range r.flying {
				if f.Forward.Incarnation == e.Forward.Incarnation {
					w.t.Fatalf("a second frame is in flight to %s", f.Forward.Incarnation)
				}
			}
			r.flying = append(r.flying, e)
		case deliver.Commit:
			w.checkDone(e.Offset)
			r.todo = append(r.todo, e)
		case deliver.Lost, deliver.Released:
			w.retire()
			return
		default:
			r.todo = append(r.todo, e)
		}
	}
}

// checkDone: all below offset reached each recipient but the sender, or is on chat.push.
func (w *world) checkDone(offset int64) {
	for o, m := range w.log[:offset] {
		for _, u := range usersOf(m.Conversation) {
			if key := fmt.Sprint(o, u); w.valid(int64(o)) && u != m.Sender && !w.acked[key] && !w.pushed[key] {
				w.t.Fatalf("commit %d, but %d neither reached %d nor was pushed", offset, o, u)
			}
		}
	}
}

// retire ends a router. Frames on their way still arrive, or do not. What it could not tell a node any more (that it had left
// something out) nobody tells until the next router's first frame, and if there is none, the compare every 5 minutes: Inbox
// names this as what remains.
func (w *world) retire() {
	r := w.router
	w.router = nil
	if r == nil {
		return
	}
	for _, f := range r.flying {
		if rapid.Bool().Draw(w.t, "late") {
			w.arrive(r.link, f.Forward)
		} else {
			r.failing[f.Forward.Incarnation] = true
		}
	}
	for _, c := range w.conns {
		if r.failing[c.node.name] {
			w.resync(c)
		}
	}
}

func (w *world) read() {
	r := w.router
	if r == nil || !r.p.Idle() || r.at >= int64(len(w.log)) {
		return
	}
	n := min(int64(len(w.log)), r.at+int64(rapid.IntRange(1, 4).Draw(w.t, "batch")))
	e := records(w.t, w.log[r.at:n]...)
	r.at, r.pending = n, nil
	w.step(e)
}

// work carries out the router's next effect.
func (w *world) work() {
	r := w.router
	if r == nil || len(r.todo) == 0 {
		return
	}
	e := r.todo[0]
	r.todo = r.todo[1:]
	switch e := e.(type) {
	case deliver.AppendRecents:
		if w.chance("append fails", 6) {
			if rapid.Bool().Draw(w.t, "yet done") {
				w.append(e)
			}
			w.step(deliver.Appended{Err: errAway})
			return
		}
		prevs := w.append(e)
		for _, o := range r.pending {
			r.appended[o] = true
		}
		w.step(deliver.Appended{Prevs: prevs, Epoch: fmt.Sprint(w.store)})
	case deliver.Locate:
		if w.chance("locate fails", 6) {
			w.step(deliver.Located{Err: errAway})
			return
		}
		l := deliver.Located{}
		for _, u := range e.Users {
			var ps []presence.Place
			for _, c := range w.places[u] {
				ps = append(ps, presence.Place{Incarnation: c.node.name, Connection: c.id, Addr: c.node.name})
			}
			l.Places = append(l.Places, ps)
		}
		w.step(l)
	case deliver.Push:
		if w.chance("push fails", 6) {
			w.step(deliver.Pushed{Failed: e.Records})
			return
		}
		for _, p := range e.Records {
			_, o := eventlog.SplitSeq(p.Seq)
			for _, u := range p.Users {
				w.pushed[fmt.Sprint(o, u)] = true
			}
		}
		w.step(deliver.Pushed{})
	case deliver.Commit:
		if w.chance("commit fails", 6) {
			w.step(deliver.Committed{Offset: e.Offset, Err: errAway})
			return
		}
		w.comm = e.Offset
		w.step(deliver.Committed{Offset: e.Offset})
	case deliver.Refill:
		if w.chance("refill fails", 6) {
			w.step(deliver.Refilled{Err: errAway})
			return
		}
		w.step(deliver.Refilled{Records: records(w.t, w.log[e.From:e.To]...).Records, Done: true})
	}
}

func (w *world) append(e deliver.AppendRecents) (prevs []presence.Prev) {
	for _, m := range e.Messages {
		_, o := eventlog.SplitSeq(m.Seq)
		list := w.recents[m.Conversation]
		if !slices.Contains(list, o) {
			list = append(list, o)
			slices.Sort(list)
			w.recents[m.Conversation] = list
		}
		p := presence.Prev{}
		for _, lower := range list {
			if lower < o {
				p = presence.Prev{Seq: seq(lower), Known: true}
			}
		}
		prevs = append(prevs, p)
	}
	return prevs
}

// ---- the link

// fly lets one frame arrive, or not.
func (w *world) fly() {
	r := w.router
	if r == nil || len(r.flying) == 0 {
		return
	}
	i := rapid.IntRange(0, len(r.flying)-1).Draw(w.t, "frame")
	f := r.flying[i].Forward
	r.flying = slices.Delete(r.flying, i, i+1)
	what := 0
	if !w.calm {
		what = rapid.IntRange(0, 5).Draw(w.t, "fate")
	}
	answered := deliver.Answered{Incarnation: f.Incarnation, Number: f.Number}
	switch what {
	case 1: // it never arrives
		answered.Err = peer.ErrLost
	case 2: // it arrives, its answer does not
		w.arrive(r.link, f)
		answered.Err = peer.ErrTimeout
	default:
		answered.Answer = w.arrive(r.link, f)
	}
	if answered.Err != nil {
		r.failing[f.Incarnation] = true
	} else {
		delete(r.failing, f.Incarnation)
	}
	w.step(answered)
}

func (w *world) arrive(link uint64, f peer.Forward) peer.Answer {
	n := w.nodes[f.Incarnation[0]-'a']
	got := n.inbox.Receive(link, f)
	if got.Compare {
		for _, c := range n.conns {
			w.resync(c)
		}
	}
	a := peer.Answer{Status: got.Status}
	if got.Status != peer.StatusDelivered {
		return a
	}
	each := func(ms []peer.Message, hand func(c *connection, o int64, body []byte)) {
		for _, m := range ms {
			_, o := eventlog.SplitSeq(m.Seq)
			for _, to := range m.Recipients {
				c := n.conns[to.Connection]
				if c == nil {
					a.Missed = append(a.Missed, peer.Missed{Seq: m.Seq, Recipient: to})
					continue
				}
				w.acked[fmt.Sprint(o, to.User)] = true
				hand(c, o, m.Body)
			}
		}
	}
	each(got.Messages, w.hand)
	each(got.Repeats, func(*connection, int64, []byte) {})
	return a
}

// hand is a message at its recipient.
func (w *world) hand(c *connection, o int64, body []byte) {
	m := new(pb.Message)
	if err := m.UnmarshalVT(body); err != nil {
		w.t.Fatal(err)
	}
	if n := len(c.live); n > 0 && c.live[n-1] >= o {
		w.t.Fatalf("connection %d got %d after %d", c.id, o, c.live[n-1])
	}
	if !w.valid(o) {
		w.t.Fatalf("connection %d got %d, a duplicate", c.id, o)
	}
	c.live = append(c.live, o)
	c.knows[o] = true
	if m.GetPrevKnown() {
		prev := int64(-1)
		for p := o - 1; p >= 0 && prev < 0; p-- {
			if w.valid(p) && w.log[p].Conversation == w.log[o].Conversation {
				prev = p
			}
		}
		if m.GetPrevSeq() != seq(prev) {
			w.t.Fatalf("%d has prev %d, not %d", o, m.GetPrevSeq(), seq(prev))
		}
	}
}

// ---- the whole

func (w *world) wait(d time.Duration) {
	w.now = w.now.Add(d)
	if w.router != nil {
		w.step(deliver.Tick{})
	}
}

// forget is Redis losing all. Nodes notice one after the other, before or after the router does.
func (w *world) forget() {
	w.store++
	w.forgot = int64(len(w.log))
	w.recents, w.places = map[string][]int64{}, map[int64][]*connection{}
}

// reregister is a node that notices: it registers all its sessions anew, and they resync. That takes it longer than history
// needs for what was in the log then: else the resync would find some of it nowhere. (The number that is left out after a
// Restart is for a history that lags more; sessions known to the router then compare again.)
func (w *world) reregister() {
	w.renew(rapid.SampledFrom(w.nodes).Draw(w.t, "node"))
}

func (w *world) renew(n *simNode) {
	if n.store == w.store {
		return
	}
	n.store = w.store
	w.hist = max(w.hist, w.forgot)
	for _, c := range w.conns {
		if c.node == n {
			w.register(c)
		}
	}
}

func (w *world) notice() {
	if w.router != nil {
		w.step(deliver.Stored{Epoch: fmt.Sprint(w.store), Asked: w.now})
	}
}

func (w *world) historyWrites() {
	if w.hist < int64(len(w.log)) {
		w.hist += int64(rapid.IntRange(1, len(w.log)-int(w.hist)).Draw(w.t, "written"))
	}
	if w.router != nil {
		w.step(deliver.History{Offset: w.hist})
	}
}

// settle ends all faults, and goes on until nothing is left to do.
func (w *world) settle() {
	w.calm = true
	for _, n := range w.nodes {
		w.renew(n)
	}
	if w.router == nil {
		w.takeover()
	}
	w.notice()
	for range 10_000 {
		switch r := w.router; {
		case r == nil:
			w.takeover()
		case len(r.todo) > 0:
			w.work()
		case len(r.flying) > 0:
			w.fly()
		case r.p.Idle() && r.at < int64(len(w.log)):
			w.read()
		default:
			at, due := r.p.Deadline()
			if !due {
				return
			}
			w.wait(at.Sub(w.now))
		}
	}
	w.t.Fatal("it does not come to rest")
}

func (w *world) check() {
	if w.comm != int64(len(w.log)) {
		w.t.Fatalf("committed %d of %d", w.comm, len(w.log))
	}
	w.checkDone(w.comm)
	for _, c := range w.conns {
		for o, m := range w.log {
			if w.valid(int64(o)) && slices.Contains(usersOf(m.Conversation), c.user) && !c.knows[int64(o)] {
				w.t.Fatalf("connection %d of %d on %s never learnt of %d; it got %v", c.id, c.user, c.node.name, o, c.live)
			}
		}
	}
}

func TestR44_Partition_WhateverHappens_NothingIsLostOrComesTwice(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt)
		w.takeover()
		actions := map[string]func(){
			"connect": w.connect, "disconnect": w.disconnect, "produce": w.produce, "read": w.read, "fly": w.fly,
			"work": w.work, "history": w.historyWrites, "forget": w.forget, "reregister": w.reregister, "notice": w.notice,
			"remove": w.remove, "close": w.close, "unstick": w.unstick,
			"wait a little": func() { w.wait(30 * time.Millisecond) },
			"wait long":     func() { w.wait(time.Second) },
			"kill":          func() { w.retire(); w.takeover() },
			"release": func() {
				if w.router != nil {
					w.step(deliver.Release{})
				}
			},
			"takeover": func() {
				if w.router == nil {
					w.takeover()
				}
			},
		}
		// Faults must not crowd out the work.
		names := slices.Sorted(maps.Keys(actions))
		for range 6 {
			names = append(names, "work", "fly", "read", "work", "produce")
		}
		names = append(names, "remove", "close", "unstick", "history", "unstick", "close", "takeover", "release")
		for _, name := range rapid.SliceOfN(rapid.SampledFrom(names), 30, 200).Draw(rt, "actions") {
			actions[name]()
		}
		w.settle()
		w.check()
	})
}
