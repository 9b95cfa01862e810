// Package clustertest starts clusters of real processes for tests and for the floor: nodes, routers and history consumers of
// the chatd binary, each with ports of its own on loopback.
//
// They run against the real servers that FUTURE_TEST_KAFKA, FUTURE_TEST_REDIS and FUTURE_TEST_MYSQL name (all three, or it is an
// error), or, with none of them set, against Kafka and Redis embedded in the calling process and a SQLite file. Every cluster
// has topics, keys and a database of its own.
package clustertest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options for Start.
type Options struct {
	// Dir is for logs, the embedded servers' data and the binary; it must be empty or new.
	Dir                       string
	Nodes, Routers, Histories int
	// Partitions of the message log; 16 if 0.
	Partitions int
	// RelayRedis has the processes reach Redis through Cluster.RedisRelay, which a test can cut.
	RelayRedis bool
	// Hosts has the processes listen where those on a Host reach them: see AddHost. It needs Linux and root.
	Hosts bool
	// Env is added to the environment of every process.
	Env []string
	// Servers to use, which stay when the cluster ends; if nil, those that FindServers finds, which end with it.
	Servers *Servers
	// Log gets what a person would want to see of the processes' fates.
	Log func(format string, args ...any)
}

// Cluster is a running cluster.
type Cluster struct {
	Nodes, Routers, Histories []*Process
	// Kafka are the brokers; Namespace begins the names of topics and keys; Database is the DSN or sqlite:FILE.
	Kafka, Redis, Namespace, Database string
	// Real says that the servers are real ones.
	Real bool
	// RedisRelay is set with Options.RelayRedis.
	RedisRelay *Relay

	opts     Options
	bin      string
	config   string
	servers  *Servers // to be stopped with the cluster
	dropDB   func(context.Context) error
	lan      *lan // with Options.Hosts
	mu       sync.Mutex
	started  int
	children []*Process
}

// startTimeout bounds the start of one process, on a machine whose cores are busy.
const startTimeout = 60 * time.Second

// Build builds the chatd binary, with its failpoints, into dir and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "chatd")
	args := append([]string{"build", "-tags", "failpoints", "-o", bin}, buildFlags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./ops/chatd")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build chatd: %w\n%s", err, out)
	}
	return bin, nil
}

// Root is the folder of the module that the working directory is in.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("clustertest: not inside the module")
		}
		dir = up
	}
}

