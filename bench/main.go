// Command bench puts load on Future and measures it: see `go run ./bench -h`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

const help = `bench measures Future.

  go run ./bench COMMAND [-flags]     go run ./bench COMMAND -h tells more

  floor   a table of ratios: what Future takes, against the barest way to do the same
`

func run(args []string, out, errs io.Writer) int {
	if len(args) == 0 || args[0] == "-h" || args[0] == "-help" || args[0] == "--help" || args[0] == "help" {
		fmt.Fprint(out, help)
		return exitOK
	}
	// The first signal ends in order, the second at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop)
	if args[0] != "floor" {
		fmt.Fprintf(errs, "bench: no command %q\n\n%s", args[0], help)
		return exitUsage
	}
	err := runFloor(ctx, args[1:], out, errs)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintf(errs, "bench floor: %v (bench floor -h tells what is allowed)\n", err)
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(errs, "bench floor: interrupted")
		return exitInterrupted
	default:
		fmt.Fprintf(errs, "bench floor: %v\n", err)
		return exitFailed
	}
}
