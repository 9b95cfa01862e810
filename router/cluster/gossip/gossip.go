package gossip

import (
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/cluster"
)

// MinSecret is the shortest secret in bytes that is taken.
const MinSecret = 16

// Options of New. All is needed but what says otherwise.
type Options struct {
	// Self is what the others shall see. Its ID must never have been used before. Of what Announce changes later, the client
	// address must be here already, but for its port: so that it is known at the start whether all finds room.
	Self cluster.Member
	// Bind is the host:port to listen on, TCP and UDP. An empty host means all addresses, port 0 any free port.
	Bind string
	// Advertise is the host:port at which the others reach this process; the host may be a name, the port empty or 0 for the
	// one bound. Empty: the address bound, or with all addresses the first private one.
	Advertise string
	// Seeds are processes to ask for the others: host:port, where a name may stand for several addresses, or the name of an SRV
	// record, like _gossip._tcp.future.example. Names are looked up anew at each try. Seeds need not be up, and this process may be
	// among them. Without seeds it waits to be found.
	Seeds []string
	// Resolver looks up names of seeds; nil: Go's own.
	Resolver *net.Resolver
	// Secret is the cluster's.
	Secret []byte
	// Cluster is the cluster's name. Processes with another one do not see each other.
	Cluster string
	Logger  *zap.Logger
	// Registerer, if not nil, gets the metrics.
	Registerer prometheus.Registerer

	timing timing // for tests; zero means what is shipped
}

type timing struct {
	probe  time.Duration // between two probes; death is seen after about 5 to 9 of these
	rejoin time.Duration // between two tries of the seeds once somebody is in view
	config func(*memberlist.Config)
}

// Gossip is this process's membership.
type Gossip struct {
	id       string
	seeds    []string
	resolver *net.Resolver
	rejoin   time.Duration
	log      *zap.Logger
	metrics  *metrics
	list     *memberlist.Memberlist

	stop    context.CancelCauseFunc
	tried   chan struct{}     // closed when all seeds were tried once
	ended   chan struct{}     // closed when the goroutine that joins has ended
	said    map[string]string // what is wrong with each seed, as was said; owned by that goroutine
	leaving sync.Mutex        // held through Leave
	left    bool              // guarded by leaving

	mu      sync.Mutex
	self    cluster.Member
	frozen  bool
	meta    []byte          // self encoded
	gone    map[string]bool // lives that drained and left: they never come back
	goneIDs []string        // the same, oldest first
	nodes   map[string]node
	members []cluster.Member // of nodes, sorted by ID; replaced as a whole, since callers hold it
	changed chan struct{}
}

type node struct {
	member cluster.Member
	addr   string // of its gossip
}

var _ cluster.Membership = (*Gossip)(nil)

// errLeft is why joining ends.
var errLeft = errors.New("gossip: left")

// New listens and begins to look for the others; it does not wait until they are found. It must be ended with Leave or
// Shutdown.
func New(o Options) (*Gossip, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	meta, err := encodeMeta(o.Self)
	if err == nil && len(meta) > memberlist.MetaMaxSize-metaRoom {
		err = fmt.Errorf("gossip: name, addresses, version and roles take %d bytes, allowed are %d", len(meta), memberlist.MetaMaxSize-metaRoom)
	}
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		id: o.Self.ID, seeds: o.Seeds, resolver: cmp.Or(o.Resolver, net.DefaultResolver), rejoin: cmp.Or(o.timing.rejoin, 10*time.Second),
		log: o.Logger, tried: make(chan struct{}), ended: make(chan struct{}), said: make(map[string]string),
		self: o.Self, meta: meta, gone: make(map[string]bool), nodes: make(map[string]node), changed: make(chan struct{}),
	}
	if g.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, err
	}
	config, err := o.config(g.metrics)
	if err != nil {
		return nil, err
	}
	config.Delegate = delegate{g}
	config.Events, config.Alive = g, g
	if g.list, err = memberlist.Create(config); err != nil {
		return nil, errors.Join(fmt.Errorf("gossip: listen on %s: %w", o.Bind, err), config.Transport.Shutdown())
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	g.stop = cancel
	go g.join(ctx)
	return g, nil
}

func (o Options) check() error {
	switch {
	case o.Self.ID == "" || len(o.Self.ID) > 128:
		return errors.New("gossip: the member's ID must have 1 to 128 bytes")
	case len(o.Secret) < MinSecret:
		return fmt.Errorf("gossip: the secret must have at least %d bytes", MinSecret)
	case o.Cluster == "" || len(o.Cluster) > memberlist.LabelMaxSize:
		return fmt.Errorf("gossip: the cluster's name must have 1 to %d bytes", memberlist.LabelMaxSize)
	case o.Logger == nil:
		return errors.New("gossip: no logger")
	}
	for _, s := range o.Seeds {
		if isSRV(s) {
			continue
		}
		if _, _, err := splitPort(s); err != nil {
			return fmt.Errorf("gossip: seed: %w", err)
		}
	}
	return nil
}

