package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/clientsdk/wire"
	"github.com/futurechat/future/consumers/history"
	"github.com/futurechat/future/node"
	"github.com/futurechat/future/node/tcpgate"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/fence"
	"github.com/futurechat/future/router/outbox"
	"github.com/futurechat/future/router/presence"
	"github.com/futurechat/future/router/timeline"
)

// startRoles makes the roles. The node comes last and so ends first: its clients leave while the rest still works.
func (a *App) startRoles(ctx context.Context) error {
	links := &links{}
	if err := a.openPeer(ctx, links); err != nil {
		return err
	}
	if err := a.join(ctx); err != nil {
		return err
	}
	if a.has(cluster.RoleHistory) {
		if err := a.startHistory(); err != nil {
			return err
		}
	}
	if a.has(cluster.RoleRouter) {
		if err := a.startRouter(ctx); err != nil {
			return err
		}
	}
	if a.has(cluster.RoleNode) {
		return a.startNode(links)
	}
	return nil
}

func (a *App) has(r cluster.Role) bool { return slices.Contains(a.roles, r) }

// run runs work in the background until stop is called, and fails the process if it ends with an error before.
func (a *App) run(name string, work func(context.Context) error) (stop func(context.Context) error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	a.background.Go(func() {
		defer close(done)
		if err := work(ctx); err != nil && ctx.Err() == nil {
			a.fail(fmt.Errorf("%s: %w", name, err))
		}
	})
	return func(stopping context.Context) error {
		cancel(errStopped)
		select {
		case <-done:
			return nil
		case <-stopping.Done():
			return context.Cause(stopping)
		}
	}
}

var errStopped = errors.New("stopped")

func (a *App) startHistory() error {
	var h *history.History
	o := history.Options{
		Log: a.parts.log, Store: a.parts.store, Clock: a.clock, Logger: a.log.Named("history"), Registerer: a.registry,
	}
	if !a.dev {
		o.Leases, o.Owner = a.parts.presence, a.self.ID
		o.Wants = func(partition int32) bool {
			members, _ := a.parts.members.Members()
			owner, ok := cluster.Rendezvous(partition, cluster.InOffice(members, cluster.RoleHistory))
			return !ok || owner.ID == o.Owner
		}
	}
	h, err := history.New(o)
	if err != nil {
		return err
	}
	a.life.add("history", a.run("history", h.Run))
	a.readyWhen(string(cluster.RoleHistory), h.Ready())
	return nil
}

