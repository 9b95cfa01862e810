package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/router/peer/peerv1"
)

// state is that of the link to a remote.
type state uint8

const (
	// dialling for the first time: what is sent waits for the link.
	dialling state = iota
	up
	// down: dialled again with back-off; what is sent fails at once, so that a dead process costs nothing.
	down
	// ended: unused for long, or the pool is closed. What is sent has to find another remote.
	ended
)

// remote is the process at one address. Two goroutines own it: run makes the link and writes to it, keep tells failed calls and
// sends pings. While the link is up a third reads.
type remote struct {
	pool   *Pool
	addr   string
	ctx    context.Context // ends with the remote
	cancel context.CancelCauseFunc
	wake   chan struct{} // keep has something to do
	ran    chan struct{} // closed when run has ended

	mu       sync.Mutex
	state    state
	out      *outbox // of the link that is up or comes next
	calls    calls
	failed   []*call // taken out, to be told by keep
	used     time.Time
	nextPing time.Time
	nextLook time.Time // when keep wakes by itself
}

func newRemote(p *Pool, addr string) *remote {
	r := &remote{
		pool: p, addr: addr, wake: make(chan struct{}, 1), ran: make(chan struct{}),
		out: newOutbox(p.o.MaxQueued, p.metrics.queued), calls: calls{byID: make(map[uint64]*call)}, used: time.Now(),
	}
	r.ctx, r.cancel = context.WithCancelCause(p.ctx)
	return r
}

// send queues a call's frame; with err it only sees to it that the call is told. False if the remote has ended.
func (r *remote) send(c *call, frame []byte, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == ended {
		return false
	}
	r.used = c.begun
	if err == nil {
		err = r.queueLocked(frame)
	}
	if err != nil {
		c.err = err
		r.failed = append(r.failed, c)
		r.signal()
		return true
	}
	r.calls.add(c)
	if c.deadline.Before(r.nextLook) {
		r.nextLook = c.deadline
		r.signal()
	}
	return true
}

// post queues a frame that has no answer. took is false if the remote has ended.
func (r *remote) post(frame []byte) (took bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == ended {
		return false, nil
	}
	r.used = time.Now()
	return true, r.queueLocked(frame)
}

func (r *remote) queueLocked(frame []byte) error {
	if r.state == down {
		return ErrLost
	}
	err := r.out.put(frame)
	if errors.Is(err, errClosed) {
		return ErrLost // the link broke just now
	}
	return err
}

func (r *remote) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run makes the link, and makes it again when it breaks, until the remote ends.
func (r *remote) run() {
	defer close(r.ran)
	t := r.pool.o.timing
	wait := t.backoff
	for r.ctx.Err() == nil {
		s, err := r.dial()
		if err == nil {
			begun := time.Now()
			err = r.serve(s)
			if time.Since(begun) > t.backoffTo {
				wait = t.backoff
			}
		}
		if r.ctx.Err() != nil {
			break
		}
		r.lost(err)
		// All who lost a process come back to it when it is up again: not at once, please.
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-r.ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		wait = min(wait*2, t.backoffTo)
	}
	r.end()
}

// session is one life of the link.
type session struct {
	conn   *tls.Conn
	frames *frameReader
	peer   string // what the other side calls itself
}

// dial makes the link, and returns when the other side took it.
func (r *remote) dial() (*session, error) {
	p := r.pool
	ctx, cancel := context.WithTimeout(r.ctx, p.o.DialTimeout)
	defer cancel()
	s, err := r.connect(ctx)
	p.metrics.dials.WithLabelValues(resultOfDial(err)).Inc()
	return s, err
}

func resultOfDial(err error) string {
	if err != nil {
		return resultFailed
	}
	return resultGood
}

func (r *remote) connect(ctx context.Context) (*session, error) {
	return connect(ctx, r.addr, r.pool.tls, r.pool.o.Self, r.pool.o.timing.silent)
}

// connect makes a link as self; the other side is taken for dead when it is silent for so long.
func connect(ctx context.Context, addr string, config *tls.Config, self string, silent time.Duration) (_ *session, err error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { abort(raw) })
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			abort(raw)
		}
	}()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	hello, err := encode(helloFrame(self))
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(hello); err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	// In TLS 1.3 a client is done before the server has judged it: only its Hello says that we are taken.
	s := &session{conn: conn, frames: &frameReader{r: conn, limit: maxHello}}
	f, err := s.frames.next()
	if err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	if f.GetHello() == nil {
		return nil, fmt.Errorf("%w: no hello", errMalformed)
	}
	s.peer = f.GetHello().Self
	s.frames.r, s.frames.limit = bufio.NewReaderSize(&patientConn{conn, silent}, keepBuf), MaxFrame
	return s, nil
}

