package groups_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/groups"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/presence"
)

// record is one of a group's log: a notice, or a message. version is the group's as of it.
type record struct {
	group   int64
	version uint64
	notice  *pb.GroupNotice // names the subjects, or is wide
	joins   []int64
	leaves  []int64
}

// conn is a connection and what its client knows.
type conn struct {
	id     uint64
	user   int64
	ended  bool
	lost   bool // presence does not have it
	ready  bool
	shown  map[int]bool // by index into the log
	last   map[int64]int
	synced int // all that was routed before was read
}

// world is a node's Index with a database, presence and a router whose doings come late, out of turn or, where it may be, not at all.
type world struct {
	t     *rapid.T
	rng   *rand.Rand
	store *chat.Memory
	x     *groups.Index[uint64]
	now   time.Time

	log     []record
	routed  int
	version map[int64]uint64 // by the log as routed
	closed  map[int64]uint64 // version of the last end of a membership
	conns   []*conn
	byID    map[uint64]*conn
	users   []int64
	groups  []chat.Group
	there   map[int64]bool // the node is registered for it
	queue   []groups.Event // to the index, in order
	later   []func()       // reads under way
	keeper  []func()       // writes of presence, in order
	failing bool
	healed  bool
	// weights of what may happen: other ones in each world, or what is to come in one order, quickly, hardly ever does.
	weights [22]int
}

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)), store: chat.NewMemory(chat.MemoryOptions{}), now: time.Unix(1e9, 0), version: map[int64]uint64{}, closed: map[int64]uint64{},
		byID: map[uint64]*conn{}, there: map[int64]bool{},
	}
	w.x = groups.New[uint64](groups.Options{HeldMessages: 3, CompareBatch: 2})
	for i := range w.weights {
		w.weights[i] = pick(w, []int{0, 1, 1, 1, 3, 9})
	}
	for i := range 4 {
		a, err := w.store.CreateAccount(context.Background(), chat.Account{Name: fmt.Sprint(i)})
		w.must(err)
		w.users = append(w.users, a.ID)
	}
	return w
}

// between draws evenly, which rapid does not.
func (w *world) between(least, most int) int { return least + w.rng.IntN(most-least+1) }

func pick[T any](w *world, from []T) T { return from[w.rng.IntN(len(from))] }

// from is the lowest version that a right may have been checked against: that of the last end of a membership, for which each node
// was waited for, but one that was cut off may have written late.
func (w *world) from(group int64) uint64 {
	if w.between(0, 9) == 0 {
		return 1
	}
	return max(w.closed[group], 1)
}

func (w *world) must(err error) {
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) post(e groups.Event) { w.queue = append(w.queue, e) }

// next gives the index what waits for it.
func (w *world) next() {
	var e groups.Event = groups.Tick{}
	if len(w.queue) > 0 {
		e = w.queue[0]
		w.queue = w.queue[1:]
	}
	for _, effect := range w.x.Step(w.now, e) {
		w.carryOut(effect)
	}
}

func (w *world) carryOut(effect groups.Effect) {
	ctx := context.Background()
	switch e := effect.(type) {
	case groups.LoadGroups:
		w.later = append(w.later, func() {
			of, err := w.store.GroupsOf(ctx, e.User)
			w.answer(func() {
				w.post(groups.GroupsLoaded{ID: e.ID, User: e.User, Groups: of, Err: errors.Join(err, w.fault())})
			})
		})
	case groups.LoadMembers:
		w.later = append(w.later, func() {
			version, members, err := w.store.Memberships(ctx, e.Group, e.Users)
			w.answer(func() {
				w.post(groups.MembersLoaded{ID: e.ID, Version: version, Members: members, Err: errors.Join(err, w.fault())})
			})
		})
	case groups.RegisterGroup:
		w.keeper = append(w.keeper, func() {
			w.there[e.Group] = true
			w.post(groups.Registered{Group: e.Group})
		})
	case groups.UnregisterGroup:
		w.keeper = append(w.keeper, func() { delete(w.there, e.Group) })
	case groups.Ready[uint64]:
		c := w.byID[e.Connection]
		if c.ready {
			w.t.Fatalf("connection %d is ready twice", c.id)
		}
		c.ready = true
		w.sync(c)
	case groups.Compare[uint64]:
		for _, id := range e.To {
			if c := w.byID[id]; !c.ready {
				w.t.Fatalf("connection %d compares before it is ready", id)
			} else {
				w.sync(c)
			}
		}
	case groups.Deliver[uint64]:
		w.delivered(e)
	}
}

// sync has a client read its heads, and all that they promise.
func (w *world) sync(c *conn) {
	c.synced = w.routed
	w.post(groups.Synced{User: c.user})
}

var errAway = errors.New("away")

func (w *world) fault() error {
	if w.failing {
		return errAway
	}
	return nil
}

// answer gives an answer now or some time later than what was read.
func (w *world) answer(give func()) {
	if !w.healed && w.rng.IntN(2) == 0 {
		w.later = append(w.later, give)
		return
	}
	give()
}

