package tcpgate

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// blockedConn is a connection whose socket took only a part of a large frame,
// so that the rest waits in the gate.
func blockedConn(t *testing.T, g *Gate, r *recorder, large []byte) (*Conn, *net.TCPConn) {
	t.Helper()
	client := dial(t, g)
	if err := client.SetReadBuffer(128 << 10); err != nil {
		t.Fatal(err)
	}
	c := r.waitConns(t, 1)[0]
	if err := c.Send(appendFrame(nil, large)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a partial write", func() bool {
		_, queued := c.Queued()
		return queued > 0 && queued < len(large)
	})
	return c, client
}

// eventually polls what nothing announces.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for !cond() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func roomy(o *Options) {
	o.SendBuffer = 64 << 10
	o.OutboundBytes = 64 << 20
	o.OutboundFrames = 1 << 20
	o.HelloTimeout, o.LoginTimeout = -1, -1
}

func TestHazard1_PushDuringPartialWrite_LosesNothing(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, roomy)
	large := bytes.Repeat([]byte("0123456789abcdef"), 2<<20/16)
	c, client := blockedConn(t, g, r, large)
	const pushes = 1000
	for i := range pushes {
		if slow := g.Push(frame(fmt.Sprint(i)), []*Conn{c}); slow != nil {
			t.Fatal("refused")
		}
	}
	wantFrame(t, client, string(large))
	for i := range pushes {
		wantFrame(t, client, fmt.Sprint(i))
	}
	if frames, queued := c.Queued(); frames != 0 || queued != 0 {
		t.Errorf("%d frames, %d bytes still queued", frames, queued)
	}
}

func TestHazard2_InputWhileOutputPends_NeitherSpinsNorBlocksClose(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, func(o *Options) { roomy(o); o.StallTimeout = -1; o.Linger = 500 * time.Millisecond })
	c, client := blockedConn(t, g, r, make([]byte, 4<<20))
	send(t, client, frame("read although output pends"), []byte{0})
	r.waitFor(t, "the frame", func() bool { return len(r.frames) == 1 })

	// Input that comes after Close is not handed on, and the peer takes nothing:
	// so all of Linger passes, with input and output pending.
	var reason CloseReason
	share := cpuDuring(t, func() {
		c.Close("done")
		send(t, client, []byte{0})
		reason = r.waitClosed(t, c)
	})
	if share > 0.4 {
		t.Errorf("the loop used %.0f %% CPU while nothing could be done", share*100)
	}
	if reason != "done" {
		t.Errorf("closed with %s", reason)
	}
}

func TestHazard3_AcceptError_ServingGoesOn(t *testing.T) {
	r := echo(t)
	g := listen(t, r, nil)
	before := dial(t, g)
	send(t, before, frame("before"))
	wantFrame(t, before, "before")
	old := r.waitConns(t, 1)[0]

	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	restore := exhaustDescriptors(t)
	addr := g.Addr().(*net.TCPAddr)
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())})
	if err != nil {
		t.Fatal(err)
	}
	if reason := r.waitClosed(t, old); reason != CloseLoopRestart {
		t.Errorf("closed with %s", reason)
	}
	wantEOF(t, before)
	restore()

	var after net.Conn
	eventually(t, "the new listener", func() bool {
		after, err = new(net.Dialer).DialContext(t.Context(), "tcp", addr.String())
		return err == nil
	})
	defer after.Close()
	send(t, after, frame("after"))
	wantFrame(t, after, "after")
	wantCount(t, g.metrics.restarts, 1)
	wantCount(t, g.metrics.closed.WithLabelValues(string(CloseLoopRestart)), 1)
	if err := old.Send(frame("late")); !errors.Is(err, ErrClosed) {
		t.Errorf("send to a lost connection: %v", err)
	}
	select {
	case err := <-g.Failed():
		t.Error(err)
	default:
	}
}

// exhaustDescriptors leaves the process without a free descriptor until restore
// is called.
func exhaustDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	lowestFree, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(lowestFree)
	set := func(lim unix.Rlimit) {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
			t.Error(err)
		}
	}
	restored := false
	restore = func() {
		if !restored {
			restored = true
			set(was)
		}
	}
	t.Cleanup(restore)
	set(unix.Rlimit{Cur: uint64(lowestFree), Max: was.Max})
	return restore
}

// TestHazard6And7: a gate that is closed at once ends, and closes no descriptor
// that someone else opens meanwhile.
func TestHazard6And7_ListenThenClose_EndsAndClosesOnlyItsOwn(t *testing.T) {
	for range 15 {
		g := listen(t, newRecorder(), func(o *Options) { o.Loops = 2 })
		for range 24 { // no gap is left below the listeners' descriptors
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
		}
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			openAndClose(t, stop)
		}()
		if err := g.Close(t.Context()); err != nil {
			t.Error(err)
		}
		close(stop)
		<-stopped
	}
}

// openAndClose always has a descriptor that is as new as can be.
func openAndClose(t *testing.T, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		runtime.Gosched()
		if err := unix.Close(fd); err != nil {
			t.Errorf("someone else's descriptor was closed: %v", err)
			return
		}
	}
}
