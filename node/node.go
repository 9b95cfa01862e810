package node

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/groups"
	"github.com/futurechat/future/node/session"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// Conn is a connection as the gate gives it. Its methods never block and may be called from any goroutine.
type Conn interface {
	ID() uint64
	RemoteAddr() net.Addr
	// Send queues one encoded frame, or answers ErrSlow if there is no room for it. Another error means that the connection ends.
	Send(frame []byte) error
	// Close ends the connection after what was queued.
	Close(reason pb.Closing_Reason)
	// LoggedIn ends the time within which a connection must log in.
	LoggedIn()
}

// ErrSlow is answered by Conn.Send when the connection's queue has no room.
var ErrSlow = errors.New("node: outbound queue full")

// Presence is the node's own side of presence (presence.Node). Register is answered by Node.Registered.
type Presence interface {
	Register(connection uint64, user int64, device string)
	Unregister(connection uint64)
	// RegisterGroup says that there are members of a group here, UnregisterGroup that there are none any more. The former is answered
	// by Node.GroupRegistered.
	RegisterGroup(group int64)
	UnregisterGroup(group int64)
	// Incarnation is empty while the node's lease is late or gone: then nothing may be delivered.
	Incarnation() string
}

// Locator looks up who is connected where.
type Locator interface {
	Locate(ctx context.Context, users []int64) ([][]presence.Place, error)
}

// Kicker ends connections of other nodes.
type Kicker interface {
	Kick(addr string, k peer.Kick)
}

// Timeline reads conversations.
type Timeline interface {
	History(ctx context.Context, user int64, r *pb.HistoryRequest) (*pb.HistoryResponse, error)
	Heads(ctx context.Context, user int64) ([]*pb.Head, error)
}

// Outbox brings decided changes to the log.
type Outbox interface {
	Publish(ctx context.Context, conversation string, upTo uint64) error
}

// Log takes messages.
type Log interface {
	Append(e eventlog.Entry, done func(eventlog.Appended, error)) error
}

