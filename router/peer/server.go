package peer

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/futurechat/future/router/peer/peerv1"
)

// Times of a link. Both ends must agree on the first two.
const (
	pingEvery   = time.Second
	silentAfter = 4 * time.Second // a link on which nothing came for so long is lost
	stallAfter  = 4 * time.Second // so is one that takes nothing for so long
)

// ServerOptions are what NewServer needs. Handler, Secret, Cluster and Logger have no defaults.
type ServerOptions struct {
	// Addr is the host:port to listen on; port 0 any free one.
	Addr    string
	Secret  []byte
	Cluster string
	// Self is this process's life: it is told to who dials, for its logs.
	Self    string
	Handler Handler
	// Control, if not nil, answers operators.
	Control Control
	Logger  *zap.Logger
	// Registerer, if not nil, gets the metrics.
	Registerer prometheus.Registerer
	// MaxLinks bounds the links of members. Default 4096.
	MaxLinks int
	// MaxHandshakes bounds the connections that have yet to prove themselves; the oldest gives way. Default 256.
	MaxHandshakes int
	// HandshakeTimeout is how long one may take to prove itself. Default 5 s.
	HandshakeTimeout time.Duration
	// MaxQueued bounds the bytes of answers that wait on one link; a link over it is closed. Default 16 MiB.
	MaxQueued int

	silentAfter time.Duration // for tests
}

// Server takes links from the cluster's processes. It is safe for concurrent use.
type Server struct {
	o        ServerOptions
	tls      *tls.Config
	listener net.Listener
	metrics  *serverMetrics
	log      *zap.Logger

	// ctx ends with Close.
	ctx    context.Context
	cancel context.CancelCauseFunc
	links  sync.WaitGroup

	mu         sync.Mutex
	closed     bool
	nextLink   uint64
	up         map[net.Conn]struct{}
	handshakes []net.Conn // oldest first
}

// NewServer listens; nothing is accepted before Serve. It must be closed.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Handler == nil || o.Logger == nil {
		return nil, errors.New("peer: server needs a handler and a logger")
	}
	o.MaxLinks = cmp.Or(o.MaxLinks, 4096)
	o.MaxHandshakes = cmp.Or(o.MaxHandshakes, 256)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 5*time.Second)
	o.MaxQueued = cmp.Or(o.MaxQueued, 16<<20)
	o.silentAfter = cmp.Or(o.silentAfter, silentAfter)
	config, err := tlsConfig(o.Secret, o.Cluster)
	if err != nil {
		return nil, err
	}
	metrics, err := newServerMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("peer: %w", err)
	}
	s := &Server{
		o: o, tls: config, listener: listener, metrics: metrics, up: make(map[net.Conn]struct{}),
		// Strangers must not be able to fill the disk.
		log: o.Logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, time.Second, 5, 1000)
		})),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// Addr is the address that it listens on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Serve takes links until Close, and returns nil then.
func (s *Server) Serve() error {
	wait := time.Duration(0)
	for {
		conn, err := s.listener.Accept()
		if err == nil {
			wait = 0
			s.begin(conn)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			break // only Close closes the listener
		}
		// Out of file descriptors, or the other side was gone already: neither lasts.
		wait = min(max(5*time.Millisecond, wait*2), time.Second)
		s.log.Warn("accept failed", zap.Error(err))
		select {
		case <-s.ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// Close stops listening, ends all links and waits until Handler was told of it.
func (s *Server) Close() error {
	s.cancel(errClosed)
	err := s.listener.Close()
	s.mu.Lock()
	s.closed = true
	conns := slices.Clone(s.handshakes)
	for conn := range s.up {
		conns = append(conns, conn)
	}
	s.mu.Unlock()
	for _, conn := range conns {
		abort(conn)
	}
	s.links.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("peer: close listener: %w", err)
	}
	return nil
}

// abort closes a TCP connection under its TLS, which may be blocked in a write and would wait to say good-bye.
func abort(conn net.Conn) {
	_ = conn.Close() // there is nobody to tell
}

// spoken is a connection that ends with a good-bye or with an error. crypto/tls takes an end between two records for a good-bye, but
// a process that was killed says none: its host just ends the connection.
type spoken struct{ net.Conn }

var errGone = errors.New("peer: ended without a good-bye")

func (c spoken) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		err = errGone
	}
	return n, err
}

// begin starts the one goroutine that serves a connection.
func (s *Server) begin(conn net.Conn) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		abort(conn)
		return
	}
	var evicted net.Conn
	if len(s.handshakes) >= s.o.MaxHandshakes {
		// Its goroutine sees its connection closed and takes no notice of where it stands in the list.
		evicted = s.handshakes[0]
		s.handshakes = s.handshakes[1:]
	}
	s.handshakes = append(s.handshakes, conn)
	s.metrics.handshake.Set(float64(len(s.handshakes)))
	s.links.Add(1)
	s.mu.Unlock()
	if evicted != nil {
		s.metrics.refused.WithLabelValues(refusedEvicted).Inc()
		abort(evicted)
	}
	go func() {
		defer s.links.Done()
		s.serve(conn)
	}()
}