func (o Options) config(m *metrics) (*memberlist.Config, error) {
	host, port, err := splitPort(o.Bind)
	if err != nil {
		return nil, fmt.Errorf("gossip: bind: %w", err)
	}
	key, err := hkdf.Key(sha256.New, o.Secret, nil, "future gossip\x00"+o.Cluster, 32)
	if err != nil {
		return nil, fmt.Errorf("gossip: derive key: %w", err)
	}
	c := memberlist.DefaultLANConfig()
	c.Name = o.Self.ID
	if c.BindAddr, err = resolveOne(cmp.Or(host, "0.0.0.0")); err != nil {
		return nil, fmt.Errorf("gossip: bind: %w", err)
	}
	if c.BindAddr == net.IPv6unspecified.String() && o.Advertise == "" {
		return nil, errors.New("gossip: bound to all IPv6 addresses, it must be said which to advertise")
	}
	c.BindPort, c.AdvertisePort = port, port
	if err := o.advertise(c); err != nil {
		return nil, err
	}
	c.Label = o.Cluster
	c.SecretKey = key
	c.Logger = newLog(o.Logger, m)
	// A probe that fails takes one interval, suspicion 4 (6 while nobody confirms it); the first probe of a member that died
	// comes within one or two.
	probe := cmp.Or(o.timing.probe, 500*time.Millisecond)
	c.ProbeInterval = probe
	c.ProbeTimeout = probe * 2 / 5
	c.GossipInterval = probe * 2 / 5
	// A packet has a few hundred bytes: to press them cost a fifth of what an idle process costs.
	c.EnableCompression = false
	c.SuspicionMult = 4
	c.SuspicionMaxTimeoutMult = 2
	// Stop backing off early: a busy process that looks away for long finds deaths late.
	c.AwarenessMaxMultiplier = 4
	c.PushPullInterval = 15 * time.Second
	c.TCPTimeout = 2 * time.Second
	if o.timing.config != nil {
		o.timing.config(c)
	}
	if c.Transport == nil {
		if c.Transport, err = listen(c); err != nil {
			return nil, fmt.Errorf("gossip: listen on %s: %w", o.Bind, err)
		}
	}
	if c.Transport, err = newGuard(c.Transport, m); err != nil {
		return nil, err
	}
	return c, nil
}

// advertise resolves the address to tell others: memberlist takes none but an IP.
func (o Options) advertise(c *memberlist.Config) error {
	if o.Advertise == "" {
		return nil
	}
	host, port, err := splitPort(o.Advertise)
	if err != nil {
		return fmt.Errorf("gossip: advertise: %w", err)
	}
	if c.AdvertiseAddr, err = resolveOne(host); err != nil {
		return fmt.Errorf("gossip: advertise: %w", err)
	}
	if port != 0 {
		c.AdvertisePort = port
	}
	return nil
}

// resolveOne gives one IP address of a host. memberlist listens on all addresses if it is given a name.
func resolveOne(host string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return "", err
	}
	return ips[0].IP.String(), nil
}

func splitPort(hostport string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(cmp.Or(p, "0"), 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: port must be a number up to 65535", hostport)
	}
	return host, int(n), nil
}

// Addr is the host:port that the others are told, and that fits as a seed.
func (g *Gossip) Addr() string { return g.list.LocalNode().Address() }

// Members gives those thought alive. After the end it stays as it was.
func (g *Gossip) Members() ([]cluster.Member, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members, g.changed
}

// Tried is closed when all seeds were tried once: those that could be reached have told who else there is.
func (g *Gossip) Tried() <-chan struct{} { return g.tried }

// Announce implements cluster.Membership. It returns when the news has begun to spread, or after 2 seconds at most.
func (g *Gossip) Announce(ctx context.Context, self cluster.Member) error {
	meta, err := encodeMeta(self)
	if err != nil {
		return err
	}
	g.leaving.Lock() // memberlist must not be asked after its end
	defer g.leaving.Unlock()
	if g.left || self.ID != g.id {
		return errors.New("gossip: announce: left, or another's ID")
	}
	g.mu.Lock()
	g.self, g.meta = self, meta
	g.mu.Unlock()
	timeout := leaveTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	if err := g.list.UpdateNode(max(timeout, time.Millisecond)); err != nil {
		return fmt.Errorf("gossip: announce: %w", err)
	}
	return nil
}

