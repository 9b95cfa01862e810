package simulation

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/clientsdk/wire"
	"github.com/futurechat/future/consumers/history"
	"github.com/futurechat/future/node"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/fence"
	"github.com/futurechat/future/router/outbox"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
	"github.com/futurechat/future/router/timeline"
)

// slot is a place where a process of a role runs, one life after the other.
type slot struct {
	w     *world
	name  string
	role  cluster.Role
	p     *proc
	stop  func() // ends the process in order; nil: not possible
	stops bool   // it is ending
}

const (
	clusterName    = "simulated"
	pushPartitions = 2
	pingEvery      = 3 * time.Second
	silentAfter    = 9 * time.Second
)

// cheap hashes passwords fast.
var cheap = chat.Argon{MemoryKiB: 8, Time: 1, Threads: 1}

func (w *world) topic() eventlog.State {
	return eventlog.State{Topic: chat.TopicMessages, ID: w.broker.topics[chat.TopicMessages].info.ID, Partitions: w.o.Partitions, Epoch: 1}
}

// up starts a slot's next life.
func (s *slot) up() {
	if s.p != nil && !s.p.dead {
		return
	}
	w := s.w
	s.p, s.stop, s.stops = w.start(s.name), nil, false
	p := s.p
	self := cluster.Member{ID: p.name, Name: s.name, Roles: []cluster.Role{s.role}}
	var err error
	switch s.role {
	case cluster.RoleNode:
		err = w.startNode(s, p, &self)
	case cluster.RoleRouter:
		err = w.startRouter(s, p, self)
	case cluster.RoleHistory:
		err = w.startHistory(p, self)
	}
	if err != nil {
		w.violate("start", "%s: %v", p.name, err)
	}
	p.onKill = append(p.onKill, func() {
		w.view.gone(self.ID)
		w.peers.gone(p)
	})
}

func (w *world) startRouter(s *slot, p *proc, self cluster.Member) error {
	metrics := w.registry(p)
	r, err := deliver.New(deliver.Options{
		Self: self, Membership: w.view.join(p, self), Log: w.logPort(p), Store: w.dbPort(p), Presence: w.redisPort(p),
		Pool: peerPort{p, s.name, w.peers}, Logger: w.logger(p), Registerer: metrics,
		Clock: p, Rand: w.stream("jitter of " + s.name).Float64,
	})
	if err != nil {
		return err
	}
	p.spawn(func() { _ = r.Run(p.ctx) })
	s.stop = func() {
		p.spawn(func() {
			const within = 8 * time.Second
			ctx, cancel := p.WithTimeout(p.ctx, within)
			defer cancel()
			if err := r.Stop(ctx); err == nil {
				w.count("routers stopped in order")
			}
			w.after(0, func() { p.kill() })
		})
	}
	return nil
}

func (w *world) startHistory(p *proc, self cluster.Member) error {
	view := w.view.join(p, self)
	h, err := history.New(history.Options{
		Log: w.logPort(p), Store: w.dbPort(p), Logger: w.logger(p), Registerer: w.registry(p),
		BatchSize: 10, Writers: w.o.Partitions + 1, Clock: p, Rand: w.stream("jitter of history").Float64,
		Leases: w.redisPort(p), Owner: self.ID,
		Wants: func(partition int32) bool {
			members, _ := view.Members()
			owner, ok := cluster.Rendezvous(partition, cluster.InOffice(members, cluster.RoleHistory))
			return !ok || owner.ID == self.ID
		},
	})
	if err != nil {
		return err
	}
	p.spawn(func() { _ = h.Run(p.ctx) })
	return nil
}

// nodeProc is a life of a node.
type nodeProc struct {
	slot  string
	p     *proc
	addr  string
	node  *node.Node
	conns []*conn
	// epochs is the highest router epoch that was delivered for, by partition.
	epochs map[int32]uint64
	drains bool // it takes no new connections
}

