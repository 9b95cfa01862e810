// Package load puts load on a cluster through the SDK, as clients do, and tells how long messages took.
//
// The loop is open: a message is sent when it is due, however late the answers to others are, and its time runs from the moment
// at which it was due. So a cluster that stalls looks as bad as it is (coordinated omission: Gil Tene, "How NOT to Measure
// Latency").
package load

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	future "github.com/futurechat/future/clientsdk"
)

// Options for Connect.
type Options struct {
	// Addrs are the nodes' addresses. The two friends of a pair are on different nodes if there are several.
	Addrs []string
	// Pairs of friends.
	Pairs int
}

// Load is pairs of friends, connected.
type Load struct {
	pairs []*pair

	mu  sync.Mutex
	run *run // guarded by mu: what is under way
}

// pair is two friends and their conversation.
type pair struct {
	conversation string
	people       [2]*person
}

// person is an account, logged in.
type person struct {
	client *future.Client
	name   string
	// sent are messages whose acknowledgement is due. Those of one conversation come in order, so one goroutine waits for all.
	sent   chan sent
	waiter sync.WaitGroup
}

type sent struct {
	run     *run
	i       int
	pending *future.Pending
}

// Connect registers and befriends. The accounts have names of their own, so that it may be called again on the same cluster.
func Connect(ctx context.Context, o Options) (_ *Load, err error) {
	if len(o.Addrs) == 0 || o.Pairs < 1 {
		return nil, errors.New("load: an address and a pair at least are wanted")
	}
	l := &Load{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	run := strings.ToLower(rand.Text()[:8])
	for i := range o.Pairs {
		p := &pair{}
		l.pairs = append(l.pairs, p)
		for side := range p.people {
			addr := o.Addrs[(i+side)%len(o.Addrs)]
			name := fmt.Sprintf("bench-%s-%d-%d", run, i, side)
			if p.people[side], err = l.enter(ctx, name, addr); err != nil {
				return nil, err
			}
		}
		if err := p.befriend(ctx); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// enter registers an account at one node.
func (l *Load) enter(ctx context.Context, name, addr string) (*person, error) {
	c, err := future.Dial(ctx, []string{addr}, future.WithInsecurePasswords(), future.WithClientName("future-bench"),
		future.WithHandlers(future.Handlers{Message: l.received, SendFailed: l.failed, State: l.changed}))
	if err != nil {
		return nil, fmt.Errorf("load: %s: %w", addr, err)
	}
	if _, err := c.Register(ctx, name, rand.Text()); err != nil {
		return nil, errors.Join(fmt.Errorf("load: %s at %s: %w", name, addr, err), c.Close())
	}
	const room = 1024 // the SDK's outbox is full before
	p := &person{client: c, name: name, sent: make(chan sent, room)}
	p.waiter.Go(p.wait)
	return p, nil
}

func (p *pair) befriend(ctx context.Context) error {
	a, b := p.people[0], p.people[1]
	if err := a.client.AddFriend(ctx, b.name, "hello, it is me"); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if err := b.client.AnswerFriend(ctx, a.name, true); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	friends, err := a.client.Friends(ctx)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if len(friends) != 1 || friends[0].State != future.IsFriend {
		return fmt.Errorf("load: %s and %s did not become friends: %+v", a.name, b.name, friends)
	}
	p.conversation = friends[0].Conversation
	return nil
}

// wait notes acknowledgements.
func (p *person) wait() {
	for s := range p.sent {
		<-s.pending.Done()
		at := time.Now()
		if _, err := s.pending.Wait(context.Background()); err != nil {
			s.run.fail(err)
			continue
		}
		s.run.note(s.run.acked, s.i, at)
	}
}

// received notes a friend's message. The sender's own copy counts for nothing.
func (l *Load) received(m future.Message) {
	if m.Own {
		return
	}
	at := time.Now()
	r := l.current()
	if r == nil {
		return
	}
	if i, ok := r.number(m.Text); ok {
		r.note(r.got, i, at)
	}
}

func (l *Load) failed(f future.SendFailed) {
	if r := l.current(); r != nil {
		r.fail(f.Err)
	}
}

// changed ends a run in which a client loses its node: its figures would be those of something else.
func (l *Load) changed(s future.StateChange) {
	if r := l.current(); r != nil && s.State != future.Online {
		r.fail(fmt.Errorf("a client is %v: %w", s.State, s.Err))
	}
}

func (l *Load) current() *run {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.run
}

// Close disconnects all.
func (l *Load) Close() error {
	var errs []error
	for _, pair := range l.pairs {
		for _, p := range pair.people {
			if p == nil {
				continue
			}
			errs = append(errs, p.client.Close()) // which ends all that is pending
			close(p.sent)
			p.waiter.Wait()
		}
	}
	return errors.Join(errs...)
}

// text is the message numbered i of a run: both, and filling.
func (r *run) text(i int) string { return fmt.Sprintf("%-*s", r.plan.Size, r.id+" "+strconv.Itoa(i)) }

// number reads it back; false for what is not of this run.
func (r *run) number(text string) (int, bool) {
	rest, ok := strings.CutPrefix(text, r.id+" ")
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(strings.TrimRight(rest, " "))
	return i, err == nil && i >= 0 && i < len(r.got)
}
