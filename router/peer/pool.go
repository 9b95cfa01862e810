package peer

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/peer/peerv1"
)

// PoolOptions are what NewPool needs. Secret, Cluster and Logger have no defaults.
type PoolOptions struct {
	Secret  []byte
	Cluster string
	// Self is this process's life: it is told to the other side, for its logs.
	Self   string
	Logger *zap.Logger
	// Registerer, if not nil, gets the metrics.
	Registerer prometheus.Registerer
	// DialTimeout is for connecting, the handshake and Hello together. Default 2 s.
	DialTimeout time.Duration
	// IdleAfter is how long a link lives without Send, Fence or Kick. Default 5 min.
	IdleAfter time.Duration
	// MaxQueued bounds the bytes that wait on one link. Default 16 MiB.
	MaxQueued int

	timing timing // for tests
}

type timing struct {
	ping, silent       time.Duration
	backoff, backoffTo time.Duration
}

// Pool holds the links to other processes, one per address, made when they are first needed. It is safe for concurrent use.
type Pool struct {
	o       PoolOptions
	tls     *tls.Config
	metrics *poolMetrics
	log     *zap.Logger
	ping    []byte // an encoded frame
	nextID  atomic.Uint64

	// ctx ends with Close.
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // two goroutines per remote

	mu      sync.Mutex
	closed  bool
	remotes map[string]*remote
}

// NewPool makes a pool; it dials nobody yet. It must be closed.
func NewPool(o PoolOptions) (*Pool, error) {
	if o.Logger == nil {
		return nil, errors.New("peer: pool needs a logger")
	}
	o.DialTimeout = cmp.Or(o.DialTimeout, 2*time.Second)
	o.IdleAfter = cmp.Or(o.IdleAfter, 5*time.Minute)
	o.MaxQueued = cmp.Or(o.MaxQueued, 16<<20)
	o.timing = timing{
		ping: cmp.Or(o.timing.ping, pingEvery), silent: cmp.Or(o.timing.silent, silentAfter),
		backoff: cmp.Or(o.timing.backoff, 50*time.Millisecond), backoffTo: cmp.Or(o.timing.backoffTo, 2*time.Second),
	}
	config, err := tlsConfig(o.Secret, o.Cluster)
	if err != nil {
		return nil, err
	}
	metrics, err := newPoolMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	ping, err := encode(&peerv1.Frame{Body: &peerv1.Frame_Ping{Ping: &peerv1.Ping{}}})
	if err != nil {
		return nil, err
	}
	p := &Pool{o: o, tls: config, metrics: metrics, log: o.Logger, ping: ping, remotes: make(map[string]*remote)}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	return p, nil
}

// Send forwards f to the process at addr and never blocks. done is called once, from a goroutine of the pool, with the answer
// or with ErrLost, ErrTimeout, ErrFull or ErrTooLarge; it must not block, and may call Send. Frames to one address leave in the
// order of the calls. f must not be changed before done. After Close, done is called with ErrLost before Send returns.
func (p *Pool) Send(addr string, f Forward, timeout time.Duration, done func(Answer, error)) {
	now := time.Now()
	c := &call{id: p.nextID.Add(1), done: done, begun: now, deadline: now.Add(timeout)}
	frame, err := forwardFrame(c.id, &f)
	var encoded []byte
	if err == nil {
		encoded, err = encode(frame)
	}
	p.call(addr, c, encoded, err)
}

// Fence sends f to the process at addr, as Send does.
func (p *Pool) Fence(addr string, f Fence, timeout time.Duration, done func(Fenced, error)) {
	now := time.Now()
	c := &call{id: p.nextID.Add(1), fenced: done, begun: now, deadline: now.Add(timeout)}
	encoded, err := encode(&peerv1.Frame{Body: &peerv1.Frame_Fence{Fence: &peerv1.Fence{
		Id: c.id, Conversation: f.Conversation, Version: f.Version,
	}}})
	p.call(addr, c, encoded, err)
}

// call has a call's frame sent; with err it only sees to it that the call is told.
func (p *Pool) call(addr string, c *call, encoded []byte, err error) {
	for {
		r := p.remote(addr)
		if r == nil {
			c.tell(p.metrics, Answer{}, ErrLost)
			return
		}
		if r.send(c, encoded, err) {
			return
		}
		p.forget(r)
	}
}

// Kick sends k to the process at addr, if it can; what becomes of it is only counted.
func (p *Pool) Kick(addr string, k Kick) {
	encoded, err := encode(kickFrame(k))
	for err == nil {
		r := p.remote(addr)
		if r == nil {
			err = ErrLost
			break
		}
		var took bool
		if took, err = r.post(encoded); took {
			break
		}
		p.forget(r)
	}
	p.metrics.kicks.WithLabelValues(resultOf(err, resultQueued)).Inc()
}

// Close ends all links, fails what is under way with ErrLost and waits until that is told: so it must not be called from done.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel(errClosed)
	p.wg.Wait()
	return nil
}

// remote returns the one for addr, and nil after Close.
func (p *Pool) remote(addr string) *remote {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	r := p.remotes[addr]
	if r == nil {
		r = newRemote(p, addr)
		p.remotes[addr] = r
		p.wg.Add(2)
		go func() {
			defer p.wg.Done()
			r.run()
		}()
		go func() {
			defer p.wg.Done()
			r.keep()
		}()
	}
	return r
}

// forget takes a remote that has ended out of the pool.
func (p *Pool) forget(r *remote) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.remotes[r.addr] == r {
		delete(p.remotes, r.addr)
	}
}

// resultOf gives a metric's label.
func resultOf(err error, good string) string {
	switch {
	case err == nil:
		return good
	case errors.Is(err, ErrTimeout):
		return resultTimeout
	case errors.Is(err, ErrFull):
		return resultFull
	case errors.Is(err, ErrTooLarge):
		return resultTooLarge
	}
	return resultLost
}
