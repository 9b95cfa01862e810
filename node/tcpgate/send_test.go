package tcpgate

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSlowReader_IsBoundedAndStays(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, func(o *Options) {
		roomy(o)
		o.OutboundBytes, o.OutboundFrames = 256<<10, 100
	})
	// One frame fits, be it larger than all else.
	large := bytes.Repeat([]byte("x"), 4<<20)
	c, client := blockedConn(t, g, r, large)
	if err := c.Send(frame("too much")); !errors.Is(err, ErrSlowConsumer) {
		t.Fatalf("Send over the bytes allowed: %v", err)
	}
	wantFrame(t, client, string(large))
	r.waitFor(t, "Drained", func() bool { return r.drained == 1 })

	large = large[:240<<10]
	taken := 0
	for {
		err := c.Send(appendFrame(nil, large))
		if errors.Is(err, ErrSlowConsumer) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		taken++
		if _, queued := c.Queued(); queued > 256<<10 {
			t.Fatalf("%d bytes queued", queued)
		}
	}
	small := 0
	for ; c.Send(frame("1234")) == nil; small++ {
		if frames, _ := c.Queued(); frames > 100 {
			t.Fatalf("%d frames queued", frames)
		}
	}
	for range taken {
		wantFrame(t, client, string(large))
	}
	for range small {
		wantFrame(t, client, "1234")
	}
	r.waitFor(t, "Drained", func() bool { return r.drained == 2 })
	if err := c.Send(frame("room again")); err != nil {
		t.Fatal(err)
	}
	wantFrame(t, client, "room again")
	wantCount(t, g.metrics.dropped.WithLabelValues(dropOverBudget), 3)
}

func TestSlowReader_TakesNothing_ClosedAfterStallTimeout(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, func(o *Options) { roomy(o); o.StallTimeout = 300 * time.Millisecond; o.Linger = time.Hour })
	begin := time.Now()
	c, _ := blockedConn(t, g, r, make([]byte, 8<<20))
	if reason := r.waitClosed(t, c); reason != CloseSlowConsumer || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("closed with %s after %s", reason, time.Since(begin))
	}
	wantCount(t, g.metrics.dropped.WithLabelValues(dropClosed), 1)
}

