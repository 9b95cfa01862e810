package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/futurechat/future/router/chat"
)

// ErrSchema is matched by errors.Is if the database's schema is older than this program wants.
var ErrSchema = errors.New("mysqlstore: schema too old")

// Dialect is what sets one database apart from the others.
type Dialect struct {
	Goose      goose.Dialect
	Migrations fs.FS
	// Locker lets one Migrate run at a time. Nil if the database itself does not let two change the schema at once.
	Locker lock.SessionLocker
	// HasTable is a statement that counts the tables of the name that is its one argument.
	HasTable string
	// Translate turns a statement of sql.go, with its %s still in place, into this database's SQL.
	Translate func(statement string) string
	// Duplicate tells whether the error says that a unique key has such a row.
	Duplicate func(error) bool
	// Transient tells whether the error says that the transaction was given up in favour of another and may be tried again.
	Transient func(error) bool
	// MaxRows and MaxBytes bound one INSERT, MaxRows also a list in IN.
	MaxRows  int
	MaxBytes int
}

// Store is a chat.Store. Make one with mysql.Open or sqlite.Open.
type Store struct {
	write, read *sql.DB // may be the same
	dialect     Dialect
	wants       int64 // schema version

	translated sync.Map // statement → the dialect's
}

var _ chat.Store = (*Store)(nil)

// New makes a store on two pools, or one for both. It reaches out to nothing. Close closes the pools.
func New(write, read *sql.DB, dialect Dialect) (*Store, error) {
	s := &Store{write: write, read: read, dialect: dialect}
	p, err := s.provider()
	if err != nil {
		return nil, err
	}
	for _, source := range p.ListSources() {
		s.wants = max(s.wants, source.Version)
	}
	return s, nil
}

// Close ends all connections.
func (s *Store) Close() error {
	if s.read == s.write {
		return s.write.Close()
	}
	return errors.Join(s.read.Close(), s.write.Close())
}

// Ping asks whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.read.PingContext(ctx); err != nil {
		return fmt.Errorf("ping database: %w", err)
	}
	return nil
}

// txTries is how often a transaction that lost against another is tried.
const txTries = 10

// refusal is what a caller's rule said against a change.
type refusal struct{ error }

// inTx runs fn in a transaction, again if it lost against another one; so fn must set all it returns anew each time. What a refusal
// holds is given back as it is.
func (s *Store) inTx(ctx context.Context, op string, fn func(tx *sql.Tx) error) error {
	for try := 1; ; try++ {
		err := s.tryTx(ctx, fn)
		if err == nil {
			return nil
		}
		if r, refused := err.(refusal); refused { //nolint:errorlint // fn gives it bare
			return r.error
		}
		if try == txTries || !s.dialect.Transient(err) {
			return fmt.Errorf("%s: %w", op, err)
		}
		// Two that met once meet again if both come back at once.
		wait := time.NewTimer(time.Duration(rand.Int64N(int64(5*time.Millisecond) << min(try, 6))))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("%s: %w", op, errors.Join(ctx.Err(), err))
		}
	}
}

func (s *Store) tryTx(ctx context.Context, fn func(tx *sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		_ = tx.Rollback() // what went wrong before is told
		return err
	}
	return tx.Commit()
}

// runner is a pool or a transaction.
type runner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// sql gives the statement as the dialect wants it.
func (s *Store) sql(statement string) string {
	if known, ok := s.translated.Load(statement); ok {
		return known.(string)
	}
	text := s.dialect.Translate(statement)
	s.translated.Store(statement, text)
	return text
}

