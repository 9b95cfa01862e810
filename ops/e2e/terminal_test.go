package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
)

// terminal is a program in a terminal of its own.
type terminal struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	tty  *os.File

	mu   sync.Mutex
	text string
	more chan struct{}
	read int // how much of text was expected already
	done chan struct{}
}

// run starts a command line of README with env added.
func run(t *testing.T, name, bin, line string, env []string) *terminal {
	t.Helper()
	args := strings.Fields(strings.TrimPrefix(line, "go run ./ops/chatd"))
	cmd := exec.Command(bin, args...) //nolint:noctx // ended by the test, with the signals that a person would send
	cmd.Env = append(os.Environ(), env...)
	tty, err := pty.Start(cmd)
	must(t, err)
	x := &terminal{t: t, name: name, cmd: cmd, tty: tty, more: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(x.done)
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b)
			x.mu.Lock()
			x.text += strings.ReplaceAll(string(b[:n]), "\r", "")
			x.mu.Unlock()
			select {
			case x.more <- struct{}{}:
			default:
			}
			if err != nil {
				_ = cmd.Wait() // how it ended is asked of ProcessState
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-x.done
		_ = tty.Close()
	})
	return x
}

// expect waits for text that comes after what was expected before.
func (x *terminal) expect(want string) {
	x.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		x.mu.Lock()
		i := strings.Index(x.text[x.read:], want)
		if i >= 0 {
			x.read += i + len(want)
		}
		text := x.text
		x.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-x.more:
		case <-late.C:
			x.t.Fatalf("%s: no %q in\n%s", x.name, want, text)
		}
	}
}

func (x *terminal) enter(line string) {
	x.t.Helper()
	_, err := x.tty.WriteString(line + "\n")
	must(x.t, err)
}

// ends waits for the end of the program.
func (x *terminal) ends(code int) {
	x.t.Helper()
	select {
	case <-x.done:
	case <-time.After(patience):
		x.t.Fatalf("%s does not end", x.name)
	}
	if got := x.cmd.ProcessState.ExitCode(); got != code {
		x.t.Errorf("%s ended with %d, want %d:\n%s", x.name, got, code, x.text)
	}
}

// readme gives the commands of README's first steps.
func readme(t *testing.T) (dev, chat string) {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	must(t, err)
	found := regexp.MustCompile(`(?m)^    (go run ./ops/chatd .*)$`).FindAllStringSubmatch(string(b), -1)
	if len(found) < 2 {
		t.Fatalf("README has %d commands to begin with", len(found))
	}
	return found[0][1], found[1][1]
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	return addr
}

// R39, R1, R4, R5, R8, R19: README's two commands, as a person would use them, and again after the server was killed.
func TestR39_TheTwoCommandsOfReadme(t *testing.T) {
	dir := t.TempDir()
	bin, err := clustertest.Build(t.Context(), dir)
	must(t, err)
	dev, chat := readme(t)
	addr := freePort(t)
	env := []string{"FUTURE_ADDR=" + addr, "FUTURE_ADMIN_ADDR=127.0.0.1:0", "FUTURE_DATA=" + filepath.Join(dir, "data")}

	server := run(t, "dev", bin, dev, env)
	server.expect("clients  " + addr)
	server.expect("chat -user alice")

	alice := run(t, "alice", bin, chat, env)
	register(alice, "alice")
	bob := run(t, "bob", bin, strings.ReplaceAll(chat, "alice", "bob"), env)
	register(bob, "bob")

	alice.enter("/add bob hello, it is me")
	alice.expect("asked bob to be friends")
	bob.expect("hello, it is me")
	bob.enter("/accept alice")
	bob.expect("you and alice are friends")
	alice.expect("bob")
	alice.enter("/friends")
	alice.expect("online")
	alice.enter("/to bob")
	alice.expect("you write to bob")
	alice.enter("100% sure: \"quotes\" and 🎉")
	bob.expect("100% sure: \"quotes\" and 🎉")
	bob.enter("/quit")
	bob.ends(0)
	alice.enter("are you there?")
	alice.enter("well, later then")
	alice.enter("/history 3")
	alice.expect("well, later then")
	alice.enter("/quit")
	alice.ends(0)

	// Nothing of it is lost with the server, however that ends.
	must(t, server.cmd.Process.Signal(syscall.SIGKILL))
	<-server.done
	server = run(t, "dev again", bin, dev, env)
	server.expect("clients  " + addr)
	bob = run(t, "bob again", bin, strings.ReplaceAll(chat, "alice", "bob"), env)
	bob.expect("2 unread")
	bob.enter("/to alice")
	bob.expect("you write to alice")
	bob.enter("/history 10")
	bob.expect("100% sure")
	bob.expect("are you there?")
	bob.expect("well, later then")

	must(t, server.cmd.Process.Signal(os.Interrupt))
	server.ends(0)
	_, err = bob.tty.WriteString("\x04") // Ctrl-D
	must(t, err)
	bob.ends(0)
}

