package redispresence

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// What a new connection asks first may be answered too late. Then the connection is given up: on it each command would get the
// answer to the one before.
func TestConnection_AnAnswerThatComesLateIsNobodyElses(t *testing.T) {
	m := miniredis.RunT(t)
	var late atomic.Bool
	late.Store(true)
	addr := delayInfo(t, m.Addr(), &late)
	const timeout = 100 * time.Millisecond
	s := open(t, Options{Addrs: []string{addr}, Timeout: timeout, PoolSize: 1})
	direct := open(t, Options{Addrs: []string{m.Addr()}})
	want, err := direct.Epoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if held, err := s.Acquire(t.Context(), "x", "somebody", "value", time.Minute); err == nil {
		t.Errorf("answered %t over a connection that was never made", held)
	}
	late.Store(false)
	for range 3 {
		if got, err := s.Epoch(t.Context()); err != nil || got != want {
			t.Errorf("epoch %q, %v, want %q", got, err, want)
		}
		if held, err := s.Acquire(t.Context(), "x", "me", "value", time.Minute); err != nil || !held {
			t.Errorf("lease %t, %v", held, err)
		}
	}
}

// delayInfo passes on what comes to the address it gives, but while late holds answers back once INFO was asked for.
func delayInfo(t *testing.T, to string, late *atomic.Bool) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		wait.Wait()
	})
	wait.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := (&net.Dialer{}).DialContext(context.WithoutCancel(t.Context()), "tcp", to)
			if err != nil {
				_ = client.Close()
				return
			}
			var asked atomic.Bool
			pass := func(from, to net.Conn, look func([]byte)) {
				defer func() { _, _ = from.Close(), to.Close() }()
				b := make([]byte, 64<<10)
				for {
					n, err := from.Read(b)
					if err != nil {
						return
					}
					look(b[:n])
					if _, err := to.Write(b[:n]); err != nil {
						return
					}
				}
			}
			wait.Go(func() {
				pass(client, server, func(b []byte) {
					if bytes.Contains(b, []byte("\r\ninfo\r\n")) {
						asked.Store(late.Load())
					}
				})
			})
			wait.Go(func() {
				pass(server, client, func([]byte) {
					if asked.Load() {
						time.Sleep(150 * time.Millisecond) // the fault itself: longer than the client waits for one answer, shorter than for two
					}
				})
			})
		}
	})
	return l.Addr().String()
}
