// Package config is the program's settings: one struct, set by flag, environment and YAML file, in that order of weight. The
// same file serves all commands, so a cluster has one. A key that does not exist is refused, wherever it comes from, and so is
// a value that makes no sense.
//
// The name of a setting is the same everywhere: flag -peer-addr, environment FUTURE_PEER_ADDR, key peer-addr in the file.
package config

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/peterbourgon/ff/v3"
)

// Config has all settings. New fills in the defaults.
type Config struct {
	// File is the YAML file read, if any.
	File string

	// Addr is where nodes serve clients, and where a client finds them: host:port; a client may name several, separated by commas.
	Addr string
	// ClientAdvertise is where a client that must leave another node may be told to connect to this one; empty: it is told nothing.
	ClientAdvertise string
	// AdminAddr serves /metrics, /livez, /readyz and pprof.
	AdminAddr string
	// PeerAddr is where a process takes links from the cluster, PeerAdvertise what it tells others if that differs.
	PeerAddr, PeerAdvertise string
	// GossipAddr is for memberlist, GossipAdvertise what it tells others if that differs; Seeds are members to find the others by.
	GossipAddr, GossipAdvertise string
	Seeds                       List

	// Name of this process, for people; Cluster is the cluster's name. Namespace begins the names of topics, groups and Redis
	// keys, so that several clusters can share servers.
	Name, Cluster, Namespace string
	// Secret is shared by the cluster's processes; SecretFile a file that holds it.
	Secret, SecretFile string

	Kafka         List
	Redis         List
	RedisPassword string
	RedisTLS      bool
	// MySQL is a DSN of github.com/go-sql-driver/mysql, or sqlite:FILE for processes on one machine.
	MySQL string

	// How topics are made by `chatd migrate`.
	Partitions, Replication, MinInSync int
	Retention                          time.Duration

	Ping, Silence time.Duration
	MaxConns      int
	Loops         int
	DrainTimeout  time.Duration

	// Data is dev's folder.
	Data string

	LogLevel, LogFile string
	// PprofAnywhere allows pprof on an admin address that is not loopback.
	PprofAnywhere bool
}

// List is a comma-separated list.
type List []string

func (l *List) String() string { return strings.Join(*l, ",") }

// Set implements flag.Value.
func (l *List) Set(s string) error {
	*l = nil
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			*l = append(*l, item)
		}
	}
	return nil
}

// New gives the defaults.
func New() *Config {
	host, err := os.Hostname()
	if err != nil {
		host = "future"
	}
	return &Config{
		Addr: "127.0.0.1:7700", AdminAddr: "127.0.0.1:7701", PeerAddr: "127.0.0.1:7702", GossipAddr: "127.0.0.1:7703",
		Name: host, Cluster: "future",
		Kafka: List{"127.0.0.1:9092"}, Redis: List{"127.0.0.1:6379"},
		Partitions: 64, Replication: 3, MinInSync: 2, Retention: 30 * 24 * time.Hour,
		Ping: 25 * time.Second, Silence: 60 * time.Second, Loops: 1, DrainTimeout: 25 * time.Second,
		Data:     defaultData(),
		LogLevel: "info",
	}
}

func defaultData() string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "future")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "future-data"
	}
	return filepath.Join(home, ".local", "share", "future")
}

// Setting tells of one setting.
type Setting struct {
	Name, Help string
	// Secret is never printed.
	Secret bool
	// For are the commands that use it.
	For []string
}

const (
	node    = "node"
	router  = "router"
	history = "history"
	dev     = "dev"
	migrate = "migrate"
	chat    = "chat"
	admin   = "admin"
)

var (
	servers = []string{node, router, history}
	running = []string{node, router, history, dev}
)

