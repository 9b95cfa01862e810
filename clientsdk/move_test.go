package future_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/clientsdk/internal/fakenode"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// leave has a node end its one connection as one that goes down does.
func leave(n *fakenode.Node, addrs ...string) {
	n.Set(func() { n.Sessions[0].Close(pb.Closing_REASON_DRAINING, time.Millisecond, addrs...) })
}

// states reads events until the client is Online at addr, and returns the states on the way.
func states(t *testing.T, c *future.Client, addr string) (seen []future.State) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e := <-c.Events():
			s, ok := e.(future.StateChange)
			if !ok {
				continue
			}
			seen = append(seen, s.State)
			if s.State == future.Online && s.Addr == addr {
				return seen
			}
		case <-deadline:
			t.Fatalf("never online at %s, but %v; %+v", addr, seen, c.Stats())
		}
	}
}

func TestR35_Move_ToWhereTheNodeSays_WithoutAWordOfOffline(t *testing.T) {
	one, two := fakenode.Start(t), fakenode.Start(t)
	c := alice(t, one)
	states(t, c, one.Addr())
	synced(t, one, c)
	leave(one, "", "nonsense", ":1", strings.Repeat("x", 300)+":1", two.Addr())
	if seen := states(t, c, two.Addr()); !slices.Equal(seen, []future.State{future.Online}) {
		t.Errorf("the program was told %v", seen)
	}
	// What was told is not kept: the next connection is to an address of Dial.
	two.Kill()
	if seen := states(t, c, one.Addr()); !slices.Equal(seen, []future.State{future.Offline, future.Online}) {
		t.Errorf("the program was told %v", seen)
	}
}

// Behind a load balancer nodes tell no addresses, and the client comes back to the one that it knows: there is nothing to tell.
func TestR35_Move_ToTheSameAddress_IsNoEvent(t *testing.T) {
	n := fakenode.Start(t)
	c := alice(t, n)
	states(t, c, n.Addr())
	synced(t, n, c)
	leave(n)
	waitFor(t, "a second session", func() bool { return c.Stats().Sessions == 2 })
	if _, err := c.Friends(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-c.Events():
		t.Errorf("the program was told %+v", e)
	default:
	}
}

func TestR35_Move_ThatTakesLong_IsTold(t *testing.T) {
	n := fakenode.Start(t)
	var clock jumps
	var away atomic.Bool
	c := alice(t, n, future.WithClock(&clock), future.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if away.Load() {
			return nil, errors.New("refused")
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}))
	states(t, c, n.Addr())
	synced(t, n, c)
	away.Store(true)
	leave(n, n.Addr())
	waitFor(t, "the end of the connection", func() bool { return c.Stats().Lost == 1 })
	clock.ahead.Store(int64(time.Minute))
	changed(t, c, future.Offline)
	away.Store(false)
	changed(t, c, future.Online)
}

// jumps is a clock that a test sets forward.
type jumps struct{ ahead atomic.Int64 }

func (j *jumps) Now() time.Time { return time.Now().Add(time.Duration(j.ahead.Load())) }

func (j *jumps) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(min(d, 2*time.Millisecond)) // too early is no harm, too late would be after a jump
	return t.C, func() { t.Stop() }
}

// A request that a node which goes down has refused was not carried out: it is asked again at the next, whatever it is.
func TestR35_Move_RefusedRequestsAreAskedElsewhere(t *testing.T) {
	one, two := fakenode.Start(t), fakenode.Start(t)
	c := alice(t, one)
	synced(t, one, c)
	refused := make(chan string, 8)
	one.Set(func() {
		one.On = func(s *fakenode.Session, e *pb.Envelope) bool {
			s.Fail(e, &wire.Error{Code: pb.Code_CODE_DRAINING, RetryAfter: time.Minute})
			refused <- fmt.Sprintf("%T", e.GetBody())
			return true
		}
	})
	results := make(chan error, 3)
	go func() { results <- c.AddFriend(t.Context(), "bob", "hi") }()
	<-refused
	go func() { _, err := c.Friends(t.Context()); results <- err }()
	go func() { _, err := c.Send(t.Context(), "d:1:2", "hello"); results <- err }()
	waitFor(t, "the send", func() bool { return len(one.Seen(isSend)) == 1 })
	leave(one, two.Addr())
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if got := len(two.Seen(func(e *pb.Envelope) bool { return e.GetAddFriend() != nil })); got != 1 {
		t.Errorf("the second node was asked %d times", got)
	}
}

