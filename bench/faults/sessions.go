package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
)

// crowd is all sessions.
type crowd struct {
	sessions []*session
	pairs    []*pair

	// run is what is under way; its arrivals are noted.
	run atomic.Pointer[run]
}

// pair is two friends with their devices.
type pair struct {
	conversation string
	sessions     [2][]*session
}

// session is one device.
type session struct {
	crowd        *crowd
	number, pair int
	seat         clustertest.Seat
	// home is the slot of nodes where it is at the beginning of each run.
	home   int
	client *future.Client
	// sent are messages whose outcome is due, in order. It has more room than the outbox.
	sent   chan sent
	waiter sync.WaitGroup
	// unacked is how many of its messages await their acknowledgement.
	unacked atomic.Int32

	// elsewhere, if above 0, is the slot+1 to which the next connection goes, whatever the SDK wants.
	elsewhere atomic.Int32

	mu sync.Mutex // guards what follows
	// node is the name of the process where it has a session; empty: none.
	node string
	conn net.Conn
	// marked is its node when the fault came; lost, that it lost its session there since; back, when it first had one again.
	marked   string
	lost     bool
	back     time.Duration
	arrivals []Arrival
}

type sent struct {
	run     *run
	offer   *offer
	pending *future.Pending
}

// outbox is how many messages a device may have unacknowledged. What is due beyond that it refuses itself.
const outbox = 64

// enter opens all sessions, some at a time.
func (s *stage) enter(ctx context.Context, pairs []clustertest.SeededPair) (*crowd, error) {
	c := &crowd{}
	for i, p := range pairs {
		with := &pair{conversation: p.Conversation}
		c.pairs = append(c.pairs, with)
		for side, seats := range p.Devices {
			for _, d := range seats {
				x := &session{crowd: c, number: len(c.sessions), pair: i, seat: d, sent: make(chan sent, 2*outbox)}
				x.home = s.home(x.number)
				x.elsewhere.Store(int32(x.home) + 1)
				c.sessions = append(c.sessions, x)
				with.sessions[side] = append(with.sessions[side], x)
			}
		}
	}
	const atOnce = 64
	err := each(ctx, atOnce, c.sessions, func(ctx context.Context, x *session) error { return x.dial(ctx, s) })
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// each calls f for all, n at a time, until one fails.
func each[T any](ctx context.Context, n int, all []T, f func(context.Context, T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wait sync.WaitGroup
	for range n {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(all) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := f(ctx, all[i]); err != nil {
					cancel(err)
				}
			}
		})
	}
	wait.Wait()
	return context.Cause(ctx)
}

func (x *session) dial(ctx context.Context, s *stage) (err error) {
	const patience = 60 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	x.client, err = future.Dial(ctx, s.names(), future.WithToken(x.seat.Token), future.WithDevice(x.seat.Device, "seeded"),
		future.WithClientName("future-bench"), future.WithOutbox(outbox),
		future.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			return x.connect(ctx, s, network, addr)
		}),
		future.WithHandlers(future.Handlers{Message: x.received, State: x.changed}))
	if err != nil {
		return fmt.Errorf("session %d: %w", x.number, err)
	}
	if _, ok := x.client.Session(); !ok {
		return fmt.Errorf("session %d was not resumed", x.number)
	}
	x.waiter.Go(x.wait)
	return nil
}

// connect makes a connection to the process that is in a slot now.
func (x *session) connect(ctx context.Context, s *stage, network, addr string) (net.Conn, error) {
	at := s.resolve(addr)
	if slot := x.elsewhere.Swap(0); slot > 0 {
		at = s.resolve(slotName(int(slot) - 1))
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, at)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.conn = conn
	return conn, nil
}

// move has it come to another slot, by breaking its connection.
func (x *session) move(slot int) {
	x.elsewhere.Store(int32(slot) + 1)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.conn != nil {
		_ = x.conn.Close() // which is meant
	}
}

func (x *session) changed(c future.StateChange) {
	r := x.crowd.run.Load()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.node = ""
	if c.State == future.Online {
		x.node = c.Node
	}
	if r == nil || x.marked == "" {
		return
	}
	x.lost = x.lost || x.node != x.marked
	if x.lost && x.node != "" && x.back == 0 {
		x.back = r.now()
	}
}

// at is the name of the process where it has a session, or empty.
func (x *session) at() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.node
}

// reset forgets the run before.
func (x *session) reset() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.marked, x.arrivals = "", nil
}

// mark begins to note whether it loses its node.
func (x *session) mark() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.marked, x.lost, x.back = x.node, x.node == "", 0
	if x.node == "" {
		x.marked = "none"
	}
}

func (x *session) received(m future.Message) {
	r := x.crowd.run.Load()
	if r == nil {
		return
	}
	number, ok := r.number(m.Text)
	if !ok {
		return // of a run before, or no message of ours
	}
	at := r.now()
	x.mu.Lock()
	x.arrivals = append(x.arrivals, Arrival{number, m.Seq, at})
	x.mu.Unlock()
	r.arrived(number)
}

// wait notes outcomes.
func (x *session) wait() {
	for s := range x.sent {
		<-s.pending.Done()
		at := s.run.now()
		receipt, err := s.pending.Wait(context.Background())
		x.unacked.Add(-1)
		s.offer.outcome(at, receipt.Seq, err)
	}
}

// code names a refusal.
func code(err error) string {
	var e *future.Error
	switch {
	case errors.As(err, &e):
		return strings.TrimPrefix(e.Code.String(), "CODE_")
	case errors.Is(err, future.ErrOutboxFull):
		return "OUTBOX_FULL"
	case errors.Is(err, future.ErrStayAway):
		return "STAY_AWAY"
	}
	return "OTHER"
}

// close ends all sessions.
func (c *crowd) close() error {
	const atOnce = 64
	return each(context.Background(), atOnce, c.sessions, func(_ context.Context, x *session) error {
		if x.client == nil {
			return nil
		}
		err := x.client.Close() // which ends all that is pending
		close(x.sent)
		x.waiter.Wait()
		return err
	})
}
