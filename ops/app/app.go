package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/futurechat/future/node"
	"github.com/futurechat/future/ops/config"
	"github.com/futurechat/future/ops/embedded"
	"github.com/futurechat/future/ops/telemetry"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/cluster"
)

// App is a running process.
type App struct {
	cfg      *config.Config
	version  string
	roles    []cluster.Role
	dev      bool // this process is the whole cluster
	log      *zap.Logger
	clock    clock.Clock
	registry *prometheus.Registry
	health   *telemetry.Health
	admin    *telemetry.Admin
	life     lifecycle
	parts    parts
	closeLog func()

	mu   sync.Mutex
	self cluster.Member // what the others are told; its ID never changes

	background sync.WaitGroup
	failed     chan error    // what ends the process though nobody asked it to
	drained    chan struct{} // closed when an operator asks the process to go
	drainOnce  sync.Once
	endStart   context.CancelFunc // set at start
	node       atomic.Pointer[node.Node]
	clientAddr string
	peerAddr   string
	gossipAddr string
}

// Run runs roles as a process until ctx ends, then ends in order. Parts that are away are waited for.
func Run(ctx context.Context, cfg *config.Config, version string, roles ...cluster.Role) error {
	a, err := newApp(cfg, version, roles)
	if err != nil {
		return err
	}
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	a.endStart = cancel
	if err := a.start(starting); err != nil {
		if starting.Err() != nil {
			err = nil // told to end while it waited for a part
		}
		return errors.Join(err, a.stop())
	}
	return a.Wait(ctx)
}

// StartDev starts everything in this process on embedded parts, whose data lie in cfg.Data. It returns when clients can come.
func StartDev(ctx context.Context, cfg *config.Config, version string) (*App, error) {
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("-data: %w", err)
	}
	if cfg.LogFile == "" {
		cfg.LogFile = filepath.Join(cfg.Data, "chatd.log")
	}
	cfg.Secret = rand.Text() // of a cluster that is one process
	a, err := newApp(cfg, version, []cluster.Role{cluster.RoleHistory, cluster.RoleRouter, cluster.RoleNode})
	if err != nil {
		return nil, err
	}
	a.dev = true
	if err := a.startDev(ctx); err != nil {
		return nil, errors.Join(err, a.stop())
	}
	return a, nil
}

func (a *App) startDev(ctx context.Context) error {
	cfg := a.cfg
	servers, err := embedded.Start(ctx, embedded.Options{Dir: filepath.Join(cfg.Data, "log"), Logger: a.log.Named("embedded")})
	if errors.Is(err, embedded.ErrInUse) {
		return fmt.Errorf("another chatd dev runs on %s: end it, or choose another folder with -data", cfg.Data)
	}
	if err != nil {
		return err
	}
	a.life.add("embedded servers", func(context.Context) error { return servers.Stop() })
	cfg.Kafka, cfg.Redis = config.List{servers.KafkaAddr}, config.List{servers.RedisAddr}
	cfg.MySQL = sqlitePrefix + filepath.Join(cfg.Data, "future.db")
	cfg.PeerAddr, cfg.PeerAdvertise = "127.0.0.1:0", ""
	cfg.Replication, cfg.MinInSync = 1, 1
	// One broker and one process: more partitions only cost.
	if cfg.Partitions == config.New().Partitions {
		cfg.Partitions = devPartitions
	}
	if err := migrate(ctx, cfg, a.log, nil); err != nil {
		return err
	}
	return a.start(ctx)
}

// devPartitions is what dev's log has unless told otherwise.
const devPartitions = 16

func newApp(cfg *config.Config, version string, roles []cluster.Role) (*App, error) {
	now, err := theClock()
	if err != nil {
		return nil, err
	}
	a := &App{
		cfg: cfg, version: version, roles: roles, clock: now,
		registry: telemetry.NewRegistry(version), failed: make(chan error, 8), drained: make(chan struct{}),
		endStart: func() {},
	}
	if a.log, a.closeLog, err = telemetry.NewLogger(cfg.LogLevel, cfg.LogFile, a.registry); err != nil {
		return nil, err
	}
	a.life.log = a.log
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	a.health = telemetry.NewHealth(names...)
	a.self = cluster.Member{
		ID: newID(), Name: cfg.Name, Roles: roles, Version: version, State: cluster.Starting, SinceMs: now.Now().UnixMilli(),
		Generation: 1,
	}
	a.self.Client = a.clientAdvertised()
	return a, nil
}

func (a *App) start(ctx context.Context) error {
	if a.cfg.AdminAddr != "" {
		admin, err := telemetry.ServeAdmin(ctx, a.cfg.AdminAddr, a.registry, a.health, a.cfg.PprofAnywhere, a.log)
		if err != nil {
			return err
		}
		a.admin = admin
		a.life.add("admin listener", admin.Close)
	}
	if err := a.openParts(ctx); err != nil {
		return err
	}
	if err := a.startRoles(ctx); err != nil {
		return err
	}
	a.announce(ctx, func(m *cluster.Member) { m.State, m.Client = cluster.Serving, a.clientAdvertised() })
	a.log.Info("ready", zap.String("clients", a.clientAddr), zap.String("admin", a.AdminAddr()), zap.String("peer", a.peerAddr),
		zap.String("gossip", a.gossipAddr), zap.String("id", a.self.ID), zap.String("version", a.version))
	return nil
}

// Addr is where clients are served, with its real port.
func (a *App) Addr() string { return a.clientAddr }

// AdminAddr is where metrics and health are served, or empty.
func (a *App) AdminAddr() string {
	if a.admin == nil {
		return ""
	}
	return a.admin.Addr
}

// Wait waits until ctx ends, an operator asks the process to go, or a role fails for good, then ends all in order.
func (a *App) Wait(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
		a.log.Info("ending")
	case <-a.drained:
		a.log.Info("ending, since an operator asked for it")
	case err = <-a.failed:
		a.log.Error("ending, since a part has failed", zap.Error(err))
	}
	return errors.Join(err, a.stop())
}

// stopTimeout bounds the end after the drain.
const stopTimeout = 20 * time.Second

func (a *App) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.DrainTimeout+stopTimeout)
	defer cancel()
	for _, r := range a.roles {
		a.health.Set(string(r), "draining")
	}
	// First of all the others hear of it: they take over what this process hands over, and send it nobody.
	a.announce(ctx, func(m *cluster.Member) { m.State = cluster.Draining })
	err := a.life.stop(ctx)
	ended := make(chan struct{})
	go func() {
		a.background.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		err = errors.Join(err, errors.New("something does not end, and is left"))
	}
	a.closeLog()
	return err
}

// fail ends the process.
func (a *App) fail(err error) {
	select {
	case a.failed <- err:
	default: // the first ones say it
	}
}

// newID names a life that nobody had before.
func newID() string { return strings.ToLower(rand.Text()[:16]) }
