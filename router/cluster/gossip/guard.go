package gossip

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// mostStreams is how many TCP connections are served at a time. Each ends within TCPTimeout; members need one now and then.
	mostStreams = 64
	// mostStream is how many bytes are read of one. A member takes less than 1 KiB in the state that is exchanged.
	mostStream = 4 << 20
)

// guard bounds what strangers can make memberlist hold: it starts a goroutine for each TCP connection, and reads up to 20 MiB of
// it before it has found out whether the other side has the key.
type guard struct {
	memberlist.NodeAwareTransport
	metrics *metrics
	streams chan net.Conn
	open    atomic.Int32
	done    chan struct{}
	ended   sync.WaitGroup
	once    sync.Once
}

// listen opens memberlist's own transport. A port that is free for TCP may be taken for UDP, so a free one is tried for some times.
func listen(c *memberlist.Config) (memberlist.Transport, error) {
	tries := 1
	if c.BindPort == 0 {
		tries = 10
	}
	var t *memberlist.NetTransport
	var err error
	for range tries {
		if t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: c.Logger,
		}); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	c.BindPort = t.GetAutoBindPort()
	if c.AdvertisePort == 0 {
		c.AdvertisePort = c.BindPort
	}
	return t, nil
}

func newGuard(t memberlist.Transport, m *metrics) (*guard, error) {
	aware, ok := t.(memberlist.NodeAwareTransport)
	if !ok {
		return nil, fmt.Errorf("gossip: %T is no transport that knows of nodes", t)
	}
	g := &guard{NodeAwareTransport: aware, metrics: m, streams: make(chan net.Conn), done: make(chan struct{})}
	g.ended.Go(g.accept)
	return g, nil
}

func (g *guard) StreamCh() <-chan net.Conn { return g.streams }

func (g *guard) accept() {
	for {
		select {
		case c := <-g.NodeAwareTransport.StreamCh():
			if g.open.Add(1) > mostStreams {
				g.open.Add(-1)
				g.metrics.refused.WithLabelValues(refusedMany).Inc()
				_ = c.Close() // there is nobody to tell
				continue
			}
			s := &stream{Conn: c, guard: g, left: mostStream}
			select {
			case g.streams <- s:
			case <-g.done:
				_ = s.Close() // as above
			}
		case <-g.done:
			return
		}
	}
}

// Shutdown ends the transport, which hands over what it has accepted before it returns, and then the guard.
func (g *guard) Shutdown() (err error) {
	g.once.Do(func() {
		err = g.NodeAwareTransport.Shutdown()
		close(g.done)
		g.ended.Wait()
	})
	return err
}

// stream is an incoming connection. It belongs to one goroutine of memberlist.
type stream struct {
	net.Conn
	guard    *guard
	left     int
	eof      bool
	answered bool
	over     atomic.Bool
}

var errStreamTooLong = errors.New("gossip: more bytes than a member has to say")

func (s *stream) Read(b []byte) (int, error) {
	if s.left <= 0 {
		return 0, errStreamTooLong
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	if s.left -= n; s.left <= 0 {
		s.guard.metrics.refused.WithLabelValues(refusedLarge).Inc()
	}
	s.eof = s.eof || errors.Is(err, io.EOF)
	return n, err
}

func (s *stream) Write(b []byte) (int, error) {
	s.answered = true
	return s.Conn.Write(b)
}

func (s *stream) Close() error {
	if !s.over.Swap(true) {
		s.guard.open.Add(-1)
		if s.eof && !s.answered { // memberlist takes it for nothing, and says nothing
			s.guard.metrics.refused.WithLabelValues(refusedMalformed).Inc()
		}
	}
	return s.Conn.Close()
}

// Reasons of future_gossip_refused_total.
const (
	refusedLabel     = "label"     // of another cluster, or of none
	refusedKey       = "key"       // not encrypted with this cluster's key
	refusedMalformed = "malformed" // encrypted well, or cut before that could be seen, and no message
	refusedLarge     = "too_large"
	refusedMany      = "too_many" // streams or messages at once
	refusedMember    = "member"   // a member that is not what a member must be
)

type metrics struct{ refused *prometheus.CounterVec }

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "future_gossip_refused_total", Help: "Packets and streams of gossip that were refused, by reason.",
	}, []string{"reason"})}
	if r == nil {
		return m, nil
	}
	return m, r.Register(m.refused)
}

// complaints are what memberlist logs of what it refuses: it tells nobody else. Tests hold each against the real thing.
var complaints = []struct{ part, reason string }{
	{"unacceptable label", refusedLabel},
	{"label header", refusedLabel},
	{"cannot decode label", refusedLabel},
	{"Decrypt packet failed", refusedKey},
	{"no installed keys could decrypt", refusedKey},
	{"is not encrypted", refusedKey},
	{"Remote node state", refusedLarge},
	{errStreamTooLong.Error(), ""}, // counted where it is found
	{"Too many pending", refusedMany},
	{"queue full", refusedMany},
	{"gnoring an alive message", refusedMember},
	{"gnoring alive message", refusedMember},
	{"Conflicting address", refusedMember},
	{"ailed to receive", refusedMalformed},
	{"Failed to decode", refusedMalformed},
	{"Failed to decompress", refusedMalformed},
	{"Failed to read remote state", refusedMalformed},
	{"too short", refusedMalformed},
	{"not supported", refusedMalformed},
	{"invalid msgType", refusedMalformed},
	{"missing message type", refusedMalformed},
	{"invalid checksum", refusedMalformed},
	{"truncated", refusedMalformed},
}

// complaint counts a line of memberlist's log that tells of something refused.
func (m *metrics) complaint(line string) {
	for _, c := range complaints {
		if strings.Contains(strings.ToLower(line), strings.ToLower(c.part)) {
			if c.reason != "" {
				m.refused.WithLabelValues(c.reason).Inc()
			}
			return
		}
	}
}
