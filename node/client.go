package node

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/groups"
	"github.com/futurechat/future/node/session"
	"github.com/futurechat/future/router/chat"
)

// Client is one connection and its session.
type Client struct {
	node *Node
	conn Conn

	// Owned by whoever runs events (see post).
	session *session.Session
	held    [][]byte     // answers that found no room, in order
	next    *session.Run // what is to be run when they have gone, so that there are never many
	leaves  bool         // the node goes down, and the connection ends when they have gone
	// prepared is the send that runs, once it was checked; set before session.Prepared is posted.
	prepared prepared

	mu      sync.Mutex
	events  []session.Event // nil: there is room for what is held
	running bool
	closed  bool
	failed  int // of events, those that tell of a failed append

	gone atomic.Bool // the connection has ended, whoever ended it

	appending sync.Mutex // held while an append is handed to the log (see Node.append)
	// Set when a log-in succeeds, before the session lives.
	who    chat.Session
	behind bool // a delivery found no room: the client must compare heads once there is some
	untold bool // so did the word to compare
	stuck  bool // so did an answer
	// late are answers of the log that wait for a look at the database, while looking.
	late    []logged
	looking bool
}

const (
	// turn is how many events one goroutine runs before another takes over: it may be an event loop, or bring messages for others.
	turn = 64
	// backlog is how many events may wait when a frame comes. Only who sends faster than answers can be written has more.
	backlog = 1024
	// mostHeld is how many answers may find no room. While one waits no request is run, so these are few: of sends that the log
	// has answered meanwhile, of pings, and refusals.
	mostHeld = 512
)

// Frame takes a frame's payload from the gate. It is not kept.
func (c *Client) Frame(payload []byte) {
	e, err := wire.Decode(payload)
	if err != nil {
		c.close(pb.Closing_REASON_MALFORMED)
		return
	}
	c.mu.Lock()
	flooded := len(c.events) >= backlog
	c.mu.Unlock()
	if flooded {
		c.close(pb.Closing_REASON_OVERLOADED)
		return
	}
	c.post(session.Received{Envelope: e})
}

// Closed is the end of the connection.
func (c *Client) Closed() {
	c.gone.Store(true)
	c.node.forget(c.conn.ID())
	c.node.groups.post(groups.Ended[*Client]{Connection: c})
	c.post(session.Ended{})
}

// Drained says that a connection which had no room for a frame has taken all that was queued.
func (c *Client) Drained() {
	c.mu.Lock()
	behind, untold, stuck := c.behind, c.untold, c.stuck
	c.behind, c.untold, c.stuck = false, false, false
	c.mu.Unlock()
	if stuck {
		c.post(nil)
	}
	if behind {
		c.node.metrics.compares.Inc()
		c.post(session.Compare{Untold: untold})
	}
}

// post hands an event to the session. Events are run one at a time in their order, by whichever goroutine comes first: an
// effect may itself post, and nothing is called with the lock held.
func (c *Client) post(e session.Event) {
	c.mu.Lock()
	c.events = append(c.events, e)
	if failedAppend(e) {
		c.failed++
	}
	if c.running {
		c.mu.Unlock()
		return
	}
	c.running = true
	c.mu.Unlock()
	c.work()
}

// work runs events, for whoever set running: all there are, or as many as one goroutine should if another can go on.
func (c *Client) work() {
	c.mu.Lock()
	for n := 1; len(c.events) > 0; n++ {
		if n > turn && c.node.relieve(c) {
			c.mu.Unlock()
			return
		}
		next := c.events[0]
		c.events[0] = nil
		c.events = c.events[1:]
		if failedAppend(next) {
			c.failed--
		}
		c.mu.Unlock()
		if next == nil {
			c.release()
		} else {
			c.step(next)
		}
		c.mu.Lock()
	}
	c.events, c.running = nil, false
	c.mu.Unlock()
}

// prepared is a send that was checked, and the node's life in which it was.
type prepared struct {
	chat.Sending
	life string
}

// prepare says that a checked send may go to the log.
func (c *Client) prepare(p prepared) {
	c.prepared = p
	c.post(session.Prepared{})
}

// step runs one event. A send that was checked and does not go to the log after all gives its permit back.
func (c *Client) step(e session.Event) {
	effects := c.session.Step(c.node.opts.Clock.Now(), e)
	if _, checked := e.(session.Prepared); checked && !slices.Contains(effects, session.Effect(session.Append{})) {
		c.prepared.Permit.Release()
		c.prepared = prepared{} // before the effects: the next may be prepared by them
	}
	for _, effect := range effects {
		c.carryOut(effect)
	}
}

