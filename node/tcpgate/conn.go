package tcpgate

import (
	"net"
	"sync"
	"sync/atomic"
)

// Conn is one connection. Its methods may be called from any goroutine, never
// block, and stay callable after the connection has ended.
type Conn struct {
	// Set at start.
	loop   *loop
	id     uint64
	remote net.Addr
	opened int64 // when, in the gate's time

	// Owned by the loop's goroutine.
	fd        int // -1 once evio has closed it
	reader    frameReader
	lastFrame int64
	greeted   bool // a first frame came
	paused    bool // epoll does not report its input
	ending    bool // the close has begun on the loop
	hopeless  bool // its socket takes nothing: cut it without a last try
	finSent   bool // SHUT_WR done
	cutAt     int64
	err       error

	blocked    bool // its socket took less than was queued
	listed     bool // in loop.blocked
	retryAt    int64
	backoff    int64
	progressAt int64

	slot                 int
	wheelNext, wheelPrev *Conn

	// Shared.
	wantPause atomic.Bool
	loggedIn  atomic.Bool
	closing   atomic.Bool // set under mu, with reason

	mu      sync.Mutex
	out     outbox
	reason  CloseReason // why it closes
	posted  bool        // in the loop's mailbox
	starved bool        // a frame was refused since the queue was last empty
	value   any
}

// ID is unique among the gate's connections of this process.
func (c *Conn) ID() uint64 { return c.id }

// RemoteAddr is the peer's address as accept gave it.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Value is what SetValue stored last.
func (c *Conn) Value() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.value
}

// SetValue stores what the handler wants to find again, such as its session.
func (c *Conn) SetValue(v any) {
	c.mu.Lock()
	c.value = v
	c.mu.Unlock()
}

// Send queues one encoded frame, length prefix included, for writing. The frame
// must not change afterwards; it may be shared between connections. It returns
// ErrSlowConsumer if the queue has no room and ErrClosed if the connection
// closes; in both cases nothing of the frame is sent. nil means queued: what a
// connection that ends has not taken by then is dropped, and counted.
func (c *Conn) Send(frame []byte) error {
	if err := c.enqueue(frame); err != nil {
		return err
	}
	c.loop.wake()
	return nil
}

// Queued is what waits to be written.
func (c *Conn) Queued() (frames, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.frames(), c.out.bytes
}

// LoggedIn ends the login deadline.
func (c *Conn) LoggedIn() { c.loggedIn.Store(true) }

// PauseReads stops Frame after the one that is being handled, if any: what the
// peer sends stays in the kernel, up to 64 KiB already read are kept, and TCP
// slows the peer down. Time without frames does not count as idle meanwhile. A
// peer that goes away is noticed only once reads are resumed, unless it resets.
func (c *Conn) PauseReads() {
	if !c.wantPause.Swap(true) {
		c.loop.post(c)
	}
}

// ResumeReads takes up Frame again.
func (c *Conn) ResumeReads() {
	if c.wantPause.Swap(false) {
		c.loop.post(c)
	}
}

// Close ends the connection: what is queued is written as far as the peer takes
// it before Options.Linger is over, then the socket is shut down. The first
// reason given stands. Closed comes when the socket is really closed.
func (c *Conn) Close(reason CloseReason) { c.closeWith(reason, nil) }

func (c *Conn) closeWith(reason CloseReason, final []byte) {
	c.mu.Lock()
	if c.closing.Load() {
		c.mu.Unlock()
		return
	}
	c.reason = reason
	c.closing.Store(true)
	if len(final) > 0 {
		c.out.push(final)
	}
	c.mu.Unlock()
	c.loop.post(c)
}

// enqueue leaves the frame in the queue and the connection in its loop's
// mailbox, without waking the loop.
func (c *Conn) enqueue(frame []byte) error {
	if len(frame) == 0 {
		return nil
	}
	opts := &c.loop.gate.opts
	c.mu.Lock()
	if c.closing.Load() {
		c.mu.Unlock()
		return ErrClosed
	}
	// A lone frame fits whatever its size: were it refused, nothing would be left
	// whose writing could announce that there is room.
	queued := c.out.frames()
	if queued > 0 && (c.out.bytes+len(frame) > opts.OutboundBytes || queued >= opts.OutboundFrames) {
		c.starved = true
		c.mu.Unlock()
		c.loop.gate.metrics.dropped.WithLabelValues(dropOverBudget).Inc()
		return ErrSlowConsumer
	}
	c.out.push(frame)
	post := !c.posted
	c.posted = true
	c.mu.Unlock()
	if post {
		c.loop.put(c)
	}
	return nil
}

// outbox is the queue of frames not yet written. Frames are shared and only
// referred to. Guarded by Conn.mu.
type outbox struct {
	queue  [][]byte
	head   int // frames of queue already written
	offset int // bytes of queue[head] already written
	bytes  int
	inline [2][]byte // most queues are shorter: no allocation for them
}

func (o *outbox) frames() int { return len(o.queue) - o.head }

func (o *outbox) push(frame []byte) {
	if o.queue == nil {
		o.queue = o.inline[:0]
	}
	if o.head > 0 && len(o.queue) == cap(o.queue) && o.head >= len(o.queue)/2 {
		n := copy(o.queue, o.queue[o.head:])
		clear(o.queue[n:])
		o.queue, o.head = o.queue[:n], 0
	}
	o.queue = append(o.queue, frame)
	o.bytes += len(frame)
}

// gather appends to dst what is to be written next, as many pieces as dst has
// room for.
func (o *outbox) gather(dst [][]byte) (pieces [][]byte, bytes int) {
	for i := o.head; i < len(o.queue) && len(dst) < cap(dst); i++ {
		piece := o.queue[i]
		if i == o.head {
			piece = piece[o.offset:]
		}
		dst = append(dst, piece)
		bytes += len(piece)
	}
	return dst, bytes
}

// wrote takes n bytes off the front and returns how many frames that ended.
func (o *outbox) wrote(n int) (frames int) {
	o.bytes -= n
	n += o.offset
	for o.head < len(o.queue) && n >= len(o.queue[o.head]) {
		n -= len(o.queue[o.head])
		o.queue[o.head] = nil
		o.head++
		frames++
	}
	o.offset = n
	if o.head == len(o.queue) {
		o.clear()
	}
	return frames
}

// clear gives all memory back.
func (o *outbox) clear() { *o = outbox{} }
