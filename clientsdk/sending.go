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

// Pending is a message on its way.
type Pending struct {
	// ID is the client_msg_id.
	ID      string
	waits   bool // for Send, which gives up when nothing can be done until a person acts
	done    chan struct{}
	receipt Receipt
	err     error
}

// Done is closed when the outcome is known.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Wait returns the outcome; when ctx ends first the message is still on its way.
func (p *Pending) Wait(ctx context.Context) (Receipt, error) {
	select {
	case <-p.done:
		return p.receipt, p.err
	case <-ctx.Done():
		return Receipt{ID: p.ID}, fmt.Errorf("send: %w", context.Cause(ctx))
	}
}

func (p *Pending) resolve(r Receipt, err error) {
	r.ID = p.ID
	p.receipt, p.err = r, err
	if err != nil {
		p.err = fmt.Errorf("send: %w", err)
	}
	close(p.done)
}

// SendOption adds to a message.
type SendOption func(*resume.Message)

// ReplyTo says which message of the conversation this one answers.
func ReplyTo(ref Ref) SendOption {
	return func(m *resume.Message) { m.ReplyTo = &pb.Ref{SenderId: ref.SenderID, ClientMsgId: ref.ID} }
}

// WithMessageID gives the client_msg_id, a UUID of version 7 in lower case, to a program that keeps its own outbox. A
// message of the same id, conversation and text that was sent before is not sent twice.
func WithMessageID(id string) SendOption { return func(m *resume.Message) { m.ID = id } }

// Send sends a text and returns when it is durable. It waits for room in the outbox and through lost connections. When
// ctx ends first, or the session does, the message stays in the outbox and may still be delivered.
func (c *Client) Send(ctx context.Context, conversation, text string, opts ...SendOption) (Receipt, error) {
	p, err := c.loop.send(ctx, conversation, text, true, opts)
	if err != nil {
		return Receipt{}, fmt.Errorf("send: %w", err)
	}
	return p.Wait(ctx)
}

// SendAsync puts a text into the outbox and does not wait for its acknowledgement: the Pending tells it, and SendFailed
// comes if there will be none. Messages of one goroutine to one conversation keep their order. ErrOutboxFull: try later.
func (c *Client) SendAsync(conversation, text string, opts ...SendOption) (*Pending, error) {
	p, err := c.loop.send(context.Background(), conversation, text, false, opts)
	if err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	return p, nil
}

// Drain waits until the outbox is empty: every message was acknowledged or has failed.
func (c *Client) Drain(ctx context.Context) error {
	empty := make(chan struct{})
	if !c.loop.post(func() { c.loop.drains = append(c.loop.drains, empty) }) {
		return fmt.Errorf("drain: %w", ErrClosed)
	}
	select {
	case <-empty:
		if c.loop.ctx.Err() != nil {
			return fmt.Errorf("drain: %w", ErrClosed)
		}
		return nil
	case <-ctx.Done():
		c.loop.post(func() {
			c.loop.drains = slices.DeleteFunc(c.loop.drains, func(d chan struct{}) bool { return d == empty })
		})
		return fmt.Errorf("drain: %w", context.Cause(ctx))
	}
}

// Stats counts since Dial.
type Stats struct {
	resume.Stats
	// Sessions were opened or resumed, Lost of them ended without Close.
	Sessions, Lost uint64
	// Unasked answers fitted no request. EventsDropped were no messages: see Client.Events.
	Unasked, EventsDropped uint64
	// Outbox is how many messages await their acknowledgement now, Unread how many events wait for the program.
	Outbox, Unread int
	State          State
	// Addr and Node are those of the present connection.
	Addr, Node string
	// FolderFailed: the folder cannot be written, and what is in memory will not outlive the program.
	FolderFailed bool
}

// Stats returns the counts; after Close the last ones.
func (c *Client) Stats() Stats {
	out := make(chan Stats, 1)
	if c.loop.post(func() { out <- c.loop.snapshot() }) {
		return <-out
	}
	<-c.ended
	return c.loop.final
}

func (l *loop) snapshot() Stats {
	s := l.stats
	s.Stats = l.machine.Stats()
	s.Outbox, s.Unread = l.machine.Outbox(), len(l.queue)
	s.State, s.Addr, s.Node = l.state.State, l.state.Addr, l.state.Node
	return s
}

