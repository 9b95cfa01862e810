package gossip

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/cluster/clustertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var secret = bytes.Repeat([]byte{7}, 32)

func options(m cluster.Member, seeds ...string) Options {
	return Options{
		Self: m, Bind: "127.0.0.1:0", Seeds: seeds, Secret: secret, Cluster: "test", Logger: zap.NewNop(),
		timing: timing{probe: 200 * time.Millisecond, rejoin: 300 * time.Millisecond},
	}
}

func start(t *testing.T, o Options) *Gossip {
	t.Helper()
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Shutdown(); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return g
}

func TestGossip_Conforms(t *testing.T) {
	clustertest.Run(t, func(*testing.T) clustertest.Join {
		var seed string
		return func(t *testing.T, m cluster.Member) cluster.Membership {
			o := options(m)
			if seed != "" {
				o.Seeds = []string{seed}
			}
			g := start(t, o)
			if seed == "" {
				seed = g.Addr()
			}
			return g
		}
	})
}

func TestGossip_OneThatDiesIsGone(t *testing.T) {
	a := start(t, options(clustertest.Of(1)))
	b := start(t, options(clustertest.Of(2), a.Addr()))
	c := start(t, options(clustertest.Of(3), a.Addr()))
	for _, g := range []*Gossip{a, b, c} {
		clustertest.WaitFor(t, g, clustertest.Of(1), clustertest.Of(2), clustertest.Of(3))
	}
	if err := b.Shutdown(); err != nil {
		t.Fatal(err)
	}
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(3))
	clustertest.WaitFor(t, c, clustertest.Of(1), clustertest.Of(3))
}

// With the timing that is shipped. Three members are the worst case for nobody else confirms a suspicion, and a busy machine
// may be late: so the bound is wider than what is promised.
func TestGossip_DeathIsNoticedWithinSeconds(t *testing.T) {
	shipped := func(m cluster.Member, seeds ...string) Options {
		o := options(m, seeds...)
		o.timing = timing{}
		return o
	}
	a := start(t, shipped(clustertest.Of(1)))
	b := start(t, shipped(clustertest.Of(2), a.Addr()))
	c := start(t, shipped(clustertest.Of(3), a.Addr()))
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(2), clustertest.Of(3))
	clustertest.WaitFor(t, c, clustertest.Of(1), clustertest.Of(2), clustertest.Of(3))
	if err := b.Shutdown(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(3))
	clustertest.WaitFor(t, c, clustertest.Of(1), clustertest.Of(3))
	took := time.Since(begun)
	t.Logf("death was noticed by all after %v", took.Round(10*time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("death was noticed after %v", took)
	}
}

func TestGossip_StrangersNeverAppear(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"wrong secret":    func(o *Options) { o.Secret = bytes.Repeat([]byte{8}, 32) },
		"another cluster": func(o *Options) { o.Cluster = "another" },
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, options(clustertest.Of(1)))
			o := options(clustertest.Of(2), a.Addr())
			change(&o)
			// The stranger's own log tells when it has been turned away some times.
			core, logs := observer.New(zapcore.DebugLevel)
			o.Logger = zap.New(core)
			stranger := start(t, o)
			waitLogs(t, logs, "seed not reached", 3)
			// A member that comes after it is seen: so the stranger would have been.
			start(t, options(clustertest.Of(3), a.Addr()))
			clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(3))
			clustertest.WaitFor(t, stranger, clustertest.Of(2))
			for _, e := range logs.All() {
				if line := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(line, string(o.Secret)) {
					t.Errorf("the secret is in the log: %s", line)
				}
			}
		})
	}
}