// bind registers every setting with fs, and tells of them in the order of the documentation.
func (c *Config) bind(fs *flag.FlagSet) []Setting {
	var all []Setting
	add := func(name, help string, secret bool, commands ...[]string) {
		s := Setting{Name: name, Help: help, Secret: secret}
		for _, list := range commands {
			s.For = append(s.For, list...)
		}
		all = append(all, s)
	}
	str := func(p *string, name, help string, commands ...[]string) {
		fs.StringVar(p, name, *p, help)
		add(name, help, false, commands...)
	}
	secret := func(p *string, name, help string, commands ...[]string) {
		fs.StringVar(p, name, *p, help)
		add(name, help, true, commands...)
	}
	list := func(p *List, name, help string, commands ...[]string) {
		fs.Var(p, name, help)
		add(name, help, false, commands...)
	}
	num := func(p *int, name, help string, commands ...[]string) {
		fs.IntVar(p, name, *p, help)
		add(name, help, false, commands...)
	}
	dur := func(p *time.Duration, name, help string, commands ...[]string) {
		fs.DurationVar(p, name, *p, help)
		add(name, help, false, commands...)
	}
	yes := func(p *bool, name, help string, commands ...[]string) {
		fs.BoolVar(p, name, *p, help)
		add(name, help, false, commands...)
	}

	fs.StringVar(&c.File, "config", "", "YAML file with these settings")
	str(&c.Addr, "addr", "host:port where clients are served; for chat, where the server is (several: a,b)", []string{node, dev, chat})
	str(&c.ClientAdvertise, "client-advertise", "client address of this node that clients of others may be told, without a load balancer; port 0: that of -addr", []string{node})
	str(&c.AdminAddr, "admin-addr", "host:port of /metrics, /livez, /readyz and pprof; empty: none", running)
	str(&c.PeerAddr, "peer-addr", "host:port for links from the cluster's other processes", servers, []string{admin})
	str(&c.PeerAdvertise, "peer-advertise", "peer address to tell the others, if it differs", servers, []string{admin})
	str(&c.GossipAddr, "gossip-addr", "host:port (TCP and UDP) by which processes find each other", servers)
	str(&c.GossipAdvertise, "gossip-advertise", "gossip address to tell the others, if it differs", servers)
	list(&c.Seeds, "seeds", "gossip addresses of some other processes, or names of SRV records (_gossip._tcp.example), separated by commas", servers)
	str(&c.Name, "name", "name of this process, for people; two of one role must not have the same", running)
	str(&c.Cluster, "cluster", "name of the cluster", running, []string{migrate, admin})
	str(&c.Namespace, "namespace", "what names of topics, groups and Redis keys begin with, for clusters that share servers", servers, []string{migrate})
	secret(&c.Secret, "secret", "secret that the cluster's processes share, at least 16 bytes", servers, []string{admin})
	str(&c.SecretFile, "secret-file", "file that holds the secret", servers, []string{admin})
	list(&c.Kafka, "kafka", "Kafka brokers, separated by commas", servers, []string{migrate})
	list(&c.Redis, "redis", "Redis server, or several of a Redis Cluster, separated by commas", servers)
	secret(&c.RedisPassword, "redis-password", "Redis password", servers)
	yes(&c.RedisTLS, "redis-tls", "speak TLS with Redis", servers)
	secret(&c.MySQL, "mysql", "MySQL DSN: user:password@tcp(host:3306)/future; or sqlite:FILE, for processes on one machine", servers, []string{migrate})
	num(&c.Partitions, "partitions", "partitions of the message log, fixed when it is made", []string{migrate, dev})
	num(&c.Replication, "replication", "copies of each partition", []string{migrate})
	num(&c.MinInSync, "min-insync", "copies that must have a message before it is acknowledged", []string{migrate})
	dur(&c.Retention, "retention", "how long the log keeps messages; at least 336h, and longer than your backups' age", []string{migrate, dev})
	dur(&c.Ping, "ping", "a client pings after this long without sending", []string{node, dev})
	dur(&c.Silence, "silence", "either side takes the other for dead after this long", []string{node, dev})
	num(&c.MaxConns, "max-conns", "most connections; 0: three quarters of RLIMIT_NOFILE", []string{node, dev})
	num(&c.Loops, "loops", "event loops", []string{node, dev})
	dur(&c.DrainTimeout, "drain-timeout", "how long a stopping process waits for its clients to leave", running)
	str(&c.Data, "data", "folder with all data of dev, or with what chat keeps", []string{dev, chat})
	str(&c.LogLevel, "log-level", "debug, info, warn or error", running)
	str(&c.LogFile, "log-file", "file to log to; empty: standard error", running)
	yes(&c.PprofAnywhere, "pprof-anywhere", "serve pprof also on an admin address that is not loopback", running)
	return all
}