// hasFailed reports whether a failed append is told that the session has not been given yet.
func (c *Client) hasFailed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed > 0
}

func failedAppend(e session.Event) bool {
	a, ok := e.(session.Appended)
	return ok && a.Err != nil
}

func (c *Client) carryOut(e session.Effect) {
	switch e := e.(type) {
	case session.Write:
		c.write(e.Envelope)
	case session.Forward:
		c.forward(e.Frame)
	case session.Run:
		if len(c.held) > 0 {
			c.next = &e
			return
		}
		c.node.run(c, e)
	case session.Append:
		c.node.append(c)
	case session.Register:
		c.conn.LoggedIn()
		c.node.metrics.sessions.Inc()
		c.node.presence.Register(c.conn.ID(), e.User, c.account().DeviceID)
	case session.Unregister:
		c.node.metrics.sessions.Dec()
		c.node.presence.Unregister(c.conn.ID())
		c.node.groups.post(groups.Ended[*Client]{Connection: c})
	case session.Close:
		if c.leaves = e.Reason == pb.Closing_REASON_DRAINING && len(c.held) > 0; !c.leaves {
			c.close(e.Reason)
		}
	}
}

func (c *Client) write(e *pb.Envelope) {
	if r := e.GetError(); r != nil {
		c.node.metrics.refused.WithLabelValues(codeName(r.GetCode())).Inc()
	}
	frame, err := wire.AppendFrame(nil, e)
	if err != nil {
		c.node.log.Error("an answer could not be encoded", zap.Error(err))
		c.close(pb.Closing_REASON_OVERLOADED)
		return
	}
	switch {
	case e.GetCompareHeads() != nil:
		_ = c.orLater(frame, c.noteUntold)
	case len(c.held) > 0 || errors.Is(c.orLater(frame, c.noteStuck), ErrSlow):
		// An answer cannot be left out. The connection is slow, which is no reason to end it: the gate does, if it takes nothing.
		if c.held = append(c.held, frame); len(c.held) > mostHeld {
			c.close(pb.Closing_REASON_SLOW_CONSUMER)
		}
	}
}

// release sends what is held, and goes on if that was all.
func (c *Client) release() {
	for len(c.held) > 0 {
		if errors.Is(c.orLater(c.held[0], c.noteStuck), ErrSlow) {
			return
		}
		c.held[0] = nil
		c.held = c.held[1:]
	}
	c.held = nil
	if c.leaves {
		c.close(pb.Closing_REASON_DRAINING)
		return
	}
	if next := c.next; next != nil {
		c.next = nil
		c.node.run(c, *next)
	}
}

// forward leaves a delivery out when there is no room: the client fetches it when it has caught up.
func (c *Client) forward(frame []byte) {
	switch err := c.orLater(frame, c.noteBehind); {
	case err == nil:
		c.node.metrics.delivered.Inc()
	case errors.Is(err, ErrSlow):
		c.node.metrics.leftOut.Inc()
	}
}

// orLater sends a frame. If there is no room, note is called with the lock held to say what Drained is to do; it reports whether that
// was known before.
func (c *Client) orLater(frame []byte, note func() (known bool)) error {
	for {
		err := c.conn.Send(frame)
		if !errors.Is(err, ErrSlow) {
			return err
		}
		c.mu.Lock()
		known := note()
		c.mu.Unlock()
		if known {
			return err
		}
		// Drained may have come in between, and found nothing to do: only a refusal from now on is sure to be followed by it.
	}
}

func (c *Client) noteStuck() (known bool)  { return set(&c.stuck) }
func (c *Client) noteBehind() (known bool) { return set(&c.behind) }

func (c *Client) noteUntold() (known bool) {
	c.behind = true
	return set(&c.untold)
}

func set(flag *bool) (known bool) {
	known, *flag = *flag, true
	return known
}

func (c *Client) close(reason pb.Closing_Reason) {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	c.mu.Unlock()
	if closed {
		return
	}
	c.node.metrics.closed.WithLabelValues(reason.String()[len("REASON_"):]).Inc()
	c.gone.Store(true)
	if frame := c.node.FinalFrame(reason); frame != nil {
		_ = c.conn.Send(frame) // without it the client comes back by itself
	}
	c.conn.Close(reason)
}

// account is who logged in.
func (c *Client) account() chat.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.who
}

func (c *Client) entered(s chat.Session) {
	c.mu.Lock()
	c.who = s
	c.mu.Unlock()
}