func TestSlowReader_TakesALittle_Stays(t *testing.T) {
	const stall = 400 * time.Millisecond
	r := newRecorder()
	g := listen(t, r, func(o *Options) { roomy(o); o.StallTimeout = stall })
	c, client := blockedConn(t, g, r, make([]byte, 32<<20))
	tick := time.NewTicker(stall / 20)
	defer tick.Stop()
	buf := make([]byte, 256<<10)
	for begin := time.Now(); time.Since(begin) < 3*stall; <-tick.C {
		if _, err := client.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	if _, queued := c.Queued(); queued == 0 || c.closing.Load() {
		t.Errorf("%d bytes queued, closing: %v", queued, c.closing.Load())
	}
}

func TestSend_FromManyGoroutines_LosesAndReordersNothing(t *testing.T) {
	const senders, conns, frames = 8, 4, 300
	r := newRecorder()
	g := listen(t, r, func(o *Options) { roomy(o); o.Loops = 2 })
	var clients []*net.TCPConn
	for range conns {
		clients = append(clients, dial(t, g))
	}
	targets := r.waitConns(t, conns)
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range frames {
				f := frame(fmt.Sprintf("%d %d", s, i))
				if s%2 == 0 {
					if slow := g.Push(f, targets); slow != nil {
						t.Error("refused")
					}
					continue
				}
				for _, c := range targets {
					if err := c.Send(f); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for _, client := range clients {
		next := [senders]int{}
		for range senders * frames {
			got, err := readFrame(client)
			if err != nil {
				t.Fatal(err)
			}
			var s, i int
			if _, err := fmt.Sscanf(got, "%d %d", &s, &i); err != nil || next[s] != i {
				t.Fatalf("frame %q, want sender %d's %d", got, s, next[s])
			}
			next[s]++
		}
	}
	wg.Wait()
	wantCount(t, g.metrics.framesOut, senders*conns*frames)
}

// TestSend_EachWakesItsLoop: with no deadline to serve, only the wheel's slow
// turn would find a frame whose wake-up was lost.
func TestSend_EachWakesItsLoop(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, func(o *Options) {
		o.HelloTimeout, o.LoginTimeout, o.IdleTimeout, o.Linger = -1, -1, -1, 8*time.Second
	})
	const pairs, rounds = 4, 500
	var clients [pairs]*net.TCPConn
	for i := range clients {
		clients[i] = dial(t, g)
	}
	lates := make(chan int, pairs)
	for _, c := range r.waitConns(t, pairs) {
		client := clients[0]
		for _, candidate := range clients {
			if candidate.LocalAddr().String() == c.RemoteAddr().String() {
				client = candidate
			}
		}
		go func() {
			late := 0
			for range rounds {
				begin := time.Now()
				if err := c.Send(frame("ping")); err != nil {
					t.Error(err)
				}
				if _, err := readFrame(client); err != nil {
					t.Error(err)
				}
				if time.Since(begin) > 400*time.Millisecond {
					late++
				}
			}
			lates <- late
		}()
	}
	late := 0
	for range pairs {
		late += <-lates
	}
	// A busy machine may stop us for so long, but hardly often.
	if late > 4 {
		t.Errorf("%d of %d frames came only by chance", late, pairs*rounds)
	}
	for _, c := range clients {
		c.Close()
	}
}

// TestSend_WhileConnectionsComeAndGo is for the race detector: no write may meet
// a descriptor that has become another connection's, whose client would see a
// frame that is not its own.
func TestSend_WhileConnectionsComeAndGo_ReachesOnlyItsOwn(t *testing.T) {
	r := newRecorder()
	r.onOpened = func(c *Conn) { c.SetValue(c.RemoteAddr().String()) }
	g := listen(t, r, func(o *Options) { roomy(o); o.Loops = 2 })
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r.mu.Lock()
				conns := append([]*Conn(nil), r.conns[max(0, len(r.conns)-20):]...)
				change := r.change
				r.mu.Unlock()
				for _, c := range conns {
					if err := c.Send(frame(c.Value().(string))); err != nil && !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
				}
				if len(conns) == 0 {
					<-change
				}
			}
		})
	}
	for range 300 {
		client := dial(t, g)
		wantFrame(t, client, client.LocalAddr().String())
		client.Close()
	}
	close(stop)
	wg.Wait()
}

func TestThousandsOfConnections(t *testing.T) {
	const n = 2000
	r := newRecorder()
	opened := make(chan struct{}, n)
	r.onOpened = func(*Conn) { opened <- struct{}{} }
	g := listen(t, r, func(o *Options) { o.Loops = 2; o.HelloTimeout = patience; o.LoginTimeout = -1 })
	clients := make([]*net.TCPConn, n)
	for i := range clients {
		clients[i] = dial(t, g)
	}
	for range n {
		<-opened
	}
	conns := r.waitConns(t, n)
	for round := range 3 {
		if slow := g.Push(frame(fmt.Sprint(round)), conns); slow != nil {
			t.Fatal("refused")
		}
	}
	for i, c := range clients {
		send(t, c, frame(fmt.Sprint("from ", i)))
	}
	for _, c := range clients {
		for round := range 3 {
			wantFrame(t, c, fmt.Sprint(round))
		}
	}
	r.waitFor(t, "a frame of each", func() bool { return len(r.frames) == n })
	for _, c := range clients {
		c.Close()
	}
	r.waitFor(t, "all closes", func() bool { return len(r.closed) == n })
	if g.Conns() != 0 {
		t.Errorf("%d connections", g.Conns())
	}
}

func TestSocket_HasItsOptions(t *testing.T) {
	r := newRecorder()
	type option struct{ level, name, want int }
	r.onFrame = func(c *Conn, _ []byte) {
		for _, o := range []option{
			{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12_000},
			{unix.SOL_SOCKET, unix.SO_SNDBUF, 2 * 64 << 10}, // the kernel doubles it
		} {
			if got, err := unix.GetsockoptInt(c.fd, o.level, o.name); err != nil || got != o.want {
				t.Errorf("option %d is %d, %v; want %d", o.name, got, err, o.want)
			}
		}
		if flags, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("a child process would inherit the connection: %d, %v", flags, err)
		}
	}
	g := listen(t, r, func(o *Options) { o.SendBuffer = 64 << 10; o.UserTimeout = 12 * time.Second })
	send(t, dial(t, g), frame("now"))
	r.waitFor(t, "the frame", func() bool { return len(r.frames) == 1 })
}
