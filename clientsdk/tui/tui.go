// Package tui is the terminal client: a line-mode chat over the SDK. Run is all of it; `chatd chat` is its main. It works
// on a pipe as on a terminal. Nothing that others write reaches the terminal unchecked: see visible.
package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	future "github.com/futurechat/future/clientsdk"
)

// Options says where and for whom to chat.
type Options struct {
	// Addrs are nodes, "host:port".
	Addrs []string
	// User is the account; empty: it is asked for.
	User string
	// Dir keeps a folder for each account: the session, so that the password is asked for once, and what was not sent.
	// Empty: nothing is kept.
	Dir string
	// AllowClearText lets the password cross a network unencrypted.
	AllowClearText bool

	In  io.Reader
	Out io.Writer
	// ReadPassword reads a line without echo from the terminal that In is; nil: passwords are lines of In.
	ReadPassword func() (string, error)

	// Logger gets what the SDK logs; nil: nobody.
	Logger *slog.Logger
	// Client adds to how the SDK works (TLS, a dialer).
	Client []future.Option
}

// terminal is one run.
type terminal struct {
	opts   Options
	in     *input
	client *future.Client
	name   string
	// gone: the output takes no more.
	gone error

	friends map[string]future.Friend // by conversation
	current string                   // conversation, or empty
	day     string                   // of the last message shown
	mine    map[string]bool          // ids sent from here, which the person has seen by typing them
	offline bool
	unread  map[string]int
	shown   map[string]uint64 // up to where a conversation was shown and not yet marked as read
	told    map[string]uint64 // up to where a conversation was shown, announced or counted as unread
}

// errQuit ends the program in order.
var errQuit = errors.New("quit")

// Run chats until the input ends, /quit, or the end of ctx, which are all no error.
func Run(ctx context.Context, opts Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := &terminal{
		opts: opts, in: newInput(opts.In), friends: map[string]future.Friend{}, mine: map[string]bool{},
		unread: map[string]int{}, shown: map[string]uint64{}, told: map[string]uint64{},
	}
	defer t.in.close()
	err := t.run(ctx)
	switch {
	case t.gone != nil:
		return nil // nobody is there to be told
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, errQuit), ctx.Err() != nil:
		t.say("bye")
		return nil
	}
	return errors.New(explain(err))
}

func (t *terminal) run(ctx context.Context) (err error) {
	if t.name, err = t.askName(ctx, t.opts.User); err != nil {
		return err
	}
	if err := t.dial(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.hangUp(ctx)) }()
	if s, ok := t.client.Session(); ok && s.User.Name == t.name {
		t.say("hello again %s", visible(t.name))
	} else if err := t.login(ctx); err != nil {
		return err
	}
	t.welcome(ctx)
	return t.chat(ctx)
}

func (t *terminal) dial(ctx context.Context) error {
	opts := []future.Option{future.WithClientName("future-tui/1")}
	if t.opts.Dir != "" {
		opts = append(opts, future.WithDir(filepath.Join(t.opts.Dir, folderName(t.name))))
	}
	if t.opts.AllowClearText {
		opts = append(opts, future.WithInsecurePasswords())
	}
	if t.opts.Logger != nil {
		opts = append(opts, future.WithLogger(t.opts.Logger))
	}
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := future.Dial(asked, t.opts.Addrs, append(opts, t.opts.Client...)...)
	switch {
	case errors.Is(err, future.ErrLocked):
		return fmt.Errorf("%s is in use by another chat on this machine: end that one first", visible(t.name))
	case errors.Is(err, future.ErrUnreachable):
		return fmt.Errorf("nobody answers at %s: is the server started (chatd dev), and the address right?", strings.Join(t.opts.Addrs, ", "))
	case err != nil:
		return err
	}
	t.client = c
	return nil
}