// delivered holds that a message reaches nobody who was no member where it stands, in order.
func (w *world) delivered(e groups.Deliver[uint64]) {
	var at int
	if _, err := fmt.Sscan(string(e.Frame), &at); err != nil {
		w.t.Fatal(err)
	}
	r := w.log[at]
	for _, id := range e.To {
		c := w.byID[id]
		if c.ended || !c.ready {
			continue // the session drops it
		}
		if !w.mayHave(c.user, at) && !slices.Contains(r.leaves, c.user) {
			w.t.Fatalf("message %d of group %d reached user %d, who is no member there", at, r.group, c.user)
		}
		if last, ok := c.last[r.group]; ok && at <= last {
			w.t.Fatalf("connection %d got %d after %d", id, at, last)
		}
		c.last[r.group] = at
		c.shown[at] = true
	}
}

// mayHave tells whether a user is a member where a record stands, by the log alone.
func (w *world) mayHave(user int64, at int) (member bool) {
	for _, r := range w.log[:at+1] {
		if r.group == w.log[at].group {
			member = (member || slices.Contains(r.joins, user)) && !slices.Contains(r.leaves, user)
		}
	}
	return member
}

// ---- what happens

func (w *world) notice(g chat.Group, change pb.GroupNotice_Change, subjects []int64, wide bool) *pb.GroupNotice {
	n := &pb.GroupNotice{Change: change, Count: uint32(len(subjects)), Version: g.Version}
	if !wide {
		for _, u := range subjects {
			n.Subjects = append(n.Subjects, &pb.User{Id: wire.FormatID(u)})
		}
	}
	return n
}

func (w *world) create(members []int64, wide bool) {
	g, _, err := w.store.CreateGroup(context.Background(), chat.Group{Owner: members[0]}, members, func(chat.Group) (*pb.Message, error) { return &pb.Message{}, nil })
	w.must(err)
	w.groups = append(w.groups, g)
	w.log = append(w.log, record{group: g.ID, version: 1, joins: members, notice: w.notice(g, pb.GroupNotice_CHANGE_CREATED, members, wide)})
}

// toggle takes a user into a group, or out of it: then this node is fenced before the notice is in the log.
func (w *world) toggle(group, user int64, wide bool) {
	var r record
	g, _, err := w.store.ChangeGroup(context.Background(), group, []int64{user}, func(g chat.Group, spans []chat.Span) (chat.GroupChange, error) {
		g.Version++
		c := chat.GroupChange{Group: g, Notice: &pb.Message{}}
		if spans[0].Open() {
			c.Leave = []int64{user}
			r = record{leaves: c.Leave, notice: w.notice(g, pb.GroupNotice_CHANGE_REMOVED, c.Leave, false)}
		} else {
			c.Join = []int64{user}
			r = record{joins: c.Join, notice: w.notice(g, pb.GroupNotice_CHANGE_JOINED, c.Join, wide)}
		}
		return c, nil
	})
	w.must(err)
	r.group, r.version = group, g.Version
	if len(r.leaves) > 0 {
		w.post(groups.Fence{Group: group, Version: g.Version})
		w.closed[group] = g.Version
	}
	w.log = append(w.log, r)
}

// say has a member write: his right was checked against a version that may be older, but of no less than the last end of a membership.
func (w *world) say(group int64) {
	g, err := w.store.Group(context.Background(), group)
	w.must(err)
	from := w.from(group)
	w.log = append(w.log, record{group: group, version: from + w.rng.Uint64N(g.Version-from+1)})
}

// route brings the next record to the node, if the router finds it there.
func (w *world) route() {
	if w.routed == len(w.log) {
		return
	}
	at := w.routed
	r := w.log[at]
	w.routed++
	v := max(r.version, w.version[r.group])
	if r.notice != nil {
		w.version[r.group] = v
	} else if w.between(0, 3) == 0 {
		v = r.version
	}
	m := groups.Message[uint64]{Group: r.group, Version: v, Frame: fmt.Append(nil, at), Notice: r.notice}
	wide := r.notice != nil && len(r.notice.GetSubjects()) == 0
	if !wide {
		for _, c := range w.conns {
			if !c.ended && !c.lost && (slices.Contains(r.joins, c.user) || slices.Contains(r.leaves, c.user)) {
				m.To = append(m.To, c.id)
			}
		}
	}
	if !w.healed && w.between(0, 19) == 0 { // the number left out tells, before what comes next
		w.post(groups.Doubted{})
		for _, c := range w.conns {
			if c.ready && !c.ended {
				w.sync(c)
			}
		}
		return
	}
	if w.there[r.group] || len(m.To) > 0 || wide && w.there[presence.AllNodes] {
		w.post(m)
	}
}

func (w *world) enter(user int64) {
	c := &conn{id: uint64(len(w.conns) + 1), user: user, shown: map[int]bool{}, last: map[int64]int{}}
	w.conns = append(w.conns, c)
	w.byID[c.id] = c
	w.post(groups.Entered[uint64]{Connection: c.id, User: user})
}

