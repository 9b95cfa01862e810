package clustertest

import (
	"context"
	"io"
	"net"
	"sync"
)

// Relay stands between the processes and a server.
type Relay struct {
	// Addr is where the processes find it.
	Addr string

	to       string
	dial     func() (net.Conn, error)
	listener net.Listener
	wait     sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

// newRelay listens on addr and passes everything on to the server at to.
func newRelay(ctx context.Context, addr, to string) (*Relay, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return relayOn(l, to, func() (net.Conn, error) {
		return net.Dial("tcp", to) //nolint:noctx // on loopback it answers at once
	}), nil
}

// To is the server's own address, past the relay.
func (r *Relay) To() string { return r.to }

func relayOn(l net.Listener, to string, dial func() (net.Conn, error)) *Relay {
	r := &Relay{Addr: l.Addr().String(), dial: dial, to: to, listener: l, conns: map[net.Conn]bool{}}
	r.wait.Go(r.accept)
	return r
}

func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.wait.Go(func() { r.serve(client) })
	}
}

func (r *Relay) serve(client net.Conn) {
	server, err := r.dial()
	if err != nil {
		_ = client.Close() // as a server that is away
		return
	}
	if !r.keep(client, server) {
		_, _ = client.Close(), server.Close()
		return
	}
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // it ends as the connection does
		_, _ = to.Close(), from.Close()
	}
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	both.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, client)
	delete(r.conns, server)
}

func (r *Relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return false
	}
	for _, c := range conns {
		r.conns[c] = true
	}
	return true
}

// Cut breaks all connections and refuses new ones until Heal.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.conns {
		_ = c.Close() // broken, as was asked for
	}
}

// Heal lets connections through again.
func (r *Relay) Heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

func (r *Relay) close() {
	r.Cut()
	_ = r.listener.Close() // nobody comes any more
	r.wait.Wait()
}
