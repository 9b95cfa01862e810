package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Host is a machine of its own for some of a cluster's processes: a network namespace with its own addresses, loopback and
// routes. Between it and everything else (the other processes, Kafka, Redis, MySQL, the test's own clients) lies a second
// namespace, a router that passes packets on: Cut has it drop them instead, without a word, as when a host loses its power or its
// network. Nobody gets a reset or an ICMP message, and Dropped counts what was lost, so a test can show that its fault has hit.
// What runs inside goes on running: Process.Kill ends it.
//
//	c, err := clustertest.Start(ctx, clustertest.Options{…, Hosts: true})
//	host, err := c.AddHost(ctx)
//	node, err := c.AddOn(ctx, host, "node")   // node.Addr and node.AdminAddr are reached from the test as always
//	err = host.Cut(ctx, clustertest.Both)     // or In, Out: one way alone
//	dropped, err := host.Dropped(ctx)         // packets, since the Host was made
//	err = host.Heal(ctx)
//
// Kafka, Redis and MySQL are on loopback, and the brokers tell clients so. So in the namespace the same addresses on its own
// loopback lead, over the router, to the real ones. (A database that is a SQLite file is reached past it.)
//
// It needs Linux, root and ip(8); Options.Hosts fails with a sentence that says so. What is made goes with Cluster.Stop.
type Host struct {
	// Addr is the host's IP address.
	Addr string

	name, wire string // the namespaces: of the host, and of the router before it
	lan        *lan
	relays     []*Relay
}

// Direction of packets as seen from a Host.
type Direction int

// Directions.
const (
	In Direction = 1 << iota
	Out
	Both = In | Out
)

// lan is what the hosts of a cluster have in common: an address of this machine, on which the processes outside listen, and the
// servers, made to be reached there.
type lan struct {
	addr, prefix string // 198.18.X.1, 198.18.X.
	name         string // begins the names of what is made
	servers      map[string]*Relay

	mu    sync.Mutex
	hosts []*Host
}