// hangUp lets messages that were typed last go out, for a moment.
func (t *terminal) hangUp(ctx context.Context) error {
	if n := t.client.Stats().Outbox; n > 0 && t.gone == nil && ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		_ = t.client.Drain(wait) // what is left is told below
	}
	t.markRead(context.WithoutCancel(ctx), time.Second)
	if n := t.client.Stats().Outbox; n > 0 && t.opts.Dir != "" {
		t.say("%d message(s) could not be sent yet; they go out when you come back", n)
	} else if n > 0 {
		t.say("%d message(s) could not be sent and are lost", n)
	}
	return t.client.Close()
}

// chat is the loop: one line or event at a time.
func (t *terminal) chat(ctx context.Context) error {
	asking := false
	var marks <-chan time.Time
	for t.gone == nil {
		ask := t.in.ask
		if asking {
			ask = nil
		}
		if marks == nil && len(t.shown) > 0 {
			marks = time.After(200 * time.Millisecond) // one request for many messages
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case ask <- struct{}{}:
			asking = true
		case l := <-t.in.lines:
			asking = false
			if err := t.typed(ctx, l); err != nil {
				return err
			}
		case e, ok := <-t.client.Events():
			if !ok {
				return future.ErrClosed
			}
			if l, logIn := e.(future.StateChange); logIn && l.State == future.LoggedOut && l.Err != nil && asking {
				// The terminal is being read for a line: it must be had before a password can be asked for.
				t.say("your session has ended: press Enter to log in again")
				select {
				case <-t.in.lines:
					asking = false
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			if err := t.event(ctx, e); err != nil {
				return err
			}
		case <-marks:
			marks = nil
			t.markRead(ctx, patience)
		}
	}
	return t.gone
}

func (t *terminal) typed(ctx context.Context, l line) error {
	switch {
	case errors.Is(l.err, errLong):
		t.say("%v", l.err)
		return nil
	case l.err != nil:
		// The input has ended, or the terminal is gone: reading on would spin.
		return io.EOF
	}
	return t.command(ctx, l.text)
}

func (t *terminal) event(ctx context.Context, e future.Event) error {
	switch e := e.(type) {
	case future.Message:
		t.message(ctx, e)
	case future.StateChange:
		return t.state(ctx, e)
	case future.Presence:
		t.presence(e)
	case future.SendFailed:
		t.say("NOT DELIVERED to %s: %s (%s)", t.nameOf(e.Conversation), visibleLines(e.Text), explain(e.Err))
	}
	return nil
}

func (t *terminal) state(ctx context.Context, s future.StateChange) error {
	switch s.State {
	case future.Offline:
		t.offline = true
		t.say("connection lost; trying to get it back (what you type is sent then)")
	case future.Online:
		if t.offline {
			t.say("connected again")
		}
		if s.Degraded {
			t.say("a part of the server is away: messages may come late")
		}
		t.offline = false
	case future.Away:
		return s.Err
	case future.LoggedOut:
		if s.Err != nil {
			return t.login(ctx)
		}
	}
	return nil
}

func (t *terminal) presence(p future.Presence) {
	for c, f := range t.friends {
		if f.User.ID == p.UserID && f.Online != p.Online {
			f.Online = p.Online
			t.friends[c] = f
			if f.State == future.IsFriend {
				t.say("%s is %s", visible(f.User.Name), online(p.Online))
			}
		}
	}
}

func online(is bool) string {
	if is {
		return "online"
	}
	return "offline"
}

// markRead tells the server what was shown.
func (t *terminal) markRead(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for c, seq := range t.shown {
		delete(t.shown, c)
		if t.offline {
			continue // it is told with the next message, or on return
		}
		if err := t.client.MarkRead(ctx, c, seq); err != nil && t.opts.Logger != nil {
			t.opts.Logger.Warn("marking as read", "err", err)
		}
	}
}

// say prints a line about the program itself.
func (t *terminal) say(format string, args ...any) {
	t.print("* " + fmt.Sprintf(format, args...) + "\n")
}

func (t *terminal) print(s string) {
	if t.gone == nil {
		_, t.gone = io.WriteString(t.opts.Out, s)
	}
}