func (w *world) startNode(s *slot, p *proc, self *cluster.Member) error {
	self.Peer = "peer of " + p.name
	view := w.view.join(p, *self)
	store, redis, log := w.dbPort(p), w.redisPort(p), w.logPort(p)
	var fencer *fence.Fencer
	out, err := outbox.New(outbox.Options{
		Store: store, Log: log, Partitions: w.o.Partitions, Leases: redis, Owner: self.ID, Clock: p, Logger: w.logger(p),
		Registerer: w.registry(p),
		Fence: func(ctx context.Context, conversation string, version uint64) error {
			return w.fenced(p, func() error { return fencer.Fence(ctx, conversation, version) })
		},
	})
	if err != nil {
		return err
	}
	line := timeline.New(timeline.Options{Store: store, Recents: redis, Log: log, Topic: w.topic(), LogReads: 1 << 10, Clock: p})
	n := &nodeProc{slot: s.name, p: p, addr: self.Peer, epochs: map[int32]uint64{}}
	service := chat.New(chat.Options{
		Store: store, Topic: w.topic(), Now: p.Now, Rand: entropy{w.stream("secrets")}, Argon: cheap, FriendTTL: 5 * time.Second,
	})
	n.node, err = node.New(node.Options{
		Name: s.name, Cluster: clusterName, Topic: w.topic(), Service: service, Timeline: line, Outbox: out, Log: log, Locator: redis,
		Kicker: peerPort{p, s.name, w.peers}, Ping: pingEvery, Silence: silentAfter, MaxFrame: wire.DefaultMaxFrame,
		Elsewhere: func() []string { return elsewhere(view, self.ID) },
		Execute:   p.spawn, Clock: p, Rand: w.stream("drains").Float64, Logger: w.logger(p), Registerer: w.registry(p),
	})
	if err != nil {
		return err
	}
	incarnations := w.stream("incarnations")
	present := presence.NewNode(presence.NodeOptions{
		Store: redis, PeerAddr: n.addr, Logger: w.logger(p), Clock: p,
		Keeper:          presence.KeeperOptions{NewIncarnation: func() string { return fmt.Sprintf("%s %x", p.name, incarnations.Uint64()) }},
		Registered:      func(c uint64, degraded bool) { w.registered(degraded); n.node.Registered(c, degraded) },
		GroupRegistered: n.node.GroupRegistered,
		Compare:         func(c []uint64) { w.count("sessions that presence has compare"); n.node.Compare(c) },
		Suspend:         func() { w.count("incarnations given up"); w.tracef("%s suspends", p.name); n.node.Suspend() },
		Resume:          func(i string) { w.tracef("%s lives as %s", p.name, i); n.node.Resume(i) },
	})
	fencer, err = fence.New(fence.Options{
		Store: redis, Members: view, Link: peerPort{p, s.name, w.peers}, Self: self.ID, Own: n.node.Fence, Clock: p,
		Logger: w.logger(p), Registerer: w.registry(p),
	})
	if err != nil {
		return err
	}
	s.stop = func() { n.drain(view, *self, present) }
	n.node.Start(present)
	p.spawn(func() { _ = present.Run(p.ctx) })
	p.spawn(func() { _ = fencer.Run(p.ctx) })
	p.spawn(func() { n.watchLog(store) })
	p.spawn(func() { _ = out.Run(p.ctx) })
	w.nodes = append(w.nodes, n)
	p.onKill = append(p.onKill, func() {
		w.nodes = slices.DeleteFunc(w.nodes, func(o *nodeProc) bool { return o == n })
		for _, c := range slices.Clone(n.conns) {
			c.nodeGone()
		}
	})
	return nil
}

// elsewhere are the addresses of nodes that clients may be told of.
func elsewhere(view *view, self string) (addrs []string) {
	members, _ := view.Members()
	for _, m := range members {
		if m.Has(cluster.RoleNode) && m.State != cluster.Draining && m.ID != self {
			addrs = append(addrs, m.Peer)
		}
	}
	return addrs
}

// drain ends a node in order: nothing new, clients are sent elsewhere, and then presence is given up.
func (n *nodeProc) drain(view *view, self cluster.Member, present *presence.Node) {
	p, w := n.p, n.p.w
	n.drains = true
	self.State = cluster.Draining
	_ = view.Announce(p.ctx, self)
	p.spawn(func() {
		const within = 8 * time.Second
		ctx, cancel := p.WithTimeout(p.ctx, within)
		defer cancel()
		if err := n.node.Drain(ctx); err == nil {
			w.count("nodes drained")
		}
		if err := present.Close(ctx); err != nil {
			w.tracef("%s: %v", p.name, err)
		}
		w.after(0, func() { p.kill() })
	})
}

// watchLog tells a node up to where the log is in the database, as its process does.
func (n *nodeProc) watchLog(store chat.Store) {
	const every = 5 * time.Second
	for clock.Sleep(n.p.ctx, n.p, every) {
		if s, err := store.LogState(n.p.ctx, chat.TopicMessages); err == nil {
			n.node.LogSeen(s.Seen)
		}
	}
}

// fenced counts how a fence ended.
func (w *world) fenced(p *proc, fence func() error) error {
	if w.planted.fence != nil && w.planted.fence() {
		return nil
	}
	began := p.Now()
	err := fence()
	const answersWithin = 3 * time.Second // a fence that has all nodes' answers
	switch took := p.Now().Sub(began); {
	case err != nil:
		w.count("fences failed")
		w.tracef("%s: %v", p.name, err)
	case took < answersWithin:
		w.count("fences confirmed")
	default:
		w.count("fences waited out")
	}
	return err
}

