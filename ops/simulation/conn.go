package simulation

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node"
)

// conn is a client's connection: the gate's side of it and the wire. Each way is ordered. It may end with what is under way lost,
// at one end sooner than at the other, or be held up, so that all comes later.
type conn struct {
	id  uint64
	w   *world
	dev *device
	p   *proc // the client's
	to  *nodeProc

	client *node.Client // of the node; nil until it has taken the connection
	// As the node has it:
	ended    bool // nothing more is read or taken from the node
	loggedIn bool
	out      [][]byte // not yet taken by the socket
	refused  bool     // ErrSlow was answered: Drained is due
	pumping  bool
	heard    time.Duration // when something came last
	stuck    time.Duration // since when the socket takes nothing; 0: it does

	cut      bool // nothing passes any more
	up, down time.Duration
	heldUp   int // by faults: what is sent waits
	heldDown int
	waiting  []func() // held up on the way to the node, in order
	coming   []func() // on the way to the client, in order
}

const (
	mostOut    = 16 // frames that may wait for the socket
	slowAfter  = 10 * time.Second
	loginAfter = 10 * time.Second
)

var errEnded = errors.New("the connection has ended")

var _ node.Conn = (*conn)(nil)

func (w *world) links() *rand.Rand { return w.stream("client links") }

func (w *world) linkLatency() time.Duration {
	const usual = 10 * time.Millisecond
	r := w.links()
	d := usual/4 + time.Duration(r.Int64N(int64(usual)))
	if r.IntN(50) == 0 {
		d *= 20
	}
	return d
}

// dial connects a client's program to a node; nil if that cannot be reached.
func (w *world) dial(d *device, to *nodeProc) *conn {
	if to == nil || to.p.dead || to.drains {
		return nil
	}
	c := &conn{id: uint64(w.id()), w: w, dev: d, p: d.p, to: to}
	c.arrive(func() {
		c.heard = w.now
		to.conns = append(to.conns, c)
		c.client = to.node.Open(c)
		c.watch()
	})
	return c
}

// arrive has the node take what the client did, in order.
func (c *conn) arrive(f func()) {
	if c.heldUp > 0 {
		c.waiting = append(c.waiting, f)
		return
	}
	c.up = max(c.up+1, c.w.now+c.w.linkLatency())
	c.w.at(c.up, func() {
		switch {
		case c.cut:
		case c.to.p.dead:
			c.breaks(false, c.w.links().IntN(4) > 0)
		default:
			c.to.p.exec(func() {
				if !c.ended {
					f()
				}
			})
		}
	})
}

// send is the client writing a frame.
func (c *conn) send(frame []byte) {
	c.arrive(func() {
		c.heard = c.w.now
		c.client.Frame(frame[wire.HeaderLen:])
	})
}

// release lets go on what was held up.
func (c *conn) release() {
	if c.heldUp == 0 {
		waiting := c.waiting
		c.waiting = nil
		for _, f := range waiting {
			c.arrive(f)
		}
	}
	if c.heldDown == 0 {
		for range c.coming {
			c.down = max(c.down+1, c.w.now+c.w.linkLatency())
			c.w.at(c.down, c.arrived)
		}
	}
}

// watch ends a connection on which nothing comes, or whose client takes nothing, or does not log in.
func (c *conn) watch() {
	opened := c.w.now
	var look func()
	look = func() {
		if c.ended {
			return
		}
		switch {
		case c.w.now-c.heard >= silentAfter:
			c.w.count("connections ended by nodes for silence")
			c.end(pb.Closing_REASON_SILENT)
		case c.stuck > 0 && c.w.now-c.stuck >= slowAfter:
			c.w.count("connections ended for slowness")
			c.end(pb.Closing_REASON_SLOW_CONSUMER)
		case !c.loggedIn && c.w.now-opened >= loginAfter:
			c.end(pb.Closing_REASON_SILENT)
		default:
			c.w.after(time.Second, func() { c.to.p.exec(look) })
		}
	}
	c.w.after(time.Second, func() { c.to.p.exec(look) })
}

// end is the gate ending a connection with a last word.
func (c *conn) end(reason pb.Closing_Reason) {
	if frame := c.to.node.FinalFrame(reason); frame != nil {
		c.out = append(c.out, frame)
	}
	c.Close(reason)
}