// newLAN takes an address from a range that RFC 2544 sets aside for tests.
func newLAN(ctx context.Context, servers []string) (_ *lan, err error) {
	var l *lan
	for range 20 { // clusters of several tests may be there at once
		x := strconv.Itoa(rand.IntN(256))
		l = &lan{prefix: "198.18." + x + ".", name: "ft" + x, servers: map[string]*Relay{}}
		l.addr = l.prefix + "1"
		if err = ip(ctx, "address", "add", l.addr+"/32", "dev", "lo"); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("clustertest: hosts of their own need Linux, root and ip(8): %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close(ctx))
		}
	}()
	for _, server := range servers {
		if l.servers[server], err = newRelay(ctx, l.addr+":0", server); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *lan) close(ctx context.Context) error {
	var errs []error
	for _, h := range l.hosts {
		for _, r := range h.relays {
			r.close()
		}
		errs = append(errs, h.remove(ctx))
	}
	for _, r := range l.servers {
		if r != nil {
			r.close()
		}
	}
	return errors.Join(append(errs, ip(ctx, "address", "delete", l.addr+"/32", "dev", "lo"))...)
}

// servedAt are the addresses of Kafka, Redis and MySQL.
func (c *Cluster) servedAt() []string {
	all := strings.Split(c.Kafka+","+c.Redis, ",")
	if at := regexp.MustCompile(`@tcp\(([^)]+)\)`).FindStringSubmatch(c.Database); at != nil {
		all = append(all, at[1])
	}
	return all
}

// AddHost makes a Host; the cluster must have been started with Options.Hosts.
func (c *Cluster) AddHost(ctx context.Context) (_ *Host, err error) {
	l := c.lan
	if l == nil {
		return nil, errors.New("clustertest: AddHost needs Options.Hosts")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.hosts) + 1
	h := &Host{
		Addr: l.prefix + strconv.Itoa(2*n), lan: l,
		name: fmt.Sprintf("%sh%d", l.name, n), wire: fmt.Sprintf("%sw%d", l.name, n),
	}
	l.hosts = append(l.hosts, h) // removed with the rest, however far this comes
	if err := h.connect(ctx, l.prefix+strconv.Itoa(2*n+1)); err != nil {
		return nil, err
	}
	for addr, outside := range l.servers {
		var listener net.Listener
		if err := within(h.name, func() (err error) {
			listener, err = net.Listen("tcp", addr) //nolint:noctx // it does not wait
			return err
		}); err != nil {
			return nil, err
		}
		h.relays = append(h.relays, relayOn(listener, addr, func() (conn net.Conn, err error) {
			err = within(h.name, func() (err error) {
				conn, err = net.Dial("tcp", outside.Addr) //nolint:noctx // the kernel gives up; nobody waits but who dialled
				return err
			})
			return conn, err
		}))
	}
	return h, nil
}

// connect makes the namespaces and their links: this machine ── outer (wire) inner ── eth0 (host).
func (h *Host) connect(ctx context.Context, gateway string) error {
	outside := h.wire + "u"
	for _, line := range []string{
		"netns add " + h.name,
		"netns add " + h.wire,
		"link add " + outside + " type veth peer name outer netns " + h.wire,
		"-n " + h.wire + " link add inner type veth peer name eth0 netns " + h.name,
		"link set " + outside + " up",
		"-n " + h.wire + " link set outer up",
		"-n " + h.wire + " link set inner up",
		"-n " + h.wire + " address add " + gateway + "/32 dev outer",
		"-n " + h.wire + " route add " + h.lan.addr + " dev outer",
		"-n " + h.wire + " route add " + h.Addr + " dev inner",
		"-n " + h.name + " link set lo up",
		"-n " + h.name + " address add " + h.Addr + "/32 dev eth0",
		"-n " + h.name + " link set eth0 up",
		"-n " + h.name + " route add default via " + gateway + " dev eth0 onlink",
		"route add " + h.Addr + " via " + gateway + " dev " + outside + " src " + h.lan.addr + " onlink",
	} {
		if err := ip(ctx, strings.Fields(line)...); err != nil {
			return err
		}
	}
	return h.Heal(ctx)
}

func (h *Host) remove(ctx context.Context) error {
	return errors.Join(ip(ctx, "netns", "delete", h.name), ip(ctx, "netns", "delete", h.wire)) // links and routes go along
}

// Cut drops all packets of a direction.
func (h *Host) Cut(ctx context.Context, d Direction) error { return h.forward(ctx, d) }

// Heal lets all packets through again.
func (h *Host) Heal(ctx context.Context) error { return h.forward(ctx, 0) }

// forward sets from which side the router passes packets on. What it does not it drops, and counts: see ip_error in Linux'
// net/ipv4/route.c.
func (h *Host) forward(ctx context.Context, cut Direction) error {
	set := func(side string, dropped Direction) string {
		value := 1
		if cut&dropped != 0 {
			value = 0
		}
		return fmt.Sprintf("echo %d > /proc/sys/net/ipv4/conf/%s/forwarding\n", value, side)
	}
	_, err := h.inWire(ctx, set("outer", In)+set("inner", Out))
	return err
}

// Dropped is how many packets to and from the host were dropped so far.
func (h *Host) Dropped(ctx context.Context) (int, error) {
	out, err := h.inWire(ctx, "cat /proc/net/snmp")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] != "Ip:":
		case names == nil:
			names = fields
		default:
			for i, name := range names {
				if name == "InAddrErrors" && i < len(fields) {
					return strconv.Atoi(fields[i])
				}
			}
		}
	}
	return 0, fmt.Errorf("clustertest: no count of dropped packets in %q", out)
}

func (h *Host) inWire(ctx context.Context, script string) (string, error) {
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", h.wire, "sh", "-ec", script).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", script, err, out)
	}
	return string(out), nil
}

// AddOn is Add on a Host.
func (c *Cluster) AddOn(ctx context.Context, h *Host, role string, env ...string) (*Process, error) {
	return c.add(ctx, h, role, env)
}

// flags have a process listen on the host's address.
func (h *Host) flags() []string {
	at := h.Addr + ":0"
	return []string{"-addr", at, "-admin-addr", at, "-peer-addr", at, "-gossip-addr", at, "-client-advertise", at}
}

// contain has a command run on the host. ip(8) becomes the command, so its process id is the command's.
func (h *Host) contain(cmd *exec.Cmd) {
	args := append([]string{"ip", "netns", "exec", h.name, cmd.Path}, cmd.Args[1:]...)
	at, err := exec.LookPath("ip")
	cmd.Path, cmd.Args = at, args
	cmd.Err = errors.Join(cmd.Err, err)
}

func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
