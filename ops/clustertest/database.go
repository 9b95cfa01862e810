package clustertest

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	_ "github.com/futurechat/future/consumers/mysqlstore/mysql" // these bring the drivers
	_ "github.com/futurechat/future/consumers/mysqlstore/sqlite"
)

// freshDatabase makes a database on the server that dsn names, and tells how to drop it.
func freshDatabase(ctx context.Context, dsn, name string) (own string, drop func(context.Context) error, err error) {
	own, err = WithDatabase(dsn, name)
	if err != nil {
		return "", nil, err
	}
	if err := onServer(ctx, dsn, "CREATE DATABASE `"+name+"` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"); err != nil {
		return "", nil, fmt.Errorf("clustertest: create database: %w", err)
	}
	return own, func(ctx context.Context) error { return onServer(ctx, dsn, "DROP DATABASE `"+name+"`") }, nil
}

func onServer(ctx context.Context, dsn, statement string) error {
	server, err := WithDatabase(dsn, "")
	if err != nil {
		return err
	}
	db, err := sql.Open("mysql", server)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// WithDatabase is a DSN with another database in it.
func WithDatabase(dsn, name string) (string, error) {
	server, params, _ := strings.Cut(dsn, "?")
	i := strings.LastIndexByte(server, '/')
	if i < 0 {
		return "", fmt.Errorf("clustertest: %q is no DSN", strings.ReplaceAll(dsn, ":", " "))
	}
	own := server[:i+1] + name
	if params != "" {
		own += "?" + params
	}
	return own, nil
}
