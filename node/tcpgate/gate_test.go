package tcpgate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/futurechat/future/clientsdk/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// recorder is a Handler that keeps what it saw.
type recorder struct {
	onOpened func(*Conn)
	onFrame  func(*Conn, []byte)

	mu      sync.Mutex
	conns   []*Conn
	frames  []string
	drained int
	closed  map[*Conn]CloseReason
	errs    map[*Conn]error
	change  chan struct{}
}

func newRecorder() *recorder {
	return &recorder{closed: map[*Conn]CloseReason{}, errs: map[*Conn]error{}, change: make(chan struct{})}
}

// echo is a recorder that sends every frame back.
func echo(t testing.TB) *recorder {
	r := newRecorder()
	r.onFrame = func(c *Conn, p []byte) {
		if err := c.Send(appendFrame(nil, p)); err != nil {
			t.Error(err)
		}
	}
	return r
}

func (r *recorder) changed() {
	close(r.change)
	r.change = make(chan struct{})
}

func (r *recorder) Opened(c *Conn) {
	if r.onOpened != nil {
		r.onOpened(c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns = append(r.conns, c)
	r.changed()
}

func (r *recorder) Frame(c *Conn, payload []byte) {
	if r.onFrame != nil {
		r.onFrame(c, payload)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frames = append(r.frames, string(payload))
	r.changed()
}

func (r *recorder) Closed(c *Conn, reason CloseReason, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, twice := r.closed[c]; twice {
		panic("Closed twice")
	}
	r.closed[c], r.errs[c] = reason, err
	r.changed()
}

func (r *recorder) Drained(*Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drained++
	r.changed()
}

// waitFor waits until cond, which is called with r.mu held, holds.
func (r *recorder) waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		ok, change := cond(), r.change
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-timeout:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (r *recorder) waitConns(t testing.TB, n int) []*Conn {
	t.Helper()
	r.waitFor(t, fmt.Sprintf("%d connections", n), func() bool { return len(r.conns) >= n })
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Conn(nil), r.conns...)
}

func (r *recorder) waitClosed(t testing.TB, c *Conn) CloseReason {
	t.Helper()
	r.waitFor(t, "the close", func() bool { _, ok := r.closed[c]; return ok })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed[c]
}

// listen starts a gate on a free port and closes it at the test's end.
func listen(t testing.TB, r Handler, change func(*Options)) *Gate {
	t.Helper()
	opts := Options{Addr: "127.0.0.1:0", Handler: r, Linger: 200 * time.Millisecond, Registerer: prometheus.NewRegistry()}
	if change != nil {
		change(&opts)
	}
	g, err := Listen(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := g.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if n := g.Conns(); n != 0 {
			t.Errorf("%d connections left after Close", n)
		}
	})
	return g
}

func dial(t testing.TB, g *Gate) *net.TCPConn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// appendFrame is what wire.AppendFrame does for an envelope.
func appendFrame(dst, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...)
}

func frame(payload string) []byte { return appendFrame(nil, []byte(payload)) }

func readFrame(r io.Reader) (string, error) {
	var header [wire.HeaderLen]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return "", err
	}
	payload := make([]byte, binary.BigEndian.Uint32(header[:]))
	_, err := io.ReadFull(r, payload)
	return string(payload), err
}

func wantFrame(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got, err := readFrame(r)
	if err != nil || got != want {
		t.Fatalf("read frame %.40q, %v; want %.40q", got, err, want)
	}
}

func wantEOF(t *testing.T, r io.Reader) {
	t.Helper()
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}

// cpuDuring is the process's CPU time while wait runs, as a share of the time
// that takes.
func cpuDuring(t *testing.T, wait func()) float64 {
	t.Helper()
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begin, cpu := time.Now(), used()
	wait()
	return float64(used()-cpu) / float64(time.Since(begin))
}

func wantCount(t *testing.T, c prometheus.Collector, want float64) {
	t.Helper()
	if got := testutil.ToFloat64(c); got != want {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func send(t testing.TB, w io.Writer, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		if _, err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEcho(t *testing.T) {
	r := echo(t)
	g := listen(t, r, func(o *Options) { o.Loops = 2 })
	var conns []*net.TCPConn
	for range 20 {
		conns = append(conns, dial(t, g))
	}
	for i, c := range conns {
		send(t, c, frame(fmt.Sprint("hello ", i)), frame(""))
	}
	for i, c := range conns {
		wantFrame(t, c, fmt.Sprint("hello ", i))
		wantFrame(t, c, "")
	}
	ids := map[uint64]bool{}
	for _, c := range r.waitConns(t, 20) {
		ids[c.ID()] = true
		if c.RemoteAddr() == nil {
			t.Error("no remote address")
		}
	}
	if len(ids) != 20 || g.Conns() != 20 {
		t.Fatalf("%d ids, %d connections", len(ids), g.Conns())
	}
	conns[0].Close()
	r.waitFor(t, "the peer's close", func() bool { return len(r.closed) == 1 })
	r.waitFor(t, "the reason", func() bool {
		for _, reason := range r.closed {
			return reason == ClosePeer
		}
		return false
	})
}
