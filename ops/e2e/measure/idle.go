package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/consumers/mysqlstore"
	"github.com/futurechat/future/consumers/mysqlstore/mysql"
	"github.com/futurechat/future/consumers/mysqlstore/sqlite"
	"github.com/futurechat/future/ops/clustertest"
	"github.com/futurechat/future/router/chat"
)

// idle measures what a cluster costs in which nothing is said: three nodes that hold sessions which only ping, two routers and a
// history consumer. The processor time is the kernel's, per process, over -length.
func idle(ctx context.Context, s settings) error {
	c, stop, err := s.start(ctx, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1})
	if err != nil {
		return err
	}
	defer stop()
	tokens, err := seed(ctx, c, s.sessions)
	if err != nil {
		return err
	}
	crowd, err := enterAll(ctx, c, tokens)
	defer crowd.leave()
	if err != nil {
		return err
	}
	s.say("%d sessions are live; each pings every 25 s, when the node says so", s.sessions)
	if err := sleep(ctx, 15*time.Second); err != nil { // what begins with a log-in is over
		return err
	}
	for _, p := range everyProcess(c) {
		s.say("  %s: pid %d, admin %s", p.Name, p.PID(), p.AdminAddr)
	}
	before, began := map[*clustertest.Process]clustertest.Usage{}, time.Now()
	for _, p := range everyProcess(c) {
		if before[p], err = p.Usage(); err != nil {
			return err
		}
	}
	if err := sleep(ctx, s.length); err != nil {
		return err
	}
	var all time.Duration
	took := time.Since(began)
	for _, p := range everyProcess(c) {
		u, err := p.Usage()
		if err != nil {
			return err
		}
		used := u.CPU - before[p].CPU
		all += used
		s.say("  %-10s %5.2f %% of a core, %3d MiB", p.Name, percent(used, took), u.RSS>>20)
	}
	s.say("all processes: %.2f %% of a core, over %v", percent(all, took), took.Round(time.Second))
	if n := crowd.gone(); n > 0 {
		return fmt.Errorf("%d sessions have ended meanwhile", n)
	}
	return nil
}

func percent(used, of time.Duration) float64 { return 100 * used.Seconds() / of.Seconds() }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func everyProcess(c *clustertest.Cluster) []*clustertest.Process {
	return append(append(append([]*clustertest.Process{}, c.Nodes...), c.Routers...), c.Histories...)
}

// seed puts accounts and sessions into the database, for log-ins would take minutes of password hashing, and gives their tokens.
func seed(ctx context.Context, c *clustertest.Cluster, n int) ([]string, error) {
	store, err := openStore(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { _ = store.Close() }()
	tokens, errs := make([]string, n), make([]error, n)
	inParallel(n, 8, func(i int) {
		tokens[i] = fmt.Sprintf("seeded-%d-%d", i, rand.Uint64())
		a, err := store.CreateAccount(ctx, chat.Account{Name: fmt.Sprintf("seeded%d", i), PasswordHash: "none", CreatedMs: time.Now().UnixMilli()})
		if err == nil {
			_, err = store.CreateSession(ctx, chat.Session{Account: a, DeviceID: device(i), DeviceName: "measure", CreatedMs: a.CreatedMs},
				sha256.Sum256([]byte(tokens[i])))
		}
		errs[i] = err
	})
	return tokens, errors.Join(errs...)
}

func device(i int) string { return fmt.Sprintf("0192f0c1-0000-7000-8000-%012d", i) }

func openStore(ctx context.Context, c *clustertest.Cluster) (*mysqlstore.Store, error) {
	if file, ok := strings.CutPrefix(c.Database, "sqlite:"); ok {
		return sqlite.Open(ctx, file, sqlite.Options{})
	}
	return mysql.Open(ctx, c.Database, mysql.Options{})
}

func inParallel(n, at int, do func(i int)) {
	var wait sync.WaitGroup
	next := make(chan int)
	for range at {
		wait.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wait.Wait()
}

// crowd is many sessions that do nothing.
type crowd struct {
	conns []*idler
}

type idler struct {
	conn    net.Conn
	frames  *wire.Reader
	timer   *time.Timer
	ended   chan struct{}
	entered time.Time
}

// enterAll resumes the sessions, on the nodes in turn, some at a time.
func enterAll(ctx context.Context, c *clustertest.Cluster, tokens []string) (*crowd, error) {
	all := &crowd{conns: make([]*idler, len(tokens))}
	errs := make([]error, len(tokens))
	inParallel(len(tokens), 16, func(i int) {
		all.conns[i], errs[i] = enter(ctx, c.Nodes[i%len(c.Nodes)].Addr, tokens[i], device(i))
	})
	return all, errors.Join(errs...)
}

func enter(ctx context.Context, addr, token, device string) (*idler, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &idler{conn: conn, frames: wire.NewReader(conn, wire.DefaultMaxFrame), ended: make(chan struct{})}
	hello, err := s.ask(&pb.Envelope{Id: 1, Body: &pb.Envelope_Hello{Hello: &pb.HelloRequest{Version: wire.Version, Client: "measure"}}})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	for _, e := range []*pb.Envelope{
		{Id: 2, Body: &pb.Envelope_Resume{Resume: &pb.ResumeRequest{Token: token, Device: &pb.Device{Id: device}}}},
		{Id: 3, Body: &pb.Envelope_Sync{Sync: &pb.SyncRequest{}}},
	} {
		if _, err := s.ask(e); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	every := time.Duration(hello.GetHelloOk().GetPingMs()) * time.Millisecond
	ping, err := wire.AppendFrame(nil, &pb.Envelope{Id: 4, Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}})
	if err != nil {
		return nil, err
	}
	s.entered = time.Now()
	s.timer = time.AfterFunc(time.Duration(rand.Int64N(int64(every))), func() {
		_, _ = conn.Write(ping) // the reader sees it if the connection has ended
		s.timer.Reset(every)
	})
	go func() {
		defer close(s.ended)
		for {
			if _, err := s.frames.Next(); err != nil {
				return
			}
		}
	}()
	return s, nil
}

// ask sends a request and waits for its answer.
func (s *idler) ask(e *pb.Envelope) (*pb.Envelope, error) {
	const patience = 30 * time.Second
	if err := s.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	frame, err := wire.AppendFrame(nil, e)
	if err != nil {
		return nil, err
	}
	if _, err := s.conn.Write(frame); err != nil {
		return nil, err
	}
	for {
		got, err := s.frames.Next()
		switch {
		case err != nil:
			return nil, err
		case got.GetId() != e.GetId():
		case got.GetError() != nil:
			return nil, fmt.Errorf("refused: %v", got.GetError())
		default:
			return got, s.conn.SetDeadline(time.Time{})
		}
	}
}

func (c *crowd) gone() (n int) {
	for _, s := range c.conns {
		select {
		case <-s.ended:
			n++
		default:
		}
	}
	return n
}

func (c *crowd) leave() {
	for _, s := range c.conns {
		if s == nil {
			continue
		}
		s.timer.Stop()
		if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			fmt.Fprintln(os.Stderr, err)
		}
		<-s.ended
	}
}
