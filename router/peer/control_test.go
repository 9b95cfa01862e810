package peer

import (
	"bytes"
	"errors"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/cluster/clustertest"
	"github.com/futurechat/future/router/peer/peerv1"
)

// desk answers operators.
type desk struct{ drains atomic.Int32 }

func (d *desk) Members() []cluster.Member {
	one := clustertest.Of(1)
	one.Generation = 0 // which is nothing for operators
	return []cluster.Member{one}
}

func (d *desk) Drain() int { return 10 - int(d.drains.Add(1)) }

func TestCall_MembersAndDrain(t *testing.T) {
	d := &desk{}
	o := serverOptions(newFakeNode())
	o.Control = d
	s := startServer(t, o)
	c, err := Call(t.Context(), s.Addr(), secret, testCluster)
	if err != nil {
		t.Fatal(err)
	}
	if c.Life() != "server" {
		t.Errorf("it calls itself %q", c.Life())
	}
	if got, err := c.Members(t.Context()); err != nil || !reflect.DeepEqual(got, d.Members()) {
		t.Errorf("members: %+v, %v", got, err)
	}
	// Another life is meant: nobody goes.
	if _, err := c.Drain(t.Context(), "another"); !errors.Is(err, ErrRefused) || d.drains.Load() != 0 {
		t.Errorf("drain of another: %v", err)
	}
	for want := 9; want > 7; want-- {
		if got, err := c.Drain(t.Context(), "server"); err != nil || got != want {
			t.Errorf("drain: %d, %v", got, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCall_WithoutTheSecret_NobodyGoes(t *testing.T) {
	d := &desk{}
	o := serverOptions(newFakeNode())
	o.Control = d
	s := startServer(t, o)
	if _, err := Call(t.Context(), s.Addr(), bytes.Repeat([]byte{8}, 32), testCluster); err == nil {
		t.Error("a stranger was answered")
	}
	if _, err := Call(t.Context(), s.Addr(), secret, "another"); err == nil {
		t.Error("another cluster's operator was answered")
	}
	waitRefused(t, s, refusedHandshake, 2)
	if d.drains.Load() != 0 {
		t.Error("it goes")
	}
}

// A process that takes no questions, or none of a later version's, says so.
func TestAsk_ThatIsNotUnderstood_IsRefused(t *testing.T) {
	s := startServer(t, serverOptions(newFakeNode()))
	c, err := Call(t.Context(), s.Addr(), secret, testCluster)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Members(t.Context()); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	o := serverOptions(newFakeNode())
	o.Control = &desk{}
	s = startServer(t, o)
	if c, err = Call(t.Context(), s.Addr(), secret, testCluster); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ask(t.Context(), &peerv1.Ask{}); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
}

func TestLife_IsWhoAnswers(t *testing.T) {
	n := newFakeNode()
	s := startServer(t, serverOptions(n))
	p := startPool(t, poolOptions())
	if life, err := p.Life(t.Context(), s.Addr()); err != nil || life != "server" {
		t.Errorf("got %q, %v", life, err)
	}
	addr := s.Addr()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if life, err := p.Life(t.Context(), addr); err == nil {
		t.Errorf("nobody is there, and it is %q", life)
	}
}
