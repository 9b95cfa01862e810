//go:build !failpoints

package app

// failpoint is called at named points of the program. Nothing happens there but in programs built for tests, with the tag
// failpoints.
var failpoint func(name string)
