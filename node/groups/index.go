package groups

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/presence"
)

// Options configure an Index. All have defaults.
type Options struct {
	// ReadyWithin is how long a session waits for its groups before it goes on without, and compares later. Default 1 s.
	ReadyWithin time.Duration
	// RetryAfter is the pause after a read that failed. Default 500 ms.
	RetryAfter time.Duration
	// SweepAfter is how long a group without members stays registered, so that who comes back soon costs nothing. Default 60 s.
	SweepAfter time.Duration
	// HeldMessages bounds the messages of one group that wait, HeldBytes those of all. Defaults 512, 16 MiB.
	HeldMessages, HeldBytes int
	// TrustFor is how long a user's groups are not read again while he compares heads, if there is no doubt. Default 60 s.
	TrustFor time.Duration
	// CompareBatch connections are told to compare every CompareEvery, so that not all read at once. Default 200 every 100 ms.
	CompareBatch int
	CompareEvery time.Duration
}

func (o Options) withDefaults() Options {
	o.ReadyWithin = cmp.Or(o.ReadyWithin, time.Second)
	o.RetryAfter = cmp.Or(o.RetryAfter, 500*time.Millisecond)
	o.SweepAfter = cmp.Or(o.SweepAfter, time.Minute)
	o.HeldMessages = cmp.Or(o.HeldMessages, 512)
	o.HeldBytes = cmp.Or(o.HeldBytes, 16<<20)
	o.TrustFor = cmp.Or(o.TrustFor, time.Minute)
	o.CompareBatch = cmp.Or(o.CompareBatch, 200)
	o.CompareEvery = cmp.Or(o.CompareEvery, 100*time.Millisecond)
	return o
}

// Index is the state. Use New. Not for concurrent use.
type Index[C comparable] struct {
	o Options

	connections map[C]*connection[C]
	users       map[int64]*user[C]
	groups      map[int64]*group[C]
	loads       map[uint64]load[C]
	lastID      uint64
	life        int // counts leases
	heldBytes   int
	begun       bool

	// In the order of their times.
	waiting  []*connection[C] // not ready
	retries  []retry[C]
	empty    []*group[C] // perhaps without members
	compares []*connection[C]
	compared time.Time // when some were told last

	stats   Stats
	now     time.Time // of the current Step
	effects []Effect
}

// Stats is what an Index counted since it was last asked.
type Stats struct {
	Messages int // of groups, handed out
	Held     int // of those, after a wait for a read of the group's members
	Dropped  int // not handed out, for too many waited: the members compare heads
	Reads    int // of a group's members
}

// TakeStats gives what was counted since the last call.
func (x *Index[C]) TakeStats() Stats {
	s := x.stats
	x.stats = Stats{}
	return s
}

// connection is one of a user's.
type connection[C comparable] struct {
	id        C
	user      *user[C]
	entered   time.Time
	ready     bool
	behind    bool // it went on before its groups were there, and compares once they are
	comparing bool // in compares
	ended     bool
}

// user is a person with connections here.
type user[C comparable] struct {
	id          int64
	connections []*connection[C] // never none
	loaded      bool             // its groups are known
	loading     uint64           // the read of them under way, 0: none
	asked       time.Time        // when they were last
	doubted     bool
	again       bool    // once they were read
	more        []int64 // joined while they were being read
	groups      []*group[C]
	unsettled   int // of groups, those not known to be registered with this user's span read
	gone        bool
}

// group is one that has, or had of late, members here.
type group[C comparable] struct {
	id         int64
	registered bool
	// version: every span here is at least as of that.
	version uint64
	// wants is a version below which spans are not to be used.
	wants uint64
	// loading is a read under way, 0: none.
	loading uint64
	retryAt time.Time
	members map[int64]*member[C]
	order   []*member[C] // as they came, with those gone until there are too many
	gone    int          // of order

	// to are the connections of members that have not left, newest the highest version that one of them joined at. Not valid if stale.
	to     []C
	newest uint64
	stale  bool

	held      []Message[C]
	heldBytes int
	lossy     bool // some were dropped: all are to compare once it can be told who they are

	emptyAt time.Time // zero: has members
	dropped bool
}