// Leave tells the others, for up to 2 seconds or until ctx ends, then Shutdown. An error says that the others may have to find
// out by themselves. Called again it does nothing.
func (g *Gossip) Leave(ctx context.Context) error {
	g.leaving.Lock()
	defer g.leaving.Unlock()
	if g.left {
		return nil
	}
	g.freeze()
	timeout := leaveTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	var err error
	if ctx.Err() != nil || timeout <= 0 {
		err = fmt.Errorf("gossip: leave: %w", context.Cause(ctx))
	} else if left := g.list.Leave(timeout); left != nil {
		err = fmt.Errorf("gossip: leave: %w", left)
	}
	return errors.Join(err, g.shutdownLocked())
}

// leaveTimeout bounds how long Leave tries to be heard.
const leaveTimeout = 2 * time.Second

// Shutdown ends the membership without a word, as death would.
func (g *Gossip) Shutdown() error {
	g.leaving.Lock()
	defer g.leaving.Unlock()
	if g.left {
		return nil
	}
	g.freeze()
	return g.shutdownLocked()
}

func (g *Gossip) shutdownLocked() error {
	g.left = true
	g.stop(errLeft)
	err := g.list.Shutdown()
	<-g.ended // a Join under way fails within TCPTimeout
	if err != nil {
		return fmt.Errorf("gossip: shutdown: %w", err)
	}
	return nil
}

func (g *Gossip) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.frozen = true
}

// NotifyJoin, NotifyUpdate and NotifyLeave are for memberlist, which calls them with its lock held.
func (g *Gossip) NotifyJoin(n *memberlist.Node) { g.put(n) }

// NotifyUpdate: see NotifyJoin.
func (g *Gossip) NotifyUpdate(n *memberlist.Node) { g.put(n) }

// NotifyLeave: see NotifyJoin.
func (g *Gossip) NotifyLeave(n *memberlist.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	known, ok := g.nodes[n.Name]
	if !ok || g.frozen {
		return
	}
	if known.member.State == cluster.Draining {
		g.buryLocked(n.Name)
	}
	g.log.Info("member gone", zap.String("id", n.Name))
	delete(g.nodes, n.Name)
	g.changedLocked()
}

// mostGone is how many lives that left are remembered.
const mostGone = 4096

// buryLocked remembers that a life has ended in order. memberlist forgets the dead after half a minute, and would take a recorded
// packet of theirs, sent again, for news of a member. Of a life that was only seen dead that cannot be said: it may have been paused,
// or cut off. So a recorded packet of one brings it back into view, for the few seconds until it is seen dead again.
func (g *Gossip) buryLocked(id string) {
	if g.gone[id] {
		return
	}
	if len(g.goneIDs) >= mostGone {
		delete(g.gone, g.goneIDs[0])
		g.goneIDs = g.goneIDs[1:]
	}
	g.gone[id] = true
	g.goneIDs = append(g.goneIDs, id)
}

var errGone = errors.New("that life has ended")

// NotifyAlive: see NotifyJoin. An error keeps the member out.
func (g *Gossip) NotifyAlive(n *memberlist.Node) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone[n.Name] {
		return errGone
	}
	return nil
}

func (g *Gossip) put(n *memberlist.Node) {
	m, err := decodeMeta(n.Name, n.Meta)
	if err != nil {
		g.log.Warn("member of a version that is not understood is left out", zap.String("id", n.Name), zap.Error(err))
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen {
		return
	}
	if n.Name == g.id {
		m = g.self
	}
	g.log.Info("member seen", zap.String("id", m.ID), zap.String("name", m.Name), zap.String("state", string(m.State)),
		zap.String("address", n.Address()))
	g.nodes[m.ID] = node{m, n.Address()}
	g.changedLocked()
}

func (g *Gossip) changedLocked() {
	g.members = make([]cluster.Member, 0, len(g.nodes))
	for _, n := range g.nodes {
		g.members = append(g.members, n.member)
	}
	slices.SortFunc(g.members, func(a, b cluster.Member) int { return cmp.Compare(a.ID, b.ID) })
	close(g.changed)
	g.changed = make(chan struct{})
}

// delegate gives memberlist this member's meta data and has nothing else to say.
type delegate struct{ g *Gossip }

var (
	_ memberlist.Delegate      = delegate{}
	_ memberlist.EventDelegate = (*Gossip)(nil)
	_ memberlist.AliveDelegate = (*Gossip)(nil)
	_ io.Writer                = lines{}
)

func (d delegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.meta
}

func (d delegate) NotifyMsg([]byte)                {}
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d delegate) LocalState(bool) []byte          { return nil }
func (d delegate) MergeRemoteState([]byte, bool)   {}