// Start builds the binary, prepares the servers and starts all processes; it returns when all are ready.
func Start(ctx context.Context, o Options) (_ *Cluster, err error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if o.Partitions == 0 {
		o.Partitions = 16
	}
	c := &Cluster{opts: o, Namespace: "t" + strings.ToLower(rand.Text()[:10]) + "."}
	defer func() {
		if err != nil {
			stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			defer cancel()
			err = errors.Join(err, c.Stop(stopping))
		}
	}()
	if c.bin, err = Build(ctx, o.Dir); err != nil {
		return nil, err
	}
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	if o.RelayRedis {
		if c.RedisRelay, err = newRelay(ctx, "127.0.0.1:0", c.Redis); err != nil {
			return nil, err
		}
		c.Redis = c.RedisRelay.Addr
	}
	if o.Hosts {
		if c.lan, err = newLAN(ctx, c.servedAt()); err != nil {
			return nil, err
		}
	}
	if err := c.writeConfig(); err != nil {
		return nil, err
	}
	if out, err := c.Command(ctx, "migrate").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("chatd migrate: %w\n%s", err, out)
	}
	for role, n := range map[string]int{"node": o.Nodes, "router": o.Routers, "history": o.Histories} {
		for range n {
			if _, err := c.Add(ctx, role); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// prepare takes the servers, and makes what is this cluster's own on them.
func (c *Cluster) prepare(ctx context.Context) (err error) {
	s := c.opts.Servers
	if s == nil {
		if s, err = FindServers(ctx, filepath.Join(c.opts.Dir, "embedded")); err != nil {
			return err
		}
		c.servers = s
	}
	c.Real, c.Kafka, c.Redis = s.Real, s.Kafka, s.Redis
	if !s.Real {
		c.Database = "sqlite:" + filepath.Join(c.opts.Dir, "future.db")
		return nil
	}
	c.Database, c.dropDB, err = freshDatabase(ctx, s.mysql, strings.TrimSuffix(c.Namespace, "."))
	return err
}

func (c *Cluster) writeConfig() error {
	replication, inSync := Copies(c.Kafka)
	c.config = filepath.Join(c.opts.Dir, "future.yaml")
	at := "127.0.0.1:0"
	if c.lan != nil {
		at = c.lan.addr + ":0"
	}
	lines := []string{
		"kafka: " + quote(c.Kafka), "redis: " + quote(c.Redis), "mysql: " + quote(c.Database),
		"namespace: " + quote(c.Namespace), "secret: " + quote(rand.Text()),
		fmt.Sprintf("partitions: %d", c.opts.Partitions),
		fmt.Sprintf("replication: %d", replication), fmt.Sprintf("min-insync: %d", inSync),
		"admin-addr: " + at, "gossip-addr: " + at, "peer-addr: " + at, "addr: " + at,
		"client-advertise: " + at,
	}
	return os.WriteFile(c.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

// Command is a chatd command of this cluster, not yet started.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// Sub-commands come before the flags.
	sub := 0
	for sub < len(args) && !strings.HasPrefix(args[sub], "-") {
		sub++
	}
	line := append([]string{name}, args[:sub]...)
	line = append(append(line, "-config", c.config), args[sub:]...)
	cmd := exec.CommandContext(ctx, c.bin, line...)
	// The tests' own settings are not the product's.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "FUTURE_") })
	cmd.Env = append(cmd.Env, c.opts.Env...)
	return cmd
}

// Addrs are the nodes' client addresses.
func (c *Cluster) Addrs() []string {
	var all []string
	for _, n := range c.Nodes {
		all = append(all, n.Addr)
	}
	return all
}

// Add starts another process of a role (node, router, history) with extra environment and waits until it is ready.
func (c *Cluster) Add(ctx context.Context, role string, env ...string) (*Process, error) {
	return c.add(ctx, nil, role, env)
}

func (c *Cluster) add(ctx context.Context, host *Host, role string, env []string) (*Process, error) {
	c.mu.Lock()
	c.started++
	name := fmt.Sprintf("%s-%d", role, c.started)
	args := append([]string{"-name", name}, c.seedsLocked()...)
	c.mu.Unlock()
	if host != nil {
		args = append(args, host.flags()...)
	}
	cmd := c.Command(context.WithoutCancel(ctx), role, args...)
	if host != nil {
		host.contain(cmd)
	}
	cmd.Env = append(cmd.Env, env...)
	p, err := startProcess(ctx, name, cmd, filepath.Join(c.opts.Dir, name+".log"))
	if err != nil {
		return nil, err
	}
	p.role = role
	c.opts.Log("%s started: pid %d, clients %s, admin %s", name, p.PID(), p.Addr, p.AdminAddr)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.children = append(c.children, p)
	switch role {
	case "node":
		c.Nodes = append(c.Nodes, p)
	case "router":
		c.Routers = append(c.Routers, p)
	default:
		c.Histories = append(c.Histories, p)
	}
	return p, nil
}

// Restart starts a process of the same role, name and addresses as one that has ended, and puts it in its place.
func (c *Cluster) Restart(ctx context.Context, old *Process) (*Process, error) {
	args := []string{"-name", old.Name, "-peer-addr", old.Peer, "-gossip-addr", old.Gossip}
	c.mu.Lock()
	args = append(args, c.seedsLocked()...)
	list := map[string]*[]*Process{"node": &c.Nodes, "router": &c.Routers, "history": &c.Histories}[old.role]
	c.started++
	log := filepath.Join(c.opts.Dir, fmt.Sprintf("%s-again-%d.log", old.Name, c.started))
	c.mu.Unlock()
	if old.role == "node" {
		args = append(args, "-addr", old.Addr)
	}
	p, err := startProcess(ctx, old.Name, c.Command(context.WithoutCancel(ctx), old.role, args...), log)
	if err != nil {
		return nil, err
	}
	p.role = old.role
	c.mu.Lock()
	defer c.mu.Unlock()
	c.children = append(c.children, p)
	(*list)[slices.Index(*list, old)] = p
	return p, nil
}

// Run starts a process by its own command, not yet started, and waits until it is ready. It ends with the cluster.
func (c *Cluster) Run(ctx context.Context, role, name string, cmd *exec.Cmd) (*Process, error) {
	p, err := startProcess(ctx, name, cmd, filepath.Join(c.opts.Dir, name+".log"))
	if err != nil {
		return nil, err
	}
	p.role = role
	c.mu.Lock()
	defer c.mu.Unlock()
	c.children = append(c.children, p)
	return p, nil
}

// seedsLocked are the flags by which a process finds the others: the first and the last that live. Either may be paused.
func (c *Cluster) seedsLocked() []string {
	var living []string
	for _, p := range c.children {
		if !closed(p.done) {
			living = append(living, p.Gossip)
		}
	}
	if len(living) == 0 {
		return nil
	}
	return []string{"-seeds", living[0] + "," + living[len(living)-1]}
}

func closed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// Stop ends all processes, in the reverse order of their start, and what was made on the servers.
func (c *Cluster) Stop(ctx context.Context) error {
	var errs []error
	var wait sync.WaitGroup
	for _, p := range c.children {
		wait.Go(func() {
			if err := p.Stop(ctx); err != nil {
				p.Kill()
				c.mu.Lock()
				errs = append(errs, err)
				c.mu.Unlock()
			}
		})
	}
	wait.Wait()
	if c.RedisRelay != nil {
		c.RedisRelay.close()
	}
	if c.lan != nil {
		errs = append(errs, c.lan.close(ctx))
	}
	if c.dropDB != nil {
		errs = append(errs, c.dropDB(ctx))
	}
	if c.servers != nil {
		errs = append(errs, c.servers.Stop())
	}
	return errors.Join(errs...)
}

// Process is a running chatd.
type Process struct {
	Name                          string
	Addr, AdminAddr, Peer, Gossip string
	LogFile                       string

	role string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // set before done is closed

	mu    sync.Mutex
	meant bool // its end was asked for
}

// startProcess starts cmd and waits for the log line that says it is ready.
func startProcess(ctx context.Context, name string, cmd *exec.Cmd, logFile string) (*Process, error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	out, err := cmd.StderrPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	p := &Process{Name: name, LogFile: logFile, cmd: cmd, done: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		defer close(p.done)
		p.follow(out, log, ready)
		p.err = cmd.Wait()
		_ = log.Close() // only read by people
	}()
	late := time.NewTimer(startTimeout)
	defer late.Stop()
	select {
	case <-ready:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s ended before it was ready: %w\n%s", name, p.err, Tail(logFile))
	case <-late.C:
		err = fmt.Errorf("%s was not ready within %v\n%s", name, startTimeout, Tail(logFile))
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	p.Kill()
	return nil, err
}

// follow copies the log, and finds the line "ready" in it.
func (p *Process) follow(out io.Reader, log io.Writer, ready chan<- struct{}) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		_, _ = log.Write(line) // only read by people
		if ready != nil && bytes.Contains(line, []byte(`"msg":"ready"`)) {
			var said struct{ Clients, Admin, Peer, Gossip string }
			if json.Unmarshal(line, &said) == nil {
				p.Addr, p.AdminAddr, p.Peer, p.Gossip = said.Clients, said.Admin, said.Peer, said.Gossip
				close(ready)
				ready = nil
			}
		}
		if err != nil {
			return
		}
	}
}

// Tail is the end of a log file.
func Tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}

// Log is the process's log so far.
func (p *Process) Log() (string, error) {
	b, err := os.ReadFile(p.LogFile)
	return string(b), err
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill() {
	p.intend()
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

func (p *Process) intend() {
	p.mu.Lock()
	p.meant = true
	p.mu.Unlock()
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Stop sends SIGTERM and waits for the end. A process that had ended before by itself, or ends with an error, is an error.
func (p *Process) Stop(ctx context.Context) error {
	p.mu.Lock()
	meant := p.meant
	p.meant = true
	p.mu.Unlock()
	select {
	case <-p.done:
		if meant {
			return nil
		}
		return fmt.Errorf("%s had ended by itself: %w\n%s", p.Name, p.err, Tail(p.LogFile))
	default:
	}
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("%s ended badly: %w\n%s", p.Name, p.err, Tail(p.LogFile))
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w", p.Name, context.Cause(ctx))
	}
}

// Ended waits until the process has ended, which is what was meant, and gives how.
func (p *Process) Ended(ctx context.Context) error {
	p.intend()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w", p.Name, context.Cause(ctx))
	}
}

// Metrics reads the process's /metrics.
func (p *Process) Metrics(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.AdminAddr+"/metrics", nil)
	if err != nil {
		return "", err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}
