package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/node"
	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/cluster/gossip"
	"github.com/futurechat/future/router/peer"
)

// links hands what comes over peer links to the node, once there is one: a process that starts, or is no node, has no
// sessions, and answers so.
type links struct{ node atomic.Pointer[node.Node] }

func (l *links) Forward(link uint64, f peer.Forward) peer.Answer {
	if n := l.node.Load(); n != nil {
		return n.Forward(link, f)
	}
	return peer.Answer{Status: peer.StatusWrongIncarnation}
}

func (l *links) Kick(k peer.Kick) {
	if n := l.node.Load(); n != nil {
		n.Kick(k)
	}
}

func (l *links) Fence(f peer.Fence, done func(incarnation string)) {
	if n := l.node.Load(); n != nil {
		n.Fence(f, done)
		return
	}
	done("") // it has taken no message yet, and looks at the database when it does
}

func (l *links) LinkLost(link uint64) {
	if n := l.node.Load(); n != nil {
		n.LinkLost(link)
	}
}

// openPeer takes links from the cluster's processes, and operators' questions.
func (a *App) openPeer(ctx context.Context, handler peer.Handler) error {
	cfg := a.cfg
	server, err := peer.NewServer(peer.ServerOptions{
		Addr: cfg.PeerAddr, Secret: []byte(cfg.Secret), Cluster: cfg.Cluster, Self: a.self.ID, Handler: handler, Control: control{a},
		Logger: a.log.Named("peer"), Registerer: a.registry,
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		if who, asked := a.whoIsAt(ctx, cfg.PeerAddr); asked == nil {
			return fmt.Errorf("%w: %s of this cluster has it: give this process another -peer-addr", err, who)
		}
	}
	if err != nil {
		return err
	}
	a.life.add("peer server", func(context.Context) error { return server.Close() })
	a.run("peer server", func(context.Context) error { return server.Serve() })
	a.peerAddr = cmp.Or(cfg.PeerAdvertise, server.Addr())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.self.Peer = a.peerAddr
	return nil
}

// whoIsAt names the process that answers at a peer address.
func (a *App) whoIsAt(ctx context.Context, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := peer.Call(ctx, addr, []byte(a.cfg.Secret), a.cfg.Cluster)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }() // it has answered
	members, err := c.Members(ctx)
	if err != nil {
		return "", err
	}
	for _, m := range members {
		if m.ID == c.Life() {
			return describe(m), nil
		}
	}
	return "a process with the id " + c.Life(), nil
}

