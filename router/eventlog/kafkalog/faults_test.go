package kafkalog_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/futurechat/future/router/eventlog/eventlogtest"
)

// network connects to brokers, and can do to produce requests what a network does: hold them back for long, so that they come
// after the client has given them up, or lose the answer.
type network struct {
	flushes sync.WaitGroup

	mu      sync.Mutex
	conns   map[*faultyConn]struct{}
	stalled bool
	holds   chan struct{} // closed when something is held back
	cut     bool          // the answer to the next produce request is lost
	refuse  bool          // no connection can be made
}

var errCut = errors.New("connection lost")

func newNetwork() *network { return &network{conns: make(map[*faultyConn]struct{})} }

func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	n.mu.Lock()
	refuse := n.refuse
	n.mu.Unlock()
	if refuse {
		return nil, errCut
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &faultyConn{Conn: conn, n: n}
	n.mu.Lock()
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	return c, nil
}

func (n *network) stall() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stalled = true
	n.holds = make(chan struct{})
}

// waitStalled waits until a request is held back.
func (n *network) waitStalled(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	holds := n.holds
	n.mu.Unlock()
	select {
	case <-holds:
	case <-time.After(eventlogtest.Wait):
		t.Fatal("no request came")
	}
}

func (n *network) heldLocked() {
	select {
	case <-n.holds:
	default:
		close(n.holds)
	}
}

// pass lets new requests through again, but keeps back what is held.
func (n *network) pass() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stalled = false
}

func (n *network) cutNext() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = true
}

// resume delivers what was held back, also on connections that the client has closed.
func (n *network) resume() {
	n.mu.Lock()
	n.stalled = false
	var held []*faultyConn
	for c := range n.conns {
		if len(c.held) > 0 {
			held = append(held, c)
		}
	}
	n.mu.Unlock()
	for _, c := range held {
		n.flushes.Go(c.flush)
	}
}

// close drops what is still held back, and waits for what is under way.
func (n *network) close() {
	n.flushes.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		_ = c.Conn.Close()
	}
}

type faultyConn struct {
	net.Conn
	n *network

	// guarded by n.mu
	remain int  // bytes of the request that is being written
	hold   bool // that request is held back
	held   []byte
	cut    bool // the answer to it is lost
	closed bool
}

func (c *faultyConn) Write(b []byte) (int, error) {
	c.n.mu.Lock()
	if c.remain == 0 {
		c.remain = 4 + int(binary.BigEndian.Uint32(b))
		if binary.BigEndian.Uint16(b[4:]) == 0 { // Produce
			if c.hold = c.n.stalled; c.hold {
				c.n.heldLocked()
			}
			c.cut, c.n.cut = c.n.cut, false
		}
	}
	c.remain -= len(b)
	if c.hold {
		c.held = append(c.held, b...)
		c.n.mu.Unlock()
		return len(b), nil
	}
	c.n.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *faultyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.mu.Lock()
	cut := c.cut
	c.n.mu.Unlock()
	if n > 0 && cut { // the broker has done it
		return 0, errors.Join(errCut, c.Conn.Close())
	}
	return n, err
}

func (c *faultyConn) flush() {
	c.n.mu.Lock()
	held, closed := c.held, c.closed
	c.held, c.hold = nil, false
	c.n.mu.Unlock()
	if closed {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	}
	_, err := c.Conn.Write(held)
	if err == nil && closed {
		_, _ = c.Conn.Read(make([]byte, 1)) // the broker has read all of it
	}
	if closed {
		_ = c.forget()
	}
}

// Close closes the connection; with something held back not before that was delivered.
func (c *faultyConn) Close() error {
	c.n.mu.Lock()
	wait := len(c.held) > 0
	c.closed = true
	c.n.mu.Unlock()
	if wait {
		return nil
	}
	return c.forget()
}

func (c *faultyConn) forget() error {
	c.n.mu.Lock()
	delete(c.n.conns, c)
	c.n.mu.Unlock()
	return c.Conn.Close()
}
