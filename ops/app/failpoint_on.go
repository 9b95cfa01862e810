//go:build failpoints

package app

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/futurechat/future/router/clock"
)

// failpoint ends the process, as SIGKILL does, at the point that FUTURE_TEST_KILL_AT names.
var failpoint = func(name string) {
	if name == os.Getenv("FUTURE_TEST_KILL_AT") {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing comes after it
	}
}

// theClock is off by what FUTURE_TEST_CLOCK_OFFSET says, as the clock of a badly kept host is. The log's lines keep true time, so that
// those of several processes can be compared.
func theClock() (clock.Clock, error) {
	setting := os.Getenv("FUTURE_TEST_CLOCK_OFFSET")
	if setting == "" {
		return clock.Real, nil
	}
	by, err := time.ParseDuration(setting)
	if err != nil {
		return nil, fmt.Errorf("FUTURE_TEST_CLOCK_OFFSET: %w", err)
	}
	return clock.Offset(clock.Real, by), nil
}
