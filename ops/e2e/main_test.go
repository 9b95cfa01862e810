package e2e

import (
	"flag"
	"os"
	"testing"
)

// Tests of this package wait for leases and restarts more than they compute, so more of them run at a time than there are cores.
// Those that have the servers to themselves, or bound times, are not parallel.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", "4"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
