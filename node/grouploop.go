package node

import (
	"context"
	"sync"

	"go.uber.org/zap"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/groups"
	"github.com/futurechat/future/node/session"
	"github.com/futurechat/future/router/peer"
)

// groupLoop drives a groups.Index with one goroutine, which also hands groups' messages to the connections: a message of a large
// group keeps nobody else's waiting, neither at the link nor at the gate.
type groupLoop struct {
	node  *Node
	wake  chan struct{}
	reads chan struct{} // has one when there is something to read

	mu       sync.Mutex
	events   []groups.Event // bounded: messages by queuedMessages and queuedBytes, the rest by connections and groups
	messages int
	bytes    int
	missed   map[groups.Missed]bool // among events
	toRead   []func(ctx context.Context) groups.Event

	index *groups.Index[*Client] // owned by run
}

const (
	queuedMessages = 4096
	queuedBytes    = 16 << 20
	// readers is how many reads of the database the index has at a time.
	readers = 16
)

func newGroupLoop(n *Node) *groupLoop {
	return &groupLoop{
		node: n, wake: make(chan struct{}, 1), reads: make(chan struct{}, 1), missed: map[groups.Missed]bool{},
		index: groups.New[*Client](groups.Options{}),
	}
}

// post hands an event to the index. It never waits.
func (l *groupLoop) post(e groups.Event) {
	l.mu.Lock()
	if m, ok := e.(groups.Message[*Client]); ok {
		if l.messages >= queuedMessages || l.bytes+len(m.Frame) > queuedBytes {
			l.mu.Unlock()
			l.miss(m)
			return
		}
		l.messages++
		l.bytes += len(m.Frame)
	}
	l.events = append(l.events, e)
	l.mu.Unlock()
	poke(l.wake)
}

// miss drops a message: the index finds out who lacks it. Those whom it was for as persons are told, members or not.
func (l *groupLoop) miss(m groups.Message[*Client]) {
	missed := groups.Missed{Group: m.Group, Notice: m.Notice != nil}
	l.mu.Lock()
	if !l.missed[missed] {
		l.missed[missed] = true
		l.events = append(l.events, missed)
	}
	l.mu.Unlock()
	poke(l.wake)
	for _, c := range m.To {
		c.post(session.Compare{})
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (l *groupLoop) take() []groups.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.events
	l.events, l.messages, l.bytes = nil, 0, 0
	clear(l.missed)
	return events
}

// run runs events until the node stops.
func (l *groupLoop) run() {
	clock, ctx := l.node.opts.Clock, l.node.ctx
	for l.step(groups.Tick{}); ; {
		next, _ := l.index.Next()
		clock.Wait(ctx, next, l.wake)
		if ctx.Err() != nil {
			return
		}
		if !next.IsZero() && !clock.Now().Before(next) {
			l.step(groups.Tick{})
		}
		for _, e := range l.take() {
			l.step(e)
		}
	}
}

func (l *groupLoop) step(e groups.Event) {
	if in, ok := e.(groups.Entered[*Client]); ok && l.node.client(in.Connection.conn.ID()) != in.Connection {
		return // gone already, and its end perhaps told before
	}
	for _, effect := range l.index.Step(l.node.opts.Clock.Now(), e) {
		l.carryOut(effect)
	}
	l.node.metrics.countGroups(l.index.TakeStats())
}

func (l *groupLoop) carryOut(e groups.Effect) {
	n := l.node
	switch e := e.(type) {
	case groups.LoadGroups:
		l.read(func(ctx context.Context) groups.Event {
			of, err := n.opts.Service.GroupsOf(ctx, e.User)
			return groups.GroupsLoaded{ID: e.ID, User: e.User, Groups: of, Err: l.warn("a user's groups were not read", err)}
		})
	case groups.LoadMembers:
		l.read(func(ctx context.Context) groups.Event {
			version, members, err := n.opts.Service.Memberships(ctx, e.Group, e.Users)
			return groups.MembersLoaded{ID: e.ID, Version: version, Members: members, Err: l.warn("a group's members were not read", err)}
		})
	case groups.RegisterGroup:
		n.presence.RegisterGroup(e.Group)
	case groups.UnregisterGroup:
		n.presence.UnregisterGroup(e.Group)
	case groups.Ready[*Client]:
		e.Connection.post(session.Registered{})
	case groups.Deliver[*Client]:
		if n.presence.Incarnation() == "" {
			return // others do not reckon with these sessions, and will not tell of who has left; they compare when that is over
		}
		deliver := session.Event(session.Deliver{Frame: e.Frame})
		for _, c := range e.To {
			c.post(deliver)
		}
	case groups.Compare[*Client]:
		for _, c := range e.To {
			n.metrics.compares.Inc()
			c.post(session.Compare{})
		}
	}
}

func (l *groupLoop) warn(what string, err error) error {
	if err != nil && l.node.ctx.Err() == nil {
		l.node.log.Warn(what, zap.Error(err))
	}
	return err
}

// read has a read done by one of the readers. What waits is bounded by the people and groups here.
func (l *groupLoop) read(f func(ctx context.Context) groups.Event) {
	if execute := l.node.opts.Execute; execute != nil {
		execute(func() { l.do(f) })
		return
	}
	l.mu.Lock()
	l.toRead = append(l.toRead, f)
	l.mu.Unlock()
	poke(l.reads)
}

// reader does reads until the node stops.
func (l *groupLoop) reader() {
	for {
		select {
		case <-l.reads:
		case <-l.node.ctx.Done():
			return
		}
		for f := l.nextRead(); f != nil; f = l.nextRead() {
			l.do(f)
		}
	}
}

func (l *groupLoop) do(f func(ctx context.Context) groups.Event) {
	ctx, cancel := l.node.opts.Clock.WithTimeout(l.node.ctx, requestTimeout)
	defer cancel()
	l.post(f(ctx))
}

func (l *groupLoop) nextRead() func(ctx context.Context) groups.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.toRead) == 0 {
		l.toRead = nil
		return nil
	}
	f := l.toRead[0]
	l.toRead[0] = nil
	if l.toRead = l.toRead[1:]; len(l.toRead) > 0 {
		poke(l.reads) // another one may help
	}
	return f
}

// GroupRegistered is presence's answer to RegisterGroup: lost says that others had not found this node for a while.
func (n *Node) GroupRegistered(group int64, lost bool) {
	n.groups.post(groups.Registered{Group: group, Lost: lost})
}

// forwardGroup takes a router's message for a group, and gives the persons it is for besides that have no session here.
func (n *Node) forwardGroup(m peer.Message, missed []peer.Missed) []peer.Missed {
	e := groups.Message[*Client]{Group: m.Group, Version: m.Version, Frame: deliveryFrame(m.Body), Notice: noticeIn(m.Body)}
	for _, r := range m.Recipients {
		if c := n.client(r.Connection); c != nil && n.has(r) {
			e.To = append(e.To, c)
		} else {
			missed = append(missed, peer.Missed{Seq: m.Seq, Recipient: r})
		}
	}
	n.groups.post(e)
	return missed
}

// noticeIn gives the notice that an encoded message is, or nil.
func noticeIn(body []byte) *pb.GroupNotice {
	m := new(pb.Message)
	if err := m.UnmarshalVT(body); err != nil {
		return nil // a router's fault: the client will see it
	}
	return m.GetPayload().GetGroup()
}

// fenceGroup: no message that comes after is delivered by what was known of a group below a version.
func (n *Node) fenceGroup(group int64, version uint64) {
	n.groups.post(groups.Fence{Group: group, Version: version})
}
