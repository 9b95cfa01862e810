package deliver

import (
	"errors"
	"slices"
	"time"

	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// node is one incarnation that frames of this partition go to. One frame is in flight at a time. Every frame that was meant
// for it has a number, whether it was sent or not, so a number left out tells the node that something is missing.
type node struct {
	incarnation, addr string

	number uint64 // the last one given
	// unsure is the highest number whose content may not have arrived. Once a higher one is answered the node knows.
	unsure uint64
	flight *frame // sent and not answered
	queued *frame // waits for flight to be answered

	suspect bool      // nothing is sent but knocks: empty frames
	fails   int       // knocks in a row that were not answered
	knockAt time.Time // the next one
	named   time.Time // when a user was last located here, or it became suspect
}

type frame struct {
	peer.Forward
	batch *batch // whose messages these are; nil: a knock
	parts []part // as Messages
	again bool   // sent a second time
}

// part says which of its users each recipient of a message is.
type part struct {
	m     *message
	users []int
}

// nodes are kept in the order of first use, so that effects never depend on a map's order.
type nodes struct {
	most     int
	list     []*node
	by       map[string]*node
	suspects int
	// forgotten is the highest number of a node that was dropped for another: should that one come back, it gets none twice.
	forgotten uint64
}

func newNodes(most int) nodes { return nodes{most: most, by: map[string]*node{}} }

func (ns *nodes) get(now time.Time, place presence.Place) *node {
	n := ns.by[place.Incarnation]
	if n == nil {
		if len(ns.list) >= ns.most {
			ns.dropOldest()
		}
		n = &node{incarnation: place.Incarnation, number: ns.forgotten}
		ns.list = append(ns.list, n)
		ns.by[n.incarnation] = n
	}
	n.addr, n.named = place.Addr, now
	return n
}

func (ns *nodes) dropOldest() {
	oldest := slices.MinFunc(ns.list, func(a, b *node) int { return a.named.Compare(b.named) })
	ns.forgotten = max(ns.forgotten, oldest.number)
	ns.drop(oldest)
}

func (ns *nodes) drop(n *node) {
	ns.setSuspect(n, false)
	delete(ns.by, n.incarnation)
	ns.list = slices.DeleteFunc(ns.list, func(o *node) bool { return o == n })
}

func (ns *nodes) setSuspect(n *node, suspect bool) {
	if n.suspect == suspect {
		return
	}
	n.suspect, n.fails = suspect, 0
	if suspect {
		ns.suspects++
	} else {
		ns.suspects--
	}
}

// nextKnock is when the next knock is due; zero if none is.
func (ns *nodes) nextKnock(now time.Time, within time.Duration) (at time.Time) {
	if ns.suspects == 0 {
		return at
	}
	for _, n := range ns.list {
		if n.knocks(now, within) && (at.IsZero() || n.knockAt.Before(at)) {
			at = n.knockAt
		}
	}
	return at
}

// knocks reports whether the node is to be knocked at. One that no user was located on for a while has lost its lease.
func (n *node) knocks(now time.Time, within time.Duration) bool {
	return n.suspect && n.flight == nil && now.Sub(n.named) < within
}

// ---- forwarding

// forward sends each node its part of the batch in one frame.
func (p *Partition) forward(places, groupNodes [][]presence.Place) {
	b := p.batch
	p.phase, b.deadline = forwarding, p.now.Add(p.c.Wait)
	frames := p.frames(places, groupNodes)
	for _, f := range frames {
		n := p.nodes.by[f.Incarnation]
		if n == nil { // more nodes than can be remembered
			continue
		}
		n.number++
		f.Number = n.number
		switch {
		case n.suspect:
			n.unsure = n.number
			p.stats.Skipped++
		case n.flight != nil:
			n.queued = f
			b.awaiting++
		default:
			b.awaiting++
			p.send(n, f)
		}
	}
	p.forwarded()
}

// frames makes a frame per node, in the order in which the batch comes upon them.
func (p *Partition) frames(places, groupNodes [][]presence.Place) (frames []*frame) {
	b := p.batch
	placesOf := make(map[int64][]presence.Place, len(b.users))
	for i, u := range b.users {
		if i < len(places) {
			placesOf[u] = places[i]
		}
	}
	nodesOf := make(map[int64][]presence.Place, len(b.groups))
	for i, g := range b.groups {
		if i < len(groupNodes) {
			nodesOf[g] = groupNodes[i]
		}
	}
	by := map[string]*frame{}
	frameOf := func(place presence.Place) *frame {
		f := by[place.Incarnation]
		if f == nil {
			n := p.nodes.get(p.now, place)
			f = &frame{batch: b, Forward: peer.Forward{Incarnation: n.incarnation, Partition: p.c.Partition, RouterEpoch: p.c.RouterEpoch}}
			by[n.incarnation] = f
			frames = append(frames, f)
		}
		return f
	}
	for _, m := range b.messages {
		for _, place := range m.nodesOf(nodesOf) {
			frameOf(place).entry(m)
		}
		for i, u := range m.users {
			for _, place := range placesOf[u] {
				frameOf(place).add(m, i, peer.Recipient{User: u, Connection: place.Connection})
			}
		}
	}
	for _, r := range b.rejected {
		for _, place := range placesOf[r.sender] {
			frameOf(place).reject(r, peer.Recipient{User: r.sender, Connection: place.Connection})
		}
	}
	return frames
}

func (f *frame) add(m *message, user int, to peer.Recipient) {
	last := f.entry(m)
	f.parts[last].users = append(f.parts[last].users, user)
	f.Messages[last].Recipients = append(f.Messages[last].Recipients, to)
}

func (f *frame) reject(r rejected, to peer.Recipient) {
	last := len(f.Rejections) - 1
	if last < 0 || f.Rejections[last].Seq != r.seq {
		f.Rejections = append(f.Rejections, peer.Rejection{Seq: r.seq, Rejected: r.answer})
		last++
	}
	f.Rejections[last].Recipients = append(f.Rejections[last].Recipients, to)
}

func (p *Partition) send(n *node, f *frame) {
	n.flight = f
	p.emit(Send{Addr: n.addr, Forward: f.Forward})
}

// forwarded goes on once nothing is awaited any more.
func (p *Partition) forwarded() {
	if p.phase == forwarding && p.batch.awaiting == 0 {
		p.pushUnreached()
	}
}

// abandon drops what waits to be sent. The numbers stay given, so the nodes notice.
func (p *Partition) abandon() {
	for _, n := range p.nodes.list {
		if q := n.queued; q != nil {
			n.queued, n.unsure = nil, q.Number
		}
	}
	p.batch, p.retryAt = nil, time.Time{}
}

// giveUp ends the wait for nodes: those that have not answered are suspect, and their recipients not reached.
func (p *Partition) giveUp() {
	for _, n := range p.nodes.list {
		if q := n.queued; q != nil { // behind something older that is not answered
			n.queued, n.unsure = nil, q.Number
			p.stats.Skipped++
			p.suspect(n)
		} else if f := n.flight; f != nil && f.batch == p.batch {
			p.stats.Skipped++
			p.suspect(n)
		}
	}
	p.batch.awaiting = 0
	p.forwarded()
}

func (p *Partition) suspect(n *node) {
	if !n.suspect {
		p.stats.Suspected++
		p.nodes.setSuspect(n, true)
		n.knockAt, n.named = p.now.Add(p.backoff(0)), p.now
	}
}

// knock sends empty frames to suspect nodes: one that answers is up to date, and has noticed at once what it missed. They
// have numbers of their own: under the number of a frame that was lost, a knock would hide the loss.
func (p *Partition) knock() {
	if p.nodes.suspects == 0 || p.phase == leaving || p.phase == ended {
		return
	}
	for _, n := range p.nodes.list {
		if n.knocks(p.now, p.c.KnockFor) && !p.now.Before(n.knockAt) {
			p.sendEmpty(n)
		}
	}
}

// leaveOut leaves a number out for every node, so that all their sessions compare their heads.
func (p *Partition) leaveOut() {
	for _, n := range p.nodes.list {
		n.number++
		n.unsure = n.number
		if n.flight == nil && !n.suspect {
			p.sendEmpty(n)
		}
	}
}

// greet leaves the first number out for those that were there before, and says so at once: while all compare for one reason they do
// it once, not at each partition's first message. Of more than can be remembered, who is named later has a number left out, too.
func (p *Partition) greet() {
	for _, place := range p.c.Before[:min(len(p.c.Before), p.c.Nodes)] {
		n := p.nodes.get(p.now, place)
		n.number++
		n.unsure = n.number
		p.sendEmpty(n)
	}
	if len(p.c.Before) > p.c.Nodes {
		p.nodes.forgotten = max(p.nodes.forgotten, 1)
	}
	p.c.Before = nil
}

func (p *Partition) sendEmpty(n *node) {
	n.number++
	p.send(n, &frame{Forward: peer.Forward{
		Incarnation: n.incarnation, Partition: p.c.Partition, RouterEpoch: p.c.RouterEpoch, Number: n.number,
	}})
}

// ---- answers

func (p *Partition) answered(e Answered) {
	n := p.nodes.by[e.Incarnation]
	if n == nil || n.flight == nil || n.flight.Number != e.Number {
		return // of a node that was dropped
	}
	f := n.flight
	switch {
	case e.Err != nil:
		p.unanswered(n, f, e.Err)
	case e.Answer.Status == peer.StatusStale:
		p.lose(LostStale)
		return
	case e.Answer.Status == peer.StatusDelivered:
		p.delivered(n, f, e.Answer.Missed)
	default: // wrong incarnation: that life is over, and never comes back; its sessions resync
		p.nodes.drop(n)
		p.settle(n, f)
		p.dequeue(n)
	}
	p.forwarded()
}

// settle takes a frame from the air, and counts it as answered if its batch still waits. It must come once per sent frame.
func (p *Partition) settle(n *node, f *frame) (waited bool) {
	n.flight = nil
	waited = p.phase == forwarding && f.batch == p.batch
	if waited {
		p.batch.awaiting--
	}
	return waited
}

// dequeue gives up what waits behind a frame that was not answered.
func (p *Partition) dequeue(n *node) {
	if q := n.queued; q != nil {
		n.queued, n.unsure = nil, q.Number
		p.stats.Skipped++
		p.batch.awaiting--
	}
}

func (p *Partition) unanswered(n *node, f *frame, err error) {
	// A link that was idle may have broken unnoticed: one more try over a new one. It has the same number and content, so if
	// the first did arrive the node takes this one for a repeat.
	if errors.Is(err, peer.ErrLost) && !f.again && f.batch == p.batch && p.phase == forwarding {
		f.again = true
		p.send(n, f)
		return
	}
	if p.settle(n, f) {
		p.stats.Skipped++
	}
	if f.batch != nil {
		n.unsure = max(n.unsure, f.Number)
	}
	p.dequeue(n)
	if !n.suspect {
		p.suspect(n)
		return
	}
	n.fails++ // and n.named stays: only Locate keeps a node that never answers worth knocking at
	n.knockAt = p.now.Add(p.backoff(n.fails))
}

func (p *Partition) delivered(n *node, f *frame, missed []peer.Missed) {
	if p.settle(n, f) {
		f.markReached(missed)
	}
	p.nodes.setSuspect(n, false)
	switch {
	case n.queued != nil:
		q := n.queued
		n.queued = nil
		p.send(n, q)
	case n.unsure > f.Number:
		p.sendEmpty(n) // it answered something older than what was left out
	}
}

func (f *frame) markReached(missed []peer.Missed) {
	type connection struct {
		seq uint64
		to  peer.Recipient
	}
	var without map[connection]bool
	if len(missed) > 0 {
		without = make(map[connection]bool, len(missed))
		for _, m := range missed {
			without[connection{m.Seq, m.Recipient}] = true
		}
	}
	for i, pt := range f.parts {
		for j, user := range pt.users {
			if !without[connection{f.Messages[i].Seq, f.Messages[i].Recipients[j]}] {
				pt.m.reached[user] = true
			}
		}
	}
}