func register(x *terminal, name string) {
	x.t.Helper()
	x.expect(name + "'s password: ")
	x.enter(password)
	x.expect("[y/N]")
	x.enter("y")
	x.expect("again: ")
	x.enter(password)
	x.expect("e-mail")
	x.enter("")
	x.expect("welcome " + name)
}

// A second dev on the same folder is told why it cannot start.
func TestR39_ASecondDevOnTheSameFolderIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bin, err := clustertest.Build(t.Context(), dir)
	must(t, err)
	env := []string{"FUTURE_ADDR=127.0.0.1:0", "FUTURE_ADMIN_ADDR=127.0.0.1:0", "FUTURE_DATA=" + filepath.Join(dir, "data")}
	first := run(t, "first", bin, "dev", env)
	first.expect("ready")
	second := run(t, "second", bin, "dev", env)
	second.expect("another chatd dev runs on")
	second.ends(1)
}

// What dev acknowledged is there after SIGKILL, at whatever moment that comes.
func TestR36_DevKilledWhileSending_KeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bin, err := clustertest.Build(t.Context(), dir)
	must(t, err)
	addr := freePort(t)
	env := []string{"FUTURE_ADDR=" + addr, "FUTURE_ADMIN_ADDR=127.0.0.1:0", "FUTURE_DATA=" + filepath.Join(dir, "data")}
	server := run(t, "dev", bin, "dev", env)
	server.expect("ready")
	alice, bob := newPerson(t, "alice", addr), newPerson(t, "bob", addr)
	conversation := befriend(t, alice, bob)

	acked, sent := map[string]bool{}, 0
	for round := range 2 {
		ctx, cancel := context.WithCancel(ctxFor(t))
		killed := make(chan struct{})
		for i := range 400 {
			text := fmt.Sprintf("round-%d-message-%d", round, i)
			if i == 300 {
				go func() {
					defer close(killed)
					_ = server.cmd.Process.Kill() // its end is awaited below
				}()
			}
			p, err := alice.SendAsync(conversation, text)
			must(t, err)
			sent++
			if i < 300 {
				r, err := p.Wait(ctx)
				must(t, err)
				acked[r.ID] = true
			}
		}
		<-killed
		<-server.done
		cancel()
		server = run(t, "dev again", bin, "dev", env)
		server.expect("ready")
		// What was not acknowledged is sent again by the SDK, and comes once.
		must(t, alice.Drain(ctxFor(t)))
	}
	for _, p := range []*person{alice, bob} {
		p.awaitCount(conversation, sent+2)
	}
	wantSame(t, conversation, alice, bob)
	have := map[string]bool{}
	for m, err := range bob.History(ctxFor(t), conversation, future.HistoryOptions{}) {
		must(t, err)
		have[m.ID] = true
	}
	for id := range acked {
		if !have[id] {
			t.Errorf("acknowledged message %s is not in the history", id)
		}
	}
}
