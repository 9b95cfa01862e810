// Package session is one connection's life as a step function: Step(now, event) returns effects, and the shell (package
// node) carries them out. It has no goroutine, clock, lock or I/O, so that a simulation can drive it through every
// order of events. It decides
//
//   - what may be asked when: Hello, then a log-in, then the rest;
//   - that requests run one at a time and in order, within a bounded queue (I7);
//   - that a failed or unknown send holds back later ones to its conversation until it is resent (design.md, "Sending");
//   - that the session is registered in presence before its heads are read (I4), and gets no message before that.
//
// Start reading at Step.
package session

import (
	"cmp"
	"slices"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Limits bound what one connection can make the node hold.
type Limits struct {
	// Queue is how many requests may wait behind the running one.
	Queue int
	// InFlight is how many sends may await the log.
	InFlight int
	// Held is how many conversations may be held back by a failed send before the session is closed: a client that
	// fails in so many must start afresh. Of the sends themselves heldEach times as many may be held back, in all.
	Held int
}

const heldEach = 8

// DefaultLimits suit a person with a fast program.
var DefaultLimits = Limits{Queue: 64, InFlight: 256, Held: 64}

// Hello is what a node tells in HelloResponse.
type Hello struct {
	Node, Cluster   string
	Epoch           uint32
	MaxFrame        uint32
	Ping, Silence   time.Duration
	RetryOnOverload time.Duration
}

type state uint8

const (
	fresh    state = iota // no Hello yet
	greeted               // no session yet
	entering              // a log-in runs, or presence is being written
	live
	closed
)

// Session is the state of one connection. The zero value is not ready: use New.
type Session struct {
	limits Limits
	hello  Hello

	state   state
	user    int64
	arrived uint64  // requests queued or refused so far
	running request // the request that the shell runs, or zero
	queue   []request
	// entry answers a log-in once presence has been written.
	entry *pb.Envelope
	// compares: the client was told to compare all heads, and has not begun to: one more word would tell it nothing. Many
	// partitions that change hands at once thus cost a session one comparison.
	compares bool

	// refusing: the node goes down, and nothing more is taken. draining: the connection is to end when what was taken is answered.
	refusing, draining bool

	sends map[sendKey]*send
	// early are sends that the log answered before they were Admitted, which is still to come for each.
	early map[sendKey]int
	// held is, per conversation, the sends that must be resent before anything that came later may go, oldest first. heldSends
	// counts them; tooMany says that one more could not be remembered, so that the order is not kept any more.
	held      map[string][]held
	heldSends int
	tooMany   bool
}

// request is a request and its place in the order in which they came.
type request struct {
	*pb.Envelope
	arrival uint64
}

// held is a send that has failed, by when it first came.
type held struct {
	id      string
	arrival uint64
}

type sendKey struct{ conversation, id string }

// send is one message that the log has not answered; waiting has the ids of all requests that await it.
type send struct {
	waiting []uint64
	arrival uint64
}

// New returns the state of a connection that was just accepted.
func New(limits Limits, hello Hello) *Session {
	return &Session{limits: limits, hello: hello, sends: map[sendKey]*send{}, early: map[sendKey]int{}, held: map[string][]held{}}
}

// Event is what happened to a connection: one of the types below.
type Event interface{ event() }

type (
	// Received is a request from the client.
	Received struct{ Envelope *pb.Envelope }
	// Done is the answer to an effect Run. Body is the answer's envelope without its id; Err, if set, is told instead.
	Done struct {
		Body *pb.Envelope
		Err  *wire.Error
		// Entered is set by a log-in that succeeded, to the account.
		Entered int64
		// Left is set by a log-out that succeeded.
		Left bool
	}
	// Registered answers Register. Degraded: presence is away, and the shell registers later.
	Registered struct{ Degraded bool }
	// Prepared says of a send that runs that the rules allow it: it may go to the log, unless one has failed meanwhile that must go
	// first.
	Prepared struct{}
	// Admitted is Done for a send: the rules allow it and the log has taken it into its queue. It may come after Appended. Each
	// has both; one that the log did not take has Done alone.
	Admitted struct{ Conversation, ClientMsgID string }
	// Appended is the log's answer for an admitted send.
	Appended struct {
		Conversation, ClientMsgID string
		Seq                       uint64
		Time                      time.Time
		Err                       *wire.Error
	}
	// Deliver is a message for this session, as an encoded frame.
	Deliver struct{ Frame []byte }
	// Compare tells that deliveries may have been missed. No conversations: any. Untold: the word for the last one found no room.
	Compare struct {
		Conversations []string
		Untold        bool
	}
	// Drain tells that the node goes down: requests that were taken are answered, further ones refused as DRAINING, then the
	// connection ends.
	Drain struct{}
	// Ended is the end of the connection.
	Ended struct{}
)

func (Received) event()   {}
func (Done) event()       {}
func (Registered) event() {}
func (Prepared) event()   {}
func (Admitted) event()   {}
func (Appended) event()   {}
func (Deliver) event()    {}
func (Compare) event()    {}
func (Drain) event()      {}
func (Ended) event()      {}

// Effect is what the shell must do, in order: one of the types below.
type Effect interface{ effect() }

type (
	// Write sends an envelope to the client.
	Write struct{ Envelope *pb.Envelope }
	// Forward sends an encoded frame, shared with other sessions.
	Forward struct{ Frame []byte }
	// Run carries out a request in a worker, and answers Done, or for a send Prepared. At most one is under way.
	Run struct {
		User    int64
		Request *pb.Envelope
	}
	// Append hands the send that was prepared to the log, and answers Admitted, or Done if it was not taken.
	Append struct{}
	// Register writes presence for this connection, and answers Registered.
	Register struct{ User int64 }
	// Unregister removes presence for this connection.
	Unregister struct{ User int64 }
	// Close ends the connection after what was written.
	Close struct{ Reason pb.Closing_Reason }
)

func (Write) effect()      {}
func (Forward) effect()    {}
func (Run) effect()        {}
func (Append) effect()     {}
func (Register) effect()   {}
func (Unregister) effect() {}
func (Close) effect()      {}

// Step takes what happened and returns what must be done.
func (s *Session) Step(now time.Time, e Event) []Effect {
	if s.state == closed {
		return nil
	}
	out := s.step(now, e)
	if s.draining && s.state != closed && s.settled() {
		// From now on nothing is expected of the connection but its end, which Ended tells.
		s.draining = false
		out = append(out, Close{pb.Closing_REASON_DRAINING})
	}
	return out
}

// settled: all that was taken has been answered.
func (s *Session) settled() bool {
	return s.running.Envelope == nil && len(s.queue) == 0 && len(s.sends) == 0 && s.state != entering
}

func (s *Session) step(now time.Time, e Event) []Effect {
	switch e := e.(type) {
	case Received:
		return s.received(now, e.Envelope)
	case Done:
		return s.done(now, e)
	case Registered:
		return s.registered(now, e)
	case Prepared:
		return s.prepared(now)
	case Admitted:
		return s.admitted(now, e)
	case Appended:
		return s.appended(now, e)
	case Deliver:
		if s.state == live {
			return []Effect{Forward(e)}
		}
	case Compare:
		if s.state == live && (!s.compares || e.Untold) {
			s.compares = len(e.Conversations) == 0
			return []Effect{Write{&pb.Envelope{Body: &pb.Envelope_CompareHeads{
				CompareHeads: &pb.CompareHeads{Conversations: e.Conversations},
			}}}}
		}
	case Drain:
		s.draining, s.refusing = true, true
	case Ended:
		return s.end()
	}
	return nil
}

func (s *Session) end() []Effect {
	was := s.state
	s.state, s.queue, s.entry = closed, nil, nil
	if s.user != 0 && (was == live || was == entering) {
		return []Effect{Unregister{s.user}}
	}
	return nil
}

func (s *Session) received(now time.Time, e *pb.Envelope) []Effect {
	if err := wire.Validate(e); err != nil {
		return refuse(e.GetId(), err)
	}
	switch e.Body.(type) {
	case *pb.Envelope_Ping:
		// Answered at once, also behind a slow request: it asks whether the connection lives.
		return answer(e.GetId(), &pb.Envelope{Body: &pb.Envelope_Ok{Ok: &pb.Ok{}}})
	case *pb.Envelope_Hello:
		return s.greet(now, e)
	}
	if s.refusing {
		// No send is held back for it: none of this connection can go any more.
		return refuse(e.GetId(), &wire.Error{
			Code: pb.Code_CODE_DRAINING, RetryAfter: s.hello.RetryOnOverload, Message: "this node goes down: ask the next one",
		})
	}
	if s.state == fresh {
		return refuse(e.GetId(), wire.Errorf(pb.Code_CODE_NOT_LOGGED_IN, "say Hello first"))
	}
	s.arrived++
	r := request{e, s.arrived}
	if len(s.queue) >= s.limits.Queue {
		return s.refuse(r, s.overload("too many requests wait on this connection"))
	}
	s.queue = append(s.queue, r)
	return s.next(now)
}

func (s *Session) greet(now time.Time, e *pb.Envelope) []Effect {
	if s.state != fresh {
		return refuse(e.GetId(), wire.Errorf(pb.Code_CODE_ALREADY, "Hello was said before"))
	}
	if e.GetHello().GetVersion() < 1 {
		out := refuse(e.GetId(), wire.Errorf(pb.Code_CODE_VERSION, "version %d is not spoken here: 1 is", e.GetHello().GetVersion()))
		return append(out, Close{pb.Closing_REASON_VERSION})
	}
	s.state = greeted
	return answer(e.GetId(), &pb.Envelope{Body: &pb.Envelope_HelloOk{HelloOk: &pb.HelloResponse{
		Version: wire.Version, Node: s.hello.Node, TimeMs: now.UnixMilli(), MaxFrame: s.hello.MaxFrame,
		PingMs: uint32(s.hello.Ping.Milliseconds()), SilenceMs: uint32(s.hello.Silence.Milliseconds()),
		Cluster: s.hello.Cluster, Epoch: s.hello.Epoch,
	}}})
}

// next starts the oldest waiting request if none runs.
func (s *Session) next(now time.Time) []Effect {
	var out []Effect
	for s.running.Envelope == nil && s.state != entering && len(s.queue) > 0 {
		e := s.queue[0]
		s.queue[0] = request{}
		s.queue = s.queue[1:]
		out = append(out, s.start(e)...)
	}
	if len(s.queue) == 0 {
		s.queue = nil
	}
	return out
}

func (s *Session) start(e request) []Effect {
	switch e.Body.(type) {
	case *pb.Envelope_Register, *pb.Envelope_Login, *pb.Envelope_Resume:
		if s.state != greeted {
			return refuse(e.GetId(), wire.Errorf(pb.Code_CODE_ALREADY, "this connection has a session already"))
		}
	default:
		if s.state != live {
			return refuse(e.GetId(), wire.Errorf(pb.Code_CODE_NOT_LOGGED_IN, "log in first"))
		}
	}
	if r := e.GetSend(); r != nil {
		if out, stop := s.holdBack(e, r); stop {
			return out
		}
	}
	if e.GetSync() != nil {
		s.compares = false // what is missed from now on is not in this answer
	}
	s.running = e
	return []Effect{Run{User: s.user, Request: e.Envelope}}
}

// holdBack decides whether a send may go to the log now.
func (s *Session) holdBack(e request, r *pb.SendRequest) ([]Effect, bool) {
	id, key := e.GetId(), sendKey{r.GetConversation(), r.GetClientMsgId()}
	if inFlight := s.sends[key]; inFlight != nil {
		if len(inFlight.waiting) >= s.limits.InFlight {
			return refuse(id, s.overload("too many resends of one message")), true
		}
		inFlight.waiting = append(inFlight.waiting, id)
		return nil, true
	}
	if first := s.firstHeld(key.conversation, e.arrival); first != "" && first != key.id {
		return refuseInOrder(id, first), true
	}
	if len(s.sends) >= s.limits.InFlight {
		return s.refuse(e, s.overload("too many messages await the log")), true
	}
	return nil, false
}

// firstHeld is the message that must be resent before one that came at arrival may go, or empty. One that was refused while an
// earlier one waited in the queue does not hold back that one. Those that are on their way to the log again need no wait:
// should one fail, the log fails all that was queued behind it.
func (s *Session) firstHeld(conversation string, arrival uint64) string {
	for _, h := range s.held[conversation] {
		if h.arrival >= arrival {
			break
		}
		if s.sends[sendKey{conversation, h.id}] == nil {
			return h.id
		}
	}
	return ""
}

// hold keeps a send in its place by when it first came.
func (s *Session) hold(key sendKey, arrival uint64) {
	list := s.held[key.conversation]
	if slices.ContainsFunc(list, func(h held) bool { return h.id == key.id }) {
		return
	}
	if s.heldSends >= heldEach*s.limits.Held {
		s.tooMany = true
		return
	}
	s.heldSends++
	at, _ := slices.BinarySearchFunc(list, arrival, func(h held, a uint64) int { return cmp.Compare(h.arrival, a) })
	s.held[key.conversation] = slices.Insert(list, at, held{key.id, arrival})
}

// free forgets that id was held back: it went through, or can never.
func (s *Session) free(key sendKey) {
	was := s.held[key.conversation]
	list := slices.DeleteFunc(was, func(h held) bool { return h.id == key.id })
	s.heldSends -= len(was) - len(list)
	if len(list) == 0 {
		delete(s.held, key.conversation)
		return
	}
	s.held[key.conversation] = list
}

func (s *Session) done(now time.Time, e Done) []Effect {
	if s.running.Envelope == nil {
		return nil
	}
	ran, id := s.running, s.running.GetId()
	s.running = request{}
	switch {
	case e.Err != nil:
		return append(s.refuse(ran, e.Err), s.next(now)...)
	case e.Entered != 0:
		s.user, s.state = e.Entered, entering
		e.Body.Id = id
		s.entry = e.Body
		return []Effect{Register{s.user}}
	case e.Left:
		out := append(answer(id, e.Body), s.end()...)
		return append(out, Close{pb.Closing_REASON_SESSION_ENDED})
	}
	if r := ran.GetSend(); r != nil {
		// A resend that the database knows already went through.
		s.free(sendKey{r.GetConversation(), r.GetClientMsgId()})
	}
	return append(answer(id, e.Body), s.next(now)...)
}

func (s *Session) registered(now time.Time, e Registered) []Effect {
	if s.state != entering {
		return nil
	}
	s.state = live
	entry := s.entry
	s.entry = nil
	if r := entry.GetSession(); r != nil {
		r.Degraded = e.Degraded
	}
	return append([]Effect{Write{entry}}, s.next(now)...)
}

// prepared lets the running send go to the log. What was on its way when the send began to run may have failed since.
func (s *Session) prepared(now time.Time) []Effect {
	ran, r := s.running, s.running.GetSend()
	if r == nil {
		return nil
	}
	if first := s.firstHeld(r.GetConversation(), ran.arrival); first != "" && first != r.GetClientMsgId() {
		s.running = request{}
		return append(refuseInOrder(ran.GetId(), first), s.next(now)...)
	}
	return []Effect{Append{}}
}

func refuseInOrder(id uint64, first string) []Effect {
	return refuse(id, wire.Errorf(pb.Code_CODE_RETRY_IN_ORDER, "resend %s first: its outcome is not known", first))
}

func (s *Session) admitted(now time.Time, e Admitted) []Effect {
	key := sendKey{e.Conversation, e.ClientMsgID}
	if s.early[key] > 0 { // said of one that was answered; the running one may be its resend
		if s.early[key]--; s.early[key] == 0 {
			delete(s.early, key)
		}
		return nil
	}
	if !s.admit(key) {
		return nil
	}
	return s.next(now)
}

// admit makes the running request one that awaits the log, if it is the send that is meant.
func (s *Session) admit(key sendKey) bool {
	r := s.running.GetSend()
	if r == nil || key != (sendKey{r.GetConversation(), r.GetClientMsgId()}) {
		return false
	}
	s.sends[key] = &send{waiting: []uint64{s.running.GetId()}, arrival: s.running.arrival}
	s.running = request{}
	return true
}

func (s *Session) appended(now time.Time, e Appended) []Effect {
	key := sendKey{e.Conversation, e.ClientMsgID}
	// The log may answer before the shell can say Admitted. Answers come in the log's order, which holding back relies on, so
	// they do not wait for that.
	if s.admit(key) {
		s.early[key]++
		return append(s.settle(key, e), s.next(now)...)
	}
	return s.settle(key, e)
}

func (s *Session) settle(key sendKey, e Appended) []Effect {
	sent := s.sends[key]
	if sent == nil {
		return nil
	}
	delete(s.sends, key)
	var out []Effect
	if e.Err == nil {
		s.free(key)
		for _, id := range sent.waiting {
			out = append(out, answer(id, &pb.Envelope{Body: &pb.Envelope_Sent{Sent: &pb.SendResponse{
				ClientMsgId: e.ClientMsgID, Seq: e.Seq, TimeMs: e.Time.UnixMilli(),
			}}})...)
		}
		return out
	}
	if e.Err.RetryAfter > 0 {
		s.hold(key, sent.arrival)
	} else {
		s.free(key)
	}
	for _, id := range sent.waiting {
		out = append(out, refuse(id, e.Err)...)
	}
	return append(out, s.overheld()...)
}

// refuse answers an error. A send that may be tried again holds back later ones to its conversation: else they would
// overtake it.
func (s *Session) refuse(e request, err *wire.Error) []Effect {
	if r := e.GetSend(); r != nil {
		key := sendKey{r.GetConversation(), r.GetClientMsgId()}
		if err.RetryAfter > 0 {
			s.hold(key, e.arrival)
		} else {
			s.free(key)
		}
	}
	out := refuse(e.GetId(), err)
	return append(out, s.overheld()...)
}

// overheld ends a connection for which more would have to be held back than is allowed.
func (s *Session) overheld() []Effect {
	if s.tooMany || len(s.held) > s.limits.Held {
		return []Effect{Close{pb.Closing_REASON_OVERLOADED}}
	}
	return nil
}

func (s *Session) overload(message string) *wire.Error {
	return &wire.Error{Code: pb.Code_CODE_RATE_LIMITED, RetryAfter: s.hello.RetryOnOverload, Message: message}
}

func answer(id uint64, body *pb.Envelope) []Effect {
	body.Id = id
	return []Effect{Write{body}}
}

func refuse(id uint64, err *wire.Error) []Effect {
	return answer(id, &pb.Envelope{Body: &pb.Envelope_Error{Error: err.Proto()}})
}
