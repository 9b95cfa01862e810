package tcpgate

import (
	"errors"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxPieces = 64 // frames per writev
	maxWrites = 16 // writes in a row to one connection, before others get their turn

	// A socket that took less than was queued is tried again after retryMin, and
	// after twice that for each time it took nothing, up to retryMax.
	retryMin = int64(5 * time.Millisecond)
	retryMax = int64(80 * time.Millisecond)
)

// flush writes c's queue until it is empty, which it returns, or the socket
// takes no more, or c has had its share and is put into the mailbox again. Never
// with c.mu held: others queue meanwhile.
func (l *loop) flush(c *Conn, now int64) (empty bool) {
	m := l.gate.metrics
	for range maxWrites {
		c.mu.Lock()
		pieces, bytes := c.out.gather(l.pieces[:0])
		drained := bytes == 0 && c.starved
		if drained {
			c.starved = false
		}
		c.mu.Unlock()
		if bytes == 0 {
			c.blocked = false
			if drained && !c.closing.Load() {
				l.gate.opts.Handler.Drained(c)
			}
			return true
		}
		n, err := write(c.fd, pieces)
		clear(pieces)
		switch {
		case err == nil:
		case errors.Is(err, unix.EAGAIN):
			n = 0
		default:
			l.fail(c, err)
			return false
		}
		if n > 0 {
			c.mu.Lock()
			frames := c.out.wrote(n)
			c.mu.Unlock()
			m.framesOut.Add(float64(frames))
			m.bytesOut.Add(float64(n))
		}
		if n < bytes {
			l.block(c, n > 0, now)
			return false
		}
	}
	c.blocked = false
	l.post(c)
	return false
}

func write(fd int, pieces [][]byte) (int, error) {
	for {
		var n int
		var err error
		if len(pieces) == 1 {
			n, err = unix.Write(fd, pieces[0])
		} else {
			n, err = unix.Writev(fd, pieces)
		}
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// block notes that c's socket is full, and gives c up if that has been so for
// too long.
func (l *loop) block(c *Conn, progress bool, now int64) {
	if !c.blocked {
		c.blocked = true
		c.progressAt = now
		c.backoff = retryMin
		l.gate.metrics.blocked.Inc()
	}
	if progress {
		c.progressAt = now
		c.backoff = retryMin
	}
	c.retryAt = now + c.backoff
	c.backoff = min(2*c.backoff, retryMax)
	if !c.listed {
		c.listed = true
		if len(l.blocked) == 0 || c.retryAt < l.retryAt {
			l.retryAt = c.retryAt
		}
		l.blocked = append(l.blocked, c)
	}
	if stall := l.gate.opts.StallTimeout; stall > 0 && now-c.progressAt >= int64(stall) {
		c.hopeless = true
		c.closeWith(CloseSlowConsumer, nil)
	}
}

// retry gives the blocked connections whose time has come another try.
func (l *loop) retry(now int64) {
	if len(l.blocked) == 0 || now < l.retryAt {
		return
	}
	kept, next := l.blocked[:0], int64(math.MaxInt64)
	late := false
	for i, c := range l.blocked {
		late = late || i%turnPiece == turnPiece-1 && l.late(now)
		if c.fd >= 0 && c.blocked && now >= c.retryAt && !late {
			if c.ending {
				l.end(c, now)
			} else {
				l.flush(c, now)
			}
		}
		if c.fd >= 0 && c.blocked {
			kept = append(kept, c)
			next = min(next, c.retryAt)
		} else {
			c.listed = false
		}
	}
	clear(l.blocked[len(kept):])
	l.blocked, l.retryAt = kept, next
}

// fail gives up a connection whose socket refused a write. evio notices the
// shutdown as the end of its input and closes it.
func (l *loop) fail(c *Conn, err error) {
	if c.err == nil {
		c.err = err
	}
	c.hopeless = true
	c.closeWith(CloseWriteError, nil)
	l.cut(c)
}

// end carries a close on: what is queued, then our FIN, then the wait for the
// peer's. Input is read and discarded meanwhile, since unread input would turn
// the close into a reset that may take the last frames with it.
func (l *loop) end(c *Conn, now int64) {
	if !c.ending {
		c.ending = true
		c.cutAt = now + int64(l.gate.opts.Linger)
		c.reader = frameReader{}
		l.wheel.remove(c)
		l.wheel.add(c, c.cutAt)
		if c.hopeless {
			l.cut(c)
		}
	}
	if c.finSent || !l.flush(c, now) {
		return
	}
	c.finSent = true
	if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil {
		l.cut(c)
	}
}

// cut ends both directions at once: evio reads the end and closes.
func (l *loop) cut(c *Conn) {
	c.finSent = true
	c.blocked = false
	if err := unix.Shutdown(c.fd, unix.SHUT_RDWR); err != nil && c.err == nil && !errors.Is(err, unix.ENOTCONN) {
		c.err = err
	}
}
