package redispresence

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/presence"
)

// Options for New. Only Addrs is required.
type Options struct {
	// Addrs is one server's host:port, or some of a Redis Cluster, or, with MasterName, Sentinels.
	Addrs []string
	// MasterName is the name that Sentinels know the server by.
	MasterName string
	// Cluster says that a single address is of a Redis Cluster. Several addresses without MasterName always are.
	Cluster bool
	// Username, Password log in to the servers, SentinelPassword to the Sentinels.
	Username, Password, SentinelPassword string
	// TLS, if not nil, is how servers are spoken to.
	TLS    *tls.Config
	Logger *zap.Logger
	// Prefix is what every key begins with. Default "future:". It must have no braces.
	Prefix string
	// DialTimeout, Timeout bound making a connection, and each round trip on one. Defaults 1 s, 1 s.
	DialTimeout, Timeout time.Duration
	// PoolSize is the number of connections to each server. Default go-redis', ten per CPU.
	PoolSize int
	// RecentsTTL is how long recents are kept after the last append at least; at most twice that, so that conversations do not
	// all expire together. Default 1 h.
	RecentsTTL time.Duration
	// PlacesTTL is how long a user's places are kept after the last write. A node writes each again every 90 s. Default 1 h.
	PlacesTTL time.Duration
	// HeadsTTL is how long a user's heads are kept after the last message to him. Default 30 days.
	HeadsTTL time.Duration
}

// Store is the adapter. It is safe for use by many goroutines.
type Store struct {
	o       Options // set at start
	client  redis.UniversalClient
	cluster bool
	log     *zap.Logger
	dead    *dead
	held    incarnations

	run atomic.Pointer[string] // the server's life: see connected
}

var _ presence.Store = (*Store)(nil)

// New makes a Store. It does not reach for a server: see Ping and Check.
func New(o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Prefix == "" {
		o.Prefix = "future:"
	}
	for _, d := range []struct {
		v  *time.Duration
		to time.Duration
	}{
		{&o.DialTimeout, time.Second}, {&o.Timeout, time.Second}, {&o.RecentsTTL, time.Hour},
		{&o.PlacesTTL, time.Hour}, {&o.HeadsTTL, 30 * 24 * time.Hour},
	} {
		if *d.v <= 0 {
			*d.v = d.to
		}
	}
	if len(o.Addrs) == 0 {
		return nil, errors.New("redispresence: no address")
	}
	if strings.ContainsAny(o.Prefix, "{}") {
		return nil, fmt.Errorf("redispresence: prefix %q has braces, which would decide on which server keys are", o.Prefix)
	}
	// It would write about each failed dial to stderr. Errors say the same to who called.
	logging.Disable()
	s := &Store{o: o, log: o.Logger, dead: newDead(), held: incarnations{set: map[string]bool{}}}
	s.client = redis.NewUniversalClient(&redis.UniversalOptions{
		OnConnect: s.connected,
		Addrs:     o.Addrs, MasterName: o.MasterName, IsClusterMode: o.Cluster,
		Username: o.Username, Password: o.Password, SentinelPassword: o.SentinelPassword, TLSConfig: o.TLS,
		DialTimeout: o.DialTimeout, ReadTimeout: o.Timeout, WriteTimeout: o.Timeout, PoolTimeout: o.Timeout, PoolSize: o.PoolSize,
		ContextTimeoutEnabled: true,
		// Whoever calls tries again, and knows when that makes sense; a try that was made here could be done late.
		MaxRetries: -1, DialerRetries: 1,
	})
	_, s.cluster = s.client.(*redis.ClusterClient)
	return s, nil
}

// connected asks a server, on each new connection, for the id of its life. One that was started anew, or another that took over,
// may have lost the last it was told though it has all the rest: so its life is part of the epoch. Connections do not outlive a
// server, so nothing is done under a new life that was not noticed before. Of the many servers of a cluster this is not known.
func (s *Store) connected(ctx context.Context, c *redis.Conn) error {
	info, err := c.Info(ctx, "server").Result()
	if _, answered := errors.AsType[redis.Error](err); answered {
		return nil // a server that does not tell is taken as one that never restarts
	}
	if err != nil {
		return err // its answer may still come: the next command on this connection would take it for its own
	}
	_, run, _ := strings.Cut(info, "run_id:")
	run, _, _ = strings.Cut(run, "\r\n")
	s.run.Store(&run)
	return nil
}

// Close ends all connections. Calls that wait fail.
func (s *Store) Close() error { return s.client.Close() }

