package tcpgate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestClose_WritesWhatIsQueued(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, func(o *Options) { roomy(o); o.Linger = patience })
	large := bytes.Repeat([]byte("abcd"), 1<<20)
	c, client := blockedConn(t, g, r, large)
	for i := range 100 {
		if err := c.Send(frame(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	c.Close("done")
	c.Close("twice")
	if err := c.Send(frame("late")); !errors.Is(err, ErrClosed) {
		t.Errorf("Send after Close: %v", err)
	}
	wantFrame(t, client, string(large))
	for i := range 100 {
		wantFrame(t, client, fmt.Sprint(i))
	}
	wantEOF(t, client)
	client.Close()
	if reason := r.waitClosed(t, c); reason != "done" {
		t.Errorf("closed with %s", reason)
	}
	wantCount(t, g.metrics.dropped.WithLabelValues(dropClosed), 0)
}

func TestClose_FromHandler(t *testing.T) {
	r := newRecorder()
	r.onOpened = func(c *Conn) {
		if c.ID() == 1 {
			if err := c.Send(frame("go away")); err != nil {
				t.Error(err)
			}
			c.Close("unwanted")
		}
	}
	r.onFrame = func(c *Conn, _ []byte) { c.Close("said so") }
	g := listen(t, r, nil)
	first := dial(t, g)
	wantFrame(t, first, "go away")
	wantEOF(t, first)
	first.Close()
	second := dial(t, g)
	send(t, second, append(frame("close me"), frame("not read any more")...))
	wantEOF(t, second)
	second.Close()
	conns := r.waitConns(t, 2)
	if a, b := r.waitClosed(t, conns[0]), r.waitClosed(t, conns[1]); a != "unwanted" || b != "said so" {
		t.Errorf("closed with %s and %s", a, b)
	}
	if len(r.frames) != 1 {
		t.Errorf("%d frames, want 1", len(r.frames))
	}
}

func TestClose_PeerIgnoresOurEnd_CutAfterLinger(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, func(o *Options) { o.Linger = 100 * time.Millisecond })
	client := dial(t, g)
	c := r.waitConns(t, 1)[0]
	begin := time.Now()
	c.Close("done")
	wantEOF(t, client)
	if reason := r.waitClosed(t, c); reason != "done" || time.Since(begin) < 100*time.Millisecond {
		t.Errorf("closed with %s after %s", reason, time.Since(begin))
	}
}

func TestPeerEnds_ClosedSaysHow(t *testing.T) {
	for name, tc := range map[string]struct {
		end    func(*net.TCPConn) error
		reason CloseReason
		err    error
	}{
		"close":      {func(c *net.TCPConn) error { return c.Close() }, ClosePeer, nil},
		"half-close": {func(c *net.TCPConn) error { return c.CloseWrite() }, ClosePeer, nil},
		"reset":      {func(c *net.TCPConn) error { return errors.Join(c.SetLinger(0), c.Close()) }, CloseReadError, unix.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			g := listen(t, r, nil)
			client := dial(t, g)
			send(t, client, frame("whole"), []byte{0, 0, 0, 9, 'p', 'a', 'r', 't'})
			r.waitFor(t, "the frame", func() bool { return len(r.frames) == 1 })
			if err := tc.end(client); err != nil {
				t.Fatal(err)
			}
			c := r.waitConns(t, 1)[0]
			if reason := r.waitClosed(t, c); reason != tc.reason || !errors.Is(r.errs[c], tc.err) {
				t.Errorf("closed with %s, %v", reason, r.errs[c])
			}
			wantCount(t, g.metrics.closed.WithLabelValues(string(tc.reason)), 1)
		})
	}
}

func TestDeadlines(t *testing.T) {
	const short = 60 * time.Millisecond
	for name, tc := range map[string]struct {
		limits func(*Options)
		sends  []byte
		login  bool
		want   CloseReason
	}{
		"no hello":              {func(o *Options) { o.HelloTimeout = short }, nil, false, CloseHelloTimeout},
		"half a hello":          {func(o *Options) { o.HelloTimeout = short }, []byte{0, 0, 0, 2, 'h'}, false, CloseHelloTimeout},
		"no login":              {func(o *Options) { o.HelloTimeout, o.LoginTimeout = short, 2*short }, frame("hello"), false, CloseLoginTimeout},
		"silence after a login": {func(o *Options) { o.LoginTimeout, o.IdleTimeout = short, 2*short }, frame("hello"), true, CloseIdle},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			if tc.login {
				r.onFrame = func(c *Conn, _ []byte) { c.LoggedIn() }
				r.onOpened = func(c *Conn) { c.LoggedIn() }
			}
			g := listen(t, r, func(o *Options) {
				o.Final = func(reason CloseReason) []byte { return frame(string(reason)) }
				tc.limits(o)
			})
			client := dial(t, g)
			send(t, client, tc.sends)
			wantFrame(t, client, string(tc.want))
			wantEOF(t, client)
			client.Close()
			if reason := r.waitClosed(t, r.waitConns(t, 1)[0]); reason != tc.want {
				t.Errorf("closed with %s", reason)
			}
		})
	}
}