// serve writes and reads until the link breaks, and says why.
func (r *remote) serve(s *session) error {
	m := r.pool.metrics
	raw := s.conn.NetConn()
	m.links.Inc()
	defer m.links.Dec()
	r.mu.Lock()
	out := r.out
	if r.state != ended {
		r.state = up
	}
	r.nextPing = time.Now().Add(r.pool.o.timing.ping)
	r.mu.Unlock()
	var calm atomic.Bool // ended with nothing under way
	defer context.AfterFunc(r.ctx, func() {
		r.mu.Lock()
		calm.Store(len(r.calls.byID) == 0)
		r.mu.Unlock()
		if calm.Load() {
			out.close()
		} else {
			abort(raw)
		}
	})()
	r.signal()
	r.pool.log.Info("peer link up", zap.String("address", r.addr), zap.String("peer", s.peer))
	read := make(chan error, 1)
	go func() {
		err := r.read(s.frames)
		out.close() // ends the writer,
		abort(raw)  // also when it is blocked
		read <- err
	}()
	err := out.write(s.conn, stallAfter)
	out.close()
	if calm.Load() {
		_ = s.conn.CloseWrite() // a good-bye: nothing was lost
	}
	abort(raw)
	// Of the two ends the first to fail has the reason: the other finds everything closed.
	if readErr := <-read; errors.Is(err, errClosed) || errors.Is(err, net.ErrClosed) {
		err = readErr
	}
	m.lost.WithLabelValues(lostReason(err)).Inc()
	return err
}

func (r *remote) read(frames *frameReader) error {
	m := r.pool.metrics
	for {
		f, err := frames.next()
		if err != nil {
			return err
		}
		switch b := f.Body.(type) {
		case *peerv1.Frame_Answer:
			a, err := answerIn(b.Answer)
			if err != nil {
				return err
			}
			if c := r.answered(b.Answer.Id, false); c != nil {
				c.tell(m, a, nil)
			}
		case *peerv1.Frame_Fenced:
			if c := r.answered(b.Fenced.Id, true); c != nil {
				c.tellFenced(m, Fenced{Self: b.Fenced.Self, Incarnation: b.Fenced.Incarnation}, nil)
			}
		case *peerv1.Frame_Pong:
		default:
			m.unknown.Inc()
		}
	}
}

// answered takes the call that an answer is for: nil if it came too late, or answers what was not asked.
func (r *remote) answered(id uint64, fence bool) *call {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.calls.byID[id]; c == nil || (c.fenced != nil) != fence {
		r.pool.metrics.late.Inc()
		return nil
	}
	return r.calls.take(id)
}

// lost fails all that is under way.
func (r *remote) lost(err error) {
	r.mu.Lock()
	first := r.state == dialling || r.state == up
	if r.state != ended {
		r.state = down
	}
	r.failAllLocked()
	r.mu.Unlock()
	if !first {
		r.pool.log.Debug("peer still down", zap.String("address", r.addr), zap.Error(err))
		return
	}
	r.pool.log.Warn("peer link lost", zap.String("address", r.addr), zap.Error(err))
}

func (r *remote) end() {
	r.cancel(errClosed)
	r.mu.Lock()
	r.state = ended
	r.failAllLocked()
	r.out.close()
	r.mu.Unlock()
	r.pool.forget(r)
}

func (r *remote) failAllLocked() {
	for _, c := range r.calls.byID {
		c.err = ErrLost
		r.failed = append(r.failed, c)
	}
	r.calls = calls{byID: make(map[uint64]*call)}
	r.out.close()
	r.out = newOutbox(r.pool.o.MaxQueued, r.pool.metrics.queued)
	r.signal()
}

// keep tells failed calls, and sees to deadlines, pings and idleness, until run has ended.
func (r *remote) keep() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for running := true; running; {
		select {
		case <-r.ran:
			running = false
		case <-r.wake:
		case <-timer.C:
		}
		failed, next := r.look(time.Now())
		for _, c := range failed {
			c.tell(r.pool.metrics, Answer{}, c.err)
		}
		timer.Reset(time.Until(next))
	}
}

// look returns what is to be told now, and when to look again.
func (r *remote) look(now time.Time) (failed []*call, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	failed, r.failed = r.failed, nil
	for c := r.calls.takeDue(now); c != nil; c = r.calls.takeDue(now) {
		c.err = ErrTimeout
		failed = append(failed, c)
	}
	next = r.used.Add(r.pool.o.IdleAfter)
	if !next.After(now) {
		if len(r.calls.byID) == 0 && r.state != ended {
			r.state = ended
			r.cancel(errClosed) // run sees to the rest
		}
		next = now.Add(r.pool.o.IdleAfter)
	}
	if r.state == up {
		if !r.nextPing.After(now) {
			// A queue that is full or closed needs no ping to be found out.
			_ = r.out.put(r.pool.ping)
			r.nextPing = now.Add(r.pool.o.timing.ping)
		}
		next = earlier(next, r.nextPing)
	}
	if len(r.calls.byDeadline) > 0 {
		next = earlier(next, r.calls.byDeadline[0].deadline)
	}
	r.nextLook = next
	return failed, next
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