// sender waits for room in the outbox.
type sender struct {
	message resume.Message
	given   bool // its id is the program's: it may have been sent in another life of it
	pending *Pending
	reply   chan sendReply // has room for the one reply
}

type sendReply struct {
	pending *Pending
	err     error
}

func (l *loop) send(ctx context.Context, conversation, text string, wait bool, opts []SendOption) (*Pending, error) {
	m := resume.Message{Conversation: conversation, Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: text}}}}
	for _, opt := range opts {
		opt(&m)
	}
	given := m.ID != ""
	if !given {
		m.ID = wire.NewMessageID()
	}
	if err := wire.Validate(&pb.Envelope{Id: 1, Body: &pb.Envelope_Send{Send: sendRequest(m, false)}}); err != nil {
		return nil, err
	}
	s := &sender{
		message: m, given: given, reply: make(chan sendReply, 1), pending: &Pending{ID: m.ID, waits: wait, done: make(chan struct{})},
	}
	if !l.post(func() { l.beginSend(s) }) {
		return nil, ErrClosed
	}
	select {
	case r := <-s.reply:
		return r.pending, r.err
	case <-ctx.Done():
		l.post(func() { l.senders = slices.DeleteFunc(l.senders, func(x *sender) bool { return x == s }) })
		return nil, context.Cause(ctx)
	}
}

func sendRequest(m resume.Message, resend bool) *pb.SendRequest {
	return &pb.SendRequest{
		Conversation: m.Conversation, ClientMsgId: m.ID, Payload: m.Payload, Resend: resend, ReplyTo: m.ReplyTo,
	}
}

func (l *loop) beginSend(s *sender) {
	switch err := l.standstill(); {
	case err != nil:
		s.reply <- sendReply{err: err}
	case l.pending[s.message.ID] != nil:
		s.reply <- sendReply{err: fmt.Errorf("%w: it is on its way already", ErrIDReused)}
	case !s.pending.waits && (len(l.senders) > 0 || l.machine.Outbox() >= l.o.outbox):
		s.reply <- sendReply{err: ErrOutboxFull}
	default:
		l.senders = append(l.senders, s)
		l.admitSenders()
	}
}

// admitSenders takes messages into the outbox as there is room. What is to outlive the program is in the folder before
// it is written to a connection.
func (l *loop) admitSenders() {
	for len(l.senders) > 0 && l.machine.Outbox() < l.o.outbox {
		s := l.senders[0]
		l.senders = slices.Delete(l.senders, 0, 1)
		if l.store != nil {
			out, err := saveMessage(s.message)
			if err != nil {
				s.reply <- sendReply{err: err}
				continue
			}
			l.store.add(record{Out: out})
			if err := l.store.flush(); err != nil {
				l.log.Error("keeping a message in the client's folder", "err", err)
			}
		}
		l.pending[s.message.ID] = s.pending
		s.reply <- sendReply{pending: s.pending}
		l.step(resume.Submit{Message: s.message, Written: s.given})
	}
}

// step drives the machine and does what it wants.
func (l *loop) step(e resume.Event) {
	link := l.link
	for _, effect := range l.machine.Step(l.now(), e) {
		l.effect(effect, link)
	}
}

