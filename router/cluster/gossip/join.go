package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"strconv"
	"time"

	"go.uber.org/zap"
)

const (
	resolveTimeout = 2 * time.Second
	// firstWait is between the first two tries of the seeds while nobody is in view; it doubles up to the usual wait.
	firstWait = 200 * time.Millisecond
)

// join tries the seeds that are not in view, until ctx ends: at the start some may not be up, and after a long cut only this
// brings the halves together. Seeds in view cost nothing.
func (g *Gossip) join(ctx context.Context) {
	defer close(g.ended)
	wait := min(firstWait, g.rejoin)
	for ctx.Err() == nil {
		g.joinOnce(ctx)
		if g.alone() {
			wait = min(wait*2, g.rejoin)
		} else {
			wait = g.rejoin
		}
		// A cluster that starts at once should not knock at its seeds at once.
		t := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

func (g *Gossip) alone() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.nodes) <= 1
}

func (g *Gossip) joinOnce(ctx context.Context) {
	for _, i := range rand.Perm(len(g.seeds)) {
		for _, addr := range g.resolve(ctx, g.seeds[i]) {
			if ctx.Err() != nil {
				return
			}
			if g.inView(addr) {
				continue
			}
			if _, err := g.list.Join([]string{addr}); err != nil {
				g.log.Debug("seed not reached", zap.String("seed", g.seeds[i]), zap.String("address", addr), zap.Error(err))
			}
		}
	}
}

func (g *Gossip) inView(addr string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range g.nodes {
		if n.addr == addr {
			return true
		}
	}
	return false
}

// resolve gives a seed's addresses as ip:port; a name that does not resolve may do so later.
func (g *Gossip) resolve(ctx context.Context, seed string) []string {
	host, port, err := splitPort(seed)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		g.log.Debug("seed not resolved", zap.String("seed", seed), zap.Error(err))
		return nil
	}
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = net.JoinHostPort(ip.String(), strconv.Itoa(port))
	}
	return addrs
}