func (a *App) startRouter(ctx context.Context) error {
	r, err := deliver.New(deliver.Options{
		Self: a.member(), Membership: a.parts.members, Log: a.parts.log, Store: a.parts.store, Presence: a.parts.presence,
		Pool: a.parts.pool, Clock: a.clock, Logger: a.log.Named("router"), Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	end := a.run("router", r.Run)
	a.life.add("router", func(ctx context.Context) error { return errors.Join(r.Stop(ctx), end(ctx)) })
	a.readyWhen(string(cluster.RoleRouter), r.Ready())
	select {
	case <-r.Ready():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// readyWhen marks a role as ready once ch is closed.
func (a *App) readyWhen(role string, ch <-chan struct{}) {
	stop := a.run(role+" readiness", func(ctx context.Context) error {
		select {
		case <-ch:
			a.health.Set(role, "")
		case <-ctx.Done():
		}
		return nil
	})
	a.life.add(role+" readiness", stop)
}

// nodeRole is what a node is made of.
type nodeRole struct {
	node   *node.Node
	log    *eventlog.Guard
	outbox *outbox.Publisher
	fencer *fence.Fencer
}

func (a *App) newNode() (*nodeRole, error) {
	cfg, p := a.cfg, &a.parts
	service := chat.New(chat.Options{Store: p.store, Topic: p.topic, Now: a.clock.Now})
	n := &nodeRole{log: eventlog.NewGuard(p.log)}
	var err error
	if n.outbox, err = outbox.New(outbox.Options{
		Store: p.store, Log: n.log, Partitions: p.topic.Partitions, Leases: p.presence, Owner: a.self.ID,
		Clock: a.clock, Logger: a.log.Named("outbox"), Registerer: a.registry, Failpoint: failpoint,
		Fence: func(ctx context.Context, conversation string, version uint64) error {
			return n.fencer.Fence(ctx, conversation, version)
		},
	}); err != nil {
		return nil, err
	}
	line := timeline.New(timeline.Options{Store: p.store, Recents: p.presence, Log: p.log, Topic: p.topic, Clock: a.clock})
	if n.node, err = node.New(node.Options{
		Name: cfg.Name, Cluster: cfg.Cluster, Topic: p.topic, Service: service, Timeline: line, Outbox: n.outbox, Log: n.log,
		Locator: p.presence, Kicker: p.pool, Elsewhere: a.otherNodes, Clock: a.clock, Ping: cfg.Ping, Silence: cfg.Silence, MaxFrame: wire.DefaultMaxFrame,
		Logger: a.log.Named("node"), Registerer: a.registry,
	}); err != nil {
		return nil, err
	}
	if n.fencer, err = fence.New(fence.Options{
		Store: p.presence, Members: p.members, Link: p.pool, Self: a.self.ID, Own: n.node.Fence, Alone: a.dev,
		Clock: a.clock, Logger: a.log.Named("fence"), Registerer: a.registry,
	}); err != nil {
		return nil, err
	}
	a.life.add("fence", func(context.Context) error { return n.fencer.Close() })
	return n, nil
}

// startNode takes links and clients. What it adds to the lifecycle is, from the last to the first: clients leave, the gate
// closes, presence is given up, links end, workers end.
func (a *App) startNode(links *links) error {
	n, err := a.newNode()
	if err != nil {
		return err
	}
	a.life.add("node", func(context.Context) error { n.node.Stop(); return nil })
	presenceNode := presence.NewNode(presence.NodeOptions{
		Store: a.parts.presence, PeerAddr: a.peerAddr, Clock: a.clock, Logger: a.log.Named("presence"),
		Keeper:     presence.KeeperOptions{NewIncarnation: newID},
		Registered: n.node.Registered, GroupRegistered: n.node.GroupRegistered, Compare: n.node.Compare, Suspend: n.node.Suspend, Resume: n.node.Resume,
	})
	n.node.Start(presenceNode)
	links.node.Store(n.node)
	a.node.Store(n.node)
	a.life.add("fence watch", a.run("fence watch", n.fencer.Run))
	a.life.add("outbox", a.run("outbox", n.outbox.Run))
	endPresence := a.run("presence", presenceNode.Run)
	a.life.add("presence", func(ctx context.Context) error { return errors.Join(presenceNode.Close(ctx), endPresence(ctx)) })

	gate, err := tcpgate.Listen(tcpgate.Options{
		Addr: a.cfg.Addr, Handler: gateHandler{n.node}, Loops: a.cfg.Loops, MaxConns: a.cfg.MaxConns,
		MaxFrame: wire.DefaultMaxFrame, IdleTimeout: a.cfg.Silence,
		Final: finalFrame(n.node), Refused: refusal(n.node), Logger: a.log.Named("gate"), Registerer: a.registry,
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.clientAddr = gate.Addr().String()
	a.mu.Unlock()
	a.life.add("gate", gate.Close)
	a.life.add("clients", func(ctx context.Context) error {
		gate.StopAccepting()
		draining, cancel := context.WithTimeout(ctx, a.cfg.DrainTimeout)
		defer cancel()
		began, clients := time.Now(), gate.Conns()
		if err := n.node.Drain(draining); err != nil {
			a.log.Warn("clients were still there at the end of the drain", zap.Int("connections", gate.Conns()))
		}
		a.log.Info("clients have been sent elsewhere", zap.Int("connections", clients), zap.Duration("took", time.Since(began)))
		return nil
	})
	watch := a.run("gate", func(ctx context.Context) error {
		select {
		case err := <-gate.Failed():
			return err
		case <-ctx.Done():
			return nil
		}
	})
	a.life.add("gate watch", watch)
	a.life.add("log watch", a.run("log watch", a.watchLog(n)))
	a.health.Set(string(cluster.RoleNode), "")
	return nil
}

// watchLog looks now and then whether the log still is the one that is known. If not, nothing more may go into it: the positions
// of what was would be given to other messages.
func (a *App) watchLog(n *nodeRole) func(context.Context) error {
	const every = 5 * time.Second
	return func(ctx context.Context) error {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
			known := a.parts.topic
			halted := func(err error, partitions ...int32) {
				if !errors.Is(err, eventlog.ErrHalted) {
					return
				}
				n.log.Halt(partitions...)
				a.health.Set(string(cluster.RoleNode), err.Error())
				a.log.Error("halted: messages are refused until an operator has decided (chatd admin epoch raise)", zap.Error(err))
			}
			halted(eventlog.Verify(ctx, a.parts.log, known))
			now, err := a.parts.store.LogState(ctx, known.Topic)
			if err != nil {
				continue // looked at again
			}
			n.node.LogSeen(now.Seen)
			for p, seen := range now.Seen {
				halted(eventlog.VerifyOffset(ctx, a.parts.log, known.Topic, p, seen), p)
			}
		}
	}
}
