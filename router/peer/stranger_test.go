package peer

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func refusals(s *Server, reason string) float64 {
	return testutil.ToFloat64(s.metrics.refused.WithLabelValues(reason))
}

func waitRefused(t *testing.T, s *Server, reason string, n float64) {
	t.Helper()
	for deadline := time.Now().Add(wait); refusals(s, reason) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%v refused as %s, want %v", refusals(s, reason), reason, n)
		}
		<-time.After(time.Millisecond)
	}
}

func TestWrongSecretOrCluster_IsRefusedByBothSides(t *testing.T) {
	for name, change := range map[string]func(*PoolOptions){
		"secret":  func(o *PoolOptions) { o.Secret = bytes.Repeat([]byte{8}, 32) },
		"cluster": func(o *PoolOptions) { o.Cluster = "another" },
	} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode()
			s := startServer(t, serverOptions(n))
			o := poolOptions()
			change(&o)
			p := startPool(t, o)
			if o := get(t, send(p, s.Addr(), numbered(1), wait)); !errors.Is(o.err, ErrLost) {
				t.Fatalf("got %+v", o)
			}
			waitRefused(t, s, refusedHandshake, 1)
			if got := n.got(); len(got) != 0 {
				t.Fatalf("node got %+v", got)
			}
			// The pool by itself refuses, too: its error is about the server's key.
			alone := &remote{pool: p, addr: s.Addr()}
			if _, err := alone.connect(t.Context()); !errors.Is(err, errStranger) {
				t.Fatalf("pool: %v", err)
			}
		})
	}
}

// A client that shows no certificate, or one of its own making and does not care who the server is, gets no further.
func TestStrangerWithTLS_IsRefusedByTheServer(t *testing.T) {
	n := newFakeNode()
	s := startServer(t, serverOptions(n))
	theirs, err := tlsConfig(bytes.Repeat([]byte{8}, 32), testCluster)
	if err != nil {
		t.Fatal(err)
	}
	theirs.VerifyConnection = nil
	none := theirs.Clone()
	none.Certificates = nil
	for i, config := range []*tls.Config{theirs, none} {
		raw := dial(t, s.Addr())
		conn := tls.Client(raw, config)
		hello := mustEncode(t, helloFrame("stranger"))
		w, err := forwardFrame(1, &Forward{Incarnation: "boot"})
		if err != nil {
			t.Fatal(err)
		}
		// In TLS 1.3 writes succeed before the server has judged: so all is sent, and nothing but an alert may come back.
		_, _ = conn.Write(append(hello, mustEncode(t, w)...))
		if b, err := io.ReadAll(conn); err == nil || len(b) != 0 {
			t.Errorf("%d: stranger read %x, %v", i, b, err)
		}
		waitRefused(t, s, refusedHandshake, float64(i+1))
	}
	if got := n.got(); len(got) != 0 {
		t.Fatalf("node got %+v", got)
	}
}

func TestPlainTextStranger_LearnsNothing(t *testing.T) {
	s := startServer(t, serverOptions(newFakeNode()))
	for _, say := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", string(mustEncode(t, helloFrame("me")))} {
		conn := dial(t, s.Addr())
		if _, err := io.WriteString(conn, say); err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(conn) // a reset is fine
		// A TLS alert is 7 bytes: type 21, version, length 2, level, description.
		if len(b) > 7 || len(b) > 0 && b[0] != 21 {
			t.Errorf("stranger read %q", b)
		}
	}
	waitRefused(t, s, refusedHandshake, 2)
}

func TestFrames_AreNotReadableOnTheWire(t *testing.T) {
	s, p := startServer(t, serverOptions(newFakeNode())), startPool(t, poolOptions())
	relay := startRelay(t, s.Addr())
	word := []byte("the-text-of-a-message")
	if o := get(t, send(p, relay.addr, Forward{Incarnation: string(word), Messages: []Message{{Body: word}}}, wait)); o.err != nil {
		t.Fatal(o.err)
	}
	relay.mu.Lock()
	defer relay.mu.Unlock()
	if len(relay.seen) < len(word) || bytes.Contains(relay.seen, word) || bytes.Contains(relay.seen, secret) {
		t.Fatal("readable")
	}
}

func TestSilentStrangers_DoNotKeepMembersOut(t *testing.T) {
	n := newFakeNode()
	o := serverOptions(n)
	o.MaxHandshakes, o.HandshakeTimeout = 4, time.Hour
	s := startServer(t, o)
	var strangers []net.Conn
	for range 20 {
		strangers = append(strangers, dial(t, s.Addr()))
	}
	waitRefused(t, s, refusedEvicted, 16)
	p := startPool(t, poolOptions())
	if o := get(t, send(p, s.Addr(), numbered(1), wait)); o.err != nil {
		t.Fatalf("member: %v", o.err)
	}
	if b, err := io.ReadAll(strangers[0]); len(b) != 0 {
		t.Fatalf("the oldest stranger read %x, %v", b, err)
	}
}

func TestSilentStranger_IsClosedAtItsDeadline(t *testing.T) {
	o := serverOptions(newFakeNode())
	o.HandshakeTimeout = 30 * time.Millisecond
	s := startServer(t, o)
	if b, _ := io.ReadAll(dial(t, s.Addr())); len(b) != 0 {
		t.Fatalf("read %x", b)
	}
	waitRefused(t, s, refusedHandshake, 1)
}

func TestMaxLinks_RefusesTheNewest(t *testing.T) {
	o := serverOptions(newFakeNode())
	o.MaxLinks = 1
	s := startServer(t, o)
	first, second := startPool(t, poolOptions()), startPool(t, poolOptions())
	waitUp(t, first, s.Addr())
	if o := get(t, send(second, s.Addr(), numbered(1), wait)); !errors.Is(o.err, ErrLost) {
		t.Fatalf("second: %+v", o)
	}
	if o := get(t, send(first, s.Addr(), numbered(1), wait)); o.err != nil {
		t.Fatalf("first: %v", o.err)
	}
}

func TestOptions_BadOnesAreRefused(t *testing.T) {
	so, po := serverOptions(nil), poolOptions()
	if _, err := NewServer(so); err == nil {
		t.Error("server without handler")
	}
	so.Handler = newFakeNode()
	so.Secret, po.Secret = secret[:MinSecret-1], nil
	if _, err := NewServer(so); err == nil {
		t.Error("server with a short secret")
	}
	if _, err := NewPool(po); err == nil {
		t.Error("pool without secret")
	}
	po = poolOptions()
	po.Cluster = ""
	if _, err := NewPool(po); err == nil {
		t.Error("pool without cluster")
	}
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	return conn
}
