package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/consumers/mysqlstore"
	"github.com/futurechat/future/consumers/mysqlstore/mysql"
	"github.com/futurechat/future/consumers/mysqlstore/sqlite"
	"github.com/futurechat/future/ops/config"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/eventlog/kafkalog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence/redispresence"
)

// parts are what the roles share.
type parts struct {
	log      eventlog.Log
	store    *mysqlstore.Store
	presence *redispresence.Store
	members  cluster.Membership
	pool     *peer.Pool
	topic    eventlog.State
}

// sqlitePrefix marks a database that is a SQLite file.
const sqlitePrefix = "sqlite:"

func openStore(ctx context.Context, dsn string) (*mysqlstore.Store, error) {
	if file, ok := strings.CutPrefix(dsn, sqlitePrefix); ok {
		return sqlite.Open(ctx, file, sqlite.Options{})
	}
	return mysql.Open(ctx, dsn, mysql.Options{})
}

func openLog(cfg *config.Config, log *zap.Logger, o kafkalog.Options) (eventlog.Log, error) {
	o.Brokers, o.ClientID, o.Logger = cfg.Kafka, "future-"+cfg.Name, log.Named("kafka")
	l, err := kafkalog.New(o)
	if err != nil {
		return nil, err
	}
	return eventlog.Prefixed(l, cfg.Namespace), nil
}

// openParts opens everything and waits until all of it answers.
func (a *App) openParts(ctx context.Context) error {
	cfg := a.cfg
	var err error
	if a.parts.log, err = openLog(cfg, a.log, kafkalog.Options{Registerer: a.registry}); err != nil {
		return err
	}
	a.life.add("kafka", a.parts.log.Close)
	if a.parts.store, err = openStore(ctx, cfg.MySQL); err != nil {
		return err
	}
	a.life.add("database", func(context.Context) error { return a.parts.store.Close() })
	redis := redispresence.Options{
		Addrs: cfg.Redis, Password: cfg.RedisPassword, Prefix: cfg.Namespace + "future:", Logger: a.log.Named("redis"),
	}
	if cfg.RedisTLS {
		redis.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if a.parts.presence, err = redispresence.New(redis); err != nil {
		return err
	}
	a.life.add("redis", func(context.Context) error { return a.parts.presence.Close() })

	for _, wait := range []struct {
		what, where string
		try         func(context.Context) error
	}{
		{"database", databaseName(cfg.MySQL), func(ctx context.Context) error { return a.parts.store.Check(ctx) }},
		{"kafka", cfg.Kafka.String(), a.checkTopic},
		{"redis", cfg.Redis.String(), func(ctx context.Context) error { return a.parts.presence.Check(ctx) }},
	} {
		if err := a.await(ctx, wait.what, wait.where, wait.try); err != nil {
			return err
		}
	}
	if a.parts.pool, err = peer.NewPool(peer.PoolOptions{
		Secret: []byte(cfg.Secret), Cluster: cfg.Cluster, Self: a.self.ID, Logger: a.log.Named("peer"), Registerer: a.registry,
	}); err != nil {
		return err
	}
	a.life.add("peer links", func(context.Context) error { return a.parts.pool.Close() })
	return nil
}

// checkTopic reads what is remembered of the log and compares it with the log itself.
func (a *App) checkTopic(ctx context.Context) error {
	state, err := a.parts.store.LogState(ctx, chat.TopicMessages)
	if errors.Is(err, chat.ErrNotFound) {
		return errNotMigrated
	}
	if err != nil {
		return err
	}
	a.parts.topic = state
	// Offsets are compared by who reads; a node only needs to know that it is the same log.
	state.Seen = nil
	err = eventlog.Verify(ctx, a.parts.log, state)
	if errors.Is(err, eventlog.ErrNoTopic) {
		return fmt.Errorf("%w: %w", errNotMigrated, err)
	}
	return err
}

var errNotMigrated = errors.New("the topics or tables are not there yet: run chatd migrate")

// final are errors that waiting does not mend.
func final(err error) bool { return errors.Is(err, eventlog.ErrHalted) }

// await tries until it works, says in one line what is missing and where, and says so again only when that changes.
func (a *App) await(ctx context.Context, what, where string, try func(context.Context) error) error {
	const first, most, patience = 100 * time.Millisecond, 5 * time.Second, 10 * time.Second
	pause, said := first, ""
	for {
		attempt, cancel := context.WithTimeout(ctx, patience)
		err := try(attempt)
		cancel()
		switch {
		case err == nil:
			if said != "" {
				a.log.Info("there now", zap.String("part", what), zap.String("at", where))
			}
			return nil
		case final(err):
			return fmt.Errorf("%s at %s: %w", what, where, err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		if err.Error() != said {
			said = err.Error()
			a.log.Warn("waiting for a part that is away", zap.String("part", what), zap.String("at", where), zap.Error(err))
			for _, r := range a.roles {
				a.health.Set(string(r), fmt.Sprintf("waiting for %s at %s", what, where))
			}
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause = min(2*pause, most)
	}
}

// databaseName is a DSN without its password.
func databaseName(dsn string) string {
	if strings.HasPrefix(dsn, sqlitePrefix) {
		return dsn
	}
	return dsn[strings.LastIndexByte(dsn, '@')+1:]
}
