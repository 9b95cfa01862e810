// Command chatd is the whole of Future in one binary: see `chatd -h`.
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

	"github.com/futurechat/future/ops/app"
	"github.com/futurechat/future/ops/config"
	"github.com/futurechat/future/router/cluster"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

type command struct {
	name, line string
	run        func(ctx context.Context, args []string, io stdio) error
}

type stdio struct {
	in       *os.File
	out, err io.Writer
}

// commands, in the order in which help lists them.
func commands() []command {
	return []command{
		{"dev", "everything in one process, on embedded parts: to try it, or for a small team", dev},
		{"chat", "chat in this terminal", chat},
		{"node", "serve clients", role(cluster.RoleNode, "chatd node: serve clients")},
		{"router", "bring messages from the log to the nodes", role(cluster.RoleRouter, "chatd router: bring messages from the log to the nodes")},
		{"history", "bring messages from the log to the database", role(cluster.RoleHistory, "chatd history: bring messages from the log to the database")},
		{"migrate", "make or update the topics and the database's tables; run it before the others", migrate},
		{"admin", "epoch raise: go on after the log was lost or made anew", admin},
		{"config", "print the effective settings, without secrets", printConfig},
		{"version", "print the version", version},
	}
}

func run(args []string, in *os.File, out, errs io.Writer) int {
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		usage(out)
		return 0
	}
	// A server outlives the terminal and the pipe that its log goes to; a chat ends with its terminal, by the end of its input.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	// The first signal ends in order, the second at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, args[1:], stdio{in, out, errs})
		switch {
		case err == nil, errors.Is(err, config.ErrHelp):
			return 0
		default:
			fmt.Fprintf(errs, "chatd %s: %v\n", c.name, err)
			return 1
		}
	}
	fmt.Fprintf(errs, "chatd: no command %q\n\n", args[0])
	usage(errs)
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Future, a distributed chat cluster.\n\n  chatd COMMAND [-flags]     chatd COMMAND -h tells more\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.line)
	}
	fmt.Fprint(w, "\nTo begin: chatd dev, and in two other terminals chatd chat -user alice and chatd chat -user bob.\n")
}

func parse(cmd, about string, args []string, out io.Writer, extra func(*flag.FlagSet)) (*config.Config, error) {
	c := config.New()
	if err := c.Parse(cmd, about, args, out, extra); err != nil {
		return nil, err
	}
	if err := c.ReadSecret(); err != nil {
		return nil, err
	}
	return c, c.Validate(cmd)
}

// role runs one role as a process of its own until it is told to end.
func role(r cluster.Role, about string) func(context.Context, []string, stdio) error {
	return func(ctx context.Context, args []string, io stdio) error {
		c, err := parse(string(r), about, args, io.out, nil)
		if err != nil {
			return err
		}
		return app.Run(ctx, c, app.Version(), r)
	}
}

func migrate(ctx context.Context, args []string, io stdio) error {
	c, err := parse("migrate", "chatd migrate: make or update the topics and the database's tables. Safe to repeat.", args, io.out, nil)
	if err != nil {
		return err
	}
	return app.Migrate(ctx, c, io.out)
}

func admin(ctx context.Context, args []string, io stdio) error {
	if len(args) < 2 || args[0] != "epoch" || args[1] != "raise" {
		return errors.New("there is: chatd admin epoch raise [-yes]")
	}
	sure := false
	c, err := parse("migrate", `chatd admin epoch raise: take the log as it is for the one that is known, after a halt. Without -yes it only tells what
was lost. Stop all processes of the cluster before.`, args[2:], io.out, func(fs *flag.FlagSet) {
		fs.BoolVar(&sure, "yes", false, "do it")
	})
	if err != nil {
		return err
	}
	return app.RaiseEpoch(ctx, c, sure, io.out)
}

func printConfig(_ context.Context, args []string, io stdio) error {
	c := config.New()
	if err := c.Parse("", "chatd config: print the effective settings, as a file for -config", args, io.out, nil); err != nil {
		return err
	}
	if err := c.ReadSecret(); err != nil {
		return err
	}
	return c.Print(io.out)
}

func version(_ context.Context, _ []string, io stdio) error {
	_, err := fmt.Fprintln(io.out, app.Version())
	return err
}
