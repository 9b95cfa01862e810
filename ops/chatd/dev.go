package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/futurechat/future/ops/app"
)

func dev(ctx context.Context, args []string, io stdio) error {
	began := time.Now()
	c, err := parse("dev", `chatd dev: everything in one process, on embedded parts. Needs nothing installed. Its data lie in a folder and survive
the process, however it ends.`, args, io.out, nil)
	if err != nil {
		return err
	}
	a, err := app.StartDev(ctx, c, app.Version())
	if ctx.Err() != nil {
		return nil //nolint:nilerr // told to end before it was ready
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(io.out, `Future is ready after %.1f s.
  clients  %s
  admin    %s
  data     %s (log: %s)
Next, in two other terminals:
  %s chat -user alice%s
  %s chat -user bob%s
Ctrl-C ends it; what was acknowledged is there when it starts again.
`, time.Since(began).Seconds(), a.Addr(), metricsURL(a.AdminAddr()), c.Data, c.LogFile, self(), at(a.Addr()), self(), at(a.Addr()))
	return a.Wait(ctx)
}

func metricsURL(addr string) string {
	if addr == "" {
		return "none"
	}
	return "http://" + addr + "/metrics"
}

// self is how this program was called, as one can type it again.
func self() string {
	// go run builds into a temporary folder.
	if exe, err := os.Executable(); err == nil && len(exe) > 0 && os.Args[0] == exe && isGoRun(exe) {
		return "go run ./ops/chatd"
	}
	return os.Args[0]
}

func at(addr string) string {
	if addr == defaultAddr {
		return ""
	}
	return " -addr " + addr
}