func (w *world) registered(degraded bool) {
	if degraded {
		w.count("degraded log-ins")
	}
}

// forward has a router's frame handed on, and notes what came of it.
func (n *nodeProc) forward(link uint64, f peer.Forward) peer.Answer {
	w := n.p.w
	if w.planted.forward != nil {
		w.planted.forward(&f)
	}
	a := n.node.Forward(link, f)
	w.tracef("%s frame %d of epoch %d of partition %d, %d messages: status %d, %d missed", n.p.name, f.Number, f.RouterEpoch, f.Partition, len(f.Messages), a.Status, len(a.Missed))
	switch a.Status {
	case peer.StatusDelivered:
		if f.RouterEpoch < n.epochs[f.Partition] {
			w.violate("fence", "%s delivered for router epoch %d of partition %d after %d", n.p.name, f.RouterEpoch, f.Partition, n.epochs[f.Partition])
		}
		n.epochs[f.Partition] = f.RouterEpoch
		w.truth.reached(f, a)
	case peer.StatusStale:
		w.count("frames of stale routers refused")
	case peer.StatusWrongIncarnation:
		w.count("frames for another incarnation")
	}
	return a
}

// ---- who sees whom

// membership is what processes believe of each other: late, and not the same everywhere.
type membership struct {
	w       *world
	rng     *rand.Rand
	members []cluster.Member // alive
	views   []*view
}

// view is a cluster.Membership.
type view struct {
	p       *proc
	members []cluster.Member
	changed chan struct{}
}

func (m *membership) join(p *proc, self cluster.Member) *view {
	v := &view{p: p, changed: make(chan struct{}), members: []cluster.Member{self}}
	m.views = slices.DeleteFunc(m.views, func(o *view) bool { return o.p.dead })
	for _, o := range m.views {
		m.tell(o, self, time.Second)
	}
	for _, o := range m.members {
		m.tell(v, o, 300*time.Millisecond)
	}
	m.members = append(m.members, self)
	m.views = append(m.views, v)
	return v
}

// tell has a view see a member, unless that is gone by then.
func (m *membership) tell(v *view, who cluster.Member, within time.Duration) {
	m.w.after(time.Duration(m.rng.Int64N(int64(within))), func() {
		v.p.exec(func() {
			if slices.ContainsFunc(m.members, func(o cluster.Member) bool { return o.ID == who.ID }) {
				v.set(who, true)
			}
		})
	})
}

// gone has all see, sooner or later, that a member is no more.
func (m *membership) gone(id string) {
	m.members = slices.DeleteFunc(m.members, func(o cluster.Member) bool { return o.ID == id })
	for _, v := range m.views {
		const least, most = time.Second, 6 * time.Second
		m.w.after(least+time.Duration(m.rng.Int64N(int64(most))), func() {
			v.p.exec(func() { v.set(cluster.Member{ID: id}, false) })
		})
	}
}

func (v *view) set(who cluster.Member, here bool) {
	members := slices.DeleteFunc(slices.Clone(v.members), func(o cluster.Member) bool { return o.ID == who.ID })
	if here {
		members = append(members, who)
		slices.SortFunc(members, func(a, b cluster.Member) int {
			if a.ID < b.ID {
				return -1
			}
			return 1
		})
	}
	v.members = members
	close(v.changed)
	v.changed = make(chan struct{})
}

// Members implements cluster.Membership.
func (v *view) Members() ([]cluster.Member, <-chan struct{}) { return v.members, v.changed }

// Announce implements cluster.Membership.
func (v *view) Announce(_ context.Context, self cluster.Member) error {
	m := v.p.w.view
	m.members = slices.DeleteFunc(m.members, func(o cluster.Member) bool { return o.ID == self.ID })
	m.members = append(m.members, self)
	v.set(self, true)
	for _, o := range m.views {
		if o != v {
			m.tell(o, self, time.Second)
		}
	}
	return nil
}

// Leave implements cluster.Membership.
func (v *view) Leave(context.Context) error { return nil }

// ---- odds and ends

// entropy gives random bytes that are the same at every run.
type entropy struct{ rng *rand.Rand }

var _ io.Reader = entropy{}

func (e entropy) Read(b []byte) (int, error) {
	var word [8]byte
	for i := 0; i < len(b); i += len(word) {
		binary.LittleEndian.PutUint64(word[:], e.rng.Uint64())
		copy(b[i:], word[:])
	}
	return len(b), nil
}

func (w *world) logger(p *proc) *zap.Logger {
	if w.trace == nil {
		return silent
	}
	return zap.New(traceCore{p})
}

var silent = zap.NewNop()
