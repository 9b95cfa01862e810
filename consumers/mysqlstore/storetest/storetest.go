// Package storetest gives tests the databases there are: SQLite always, and MySQL or MariaDB when FUTURE_TEST_MYSQL has a DSN
// of a server whose user may create databases. Nothing is skipped: the variable selects.
package storetest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	driversql "github.com/go-sql-driver/mysql"

	"github.com/futurechat/future/consumers/mysqlstore"
	"github.com/futurechat/future/consumers/mysqlstore/mysql"
	"github.com/futurechat/future/consumers/mysqlstore/sqlite"
)

// Kind is a database to test on.
type Kind struct {
	Name string
	// Fresh gives an opener of one empty database, which is gone after the test. Each call opens it once more.
	Fresh func(t testing.TB) (open func() *mysqlstore.Store)
}

// Open gives a migrated store on an empty database.
func (k Kind) Open(t testing.TB) *mysqlstore.Store {
	t.Helper()
	s := k.Fresh(t)()
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// Kinds are the databases that this run has.
func Kinds() []Kind {
	kinds := []Kind{{"sqlite", freshSQLite}}
	if dsn := os.Getenv("FUTURE_TEST_MYSQL"); dsn != "" {
		kinds = append(kinds, Kind{"mysql", func(t testing.TB) func() *mysqlstore.Store { return freshMySQL(t, dsn) }})
	}
	return kinds
}

// Each runs a test on each of them.
func Each(t *testing.T, test func(t *testing.T, k Kind)) {
	t.Helper()
	for _, k := range Kinds() {
		t.Run(k.Name, func(t *testing.T) { test(t, k) })
	}
}

func freshSQLite(t testing.TB) func() *mysqlstore.Store {
	path := filepath.Join(t.TempDir(), "future test?.db") // a name that a URI must quote
	return func() *mysqlstore.Store {
		s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
		return closing(t, s, err)
	}
}

func closing(t testing.TB, s *mysqlstore.Store, err error) *mysqlstore.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

const (
	sqlCreateDatabase = "CREATE DATABASE `%s` CHARACTER SET latin1" // the worst: the store must say what it wants
	sqlDropDatabase   = "DROP DATABASE `%s`"
)

func freshMySQL(t testing.TB, dsn string) func() *mysqlstore.Store {
	t.Helper()
	cfg, err := driversql.ParseDSN(dsn)
	if err != nil {
		t.Fatalf("FUTURE_TEST_MYSQL: %v", err)
	}
	random := make([]byte, 6)
	_, _ = rand.Read(random) // never fails
	name := "future_" + hex.EncodeToString(random)
	cfg.DBName = ""
	connector, err := driversql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := sql.OpenDB(connector)
	ctx := context.WithoutCancel(t.Context())
	if _, err := server.ExecContext(ctx, fmt.Sprintf(sqlCreateDatabase, name)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := server.ExecContext(ctx, fmt.Sprintf(sqlDropDatabase, name)); err != nil {
			t.Error(err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg.DBName = name
	return func() *mysqlstore.Store {
		s, err := mysql.Open(t.Context(), cfg.FormatDSN(), mysql.Options{})
		return closing(t, s, err)
	}
}
