package simulation

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/futurechat/future/node"
	"github.com/futurechat/future/router/peer"
)

// peerNet is the links between processes: ordered, until they break.
type peerNet struct {
	w     *world
	rng   *rand.Rand
	links []*peerLink
	last  uint64
	// Faults: pairs of process and node that do not reach each other.
	cuts map[[2]string]cut
	slow int
}

// peerLink is one connection from a process to a node.
type peerLink struct {
	id         uint64
	from       *proc
	to         *nodeProc
	broken     bool
	there, ret time.Duration // when the last frame arrives, each way
	calls      []*peerCall
}

type peerCall struct {
	failed func(error)
	told   bool
}

// tell gives what asked its answer, unless it has one.
func (c *peerCall) tell(give func()) {
	if !c.told {
		c.told = true
		give()
	}
}

func newPeerNet(w *world) *peerNet {
	return &peerNet{w: w, rng: w.stream("peers"), cuts: map[[2]string]cut{}}
}

func (n *peerNet) latency() time.Duration {
	const usual = 300 * time.Microsecond
	d := usual/2 + time.Duration(n.rng.Int64N(int64(usual)))
	if n.rng.IntN(100) == 0 {
		d *= 50
	}
	if n.slow > 0 {
		d += time.Duration(n.rng.Int64N(int64(400 * time.Millisecond)))
	}
	return d
}

// peerPort is the pool of links that a process has.
type peerPort struct {
	p    *proc
	slot string
	n    *peerNet
}

// link gives the link to an address, made if there is none; nil if nobody is there.
func (pp peerPort) link(addr string) *peerLink {
	n := pp.n
	for _, l := range n.links {
		if l.from == pp.p && l.to.addr == addr && !l.broken {
			return l
		}
	}
	for _, to := range n.w.nodes {
		if to.addr == addr && !to.p.dead {
			n.last++
			l := &peerLink{id: n.last, from: pp.p, to: to}
			n.links = append(n.links, l)
			return l
		}
	}
	return nil
}

// Send implements deliver.Pool.
func (pp peerPort) Send(addr string, f peer.Forward, timeout time.Duration, done func(peer.Answer, error)) {
	ask(pp, addr, timeout, done, func(l *peerLink, answer func(peer.Answer)) { answer(l.to.forward(l.id, f)) })
}

// Fence implements fence.Link.
func (pp peerPort) Fence(addr string, f peer.Fence, timeout time.Duration, done func(peer.Fenced, error)) {
	ask(pp, addr, timeout, done, func(l *peerLink, answer func(peer.Fenced)) {
		l.to.node.Fence(f, func(incarnation string) { answer(peer.Fenced{Self: l.to.p.name, Incarnation: incarnation}) })
	})
}

// ask has the process at an address do something and answer, at once or later.
func ask[A any](pp peerPort, addr string, timeout time.Duration, done func(A, error), do func(l *peerLink, answer func(A))) {
	n, w := pp.n, pp.p.w
	var none A
	c := &peerCall{failed: func(err error) { done(none, err) }}
	w.after(timeout, func() {
		pp.p.exec(func() {
			if !c.told {
				w.count("frames timed out")
			}
			c.tell(func() { c.failed(peer.ErrTimeout) })
		})
	})
	l := pp.link(addr)
	if l == nil {
		w.count("frames to nobody")
		w.after(n.latency(), func() { pp.p.exec(func() { c.tell(func() { c.failed(peer.ErrLost) }) }) })
		return
	}
	l.calls = append(l.calls, c)
	if len(l.calls) > 64 {
		l.calls = slices.DeleteFunc(l.calls, func(c *peerCall) bool { return c.told })
	}
	l.send(pp.slot, func() {
		do(l, func(a A) {
			l.there = max(l.there, w.now)
			if n.cuts[[2]string{pp.slot, l.to.slot}]&cutAnswers != 0 {
				w.count("answers of nodes lost")
				return
			}
			l.ret = max(l.ret+1, w.now+n.latency())
			w.at(l.ret, func() {
				if !l.broken {
					pp.p.exec(func() { c.tell(func() { done(a, nil) }) })
				}
			})
		})
	})
}

// send has a frame arrive behind those sent before, unless the link breaks first.
func (l *peerLink) send(slot string, arrive func()) {
	w := l.to.p.w
	if w.peers.cuts[[2]string{slot, l.to.slot}]&cutRequests != 0 {
		w.count("frames lost")
		return
	}
	l.there = max(l.there+1, w.now+w.peers.latency())
	w.at(l.there, func() {
		if !l.broken {
			l.to.p.exec(arrive)
		}
	})
}

// Kick implements node.Kicker.
func (pp peerPort) Kick(addr string, k peer.Kick) {
	if l := pp.link(addr); l != nil {
		l.send(pp.slot, func() {
			pp.p.w.count("kicks")
			l.to.node.Kick(k)
		})
	}
}

var _ node.Kicker = peerPort{}

// breakLink ends a link: what was under way on it is gone. The node may hear of it late.
func (n *peerNet) breakLink(l *peerLink) {
	if l.broken {
		return
	}
	l.broken = true
	n.w.count("links broken")
	n.w.tracef("link %d of %s to %s breaks", l.id, l.from.name, l.to.p.name)
	calls := l.calls
	l.calls = nil
	n.w.after(n.latency(), func() {
		l.from.exec(func() {
			for _, c := range calls {
				c.tell(func() { c.failed(peer.ErrLost) })
			}
		})
	})
	told := n.latency()
	if n.rng.IntN(2) == 0 {
		told += time.Duration(n.rng.Int64N(int64(3 * time.Second)))
	}
	n.w.after(told, func() { l.to.p.exec(func() { l.to.node.LinkLost(l.id) }) })
	n.links = slices.DeleteFunc(n.links, func(o *peerLink) bool { return o == l })
}

// gone breaks all links of a process.
func (n *peerNet) gone(p *proc) {
	for _, l := range slices.Clone(n.links) {
		if l.from == p || l.to.p == p {
			n.breakLink(l)
		}
	}
}
