package deliver_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// More than rapid's default of 100: a simulated cluster takes half a millisecond. The command line still has the last word.
	_ = flag.Set("rapid.checks", "2000")
	goleak.VerifyTestMain(m)
}
