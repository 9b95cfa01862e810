package groups

import (
	"maps"
	"slices"
	"time"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/presence"
)

// ---- groups are found out

func (x *Index[C]) groupsLoaded(e GroupsLoaded) {
	u := x.users[e.User]
	switch {
	case u == nil || u.loading != e.ID: // of a life of the user here that has ended
		return
	case e.Err != nil:
		x.retries = append(x.retries, retry[C]{at: x.now.Add(x.o.RetryAfter), user: u})
		return
	}
	first := !u.loaded
	u.loading, u.loaded = 0, true
	for _, id := range e.Groups {
		if first {
			x.join(u, id)
		} else {
			x.joined(id, u.id)
		}
	}
	for _, id := range u.more {
		x.joined(id, u.id)
	}
	u.more = nil
	x.settle(u)
	if u.again {
		u.again = false
		x.loadGroups(u)
	}
}

// join makes a user a member of a group here: the node is registered first, then his span is read.
func (x *Index[C]) join(u *user[C], id int64) {
	g := x.groups[id]
	if g == nil {
		g = &group[C]{id: id, members: map[int64]*member[C]{}}
		x.groups[id] = g
		x.emit(RegisterGroup{id})
	}
	g.emptyAt = time.Time{}
	m := g.members[u.id]
	if m == nil {
		m = &member[C]{user: u}
		g.members[u.id] = m
		g.order = append(g.order, m)
		u.groups = append(u.groups, g)
	} else if !m.settled {
		m.asked = 0 // a read under way may have been too early
		return
	}
	m.settled, m.asked = false, 0
	u.unsettled++
	x.load(g)
}

// load reads the spans of a group's members here: of all if what is known is too old, else of those who are not settled.
func (x *Index[C]) load(g *group[C]) {
	if !g.registered || g.loading != 0 || !g.retryAt.IsZero() {
		return
	}
	all := g.outdated()
	var users []int64
	for _, m := range g.order {
		if !m.gone && (all || !m.settled) {
			users = append(users, m.user.id)
			m.asked = x.lastID + 1
		}
	}
	if len(users) == 0 {
		return
	}
	g.loading = x.ask(load[C]{group: g, users: users, all: len(users) == len(g.members), version: g.version}, g.id)
}

func (x *Index[C]) ask(l load[C], id int64) uint64 {
	x.lastID++
	x.stats.Reads++
	l.life = x.life
	x.loads[x.lastID] = l
	x.emit(LoadMembers{ID: x.lastID, Group: id, Users: l.users})
	return x.lastID
}

// outdated: messages wait for a version that is not known here yet.
func (g *group[C]) outdated() bool {
	return g.version < g.wants || g.lossy || len(g.held) > 0 && g.version < g.held[0].Version
}

func (x *Index[C]) registered(e Registered) {
	if e.Group == presence.AllNodes {
		x.doubt(0)
		for _, c := range x.inOrder() { // until now what was for all nodes was not for this one
			x.compare(c)
		}
		return
	}
	g := x.groups[e.Group]
	if g == nil {
		return
	}
	switch {
	case !g.registered && e.Lost: // of its life before it was given up: the answer to RegisterGroup is still to come
	case !g.registered:
		g.registered = true
		x.load(g)
	case e.Lost:
		for _, m := range g.order {
			x.compareUser(m)
		}
	}
}

func (x *Index[C]) membersLoaded(e MembersLoaded) {
	l, ok := x.loads[e.ID]
	if !ok {
		return
	}
	delete(x.loads, e.ID)
	if l.probe != 0 {
		x.probed(l.probe, e)
		return
	}
	g := l.group
	g.loading = 0
	if g.dropped {
		return
	}
	// A notice that was applied meanwhile may have ended a span that this read still has open: who is not settled is read anew.
	overtaken := e.Err == nil && e.Version < g.version
	if e.Err == nil && !overtaken {
		if l.all && l.life == x.life {
			g.version = e.Version
		}
		x.know(g, e.ID, e.Members)
		x.release(g)
	}
	behind := overtaken && e.Version < l.version || !overtaken && l.all && l.life == x.life && g.outdated()
	if e.Err != nil || behind { // it was read from a copy that is behind
		g.retryAt = x.now.Add(x.o.RetryAfter)
		x.retries = append(x.retries, retry[C]{at: g.retryAt, group: g})
		return
	}
	x.load(g) // of who came meanwhile
}

// know takes spans as they were read. Who was asked for and is not found never was a member.
func (x *Index[C]) know(g *group[C], asked uint64, found []chat.Membership) {
	g.stale = true
	for _, f := range found {
		m := g.members[f.User]
		if m != nil && (f.Joined > m.span.Joined || f.Joined == m.span.Joined && m.span.Left == 0) {
			m.span = f.Span
		}
	}
	for _, m := range g.order {
		if m.asked == asked && !m.settled && !m.gone {
			m.settled = true
			m.user.unsettled--
			x.settle(m.user)
		}
	}
}

// again does what had failed.
func (x *Index[C]) again(r retry[C]) {
	switch {
	case r.user != nil && !r.user.gone:
		x.loadGroups(r.user)
	case r.group != nil && !r.group.dropped:
		r.group.retryAt = time.Time{}
		x.load(r.group)
	case r.probe != 0:
		x.probe(r.probe)
	}
}

// probe finds out who of all people here is a member of a group.
func (x *Index[C]) probe(id int64) {
	if users := slices.Sorted(maps.Keys(x.users)); len(users) > 0 {
		x.ask(load[C]{probe: id, users: users}, id)
	}
}

func (x *Index[C]) probed(id int64, e MembersLoaded) {
	if e.Err != nil {
		x.retries = append(x.retries, retry[C]{at: x.now.Add(x.o.RetryAfter), probe: id})
		return
	}
	for _, f := range e.Members {
		if f.Open() {
			x.joined(id, f.User)
		}
	}
}

// joined: somebody here has become a member while online. He compares once all is there: what the group was sent meanwhile found no
// node, or found him no member.
func (x *Index[C]) joined(id, userID int64) {
	u := x.users[userID]
	switch {
	case u == nil:
		return
	case !u.loaded:
		u.more = append(u.more, id)
		return
	}
	if g := x.groups[id]; g != nil {
		if m := g.members[userID]; m != nil && m.settled && m.span.Open() {
			return
		}
	}
	for _, c := range u.connections {
		c.behind = true
	}
	x.join(u, id)
}