func TestStopAccepting_KeepsWhoIsThere(t *testing.T) {
	r := echo(t)
	g := listen(t, r, func(o *Options) {
		o.Refused = func(reason RefuseReason) []byte { return frame(string(reason)) }
	})
	old := dial(t, g)
	send(t, old, frame("before"))
	wantFrame(t, old, "before")
	g.StopAccepting()
	refused := dial(t, g)
	wantFrame(t, refused, string(RefuseDraining))
	wantEOF(t, refused)
	send(t, old, frame("still here"))
	wantFrame(t, old, "still here")
	if len(r.waitConns(t, 1)) != 1 || g.Conns() != 1 {
		t.Error("a refused connection reached the handler")
	}
	wantCount(t, g.metrics.refused.WithLabelValues(string(RefuseDraining)), 1)
}

func TestMaxConns_RefusesUntilOneLeaves(t *testing.T) {
	r := echo(t)
	g := listen(t, r, func(o *Options) {
		o.MaxConns = 2
		o.Refused = func(reason RefuseReason) []byte { return frame(string(reason)) }
	})
	first, second := dial(t, g), dial(t, g)
	r.waitConns(t, 2)
	third := dial(t, g)
	wantFrame(t, third, string(RefuseMaxConns))
	wantEOF(t, third)
	first.Close()
	r.waitFor(t, "the first to leave", func() bool { return len(r.closed) == 1 })
	fourth := dial(t, g)
	for _, c := range []net.Conn{second, fourth} {
		send(t, c, frame("in"))
		wantFrame(t, c, "in")
	}
}

func TestDescriptors_RefusesBeforeTheyEnd(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	limit := func(cur uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: cur, Max: was.Max}); err != nil {
			t.Fatal(err)
		}
	}
	r := newRecorder()
	limit(256)
	g := listen(t, r, func(o *Options) {
		o.Refused = func(reason RefuseReason) []byte { return frame(string(reason)) }
	})
	limit(was.Cur)
	for taken := 0; taken < 256*7/8; {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		taken = int(f.Fd())
	}
	client := dial(t, g)
	wantFrame(t, client, string(RefuseDescriptors))
	wantEOF(t, client)
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestGateClose_LeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // where control listeners are for a moment
	warm := newRecorder()           // the runtime's own descriptors are open from now on
	dial(t, listen(t, warm, nil))
	warm.waitConns(t, 1)
	others, before := goleak.IgnoreCurrent(), openDescriptors(t)
	r := newRecorder()
	g := listen(t, r, func(o *Options) {
		o.Loops = 2
		o.Final = func(reason CloseReason) []byte { return frame("bye " + string(reason)) }
	})
	var clients []*net.TCPConn
	for range 50 {
		clients = append(clients, dial(t, g))
	}
	conns := r.waitConns(t, len(clients))
	closed := make(chan error, 1)
	go func() { closed <- g.Close(t.Context()) }()
	for _, c := range clients {
		wantFrame(t, c, "bye shutdown")
		wantEOF(t, c)
		c.Close()
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	if len(r.closed) != len(conns) {
		t.Errorf("%d of %d connections were told when Close returned", len(r.closed), len(conns))
	}
	for c, reason := range r.closed {
		if reason != CloseShutdown {
			t.Errorf("%d closed with %s", c.ID(), reason)
		}
	}
	goleak.VerifyNone(t, others)
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	conns[0].ResumeReads()
	conns[0].PauseReads()
	conns[0].Close("late")
	g.StopAccepting()
	if g.Push(frame("late"), conns) != nil {
		t.Error("closed connections are slow")
	}
	if err := g.Close(t.Context()); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestGateClose_ContextEnds_CutsTheRest(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, func(o *Options) { o.Linger = time.Hour })
	client := dial(t, g)
	c := r.waitConns(t, 1)[0]
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	closed := make(chan error, 1)
	go func() { closed <- g.Close(ctx) }()
	wantEOF(t, client) // its end came, and it does not answer it
	cancel(cause)
	if err := <-closed; !errors.Is(err, cause) {
		t.Errorf("Close: %v", err)
	}
	if reason := r.waitClosed(t, c); reason != CloseShutdown {
		t.Errorf("closed with %s", reason)
	}
}

func TestListen_RefusesWhatCannotWork(t *testing.T) {
	r := newRecorder()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	mine := listen(t, r, nil)
	before := openDescriptors(t)
	for name, opts := range map[string]Options{
		"no handler":             {Addr: "127.0.0.1:0"},
		"no address":             {Handler: r},
		"taken":                  {Addr: taken.Addr().String(), Handler: r},
		"taken by a gate":        {Addr: mine.Addr().String(), Handler: r},
		"not an address of ours": {Addr: "192.0.2.1:0", Handler: r},
		"negative":               {Addr: "127.0.0.1:0", Handler: r, Loops: -1},
		"above RLIMIT_NOFILE":    {Addr: "127.0.0.1:0", Handler: r, MaxConns: 1 << 40},
	} {
		if g, err := Listen(opts); err == nil {
			t.Errorf("%s: listens on %s", name, g.Addr())
			_ = g.Close(t.Context())
		}
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

func TestListen_EveryAddressOfTheHost(t *testing.T) {
	g := listen(t, echo(t), func(o *Options) { o.Addr = ":0" })
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp4", fmt.Sprintf("127.0.0.1:%d", g.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	send(t, c, frame("v4"))
	wantFrame(t, c, "v4")
}
