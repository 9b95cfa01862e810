package e2e

import (
	"bufio"
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/futurechat/future/ops/clustertest"
)

// R31: a server outlives the pipe that its log goes to, and the terminal that it was started from.
func TestR31_LogPipeClosedAndTerminalGone_TheServerLives(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Routers: 1, Histories: 1})
	cmd := c.Command(t.Context(), "node", "-log-level", "debug", "-seeds", c.Routers[0].Gossip)
	out, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	var addr string
	lines := bufio.NewScanner(out)
	for addr == "" && lines.Scan() {
		var said struct{ Msg, Clients string }
		if json.Unmarshal(lines.Bytes(), &said) == nil && said.Msg == "ready" {
			addr = said.Clients
		}
	}
	must(t, out.Close())
	must(t, cmd.Process.Signal(syscall.SIGHUP))

	alice, bob := newPerson(t, "alice", addr), newPerson(t, "bob", addr)
	conversation := befriend(t, alice, bob)
	_, err = alice.Send(ctxFor(t), conversation, "still there?")
	must(t, err)
	got := bob.awaitCount(conversation, 3)
	if got[2].Text != "still there?" {
		t.Errorf("bob was shown %s", texts(got))
	}
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil {
		t.Errorf("told to end: %v", err)
	}
}

// I9: neither passwords, tokens nor texts are in the logs, at any level.
func TestI9_LogsHoldNoSecretsAndNoTexts(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 1, Routers: 1, Histories: 1, Env: []string{"FUTURE_LOG_LEVEL=debug"}})
	alice, bob := newPerson(t, "alice", c.Nodes[0].Addr), newPerson(t, "bob", c.Nodes[0].Addr)
	conversation := befriend(t, alice, bob)
	const text = "between-us-alone"
	_, err := alice.Send(ctxFor(t), conversation, text)
	must(t, err)
	bob.awaitCount(conversation, 3)
	s := newStranger(t, c.Nodes[0].Addr)
	s.hello()
	if got := s.ask(send(conversation, "not-an-id", text)); got.GetError() == nil {
		t.Errorf("a bad request was taken: %v", got)
	}
	for _, p := range []*clustertest.Process{c.Nodes[0], c.Routers[0], c.Histories[0]} {
		must(t, p.Stop(ctxFor(t)))
		p.Kill() // its end was meant
		log, err := p.Log()
		must(t, err)
		for what, secret := range map[string]string{
			"the password": password, "a token": alice.session.Token, "a text": text, "a greeting": "hello, it is me",
		} {
			if strings.Contains(log, secret) {
				t.Errorf("%s's log has %s", p.Name, what)
			}
		}
		if !strings.Contains(log, `"level":"debug"`) {
			t.Errorf("%s logs nothing at level debug: nothing was proven", p.Name)
		}
	}
}
