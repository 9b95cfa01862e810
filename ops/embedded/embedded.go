// Package embedded runs Kafka and Redis inside this process, for `chatd dev` and for tests that need no installed
// server. Both speak the real protocols on loopback, so the very same adapters talk to them as to the real servers.
//
// It owns the two servers, their clocks and the folder with the log. It must never be part of a deployment of several
// processes: Kafka's stand-in has one broker and no replicas. What it acknowledged survives the death of the process;
// a power cut may take the last moments, as with a single real broker. What Redis holds is lost with the process,
// which invariant I2 allows.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
)

// ErrInUse is returned by Start when another process, or another Start of this one, has the folder.
var ErrInUse = errors.New("embedded: the folder is in use by another process")

const (
	// retention of topics that do not set their own: longer than the 14 days below which a consumer that was off
	// for a while could miss records.
	retention = 30 * 24 * time.Hour
	// cleaning is how often the log is looked over for what is past its retention.
	cleaning = time.Hour
	// ttlStep is how often Redis' clock is forwarded.
	ttlStep = 100 * time.Millisecond
	// ttlMost is how far at most it goes at once, and thus how much too early a key may expire: one that is set between
	// two steps loses the whole next step. Leases are 2 s and longer.
	ttlMost = 2 * ttlStep
)

// Options for Start.
type Options struct {
	// Dir keeps the log, and is made if it is missing. It must be one that only this process uses. Required.
	Dir string
	// Logger gets what the servers have to say; nil drops it.
	Logger *zap.Logger
}

// Servers are running servers.
type Servers struct {
	KafkaAddr string // host:port; another one at every start
	RedisAddr string // host:port; another one at every start

	lock  *os.File
	kafka *kfake.Cluster
	redis *miniredis.Miniredis

	quit context.CancelFunc
	done sync.WaitGroup
	stop func() error
}

// Start starts both servers; they are ready when it returns. ctx bounds only the start: Stop ends them.
// ErrInUse says that the folder belongs to another process.
func Start(ctx context.Context, o Options) (_ *Servers, err error) {
	if o.Dir == "" {
		return nil, errors.New("embedded: no folder given")
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	s := &Servers{}
	s.stop = sync.OnceValue(s.stopOnce)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()

	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	if s.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	s.kafka, err = kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.DataDir(filepath.Join(o.Dir, "kafka")),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.ms": strconv.FormatInt(retention.Milliseconds(), 10),
		}),
		kfake.WithLogger(kafkaLog{o.Logger.Named("kafka").Sugar()}),
	)
	if err != nil {
		return nil, fmt.Errorf("embedded: start kafka on %s: %w", o.Dir, err)
	}
	s.KafkaAddr = s.kafka.ListenAddrs()[0]

	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	redis := miniredis.NewMiniRedis()
	if err := redis.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("embedded: start redis: %w", err)
	}
	s.redis, s.RedisAddr = redis, redis.Addr()

	var running context.Context
	running, s.quit = context.WithCancel(context.Background())
	s.done.Go(func() { forwardTTLs(running, s.redis) })
	s.done.Go(func() { clean(running, s.kafka) })
	return s, nil
}

// Stop ends both servers and writes what is left to the folder. Clients' connections are cut. It may be called more
// than once, from any goroutine; all calls return when the servers are down.
func (s *Servers) Stop() error { return s.stop() }

func (s *Servers) stopOnce() error {
	// The clocks first: they call into the servers.
	if s.quit != nil {
		s.quit()
		s.done.Wait()
	}
	if s.redis != nil {
		s.redis.Close()
	}
	if s.kafka != nil {
		s.kafka.Close()
	}
	if s.lock != nil {
		if err := s.lock.Close(); err != nil {
			return fmt.Errorf("embedded: unlock: %w", err)
		}
	}
	return nil
}

// lockDir keeps a second process out of the folder: two writers would destroy the log. The kernel releases the lock
// with the process, however that ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close() // the error below says more
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s", ErrInUse, dir)
	}
	return nil, fmt.Errorf("embedded: lock %s: %w", dir, err)
}

// forwardTTLs makes keys expire: miniredis' TTLs stand still by themselves. Its own ClockTTL walks over all keys with
// a TTL at every single command; this does so ten times a second.
func forwardTTLs(ctx context.Context, redis *miniredis.Miniredis) {
	tick := time.NewTicker(ttlStep)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// What has really passed, since a ticker drops ticks when the machine is busy. After a longer stall the
			// clock rather stays behind: who should have renewed a key was stalled as well.
			now := time.Now()
			redis.FastForward(min(now.Sub(last), ttlMost))
			last = now
		}
	}
}

// clean applies retention and compaction. kfake has a timer of its own, but starts it only when a topic is created or
// altered, so not after a restart.
func clean(ctx context.Context, kafka *kfake.Cluster) {
	tick := time.NewTicker(cleaning)
	defer tick.Stop()
	for {
		kafka.ApplyRetention()
		kafka.Compact()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// kafkaLog passes on what an operator can act on. At Info kfake logs every request.
type kafkaLog struct{ log *zap.SugaredLogger }

func (l kafkaLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.log.Errorf(format, args...)
	case kfake.LogLevelWarn:
		l.log.Warnf(format, args...)
	default:
	}
}
