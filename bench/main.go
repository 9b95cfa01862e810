// Command bench puts load on Future and measures it: see `go run ./bench -h`.
package main

import (
	"context"
	"errors"
	"flag"
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
  faults  verdicts: what becomes of every message while parts of a cluster are killed, stopped, drained or cut off
`

var commands = map[string]func(ctx context.Context, args []string, out, errs io.Writer) error{"floor": runFloor, "faults": runFaults}

// parse reads a command's flags. With -h it prints the help and gives flag.ErrHelp; anything that is not allowed is an errUsage.
func parse(fs *flag.FlagSet, args []string, help string, out io.Writer) error {
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(out, help)
		fs.SetOutput(out)
		fs.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", errUsage, err)
	case fs.NArg() > 0:
		return fmt.Errorf("%w: unexpected argument %q", errUsage, fs.Arg(0))
	}
	return nil
}

func run(args []string, out, errs io.Writer) int {
	if len(args) == 0 || args[0] == "-h" || args[0] == "-help" || args[0] == "--help" || args[0] == "help" {
		fmt.Fprint(out, help)
		return exitOK
	}
	// The first signal ends in order, the second at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop)
	command, ok := commands[args[0]]
	if !ok {
		fmt.Fprintf(errs, "bench: no command %q\n\n%s", args[0], help)
		return exitUsage
	}
	err := command(ctx, args[1:], out, errs)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintf(errs, "bench %s: %v (bench %s -h tells what is allowed)\n", args[0], err, args[0])
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintf(errs, "bench %s: interrupted\n", args[0])
		return exitInterrupted
	default:
		fmt.Fprintf(errs, "bench %s: %v\n", args[0], err)
		return exitFailed
	}
}
