package future

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// link is one connection: a goroutine that reads frames to the loop, one that writes what the loop queues.
type link struct {
	conn net.Conn
	target
	out  chan []byte
	gone chan struct{} // closed by drop
	once sync.Once
	// leaving is since when the node refuses requests because it goes down: none is begun on this connection any more. Owned by
	// the loop.
	leaving time.Time
}

// outQueue is how many frames may wait for the socket. The loop has fewer requests than that under way, so a full queue
// means that something is wrong, and the link is dropped.
const outQueue = 128

// frame is what a link's reader found: an envelope, or how the connection ended.
type frame struct {
	link *link
	env  *pb.Envelope
	err  error
}

// connect makes a connection, with TLS if that is asked for.
func (o *options) connect(ctx context.Context, to target) (net.Conn, error) {
	conn, err := o.dial(ctx, "tcp", to.addr)
	if err != nil {
		return nil, err
	}
	if o.tls == nil {
		return conn, nil
	}
	c := o.tls
	if c.ServerName == "" && !c.InsecureSkipVerify {
		host, _, err := net.SplitHostPort(to.via)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		c = c.Clone()
		c.ServerName = host
	}
	secure := tls.Client(conn, c)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secure, nil
}

// private tells whether what is written cannot be read on a network: it is encrypted, or does not leave the machine. A port of this
// machine that somebody on the network has named may be anybody's.
func (k *link) private() bool {
	if _, ok := k.conn.(*tls.Conn); ok {
		return true
	}
	if k.exposed {
		return false
	}
	switch a := k.conn.RemoteAddr().(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	default:
		return a != nil && a.Network() == "pipe"
	}
}

// drop ends the connection; both goroutines end soon. It may be called more than once.
func (k *link) drop() {
	k.once.Do(func() {
		close(k.gone)
		// What is lost by this error would have been read from a connection that nobody wants.
		_ = k.conn.Close()
	})
}

func (k *link) read(to chan<- frame, most int) {
	r := wire.NewReader(bufio.NewReader(k.conn), most)
	for {
		env, err := r.Next()
		if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrFrameTooLarge) {
			err = fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		select {
		case to <- frame{k, env, err}:
		case <-k.gone:
			return
		}
		if err != nil {
			return
		}
	}
}

// write sends what is queued, as much as there is at once. The socket may take nothing for as long as patience.
func (k *link) write(patience time.Duration) error {
	var buf []byte
	for {
		select {
		case b := <-k.out:
			buf = append(buf[:0], b...)
		case <-k.gone:
			return nil
		}
		for more := true; more && len(buf) < 64<<10; {
			select {
			case b := <-k.out:
				buf = append(buf, b...)
			default:
				more = false
			}
		}
		if err := k.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := k.conn.Write(buf); err != nil {
			return err
		}
		if cap(buf) > 64<<10 {
			buf = nil
		}
	}
}

// start runs the link's goroutines under the loop's wait group. A failure to write is told like one to read.
func (l *loop) startLink(k *link) {
	l.wait.Go(func() { k.read(l.frames, l.o.maxFrame) })
	l.wait.Go(func() {
		if err := k.write(l.o.timeout); err != nil {
			select {
			case l.frames <- frame{link: k, err: err}:
			case <-k.gone:
			}
		}
	})
}

// startDial connects to the next address.
func (l *loop) startDial() {
	l.dialing = true
	to := l.nextTarget()
	patience := l.patience(to)
	l.wait.Go(func() {
		ctx, cancel := context.WithTimeout(l.ctx, patience)
		defer cancel()
		conn, err := l.o.connect(ctx, to)
		posted := l.post(func() { l.dialed(to, conn, err) })
		if !posted && conn != nil {
			_ = conn.Close() // the client was closed meanwhile
		}
	})
}

// elsewhereAfter is how long an address is tried if there is another one: the host may be gone, and then nothing answers.
const elsewhereAfter = 4 * time.Second

