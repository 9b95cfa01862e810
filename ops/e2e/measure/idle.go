package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/ops/clustertest"
	"github.com/futurechat/future/router/clock"
)

// idle measures what a cluster costs in which nothing is said: three nodes that hold sessions which only ping, two routers and a
// history consumer. The processor time is the kernel's, per process, over -length.
func idle(ctx context.Context, s settings) error {
	c, stop, err := s.start(ctx, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1})
	if err != nil {
		return err
	}
	defer stop()
	crowd, err := enterAll(ctx, c, s.sessions)
	defer crowd.leave()
	if err != nil {
		return err
	}
	s.say("%d sessions are live; each pings every 25 s, when the node says so", s.sessions)
	if err := clustertest.Sleep(ctx, 15*time.Second); err != nil { // what begins with a log-in is over
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
	if err := clustertest.Sleep(ctx, s.length); err != nil {
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

func everyProcess(c *clustertest.Cluster) []*clustertest.Process {
	return append(append(append([]*clustertest.Process{}, c.Nodes...), c.Routers...), c.Histories...)
}

// crowd is many sessions that do nothing.
type crowd struct {
	conns []*idler
}

type idler struct {
	conn   net.Conn
	frames *wire.Reader
	timer  *time.Timer
	ended  chan struct{}
}

// enterAll has so many sessions live, on the nodes in turn.
func enterAll(ctx context.Context, c *clustertest.Cluster, n int) (*crowd, error) {
	all := &crowd{conns: make([]*idler, n)}
	seats, err := c.SeedSessions(ctx, "idler", n)
	if err != nil {
		return all, err
	}
	return all, clock.Each(clock.Real, n, 16, func(i int) (err error) {
		all.conns[i], err = enter(ctx, c.Nodes[i%len(c.Nodes)].Addr, seats[i])
		return err
	})
}

func enter(ctx context.Context, addr string, seat clustertest.Seat) (*idler, error) {
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
		{Id: 2, Body: &pb.Envelope_Resume{Resume: &pb.ResumeRequest{Token: seat.Token, Device: &pb.Device{Id: seat.Device}}}},
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
