package future

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/futurechat/future/clientsdk/resume"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// phase is how far the present connection has come.
type phase int

const (
	phaseNone     phase = iota // no connection
	phaseHello                 // Hello is under way
	phaseGreeted               // no session yet
	phaseEntering              // a log-in is under way
	phaseLive
)

var resumeLost = resume.Lost{}

// loop is the one owner of a client's state. Everything else posts functions to it, or frames.
type loop struct {
	// Set at start.
	o      options
	addrs  []string
	log    *slog.Logger
	ctx    context.Context // ends with the client
	cancel context.CancelCauseFunc
	events chan Event // what the loop hands out: to the program, or to its handlers
	public chan Event // what the program sees
	frames chan frame
	wake   chan struct{} // something is in inbox
	first  chan error    // the outcome of Dial
	wait   sync.WaitGroup

	mu      sync.Mutex
	inbox   []func()
	stopped bool
	present Session
	valid   bool

	// Read after the loop has ended.
	closeErr error
	final    Stats

	// Owned by run.
	rng     *rand.Rand
	machine *resume.Machine
	store   *store
	device  string
	stats   Stats

	starting bool // Dial waits
	link     *link
	phase    phase
	dialing  bool
	next     int      // address to try next
	told     []target // where the last node sent us: tried before, once each
	tries    int      // since the last connection that stayed
	dialErrs []error
	redialAt time.Time

	hello              *pb.HelloResponse
	ping, silence      time.Duration
	received, sent     time.Time
	liveSince, checkAt time.Time
	syncAt             time.Time

	token      string
	user       User
	ended      error // why there is no session and none will be tried for; nil: there is or will be one
	away       error // why we must not come back
	refreshing bool
	state      StateChange
	stateTold  bool
	// While the client moves to another node: what the program is told if it is not there by then.
	moving  StateChange
	movedAt time.Time // zero: it does not move

	lastID   uint64
	requests map[uint64]*request
	calls    int // requests for callers
	waiting  []*call
	pending  map[string]*Pending
	senders  []*sender
	drains   []chan struct{}
	entrants []func() // who waits for a session that is open, until its heads were read

	queue      []item
	others     int // events in queue that are not messages
	generation int // of positions: raised when all are void
}

