package peer

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/peer/peerv1"
)

func TestSend_AnswerComesBack(t *testing.T) {
	n := newFakeNode()
	want := Answer{Status: StatusStale, Missed: []Missed{{1, Recipient{2, 3}}}}
	n.forward = func(uint64, Forward) Answer { return want }
	s, p := startServer(t, serverOptions(n)), startPool(t, poolOptions())
	o := get(t, send(p, s.Addr(), full(), wait))
	if o.err != nil || fmt.Sprint(o.answer) != fmt.Sprint(want) {
		t.Fatalf("got %+v, %v", o.answer, o.err)
	}
	if f := n.got()[0]; f.Incarnation != "boot-1" || len(f.Messages) != 3 || string(f.Messages[0].Body) != "body" {
		t.Fatalf("node got %+v", f)
	}
}

func TestSend_OrderKeptOnOneLink(t *testing.T) {
	const senders, each = 8, 300
	n := newFakeNode()
	s, p := startServer(t, serverOptions(n)), startPool(t, poolOptions())
	var wg sync.WaitGroup
	answered := make(chan outcome, senders*each)
	for partition := range senders {
		wg.Go(func() {
			for i := range each {
				f := numbered(i)
				f.Partition = int32(partition)
				p.Send(s.Addr(), f, wait, func(a Answer, err error) { answered <- outcome{a, err} })
			}
		})
	}
	wg.Wait()
	for range senders * each {
		if o := get(t, answered); o.err != nil || o.answer.Status != StatusDelivered {
			t.Fatalf("got %+v", o)
		}
	}
	next := make(map[int32]uint64)
	for _, f := range n.got() {
		if f.Number != next[f.Partition] {
			t.Fatalf("partition %d: number %d came when %d was next", f.Partition, f.Number, next[f.Partition])
		}
		next[f.Partition]++
	}
	if links, _, _ := n.seen(); links != 1 {
		t.Fatalf("%d links, want one", links)
	}
}

func TestSend_AnswersAreMatchedByID(t *testing.T) {
	n := newFakeNode()
	n.forward = func(_ uint64, f Forward) Answer {
		return Answer{Status: StatusDelivered, Missed: []Missed{{Seq: f.Number}}}
	}
	s, p := startServer(t, serverOptions(n)), startPool(t, poolOptions())
	var outcomes []<-chan outcome
	for i := range 200 {
		outcomes = append(outcomes, send(p, s.Addr(), numbered(i), wait))
	}
	for i, c := range outcomes {
		if o := get(t, c); o.err != nil || o.answer.Missed[0].Seq != uint64(i) {
			t.Fatalf("%d: got %+v", i, o)
		}
	}
}

func TestSend_TimeoutLeavesTheLinkUp(t *testing.T) {
	n := newFakeNode()
	release := make(chan struct{})
	n.forward = func(_ uint64, f Forward) Answer {
		if f.Number == 0 {
			<-release
		}
		return Answer{Status: StatusDelivered}
	}
	reg := prometheus.NewRegistry()
	o := poolOptions()
	o.Registerer = reg
	s, p := startServer(t, serverOptions(n)), startPool(t, o)
	first := send(p, s.Addr(), numbered(0), 50*time.Millisecond)
	second := send(p, s.Addr(), numbered(1), wait)
	if o := get(t, first); !errors.Is(o.err, ErrTimeout) {
		t.Fatalf("got %+v", o)
	}
	close(release)
	if o := get(t, second); o.err != nil {
		t.Fatalf("behind a timeout: %v", o.err)
	}
	links, _, _ := n.seen()
	if late := testutil.ToFloat64(p.metrics.late); late != 1 || links != 1 || len(first) != 0 {
		t.Fatalf("%v late answers, %d links, %d second outcomes; want 1, 1, 0", late, links, len(first))
	}
}

