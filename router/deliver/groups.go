package deliver

import (
	"slices"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// A group's message goes to each node that has members, in one frame that names the group and the version V as of which it is for
// them; who they are the nodes know. V is the highest of the version that the sender's right was checked against and those of
// the group's notices read so far. Of the ends of memberships none is missed by that: what lies before the check's CheckedFrom the
// check has seen, and from there on they are read for validity. Of new members it may know too little after a takeover. So nodes
// have those compare heads who seem to have joined later, and deliver to nobody who has left by what they know.
//
// A notice also goes to its subjects as persons, wherever they are: who joins is perhaps on a node that has no member yet, and
// who was removed must hear of it. One whose subjects are too many to be named goes to every node instead.

// audience is who a message is for.
type audience struct {
	users   []int64 // as persons
	group   int64   // 0: none
	version uint64  // of the group
	wide    bool    // every node is to look who of the group it has
}

// audienceOf gives who gets a message: of a direct one both, since the sender has other devices, and the one that he sent from
// takes its own message's place from the delivered copy.
func (p *Partition) audienceOf(r chat.Record) audience {
	m := r.Message
	c, err := wire.ParseConversation(m.GetConversation())
	switch {
	case err != nil: // ParseRecord has looked
		return audience{}
	case c.Kind == 'd':
		return audience{users: []int64{c.A, c.B}}
	case c.Kind == 'n':
		return audience{users: []int64{c.A}}
	}
	p.raiseVersion(m.GetConversation(), m.GetPayload().GetGroup().GetVersion())
	known, _ := p.versions.get(m.GetConversation())
	n := m.GetPayload().GetGroup()
	return audience{
		users: subjects(n), group: c.A, version: max(known, r.Version), wide: int(n.GetCount()) > len(n.GetSubjects()),
	}
}

// raiseVersion remembers the version that a group's notice made.
func (p *Partition) raiseVersion(conversation string, v uint64) {
	if v != 0 && conversation[0] == 'g' {
		known, _ := p.versions.get(conversation)
		p.versions.put(conversation, max(known, v))
	}
}

func subjects(n *pb.GroupNotice) (users []int64) {
	for _, u := range n.GetSubjects() {
		if id, err := wire.ParseID(u.GetId()); err == nil && !slices.Contains(users, id) {
			users = append(users, id)
		}
	}
	return users
}

// locateGroup has a message's group looked up, and every node if it is for all of them.
func (b *batch) locateGroup(a audience) {
	if a.group == 0 {
		return
	}
	ids := []int64{a.group}
	if a.wide {
		ids = append(ids, presence.AllNodes)
	}
	for _, id := range ids {
		if !b.namedGroups[id] {
			if b.namedGroups == nil {
				b.namedGroups = map[int64]bool{}
			}
			b.namedGroups[id] = true
			b.groups = append(b.groups, id)
		}
	}
}

// nodesOf gives the nodes that a group's message goes to, each once.
func (m *message) nodesOf(nodes map[int64][]presence.Place) []presence.Place {
	if m.group == 0 {
		return nil
	}
	at := nodes[m.group]
	if !m.wide {
		return at
	}
	at = slices.Clone(at)
	for _, every := range nodes[presence.AllNodes] {
		if !slices.ContainsFunc(at, func(p presence.Place) bool { return p.Incarnation == every.Incarnation }) {
			at = append(at, every)
		}
	}
	return at
}

// entry gives the place of a message in the frame, and makes it if need be.
func (f *frame) entry(m *message) int {
	last := len(f.parts) - 1
	if last < 0 || f.parts[last].m != m {
		f.parts = append(f.parts, part{m: m})
		f.Messages = append(f.Messages, peer.Message{Seq: m.m.GetSeq(), Body: m.body, Group: m.group, Version: m.version})
		last++
	}
	return last
}