// newLoop opens the folder and sets everything up; run makes it live.
func newLoop(addrs []string, o options) (*loop, error) {
	l := &loop{
		o: o, addrs: slices.Clone(addrs), log: o.logger, rng: o.rand,
		events: make(chan Event), frames: make(chan frame, 4), wake: make(chan struct{}, 1), first: make(chan error, 1),
		requests: map[uint64]*request{}, pending: map[string]*Pending{}, ended: ErrNotLoggedIn, starting: true,
	}
	l.public = l.events
	if o.handlers != nil {
		l.public = make(chan Event)
	}
	if l.rng == nil {
		l.rng = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if o.dir != "" {
		s, err := openStore(o.dir)
		if err != nil {
			return nil, err
		}
		l.store = s
		l.device, l.token, l.user = s.state.Device, s.state.Token, s.state.User
	}
	if o.device != "" {
		l.device = o.device
	}
	if l.device == "" {
		l.device = uuid.NewString()
	}
	if l.store != nil && l.store.state.Device != l.device {
		l.store.state.Device = l.device
		if err := l.store.rewrite(); err != nil {
			return nil, errors.Join(fmt.Errorf("save the device's id: %w", err), l.store.close())
		}
	}
	if o.token != "" {
		l.token = o.token
	}
	if l.token != "" {
		l.ended = nil
	}
	l.machine = resume.New(o.resume, l.rng, l.store.resumeState())
	l.next = l.rng.IntN(len(addrs))
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.publish()
	return l, nil
}

// ready waits for the outcome of Dial.
func (l *loop) ready(ctx context.Context) error {
	select {
	case err := <-l.first:
		return err
	case <-ctx.Done():
		return fmt.Errorf("dial: %w", context.Cause(ctx))
	}
}

// settled tells Dial, once.
func (l *loop) settled(err error) {
	if l.starting {
		l.starting = false
		l.first <- err
	}
}

// post has f run by the loop; false: the client is closed and f will not run.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.inbox = append(l.inbox, f)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

func (l *loop) stop() { l.cancel(ErrClosed) }

func (l *loop) now() time.Time { return l.o.clock.Now() }

// run is the loop. It returns when all goroutines that it started have ended.
func (l *loop) run() {
	if l.o.handlers != nil {
		l.wait.Go(func() { l.o.handlers.serve(l.events) })
	}
	var timer <-chan time.Time
	free := func() {}
	var armed time.Time
	l.redialAt = l.now()
	for {
		l.progress()
		if at := l.nextWake(); timer == nil || at.Before(armed) {
			free()
			armed = at
			timer, free = l.o.clock.After(max(at.Sub(l.now()), 0))
		}
		events, head := l.head()
		select {
		case <-l.ctx.Done():
			free()
			l.shutdown()
			return
		case <-l.wake:
			l.mu.Lock()
			todo := l.inbox
			l.inbox = nil
			l.mu.Unlock()
			for _, f := range todo {
				f()
			}
		case f := <-l.frames:
			if f.link == l.link {
				l.frame(f)
			}
		case events <- head:
			l.taken()
		case <-timer:
			timer = nil
			l.timePassed()
		}
	}
}

// progress does what the last event made possible.
func (l *loop) progress() {
	if l.link == nil && !l.dialing && l.away == nil && l.wantsLink() && !l.now().Before(l.redialAt) {
		l.startDial()
	}
	l.enterIfDue()
	l.sendWaiting()
	l.admitSenders()
	if len(l.drains) > 0 && l.machine.Outbox() == 0 && len(l.senders) == 0 {
		for _, d := range l.drains {
			close(d)
		}
		l.drains = nil
	}
	if err := l.store.flush(); err != nil && !l.stats.FolderFailed {
		l.stats.FolderFailed = true
		l.log.Error("the client's folder cannot be written: what is in memory will not outlive the program", "err", err)
	}
}

// wantsLink: there is a session to resume, somebody who logs in, or Dial is waiting.
func (l *loop) wantsLink() bool {
	return l.ended == nil || l.starting ||
		slices.ContainsFunc(l.waiting, func(c *call) bool { return c.mode == callEnter })
}

// farAway is when the loop wakes if nothing is to be done.
const farAway = time.Hour

func (l *loop) nextWake() time.Time {
	at := l.now().Add(farAway)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	if l.link == nil && !l.dialing && l.away == nil && l.wantsLink() {
		sooner(l.redialAt)
	}
	if l.link != nil {
		sooner(l.sent.Add(l.ping))
		sooner(l.received.Add(l.silence))
		sooner(l.checkAt)
	}
	if !l.movedAt.IsZero() {
		sooner(l.movedAt.Add(moveGrace))
	}
	if l.store != nil && l.store.dirty {
		sooner(l.syncAt)
	}
	sooner(l.machine.Wake())
	return at
}

func (l *loop) timePassed() {
	now := l.now()
	if l.store != nil && l.store.dirty && !now.Before(l.syncAt) {
		l.syncAt = now.Add(time.Second)
		if err := l.store.sync(); err != nil {
			l.log.Warn("saving the client's folder", "err", err)
		}
	}
	if l.link != nil {
		l.checkLink(now)
	}
	if !l.movedAt.IsZero() && !now.Before(l.movedAt.Add(moveGrace)) {
		l.setState(l.moving)
	}
	if w := l.machine.Wake(); !w.IsZero() && !now.Before(w) {
		l.step(resume.Tick{})
	}
}

func (l *loop) checkLink(now time.Time) {
	if now.Sub(l.received) >= l.silence {
		l.lost(errors.New("the node is silent"), 0)
		return
	}
	if !now.Before(l.checkAt) {
		l.checkAt = now.Add(l.o.timeout / 4)
		if at := l.link.leaving; !at.IsZero() && now.Sub(at) >= l.o.timeout {
			l.lost(errors.New("the node goes down and does not say so"), 0)
			return
		}
		for _, r := range l.requests {
			patience := l.o.timeout
			if r.kind == forHello {
				patience = l.helloPatience(l.link.target)
			}
			if now.Sub(r.at) >= patience {
				l.lost(fmt.Errorf("the node did not answer within %v", patience), 0)
				return
			}
		}
	}
	if now.Sub(l.sent) >= l.ping {
		l.request(&request{kind: forPing}, &pb.Envelope{Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}})
	}
}