// patience is how long an address may take to be connected to.
func (l *loop) patience(to target) time.Duration {
	if len(l.addrs) > 1 || to.told() {
		return min(l.o.timeout, elsewhereAfter)
	}
	return l.o.timeout
}

// helloPatience is how long Hello may take to be answered: the host of a process that was stopped still takes connections. It is longer
// where many may have come at once, since a node died: who gave up there too soon would only add to the work.
func (l *loop) helloPatience(to target) time.Duration {
	if to.told() {
		return l.patience(to)
	}
	return min(l.o.timeout, 2*l.patience(to))
}

func (l *loop) dialed(to target, conn net.Conn, err error) {
	l.dialing = false
	if err != nil {
		l.log.Info("connecting failed", "addr", to.addr, "err", err)
		l.unreachable(to, err)
		return
	}
	l.link = &link{conn: conn, target: to, out: make(chan []byte, outQueue), gone: make(chan struct{})}
	l.phase, l.received, l.sent = phaseHello, l.now(), l.now()
	l.ping, l.silence = 20*time.Second, l.o.timeout
	l.checkAt = l.now().Add(min(l.o.timeout/4, l.helloPatience(to)))
	l.startLink(l.link)
	l.request(&request{kind: forHello}, &pb.Envelope{Body: &pb.Envelope_Hello{
		Hello: &pb.HelloRequest{Version: wire.Version, Client: l.o.client},
	}})
}

// unreachable counts a failed try and sets the next.
func (l *loop) unreachable(at target, err error) {
	if at.told() {
		// It was worth a try; what matters is whether the addresses that we were given can be reached.
		l.redialAt = l.now().Add(l.backoff(1, 0))
		return
	}
	l.tries++
	l.dialErrs = append(l.dialErrs, fmt.Errorf("%s: %w", at.addr, err))
	if len(l.dialErrs) >= len(l.addrs) {
		l.settled(fmt.Errorf("%w: %w", ErrUnreachable, errors.Join(l.dialErrs...)))
		l.dialErrs = nil
	}
	l.redialAt = l.now().Add(l.backoff(l.tries, 0))
}

// backoff is the pause before the n-th try; the server may ask for more.
func (l *loop) backoff(n int, asked time.Duration) time.Duration {
	d := l.o.backoffMin << min(max(n-1, 0), 20)
	if d <= 0 || d > l.o.backoffMax {
		d = l.o.backoffMax
	}
	// After the loss of a node its clients must not come back all at once, nor all together later.
	asked = min(asked, longestAsked)
	return max(d/2, asked) + l.jitter(max(d/2, asked/2))
}

// longestAsked bounds the patience that a server may ask of a client.
const longestAsked = 5 * time.Minute

func (l *loop) jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(l.rng.Int64N(int64(most)))
}

// lost ends the present connection, if any, and what was under way on it.
func (l *loop) lost(err error, asked time.Duration) {
	k := l.link
	if k == nil {
		return
	}
	l.log.Info("connection ended", "addr", k.addr, "err", err)
	k.drop()
	lived := l.phase == phaseLive
	if lived && l.now().Sub(l.liveSince) >= l.o.backoffMax {
		l.tries = 0 // a connection that stayed; one that ends at once must not be tried again and again
	}
	early := l.phase == phaseHello
	l.link, l.phase = nil, phaseNone
	requests := l.requests
	l.requests = map[uint64]*request{}
	l.calls = 0
	l.synced()
	if lived {
		l.stats.Lost++
		l.step(resumeLost)
		if l.away == nil && (l.ended == nil || l.refreshing) && l.movedAt.IsZero() {
			l.setState(StateChange{State: Offline, Err: err})
		}
	}
	l.unanswered(requests, err)
	if early {
		l.unreachable(k.target, err)
	} else {
		l.tries++
		l.redialAt = l.now().Add(l.backoff(l.tries, asked))
	}
}
