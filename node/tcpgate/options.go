package tcpgate

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/futurechat/future/clientsdk/wire"
)

// Handler is what the gate serves: one for all connections. Its methods run on
// the goroutine of the connection's loop and must not block: while one runs,
// the thousands of other connections of that loop wait. For one connection they
// never run at the same time; with several loops, those of different
// connections do. The package comment says what a handler may do.
type Handler interface {
	// Opened comes first, before any Frame of the connection.
	Opened(c *Conn)
	// Frame brings one frame's payload, without its length. The payload is valid
	// only during the call. No Frame comes after the connection was told to
	// close.
	Frame(c *Conn, payload []byte)
	// Drained comes when a connection that refused a frame with
	// [ErrSlowConsumer] has taken all that was queued, so that what was left out
	// can be sent in another way.
	Drained(c *Conn)
	// Closed comes last, exactly once. err is the socket's error, if there was
	// one.
	Closed(c *Conn, reason CloseReason, err error)
}

// CloseReason says why a connection ended. It is a metric's label: callers who
// bring their own use constants, never text that came from outside.
type CloseReason string

// Reasons of the gate itself.
const (
	ClosePeer         CloseReason = "peer"          // the peer closed it
	CloseReadError    CloseReason = "read_error"    // reset, or timed out by TCP
	CloseWriteError   CloseReason = "write_error"   // the socket refused a write
	CloseTooLarge     CloseReason = "too_large"     // a frame over MaxFrame
	CloseIdle         CloseReason = "idle"          // no frame for IdleTimeout
	CloseHelloTimeout CloseReason = "hello_timeout" // no first frame in time
	CloseLoginTimeout CloseReason = "login_timeout" // no LoggedIn in time
	CloseSlowConsumer CloseReason = "slow_consumer" // took nothing for StallTimeout
	CloseShutdown     CloseReason = "shutdown"      // the gate closes
	CloseLoopRestart  CloseReason = "loop_restart"  // its loop failed and began anew
)

// RefuseReason says why a connection was closed as soon as it was accepted.
type RefuseReason string

// Reasons to refuse a connection.
const (
	RefuseDraining    RefuseReason = "draining"    // StopAccepting was called
	RefuseMaxConns    RefuseReason = "max_conns"   // the gate is full
	RefuseDescriptors RefuseReason = "descriptors" // the process is short of descriptors
)

var (
	// ErrClosed is the answer to a frame for a connection that closes or has
	// closed.
	ErrClosed = errors.New("tcpgate: connection closed")
	// ErrSlowConsumer is the answer to a frame that the connection's outbound
	// queue has no room for. The frame is dropped and the connection stays: it is
	// closed only if its socket takes nothing for StallTimeout.
	ErrSlowConsumer = errors.New("tcpgate: outbound queue full")
	// ErrLayout means that evio is not the version whose private fields this
	// package reads.
	ErrLayout = errors.New("tcpgate: evio does not have the shape of v1.0.8")
)

// Options for [Listen]. Zero values mean the defaults given here; a negative
// duration switches its limit off.
type Options struct {
	Addr    string  // host:port; port 0 takes a free one
	Handler Handler // required

	Loops    int // event loops, each with its own listener; default 1
	MaxConns int // over all loops; default, and most, ¾ of RLIMIT_NOFILE

	MaxFrame       int // payload bytes of an incoming frame; default 256 KiB
	OutboundBytes  int // queued per connection, but one frame always fits; default 1 MiB
	OutboundFrames int // queued per connection; default 1024
	SendBuffer     int // SO_SNDBUF in bytes; default: the kernel's own tuning

	IdleTimeout  time.Duration // longest time without a complete frame; default 75 s
	HelloTimeout time.Duration // from accept to the first frame; default 5 s
	LoginTimeout time.Duration // from accept to Conn.LoggedIn; default 30 s
	StallTimeout time.Duration // a socket with frames queued takes nothing; default 10 s
	Linger       time.Duration // from Close until the socket is cut; default 2 s
	UserTimeout  time.Duration // TCP_USER_TIMEOUT; default 30 s

	// Final gives the last frame (encoded) for a close that the gate decides
	// while the socket still takes frames: too_large, idle, hello_timeout,
	// login_timeout and shutdown. nil for none. It runs on a loop's goroutine.
	Final func(CloseReason) []byte
	// Refused gives the only frame (encoded) for a connection that is not taken,
	// nil for none. It runs on a loop's goroutine.
	Refused func(RefuseReason) []byte

	Logger     *zap.Logger           // default: none
	Registerer prometheus.Registerer // default: none
}

func (o *Options) setDefaults() error {
	if o.Handler == nil {
		return errors.New("tcpgate: options need a handler")
	}
	if _, _, err := net.SplitHostPort(o.Addr); err != nil {
		return fmt.Errorf("tcpgate: address: %w", err)
	}
	for _, n := range []struct {
		field *int
		name  string
		value int
	}{
		{&o.Loops, "Loops", 1},
		{&o.MaxConns, "MaxConns", 0},
		{&o.MaxFrame, "MaxFrame", wire.DefaultMaxFrame},
		{&o.OutboundBytes, "OutboundBytes", 1 << 20},
		{&o.OutboundFrames, "OutboundFrames", 1024},
		{&o.SendBuffer, "SendBuffer", 0},
	} {
		if *n.field < 0 {
			return fmt.Errorf("tcpgate: %s is negative", n.name)
		}
		if *n.field == 0 {
			*n.field = n.value
		}
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.IdleTimeout, 75 * time.Second},
		{&o.HelloTimeout, 5 * time.Second},
		{&o.LoginTimeout, 30 * time.Second},
		{&o.StallTimeout, 10 * time.Second},
		{&o.Linger, 2 * time.Second},
		{&o.UserTimeout, 30 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.Linger < 0 {
		o.Linger = 0
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return nil
}

// shortest is the smallest limit that the timing wheel has to serve, 0 if there
// is none.
func (o *Options) shortest() time.Duration {
	least := time.Duration(0)
	for _, d := range []time.Duration{o.IdleTimeout, o.HelloTimeout, o.LoginTimeout, o.Linger} {
		if d > 0 && (least == 0 || d < least) {
			least = d
		}
	}
	return least
}
