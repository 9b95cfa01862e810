package tcpgate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Gate is a listening address with its loops and connections.
type Gate struct {
	// Set at start.
	opts          Options
	metrics       *metrics
	loops         []*loop
	born          time.Time
	maxDescriptor int
	closing       chan struct{}
	failed        chan error
	shut          func()

	ids      atomic.Uint64
	count    atomic.Int64
	draining atomic.Bool

	mu   sync.Mutex
	addr net.Addr // as served; guarded by mu
}

// Listen serves opts.Addr until Close.
func Listen(opts Options) (*Gate, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	g := &Gate{
		opts:    opts,
		born:    time.Now(),
		closing: make(chan struct{}),
		failed:  make(chan error, 1),
	}
	g.shut = sync.OnceFunc(func() { close(g.closing) })
	var err error
	if g.opts.MaxConns, g.maxDescriptor, err = limits(opts.MaxConns); err != nil {
		return nil, err
	}
	if g.addr, err = probe(opts.Addr); err != nil {
		return nil, err
	}
	if g.metrics, err = newMetrics(opts.Registerer, func() float64 { return float64(g.count.Load()) }); err != nil {
		return nil, err
	}
	for i := range opts.Loops {
		l := newLoop(g, i)
		g.loops = append(g.loops, l)
		if err := l.start(); err != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			return nil, errors.Join(fmt.Errorf("tcpgate: listen on %s: %w", opts.Addr, err), g.Close(ctx))
		}
	}
	return g, nil
}

// probe resolves addr, and finds out whether someone else listens there: with
// SO_REUSEPORT the kernel would silently share the port with another process
// of this user.
func probe(addr string) (net.Addr, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("tcpgate: %w", err)
	}
	resolved := *ln.Addr().(*net.TCPAddr)
	if err := ln.Close(); err != nil {
		return nil, fmt.Errorf("tcpgate: %w", err)
	}
	if _, port, _ := net.SplitHostPort(addr); port == "0" || port == "" {
		resolved.Port = 0
	}
	return &resolved, nil
}

// Addr is the address served, with its real port.
func (g *Gate) Addr() net.Addr {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addr
}

func (g *Gate) setAddr(addr net.Addr) {
	g.mu.Lock()
	g.addr = addr
	g.mu.Unlock()
}

// Conns is the number of open connections.
func (g *Gate) Conns() int { return int(g.count.Load()) }

// Failed gets an error if a loop does not come up, or has ended and could not be
// served again for about a minute. The gate then misses connections, and its
// process should be replaced.
func (g *Gate) Failed() <-chan error { return g.failed }

func (g *Gate) fail(err error) {
	g.opts.Logger.Error(err.Error())
	select {
	case g.failed <- err:
	default: // the first says it
	}
}

// StopAccepting refuses connections from now on; those that are open stay. evio
// cannot close a listener alone, so new ones are accepted and closed at once,
// with Options.Refused.
func (g *Gate) StopAccepting() { g.draining.Store(true) }

// Push queues one encoded frame for many connections, as Send does for one, and
// wakes each loop once. It returns those that had no room for it; connections
// that have closed are left out silently.
func (g *Gate) Push(frame []byte, conns []*Conn) (slow []*Conn) {
	for _, c := range conns {
		if errors.Is(c.enqueue(frame), ErrSlowConsumer) {
			slow = append(slow, c)
		}
	}
	for _, l := range g.loops {
		l.nudge()
	}
	return slow
}

// Close closes every connection, each with Options.Final and its Linger, and
// ends the loops. When ctx is done it cuts what is still open and returns the
// context's cause. Every connection's Closed has returned when Close does,
// unless a handler blocks. A handler must not call it: it waits for the loops.
func (g *Gate) Close(ctx context.Context) error {
	g.StopAccepting()
	g.shut()
	for _, l := range g.loops {
		l.stop(false)
	}
	var late error
	for _, l := range g.loops {
		select {
		case <-l.done:
			continue
		case <-ctx.Done():
			late = context.Cause(ctx)
		}
		l.stop(true)
		select {
		case <-l.done:
		case <-time.After(startTimeout):
			late = errors.Join(late, errors.New("tcpgate: event loop does not end: a handler blocks"))
		}
	}
	return late
}

// admit counts a connection in, or says why not.
func (g *Gate) admit(fd int) RefuseReason {
	if g.draining.Load() {
		return RefuseDraining
	}
	if fd >= g.maxDescriptor {
		return RefuseDescriptors
	}
	if g.count.Add(1) > int64(g.opts.MaxConns) {
		g.count.Add(-1)
		return RefuseMaxConns
	}
	return ""
}

// released counts a connection out.
func (g *Gate) released(reason CloseReason, unsent int) {
	g.count.Add(-1)
	g.metrics.closed.WithLabelValues(string(reason)).Inc()
	if unsent > 0 {
		g.metrics.dropped.WithLabelValues(dropClosed).Add(float64(unsent))
	}
}

func (g *Gate) final(reason CloseReason) []byte {
	if g.opts.Final == nil {
		return nil
	}
	return g.opts.Final(reason)
}

// clock is the time since the gate was born, in nanoseconds, and never 0.
func (g *Gate) clock() int64 { return int64(time.Since(g.born)) + 1 }