// exec runs a statement and gives how many rows it matched.
func (s *Store) exec(ctx context.Context, on runner, statement string, args ...any) (int64, error) {
	result, err := on.ExecContext(ctx, s.sql(statement), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// insert runs an INSERT of one row and gives the id it got.
func (s *Store) insert(ctx context.Context, on runner, statement string, args ...any) (int64, error) {
	result, err := on.ExecContext(ctx, s.sql(statement), args...)
	if err != nil {
		return 0, err
	}
	return result.LastInsertId()
}

// query runs a statement and calls each for every row.
func (s *Store) query(ctx context.Context, on runner, each func(*sql.Rows) error, statement string, args ...any) error {
	return s.queryText(ctx, on, each, s.sql(statement), args)
}

func (s *Store) queryText(ctx context.Context, on runner, each func(*sql.Rows) error, text string, args []any) error {
	rows, err := on.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err below tells what went wrong
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// queryRow scans the first row, or answers chat.ErrNotFound.
func (s *Store) queryRow(ctx context.Context, on runner, statement string, args []any, into ...any) error {
	found := false
	err := s.query(ctx, on, func(rows *sql.Rows) error {
		if found {
			return nil
		}
		found = true
		return rows.Scan(into...)
	}, statement, args...)
	if err == nil && !found {
		err = chat.ErrNotFound
	}
	return err
}

// queryIn runs a statement that ends a condition with IN (%s), as often as needed for all keys. Each key is width arguments;
// before go ahead of the keys each time.
func (s *Store) queryIn(ctx context.Context, on runner, each func(*sql.Rows) error, statement string, before, keys []any, width int) error {
	for part := range chunks(keys, s.dialect.MaxRows*width) {
		args := append(append(make([]any, 0, len(before)+len(part)), before...), part...)
		text := strings.Replace(s.sql(statement), "%s", placeholders(len(part)/width, width), 1)
		if err := s.queryText(ctx, on, each, text, args); err != nil {
			return err
		}
	}
	return nil
}

// execIn runs a statement that ends with IN (%s), as often as needed for all keys.
func (s *Store) execIn(ctx context.Context, on runner, statement string, keys []any) error {
	for part := range chunks(keys, s.dialect.MaxRows) {
		if _, err := on.ExecContext(ctx, strings.Replace(s.sql(statement), "%s", placeholders(len(part), 1), 1), part...); err != nil {
			return err
		}
	}
	return nil
}

// chunks cuts a list in pieces of at most size.
func chunks(list []any, size int) func(yield func([]any) bool) {
	return func(yield func([]any) bool) {
		for len(list) > 0 {
			n := min(size, len(list))
			if !yield(list[:n]) {
				return
			}
			list = list[n:]
		}
	}
}

// placeholders gives `?,?,?`, or with a width above one `(?,?),(?,?)`.
func placeholders(n, width int) string {
	if width == 1 {
		return strings.TrimSuffix(strings.Repeat("?,", n), ",")
	}
	one := "(" + placeholders(width, 1) + "),"
	return strings.TrimSuffix(strings.Repeat(one, n), ",")
}

// insertRows runs an INSERT, written for one row, with all rows, in as few statements as the dialect's bounds allow.
func (s *Store) insertRows(ctx context.Context, on runner, statement string, rows *rowArgs) error {
	text := s.sql(statement)
	at := strings.Index(text, "(?")
	end := at + strings.Index(text[at:], ")") + 1
	head, one, tail := text[:at], text[at:end], text[end:]
	for first := 0; first < len(rows.sizes); {
		n, bytes := 0, 0
		for first+n < len(rows.sizes) && n < s.dialect.MaxRows && (n == 0 || bytes+rows.sizes[first+n] <= s.dialect.MaxBytes) {
			bytes += rows.sizes[first+n]
			n++
		}
		var b strings.Builder
		b.Grow(len(head) + n*(len(one)+1) + len(tail))
		b.WriteString(head)
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(one)
		}
		b.WriteString(tail)
		if _, err := on.ExecContext(ctx, b.String(), rows.args[first*rows.width:(first+n)*rows.width]...); err != nil {
			return err
		}
		first += n
	}
	return nil
}

// rowArgs are the arguments of rows to insert.
type rowArgs struct {
	width int
	args  []any
	sizes []int
}

// add adds a row; large is how many bytes its large columns have.
func (r *rowArgs) add(large int, columns ...any) {
	const smallColumns = 200
	r.width = len(columns)
	r.args = append(r.args, columns...)
	r.sizes = append(r.sizes, large+smallColumns)
}

// position is a seq as a signed column holds it. Clients may ask for any.
func position(seq uint64) int64 { return int64(min(seq, math.MaxInt64)) }

func anys[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}
