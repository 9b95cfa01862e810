package future

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/futurechat/future/clientsdk/resume"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// callMode says what becomes of a caller's request when its connection is lost.
type callMode int

const (
	// callEnter opens a session; lost under way: ErrDisconnected.
	callEnter callMode = iota
	// callOnce must not be carried out twice; lost under way: ErrDisconnected.
	callOnce
	// callAgain is asked again on the next connection.
	callAgain
	// callPatient is callAgain that also waits for what is acknowledged but not yet readable.
	callPatient
)

// call is a request of the program.
type call struct {
	env       *pb.Envelope
	mode      callMode
	abandoned bool
	reply     chan reply // has room for the one reply
}

type reply struct {
	env *pb.Envelope
	err error
}

// request is what is under way on the present connection.
type request struct {
	kind requestKind
	at   time.Time
	call *call
	// Of a send or a page of history.
	conversation, id string
}

type requestKind int

const (
	forHello requestKind = iota
	forPing
	forResume
	forCall
	forSync
	forFetch
	forSend
)

// callsMost is how many of the program's requests may be under way: with the machine's they stay below a node's queue.
const callsMost = 16

// call carries out a request of the program and waits for the answer.
func (l *loop) call(ctx context.Context, e *pb.Envelope, mode callMode) (*pb.Envelope, error) {
	if err := l.checkRequest(e); err != nil {
		return nil, err
	}
	for {
		answer, err := l.callOnce(ctx, e, mode)
		if mode != callPatient || !errors.Is(err, ErrPending) {
			return answer, err
		}
		if err := l.pause(ctx, err); err != nil {
			return nil, err
		}
	}
}

// checkRequest finds what a node would refuse.
func (l *loop) checkRequest(e *pb.Envelope) error {
	device := &pb.Device{Id: l.device, Name: l.o.deviceName}
	switch b := e.GetBody().(type) {
	case *pb.Envelope_Register:
		b.Register.Device = device
	case *pb.Envelope_Login:
		b.Login.Device = device
	case *pb.Envelope_Resume:
		b.Resume.Device = device
	}
	e.Id = 1
	if err := wire.Validate(e); err != nil {
		return err
	}
	return nil
}

// pause waits as long as an error asks.
func (l *loop) pause(ctx context.Context, err error) error {
	d := 100 * time.Millisecond
	if e := (*wire.Error)(nil); errors.As(err, &e) && e.RetryAfter > 0 {
		d = min(e.RetryAfter, longestAsked)
	}
	timer, free := l.o.clock.After(d)
	defer free()
	select {
	case <-timer:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.ctx.Done():
		return ErrClosed
	}
}

func (l *loop) callOnce(ctx context.Context, e *pb.Envelope, mode callMode) (*pb.Envelope, error) {
	c := &call{env: &pb.Envelope{Body: e.GetBody()}, mode: mode, reply: make(chan reply, 1)}
	if !l.post(func() { l.begin(c) }) {
		return nil, ErrClosed
	}
	select {
	case r := <-c.reply:
		return r.env, r.err
	case <-ctx.Done():
		l.post(func() { l.abandon(c) })
		return nil, context.Cause(ctx)
	}
}

func (l *loop) begin(c *call) {
	if c.mode == callEnter {
		// A person acts.
		if l.away != nil {
			l.away, l.tries, l.redialAt = nil, 0, l.now()
			if l.token == "" {
				l.ended = ErrNotLoggedIn
			}
		}
	} else if err := l.standstill(); err != nil {
		c.reply <- reply{err: err}
		return
	}
	l.waiting = append(l.waiting, c)
}

// standstill is why nothing can be done until a person acts, or nil.
func (l *loop) standstill() error {
	if l.away != nil {
		return l.away
	}
	if l.refreshing {
		return nil
	}
	return l.ended
}

func (l *loop) abandon(c *call) {
	c.abandoned = true
	l.waiting = slices.DeleteFunc(l.waiting, func(x *call) bool { return x == c })
}