// join makes the process a member of the cluster, which dev is alone.
func (a *App) join(ctx context.Context) error {
	if a.dev {
		a.setMembers(cluster.NewStatic(a.member()))
		return nil
	}
	g, err := gossip.New(gossip.Options{
		Self: a.member(), Bind: a.cfg.GossipAddr, Advertise: a.cfg.GossipAdvertise, Seeds: a.cfg.Seeds,
		Secret: []byte(a.cfg.Secret), Cluster: a.cfg.Cluster, Logger: a.log.Named("gossip"), Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	a.setMembers(g)
	a.gossipAddr = g.Addr()
	a.life.add("gossip", func(ctx context.Context) error {
		if err := g.Leave(ctx); err != nil {
			// The others find it out by themselves, if there still are any.
			a.log.Warn("nobody heard that this process leaves", zap.Error(err))
		}
		return nil
	})
	if err := a.claim(ctx, g); err != nil {
		return err
	}
	a.life.add("rivals", a.run("rivals", a.watchRivals))
	return nil
}

func (a *App) setMembers(m cluster.Membership) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parts.members = m
}

// member is what the others are told of this process.
func (a *App) member() cluster.Member {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.self
}

// announce changes what the others are told of this process.
func (a *App) announce(ctx context.Context, change func(*cluster.Member)) {
	a.mu.Lock()
	change(&a.self)
	self, members := a.self, a.parts.members
	a.mu.Unlock()
	if members == nil {
		return // it has not come so far
	}
	if err := members.Announce(ctx, self); err != nil {
		a.log.Warn("the others may hear late what this process is about", zap.String("state", string(self.State)), zap.Error(err))
	}
}

// clientAdvertised is where clients may be told to find this node, or empty.
func (a *App) clientAdvertised() string {
	advertise := a.cfg.ClientAdvertise
	if advertise == "" || !a.has(cluster.RoleNode) {
		return ""
	}
	if host, port, err := net.SplitHostPort(advertise); err == nil && port == "0" {
		if _, real, err := net.SplitHostPort(a.clientAddr); err == nil {
			return net.JoinHostPort(host, real)
		}
	}
	return advertise
}

// otherNodes are the addresses at which clients may be told to find other nodes.
func (a *App) otherNodes() []string {
	members, _ := a.parts.members.Members()
	var addrs []string
	for _, m := range members {
		if m.Has(cluster.RoleNode) && m.State == cluster.Serving && m.ID != a.self.ID && m.Client != "" {
			addrs = append(addrs, m.Client)
		}
	}
	return addrs
}

// control answers operators.
type control struct{ app *App }

func (c control) Members() []cluster.Member {
	c.app.mu.Lock()
	self, view := c.app.self, c.app.parts.members
	c.app.mu.Unlock()
	if view == nil {
		return []cluster.Member{self}
	}
	members, _ := view.Members()
	return members
}

func (c control) Drain() int {
	c.app.drainOnce.Do(func() {
		close(c.app.drained)
		c.app.endStart() // if it has come no further
	})
	if n := c.app.node.Load(); n != nil {
		return n.Connections()
	}
	return 0
}

const (
	// callTimeout is how long a process has to answer who it is.
	callTimeout = 3 * time.Second
	// joinPatience is how long a process that starts waits to hear who else there is.
	joinPatience = 4 * time.Second
	// rivalsEvery is how often rivals are looked at again, besides when members change.
	rivalsEvery = 5 * time.Second
	// stillThere is how long a member at our own address must be in view to be taken for alive: one that died is gone by then.
	stillThere = 15 * time.Second
)

// claim makes sure that nobody alive has this process's name or peer address. Who does not answer at its peer address is dead, or
// as good as dead: it is displaced, by a generation above its own, and ends when it comes back (watchRivals).
func (a *App) claim(ctx context.Context, g *gossip.Gossip) error {
	select {
	case <-g.Tried():
	case <-time.After(joinPatience):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	self := a.member()
	members, _ := g.Members()
	generation := self.Generation
	for _, rival := range cluster.Rivals(self, members) {
		if rival.State != cluster.Draining && a.answers(ctx, rival) {
			if !self.Defers(rival) {
				continue // it is the rival that gives up
			}
			return fmt.Errorf("%s is taken by %s, which is alive: stop that one, or give this one another -name, -peer-addr or -peer-advertise",
				cluster.Claim(self, rival), describe(rival))
		}
		a.log.Warn("taking the place of a process that does not answer or goes", zap.String("claim", cluster.Claim(self, rival)),
			zap.String("name", rival.Name), zap.String("id", rival.ID))
		generation = max(generation, rival.Generation+1)
	}
	if generation != self.Generation {
		a.announce(ctx, func(m *cluster.Member) { m.Generation = generation })
	}
	return nil
}

// answers reports whether a rival answers at its peer address as itself.
func (a *App) answers(ctx context.Context, rival cluster.Member) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	life, err := a.parts.pool.Life(ctx, rival.Peer)
	return err == nil && life == rival.ID
}

// watchRivals ends this process when another has taken its place, say while it was paused or cut off, or if two of a name have met
// only now: then the later one ends.
func (a *App) watchRivals(ctx context.Context) error {
	since := map[string]time.Time{}
	tick := time.NewTicker(rivalsEvery)
	defer tick.Stop()
	for {
		members, changed := a.parts.members.Members()
		self := a.member()
		seen := map[string]time.Time{}
		for _, rival := range cluster.Rivals(self, members) {
			first, known := since[rival.ID]
			if !known {
				first = time.Now()
			}
			seen[rival.ID] = first
			if !self.Yields(rival) || self.State == cluster.Draining {
				continue
			}
			if a.answers(ctx, rival) || rival.Peer == self.Peer && time.Since(first) > stillThere {
				return fmt.Errorf("%s now belongs to %s: this process has been displaced", cluster.Claim(self, rival), describe(rival))
			}
		}
		since = seen
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// describe names a member in words.
func describe(m cluster.Member) string {
	return fmt.Sprintf("%s (id %s, peer address %s)", m.Name, m.ID, m.Peer)
}
