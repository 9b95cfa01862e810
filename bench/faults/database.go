package faults

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/futurechat/future/ops/clustertest"
)

// Statements of our own: how the product reads its tables is no witness of what is in them.
const (
	sqlRows = `SELECT conversation, seq, body FROM messages WHERE time_ms >= ? ORDER BY conversation, seq`
	sqlNext = `SELECT partition_no, next_offset FROM log_offsets`
)

// readDatabase reads the rows of a run's messages, and how far history is.
func readDatabase(ctx context.Context, c *clustertest.Cluster, r *run, partitions int) (rows []Row, next []int64, err error) {
	fail := func(err error) ([]Row, []int64, error) { return nil, nil, fmt.Errorf("read the database: %w", err) }
	db, err := c.OpenDatabase()
	if err != nil {
		return fail(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	next = make([]int64, partitions)
	err = scan(ctx, db, func(rows *sql.Rows) error {
		var partition int
		var offset int64
		if err := rows.Scan(&partition, &offset); err != nil {
			return err
		}
		if partition < 0 || partition >= partitions {
			return fmt.Errorf("history has a partition %d of %d", partition, partitions)
		}
		next[partition] = max(next[partition], offset)
		return nil
	}, sqlNext)
	if err != nil {
		return fail(err)
	}
	pairs := make(map[string]int, len(r.crowd.pairs))
	for i, p := range r.crowd.pairs {
		pairs[p.conversation] = i
	}
	const skew = time.Minute // the log's clock is another one
	err = scan(ctx, db, func(found *sql.Rows) error {
		var conversation, body string
		var seq uint64
		if err := found.Scan(&conversation, &seq, &body); err != nil {
			return err
		}
		_, rest, ok := strings.Cut(body, r.id+" ")
		if !ok {
			return nil // of a run before
		}
		digits := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
		number, err := strconv.Atoi(digits)
		if err != nil {
			return fmt.Errorf("%s, seq %d: a text of this run without a number", conversation, seq)
		}
		pair, ok := pairs[conversation]
		if !ok {
			pair = -1
		}
		rows = append(rows, Row{Pair: pair, Number: number, Seq: seq})
		return nil
	}, sqlRows, r.began.Add(-skew).UnixMilli())
	if err != nil {
		return fail(err)
	}
	return rows, next, nil
}

func scan(ctx context.Context, db *sql.DB, row func(*sql.Rows) error, query string, args ...any) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // its error is that of Err
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
