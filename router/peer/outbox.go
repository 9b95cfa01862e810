package peer

import (
	"bufio"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// errClosed says that a link was closed by this side.
var errClosed = errors.New("peer: link closed")

// outbox is a link's bounded queue of encoded frames and its writer. put never blocks.
type outbox struct {
	limit  int
	queued prometheus.Gauge
	wake   chan struct{}

	mu     sync.Mutex
	frames [][]byte
	bytes  int // of frames and of what is being written
	closed bool
}

func newOutbox(limit int, queued prometheus.Gauge) *outbox {
	return &outbox{limit: limit, queued: queued, wake: make(chan struct{}, 1)}
}

// put queues a frame; ErrFull if that is over the limit, errClosed after close. One frame is always taken, whatever its size.
func (o *outbox) put(frame []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return errClosed
	}
	if o.bytes > 0 && o.bytes+len(frame) > o.limit {
		return ErrFull
	}
	o.frames = append(o.frames, frame)
	o.addLocked(len(frame))
	o.signal()
	return nil
}

// close ends write and drops what is queued.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.closed = true
		o.frames = nil
		o.addLocked(-o.bytes)
		o.signal()
	}
}

func (o *outbox) addLocked(n int) {
	o.bytes += n
	o.queued.Add(float64(n))
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take returns all that is queued, and false after close. What was taken stays in the account until written.
func (o *outbox) take(reuse [][]byte) ([][]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	frames := o.frames
	o.frames = reuse[:0]
	return frames, !o.closed
}

func (o *outbox) written(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.addLocked(-n)
	}
}

// write writes what is put until close or an error. Frames that wait together leave together.
func (o *outbox) write(conn net.Conn, stall time.Duration) error {
	w := bufio.NewWriterSize(&patientConn{conn, stall}, 64<<10)
	var frames [][]byte
	for {
		var open bool
		if frames, open = o.take(frames); !open {
			return errClosed
		}
		if len(frames) == 0 {
			<-o.wake
			continue
		}
		n := 0
		for i, f := range frames {
			if _, err := w.Write(f); err != nil {
				return err
			}
			n += len(f)
			frames[i] = nil
		}
		if err := w.Flush(); err != nil {
			return err
		}
		o.written(n)
	}
}

// patientConn gives each read and write a deadline of its own.
type patientConn struct {
	net.Conn
	patience time.Duration
}

func (c *patientConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *patientConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