// ID implements node.Conn.
func (c *conn) ID() uint64 { return c.id }

// RemoteAddr implements node.Conn.
func (c *conn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(10, 0, 0, byte(c.dev.n)), Port: 1}
}

// LoggedIn implements node.Conn.
func (c *conn) LoggedIn() { c.loggedIn = true }

// Send implements node.Conn.
func (c *conn) Send(frame []byte) error {
	switch {
	case c.ended || c.to.p.dead:
		return errEnded
	case len(c.out) >= mostOut:
		c.refused = true
		return node.ErrSlow
	}
	c.out = append(c.out, frame)
	c.flushLater()
	return nil
}

// flushLater has the socket take what is queued once the present event is over: in an order that does not depend on the one in
// which a node told its connections.
func (c *conn) flushLater() {
	if !c.pumping {
		c.pumping = true
		c.w.flushes = append(c.w.flushes, c)
	}
}

// flush begins to empty what waits for sockets.
func (w *world) flush() {
	if len(w.flushes) == 0 {
		return
	}
	slices.SortFunc(w.flushes, func(a, b *conn) int { return cmp.Compare(a.id, b.id) })
	for _, c := range w.flushes {
		c.pump()
	}
	w.flushes = w.flushes[:0]
}

// pump has the socket take frames.
func (c *conn) pump() {
	w := c.w
	switch {
	case c.cut, c.to.p.dead:
		c.pumping = false
		return
	case c.heldDown > 0 || c.p.paused:
		if c.stuck == 0 {
			c.stuck = w.now
		}
		w.after(50*time.Millisecond, c.pump)
		return
	}
	c.stuck, c.pumping = 0, false
	for _, frame := range c.out {
		c.deliver(func() { c.dev.frame(c, frame) })
	}
	c.out = nil
	if c.ended {
		c.finish()
		return
	}
	if c.refused {
		c.refused = false
		c.to.p.exec(func() {
			if !c.ended {
				w.count("slow connections drained")
				c.client.Drained()
			}
		})
	}
}

// deliver has the client take something, in order.
func (c *conn) deliver(f func()) {
	c.coming = append(c.coming, f)
	c.down = max(c.down+1, c.w.now+c.w.linkLatency())
	c.w.at(c.down, c.arrived)
}

// arrived has the client take the next that comes, unless the wire is held up: then it comes later, and what is behind it too.
func (c *conn) arrived() {
	if c.cut || c.heldDown > 0 || len(c.coming) == 0 {
		return
	}
	f := c.coming[0]
	c.coming = c.coming[1:]
	c.p.exec(f)
}

// finish is the end of a connection that the node ended, once all was taken.
func (c *conn) finish() {
	c.deliver(func() {
		c.cut = true
		c.dev.lost(c, "ended by the node", 0)
	})
}

// Close implements node.Conn.
func (c *conn) Close(pb.Closing_Reason) {
	if c.ended {
		return
	}
	c.gone()
	c.flushLater()
}

// gone has the node see that the connection has ended.
func (c *conn) gone() {
	if c.ended {
		return
	}
	c.ended = true
	c.to.conns = slices.DeleteFunc(c.to.conns, func(o *conn) bool { return o == c })
	if client := c.client; client != nil {
		c.w.after(0, func() { c.to.p.exec(client.Closed) })
	}
}

// breaks ends the connection with all that is under way. Each end learns of it soon, or only by silence.
func (c *conn) breaks(nodeLearns, clientLearns bool) {
	if c.cut {
		return
	}
	c.cut = true
	c.w.tracef("connection %d of %s breaks", c.id, c.dev.name)
	if nodeLearns {
		c.w.after(c.w.linkLatency(), func() { c.to.p.exec(c.gone) })
	}
	if clientLearns {
		c.w.after(c.w.linkLatency(), func() { c.p.exec(func() { c.dev.lost(c, "broken", 0) }) })
	}
}

// nodeGone: the node's process has ended. Its host tells the client, unless it is gone too.
func (c *conn) nodeGone() {
	c.ended = true
	c.breaks(false, c.w.links().IntN(4) > 0)
}
