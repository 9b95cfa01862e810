//go:build race

package clustertest

// buildFlags has the processes watched by the race detector when the tests are.
var buildFlags = []string{"-race"}
