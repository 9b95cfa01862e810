package gossip

import (
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/cluster/clustertest"
)

// wire is what lies between members: it can be cut, lose and delay what is sent, and remembers all of it.
type wire struct {
	cut   atomic.Bool
	delay time.Duration

	mu   sync.Mutex
	loss float64
	rand *rand.Rand
	sent [][]byte // packets
	over bool     // nothing more is sent
	late sync.WaitGroup
	once sync.Once
}

// lost draws whether a packet is lost, and remembers it.
func (w *wire) lost(b []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, slices.Clone(b))
	return w.rand != nil && w.rand.Float64() < w.loss
}

// on puts a member's transport on the wire.
func (w *wire) on(t *testing.T, o Options) Options {
	t.Helper()
	host, port, err := splitPort(o.Bind)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{host}, BindPort: port, Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	before := o.timing.config
	o.timing.config = func(c *memberlist.Config) {
		if before != nil {
			before(c)
		}
		c.Transport = cable{transport, w}
	}
	w.once.Do(func() { // of the first member, so it comes after the end of all; memberlist may still send
		t.Cleanup(func() {
			w.mu.Lock()
			w.over = true
			w.mu.Unlock()
			w.late.Wait()
		})
	})
	return o
}

// cable is a member's end of a wire.
type cable struct {
	*memberlist.NetTransport
	wire *wire
}

var errCut = errors.New("cut")

func (c cable) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if lost := c.wire.lost(b); lost || c.wire.cut.Load() {
		return time.Now(), nil // as UDP does
	}
	if c.wire.delay == 0 {
		return c.NetTransport.WriteToAddress(b, a)
	}
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	if c.wire.over {
		return time.Now(), nil
	}
	b = slices.Clone(b)
	c.wire.late.Add(1)
	time.AfterFunc(c.wire.delay, func() {
		defer c.wire.late.Done()
		_, _ = c.NetTransport.WriteToAddress(b, a) // it may be too late for it
	})
	return time.Now(), nil
}

func (c cable) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if c.wire.cut.Load() {
		return nil, errCut
	}
	return c.NetTransport.DialAddressTimeout(a, timeout)
}

// What memberlist does not do by itself: after a cut so long that both sides have stopped talking to the dead, they meet again.
func TestGossip_HalvesMeetAgainAfterALongCut(t *testing.T) {
	var w wire
	onWire := func(m cluster.Member, seeds ...string) Options {
		o := options(m, seeds...)
		o.timing.config = func(c *memberlist.Config) { c.GossipToTheDeadTime = time.Millisecond }
		return w.on(t, o)
	}
	a := start(t, onWire(clustertest.Of(1)))
	b := start(t, onWire(clustertest.Of(2), a.Addr()))
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(2))
	clustertest.WaitFor(t, b, clustertest.Of(1), clustertest.Of(2))
	w.cut.Store(true)
	clustertest.WaitFor(t, a, clustertest.Of(1))
	clustertest.WaitFor(t, b, clustertest.Of(2))
	w.cut.Store(false)
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(2))
	clustertest.WaitFor(t, b, clustertest.Of(1), clustertest.Of(2))
}

// On a line that loses a fifth of the packets and delays the rest, members find each other, hear of news, and of a death.
func TestGossip_OnABadLine(t *testing.T) {
	w := wire{delay: 20 * time.Millisecond, loss: 0.2, rand: rand.New(rand.NewPCG(1, 2))}
	a := start(t, w.on(t, options(clustertest.Of(1))))
	b := start(t, w.on(t, options(clustertest.Of(2), a.Addr())))
	c := start(t, w.on(t, options(clustertest.Of(3), a.Addr())))
	for _, g := range []*Gossip{a, b, c} {
		clustertest.WaitFor(t, g, clustertest.Of(1), clustertest.Of(2), clustertest.Of(3))
	}
	goes := clustertest.Of(2)
	goes.State = cluster.Draining
	if err := b.Announce(t.Context(), goes); err != nil {
		t.Fatal(err)
	}
	clustertest.WaitFor(t, a, clustertest.Of(1), goes, clustertest.Of(3))
	clustertest.WaitFor(t, c, clustertest.Of(1), goes, clustertest.Of(3))
	if err := b.Shutdown(); err != nil {
		t.Fatal(err)
	}
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(3))
	clustertest.WaitFor(t, c, clustertest.Of(1), clustertest.Of(3))
}

// repeat sends a member everything that was ever on the wire.
func (w *wire) repeat(t *testing.T, to *Gossip) int {
	t.Helper()
	w.mu.Lock()
	sent := slices.Clone(w.sent)
	w.mu.Unlock()
	for _, b := range sent {
		sendPacket(t, to, b)
	}
	return len(sent)
}

func sendPacket(t *testing.T, to *Gossip, b []byte) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "udp", to.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// Packets that a stranger has recorded, and sends again, change nothing for long: not the words that a member was suspected, dead or
// left, and not those of a life that is over, though memberlist has forgotten that one.
func TestGossip_RecordedPacketsHaveNoLastingEffect(t *testing.T) {
	var w wire
	onWire := func(m cluster.Member, seeds ...string) Options {
		o := options(m, seeds...)
		o.timing.config = func(c *memberlist.Config) { c.GossipToTheDeadTime = time.Millisecond }
		return w.on(t, o)
	}
	a := start(t, onWire(clustertest.Of(1)))
	b := start(t, onWire(clustertest.Of(2), a.Addr()))
	c := start(t, onWire(clustertest.Of(3), a.Addr()))
	for _, g := range []*Gossip{a, b, c} {
		clustertest.WaitFor(t, g, clustertest.Of(1), clustertest.Of(2), clustertest.Of(3))
	}
	address := b.Addr()
	// Each takes the others for dead, says so, and is told that they live.
	w.cut.Store(true)
	clustertest.WaitFor(t, a, clustertest.Of(1))
	w.cut.Store(false)
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(2), clustertest.Of(3))
	// One leaves in order, and comes back at the same address as another life.
	goes := clustertest.Of(2)
	goes.State = cluster.Draining
	if err := b.Announce(t.Context(), goes); err != nil {
		t.Fatal(err)
	}
	clustertest.WaitFor(t, a, clustertest.Of(1), goes, clustertest.Of(3))
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(3))
	o := options(clustertest.Of(4), a.Addr())
	o.Bind = address
	d := start(t, o)
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(3), clustertest.Of(4))

	before := refused(a, refusedMember)
	n := w.repeat(t, a)
	waitRefused(t, a, refusedMember, before+1)
	if n < 20 {
		t.Fatalf("only %d packets were recorded", n)
	}
	// What comes after it is understood, and the view is right.
	start(t, options(clustertest.Of(5), a.Addr()))
	for _, g := range []*Gossip{a, c, d} {
		clustertest.WaitFor(t, g, clustertest.Of(1), clustertest.Of(3), clustertest.Of(4), clustertest.Of(5))
	}
}
