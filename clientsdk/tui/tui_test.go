package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/clientsdk/internal/fakenode"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

func TestMain(m *testing.M) {
	if code := m.Run(); code != 0 {
		os.Exit(code)
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// screen is a terminal's output.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
	gone bool
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return 0, io.ErrClosedPipe
	}
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// person is a run of the client, typed at by a test.
type person struct {
	t      *testing.T
	screen *screen
	keys   *io.PipeWriter
	ended  chan error
	cancel context.CancelFunc
}

func sitDown(t *testing.T, n *fakenode.Node, change func(*Options)) *person {
	in, keys := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	p := &person{t: t, screen: &screen{}, keys: keys, ended: make(chan error, 1), cancel: cancel}
	opts := Options{
		Addrs: []string{n.Addr()}, User: "alice", In: in, Out: p.screen,
		Client: []future.Option{future.WithBackoff(time.Millisecond, 10*time.Millisecond)},
	}
	if change != nil {
		change(&opts)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ended <- Run(ctx, opts)
	}()
	t.Cleanup(func() {
		_ = keys.Close()
		cancel()
		<-done
	})
	return p
}

func (p *person) types(lines ...string) {
	p.t.Helper()
	for _, l := range lines {
		if _, err := io.WriteString(p.keys, l+"\n"); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *person) sees(text string) {
	p.t.Helper()
	deadline := time.After(15 * time.Second)
	for !strings.Contains(p.screen.String(), text) {
		select {
		case <-deadline:
			p.t.Fatalf("%q is not to be seen:\n%s", text, p.screen)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (p *person) leaves() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(15 * time.Second):
		p.t.Fatalf("does not end:\n%s", p.screen)
		return nil
	}
}

func TestLogin_ThenChat(t *testing.T) {
	n := fakenode.Start(t)
	p := sitDown(t, n, nil)
	p.types("password")
	p.sees("hello alice")
	p.sees("you write to bob, who is online")
	p.types("hi bob", "//slash")
	n.Say("hi alice")
	p.sees("bob: hi alice")
	p.types("/who", "/quit")
	p.sees("you are alice, online at " + n.Addr())
	if err := p.leaves(); err != nil {
		t.Fatal(err)
	}
	n.Lock()
	defer n.Unlock()
	var sent []string
	for _, m := range n.Logs["d:1:2"] {
		if m.Sender.Name == "alice" {
			sent = append(sent, m.Payload.GetText().GetText())
		}
	}
	if fmt.Sprint(sent) != "[hi bob /slash]" {
		t.Fatal(sent)
	}
	if strings.Contains(p.screen.String(), "alice: hi bob") {
		t.Error("what was typed here is shown again")
	}
}

func TestRegister_WhenNobodyHasTheName(t *testing.T) {
	n := fakenode.Start(t)
	p := sitDown(t, n, func(o *Options) { o.User = "" })
	p.sees("your name: ")
	p.types(" x", "0614897828", "longenough")
	p.sees("Register 0614897828 as a new account? [y/N]")
	p.types("y", "longenough", "me@example.test")
	p.sees("welcome 0614897828")
	p.types("/quit")
	if err := p.leaves(); err != nil {
		t.Fatal(err)
	}
	r := n.Seen(func(e *pb.Envelope) bool { return e.GetRegister() != nil })
	if len(r) != 1 || r[0].GetRegister().GetEmail() != "me@example.test" {
		t.Fatal(r)
	}
}

func TestLogin_WrongPasswordMayBeTriedAgain(t *testing.T) {
	n := fakenode.Start(t)
	p := sitDown(t, n, nil)
	p.types("short", "wrong password", "n", "wrong password", "y", "wrong password", "", "password")
	p.sees("there is an account of that name, so the password was wrong")
	p.sees("hello alice")
}

func TestLogin_HiddenPasswordAndFolder(t *testing.T) {
	n := fakenode.Start(t)
	dir := t.TempDir()
	p := sitDown(t, n, func(o *Options) {
		o.Dir = dir
		o.ReadPassword = func() (string, error) { return "password", nil }
	})
	p.sees("hello alice")
	p.types("/quit")
	if err := p.leaves(); err != nil {
		t.Fatal(err)
	}
	p = sitDown(t, n, func(o *Options) { o.Dir = dir })
	p.sees("hello again alice")
	second := sitDown(t, n, func(o *Options) { o.Dir = dir })
	if err := second.leaves(); err == nil || !strings.Contains(err.Error(), "in use by another chat") {
		t.Fatal(err)
	}
}

func TestConnection_LostAndBackAreTold(t *testing.T) {
	n := fakenode.Start(t)
	p := sitDown(t, n, nil)
	p.types("password")
	p.sees("you write to bob")
	n.Kill()
	p.sees("connection lost")
	p.sees("connected again")
	n.Say("still here")
	p.sees("bob: still here")
}

func TestReturn_WhatWasMissedIsShownOnce(t *testing.T) {
	n := fakenode.Start(t)
	dir := t.TempDir()
	p := sitDown(t, n, func(o *Options) { o.Dir = dir })
	p.types("password")
	n.Say("before")
	p.sees("bob: before")
	p.types("/quit")
	if err := p.leaves(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 { // as many as the node says are unread
		n.Say(fmt.Sprintf("missed %d.", i))
	}
	p = sitDown(t, n, func(o *Options) { o.Dir = dir })
	p.sees("hello again alice")
	n.Say("now")
	p.sees("bob: now")
	for i := range 3 {
		if got := strings.Count(p.screen.String(), fmt.Sprintf("missed %d.", i)); got != 1 {
			t.Errorf("shown %d times:\n%s", got, p.screen)
		}
	}
}

func TestFailure_IsTold(t *testing.T) {
	n := fakenode.Start(t)
	n.On = func(s *fakenode.Session, e *pb.Envelope) bool {
		if e.GetSend() != nil {
			s.Fail(e, wire.ErrNotFriends)
		}
		return e.GetSend() != nil
	}
	p := sitDown(t, n, nil)
	p.types("password", "hello")
	p.sees("NOT DELIVERED to bob: hello (you are not friends")
}

func TestOtherChat_SaysWhoWrote(t *testing.T) {
	n := fakenode.Start(t)
	p := sitDown(t, n, nil)
	p.types("password")
	p.sees("you write to bob")
	n.Set(func() {
		n.Append("d:1:9", &pb.User{Id: "9", Name: "eve\x1b[2J"}, wire.NewMessageID(), &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: "psst"}}})
	})
	p.sees("eve<U+001B>[2J wrote to you (1 unread)")
	if strings.Contains(p.screen.String(), "psst") {
		t.Error("another chat's text was shown")
	}
}

func TestHistoryAndRead(t *testing.T) {
	n := fakenode.Start(t)
	for i := range 30 {
		n.Say(fmt.Sprintf("old %d.", i))
	}
	p := sitDown(t, n, nil)
	p.types("password")
	p.sees("old 29.")
	p.sees("3 unread from bob")
	waitFor := time.After(10 * time.Second)
	for read := uint64(0); read != 160; {
		n.Set(func() { read = n.Reads["d:1:2"] })
		select {
		case <-waitFor:
			t.Fatalf("read up to %d", read)
		case <-time.After(2 * time.Millisecond):
		}
	}
	p.types("/history x", "/history 25", "/histry")
	p.sees("usage: /history [N]")
	p.sees("old 5.")
	p.sees("did you mean /history?")
}

func TestEnd_InOrder(t *testing.T) {
	for name, end := range map[string]func(p *person){
		"Ctrl-D":        func(p *person) { _ = p.keys.Close() },
		"Ctrl-C":        func(p *person) { p.cancel() },
		"terminal gone": func(p *person) { _ = p.keys.CloseWithError(errors.New("input/output error")) },
		"screen gone": func(p *person) {
			p.screen.mu.Lock()
			p.screen.gone = true
			p.screen.mu.Unlock()
			p.types("/who")
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := sitDown(t, fakenode.Start(t), nil)
			p.types("password")
			p.sees("you write to bob")
			end(p)
			if err := p.leaves(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestNobodyThere_IsClear(t *testing.T) {
	in, keys := io.Pipe()
	defer keys.Close()
	err := Run(t.Context(), Options{Addrs: []string{"127.0.0.1:1"}, User: "alice", In: in, Out: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "nobody answers at 127.0.0.1:1") {
		t.Fatal(err)
	}
}

func TestR23_NothingReachesTheTerminalUnchecked(t *testing.T) {
	for in, want := range map[string]string{
		"plain %s%n":        "plain %s%n",
		"\x1b]0;title\x07x": "<U+001B>]0;title<U+0007>x",
		"a\u202eb":          "a<U+202E>b",
		"a\u2066b":          "a<U+2066>b",
		"a\rb\x08":          "a<U+000D>b<U+0008>",
		"\u009b31m":         "<U+009B>31m",
		"a\xffb":            "a\uFFFDb",
		"مرحبا 👨‍👩‍👧":       "مرحبا 👨‍👩‍👧",
		"zero\u200bwidth":   "zero<U+200B>width",
	} {
		if got := visible(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := visibleLines("hi\n[12:00] bob: forged"); got != "hi\n      | [12:00] bob: forged" {
		t.Errorf("%q", got)
	}
}

func FuzzVisible(f *testing.F) {
	f.Add("a\x1b[31m\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range visible(s) {
			if hidden(r) {
				t.Fatalf("%q lets %U through", s, r)
			}
		}
	})
}

func TestFolderName_NothingOfTheNameCanHurt(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"alice", "Alice", "..", "a/b", `a\b`, "李雷", "CON", strings.Repeat("x", 32)} {
		f := folderName(name)
		if seen[strings.ToLower(f)] || strings.ContainsAny(f, `./\`) || len(f) > 40 {
			t.Errorf("%q: %q", name, f)
		}
		seen[strings.ToLower(f)] = true
	}
}