// ErrHelp is returned by Parse when help was asked for, and has been printed.
var ErrHelp = flag.ErrHelp

// Parse reads settings for a command from its arguments, the process's environment and the file. extra, if
// not nil, registers the command's own flags. usage goes before the list of flags that -h prints to out. Arguments that are
// no flags are refused. cmd may be empty: all settings are listed.
func (c *Config) Parse(cmd, usage string, args []string, out io.Writer, extra func(*flag.FlagSet)) error {
	fs := flag.NewFlagSet("chatd "+cmd, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	settings := c.bind(fs)
	if extra != nil {
		extra(fs)
	}
	if err := knownEnvironment(os.Environ(), settings); err != nil {
		return err
	}
	err := ff.Parse(fs, args, ff.WithEnvVarPrefix("FUTURE"), ff.WithConfigFileFlag("config"),
		ff.WithConfigFileParser(parseYAML))
	switch {
	case errors.Is(err, flag.ErrHelp):
		printHelp(out, fs, usage, cmd, settings)
		return ErrHelp
	case err != nil:
		return fmt.Errorf("%w (chatd %s -h lists what is allowed)", err, cmd)
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %q (chatd %s -h tells what is allowed)", fs.Arg(0), cmd)
	}
	return nil
}

// notOurs are variables that begin like ours but belong to the tests' servers and tools.
const notOurs = "FUTURE_TEST_"

func knownEnvironment(env []string, settings []Setting) error {
	known := map[string]bool{"FUTURE_CONFIG": true, "FUTURE_USER": true}
	for _, s := range settings {
		known["FUTURE_"+strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))] = true
	}
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "FUTURE_") && !strings.HasPrefix(name, notOurs) && !known[name] {
			return fmt.Errorf("environment variable %s is no setting (chatd config lists them)", name)
		}
	}
	return nil
}

func printHelp(out io.Writer, fs *flag.FlagSet, usage, cmd string, settings []Setting) {
	fmt.Fprintf(out, "%s\n\nSettings, by flag, environment (FUTURE_…) or YAML file (-config):\n", strings.TrimSpace(usage))
	show := func(f *flag.Flag) {
		def := f.DefValue
		if def != "" && def != "false" && def != "0" {
			def = " (" + def + ")"
		} else {
			def = ""
		}
		fmt.Fprintf(out, "  -%-17s %s%s\n", f.Name, f.Usage, def)
	}
	shared := map[string]bool{}
	for _, s := range settings {
		shared[s.Name] = true
	}
	fs.VisitAll(func(f *flag.Flag) {
		if !shared[f.Name] {
			show(f)
		}
	})
	for _, s := range settings {
		if cmd == "" || slices.Contains(s.For, cmd) {
			show(fs.Lookup(s.Name))
		}
	}
}

// Validate says what is wrong with the settings of a command.
func (c *Config) Validate(cmd string) error {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("-%s: %s", name, fmt.Sprintf(format, args...)))
	}
	uses := func(name string) bool {
		for _, s := range c.bind(flag.NewFlagSet("", flag.ContinueOnError)) {
			if s.Name == name {
				return slices.Contains(s.For, cmd)
			}
		}
		return false
	}
	c.checkAddrs(cmd, uses("gossip-addr"), bad)
	if uses("secret") && len(c.Secret) < 16 {
		bad("secret", "at least 16 bytes are wanted (or -secret-file FILE)")
	}
	if uses("kafka") && len(c.Kafka) == 0 {
		bad("kafka", "no broker given: host:port, several separated by commas")
	}
	if uses("redis") && len(c.Redis) == 0 {
		bad("redis", "no server given: host:port, several of a Redis Cluster separated by commas")
	}
	if uses("mysql") && c.MySQL == "" {
		bad("mysql", "no DSN given: user:password@tcp(host:3306)/future")
	}
	if strings.Trim(c.Namespace, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" || len(c.Namespace) > 64 {
		bad("namespace", "%q: at most 64 letters, digits, dots, underscores and hyphens are allowed", c.Namespace)
	}
	if c.Partitions < 1 || c.Partitions > 4096 {
		bad("partitions", "%d: 1 to 4096 are allowed", c.Partitions)
	}
	if c.Replication < 1 || c.MinInSync < 1 || c.MinInSync > c.Replication {
		bad("min-insync", "%d of %d copies: 1 up to -replication are allowed", c.MinInSync, c.Replication)
	}
	if c.Retention < 14*24*time.Hour {
		bad("retention", "%v: at least 336h (14 days), so that nothing goes before it was stored", c.Retention)
	}
	if c.Ping < time.Second || c.Silence < 2*c.Ping {
		bad("silence", "%v: -ping is at least 1s and -silence at least twice -ping (%v)", c.Silence, c.Ping)
	}
	if c.Loops < 1 || c.Loops > 1024 {
		bad("loops", "%d: 1 to 1024 are allowed", c.Loops)
	}
	if c.MaxConns < 0 {
		bad("max-conns", "%d: 0 or more are allowed", c.MaxConns)
	}
	if c.DrainTimeout < 0 {
		bad("drain-timeout", "%v: 0s or more is allowed", c.DrainTimeout)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		bad("log-level", "%q: debug, info, warn or error are allowed", c.LogLevel)
	}
	return errors.Join(errs...)
}

