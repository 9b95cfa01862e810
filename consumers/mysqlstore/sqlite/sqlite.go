// Package sqlite opens mysqlstore on a SQLite file, for one process that needs no database server. It is the only importer of
// modernc.org/sqlite.
package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/futurechat/future/consumers/mysqlstore"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options are for Open. The zero value is usable.
type Options struct {
	// Readers bounds the connections that only read; there is one more that writes. Default 4.
	Readers int
	// Busy is how long to wait for another process that has the file. Default 10 s.
	Busy time.Duration
}

// Open makes a store on a file, which is created if need be; its folder must exist. What was answered survives the end of the
// process at any moment, and of the machine as far as its disk keeps what it confirms: the write-ahead log is synced at each
// commit. Writes go over one connection, since SQLite has one writer at a time and waiting in line here is fair.
func Open(_ context.Context, path string, opts Options) (*mysqlstore.Store, error) {
	opts.Readers = cmp.Or(opts.Readers, 4)
	opts.Busy = cmp.Or(opts.Busy, 10*time.Second)
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	write, err := pool(path, 1, opts, "_txlock=immediate")
	if err != nil {
		return nil, err
	}
	read, err := pool(path, opts.Readers, opts, "_pragma=query_only(1)")
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, errors.Join(err, read.Close(), write.Close())
	}
	s, err := mysqlstore.New(write, read, mysqlstore.Dialect{
		Goose:      goose.DialectSQLite3,
		Migrations: files,
		HasTable:   "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?",
		Translate:  translate,
		Duplicate: func(err error) bool {
			c := code(err)
			return c == sqlite3.SQLITE_CONSTRAINT_UNIQUE || c == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
		},
		Transient: func(err error) bool {
			c := code(err) & 0xff // the low byte is the kind, whatever the particulars
			return c == sqlite3.SQLITE_BUSY || c == sqlite3.SQLITE_LOCKED
		},
		MaxRows:  100,
		MaxBytes: 1 << 20,
	})
	if err != nil {
		return nil, errors.Join(err, read.Close(), write.Close())
	}
	return s, nil
}

// pool makes a pool of connections. The order of the settings counts: waiting for others must be set before what may wait.
func pool(path string, conns int, opts Options, more string) (*sql.DB, error) {
	file := url.URL{Scheme: "file", Path: path}
	dsn := file.String() + fmt.Sprintf("?_pragma=busy_timeout(%d)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=journal_size_limit(67108864)&_pragma=cache_size(-32768)&_pragma=wal_autocheckpoint(8000)&", opts.Busy.Milliseconds()) + more
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("sqlite %s: %w", path, err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

var (
	values = regexp.MustCompile(`VALUES\((\w+)\)`)
	simple = strings.NewReplacer(
		"ON DUPLICATE KEY UPDATE", "ON CONFLICT DO UPDATE SET",
		"GREATEST(", "MAX(",
		" FOR UPDATE", "", // the one writer has the whole file
		") IN (%s)", ") IN (VALUES %s)", // of row constructors
	)
)

// translate turns the statements of package mysqlstore into SQLite's SQL.
func translate(statement string) string {
	return values.ReplaceAllString(simple.Replace(statement), "excluded.$1")
}