// effect carries out one effect. link is the connection that it was meant for.
func (l *loop) effect(e resume.Effect, link *link) {
	switch e := e.(type) {
	case resume.Sync:
		l.request(&request{kind: forSync}, &pb.Envelope{Body: &pb.Envelope_Sync{Sync: &pb.SyncRequest{}}})
	case resume.Fetch:
		l.request(&request{kind: forFetch, conversation: e.Conversation}, &pb.Envelope{Body: &pb.Envelope_History{
			History: &pb.HistoryRequest{Conversation: e.Conversation, After: e.After, Limit: uint32(e.Limit), Forward: true},
		}})
	case resume.Write:
		l.request(&request{kind: forSend, conversation: e.Message.Conversation, id: e.Message.ID}, &pb.Envelope{
			Body: &pb.Envelope_Send{Send: sendRequest(e.Message, e.Resend)},
		})
	case resume.Show:
		l.enqueue(item{
			event: fromMessage(e.Message, l.user.ID, e.Late), generation: l.generation,
			position: resume.Position{Conversation: e.Message.GetConversation(), Seq: e.Message.GetSeq()},
		})
	case resume.Passed:
		l.enqueue(item{generation: l.generation, position: e.Position})
	case resume.Begun:
		l.store.add(record{Position: &savedPos{C: e.Position.Conversation, S: e.Position.Seq}})
	case resume.Started:
		l.store.add(record{Started: true})
	case resume.Forgotten:
		l.generation++
		l.store.add(record{Forgotten: &saved{User: User{ID: e.User}, Cluster: e.Cluster, Epoch: e.Epoch}})
	case resume.Sent:
		l.store.add(record{Done: e.ID})
		l.outcome(e.ID, Receipt{Seq: e.Seq, Time: e.Time}, nil)
	case resume.Failed:
		l.store.add(record{Done: e.Message.ID})
		err := ErrAccountChanged
		if e.Err != nil {
			err = e.Err
		}
		l.enqueue(item{event: SendFailed{
			Conversation: e.Message.Conversation, ID: e.Message.ID, Text: e.Message.Payload.GetText().GetText(), Err: err,
		}})
		l.outcome(e.Message.ID, Receipt{}, err)
	case resume.Reconnect:
		l.post(func() {
			if l.link == link {
				l.lost(errors.New(e.Why), 0)
			}
		})
	}
}

func (l *loop) outcome(id string, r Receipt, err error) {
	if p := l.pending[id]; p != nil {
		delete(l.pending, id)
		p.resolve(r, err)
	}
}

// item is an event for the program, or only a position that may be kept when all before it was taken.
type item struct {
	event      Event
	position   resume.Position
	generation int
}

// Bounds of what waits besides messages, which the machine bounds.
const (
	othersMost = 256
	marksMost  = 1024
)

func (l *loop) enqueue(i item) {
	switch i.event.(type) {
	case nil:
		if len(l.queue) == 0 {
			l.keep(i)
		} else if len(l.queue) < marksMost {
			l.queue = append(l.queue, i)
		} // else the position kept stays behind, and what is passed over is asked for again after a restart
		return
	case Message:
	default:
		if l.others >= othersMost {
			old := slices.IndexFunc(l.queue, isOther)
			l.queue = slices.Delete(l.queue, old, old+1)
			l.others--
			l.stats.EventsDropped++
		}
		l.others++
	}
	l.queue = append(l.queue, i)
}

func isOther(i item) bool {
	_, message := i.event.(Message)
	return i.event != nil && !message
}

// keep remembers a position for the next start of the program.
func (l *loop) keep(i item) {
	if l.store == nil || i.position.Conversation == "" || i.generation != l.generation {
		return
	}
	if !l.store.dirty {
		l.syncAt = l.now().Add(time.Second)
	}
	l.store.add(record{Position: &savedPos{C: i.position.Conversation, S: i.position.Seq}})
}

// head is what the program may take next; a nil channel takes nothing.
func (l *loop) head() (chan<- Event, Event) {
	for len(l.queue) > 0 && l.queue[0].event == nil {
		l.keep(l.queue[0])
		l.pop()
	}
	if len(l.queue) == 0 {
		return nil, nil
	}
	return l.events, l.queue[0].event
}

// taken: the program has the first event.
func (l *loop) taken() {
	i := l.queue[0]
	l.pop()
	if isOther(i) {
		l.others--
		return
	}
	l.keep(i)
	l.step(resume.Taken{N: 1})
}

func (l *loop) pop() {
	l.queue[0] = item{}
	l.queue = l.queue[1:]
	if len(l.queue) == 0 {
		l.queue = nil
	}
}

func (l *loop) setState(s StateChange) {
	l.moving, l.movedAt = StateChange{}, time.Time{}
	if s.State == l.state.State && s.Addr == l.state.Addr && s.Degraded == l.state.Degraded && l.stateTold {
		return
	}
	l.state, l.stateTold = s, true
	l.enqueue(item{event: s})
}

// serve calls the handlers.
func (h *Handlers) serve(events <-chan Event) {
	for e := range events {
		switch e := e.(type) {
		case Message:
			if h.Message != nil {
				h.Message(e)
			}
		case StateChange:
			if h.State != nil {
				h.State(e)
			}
		case Presence:
			if h.Presence != nil {
				h.Presence(e)
			}
		case SendFailed:
			if h.SendFailed != nil {
				h.SendFailed(e)
			}
		}
	}
}
