//go:build failpoints

package app

import (
	"os"
	"syscall"
)

// failpoint ends the process, as SIGKILL does, at the point that FUTURE_TEST_KILL_AT names.
var failpoint = func(name string) {
	if name == os.Getenv("FUTURE_TEST_KILL_AT") {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // nothing comes after it
	}
}
