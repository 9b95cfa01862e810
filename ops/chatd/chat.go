package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/futurechat/future/clientsdk/tui"
	"github.com/futurechat/future/ops/config"
)

// defaultAddr is where a server is looked for.
var defaultAddr = config.New().Addr

// isGoRun tells a program that `go run` built from one that stays.
func isGoRun(exe string) bool {
	return strings.Contains(exe, string(filepath.Separator)+"go-build")
}

func chat(ctx context.Context, args []string, io stdio) error {
	var user string
	var insecure bool
	c, err := parse("chat", `chatd chat: chat in this terminal. It logs in, or registers an account on the first time. /help tells the commands.`,
		args, io.out, func(fs *flag.FlagSet) {
			fs.StringVar(&user, "user", "", "account's name; asked for if not given")
			fs.BoolVar(&insecure, "insecure", false, "allow the password to go over an unencrypted connection to another machine")
		})
	if err != nil {
		return err
	}
	return tui.Run(ctx, tui.Options{
		Addrs: strings.Split(c.Addr, ","), User: user, Dir: filepath.Join(c.Data, "chat"), AllowClearText: insecure,
		In: io.in, Out: io.out,
		ReadPassword: passwordReader(io.in),
	})
}

// passwordReader reads without echo from a terminal, or a line from anything else (nil: the ordinary input).
func passwordReader(in *os.File) func() (string, error) {
	if !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	return func() (string, error) {
		b, err := term.ReadPassword(int(in.Fd()))
		return string(b), err
	}
}