// shutdown ends everything, in the order in which it depends on each other.
func (l *loop) shutdown() {
	l.mu.Lock()
	l.stopped = true
	todo := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	for _, f := range todo {
		f()
	}
	l.ended, l.away = ErrClosed, ErrClosed
	l.lost(ErrClosed, 0)
	l.settled(ErrClosed)
	for _, c := range l.waiting {
		c.reply <- reply{err: ErrClosed}
	}
	for _, s := range l.senders {
		s.reply <- sendReply{err: ErrClosed}
	}
	for _, p := range l.pending {
		p.resolve(Receipt{}, ErrClosed)
	}
	close(l.events)
	if l.public != l.events {
		close(l.public)
	}
	for _, d := range l.drains {
		close(d)
	}
	l.closeErr = l.store.close()
	l.final = l.snapshot()
	l.wait.Wait()
}

// publish makes the session readable without the loop.
func (l *loop) publish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.present = Session{User: l.user, Token: l.token}
	l.valid = l.ended == nil && l.away == nil && l.user.ID != ""
}

func (l *loop) session() (Session, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.present, l.valid
}

// frame takes what came on the present connection.
func (l *loop) frame(f frame) {
	if f.err != nil {
		l.lost(f.err, 0)
		return
	}
	l.received = l.now()
	if f.env.GetId() != 0 {
		l.answer(f.env)
		return
	}
	switch b := f.env.GetBody().(type) {
	case *pb.Envelope_Closing:
		if b.Closing.GetReason() == pb.Closing_REASON_DRAINING {
			l.move(b.Closing)
			return
		}
		l.closing(b.Closing)
	case *pb.Envelope_Error:
		l.lost(fmt.Errorf("the node refused a frame: %w", l.errorOf(b.Error)), 0)
	default:
		// Before there is a session nobody can have sent us anything.
		if l.phase == phaseLive {
			l.liveEvent(f.env)
		}
	}
}

func (l *loop) liveEvent(e *pb.Envelope) {
	switch b := e.GetBody().(type) {
	case *pb.Envelope_Delivery:
		l.step(resume.Delivered{Messages: b.Delivery.GetMessages()})
	case *pb.Envelope_Skip:
		l.step(resume.Skipped{Skip: b.Skip})
	case *pb.Envelope_CompareHeads:
		l.step(resume.Compare{})
	case *pb.Envelope_Rejected:
		l.step(resume.Rejected{
			Conversation: b.Rejected.GetConversation(), ID: b.Rejected.GetClientMsgId(), Err: l.errorOf(b.Rejected.GetError()),
		})
	case *pb.Envelope_Presence:
		for _, c := range b.Presence.GetChanges() {
			if _, err := wire.ParseID(c.GetUserId()); err == nil {
				l.enqueue(item{event: Presence{UserID: c.GetUserId(), Online: c.GetOnline()}})
			}
		}
	}
	// Anything else is of a later version.
}

// errorOf bounds what the server says.
func (l *loop) errorOf(p *pb.Error) *wire.Error {
	e := wire.FromProto(p)
	e.Message, e.Field = clip(e.Message, maxNote), clip(e.Field, wire.MaxClientBytes)
	if _, known := pb.Code_name[int32(e.Code)]; !known || e.Code == pb.Code_CODE_UNSPECIFIED {
		e.Code = pb.Code_CODE_INTERNAL
	}
	return e
}

// closing: the node ends the connection, and says whether to come back.
func (l *loop) closing(c *pb.Closing) {
	err := closingError(c)
	if !staysAway(c.GetReason()) {
		l.lost(err, time.Duration(c.GetRetryAfterMs())*time.Millisecond)
		return
	}
	if c.GetReason() == pb.Closing_REASON_SESSION_ENDED {
		if l.ended != nil { // after Logout
			l.lost(err, 0)
			return
		}
		l.sessionEnded(err)
		return
	}
	l.away = err
	l.lost(err, 0)
	l.halt(err)
	l.publish()
	l.setState(StateChange{State: Away, Err: err})
	l.settled(err)
}
