package clustertest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/futurechat/future/consumers/mysqlstore"
	"github.com/futurechat/future/consumers/mysqlstore/mysql"
	"github.com/futurechat/future/consumers/mysqlstore/sqlite"
	"github.com/futurechat/future/router/chat"
)

// Seat is a session that exists though nobody logged in: a client resumes it by its token, as its device.
type Seat struct{ Token, Device string }

// SeedSessions makes n accounts with one session each, straight in the database: to register so many would take minutes, since
// passwords are dear to hash. Their names begin with prefix.
func (c *Cluster) SeedSessions(ctx context.Context, prefix string, n int) (_ []Seat, err error) {
	store, err := c.OpenStore(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	seats := make([]Seat, n)
	return seats, seedEach(n, func(i int) (err error) {
		seats[i], err = seat(ctx, store, fmt.Sprintf("%s-%d", prefix, i))
		return err
	})
}

// seedEach calls do for 0 to n-1, some at a time, which share the database's syncs. What fails ends a share of the rest.
func seedEach(n int, do func(i int) error) error {
	const atOnce = 16
	errs := make([]error, atOnce)
	var wait sync.WaitGroup
	for w := range atOnce {
		wait.Go(func() {
			for i := w; i < n && errs[w] == nil; i += atOnce {
				errs[w] = do(i)
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// OpenStore opens the cluster's database as a node does.
func (c *Cluster) OpenStore(ctx context.Context) (*mysqlstore.Store, error) {
	if file, ok := strings.CutPrefix(c.Database, "sqlite:"); ok {
		return sqlite.Open(ctx, file, sqlite.Options{})
	}
	return mysql.Open(ctx, c.Database, mysql.Options{})
}

func seat(ctx context.Context, store *mysqlstore.Store, name string) (Seat, error) {
	account, err := store.CreateAccount(ctx, chat.Account{Name: name, PasswordHash: "none", CreatedMs: 1})
	if err != nil {
		return Seat{}, err
	}
	return NewSeat(ctx, store, account)
}

// NewSeat makes a session of an account.
func NewSeat(ctx context.Context, store *mysqlstore.Store, account chat.Account) (Seat, error) {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	s := Seat{Token: base64.RawURLEncoding.EncodeToString(random), Device: uuid.NewString()}
	_, err := store.CreateSession(ctx, chat.Session{Account: account, DeviceID: s.Device, CreatedMs: 1}, sha256.Sum256([]byte(s.Token)))
	return s, err
}