func TestSend_ShortTimeoutBehindALongOne(t *testing.T) {
	n := newFakeNode()
	release := make(chan struct{})
	n.forward = func(uint64, Forward) Answer { <-release; return Answer{Status: StatusDelivered} }
	s, p := startServer(t, serverOptions(n)), startPool(t, poolOptions())
	long := send(p, s.Addr(), numbered(0), time.Hour)
	for i := range 5 {
		if o := get(t, send(p, s.Addr(), numbered(i), 20*time.Millisecond)); !errors.Is(o.err, ErrTimeout) {
			t.Fatalf("short: %+v", o)
		}
	}
	close(release)
	if o := get(t, long); o.err != nil {
		t.Fatalf("long: %+v", o)
	}
}

func TestServerDies_PendingIsLostAtOnceAndLinkComesBack(t *testing.T) {
	n := newFakeNode()
	release := make(chan struct{})
	n.forward = func(uint64, Forward) Answer { <-release; return Answer{Status: StatusDelivered} }
	so := serverOptions(n)
	s, err := NewServer(so)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	p := startPool(t, poolOptions())
	var outcomes []<-chan outcome
	for i := range 20 {
		outcomes = append(outcomes, send(p, s.Addr(), numbered(i), time.Hour))
	}
	// The first is with the handler: the link is up.
	for deadline := time.Now().Add(wait); testutil.ToFloat64(s.metrics.links) == 0 && time.Now().Before(deadline); {
		<-time.After(time.Millisecond)
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for i, c := range outcomes {
		if o := get(t, c); !errors.Is(o.err, ErrLost) {
			t.Fatalf("%d: got %+v", i, o)
		}
	}
	begun := time.Now()
	if o := get(t, send(p, s.Addr(), numbered(0), time.Hour)); !errors.Is(o.err, ErrLost) || time.Since(begun) > 5*time.Second {
		t.Errorf("while down: %+v after %v", o, time.Since(begun))
	}
	close(release)
	if err := get(t, closed); err != nil {
		t.Fatal(err)
	}
	if err := get(t, served); err != nil {
		t.Fatal(err)
	}
	if _, lost, late := n.seen(); lost != 1 || late != 0 {
		t.Fatalf("%d links lost, %d forwards after that", lost, late)
	}
	so.Addr = s.Addr()
	startServer(t, so)
	waitUp(t, p, so.Addr)
}

// A process that is killed says nothing: its host's kernel closes the connection. Something may have been on its way.
func TestClientDies_TheLinkIsLost(t *testing.T) {
	n := newFakeNode()
	s := startServer(t, serverOptions(n))
	p := startPool(t, poolOptions())
	r := startRelay(t, s.Addr())
	if o := get(t, send(p, r.addr, numbered(0), time.Hour)); o.err != nil {
		t.Fatal(o.err)
	}
	r.mu.Lock()
	toServer := r.conns[1]
	r.mu.Unlock()
	if err := toServer.Close(); err != nil {
		t.Fatal(err)
	}
	n.waitFor(t, "the link is lost", func() bool { return len(n.lost) == 1 })
}

func TestPoolClosed_WithNothingUnderWay_LosesNothing(t *testing.T) {
	n := newFakeNode()
	s := startServer(t, serverOptions(n))
	p := startPool(t, poolOptions())
	if o := get(t, send(p, s.Addr(), numbered(0), time.Hour)); o.err != nil {
		t.Fatal(o.err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "link ended", func() bool { return testutil.ToFloat64(s.metrics.lost.WithLabelValues("gone")) == 1 })
	if _, lost, _ := n.seen(); lost != 0 {
		t.Errorf("%d links lost", lost)
	}
}

func TestSend_NobodyListens(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := startPool(t, poolOptions())
	if o := get(t, send(p, addr, numbered(1), wait)); !errors.Is(o.err, ErrLost) {
		t.Fatalf("got %+v", o)
	}
}

func TestSend_FailsAtOnceWhileDown(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o := poolOptions()
	o.timing.backoff, o.timing.backoffTo = time.Hour, time.Hour
	o.Registerer = prometheus.NewRegistry()
	p := startPool(t, o)
	for i := range 100 {
		if o := get(t, send(p, addr, numbered(i), time.Hour)); !errors.Is(o.err, ErrLost) {
			t.Fatalf("%d: %+v", i, o)
		}
	}
	p.Kick(addr, Kick{})
	dials, kicks := p.metrics.dials.WithLabelValues(resultFailed), p.metrics.kicks.WithLabelValues(resultLost)
	if d, k := testutil.ToFloat64(dials), testutil.ToFloat64(kicks); d != 1 || k != 1 {
		t.Fatalf("%v dials, %v kicks lost; want 1, 1", d, k)
	}
}

func TestClose_FailsPendingAndLaterSends(t *testing.T) {
	n := newFakeNode()
	release := make(chan struct{})
	n.forward = func(uint64, Forward) Answer { <-release; return Answer{Status: StatusDelivered} }
	s := startServer(t, serverOptions(n))
	p, err := NewPool(poolOptions())
	if err != nil {
		t.Fatal(err)
	}
	pending := send(p, s.Addr(), numbered(1), time.Hour)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if o := get(t, pending); !errors.Is(o.err, ErrLost) {
		t.Errorf("pending: %+v", o)
	}
	if o := get(t, send(p, s.Addr(), numbered(2), time.Hour)); !errors.Is(o.err, ErrLost) {
		t.Errorf("later: %+v", o)
	}
	close(release)
}

func TestSend_TooLargeAndFullAreToldAndHarmless(t *testing.T) {
	n := newFakeNode()
	release := make(chan struct{})
	n.forward = func(_ uint64, f Forward) Answer {
		if f.Number == 1 {
			<-release
		}
		return Answer{Status: StatusDelivered}
	}
	o := poolOptions()
	o.MaxQueued = 1 << 20
	s, p := startServer(t, serverOptions(n)), startPool(t, o)
	if o := get(t, send(p, s.Addr(), Forward{Messages: []Message{{Body: make([]byte, MaxFrame)}}}, wait)); !errors.Is(o.err, ErrTooLarge) {
		t.Fatalf("got %+v", o)
	}
	outcomes := []<-chan outcome{send(p, s.Addr(), numbered(1), wait)}
	full := make(chan struct{})
	var once sync.Once
	var sent int
	// The reader does not read: the socket fills, then the queue.
	for isFull := false; !isFull && sent < 1000; sent++ {
		c := make(chan outcome, 1)
		p.Send(s.Addr(), Forward{Number: 2, Messages: []Message{{Body: make([]byte, 256<<10)}}}, wait, func(a Answer, err error) {
			if errors.Is(err, ErrFull) {
				once.Do(func() { close(full) })
			}
			c <- outcome{a, err}
		})
		outcomes = append(outcomes, c)
		select {
		case <-full:
			isFull = true
		default:
		}
	}
	get(t, full)
	close(release)
	for _, c := range outcomes {
		if o := get(t, c); o.err != nil && !errors.Is(o.err, ErrFull) {
			t.Fatalf("got %+v", o)
		}
	}
	if o := get(t, send(p, s.Addr(), numbered(3), wait)); o.err != nil {
		t.Fatalf("after: %+v", o)
	}
	if links, _, _ := n.seen(); links != 1 {
		t.Fatalf("%d links, want one", links)
	}
}

func TestKick_Arrives(t *testing.T) {
	n := newFakeNode()
	s, p := startServer(t, serverOptions(n)), startPool(t, poolOptions())
	p.Kick(s.Addr(), Kick{Incarnation: "boot", Connections: []uint64{4, 5}, Reason: pb.Closing_REASON_REPLACED})
	n.waitFor(t, "kick", func() bool { return len(n.kicks) == 1 })
	if k := n.kicks[0]; k.Incarnation != "boot" || len(k.Connections) != 2 || k.Reason != pb.Closing_REASON_REPLACED {
		t.Fatalf("got %+v", k)
	}
}

func TestLink_UnknownFramesAreCountedAndIgnored(t *testing.T) {
	n := newFakeNode()
	s, p := startServer(t, serverOptions(n)), startPool(t, poolOptions())
	waitUp(t, p, s.Addr())
	r := p.remote(s.Addr())
	if took, err := r.post(framed([]byte{15<<3 | 2, 1, 'x'})); !took || err != nil {
		t.Fatal(took, err)
	}
	if o := get(t, send(p, s.Addr(), numbered(1), wait)); o.err != nil {
		t.Fatalf("after: %+v", o)
	}
	if links, _, _ := n.seen(); links != 1 {
		t.Fatalf("%d links, want one", links)
	}
	if got := testutil.ToFloat64(s.metrics.frames.WithLabelValues(kindUnknown)); got != 1 {
		t.Fatalf("%v unknown frames counted", got)
	}
}

func TestLink_GarbageClosesIt(t *testing.T) {
	for name, garbage := range map[string][]byte{
		"protobuf": framed(bytes.Repeat([]byte{0xff}, 20)),
		"lists":    mustEncode(t, &peerv1.Frame{Body: &peerv1.Frame_Forward{Forward: &peerv1.Forward{Messages: []*peerv1.Message{{Recipients: &peerv1.Recipients{Users: []int64{1}}}}}}}),
		"length":   {0xff, 0xff, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode()
			s, p := startServer(t, serverOptions(n)), startPool(t, poolOptions())
			waitUp(t, p, s.Addr())
			if took, err := p.remote(s.Addr()).post(garbage); !took || err != nil {
				t.Fatal(took, err)
			}
			n.waitFor(t, "link lost", func() bool { return len(n.lost) == 1 })
			waitUp(t, p, s.Addr())
		})
	}
}

func mustEncode(t *testing.T, f *peerv1.Frame) []byte {
	t.Helper()
	b, err := encode(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIdleLinkIsClosedAndMadeAgain(t *testing.T) {
	n := newFakeNode()
	o := poolOptions()
	o.IdleAfter = 30 * time.Millisecond
	s, p := startServer(t, serverOptions(n)), startPool(t, o)
	waitUp(t, p, s.Addr())
	waitUntil(t, "idle link closed", func() bool { return testutil.ToFloat64(s.metrics.lost.WithLabelValues("gone")) == 1 })
	if _, lost, _ := n.seen(); lost != 0 {
		t.Error("the node was told of a loss: it would have all its sessions compare heads")
	}
	if o := get(t, send(p, s.Addr(), numbered(1), wait)); o.err != nil {
		t.Fatalf("after idleness: %v", o.err)
	}
}

func TestPings_KeepAQuietLinkUp(t *testing.T) {
	n := newFakeNode()
	so, po := serverOptions(n), poolOptions()
	// Wide: on a busy machine a process may get no processor for a second.
	so.silentAfter, po.timing.silent, po.timing.ping = 3*time.Second, 3*time.Second, 100*time.Millisecond
	s, p := startServer(t, so), startPool(t, po)
	waitUp(t, p, s.Addr())
	<-time.After(3500 * time.Millisecond)
	if _, lost, _ := n.seen(); lost != 0 || testutil.ToFloat64(p.metrics.links) != 1 {
		t.Fatal("a quiet link was lost")
	}
	if testutil.ToFloat64(s.metrics.frames.WithLabelValues(kindPing)) == 0 {
		t.Fatal("no pings")
	}
}

func TestHalfOpenLink_IsFoundByBothEnds(t *testing.T) {
	n := newFakeNode()
	so, po := serverOptions(n), poolOptions()
	so.silentAfter, po.timing.silent, po.timing.ping = 300*time.Millisecond, 300*time.Millisecond, 50*time.Millisecond
	s, p := startServer(t, so), startPool(t, po)
	relay := startRelay(t, s.Addr())
	waitUp(t, p, relay.addr)
	relay.freeze()
	pending := send(p, relay.addr, numbered(1), time.Hour)
	if o := get(t, pending); !errors.Is(o.err, ErrLost) {
		t.Fatalf("got %+v", o)
	}
	n.waitFor(t, "server finds out", func() bool { return len(n.lost) >= 1 })
}