func waitLogs(t *testing.T, logs *observer.ObservedLogs, message string, n int) {
	t.Helper()
	for deadline := time.Now().Add(clustertest.Wait); logs.FilterMessage(message).Len() < n; {
		if time.Now().After(deadline) {
			t.Fatalf("%q was not logged %d times", message, n)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestGossip_SeedThatComesUpLateIsFound(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	late := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.DebugLevel)
	o := options(clustertest.Of(1), late)
	o.Logger = zap.New(core)
	a := start(t, o)
	waitLogs(t, logs, "seed not reached", 2)
	o = options(clustertest.Of(2))
	o.Bind = late
	b := start(t, o)
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(2))
	clustertest.WaitFor(t, b, clustertest.Of(1), clustertest.Of(2))
}

// A process that died and comes back at its address is another member, with or without having been seen dead.
func TestGossip_RestartAtTheSameAddress(t *testing.T) {
	a := start(t, options(clustertest.Of(1)))
	b := start(t, options(clustertest.Of(2), a.Addr()))
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(2))
	if err := b.Shutdown(); err != nil {
		t.Fatal(err)
	}
	o := options(clustertest.Of(3), a.Addr())
	o.Bind = b.Addr()
	start(t, o)
	clustertest.WaitFor(t, a, clustertest.Of(1), clustertest.Of(3))
}

func TestGossip_SeedsByName(t *testing.T) {
	a := start(t, options(clustertest.Of(1)))
	_, port, err := net.SplitHostPort(a.Addr())
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, options(clustertest.Of(2), net.JoinHostPort("localhost", port)))
	clustertest.WaitFor(t, b, clustertest.Of(1), clustertest.Of(2))
}

func TestGossip_BindByNameDoesNotOpenAllAddresses(t *testing.T) {
	o := options(clustertest.Of(1))
	o.Bind = "localhost:0"
	if addr := start(t, o).Addr(); !strings.HasPrefix(addr, "127.") && !strings.HasPrefix(addr, "[::1]") {
		t.Fatalf("listens on %s", addr)
	}
}

func TestGossip_PortInUseIsAnError(t *testing.T) {
	a := start(t, options(clustertest.Of(1)))
	o := options(clustertest.Of(2))
	o.Bind = a.Addr()
	if g, err := New(o); err == nil {
		_ = g.Shutdown()
		t.Fatal("bound a port in use")
	}
}

func TestGossip_LeaveAfterShutdown(t *testing.T) {
	a := start(t, options(clustertest.Of(1)))
	if err := a.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if err := a.Leave(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestNew_BadOptionsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no id":         func(o *Options) { o.Self.ID = "" },
		"long id":       func(o *Options) { o.Self.ID = strings.Repeat("x", 129) },
		"long name":     func(o *Options) { o.Self.Name = strings.Repeat("x", 513) },
		"short secret":  func(o *Options) { o.Secret = o.Secret[:MinSecret-1] },
		"no cluster":    func(o *Options) { o.Cluster = "" },
		"long cluster":  func(o *Options) { o.Cluster = strings.Repeat("x", 256) },
		"no logger":     func(o *Options) { o.Logger = nil },
		"bind":          func(o *Options) { o.Bind = "127.0.0.1" },
		"bind port":     func(o *Options) { o.Bind = "127.0.0.1:http2" },
		"seed":          func(o *Options) { o.Seeds = []string{"localhost"} },
		"advertise":     func(o *Options) { o.Advertise = "x" },
		"all addresses": func(o *Options) { o.Bind = "[::]:0" },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(clustertest.Of(1))
			change(&o)
			if g, err := New(o); err == nil {
				_ = g.Shutdown()
				t.Fatal("taken")
			}
		})
	}
}

func TestLog_LevelsAndLengthAreBounded(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(zap.New(core), m)
	l.Printf("[ERR] memberlist: %s", strings.Repeat("x", 1000))
	for range 1000 {
		l.Print("[DEBUG] memberlist: again")
	}
	all := logs.All()
	if first := all[0]; first.Level != zapcore.WarnLevel || len(fmt.Sprint(first.ContextMap()["line"])) != maxLine {
		t.Errorf("got %v", first)
	}
	if len(all) > 50 {
		t.Errorf("%d lines of 1001 were logged", len(all))
	}
}