func (s *Server) serve(raw net.Conn) {
	defer abort(raw)
	l := &link{server: s, conn: tls.Server(spoken{raw}, s.tls)}
	peer, err := l.handshake()
	if err != nil {
		if s.settle(raw) && s.ctx.Err() == nil {
			reason := refusedHandshake
			if l.conn.ConnectionState().HandshakeComplete {
				reason = refusedHello
			}
			s.metrics.refused.WithLabelValues(reason).Inc()
			s.log.Warn("peer connection refused", zap.Stringer("from", raw.RemoteAddr()), zap.Error(err))
		}
		return
	}
	if !s.admit(raw, l) {
		return
	}
	s.log.Debug("peer link up", zap.Uint64("link", l.id), zap.String("peer", peer))
	err = l.run()
	s.mu.Lock()
	delete(s.up, raw)
	s.mu.Unlock()
	s.metrics.links.Dec()
	s.metrics.lost.WithLabelValues(lostReason(err)).Inc()
	s.log.Info("peer link ended", zap.Uint64("link", l.id), zap.String("peer", peer), zap.Error(err))
	if !errors.Is(err, io.EOF) {
		s.o.Handler.LinkLost(l.id)
	}
}

// settle takes a connection out of the handshakes; false if it was evicted.
func (s *Server) settle(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settleLocked(conn)
}

func (s *Server) settleLocked(conn net.Conn) bool {
	for i, c := range s.handshakes {
		if c == conn {
			s.handshakes = append(s.handshakes[:i:i], s.handshakes[i+1:]...)
			s.metrics.handshake.Set(float64(len(s.handshakes)))
			return true
		}
	}
	return false
}

// admit makes a connection that proved itself a link.
func (s *Server) admit(conn net.Conn, l *link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.settleLocked(conn) || s.closed {
		return false
	}
	if len(s.up) >= s.o.MaxLinks {
		s.metrics.refused.WithLabelValues(refusedMaxLinks).Inc()
		s.log.Warn("peer link refused: too many", zap.Int("max", s.o.MaxLinks))
		return false
	}
	s.nextLink++
	l.id = s.nextLink
	s.up[conn] = struct{}{}
	s.metrics.links.Inc()
	return true
}

// link is one connection. All is owned by its goroutine, but out.
type link struct {
	server *Server
	id     uint64 // set by admit
	conn   *tls.Conn
	frames *frameReader
	out    *outbox
}

// handshake lets the other side prove that it is a member, and returns what it calls itself.
func (l *link) handshake() (peer string, err error) {
	o := &l.server.o
	if err := l.conn.SetDeadline(time.Now().Add(o.HandshakeTimeout)); err != nil {
		return "", err
	}
	if err := l.conn.HandshakeContext(l.server.ctx); err != nil {
		return "", err
	}
	l.frames = &frameReader{r: l.conn, limit: maxHello}
	f, err := l.frames.next()
	if err != nil {
		return "", err
	}
	hello := f.GetHello()
	if hello == nil {
		return "", fmt.Errorf("%w: no hello", errMalformed)
	}
	l.frames.r, l.frames.limit = bufio.NewReaderSize(&patientConn{l.conn, o.silentAfter}, keepBuf), MaxFrame
	return hello.Self, l.conn.SetDeadline(time.Time{})
}

// maxHello is the largest first frame in bytes.
const maxHello = 4 << 10

// run serves the link until it ends.
func (l *link) run() error {
	l.out = newOutbox(l.server.o.MaxQueued, l.server.metrics.queued)
	wrote := make(chan error, 1)
	go func() {
		err := l.out.write(l.conn, stallAfter)
		abort(l.conn.NetConn()) // ends the reader
		wrote <- err
	}()
	err := l.put(helloFrame(l.server.o.Self))
	for err == nil {
		var f *peerv1.Frame
		if f, err = l.frames.next(); err == nil {
			err = l.handle(f)
		}
	}
	l.out.close()
	abort(l.conn.NetConn()) // ends a writer that is blocked
	if w := <-wrote; w != nil && !errors.Is(w, errClosed) {
		return errors.Join(w, err)
	}
	return err
}

func (l *link) handle(f *peerv1.Frame) error {
	frames := l.server.metrics.frames
	switch b := f.Body.(type) {
	case *peerv1.Frame_Forward:
		frames.WithLabelValues(kindForward).Inc()
		forward, err := forwardIn(b.Forward)
		if err != nil {
			return err
		}
		return l.put(answerFrame(b.Forward.Id, l.server.o.Handler.Forward(l.id, forward)))
	case *peerv1.Frame_Kick:
		frames.WithLabelValues(kindKick).Inc()
		l.server.o.Handler.Kick(kickIn(b.Kick))
	case *peerv1.Frame_Fence:
		frames.WithLabelValues(kindFence).Inc()
		id := b.Fence.Id
		l.server.o.Handler.Fence(Fence{Conversation: b.Fence.Conversation, Version: b.Fence.Version}, func(incarnation string) {
			// A link that is gone or full needs no word: who asked takes silence for what it is.
			_ = l.put(&peerv1.Frame{Body: &peerv1.Frame_Fenced{Fenced: &peerv1.Fenced{
				Id: id, Self: l.server.o.Self, Incarnation: incarnation,
			}}})
		})
	case *peerv1.Frame_Ping:
		frames.WithLabelValues(kindPing).Inc()
		return l.put(&peerv1.Frame{Body: &peerv1.Frame_Pong{Pong: &peerv1.Pong{}}})
	case *peerv1.Frame_Ask:
		frames.WithLabelValues(kindAsk).Inc()
		return l.put(l.told(b.Ask))
	default:
		frames.WithLabelValues(kindUnknown).Inc()
	}
	return nil
}

func (l *link) put(f *peerv1.Frame) error {
	b, err := encode(f)
	if err != nil {
		return err
	}
	return l.out.put(b)
}

// lostReason gives a metric's label for why a link ended.
func lostReason(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, errMalformed), errors.Is(err, ErrTooLarge):
		return "malformed"
	case errors.Is(err, ErrFull):
		return "full"
	case errors.Is(err, errClosed), errors.Is(err, net.ErrClosed):
		return "closed"
	case errors.Is(err, io.EOF):
		return "gone"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "silent"
	}
	return "broken"
}
