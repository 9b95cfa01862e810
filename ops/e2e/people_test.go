package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "modernc.org/sqlite"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
)

// patience bounds every wait for something that must happen.
const patience = 90 * time.Second

func startCluster(t *testing.T, o clustertest.Options) *clustertest.Cluster {
	t.Helper()
	o.Dir, o.Log = t.TempDir(), t.Logf
	c, err := clustertest.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := c.Stop(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for _, p := range append(append(c.Nodes, c.Routers...), c.Histories...) {
				t.Logf("--- %s\n%s", p.Name, clustertest.Tail(p.LogFile))
			}
		}
	})
	return c
}

// person is an account on one device, and all messages that it was shown.
type person struct {
	t    *testing.T
	name string
	*future.Client
	session future.Session

	mu     sync.Mutex
	shown  []future.Message
	failed []future.SendFailed
	states []future.StateChange
	more   chan struct{}
	done   chan struct{}
}

const password = "correct horse battery"

// newPerson registers name at one of some nodes.
func newPerson(t *testing.T, name string, addrs ...string) *person {
	t.Helper()
	p := dialWith(t, name, directly, addrs...)
	p.register()
	return p
}

func (p *person) register() {
	p.t.Helper()
	s, err := p.Register(ctxFor(p.t), p.name, password)
	if err != nil {
		p.t.Fatalf("%s registers: %v", p.name, err)
	}
	p.session = s
}

var directly dialer = (&net.Dialer{}).DialContext

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func dialWith(t *testing.T, name string, d dialer, addrs ...string) *person {
	t.Helper()
	c, err := future.Dial(ctxFor(t), addrs, future.WithBackoff(20*time.Millisecond, time.Second),
		future.WithDialer(d), future.WithInsecurePasswords()) // to a Host, too
	if err != nil {
		t.Fatalf("%s dials: %v", name, err)
	}
	p := &person{t: t, name: name, Client: c, more: make(chan struct{}, 1), done: make(chan struct{})}
	go p.watch()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		<-p.done
	})
	return p
}

func (p *person) watch() {
	defer close(p.done)
	for e := range p.Events() {
		p.mu.Lock()
		switch e := e.(type) {
		case future.Message:
			p.shown = append(p.shown, e)
		case future.SendFailed:
			p.failed = append(p.failed, e)
		case future.StateChange:
			p.states = append(p.states, e)
		}
		p.mu.Unlock()
		select {
		case p.more <- struct{}{}:
		default:
		}
	}
}

// messages are those shown in a conversation.
func (p *person) messages(conversation string) []future.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []future.Message
	for _, m := range p.shown {
		if m.Conversation == conversation {
			out = append(out, m)
		}
	}
	return out
}

// await waits until the messages of a conversation are as wanted.
func (p *person) await(conversation, what string, enough func([]future.Message) bool) []future.Message {
	p.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		got := p.messages(conversation)
		if enough(got) {
			return got
		}
		select {
		case <-p.more:
		case <-late.C:
			p.t.Fatalf("%s still waits for %s, and has %d messages: %s", p.name, what, len(got), texts(got))
		}
	}
}

func (p *person) awaitCount(conversation string, n int) []future.Message {
	p.t.Helper()
	return p.await(conversation, fmt.Sprintf("%d messages", n), func(m []future.Message) bool { return len(m) >= n })
}

func texts(all []future.Message) string {
	var b strings.Builder
	for i, m := range all {
		if i == 5 && len(all) > 10 {
			b.WriteString("… ")
		}
		if i < 5 || i >= len(all)-5 || len(all) <= 10 {
			fmt.Fprintf(&b, "%d:%q ", m.Seq, m.Text)
		}
	}
	return b.String()
}

func ctxFor(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// befriend makes two people friends and returns their conversation.
func befriend(t *testing.T, a, b *person) string {
	t.Helper()
	must(t, a.AddFriend(ctxFor(t), b.name, "hello, it is me"))
	must(t, b.AnswerFriend(ctxFor(t), a.name, true))
	friends, err := a.Friends(ctxFor(t))
	must(t, err)
	for _, f := range friends {
		if f.User.Name == b.name && f.State == future.IsFriend {
			return f.Conversation
		}
	}
	t.Fatalf("%s has no friend %s: %+v", a.name, b.name, friends)
	return ""
}

// eventually waits for a condition that no event tells of.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(patience)
	defer late.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("still waits for %s", what)
		}
	}
}

// database is the tests' own view of the cluster's database.
func database(t *testing.T, c *clustertest.Cluster) *sql.DB {
	t.Helper()
	driver, dsn := "mysql", c.Database
	if file, ok := strings.CutPrefix(dsn, "sqlite:"); ok {
		driver, dsn = "sqlite", "file:"+file+"?_pragma=busy_timeout(10000)"
	}
	db, err := sql.Open(driver, dsn)
	must(t, err)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// count runs a query for one number.
func count(t *testing.T, db *sql.DB, query string, args ...any) int {
	t.Helper()
	var n int
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// wantSame checks that two people were shown exactly the same messages, each once and in the order of seq, and that each sender's
// texts come in the order in which they were sent.
func wantSame(t *testing.T, conversation string, people ...*person) {
	t.Helper()
	first := people[0].messages(conversation)
	for _, p := range people {
		got := p.messages(conversation)
		if len(got) != len(first) {
			t.Errorf("%s was shown %d messages, %s %d", p.name, len(got), people[0].name, len(first))
		}
		seen, last, numbers := map[string]bool{}, uint64(0), map[string]int{}
		for i, m := range got {
			id := m.Sender.ID + "/" + m.ID
			if seen[id] {
				t.Errorf("%s was shown %s twice", p.name, id)
			}
			seen[id] = true
			if m.Seq <= last {
				t.Errorf("%s was shown seq %d after %d", p.name, m.Seq, last)
			}
			last = m.Seq
			if i < len(first) && (first[i].ID != m.ID || first[i].Seq != m.Seq || first[i].Text != m.Text) {
				t.Fatalf("message %d: %s has %d %q, %s has %d %q", i, p.name, m.Seq, m.Text, people[0].name, first[i].Seq, first[i].Text)
			}
			var who string
			var n int
			if _, err := fmt.Sscanf(m.Text, "%s %d", &who, &n); err == nil {
				if n != numbers[who]+1 {
					t.Errorf("%s was shown %q after number %d", p.name, m.Text, numbers[who])
				}
				numbers[who] = n
			}
		}
	}
}
