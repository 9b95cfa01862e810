// Package resume decides how a client goes on after whatever happens to its connection, as a step function:
// Step(now, event) returns effects, and the shell (package future) carries them out. It has no goroutine, clock or I/O,
// so that a simulation can drive it through every order of events. It holds
//
//   - one position per conversation: everything up to it was shown, or is not for this viewer. Only a message that joins
//     by prev_seq, or a page of history that covers from the position on, moves it: so nothing is shown twice, out of
//     order, or passed over;
//   - messages that came before the ones that they follow, within bounds. What is over a bound is dropped and comes again
//     by history, since the position has not moved;
//   - the outbox: per conversation in order, the earlier resent before the later. After a failure that a retry may cure,
//     nothing of that conversation is written until all that was under way is answered; then the first goes alone.
//
// What the program does not take is treated like what has not come: it stays with the server (Room).
//
// Start reading at Step. Positions are in positions.go, the outbox is in outbox.go.
package resume

import (
	"math/rand/v2"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Config bounds what the machine holds and asks for.
type Config struct {
	// Window is how many sends may await their answer, Fetches how many pages of history. Together they stay below the
	// queue of requests that a node has for a connection (64).
	Window, Fetches int
	// PageSize is how many messages a page has at most; that many of the longest must fit a frame.
	PageSize int
	// Room is how many messages may be shown and not yet taken.
	Room int
	// Conversations is how many are followed; of further ones nothing is shown.
	Conversations int
	// HeldEach, HeldAll and HeldBytes bound messages that wait for earlier ones: in a conversation, in all, and their texts.
	HeldEach, HeldAll, HeldBytes int
	// Compare is the time between two comparisons with the heads. Settle is how long a difference so found may be a
	// delivery that is still on its way.
	Compare, Settle time.Duration
	// RetryMin and RetryMax bound the pause before something is tried again.
	RetryMin, RetryMax time.Duration
}

// Defaults suit a program and its people.
var Defaults = Config{
	Window: 32, Fetches: 8, PageSize: 50, Room: 256, Conversations: 1 << 16,
	HeldEach: 128, HeldAll: 2048, HeldBytes: 4 << 20,
	Compare: 5 * time.Minute, Settle: 2 * time.Second, RetryMin: 100 * time.Millisecond, RetryMax: 30 * time.Second,
}

// Position is up to where a conversation was shown.
type Position struct {
	Conversation string
	Seq          uint64
}

// Message is a message to send.
type Message struct {
	Conversation, ID string
	Payload          *pb.Payload
	ReplyTo          *pb.Ref
}

// State is what a shell keeps across restarts of the program.
type State struct {
	User, Cluster string
	Epoch         uint32
	// Started: the heads were known once, so that a conversation without a position has begun since.
	Started   bool
	Positions []Position
	// Outbox is in the order of Submit. All count as written before.
	Outbox []Message
}

// Stats counts since New.
type Stats struct {
	// Shown, and how many of them came by history rather than by themselves.
	Shown, ShownLate uint64
	// Duplicates came at or below the position; Held came too early; Overflows were dropped for a bound, to be fetched.
	Duplicates, Held, Overflows uint64
	// Invalid broke a rule of the protocol and were passed over.
	Invalid uint64
	// Fetches and Syncs were asked for; HeadDifferences were found by the regular comparison alone.
	Fetches, Syncs, HeadDifferences uint64
	// Written counts sends, Resent those of them that were written before; Acked and Failed are their ends.
	Written, Resent, Acked, Failed uint64
	// Stale answers fitted nothing that was asked for.
	Stale uint64
}

// Event is what happened: one of the types below.
type Event interface{ event() }

type (
	// Opened: a connection has a session.
	Opened struct {
		User, Cluster string
		Epoch         uint32
	}
	// Lost: it has none any more. Answers to what was asked for on it do not come after this.
	Lost struct{}
	// Delivered brings messages unasked, Skipped a record that is not for this viewer.
	Delivered struct{ Messages []*pb.Message }
	Skipped   struct{ Skip *pb.Skip }
	// Compare: deliveries may have been missed.
	Compare struct{}
	// Heads answers Sync; Err is set instead if it failed.
	Heads struct {
		Heads []*pb.Head
		Err   *wire.Error
	}
	// Page answers Fetch; Err is set instead if it failed.
	Page struct {
		Conversation string
		Page         *pb.HistoryResponse
		Err          *wire.Error
	}
	// Submit puts a message into the outbox. Written: it may have been written before, since its id is not new.
	Submit struct {
		Message Message
		Written bool
	}
	// Answered answers Write; Err is set instead if it failed.
	Answered struct {
		Conversation, ID string
		Seq              uint64
		Time             time.Time
		Err              *wire.Error
	}
	// Rejected: the server has dropped a message that it never acknowledged.
	Rejected struct {
		Conversation, ID string
		Err              *wire.Error
	}
	// Taken: the program took this many of the messages shown.
	Taken struct{ N int }
	// Tick: it is Wake or later.
	Tick struct{}
)

func (Opened) event()    {}
func (Lost) event()      {}
func (Delivered) event() {}
func (Skipped) event()   {}
func (Compare) event()   {}
func (Heads) event()     {}
func (Page) event()      {}
func (Submit) event()    {}
func (Answered) event()  {}
func (Rejected) event()  {}
func (Taken) event()     {}
func (Tick) event()      {}

// Effect is what the shell must do, in order: one of the types below.
type Effect interface{ effect() }

type (
	// Sync asks for the heads, answered by Heads.
	Sync struct{}
	// Fetch asks for history from After on, oldest first, answered by Page.
	Fetch struct {
		Conversation string
		After        uint64
		Limit        int
	}
	// Write sends a message, answered by Answered.
	Write struct {
		Message Message
		Resend  bool
	}
	// Show hands a message to the program; with it, its conversation's position is Message.Seq. Taken gives the room back.
	Show struct {
		Message *pb.Message
		Late    bool
	}
	// Passed: the position moved without a message. It may be kept once all shown before it was taken, or never.
	Passed struct{ Position Position }
	// Begun: a conversation's first position; Started: from now on one without a position begins at 0. Kept at once.
	Begun   struct{ Position Position }
	Started struct{}
	// Forgotten: another account, cluster or epoch; all positions are void and these are now the state's.
	Forgotten struct {
		User, Cluster string
		Epoch         uint32
	}
	// Sent and Failed are the end of a message: it leaves the outbox.
	Sent struct {
		Conversation, ID string
		Seq              uint64
		Time             time.Time
	}
	// Failed has Err nil if the message was written for another account or cluster.
	Failed struct {
		Message Message
		Err     *wire.Error
	}
	// Reconnect: this connection is of no use.
	Reconnect struct{ Why string }
)

func (Sync) effect()      {}
func (Fetch) effect()     {}
func (Write) effect()     {}
func (Show) effect()      {}
func (Passed) effect()    {}
func (Begun) effect()     {}
func (Started) effect()   {}
func (Forgotten) effect() {}
func (Sent) effect()      {}
func (Failed) effect()    {}
func (Reconnect) effect() {}

// Machine is the state. Use New.
type Machine struct {
	cfg Config
	rng *rand.Rand
	now time.Time
	out []Effect

	user, cluster string
	epoch         uint32
	stats         Stats

	connected bool
	// syncing: Sync was asked for. again: it must be asked for once more. regular: by the clock alone.
	syncing, again, regular bool
	syncFailures            int
	// blind: the heads could not be had, and started is not yet true: what comes begins where it comes.
	started, blind bool
	nextSync       time.Time

	conversations map[string]*conversation
	inOrder       []*conversation // as first seen
	wanting       []*conversation // to be fetched, first come first served
	fetching      int
	room          int
	held          int
	heldBytes     int

	lanes    map[string]*lane
	ready    []*lane
	outbox   int
	inFlight int
	timers   timers
}

// New returns a machine that goes on from state. rng is the machine's alone.
func New(cfg Config, rng *rand.Rand, state State) *Machine {
	m := &Machine{
		cfg: cfg, rng: rng, user: state.User, cluster: state.Cluster, epoch: state.Epoch, started: state.Started,
		conversations: map[string]*conversation{}, lanes: map[string]*lane{}, room: cfg.Room,
	}
	for _, p := range state.Positions {
		if c := m.conversation(p.Conversation); c != nil {
			c.known, c.position, c.target = true, max(c.position, p.Seq), max(c.target, p.Seq)
		}
	}
	for _, msg := range state.Outbox {
		m.submit(msg, true)
	}
	return m
}

// Stats returns the counts so far.
func (m *Machine) Stats() Stats { return m.stats }

// Outbox is how many messages await their acknowledgement.
func (m *Machine) Outbox() int { return m.outbox }

// Wake is when the next Tick is wanted; zero: not by time.
func (m *Machine) Wake() time.Time {
	if !m.connected {
		return time.Time{}
	}
	at := m.timers.next()
	if !m.syncing && (at.IsZero() || m.nextSync.Before(at)) {
		at = m.nextSync
	}
	return at
}

// Step takes what happened and returns what must be done.
func (m *Machine) Step(now time.Time, e Event) []Effect {
	m.now, m.out = now, nil
	switch e := e.(type) {
	case Opened:
		m.opened(e)
	case Lost:
		m.lost()
	case Submit:
		m.submit(e.Message, e.Written)
	case Rejected:
		m.rejected(e)
	case Taken:
		m.room = min(m.room+max(e.N, 0), m.cfg.Room)
	default:
		if m.connected {
			m.connectedStep(e)
		}
	}
	m.fetch()
	m.write()
	return m.out
}

// connectedStep handles what makes sense on a connection alone.
func (m *Machine) connectedStep(e Event) {
	switch e := e.(type) {
	case Delivered:
		for _, msg := range e.Messages {
			m.delivered(msg)
		}
	case Skipped:
		m.skipped(e.Skip)
	case Compare:
		m.sync(false)
	case Heads:
		m.heads(e)
	case Page:
		m.page(e)
	case Answered:
		m.answered(e)
	case Tick:
		m.tick()
	}
}

func (m *Machine) do(e Effect) { m.out = append(m.out, e) }

func (m *Machine) opened(e Opened) {
	if m.connected {
		m.lost()
	}
	if e.User != m.user || e.Cluster != m.cluster || e.Epoch != m.epoch {
		m.forget(e)
	}
	m.connected = true
	m.sync(false)
	for _, l := range m.sortedLanes() {
		m.makeReady(l)
	}
}

// forget drops what is not true of this account, cluster or epoch. A new epoch keeps the outbox: the same messages are
// still to be sent, and their ids keep them from being stored twice.
func (m *Machine) forget(e Opened) {
	if m.user != "" && (e.User != m.user || e.Cluster != m.cluster) {
		m.failAll()
	}
	m.user, m.cluster, m.epoch = e.User, e.Cluster, e.Epoch
	m.conversations, m.inOrder, m.started = map[string]*conversation{}, nil, false
	m.held, m.heldBytes = 0, 0
	m.do(Forgotten(e))
}

func (m *Machine) lost() {
	m.connected, m.syncing, m.again, m.syncFailures, m.blind = false, false, false, 0, false
	m.wanting, m.fetching, m.timers = nil, 0, nil
	for _, c := range m.inOrder {
		c.fetching, c.queued, c.retryAt, c.fruitless, c.suspect = false, false, time.Time{}, 0, 0
	}
	m.ready, m.inFlight = nil, 0
	for _, l := range m.lanes {
		l.reset()
	}
}

func (m *Machine) tick() {
	for {
		t, ok := m.timers.pop(m.now)
		if !ok {
			break
		}
		switch {
		case t.lane != nil && t.lane.retryAt.Equal(t.at):
			m.makeReady(t.lane)
		case t.conversation != nil && t.conversation.retryAt.Equal(t.at):
			m.retryFetch(t.conversation)
		}
	}
	if !m.syncing && !m.now.Before(m.nextSync) {
		m.sync(m.syncFailures == 0)
	}
}

// pause is how long to wait before the n-th retry, at least as long as the server asked for.
func (m *Machine) pause(n int, err *wire.Error) time.Duration {
	d := m.cfg.RetryMin << min(max(n-1, 0), 16)
	if d <= 0 || d > m.cfg.RetryMax {
		d = m.cfg.RetryMax
	}
	d = d/2 + time.Duration(m.rng.Int64N(int64(d/2)+1))
	if err != nil && err.RetryAfter > 0 {
		// A server may ask for patience, but not for a client that never comes back.
		d = max(d, min(err.RetryAfter, 10*m.cfg.RetryMax))
	}
	return d
}

// mayRetry says whether the same request may succeed later.
func mayRetry(err *wire.Error) bool {
	switch err.Code {
	case pb.Code_CODE_UNAVAILABLE, pb.Code_CODE_RATE_LIMITED, pb.Code_CODE_PENDING, pb.Code_CODE_RETRY_IN_ORDER, pb.Code_CODE_DRAINING:
		return true
	}
	return err.RetryAfter > 0 || noSession(err)
}

// noSession says whether the connection has no session, whatever we believed.
func noSession(err *wire.Error) bool {
	return err.Code == pb.Code_CODE_NOT_LOGGED_IN || err.Code == pb.Code_CODE_SESSION_ENDED
}