// quiet lets everything that is under way come to its end.
func (w *world) quiet() {
	w.failing, w.healed = false, true
	for range 5000 {
		switch {
		case len(w.keeper) > 0:
			w.keeper[0]()
			w.keeper = w.keeper[1:]
		case len(w.later) > 0:
			f := w.later[0]
			w.later = w.later[1:]
			f()
		case len(w.queue) > 0:
			w.next()
		case w.routed < len(w.log):
			w.route()
		default:
			at, ok := w.x.Next()
			if !ok || at.Sub(w.now) > 30*time.Second {
				return
			}
			if at.After(w.now) {
				w.now = at
			}
			w.next()
		}
	}
	w.t.Fatal("the index does not come to rest")
}

// whole holds that everybody has all of his groups: shown, or read when he was ready or compared.
func (w *world) whole() {
	for _, c := range w.conns {
		if c.ended {
			continue
		}
		if !c.ready {
			w.t.Fatalf("connection %d never gets ready", c.id)
		}
		for at := range w.log {
			if w.mayHave(c.user, at) && !c.shown[at] && at >= c.synced && !w.toldOfItsEnd(c, at) {
				w.t.Fatalf("connection %d of user %d lacks message %d of group %d, and was told at %d", c.id, c.user, at, w.log[at].group, c.synced)
			}
		}
	}
}

// toldOfItsEnd: the node knew that the user has left before a message came that stands before that. He gets the notice as a person,
// sees by its prev_seq that something is missing, and reads it.
func (w *world) toldOfItsEnd(c *conn, at int) bool {
	for i, r := range w.log {
		if i > at && r.group == w.log[at].group && slices.Contains(r.leaves, c.user) && (c.shown[i] || i < c.synced) {
			return true
		}
	}
	return false
}

func TestIndex_AnyOrder_NobodyLacksAndNobodyElseGets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.next()
		for range rapid.IntRange(30, 400).Draw(t, "steps") {
			w.something()
		}
		w.quiet()
		w.whole()
		// And when all is there, what is said is delivered at once.
		for _, g := range w.groups {
			w.say(g.ID)
		}
		w.quiet()
		w.whole()
		for _, c := range w.conns {
			for i := range w.groups {
				at := len(w.log) - len(w.groups) + i
				if !c.ended && w.mayHave(c.user, at) && !c.shown[at] && c.synced <= at {
					t.Fatalf("connection %d was not shown %d", c.id, at)
				}
			}
		}
	})
}

// weighted draws what happens next.
func (w *world) weighted() int {
	all := 1
	for _, n := range w.weights {
		all += n
	}
	at := w.rng.IntN(all)
	for i, n := range w.weights {
		if at -= n; at < 0 {
			return i
		}
	}
	return 11 // the index goes on
}

func (w *world) something() {
	user := func() int64 { return pick(w, w.users) }
	group := func() int64 {
		if len(w.groups) == 0 {
			w.create(w.users[:2], false)
		}
		return pick(w, w.groups).ID
	}
	switch w.weighted() {
	case 0:
		if len(w.groups) < 3 {
			n := w.between(1, 4)
			w.create(w.users[:n], w.rng.IntN(2) == 0)
		}
	case 1, 2:
		w.enter(user())
	case 3:
		if len(w.conns) > 0 {
			if c := pick(w, w.conns); !c.ended {
				c.ended = true
				w.post(groups.Ended[uint64]{Connection: c.id})
			}
		}
	case 4, 5:
		w.toggle(group(), user(), w.rng.IntN(2) == 0)
	case 6, 7:
		w.say(group())
	case 8, 9, 10:
		w.route()
	case 11, 12, 13:
		w.next()
	case 14, 15:
		if n := len(w.later); n > 0 {
			i := w.rng.IntN(n)
			f := w.later[i]
			w.later = slices.Delete(w.later, i, i+1)
			f()
		}
	case 16:
		if len(w.keeper) > 0 {
			w.keeper[0]()
			w.keeper = w.keeper[1:]
		}
	case 17:
		w.failing = w.between(0, 3) == 0
	case 18:
		w.now = w.now.Add(time.Duration(pick(w, []int{10, 500, 1000, 20_000, 61_000})) * time.Millisecond)
		w.next()
	case 21: // reads are slow: all else is done before them
		for w.routed < len(w.log) || len(w.queue) > 0 {
			w.route()
			w.next()
		}
	case 20: // presence lost a connection for a while
		if len(w.conns) > 0 {
			if c := pick(w, w.conns); c.ready && !c.lost {
				c.lost = true
				w.keeper = append(w.keeper, func() {
					c.lost = false
					if !c.ended {
						w.post(groups.Doubted{User: c.user})
						w.sync(c)
					}
				})
			}
		}
	case 19: // presence lost it for a while
		g := group()
		if w.there[g] {
			delete(w.there, g)
			w.keeper = append(w.keeper, func() {
				w.there[g] = true
				w.post(groups.Registered{Group: g, Lost: true})
			})
		}
	}
}
