package tui

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/clientsdk/wire"
)

// loginTries is how many passwords are taken before the program gives up.
const loginTries = 5

// askName asks until a name can be one.
func (t *terminal) askName(ctx context.Context, name string) (string, error) {
	for range loginTries {
		if name == "" {
			t.print("your name: ")
			var err error
			if name, err = t.in.next(ctx); err != nil {
				return "", err
			}
			name = strings.TrimSpace(name)
		}
		err := wire.CheckName(name)
		if err == nil {
			return name, nil
		}
		if t.opts.User != "" {
			return "", fmt.Errorf("the name %q %w", visible(name), err)
		}
		t.say("that name %v", err)
		name = ""
	}
	return "", errors.New("no name was given")
}

func (t *terminal) askPassword(ctx context.Context, prompt string) (string, error) {
	t.print(prompt)
	if t.opts.ReadPassword == nil {
		text, err := t.in.next(ctx)
		t.print("\n")
		return text, err
	}
	// It may wait for a key for ever; nothing but the end of the program would free it, so it is not waited for.
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := t.opts.ReadPassword()
		got <- answer{text, err}
	}()
	select {
	case a := <-got:
		t.print("\n")
		return a.text, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// login opens a session. The server does not tell an unknown name from a wrong password, so the person decides which it was.
func (t *terminal) login(ctx context.Context) error {
	for range loginTries {
		password, err := t.askPassword(ctx, visible(t.name)+"'s password: ")
		if err != nil {
			return err
		}
		if err := wire.CheckPassword(password); err != nil {
			t.say("the password %v", err)
			continue
		}
		asked, cancel := context.WithTimeout(ctx, patience)
		_, err = t.client.Login(asked, t.name, password)
		cancel()
		switch {
		case err == nil:
			t.say("hello %s", visible(t.name))
			return nil
		case errors.Is(err, future.ErrBadCredentials):
		case mayPass(err):
			t.say("%s", explain(err))
			continue
		default:
			return err
		}
		t.print("no such account, or wrong password. Register " + visible(t.name) + " as a new account? [y/N] ")
		yes, err := t.in.next(ctx)
		if err != nil {
			return err
		}
		if y := strings.ToLower(strings.TrimSpace(yes)); y != "y" && y != "yes" {
			continue
		}
		done, err := t.register(ctx, password)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("gave up after %d tries", loginTries)
}

// register makes the account if the same password is typed again; done tells that there is a session.
func (t *terminal) register(ctx context.Context, password string) (done bool, err error) {
	again, err := t.askPassword(ctx, "the same password again: ")
	if err != nil {
		return false, err
	}
	if again != password {
		t.say("the two passwords differ")
		return false, nil
	}
	t.print("e-mail, to recover the account (optional, empty for none): ")
	email, err := t.in.next(ctx)
	if err != nil {
		return false, err
	}
	var opts []future.RegisterOption
	if email = strings.TrimSpace(email); email != "" {
		if err := wire.CheckEmail(email); err != nil {
			t.say("%q %v: registering without", visible(email), err)
		} else {
			opts = append(opts, future.WithEmail(email))
		}
	}
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err = t.client.Register(asked, t.name, password, opts...)
	switch {
	case err == nil:
		t.say("welcome %s: your account is made", visible(t.name))
		return true, nil
	case errors.Is(err, future.ErrNameTaken):
		t.say("there is an account of that name, so the password was wrong")
		return false, nil
	case mayPass(err):
		t.say("%s", explain(err))
		return false, nil
	}
	return false, err
}

// patience is how long a person waits for a command.
const patience = 20 * time.Second

// mayPass: the person can do something, or just try again.
func mayPass(err error) bool {
	for _, target := range []error{
		future.ErrUnavailable, future.ErrRateLimited, future.ErrDisconnected, future.ErrInvalid, future.ErrInternal,
		future.ErrLimit, context.DeadlineExceeded,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// explain says for a person what went wrong.
func explain(err error) string {
	known := []struct {
		err  error
		text string
	}{
		{future.ErrNotFriends, "you are not friends: /add NAME GREETING asks them"},
		{future.ErrNotFound, "there is nobody, or nothing, of that name"},
		{future.ErrAlready, "it is so already"},
		{future.ErrUnavailable, "a part of the server is away: try again in a moment"},
		{future.ErrRateLimited, "too much at once: try again in a moment"},
		{future.ErrDisconnected, "the connection was lost before the answer came: it may or may not have been done"},
		{future.ErrOutboxFull, "too many messages wait to be sent: try again in a moment"},
		{context.DeadlineExceeded, "no answer in time: the server is away or slow"},
		{future.ErrInsecure, "your password would cross the network in clear: use TLS, or allow it with -insecure"},
		{future.ErrReplaced, "you logged in elsewhere with this device: this one stays away"},
		{future.ErrSessionEnded, "your session has ended"},
	}
	for _, k := range known {
		if errors.Is(err, k.err) {
			return k.text
		}
	}
	return visible(err.Error())
}