// enterIfDue begins a session on a connection that has none.
func (l *loop) enterIfDue() {
	if l.link == nil || !l.link.leaving.IsZero() || l.phase != phaseGreeted && l.phase != phaseLive {
		return
	}
	i := slices.IndexFunc(l.waiting, func(c *call) bool { return c.mode == callEnter })
	switch {
	case i >= 0:
		c := l.waiting[i]
		l.waiting = slices.Delete(l.waiting, i, i+1)
		_, resumes := c.env.GetBody().(*pb.Envelope_Resume)
		if !resumes && !l.o.insecure && !l.link.private() {
			c.reply <- reply{err: ErrInsecure}
			return
		}
		if l.phase == phaseGreeted {
			l.phase = phaseEntering
		} // else the node will say that there is a session already
		l.request(&request{kind: forCall, call: c}, c.env)
	case l.phase == phaseGreeted && l.ended == nil && l.token != "":
		l.phase = phaseEntering
		l.request(&request{kind: forResume}, &pb.Envelope{Body: &pb.Envelope_Resume{Resume: &pb.ResumeRequest{
			Token: l.token, Device: &pb.Device{Id: l.device, Name: l.o.deviceName},
		}}})
	}
}

// sendWaiting starts requests of the program on a connection with a session.
func (l *loop) sendWaiting() {
	for l.phase == phaseLive && l.link.leaving.IsZero() && l.calls < callsMost {
		i := slices.IndexFunc(l.waiting, func(c *call) bool { return c.mode != callEnter })
		if i < 0 {
			return
		}
		c := l.waiting[i]
		l.waiting = slices.Delete(l.waiting, i, i+1)
		l.request(&request{kind: forCall, call: c}, c.env)
	}
}

// request writes e to the present connection and remembers what its answer is for.
func (l *loop) request(r *request, e *pb.Envelope) {
	l.lastID++
	e.Id = l.lastID
	b, err := wire.AppendFrame(nil, e)
	if err == nil && l.hello.GetMaxFrame() > 0 && len(b)-wire.HeaderLen > int(l.hello.GetMaxFrame()) {
		err = wire.Errorf(pb.Code_CODE_TOO_LARGE, "%d bytes, the node takes %d", len(b)-wire.HeaderLen, l.hello.GetMaxFrame())
	}
	r.at = l.now()
	l.requests[e.Id] = r
	if r.kind == forCall {
		l.calls++
	}
	if err != nil {
		refused := wire.Errorf(pb.Code_CODE_INTERNAL, "%v", err)
		if e := (*wire.Error)(nil); errors.As(err, &e) {
			refused = e
		}
		answer := &pb.Envelope{Id: e.Id, Body: &pb.Envelope_Error{Error: refused.Proto()}}
		l.post(func() { l.answer(answer) })
		return
	}
	l.sent = r.at
	select {
	case l.link.out <- b:
	default:
		k := l.link
		l.post(func() {
			if l.link == k {
				l.lost(errors.New("the connection takes no more"), 0)
			}
		})
	}
}

// answer hands the answer to who asked.
func (l *loop) answer(e *pb.Envelope) {
	r := l.requests[e.GetId()]
	if r == nil {
		l.stats.Unasked++
		return
	}
	delete(l.requests, e.GetId())
	var err *wire.Error
	if b, ok := e.GetBody().(*pb.Envelope_Error); ok {
		err = l.errorOf(b.Error)
	} else if !fits(r, e) {
		l.lost(fmt.Errorf("%w: an answer of another kind than was asked for", ErrProtocol), 0)
		l.unanswered(map[uint64]*request{0: r}, ErrProtocol)
		return
	}
	switch r.kind {
	case forHello:
		l.greeted(e.GetHelloOk(), err)
	case forResume:
		l.resumed(e.GetSession(), err)
	case forCall:
		l.calls--
		l.answerCall(r.call, e, err)
	case forSync:
		l.step(resume.Heads{Heads: e.GetHeads().GetHeads(), Err: err})
		l.synced()
	case forFetch:
		l.step(resume.Page{Conversation: r.conversation, Page: e.GetHistoryPage(), Err: err})
	case forSend:
		l.step(resume.Answered{
			Conversation: r.conversation, ID: r.id, Err: err, Seq: e.GetSent().GetSeq(), Time: time.UnixMilli(e.GetSent().GetTimeMs()),
		})
	}
}