// member is a user in a group: known to be one once settled.
type member[C comparable] struct {
	user    *user[C]
	span    chat.Span
	settled bool
	asked   uint64 // the read under way that settles him
	gone    bool
}

// load is a read of spans under way.
type load[C comparable] struct {
	group *group[C]
	users []int64
	all   bool // users are all its members here
	life  int  // as it began
	// version is the group's, as known when it began.
	version uint64
	probe   int64 // not for a group that is known: who of the users is in it?
}

// retry is something to be done again.
type retry[C comparable] struct {
	at    time.Time
	user  *user[C]
	group *group[C]
	probe int64
}

// New makes an empty Index.
func New[C comparable](o Options) *Index[C] {
	return &Index[C]{
		o: o.withDefaults(), connections: map[C]*connection[C]{}, users: map[int64]*user[C]{}, groups: map[int64]*group[C]{},
		loads: map[uint64]load[C]{},
	}
}

// Step takes what happened and returns what must be done. Time never goes back.
func (x *Index[C]) Step(now time.Time, e Event) []Effect {
	x.now, x.effects = now, nil
	if !x.begun {
		x.begun = true
		x.emit(RegisterGroup{presence.AllNodes})
	}
	switch e := e.(type) {
	case Entered[C]:
		x.entered(e)
	case Ended[C]:
		x.ended(e.Connection)
	case GroupsLoaded:
		x.groupsLoaded(e)
	case MembersLoaded:
		x.membersLoaded(e)
	case Registered:
		x.registered(e)
	case Message[C]:
		x.message(e)
	case Missed:
		x.stats.Dropped++
		if g := x.groups[e.Group]; g != nil {
			x.lose(g)
		}
		if e.Notice {
			x.probe(e.Group)
		}
	case Fence:
		if g := x.groups[e.Group]; g != nil {
			g.wants = max(g.wants, e.Version)
		}
	case Doubted:
		x.doubt(e.User)
	case Synced:
		x.synced(x.users[e.User])
	case Renewed:
		x.life++
		for _, g := range x.groups {
			g.version = 0 // to be read before the next message is delivered
		}
	case Tick:
	}
	x.timers()
	return x.effects
}

func (x *Index[C]) emit(e Effect) { x.effects = append(x.effects, e) }

// Next is when a Tick is due, if ever.
func (x *Index[C]) Next() (time.Time, bool) {
	var next time.Time
	due := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	if len(x.waiting) > 0 {
		due(x.waiting[0].entered.Add(x.o.ReadyWithin))
	}
	if len(x.retries) > 0 {
		due(x.retries[0].at)
	}
	if len(x.empty) > 0 {
		due(x.empty[0].emptyAt.Add(x.o.SweepAfter))
	}
	if len(x.compares) > 0 {
		due(x.compared.Add(x.o.CompareEvery))
	}
	return next, !next.IsZero()
}

func (x *Index[C]) timers() {
	for len(x.waiting) > 0 {
		c := x.waiting[0]
		if !c.ready && !c.ended {
			if x.now.Before(c.entered.Add(x.o.ReadyWithin)) {
				break
			}
			c.behind = true
			x.ready(c)
		}
		x.waiting = x.waiting[1:]
	}
	for len(x.retries) > 0 && !x.now.Before(x.retries[0].at) {
		r := x.retries[0]
		x.retries = x.retries[1:]
		x.again(r)
	}
	x.sweep()
	x.tellCompare()
}

// ---- people come and go

func (x *Index[C]) entered(e Entered[C]) {
	if x.connections[e.Connection] != nil {
		return // registered after it had been told degraded
	}
	u := x.users[e.User]
	if u == nil {
		u = &user[C]{id: e.User}
		x.users[e.User] = u
		x.loadGroups(u)
	}
	c := &connection[C]{id: e.Connection, user: u, entered: x.now, ready: e.Late, behind: e.Late}
	x.connections[c.id] = c
	u.connections = append(u.connections, c)
	for _, g := range u.groups {
		g.stale = true
	}
	if !c.ready {
		x.waiting = append(x.waiting, c)
	}
	x.settle(u)
}