// checkAddrs is Validate for addresses; member says that the process becomes a member of the cluster.
func (c *Config) checkAddrs(cmd string, member bool, bad func(name, format string, args ...any)) {
	hostPort := func(name, value string, empty bool) {
		if value == "" && empty {
			return
		}
		if _, port, err := net.SplitHostPort(value); err != nil || port == "" {
			bad(name, "%q is no host:port", value)
		}
	}
	for addr := range strings.SplitSeq(c.Addr, ",") {
		hostPort("addr", addr, false)
	}
	if cmd != chat && strings.Contains(c.Addr, ",") {
		bad("addr", "one address is wanted")
	}
	hostPort("admin-addr", c.AdminAddr, true)
	hostPort("peer-addr", c.PeerAddr, false)
	hostPort("gossip-addr", c.GossipAddr, false)
	advertised := func(name, value string) {
		if hostPort(name, value, true); everywhere(value) {
			bad(name, "%q: others need a host that they can connect to", value)
		}
	}
	advertised("peer-advertise", c.PeerAdvertise)
	advertised("gossip-advertise", c.GossipAdvertise)
	advertised("client-advertise", c.ClientAdvertise)
	// At a wrong one each would find itself, and take the others for dead processes with its own address.
	switch peer := cmp.Or(c.PeerAdvertise, c.PeerAddr); {
	case !member:
	case c.PeerAdvertise == "" && everywhere(peer):
		bad("peer-advertise", "-peer-addr %q listens on all addresses: say at which one the others find this process", peer)
	case onlyHere(peer) && !onlyHere(cmp.Or(c.GossipAdvertise, c.GossipAddr)):
		bad("peer-addr", "%q is reached from this host alone, but -gossip-addr from others", peer)
	}
	for _, s := range c.Seeds {
		if !strings.HasPrefix(s, "_") || strings.Contains(s, ":") {
			hostPort("seeds", s, false)
		}
	}
}

// everywhere tells whether an address stands for all addresses of a host, and so for none to others.
func everywhere(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && (host == "" || net.ParseIP(host).IsUnspecified())
}

// onlyHere tells whether an address is reached from its own host alone.
func onlyHere(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback())
}

// ReadSecret reads SecretFile, if given, into Secret.
func (c *Config) ReadSecret() error {
	if c.SecretFile == "" {
		return nil
	}
	b, err := os.ReadFile(c.SecretFile)
	if err != nil {
		return fmt.Errorf("-secret-file: %w", err)
	}
	c.Secret = strings.TrimSpace(string(b))
	return nil
}

// Print writes the effective settings as YAML that Parse would read, with secrets left out.
func (c *Config) Print(w io.Writer) error {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	settings := (&Config{}).bind(fs) // names and help
	values := flag.NewFlagSet("", flag.ContinueOnError)
	c.bind(values)
	for _, s := range settings {
		value := values.Lookup(s.Name).Value.String()
		line := fmt.Sprintf("%s: %q", s.Name, value)
		if s.Secret {
			line = fmt.Sprintf("# %s: not set", s.Name)
			if value != "" {
				line = fmt.Sprintf("# %s: set, not shown", s.Name)
			}
		}
		if _, err := fmt.Fprintf(w, "# %s\n%s\n", s.Help, line); err != nil {
			return err
		}
	}
	return nil
}