// Nodes that only ever send a client on do not keep it: after one that gave no session it tries the addresses of Dial again.
func TestR35_Move_FromNodeToNodeEndsAtTheAddressesOfDial(t *testing.T) {
	one, two := fakenode.Start(t), fakenode.Start(t)
	c := alice(t, one)
	states(t, c, one.Addr())
	synced(t, one, c)
	var sentOn atomic.Int32
	two.Set(func() {
		two.On = func(s *fakenode.Session, _ *pb.Envelope) bool {
			sentOn.Add(1)
			s.Close(pb.Closing_REASON_DRAINING, time.Millisecond, two.Addr())
			return true
		}
	})
	leave(one, two.Addr())
	waitFor(t, "a second session", func() bool { return c.Stats().Sessions == 2 })
	if got := c.Stats().Addr; got != one.Addr() || sentOn.Load() != 1 {
		t.Errorf("the client is at %s, and was sent on %d times", got, sentOn.Load())
	}
}

// certified gives a TLS configuration for a name, and adds its certificate to those that are trusted.
func certified(t *testing.T, name string, trusted *x509.CertPool) *tls.Config {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	trusted.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// secured puts TLS before a node and returns the address.
func secured(t *testing.T, n *fakenode.Node, c *tls.Config) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", c)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer client.Close()
				node, err := net.Dial("tcp", n.Addr()) //nolint:noctx // on loopback it answers at once
				if err != nil {
					return
				}
				defer node.Close()
				wait.Go(func() { _, _ = io.Copy(client, node); _ = client.Close() })
				_, _ = io.Copy(node, client)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		n.Kill()
		wait.Wait()
	})
	return l.Addr().String()
}