func (x *Index[C]) loadGroups(u *user[C]) {
	x.lastID++
	u.loading, u.doubted, u.asked = x.lastID, false, x.now
	x.emit(LoadGroups{ID: u.loading, User: u.id})
}

// synced reads a user's groups again, if that is due.
func (x *Index[C]) synced(u *user[C]) {
	switch {
	case u == nil || !u.doubted && x.now.Before(u.asked.Add(x.o.TrustFor)):
	case u.loading != 0:
		u.again = true
	default:
		x.loadGroups(u)
	}
}

// doubt has groups read again when those whose they are compare heads, which they are told to.
func (x *Index[C]) doubt(id int64) {
	if id != 0 {
		if u := x.users[id]; u != nil {
			u.doubted = true
		}
		return
	}
	for _, u := range x.users { // nothing comes of the order
		u.doubted = true
	}
}

// settle lets a user's connections go on once all of his groups are there.
func (x *Index[C]) settle(u *user[C]) {
	if !u.loaded || u.unsettled > 0 {
		return
	}
	for _, c := range u.connections {
		switch {
		case !c.ready:
			x.ready(c)
		case c.behind:
			c.behind = false
			x.compare(c)
		}
	}
}

func (x *Index[C]) ready(c *connection[C]) {
	c.ready = true
	x.emit(Ready[C]{c.id})
}

func (x *Index[C]) ended(id C) {
	c := x.connections[id]
	if c == nil {
		return
	}
	c.ended = true
	delete(x.connections, id)
	u := c.user
	u.connections = slices.DeleteFunc(u.connections, func(o *connection[C]) bool { return o == c })
	for _, g := range u.groups {
		g.stale = true
	}
	if len(u.connections) > 0 {
		return
	}
	u.gone = true
	delete(x.users, u.id)
	for _, g := range u.groups {
		x.part(g, u)
	}
}

// part takes a user out of a group, as far as this node is concerned.
func (x *Index[C]) part(g *group[C], u *user[C]) {
	m := g.members[u.id]
	if m == nil || m.user != u {
		return
	}
	m.gone, g.stale = true, true
	delete(g.members, u.id)
	if g.gone++; g.gone > len(g.members) { // also where nobody writes, and people come and go
		g.compact()
	}
	if len(g.members) > 0 {
		return
	}
	x.lose(g)
	if len(g.members) == 0 { // else a notice that waited has told that somebody joined
		g.lossy, g.emptyAt = false, x.now
		x.empty = append(x.empty, g)
	}
}

// sweep gives up groups that have had no members for long.
func (x *Index[C]) sweep() {
	for len(x.empty) > 0 {
		g := x.empty[0]
		if !g.dropped && !g.emptyAt.IsZero() {
			if x.now.Before(g.emptyAt.Add(x.o.SweepAfter)) {
				return
			}
			g.dropped = true
			delete(x.groups, g.id)
			x.emit(UnregisterGroup{g.id})
		}
		x.empty = x.empty[1:]
	}
}

// ---- comparing

// inOrder gives all connections in the order of their users' ids.
func (x *Index[C]) inOrder() (all []*connection[C]) {
	for _, id := range slices.Sorted(maps.Keys(x.users)) {
		all = append(all, x.users[id].connections...)
	}
	return all
}

func (x *Index[C]) compareUser(m *member[C]) {
	if m.gone {
		return
	}
	for _, c := range m.user.connections {
		x.compare(c)
	}
}

func (x *Index[C]) compare(c *connection[C]) {
	if !c.comparing && c.ready {
		c.comparing = true
		x.compares = append(x.compares, c)
	}
}

func (x *Index[C]) tellCompare() {
	if len(x.compares) == 0 || x.now.Before(x.compared.Add(x.o.CompareEvery)) {
		return
	}
	var to []C
	for len(x.compares) > 0 && len(to) < x.o.CompareBatch {
		c := x.compares[0]
		x.compares = x.compares[1:]
		if c.comparing = false; !c.ended {
			to = append(to, c.id)
		}
	}
	if len(to) > 0 {
		x.compared = x.now
		x.emit(Compare[C]{to})
	}
}
