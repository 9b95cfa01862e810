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
	"strings"
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
		{"admin", "members: who is in the cluster; drain NAME: have a process go; epoch raise: go on after the log was lost", admin},
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

const adminUsage = `chatd admin: what operators do with a cluster. -h after each tells more.

  chatd admin members             list the cluster's processes, what they are about, and where they are
  chatd admin drain NAME          have a process go, unnoticed by its clients
  chatd admin epoch raise [-yes]  take the log as it is for the one that is known, after a halt
`

func admin(ctx context.Context, args []string, io stdio) error {
	switch {
	case len(args) == 0 || args[0] == "-h" || args[0] == "-help" || args[0] == "--help":
		_, err := fmt.Fprint(io.out, adminUsage)
		return err
	case len(args) > 0 && args[0] == "members":
		return members(ctx, args[1:], io)
	case len(args) > 0 && args[0] == "drain":
		return drain(ctx, args[1:], io)
	case len(args) > 1 && args[0] == "epoch" && args[1] == "raise":
		return raiseEpoch(ctx, args[2:], io)
	}
	return fmt.Errorf("there is no %q: members, drain NAME and epoch raise there are (chatd admin -h tells more)", strings.Join(args, " "))
}

// asking parses the settings of a command that asks a process.
func asking(about string, args []string, io stdio) (c *config.Config, at string, err error) {
	c, err = parse("admin", about, args, io.out, func(fs *flag.FlagSet) {
		fs.StringVar(&at, "at", "", "peer address of the process to ask; else -peer-advertise or -peer-addr")
	})
	return c, at, err
}

func members(ctx context.Context, args []string, io stdio) error {
	c, at, err := asking(`chatd admin members: list the cluster's processes, as one of them sees them: the one on this machine, or -at another's
peer address.`, args, io)
	if err != nil {
		return err
	}
	return app.Members(ctx, c, at, io.out)
}

func drain(ctx context.Context, args []string, io stdio) error {
	which := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		which, args = args[0], args[1:]
	}
	c, at, err := asking(`chatd admin drain NAME: have a process go, as SIGTERM does: it takes nobody new, sends its clients elsewhere, hands over what
it does for the cluster, and ends. NAME is its name, id or peer address (chatd admin members lists them). Returns when it is gone;
if that is given up, it goes all the same. Whatever keeps the process running may start it again.`, args, io)
	if err != nil {
		return err
	}
	if which == "" {
		return errors.New("drain: say which process: its name, id or peer address (chatd admin members lists them)")
	}
	return app.Drain(ctx, c, at, which, io.out)
}

func raiseEpoch(ctx context.Context, args []string, io stdio) error {
	sure := false
	c, err := parse("migrate", `chatd admin epoch raise: take the log as it is for the one that is known, after a halt. Without -yes it only tells what
was lost. Stop all processes of the cluster before.`, args, io.out, func(fs *flag.FlagSet) {
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
