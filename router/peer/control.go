package peer

import (
	"context"
	"errors"
	"fmt"

	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/peer/peerv1"
)

// Control answers what operators ask of this process. Its methods must not block.
type Control interface {
	// Members are those that this process thinks alive, itself included.
	Members() []cluster.Member
	// Drain has the process go, if it does not already, and tells how many clients are still connected to it.
	Drain() (clients int)
}

// ErrRefused is matched by the error of a question that was understood and not done.
var ErrRefused = errors.New("peer: refused")

// told answers an operator's question.
func (l *link) told(a *peerv1.Ask) *peerv1.Frame {
	return &peerv1.Frame{Body: &peerv1.Frame_Told{Told: l.answerAsk(a)}}
}

func (l *link) answerAsk(a *peerv1.Ask) *peerv1.Told {
	o := &l.server.o
	if o.Control == nil {
		return &peerv1.Told{Refused: "this process takes no questions"}
	}
	switch q := a.Question.(type) {
	case *peerv1.Ask_Members:
		t := &peerv1.Told{}
		for _, m := range o.Control.Members() {
			t.Members = append(t.Members, memberOut(m))
		}
		return t
	case *peerv1.Ask_Drain:
		if q.Drain.Life != o.Self {
			return &peerv1.Told{Refused: "another process is at this address now, with the id " + o.Self}
		}
		return &peerv1.Told{Clients: uint32(o.Control.Drain())}
	}
	return &peerv1.Told{Refused: "this version does not know that question"}
}

// Caller asks one process as an operator does. It is for one goroutine.
type Caller struct {
	s *session
}

// Call connects to the process at addr and proves that it and we share the cluster's secret.
func Call(ctx context.Context, addr string, secret []byte, cluster string) (*Caller, error) {
	config, err := tlsConfig(secret, cluster)
	if err != nil {
		return nil, err
	}
	s, err := connect(ctx, addr, config, "operator", silentAfter)
	if err != nil {
		return nil, fmt.Errorf("peer: call %s: %w", addr, err)
	}
	return &Caller{s: s}, nil
}

// Life is what the process calls its life: the ID of its member.
func (c *Caller) Life() string { return c.s.peer }

// Close ends the call.
func (c *Caller) Close() error { return c.s.conn.Close() }

// Members asks who is in the cluster.
func (c *Caller) Members(ctx context.Context) ([]cluster.Member, error) {
	t, err := c.ask(ctx, &peerv1.Ask{Question: &peerv1.Ask_Members{Members: &peerv1.MembersAsked{}}})
	if err != nil {
		return nil, err
	}
	members := make([]cluster.Member, len(t.Members))
	for i, m := range t.Members {
		members[i] = memberIn(m)
	}
	return members, nil
}

// Drain asks the process to go, or how far it has come, and returns how many clients are still connected to it. life is the
// process that is meant: another one refuses.
func (c *Caller) Drain(ctx context.Context, life string) (clients int, err error) {
	t, err := c.ask(ctx, &peerv1.Ask{Question: &peerv1.Ask_Drain{Drain: &peerv1.DrainAsked{Life: life}}})
	return int(t.GetClients()), err
}

func (c *Caller) ask(ctx context.Context, a *peerv1.Ask) (*peerv1.Told, error) {
	b, err := encode(&peerv1.Frame{Body: &peerv1.Frame_Ask{Ask: a}})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { abort(c.s.conn.NetConn()) })
	defer stop()
	if _, err := c.s.conn.Write(b); err != nil {
		return nil, fmt.Errorf("peer: ask: %w", lostBy(ctx, err))
	}
	f, err := c.s.frames.next()
	switch t := f.GetTold(); {
	case err != nil:
		return nil, fmt.Errorf("peer: ask: %w", lostBy(ctx, err))
	case t == nil:
		return nil, fmt.Errorf("peer: ask: %w: no answer", errMalformed)
	case t.Refused != "":
		return nil, fmt.Errorf("%w: %s", ErrRefused, t.Refused)
	default:
		return t, nil
	}
}

// lostBy names the context's end as what broke a connection, if it was that.
func lostBy(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// Life asks who is at addr: the life of a process of this cluster.
func (p *Pool) Life(ctx context.Context, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.DialTimeout)
	defer cancel()
	s, err := connect(ctx, addr, p.tls, p.o.Self, p.o.timing.silent)
	if err != nil {
		return "", fmt.Errorf("peer: %s: %w", addr, err)
	}
	return s.peer, s.conn.Close() // in order, so that the other side does not take it for a lost link
}

func memberOut(m cluster.Member) *peerv1.Member {
	w := &peerv1.Member{
		Id: m.ID, Name: m.Name, Peer: m.Peer, Client: m.Client, State: string(m.State), Version: m.Version, SinceMs: m.SinceMs,
	}
	for _, r := range m.Roles {
		w.Roles = append(w.Roles, string(r))
	}
	return w
}

func memberIn(w *peerv1.Member) cluster.Member {
	m := cluster.Member{
		ID: w.Id, Name: w.Name, Peer: w.Peer, Client: w.Client, State: cluster.State(w.State), Version: w.Version,
		SinceMs: w.SinceMs,
	}
	for _, r := range w.Roles {
		m.Roles = append(m.Roles, cluster.Role(r))
	}
	return m
}
