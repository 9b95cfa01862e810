package mysqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/futurechat/future/router/chat"
)

// CreateAccount implements chat.AccountStore.
func (s *Store) CreateAccount(ctx context.Context, a chat.Account) (chat.Account, error) {
	err := s.inTx(ctx, "create account", func(tx *sql.Tx) (err error) {
		a.ID, err = s.insert(ctx, tx, sqlCreateAccount, a.Name, a.Email, a.PasswordHash, a.CreatedMs)
		return err
	})
	if s.dialect.Duplicate(err) {
		err = fmt.Errorf("create account: %w", chat.ErrNameTaken)
	}
	if err != nil {
		return chat.Account{}, err
	}
	return a, nil
}

// AccountByName implements chat.AccountStore.
func (s *Store) AccountByName(ctx context.Context, name string) (chat.Account, error) {
	var a chat.Account
	err := s.queryRow(ctx, s.read, sqlAccountByName, []any{name}, &a.ID, &a.Name, &a.Email, &a.PasswordHash, &a.CreatedMs)
	if err == nil && a.Name != name {
		err = chat.ErrNotFound // to MySQL spaces at the end are nothing
	}
	if err != nil {
		return chat.Account{}, fmt.Errorf("account by name: %w", err)
	}
	return a, nil
}

// SetPasswordHash implements chat.AccountStore.
func (s *Store) SetPasswordHash(ctx context.Context, account int64, old, hash string) error {
	return s.inTx(ctx, "set password hash", func(tx *sql.Tx) error {
		_, err := s.exec(ctx, tx, sqlSetPassword, hash, account, old)
		return err
	})
}

// names gives the names of accounts. One that is not there is left out.
func (s *Store) names(ctx context.Context, on runner, ids ...int64) (map[int64]string, error) {
	names := make(map[int64]string, len(ids))
	err := s.queryIn(ctx, on, func(rows *sql.Rows) error {
		var id int64
		var name string
		err := rows.Scan(&id, &name)
		names[id] = name
		return err
	}, sqlAccountNames, nil, anys(ids), 1)
	return names, err
}

// CreateSession implements chat.AccountStore.
func (s *Store) CreateSession(ctx context.Context, session chat.Session, token chat.TokenHash) (chat.Session, error) {
	const tries = 5 // one that logs in at the same moment with the same device
	var err error
	for range tries {
		err = s.inTx(ctx, "create session", func(tx *sql.Tx) (err error) {
			if _, err := s.exec(ctx, tx, sqlEndOlderSession, session.Account.ID, session.DeviceID); err != nil {
				return err
			}
			session.ID, err = s.insert(ctx, tx, sqlCreateSession, session.Account.ID, session.DeviceID, session.DeviceName, token[:], session.CreatedMs)
			return err
		})
		if !s.dialect.Duplicate(err) {
			break
		}
	}
	if err != nil {
		return chat.Session{}, err
	}
	return session, nil
}

// SessionByToken implements chat.AccountStore.
func (s *Store) SessionByToken(ctx context.Context, token chat.TokenHash) (chat.Session, error) {
	var f chat.Session
	a := &f.Account
	err := s.queryRow(ctx, s.read, sqlSessionByToken, []any{token[:]}, &f.ID, &f.DeviceID, &f.DeviceName, &f.CreatedMs,
		&a.ID, &a.Name, &a.Email, &a.PasswordHash, &a.CreatedMs)
	if err != nil {
		return chat.Session{}, fmt.Errorf("session by token: %w", err)
	}
	return f, nil
}

// EndSession implements chat.AccountStore.
func (s *Store) EndSession(ctx context.Context, id int64) error {
	return s.inTx(ctx, "end session", func(tx *sql.Tx) error {
		_, err := s.exec(ctx, tx, sqlEndSession, id)
		return err
	})
}

// isNotFound is for reads that take no row for an empty one.
func isNotFound(err error) bool { return errors.Is(err, chat.ErrNotFound) }
