// Command rawmysql inserts rows of the shape of messages with go-sql-driver alone, many to a statement, each statement a
// transaction, and prints how many a second. It keeps no offsets, heads or counts and looks nothing up.
//
// The DSN is in the environment variable RAWMYSQL_DSN, since it holds a password.
package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

type options struct {
	like, into                                string
	rows, batch, writers, conversations, size int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "rawmysql:", err)
		os.Exit(2)
	}
	result, err := run(ctx, o)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rawmysql:", err)
		os.Exit(1)
	}
}

func parse(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("rawmysql", flag.ContinueOnError)
	fs.StringVar(&o.like, "like", "messages", "table of which an empty copy is made for this run, and dropped")
	fs.StringVar(&o.into, "into", "", "table to insert into instead; the rows stay")
	fs.IntVar(&o.rows, "rows", 200_000, "rows to insert")
	fs.IntVar(&o.batch, "batch", 500, "rows of one statement")
	fs.IntVar(&o.writers, "writers", 4, "statements at one time")
	fs.IntVar(&o.conversations, "conversations", 20_000, "conversations, which the rows take in turn")
	fs.IntVar(&o.size, "size", 100, "bytes of a text")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case o.rows < 1 || o.batch < 1 || o.writers < 1 || o.conversations < 1 || o.size < 0:
		return nil, errors.New("rows, batch, writers and conversations must be above 0")
	case os.Getenv("RAWMYSQL_DSN") == "":
		return nil, errors.New("RAWMYSQL_DSN is not set")
	}
	for _, table := range []string{o.like, o.into} {
		if strings.Trim(table, "abcdefghijklmnopqrstuvwxyz_") != "" {
			return nil, fmt.Errorf("%q is no name of a table", table)
		}
	}
	return o, nil
}

// Result is what is printed.
type Result struct {
	Rows int     `json:"rows"`
	Rate float64 `json:"rows_per_s"`
	CPU  float64 `json:"cpu_ms_per_row"`
}

// run measures once.
func run(ctx context.Context, o *options) (_ Result, err error) {
	cfg, err := mysql.ParseDSN(os.Getenv("RAWMYSQL_DSN"))
	if err != nil {
		return Result{}, err
	}
	cfg.InterpolateParams = true // half the round trips
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return Result{}, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(o.writers)
	db.SetMaxIdleConns(o.writers)
	defer func() { err = errors.Join(err, db.Close()) }()
	table := o.into
	if table == "" {
		const copied = "rawmysql"
		table = copied
		if _, err := db.ExecContext(ctx, "CREATE TABLE "+copied+" LIKE "+o.like); err != nil {
			return Result{}, err
		}
		defer func() {
			dropping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			_, failed := db.ExecContext(dropping, "DROP TABLE "+copied)
			err = errors.Join(err, failed)
		}()
	}
	used, start := cpu(), time.Now()
	if err := insertAll(ctx, db, table, o); err != nil {
		return Result{}, err
	}
	took := time.Since(start)
	used = cpu() - used
	return Result{
		Rows: o.rows, Rate: float64(o.rows) / took.Seconds(),
		CPU: float64(used) / float64(time.Millisecond) / float64(o.rows),
	}, nil
}

// insertAll has the writers take batches in turn.
func insertAll(ctx context.Context, db *sql.DB, table string, o *options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	insert := "INSERT INTO " + table + ` (conversation, seq, n, own, prev_seq, sender_id, sender_name, client_msg_id, time_ms, body,
		reply_sender_id, reply_msg_id) VALUES `
	body := fmt.Sprintf(`{"text":{"text":"%s"}}`, strings.Repeat("x", o.size))
	var next atomic.Int64
	var writers sync.WaitGroup
	for range o.writers {
		writers.Go(func() {
			for ctx.Err() == nil {
				from := int(next.Add(int64(o.batch))) - o.batch
				if from >= o.rows {
					return
				}
				if err := insertBatch(ctx, db, insert, body, from, min(o.batch, o.rows-from), o.conversations); err != nil {
					cancel(err)
				}
			}
		})
	}
	writers.Wait()
	return context.Cause(ctx)
}

func insertBatch(ctx context.Context, db *sql.DB, insert, body string, from, n, conversations int) error {
	const (
		columns = "(?,?,?,?,?,?,?,?,?,?,NULL,NULL)"
		base    = 1_000_000_000 // above the ids of real accounts
		above   = 1 << 50       // all seqs that there are
	)
	args := make([]any, 0, 10*n)
	now := time.Now().UnixMilli()
	for i := from; i < from+n; i++ {
		pair, seq := base+2*(i%conversations), above+i
		sender := pair + i/conversations%2
		id := messageID(now)
		args = append(args, fmt.Sprintf("d:%d:%d", pair, pair+1), seq, i, i, seq-1, sender, "somebody", id, now, body)
	}
	_, err := db.ExecContext(ctx, insert+columns+strings.Repeat(","+columns, n-1), args...)
	return err
}

// messageID is a UUIDv7, as messages have.
func messageID(ms int64) []byte {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6], id[8] = 0x70|id[6]&0x0f, 0x80|id[8]&0x3f
	return id
}

// cpu is what this process has used, in user and system mode.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // only for a bad argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
