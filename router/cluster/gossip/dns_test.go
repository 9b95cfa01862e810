package gossip

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/futurechat/future/router/cluster/clustertest"
)

// names is a DNS server that knows what a test tells it.
type names struct {
	conn net.PacketConn
	mu   sync.Mutex
	a    map[string][]string       // name → addresses
	srv  map[string][]*net.TCPAddr // name → targets, by their number: t0, t1, …
}

func startNames(t *testing.T) *names {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &names{conn: conn, a: map[string][]string{}, srv: map[string][]*net.TCPAddr{}}
	var served sync.WaitGroup
	served.Go(n.serve)
	t.Cleanup(func() {
		_ = conn.Close()
		served.Wait()
	})
	return n
}

func (n *names) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// resolver asks this server alone.
func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", n.conn.LocalAddr().String())
	}}
}

func (n *names) serve() {
	buf := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:size]) != nil || len(m.Questions) != 1 {
			continue
		}
		m.Response, m.Authoritative, m.Additionals = true, true, nil
		n.answer(&m)
		if b, err := m.Pack(); err == nil {
			_, _ = n.conn.WriteTo(b, from) // who asked asks again
		}
	}
}

func (n *names) answer(m *dnsmessage.Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := m.Questions[0]
	name := strings.TrimSuffix(q.Name.String(), ".")
	header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: dnsmessage.ClassINET}
	add := func(body dnsmessage.ResourceBody) {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: body})
	}
	addrs, targets := n.a[name], n.srv[name]
	switch q.Type {
	case dnsmessage.TypeA:
		for _, a := range addrs {
			add(&dnsmessage.AResource{A: [4]byte(net.ParseIP(a).To4())})
		}
	case dnsmessage.TypeSRV:
		for _, t := range targets {
			target := dnsmessage.MustNewName("host-" + strings.ReplaceAll(t.IP.String(), ".", "-") + ".example.")
			add(&dnsmessage.SRVResource{Port: uint16(t.Port), Target: target})
		}
	}
	if len(addrs)+len(targets) == 0 {
		m.RCode = dnsmessage.RCodeNameError
	}
}

func addrOf(t *testing.T, g *Gossip) *net.TCPAddr {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", g.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A name stands for all its addresses, and is looked up anew at each try: so processes that come later are found.
func TestGossip_SeedName_ThatResolvesLater_ToSeveralAddresses(t *testing.T) {
	dns := startNames(t)
	a := start(t, options(clustertest.Of(1)))
	_, port, err := net.SplitHostPort(a.Addr())
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.WarnLevel)
	o := options(clustertest.Of(2), net.JoinHostPort("seeds.example", port))
	o.Resolver, o.Logger = dns.resolver(), zap.New(core)
	b := start(t, o)
	waitLogs(t, logs, "a seed is not reached; it is tried again and again", 1)
	// Nobody is at the first of them.
	dns.set(func() { dns.a["seeds.example"] = []string{"127.0.0.9", "127.0.0.1"} })
	clustertest.WaitFor(t, b, clustertest.Of(1), clustertest.Of(2))
	if n := logs.FilterMessage("a seed is not reached; it is tried again and again").Len(); n != 1 {
		t.Errorf("it was said %d times", n)
	}
}

// An SRV record names hosts and ports; when it changes, those that it names then are found.
func TestGossip_SeedBySRV_FollowsItsChanges(t *testing.T) {
	dns := startNames(t)
	one, two := options(clustertest.Of(1)), options(clustertest.Of(2))
	one.Bind, two.Bind = "127.0.0.2:0", "127.0.0.3:0"
	a, b := start(t, one), start(t, two)
	const seed = "_gossip._tcp.example"
	dns.set(func() {
		dns.a["host-127-0-0-2.example"], dns.a["host-127-0-0-3.example"] = []string{"127.0.0.2"}, []string{"127.0.0.3"}
		dns.srv[seed] = []*net.TCPAddr{addrOf(t, a)}
	})
	o := options(clustertest.Of(3), seed)
	o.Resolver = dns.resolver()
	c := start(t, o)
	<-c.Tried()
	clustertest.WaitFor(t, c, clustertest.Of(1), clustertest.Of(3))
	dns.set(func() { dns.srv[seed] = []*net.TCPAddr{addrOf(t, a), addrOf(t, b)} })
	clustertest.WaitFor(t, c, clustertest.Of(1), clustertest.Of(2), clustertest.Of(3))
	clustertest.WaitFor(t, b, clustertest.Of(1), clustertest.Of(2), clustertest.Of(3))
}
