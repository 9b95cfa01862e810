package gossip

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
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
	wait, tried := min(firstWait, g.rejoin), false
	for ctx.Err() == nil {
		g.joinOnce(ctx)
		if !tried {
			tried = true
			close(g.tried)
		}
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
		seed := g.seeds[i]
		addrs, err := g.resolve(ctx, seed)
		reached := err == nil && len(addrs) > 0
		for _, addr := range addrs {
			if ctx.Err() != nil {
				return
			}
			if g.inView(addr) {
				continue
			}
			if _, joined := g.list.Join([]string{addr}); joined != nil {
				g.log.Debug("seed not reached", zap.String("seed", seed), zap.String("address", addr), zap.Error(joined))
				err, reached = joined, false
			}
		}
		g.tell(ctx, seed, reached, err)
	}
}

// tell says what is wrong with a seed: once, and again when that changes.
func (g *Gossip) tell(ctx context.Context, seed string, reached bool, err error) {
	said := g.said[seed]
	switch {
	case ctx.Err() != nil:
	case reached && said != "":
		delete(g.said, seed)
		g.log.Info("seed reached", zap.String("seed", seed))
	case !reached && err != nil && said == "":
		g.said[seed] = err.Error()
		g.log.Warn("a seed is not reached; it is tried again and again", zap.String("seed", seed), zap.Error(err))
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

// isSRV tells whether a seed is the name of an SRV record: _service._proto.domain, without a port.
func isSRV(seed string) bool { return strings.HasPrefix(seed, "_") && !strings.Contains(seed, ":") }

// mostAddrs bounds what one seed may stand for: a resolver that is not honest must not keep us busy.
const mostAddrs = 64

// resolve gives a seed's addresses as ip:port. A name that does not resolve may do so later.
func (g *Gossip) resolve(ctx context.Context, seed string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	var addrs []string
	add := func(host string, port int) error {
		ips, err := g.resolver.LookupIPAddr(ctx, host)
		for _, ip := range ips {
			if len(addrs) < mostAddrs {
				addrs = append(addrs, net.JoinHostPort(ip.String(), strconv.Itoa(port)))
			}
		}
		return err
	}
	if !isSRV(seed) {
		host, port, err := splitPort(seed)
		if err != nil {
			return nil, err
		}
		err = add(host, port)
		return addrs, err
	}
	_, records, err := g.resolver.LookupSRV(ctx, "", "", seed)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, r := range records {
		errs = append(errs, add(r.Target, int(r.Port)))
	}
	return addrs, errors.Join(errs...)
}
