package groups

import (
	"slices"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// message delivers a router's message, or has it wait.
func (x *Index[C]) message(e Message[C]) {
	g := x.groups[e.Group]
	switch {
	case g == nil, len(g.members) == 0:
		x.deliver(e.Frame, e.To)
		x.learn(e)
	case g.lossy:
		// Whoever is a member compares; who is addressed as a person is not known to be one.
		x.stats.Dropped++
		x.deliver(e.Frame, e.To)
		x.learn(e)
	case len(g.held) > 0 || !x.current(g, e):
		x.hold(g, e)
	default:
		x.handOut(g, e)
	}
}

// current reports whether what is known suffices to tell whom a message is for. A notice of the very next change brings what is
// missing along.
func (x *Index[C]) current(g *group[C], e Message[C]) bool {
	if n := e.Notice; n != nil && n.GetVersion() == g.version+1 && int(n.GetCount()) == len(n.GetSubjects()) {
		x.apply(g, n)
	}
	return g.version >= e.Version && g.version >= g.wants
}

// apply makes the change that a notice tells of.
func (x *Index[C]) apply(g *group[C], n *pb.GroupNotice) {
	g.version = n.GetVersion()
	if n.GetChange() != pb.GroupNotice_CHANGE_LEFT && n.GetChange() != pb.GroupNotice_CHANGE_REMOVED {
		return // who joins is settled by a read of his own
	}
	for _, s := range n.GetSubjects() {
		id, _ := wire.ParseID(s.GetId())
		if m := g.members[id]; m != nil && m.span.Open() && m.span.Joined < g.version {
			m.span.Left = g.version
			g.stale = true
		}
	}
}

// handOut delivers a message to whom it is for.
func (x *Index[C]) handOut(g *group[C], e Message[C]) {
	x.stats.Messages++
	g.refresh()
	to := g.to
	if e.Version < g.newest {
		to = x.asOf(g, e.Version)
	}
	x.deliver(e.Frame, to)
	x.deliver(e.Frame, slices.DeleteFunc(slices.Clone(e.To), func(c C) bool {
		// Who is a member has it by now, or is told to compare.
		known := x.connections[c]
		return known != nil && g.members[known.user.id] != nil && g.members[known.user.id].span.Open()
	}))
	x.learn(e)
}

// asOf gives the connections of those who were members at a version, and are. Who seems to have joined later compares: the router may
// not have known the version.
func (x *Index[C]) asOf(g *group[C], version uint64) (to []C) {
	for _, m := range g.order {
		switch {
		case m.gone || !m.span.Open():
		case m.span.Has(version):
			for _, c := range m.user.connections {
				to = append(to, c.id)
			}
		default:
			x.compareUser(m)
		}
	}
	return to
}

// refresh works out again to whom a group's messages go.
func (g *group[C]) refresh() {
	if !g.stale {
		return
	}
	g.stale, g.newest, g.to = false, 0, make([]C, 0, len(g.order)) // effects may have the old one
	g.compact()
	for _, m := range g.order {
		if !m.span.Open() {
			continue
		}
		g.newest = max(g.newest, m.span.Joined)
		for _, c := range m.user.connections {
			g.to = append(g.to, c.id)
		}
	}
}

// compact drops who is gone.
func (g *group[C]) compact() {
	g.order, g.gone = slices.DeleteFunc(g.order, func(m *member[C]) bool { return m.gone }), 0
}

func (x *Index[C]) deliver(frame []byte, to []C) {
	if len(to) > 0 {
		x.emit(Deliver[C]{Frame: frame, To: to})
	}
}

// learn takes what a message tells of people here that have become members.
func (x *Index[C]) learn(e Message[C]) {
	n := e.Notice
	switch {
	case n == nil || n.GetChange() != pb.GroupNotice_CHANGE_CREATED && n.GetChange() != pb.GroupNotice_CHANGE_JOINED:
	case int(n.GetCount()) > len(n.GetSubjects()):
		x.probe(e.Group)
	default:
		for _, s := range n.GetSubjects() {
			if id, err := wire.ParseID(s.GetId()); err == nil {
				x.joined(e.Group, id)
			}
		}
	}
}

// ---- messages that wait

func (x *Index[C]) hold(g *group[C], e Message[C]) {
	size := len(e.Frame)
	if len(g.held) >= x.o.HeldMessages || x.heldBytes+size > x.o.HeldBytes {
		x.lose(g)
		x.stats.Dropped++
		x.deliver(e.Frame, e.To)
		x.learn(e)
		return
	}
	g.held = append(g.held, e)
	g.heldBytes += size
	x.heldBytes += size
	x.load(g)
}

// lose gives up what waits: all members here compare once it is known who they are.
func (x *Index[C]) lose(g *group[C]) {
	x.stats.Dropped += len(g.held)
	for _, e := range g.held {
		x.deliver(e.Frame, e.To)
		x.learn(e)
	}
	x.unhold(g)
	g.lossy = true
	x.load(g)
}

func (x *Index[C]) unhold(g *group[C]) {
	x.heldBytes -= g.heldBytes
	g.held, g.heldBytes = nil, 0
}

// release hands out what waited, as far as what is known by now goes.
func (x *Index[C]) release(g *group[C]) {
	if g.lossy && g.version >= g.wants {
		g.lossy = false
		for _, m := range g.order {
			if m.span.Open() {
				x.compareUser(m)
			}
		}
	}
	for len(g.held) > 0 && x.current(g, g.held[0]) {
		e := g.held[0]
		g.held[0] = Message[C]{}
		g.held = g.held[1:]
		g.heldBytes -= len(e.Frame)
		x.heldBytes -= len(e.Frame)
		x.stats.Held++
		x.handOut(g, e)
	}
	if len(g.held) == 0 {
		g.held = nil
	}
}
