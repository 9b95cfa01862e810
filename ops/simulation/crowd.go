package simulation

import (
	"fmt"
	"slices"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

// crowd is a group and what people take to be its members. Nobody can ask a node yet to change one, so a program that opens the
// database does, and the outbox's sweepers bring the notices.
type crowd struct {
	id           int64
	conversation string
	owner        *person
}

// gather makes the groups, as if long ago.
func (w *world) gather() {
	r := w.stream("groups")
	service := chat.New(chat.Options{Store: w.db.memory, Topic: w.topic(), Now: w.time, Rand: entropy{r}, Argon: cheap})
	for i := range 1 + r.IntN(2) {
		people := slices.Clone(w.people)
		r.Shuffle(len(people), func(i, j int) { people[i], people[j] = people[j], people[i] })
		people = people[:min(len(people), 4+r.IntN(3))]
		g, out, err := service.CreateGroup(at, people[0].account(), fmt.Sprintf("group %d", i+1), accounts(people[1:]))
		if err == nil {
			err = w.db.memory.Sent(at, []int64{out.ID})
		}
		entry, err2 := chat.Record{Kind: chat.KindMessage, Message: out.Message}.Entry(w.o.Partitions)
		if err != nil || err2 != nil {
			w.violate("start", "group: %v, %v", err, err2)
			return
		}
		w.broker.write(entry)
		for _, f := range w.truth.talks[wire.Group(g.ID)] {
			for _, u := range f.members {
				f.pushed[u] = true // before there was a router
			}
		}
		c := &crowd{id: g.ID, conversation: wire.Group(g.ID), owner: people[0]}
		w.crowds = append(w.crowds, c)
		for _, p := range people {
			p.crowds = append(p.crowds, c)
		}
	}
}

func (p *person) account() chat.Account { return chat.Account{ID: p.id, Name: p.name} }

func accounts(people []*person) []chat.Account {
	list := make([]chat.Account, len(people))
	for i, p := range people {
		list[i] = p.account()
	}
	return list
}

// govern has members of groups taken out, leave, and come again, until a time.
func (w *world) govern(until time.Duration) {
	r := w.stream("members")
	p := w.start("operator")
	service := chat.New(chat.Options{Store: w.dbPort(p), Topic: w.topic(), Now: p.Now, Rand: entropy{r}, Argon: cheap})
	var change func()
	change = func() {
		c, who, what := w.crowds[r.IntN(len(w.crowds))], r.IntN(len(w.people)), r.IntN(4)
		next := time.Duration(r.Int64N(int64(3 * time.Second)))
		if w.now >= until {
			return
		}
		p.exec(func() {
			p.spawn(func() {
				ctx, cancel := p.WithTimeout(p.ctx, patience)
				defer cancel()
				member := w.people[who]
				var err error
				switch what {
				case 0:
					_, err = service.RemoveMember(ctx, c.owner.account(), c.id, member.account())
				case 1:
					_, err = service.RemoveMember(ctx, member.account(), c.id, member.account())
				default:
					_, err = service.AddMembers(ctx, c.owner.account(), c.id, []chat.Account{member.account()})
				}
				w.tracef("operator: %s, change %d of %s: %v", c.conversation, what, member.name, err)
			})
		})
		w.after(next, change)
	}
	w.after(warmUp, change)
}

// span is a membership by the database whose beginning the log does not have yet: from a version on, below another; 0: it lasts.
type span struct{ joined, left uint64 }

// membersChanged is a change of a group in the database.
func (t *truth) membersChanged(c chat.GroupChange) {
	conversation, version := wire.Group(c.Group.ID), c.Group.Version
	for _, u := range c.Join {
		t.w.count("members added")
		key := readKey{u, conversation}
		t.joining[key], t.openedAt[key] = append(t.joining[key], span{joined: version}), t.w.now
		t.w.enters(u, c.Group.ID)
	}
	for _, u := range c.Leave {
		t.w.count("members removed")
		if spans := t.joining[readKey{u, conversation}]; len(spans) > 0 {
			spans[len(spans)-1].left = version
		}
	}
}

// enters has a person know of a group.
func (w *world) enters(user, group int64) {
	for _, c := range w.crowds {
		if c.id != group {
			continue
		}
		for _, p := range w.people {
			if p.id == user && !slices.Contains(p.crowds, c) {
				p.crowds = append(p.crowds, c)
			}
		}
	}
}

// former reports whether somebody has left a group. A device that comes back when the database has him out of it and history does not
// have his last messages yet is told of those only by its next regular comparison: so a run does not wait for them. The audit
// looks that he is told.
func (t *truth) former(user int64, conversation string) bool {
	in, group := t.inside[conversation]
	return group && !slices.Contains(in, user)
}

// audience gives who may see a message of a group that enters the log: who is a member where it stands, his joining and leaving
// included; and besides who was one by the database at its version while the notice of his joining has not come: he may have been
// shown it by a delivery.
func (t *truth) audience(r chat.Record) (members, perhaps []int64) {
	m := r.Message
	conversation := m.GetConversation()
	n := m.GetPayload().GetGroup()
	in := t.inside[conversation]
	switch n.GetChange() {
	case pb.GroupNotice_CHANGE_CREATED, pb.GroupNotice_CHANGE_JOINED:
		for _, s := range n.GetSubjects() {
			u, _ := wire.ParseID(s.GetId()) // the server's own
			if !slices.Contains(in, u) {
				in = append(in, u)
			}
			key := readKey{u, conversation}
			t.joining[key] = slices.DeleteFunc(t.joining[key], func(s span) bool { return s.joined <= n.GetVersion() })
		}
	}
	slices.Sort(in)
	members = slices.Clone(in)
	if n.GetChange() == pb.GroupNotice_CHANGE_LEFT || n.GetChange() == pb.GroupNotice_CHANGE_REMOVED {
		for _, s := range n.GetSubjects() {
			u, _ := wire.ParseID(s.GetId()) // the server's own
			in = slices.DeleteFunc(in, func(o int64) bool { return o == u })
			t.w.count("members' ends in the log")
		}
	}
	t.inside[conversation] = in
	version := max(r.Version, n.GetVersion())
	for _, p := range t.w.people {
		among := func(s span) bool { return s.joined <= version && (s.left == 0 || version < s.left) }
		if slices.ContainsFunc(t.joining[readKey{p.id, conversation}], among) && !slices.Contains(members, p.id) {
			perhaps = append(perhaps, p.id)
		}
	}
	return members, perhaps
}