// Options for New. All but Elsewhere, Workers, Queue, Execute, Clock, Rand, Logger and Registerer are required.
type Options struct {
	Name    string
	Cluster string
	// Topic is what is known of the log: partitions, epoch, and what is in the database.
	Topic eventlog.State

	Service  *chat.Service
	Timeline Timeline
	Outbox   Outbox
	Log      Log
	Locator  Locator
	Kicker   Kicker
	// Elsewhere gives the addresses at which other nodes serve clients, to tell those who must go; nil, or empty: they come back to
	// the address that they know. It must not block.
	Elsewhere func() []string

	// Ping is how long a client may be silent before it must ping, Silence when either side takes the other for dead.
	Ping, Silence time.Duration
	// MaxFrame is the longest frame in bytes that the gate takes.
	MaxFrame int
	// Workers run requests, Queue of them may wait. Defaults 64, 4096.
	Workers, Queue int
	// Execute, if not nil, has a request run in place of the node's own workers. It must not run it before it returns.
	Execute func(request func())
	// Clock is time. Default clock.Real.
	Clock clock.Clock
	// Rand gives numbers in [0, 1). Default math/rand/v2.
	Rand func() float64

	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// Node is the role. Use New.
type Node struct {
	opts    Options
	log     *zap.Logger
	metrics *metrics
	hello   session.Hello
	work    chan job
	entry   chan job     // log-ins: they hash passwords, and must not hold up the rest
	returns chan job     // sessions that go on: thousands at a time when another node dies
	slow    chan job     // removals: they may wait for nodes that died
	relief  chan *Client // whose events go on elsewhere (see Client.work)
	again   chan *Client // whose answers wait for a look at the database (see Client.logAnswered)
	ends    ends
	workers sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelCauseFunc

	presence Presence // set by Start
	groups   *groupLoop

	mu      sync.RWMutex
	clients map[uint64]*Client

	inboxMu sync.Mutex // held for a whole Forward: deliveries of two links must not mix
	inbox   *deliver.Inbox
}

type job struct {
	client *Client
	run    session.Run
}

var errStopped = errors.New("node: stopped")

// New makes a node; Start makes it work.
func New(o Options) (*Node, error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	o.Workers = cmp.Or(o.Workers, 64)
	o.Queue = cmp.Or(o.Queue, 4096)
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	var relief chan *Client // of nobody: each goroutine goes on by itself
	if o.Execute == nil {
		relief = make(chan *Client, o.Queue)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	n := &Node{
		opts: o, log: o.Logger, metrics: m,
		hello: session.Hello{
			Node: o.Name, Cluster: o.Cluster, Epoch: o.Topic.Epoch, MaxFrame: uint32(o.MaxFrame),
			Ping: o.Ping, Silence: o.Silence, RetryOnOverload: time.Second,
		},
		work: make(chan job, o.Queue), entry: make(chan job, o.Queue), returns: make(chan job, returnQueue),
		relief: relief,
		slow:   make(chan job, o.Queue),
		again:  make(chan *Client, o.Queue),
		ends:   make(ends, o.Topic.Partitions),
		ctx:    ctx, cancel: cancel,
		clients: map[uint64]*Client{},
		inbox:   deliver.NewInbox(),
	}
	n.groups = newGroupLoop(n)
	n.LogSeen(o.Topic.Seen)
	return n, nil
}

const (
	// entryWorkers is how many log-ins run at a time. chat.Service bounds the hashing itself.
	entryWorkers = 8
	// returnWorkers is how many sessions go on at a time, and returnQueue how many may wait to: those of a whole node.
	returnWorkers, returnQueue = 16, 16384
)

// slowWorkers is how many removals run at a time.
const slowWorkers = 16

// reliefWorkers run events of connections that have more of them than one turn; none of it waits for anything.
const reliefWorkers = 2

// relieve hands a client's events to another goroutine, if there is room. It is called with the client's lock held.
func (n *Node) relieve(c *Client) bool {
	select {
	case n.relief <- c:
		return true
	default:
		return false
	}
}

func (n *Node) relieved() {
	for {
		select {
		case c := <-n.relief:
			c.work()
		case <-n.ctx.Done():
			return
		}
	}
}

// Start starts the workers. p is the node's presence, whose callbacks are the node's methods.
func (n *Node) Start(p Presence) {
	n.presence = p
	if n.opts.Execute != nil {
		n.opts.Execute(n.groups.run)
		return
	}
	for range n.opts.Workers {
		n.workers.Go(func() { n.serve(n.work) })
	}
	for range entryWorkers {
		n.workers.Go(func() { n.serve(n.entry) })
	}
	for range returnWorkers {
		n.workers.Go(func() { n.serve(n.returns) })
	}
	for range slowWorkers {
		n.workers.Go(func() { n.serve(n.slow) })
	}
	for range lookers {
		n.workers.Go(n.look)
	}
	for range readers {
		n.workers.Go(n.groups.reader)
	}
	n.workers.Go(n.groups.run)
	for range reliefWorkers {
		n.workers.Go(n.relieved)
	}
}

// Stop ends the workers, after the gate was closed. What waits is given up: its connections are gone.
func (n *Node) Stop() {
	n.cancel(errStopped)
	n.workers.Wait()
}

// Open takes a new connection. The gate gives its frames to the Client.
func (n *Node) Open(c Conn) *Client {
	client := &Client{node: n, conn: c, session: session.New(session.DefaultLimits, n.hello)}
	n.mu.Lock()
	n.clients[c.ID()] = client
	n.mu.Unlock()
	return client
}

func (n *Node) client(id uint64) *Client {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.clients[id]
}

func (n *Node) forget(id uint64) {
	n.mu.Lock()
	delete(n.clients, id)
	n.mu.Unlock()
}

// all gives the connections that are open now.
func (n *Node) all() []*Client {
	n.mu.RLock()
	defer n.mu.RUnlock()
	all := make([]*Client, 0, len(n.clients))
	for _, c := range n.clients {
		all = append(all, c)
	}
	return all
}

// Registered is presence's answer to Register. Unless presence is away the session goes on once its groups are there.
func (n *Node) Registered(connection uint64, degraded bool) {
	c := n.client(connection)
	if c == nil {
		return
	}
	if degraded {
		c.post(session.Registered{Degraded: true})
	}
	n.groups.post(groups.Entered[*Client]{Connection: c, User: c.account().Account.ID, Late: degraded})
}

// Compare tells connections that they may have missed something.
func (n *Node) Compare(connections []uint64) {
	for _, id := range connections {
		if c := n.client(id); c != nil {
			n.metrics.compares.Inc()
			n.groups.post(groups.Doubted{User: c.account().Account.ID})
			c.post(session.Compare{})
		}
	}
}

// CompareAll tells all connections.
func (n *Node) CompareAll() {
	n.groups.post(groups.Doubted{})
	for _, c := range n.all() {
		n.metrics.compares.Inc()
		c.post(session.Compare{})
	}
}

// Suspend says that the node's lease is late or gone: Incarnation is empty and nothing is delivered, since routers do not reckon
// with its sessions any more. Messages are still taken: that they are durable does not depend on presence (I8).
func (n *Node) Suspend() {
	n.log.Warn("presence lease lost: deliveries stop until it is renewed")
}

// Resume says that deliveries go on, under a new incarnation whose sessions are all registered.
func (n *Node) Resume(incarnation string) {
	n.log.Info("presence lease held: deliveries go on", zap.String("incarnation", incarnation))
	n.groups.post(groups.Renewed{})
}
