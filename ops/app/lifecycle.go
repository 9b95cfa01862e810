package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
)

// lifecycle is a stack of named steps that end what was made: added where the resource is made, run in reverse.
type lifecycle struct {
	log   *zap.Logger
	steps []step
}

type step struct {
	name string
	stop func(context.Context) error
}

func (l *lifecycle) add(name string, stop func(context.Context) error) {
	l.steps = append(l.steps, step{name, stop})
}

// stop runs all steps, whatever the others say, under one deadline.
func (l *lifecycle) stop(ctx context.Context) error {
	var errs []error
	for _, s := range slices.Backward(l.steps) {
		began := time.Now()
		if err := s.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", s.name, err))
		}
		l.log.Debug("stopped", zap.String("part", s.name), zap.Duration("took", time.Since(began)))
	}
	l.steps = nil
	return errors.Join(errs...)
}
