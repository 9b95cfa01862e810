//go:build !failpoints

package app

import "github.com/futurechat/future/router/clock"

// failpoint is called at named points of the program. Nothing happens there but in programs built for tests, with the tag
// failpoints.
var failpoint func(name string)

// theClock is the roles' time.
func theClock() (clock.Clock, error) { return clock.Real, nil }
