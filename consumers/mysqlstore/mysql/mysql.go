// Package mysql opens mysqlstore on MySQL 8.4 or MariaDB 10.11. It is the only importer of go-sql-driver.
package mysql

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	driversql "github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"

	"github.com/futurechat/future/consumers/mysqlstore"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options are for Open. The zero value is usable.
type Options struct {
	// MaxConns bounds the connections of this process. Default 16.
	MaxConns int
	// DialTimeout bounds a connection's making unless the DSN has a timeout. Default 5 s.
	DialTimeout time.Duration
}

// What a connection is set to, whatever the server's defaults. READ COMMITTED locks no gaps, and each statement sees what was
// committed before it. The statement is used rather than the variable, whose name differs between the two databases.
const (
	sqlIsolation = `SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED`
	strictMode   = `'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'`
)

// Open makes a store on the database that a go-sql-driver DSN names. It reaches out to nothing: call Check. Whatever the DSN says,
// statements come one at a time with their arguments put in here (half the round trips), updates count the rows that they
// matched, and sessions are strict, in utf8mb4 and READ COMMITTED.
func Open(_ context.Context, dsn string, opts Options) (*mysqlstore.Store, error) {
	opts.MaxConns = cmp.Or(opts.MaxConns, 16)
	opts.DialTimeout = cmp.Or(opts.DialTimeout, 5*time.Second)
	connector, err := connect(dsn, opts)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(opts.MaxConns)
	db.SetMaxIdleConns(opts.MaxConns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s, err := mysqlstore.New(db, db, mysqlstore.Dialect{
		Goose:      goose.DialectMySQL,
		Migrations: files,
		Locker:     locker{},
		HasTable:   sqlHasTable,
		Translate:  func(statement string) string { return statement },
		Duplicate:  func(err error) bool { return number(err) == 1062 },
		Transient:  func(err error) bool { n := number(err); return n == 1205 || n == 1213 },
		MaxRows:    500,
		MaxBytes:   1 << 20, // max_allowed_packet is 16 MiB at the least, and quoting may double this
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// number is the server's error number: only those that all servers mean the same by are looked at.
func number(err error) uint16 {
	if e, ok := errors.AsType[*driversql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

type connector struct {
	driver.Connector
}

func connect(dsn string, opts Options) (driver.Connector, error) {
	cfg, err := driversql.ParseDSN(dsn)
	switch {
	case err != nil:
		return nil, fmt.Errorf("mysql DSN: %w", err)
	case cfg.DBName == "":
		return nil, errors.New("mysql DSN: no database named: user:password@tcp(host:port)/database is wanted")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = opts.DialTimeout
	}
	cfg.ClientFoundRows = true
	cfg.InterpolateParams = true
	cfg.MultiStatements = false
	cfg.ParseTime = false
	cfg.AllowAllFiles = false
	cfg.Logger = &driversql.NopLogger{} // what goes wrong comes back as an error
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	cfg.Params["sql_mode"] = strictMode
	if err := cfg.Apply(driversql.Charset("utf8mb4", "utf8mb4_bin")); err != nil {
		return nil, fmt.Errorf("mysql DSN: %w", err)
	}
	c, err := driversql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("mysql DSN: %w", err)
	}
	return connector{c}, nil
}

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		return nil, errors.Join(errors.New("mysql: the driver's connection executes nothing"), conn.Close())
	}
	if _, err := execer.ExecContext(ctx, sqlIsolation, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("set isolation level: %w", err), conn.Close())
	}
	return conn, nil
}

const (
	sqlHasTable = `SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?`

	// The name is the database's, since locks are the whole server's; hashed, since it may have 64 characters at most.
	sqlLock   = `SELECT GET_LOCK(CONCAT('future-', MD5(DATABASE())), ?)`
	sqlUnlock = `SELECT RELEASE_LOCK(CONCAT('future-', MD5(DATABASE())))`
)

// locker lets one Migrate at a time change a database. The lock ends with the connection.
type locker struct{}

// lockPatience is how long a Migrate waits for another.
const lockPatience = 5 * time.Minute

// SessionLock implements goose's lock.SessionLocker.
func (locker) SessionLock(ctx context.Context, conn *sql.Conn) error {
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, sqlLock, int(lockPatience.Seconds())).Scan(&got); err != nil {
		return fmt.Errorf("lock for migration: %w", err)
	}
	if got.Int64 != 1 {
		return fmt.Errorf("lock for migration: another migration has run for %v", lockPatience)
	}
	return nil
}

// SessionUnlock implements goose's lock.SessionLocker.
func (locker) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	var released sql.NullInt64
	if err := conn.QueryRowContext(ctx, sqlUnlock).Scan(&released); err != nil {
		return fmt.Errorf("unlock after migration: %w", err)
	}
	return nil
}
