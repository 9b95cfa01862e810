package gossip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/futurechat/future/router/cluster/clustertest"
)

func refused(g *Gossip, reason string) float64 {
	return testutil.ToFloat64(g.metrics.refused.WithLabelValues(reason))
}

func waitRefused(t *testing.T, g *Gossip, reason string, n float64) {
	t.Helper()
	for deadline := time.Now().Add(clustertest.Wait / 3); refused(g, reason) < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%v were refused as %s, want %v", refused(g, reason), reason, n)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// noise is bytes that begin as given.
func noise(n int, begin ...byte) []byte {
	r := rand.New(rand.NewPCG(3, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	copy(b, begin)
	return b
}

// label is how packets and streams of a cluster begin.
func label(name string) []byte { return append([]byte{244, byte(len(name))}, name...) }

// stream says something over TCP and reads until the other side ends it.
func sendStream(t *testing.T, to *Gossip, b []byte, hangUp bool) []byte {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", to.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(clustertest.Wait)); err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write(b) // it may be cut short by the other side
	if hangUp {
		return nil
	}
	got, _ := io.ReadAll(conn) // a reset is fine
	return got
}

// Whatever strangers send is refused and counted by reason, and the members see each other as before.
func TestGossip_StrangersPacketsAreRefusedAndCounted(t *testing.T) {
	a := start(t, options(clustertest.Of(1)))
	b := start(t, options(clustertest.Of(2), a.Addr()))
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(2))

	for _, p := range []struct {
		what, reason string
		packet       []byte
	}{
		{"noise", refusedLabel, noise(100, 7)},
		{"nothing but a label's beginning", refusedLabel, []byte{244}},
		{"another cluster's label", refusedLabel, append(label("another"), noise(100, 1)...)},
		{"our label and noise", refusedKey, append(label("test"), noise(100, 1)...)},
		{"our label alone", refusedKey, label("test")},
		{"the largest packet", refusedKey, append(label("test"), noise(60_000, 1)...)},
		{"an unencrypted ping", refusedKey, append(label("test"), 0, 0x80)},
	} {
		before := refused(a, p.reason)
		sendPacket(t, a, p.packet)
		waitRefused(t, a, p.reason, before+1)
	}
	huge := binary.BigEndian.AppendUint32(append(label("test"), 10), 19<<20)
	for _, s := range []struct {
		what, reason string
		bytes        []byte
		hangUp       bool
	}{
		{"noise", refusedLabel, noise(1000, 7), false},
		{"another cluster's label", refusedLabel, append(label("another"), noise(100, 10)...), false},
		{"unencrypted", refusedKey, append(label("test"), 6, 0x80), false},
		{"not our key", refusedKey, append(binary.BigEndian.AppendUint32(append(label("test"), 10), 100), noise(100, 1)...), false},
		{"cut", refusedMalformed, append(binary.BigEndian.AppendUint32(append(label("test"), 10), 100), 1, 2, 3), true},
		{"more than is allowed", refusedLarge, binary.BigEndian.AppendUint32(append(label("test"), 10), 1<<31), false},
		{"more than a member says", refusedLarge, append(huge, noise(6<<20, 1)...), false},
	} {
		before := refused(a, s.reason)
		got := sendStream(t, a, s.bytes, s.hangUp)
		waitRefused(t, a, s.reason, before+1)
		if bytes.Contains(got, []byte("host-")) {
			t.Errorf("%s: the stranger was told of members: %q", s.what, got)
		}
	}

	start(t, options(clustertest.Of(3), a.Addr()))
	for _, g := range []*Gossip{a, b} {
		clustertest.WaitFor(t, g, clustertest.Of(1), clustertest.Of(2), clustertest.Of(3))
	}
}

// Strangers that open streams and say much, or nothing, cost a bounded number of goroutines and bytes, and members get through.
func TestGossip_ManyStreamsOfStrangersAreBounded(t *testing.T) {
	a := start(t, options(clustertest.Of(1)))
	before := runtime.NumGoroutine()
	begin := binary.BigEndian.AppendUint32(append(label("test"), 10), 19<<20)
	for range 4 * mostStreams {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", a.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = conn.Write(begin) // it may be refused already
	}
	waitRefused(t, a, refusedMany, 1)
	if more := runtime.NumGoroutine() - before; more > 2*mostStreams {
		t.Errorf("%d goroutines more", more)
	}
	start(t, options(clustertest.Of(2), a.Addr()))
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(2))
	if open := a.list.NumMembers(); open != 2 {
		t.Error(fmt.Sprint(open, " members"))
	}
}