// fits tells whether an answer is of the kind that a request wants.
func fits(r *request, e *pb.Envelope) bool {
	ok := false
	switch r.kind {
	case forHello:
		_, ok = e.GetBody().(*pb.Envelope_HelloOk)
	case forPing:
		_, ok = e.GetBody().(*pb.Envelope_Ok)
	case forResume:
		_, ok = e.GetBody().(*pb.Envelope_Session)
	case forSync:
		_, ok = e.GetBody().(*pb.Envelope_Heads)
	case forFetch:
		_, ok = e.GetBody().(*pb.Envelope_HistoryPage)
	case forSend:
		_, ok = e.GetBody().(*pb.Envelope_Sent)
	case forCall:
		return fitsCall(r.call.env, e)
	}
	return ok
}

func fitsCall(asked, e *pb.Envelope) bool {
	ok := false
	switch asked.GetBody().(type) {
	case *pb.Envelope_Register, *pb.Envelope_Login, *pb.Envelope_Resume:
		_, ok = e.GetBody().(*pb.Envelope_Session)
	case *pb.Envelope_FindUser:
		_, ok = e.GetBody().(*pb.Envelope_User)
	case *pb.Envelope_ListFriends:
		_, ok = e.GetBody().(*pb.Envelope_Friends)
	case *pb.Envelope_Conversations:
		_, ok = e.GetBody().(*pb.Envelope_ConversationList)
	case *pb.Envelope_History:
		_, ok = e.GetBody().(*pb.Envelope_HistoryPage)
	default:
		_, ok = e.GetBody().(*pb.Envelope_Ok)
	}
	return ok
}

func (l *loop) answerCall(c *call, e *pb.Envelope, err *wire.Error) {
	if err != nil && errors.Is(err, ErrDraining) {
		l.askElsewhere(c)
		return
	}
	if c.mode == callEnter {
		l.answerEnter(c, e, err)
		return
	}
	if err != nil {
		if !errors.Is(err, ErrNotLoggedIn) && !errors.Is(err, ErrSessionEnded) {
			c.reply <- reply{err: err}
			return
		}
		// The connection has no session, whatever we believed: a new one will, or will tell why not.
		if c.mode == callOnce {
			c.reply <- reply{err: err}
		} else if !c.abandoned {
			l.waiting = append(l.waiting, c)
		}
		l.lost(err, 0)
		return
	}
	if _, ok := c.env.GetBody().(*pb.Envelope_Logout); ok {
		l.loggedOut(nil)
	}
	c.reply <- reply{env: e}
}

// unanswered decides what becomes of requests whose connection is gone. The machine knows of its own by Lost.
func (l *loop) unanswered(requests map[uint64]*request, err error) {
	ids := make([]uint64, 0, len(requests))
	for id := range requests {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		c := requests[id].call
		switch {
		case c == nil:
		case l.ctx.Err() != nil:
			c.reply <- reply{err: ErrClosed}
		case c.mode == callEnter || c.mode == callOnce:
			if _, ok := c.env.GetBody().(*pb.Envelope_Logout); ok && l.ended != nil {
				c.reply <- reply{env: &pb.Envelope{}}
				continue
			}
			if cause := l.standstill(); cause != nil && c.mode == callOnce {
				err = cause
			}
			c.reply <- reply{err: fmt.Errorf("%w: %w", ErrDisconnected, err)}
		case !c.abandoned:
			l.waiting = append(l.waiting, c)
		}
	}
}