// Ping answers ErrUnavailable if the server, or one of them, does not answer.
func (s *Store) Ping(ctx context.Context) error {
	return wrap("ping", s.eachMaster(ctx, func(ctx context.Context, c redis.Cmdable) error { return c.Ping(ctx).Err() }))
}

func (s *Store) eachMaster(ctx context.Context, f func(context.Context, redis.Cmdable) error) error {
	if c, ok := s.client.(*redis.ClusterClient); ok {
		return c.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return f(ctx, c) })
	}
	return f(ctx, s.client)
}

// ErrEvicts is answered by Check for a server that throws keys away when its memory is full, or would: presence would lose entries
// without anyone noticing at once.
var ErrEvicts = errors.New("redis must have maxmemory-policy noeviction")

// Check answers ErrEvicts, ErrUnavailable, or nil. A server that does not let its configuration be read is taken as it is.
func (s *Store) Check(ctx context.Context) error {
	return s.eachMaster(ctx, func(ctx context.Context, c redis.Cmdable) error {
		config, err := c.ConfigGet(ctx, "maxmemory*").Result()
		switch {
		case err != nil && (strings.Contains(err.Error(), "unknown command") || strings.Contains(err.Error(), "NOPERM")):
			s.log.Info("whether redis evicts keys could not be read", zap.Error(err))
			return nil
		case err != nil:
			return wrap("check", err)
		case config["maxmemory"] == "0" || config["maxmemory"] == "" || config["maxmemory-policy"] == "noeviction":
			return nil
		}
		return fmt.Errorf("redispresence: %w, not %s (maxmemory %s)", ErrEvicts, config["maxmemory-policy"], config["maxmemory"])
	})
}

// wrap gives an error of go-redis its operation. Whatever the network or the server failed at (LOADING, READONLY, OOM, too many
// clients) may work the next time, so all are ErrUnavailable but those answers that would be the same then.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	for _, lasting := range []string{"WRONGTYPE", "NOPERM", "CROSSSLOT"} {
		if redis.HasErrorPrefix(err, lasting) {
			return fmt.Errorf("redispresence: %s: %w", op, err)
		}
	}
	return fmt.Errorf("redispresence: %s: %w: %w", op, presence.ErrUnavailable, err)
}

// ---- keys, all in one place; doc.go tells what they hold

func user(id int64) string { return "{u:" + strconv.FormatInt(id, 10) + "}" }

func (s *Store) placesKey(id int64) string { return s.o.Prefix + "presence:" + user(id) }
func (s *Store) groupNodesKey(group int64) string {
	return s.o.Prefix + "groupnodes:{g:" + strconv.FormatInt(group, 10) + "}"
}
func (s *Store) headsKey(id int64) string          { return s.o.Prefix + "uheads:" + user(id) }
func (s *Store) leaseKey(name string) string       { return s.o.Prefix + "lease:" + name }
func (s *Store) nodesKey() string                  { return s.o.Prefix + "nodes" }
func (s *Store) epochKey() string                  { return s.o.Prefix + "epoch" }
func (s *Store) messagesKey(conv string) string    { return s.o.Prefix + "recents:{" + conv + "}" }
func (s *Store) recentsMetaKey(conv string) string { return s.o.Prefix + "recentsmeta:{" + conv + "}" }

// ---- epoch

// Epoch implements presence.Registry.
func (s *Store) Epoch(ctx context.Context) (string, error) {
	pipe := s.client.Pipeline()
	epoch := s.askEpoch(ctx, pipe)
	if err := exec(ctx, pipe); err != nil {
		return "", wrap("epoch", err)
	}
	return s.epochOf(epoch), nil
}

// epochOf names the life of the stored data by the key's and the server's.
func (s *Store) epochOf(key *redis.StringCmd) string {
	epoch := key.Val()
	if run := s.run.Load(); run != nil && *run != "" && !s.cluster {
		epoch += "." + *run
	}
	return epoch
}

// askEpoch reads the epoch, and makes one if there is none. Both commands are for one key, so they are done in order.
func (s *Store) askEpoch(ctx context.Context, pipe redis.Pipeliner) *redis.StringCmd {
	pipe.SetNX(ctx, s.epochKey(), strconv.FormatUint(rand.Uint64(), 36)+strconv.FormatInt(time.Now().UnixMilli(), 36), 0)
	return pipe.Get(ctx, s.epochKey())
}

// exec answers the first error of any command. go-redis alone would take redis.Nil for one.
func exec(ctx context.Context, pipe redis.Pipeliner) error {
	if pipe.Len() == 0 {
		return nil
	}
	cmds, err := pipe.Exec(ctx)
	for _, c := range cmds {
		if e := c.Err(); e != nil && !errors.Is(e, redis.Nil) {
			return e
		}
	}
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}
