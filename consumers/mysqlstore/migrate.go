package mysqlstore

import (
	"context"
	"fmt"

	"github.com/pressly/goose/v3"
)

const versionTable = "schema_version"

func (s *Store) provider() (*goose.Provider, error) {
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true), goose.WithTableName(versionTable)}
	if s.dialect.Locker != nil {
		options = append(options, goose.WithSessionLocker(s.dialect.Locker))
	}
	p, err := goose.NewProvider(s.dialect.Goose, s.write, s.dialect.Migrations, options...)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return p, nil
}

// Migrate brings the schema to the version that this program wants, and gives how many steps that took. It alone changes the
// schema. Any number may run at once. A newer schema is left alone.
func (s *Store) Migrate(ctx context.Context) (int, error) {
	const tries = 5 // without a locker the loser of a race fails, and finds next time that the work is done
	var failed error
	for range tries {
		p, err := s.provider()
		if err != nil {
			return 0, err
		}
		done, err := p.Up(ctx)
		if err == nil {
			return len(done), nil
		}
		failed = fmt.Errorf("migrate: %w", err)
		if s.dialect.Locker != nil || ctx.Err() != nil {
			break
		}
		if s.Check(ctx) == nil {
			return 0, nil
		}
	}
	return 0, failed
}

// Check asks whether the database answers and its schema is at least the one this program wants, else ErrSchema. A newer one
// will do: a schema is only ever changed so that the programs of the version before go on working.
func (s *Store) Check(ctx context.Context) error {
	has, err := s.schemaVersion(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("check schema: %w", err)
	case has < s.wants:
		return fmt.Errorf("%w: it has version %d, this program wants %d: run `chatd migrate`", ErrSchema, has, s.wants)
	}
	return nil
}

func (s *Store) schemaVersion(ctx context.Context) (version int64, err error) {
	var tables int
	err = s.queryRow(ctx, s.read, s.dialect.HasTable, []any{versionTable}, &tables)
	if err != nil || tables == 0 {
		return 0, err
	}
	return version, s.queryRow(ctx, s.read, sqlSchemaVersion, nil, &version)
}
