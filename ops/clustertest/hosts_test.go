//go:build linux

package clustertest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// A Host reaches the servers on this machine's loopback; cut off, its packets vanish without a word and are counted; healed, the
// same connections go on.
func TestHost_CutAndHealed_PacketsVanishAndAreCounted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("not root: only that this is said is tested")
		if _, err := newLAN(t.Context(), nil); err == nil {
			t.Fatal("no error without root")
		}
		return
	}
	server := echo(t)
	c := &Cluster{}
	var err error
	if c.lan, err = newLAN(t.Context(), []string{server}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.lan.close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	h, err := c.AddHost(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	if err := within(h.name, func() (err error) {
		conn, err = net.Dial("tcp", server) //nolint:noctx // on loopback it answers at once
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	want(t, conn, "before")
	for _, d := range []Direction{In, Out, Both} {
		before, err := h.Dropped(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Cut(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("after!")); err != nil {
			t.Fatalf("direction %d: the connection broke, it should be silent: %v", d, err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("direction %d: read %d bytes, %v, over a link that is cut", d, n, err)
		}
		if dropped, err := h.Dropped(t.Context()); err != nil || dropped <= before {
			t.Errorf("direction %d: %d packets dropped, %d before, %v", d, dropped, before, err)
		}
		if err := h.Heal(t.Context()); err != nil {
			t.Fatal(err)
		}
		read(t, conn, "after!")
	}
}

// echo is a server on loopback that says everything again.
func echo(t *testing.T) string {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn) }()
		}
	}()
	return l.Addr().String()
}

func want(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	read(t, conn, text)
}

func read(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v, want %q", got, err, text)
	}
}
