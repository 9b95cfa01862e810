package peer

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay passes TCP on, records what it sees, and can go silent without closing anything, as a pulled cable does.
type relay struct {
	addr   string
	frozen chan struct{}
	once   sync.Once

	mu    sync.Mutex
	seen  []byte
	conns []net.Conn
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: l.Addr().String(), frozen: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := new(net.Dialer).DialContext(t.Context(), "tcp", to)
			if err != nil {
				_ = a.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, a, b)
			r.mu.Unlock()
			wg.Go(func() { r.pass(a, b) })
			wg.Go(func() { r.pass(b, a) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		wg.Wait()
	})
	return r
}

func (r *relay) freeze() { r.once.Do(func() { close(r.frozen) }) }

func (r *relay) pass(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-r.frozen:
			_, _ = io.Copy(io.Discard, from) // until the other end gives up; this end must not notice
			return
		default:
		}
		r.mu.Lock()
		r.seen = append(r.seen, buf[:n]...)
		r.mu.Unlock()
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			_ = from.Close()
			_ = to.Close()
			return
		}
	}
}
