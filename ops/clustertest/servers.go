package clustertest

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/futurechat/future/ops/embedded"
)

// Servers are what clusters run on.
type Servers struct {
	// Kafka and Redis are addresses, separated by commas.
	Kafka, Redis string
	// Real says that they are real ones. Otherwise Kafka and Redis are in this process, and a cluster has a SQLite file.
	Real bool

	mysql    string // a DSN, if Real
	embedded *embedded.Servers
}

// String says which they are.
func (s *Servers) String() string {
	if !s.Real {
		return "embedded Kafka and Redis, SQLite"
	}
	return "real Kafka at " + s.Kafka + ", Redis at " + s.Redis + ", and database"
}

// Sleep waits for d, or answers why ctx has ended.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// FindServers gives the real servers that the environment names, or starts embedded ones that keep their data in dir.
func FindServers(ctx context.Context, dir string) (*Servers, error) {
	kafka, redis, mysql := os.Getenv("FUTURE_TEST_KAFKA"), os.Getenv("FUTURE_TEST_REDIS"), os.Getenv("FUTURE_TEST_MYSQL")
	if kafka != "" || redis != "" || mysql != "" {
		if kafka == "" || redis == "" || mysql == "" {
			return nil, errors.New("clustertest: FUTURE_TEST_KAFKA, FUTURE_TEST_REDIS and FUTURE_TEST_MYSQL must all be set, or none")
		}
		return &Servers{Kafka: kafka, Redis: redis, Real: true, mysql: mysql}, nil
	}
	s, err := embedded.Start(ctx, embedded.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	return &Servers{Kafka: s.KafkaAddr, Redis: s.RedisAddr, embedded: s}, nil
}

// Stop ends embedded servers, and leaves real ones alone.
func (s *Servers) Stop() error {
	if s.embedded == nil {
		return nil
	}
	return s.embedded.Stop()
}

// Copies is how many copies of each partition a cluster on these brokers has, and how many of them must have a message.
func Copies(kafka string) (replication, inSync int) {
	if strings.Count(kafka, ",") >= 2 {
		return 3, 2
	}
	return 1, 1
}
