package future_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/clientsdk/internal/fakenode"
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

// waitFor waits until f holds.
func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !f() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for: %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// dial connects to n; the client is closed with the test.
func dial(t testing.TB, n *fakenode.Node, opts ...future.Option) *future.Client {
	t.Helper()
	c, err := future.Dial(t.Context(), []string{n.Addr()}, append([]future.Option{future.WithBackoff(time.Millisecond, 20*time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// alice is a client that is logged in.
func alice(t testing.TB, n *fakenode.Node, opts ...future.Option) *future.Client {
	t.Helper()
	c := dial(t, n, opts...)
	if _, ok := c.Session(); !ok {
		if _, err := c.Login(t.Context(), "alice", "password"); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// synced waits until the client has its first heads, so that what comes after is new to it.
func synced(t testing.TB, n *fakenode.Node, c *future.Client) {
	t.Helper()
	// The node carries out requests in order, so the answer to this one comes after that to Sync.
	if _, err := c.FindUser(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
}

// messages reads n messages.
func messages(t testing.TB, c *future.Client, n int) (out []future.Message) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for len(out) < n {
		select {
		case e, ok := <-c.Events():
			if !ok {
				t.Fatalf("the channel ended after %d of %d messages", len(out), n)
			}
			if m, ok := e.(future.Message); ok {
				out = append(out, m)
			}
		case <-deadline:
			t.Fatalf("got %d of %d messages; %+v", len(out), n, c.Stats())
		}
	}
	return out
}

// changed reads until the state is s.
func changed(t testing.TB, c *future.Client, s future.State) future.StateChange {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e := <-c.Events():
			if got, ok := e.(future.StateChange); ok && got.State == s {
				return got
			}
		case <-deadline:
			t.Fatalf("never %v; %+v", s, c.Stats())
		}
	}
}