// A node that is not honest cannot send its clients to a server of another name, however good that one's certificate is.
func TestR35_Move_TheNextNodeMustProveTheNameThatWasAskedFor(t *testing.T) {
	ours, theirs, next := fakenode.Start(t), fakenode.Start(t), fakenode.Start(t)
	trusted := x509.NewCertPool()
	good := certified(t, "chat.example", trusted)
	bad := certified(t, "evil.example", trusted)
	places := map[string]string{
		"chat.example:443": secured(t, ours, good), "evil.example:443": secured(t, theirs, bad), "node2.internal:443": secured(t, next, good),
	}
	var mu sync.Mutex
	var dialled []string
	dialer := func(ctx context.Context, network, addr string) (net.Conn, error) {
		mu.Lock()
		dialled = append(dialled, addr)
		mu.Unlock()
		return (&net.Dialer{}).DialContext(ctx, network, places[addr])
	}
	c, err := future.Dial(t.Context(), []string{"chat.example:443"}, future.WithDialer(dialer), future.WithTLS(&tls.Config{RootCAs: trusted}),
		future.WithBackoff(time.Millisecond, 20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Login(t.Context(), "alice", "password"); err != nil {
		t.Fatal(err)
	}
	states(t, c, "chat.example:443")
	leave(ours, "evil.example:443", "node2.internal:443")
	if seen := states(t, c, "node2.internal:443"); len(seen) != 1 {
		t.Errorf("the program was told %v", seen)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"chat.example:443", "evil.example:443", "node2.internal:443"}; !slices.Equal(dialled, want) {
		t.Errorf("dialled %v, want %v", dialled, want)
	}
	theirs.Lock()
	defer theirs.Unlock()
	if len(theirs.Requests) != 0 {
		t.Errorf("the stranger was told %v", theirs.Requests)
	}
}

// What a node told is for one move: when the client has arrived, the rest of it is forgotten.
func TestR35_Move_WhatWasToldIsForgottenOnArrival(t *testing.T) {
	one, two, three := fakenode.Start(t), fakenode.Start(t), fakenode.Start(t)
	c := alice(t, one)
	states(t, c, one.Addr())
	synced(t, one, c)
	leave(one, two.Addr(), three.Addr())
	states(t, c, two.Addr())
	two.Kill()
	waitFor(t, "a third session", func() bool { return c.Stats().Sessions == 3 })
	if got := c.Stats().Addr; got != one.Addr() {
		t.Errorf("the client went to %s, of which it was told long ago, and not to %s", got, one.Addr())
	}
}

// A program that starts while the one node that it knows goes down is sent on like any other.
func TestR35_Move_OfAProgramThatStarts(t *testing.T) {
	one, two := fakenode.Start(t), fakenode.Start(t)
	one.Set(func() {
		one.On = func(s *fakenode.Session, _ *pb.Envelope) bool {
			s.Close(pb.Closing_REASON_DRAINING, time.Millisecond, two.Addr())
			return true
		}
	})
	c := alice(t, one)
	if got := c.Stats().Addr; got != two.Addr() {
		t.Errorf("the client is at %s", got)
	}
}

// A node that refuses a session tells where to go only when it ends the connection.
func TestR35_Move_ARefusedResumeWaitsToBeToldWhere(t *testing.T) {
	one, two := fakenode.Start(t), fakenode.Start(t)
	c := alice(t, one)
	states(t, c, one.Addr())
	synced(t, one, c)
	one.Set(func() {
		one.On = func(s *fakenode.Session, e *pb.Envelope) bool {
			if e.GetResume() == nil {
				return false
			}
			s.Fail(e, &wire.Error{Code: pb.Code_CODE_DRAINING, RetryAfter: time.Minute})
			s.Close(pb.Closing_REASON_DRAINING, time.Millisecond, two.Addr())
			return true
		}
	})
	one.Kill()
	states(t, c, two.Addr())
}

// The host of a process that was stopped still takes connections. A client that has another address does not wait long for it.
func TestR35_Move_ToAStoppedNode_GoesOnToTheNext(t *testing.T) {
	one, stopped, two := fakenode.Start(t), fakenode.Start(t), fakenode.Start(t)
	var clock jumps
	c := alice(t, one, future.WithClock(&clock))
	states(t, c, one.Addr())
	synced(t, one, c)
	knocked := make(chan struct{})
	stopped.Set(func() {
		stopped.On = func(*fakenode.Session, *pb.Envelope) bool { close(knocked); return true }
	})
	leave(one, stopped.Addr(), two.Addr())
	<-knocked
	clock.ahead.Store(int64(4 * time.Second))
	states(t, c, two.Addr())
}

// Somebody in the middle of a clear connection can tell a client to go to a port of its own machine, where a stranger's program
// may listen: that gets no password either.
func TestR35_Move_APortOfThisMachineNamedByAStranger_GetsNoPassword(t *testing.T) {
	far, near := fakenode.Start(t), fakenode.Start(t)
	far.Set(func() {
		far.On = func(s *fakenode.Session, _ *pb.Envelope) bool {
			s.Close(pb.Closing_REASON_DRAINING, time.Millisecond, near.Addr())
			return true
		}
	})
	c := dial(t, far, future.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if addr == far.Addr() && err == nil {
			return farConn{c}, nil
		}
		return c, err
	}))
	if _, err := c.Login(t.Context(), "alice", "password"); !errors.Is(err, future.ErrInsecure) {
		t.Errorf("%v", err)
	}
	if got := near.Seen(func(e *pb.Envelope) bool { return e.GetLogin() != nil }); len(got) != 0 {
		t.Errorf("it was told %v", got)
	}
}

// Nobody is logged in, so nobody moves: when a person does log in, that is at an address of Dial.
func TestR35_Move_WithoutASession_IsForgotten(t *testing.T) {
	one, two := fakenode.Start(t), fakenode.Start(t)
	c := dial(t, one)
	leave(one, two.Addr())
	waitFor(t, "the end of the connection", func() bool {
		one.Lock()
		defer one.Unlock()
		return len(one.Sessions) == 0
	})
	if _, err := c.Friends(t.Context()); !errors.Is(err, future.ErrNotLoggedIn) {
		t.Fatal(err)
	}
	_, err := c.Login(t.Context(), "alice", "password")
	for errors.Is(err, future.ErrDisconnected) { // it had not seen the end yet
		_, err = c.Login(t.Context(), "alice", "password")
	}
	if got := c.Stats().Addr; err != nil || got != one.Addr() {
		t.Errorf("logged in at %s, %v", got, err)
	}
}
