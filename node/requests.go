package node

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/groups"
	"github.com/futurechat/future/node/session"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// requestTimeout bounds one request, so that a dependency that does not answer holds no worker for long.
const requestTimeout = 5 * time.Second

// removalTimeout bounds a removal, which may have to wait until a node that does not answer has surely lost its lease.
const removalTimeout = 18 * time.Second

// retryAfter is told with what may work later.
const retryAfter = 500 * time.Millisecond

// run carries out a request: at once if it needs no I/O, else in a worker.
func (n *Node) run(c *Client, r session.Run) {
	queue := n.work
	switch b := r.Request.GetBody().(type) {
	case *pb.Envelope_Send:
		if !b.Send.GetResend() {
			basis := n.basis(b.Send.GetConversation())
			s, decided, err := n.opts.Service.PrepareCached(basis, c.account().Account, b.Send)
			if err != nil {
				c.post(session.Done{Err: n.told(r.Request, err)})
				return
			}
			if decided {
				c.prepare(prepared{s, basis.Life})
				return
			}
		}
	case *pb.Envelope_Register, *pb.Envelope_Login:
		queue = n.entry
	case *pb.Envelope_Resume:
		queue = n.returns
	case *pb.Envelope_RemoveFriend:
		queue = n.slow
	}
	if n.opts.Execute != nil {
		n.opts.Execute(func() { n.do(job{c, r}) })
		return
	}
	select {
	case queue <- job{c, r}:
	default:
		c.post(session.Done{Err: &wire.Error{
			Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: retryAfter, Message: "this node has too much to do",
		}})
	}
}

func (n *Node) serve(queue <-chan job) {
	for {
		select {
		case j := <-queue:
			n.do(j)
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) do(j job) {
	if j.client.gone.Load() && enters(j.run.Request) {
		return // it waited for long: see replace
	}
	patience := requestTimeout
	if j.run.Request.GetRemoveFriend() != nil {
		patience = removalTimeout
	}
	ctx, cancel := n.opts.Clock.WithTimeout(n.ctx, patience)
	defer cancel()
	began := n.opts.Clock.Now()
	done, err := n.answer(ctx, j.client, j.run)
	n.metrics.requests.WithLabelValues(requestName(j.run.Request)).Observe(n.opts.Clock.Now().Sub(began).Seconds())
	if err != nil {
		done = session.Done{Err: n.told(j.run.Request, err)}
	}
	if done != nil {
		j.client.post(done)
	}
}

// told turns an error into what the client is told. What is not meant for clients is logged, and is INTERNAL or, if a part is
// away, UNAVAILABLE.
func (n *Node) told(r *pb.Envelope, err error) *wire.Error {
	known := chat.Answer(err)
	if known.Code == pb.Code_CODE_INTERNAL &&
		(errors.Is(err, presence.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		known = &wire.Error{Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: retryAfter, Message: "a part of the cluster is away"}
	}
	if known.Code == pb.Code_CODE_INTERNAL || known.Code == pb.Code_CODE_UNAVAILABLE {
		n.log.Warn("request failed", zap.String("request", requestName(r)), zap.Uint64("id", r.GetId()), zap.Error(err))
	}
	return known
}

func body(e *pb.Envelope) session.Event { return session.Done{Body: e} }

func ok() session.Event { return body(&pb.Envelope{Body: &pb.Envelope_Ok{Ok: &pb.Ok{}}}) }

// answer runs one request. A nil event says that it was answered on the way.
func (n *Node) answer(ctx context.Context, c *Client, r session.Run) (session.Event, error) {
	s := n.opts.Service
	who := c.account()
	switch b := r.Request.GetBody().(type) {
	case *pb.Envelope_Register:
		login, err := s.Register(ctx, b.Register, host(c.conn.RemoteAddr()))
		return n.enter(ctx, c, login, err)
	case *pb.Envelope_Login:
		login, err := s.Login(ctx, b.Login, host(c.conn.RemoteAddr()))
		return n.enter(ctx, c, login, err)
	case *pb.Envelope_Resume:
		login, err := s.Resume(ctx, b.Resume)
		return n.enter(ctx, c, login, err)
	case *pb.Envelope_Logout:
		if err := s.Logout(ctx, who.ID); err != nil {
			return nil, err
		}
		return session.Done{Left: true, Body: &pb.Envelope{Body: &pb.Envelope_Ok{Ok: &pb.Ok{}}}}, nil

	case *pb.Envelope_FindUser:
		user, err := s.FindUser(ctx, b.FindUser.GetName())
		if err != nil {
			return nil, err
		}
		return body(&pb.Envelope{Body: &pb.Envelope_User{User: &pb.UserResponse{User: user.User()}}}), nil
	case *pb.Envelope_AddFriend:
		out, err := s.AddFriend(ctx, who.Account, b.AddFriend)
		return n.changed(ctx, out, err)
	case *pb.Envelope_AnswerFriend:
		out, err := s.AnswerFriend(ctx, who.Account, b.AnswerFriend)
		return n.changed(ctx, out, err)
	case *pb.Envelope_RemoveFriend:
		out, err := s.RemoveFriend(ctx, who.Account, b.RemoveFriend)
		return n.removed(ctx, out, err)
	case *pb.Envelope_ListFriends:
		friends, err := n.friends(ctx, who.Account)
		if err != nil {
			return nil, err
		}
		return body(&pb.Envelope{Body: &pb.Envelope_Friends{Friends: &pb.FriendsResponse{Friends: friends}}}), nil

	case *pb.Envelope_Send:
		return n.send(ctx, c, who.Account, b.Send)
	case *pb.Envelope_History:
		page, err := n.opts.Timeline.History(ctx, who.Account.ID, b.History)
		if err != nil {
			return nil, err
		}
		return body(&pb.Envelope{Body: &pb.Envelope_HistoryPage{HistoryPage: page}}), nil
	case *pb.Envelope_Sync:
		n.groups.post(groups.Synced{User: who.Account.ID})
		heads, err := n.opts.Timeline.Heads(ctx, who.Account.ID)
		if err != nil {
			return nil, err
		}
		return body(&pb.Envelope{Body: &pb.Envelope_Heads{Heads: &pb.SyncResponse{Heads: heads}}}), nil
	case *pb.Envelope_Read:
		if _, err := s.MarkRead(ctx, who.Account.ID, b.Read); err != nil {
			return nil, err
		}
		return ok(), nil
	case *pb.Envelope_Conversations:
		heads, err := n.opts.Timeline.Heads(ctx, who.Account.ID)
		if err != nil {
			return nil, err
		}
		list, err := s.Conversations(ctx, who.Account.ID, heads)
		if err != nil {
			return nil, err
		}
		return body(&pb.Envelope{Body: &pb.Envelope_ConversationList{ConversationList: &pb.ConversationsResponse{Conversations: list}}}), nil
	}
	return nil, wire.Errorf(pb.Code_CODE_UNSUPPORTED, "this node does not know that request")
}

// enter ends a log-in. Other connections of the same device are told that they were replaced.
func (n *Node) enter(ctx context.Context, c *Client, login *chat.Login, err error) (session.Event, error) {
	if err != nil {
		return nil, err
	}
	s := login.Session
	c.entered(s)
	if err := n.replace(ctx, c, s); err != nil {
		// Its token no longer works, so the old connection is the last one.
		n.log.Warn("other connections of the device were not looked for", zap.Error(err))
	}
	return session.Done{Entered: s.Account.ID, Body: &pb.Envelope{Body: &pb.Envelope_Session{Session: login.Response(false)}}}, nil
}

// enters reports whether a request opens a session.
func enters(r *pb.Envelope) bool {
	return r.GetRegister() != nil || r.GetLogin() != nil || r.GetResume() != nil
}

// replace ends the device's other connections, unless this one has ended meanwhile: then they are newer, and it is they that the
// device uses. A client that is told that it was replaced does not come back.
func (n *Node) replace(ctx context.Context, c *Client, s chat.Session) error {
	found, err := n.opts.Locator.Locate(ctx, []int64{s.Account.ID})
	if err != nil || c.gone.Load() {
		return err
	}
	for _, at := range found[0] {
		if at.Device != s.DeviceID || at.Incarnation == n.presence.Incarnation() && at.Connection == c.conn.ID() {
			continue
		}
		kick := peer.Kick{Incarnation: at.Incarnation, Connections: []uint64{at.Connection}, Reason: pb.Closing_REASON_REPLACED}
		if at.Incarnation == n.presence.Incarnation() {
			n.Kick(kick)
		} else {
			n.opts.Kicker.Kick(at.Addr, kick)
		}
	}
	return nil
}

// changed brings a change that was decided to the log. It stands already: if the log is away the sweeper brings it later.
func (n *Node) changed(ctx context.Context, out chat.Outgoing, err error) (session.Event, error) {
	if err != nil {
		return nil, err
	}
	if err := n.opts.Outbox.Publish(ctx, out.Message.GetConversation(), out.Version); err != nil {
		n.log.Warn("a notice waits for the sweeper", zap.String("conversation", out.Message.GetConversation()), zap.Error(err))
	}
	return ok(), nil
}

// removed is changed for what ends a right: it is answered only when the log has it, after which nothing comes of what it forbids. It
// has been decided all the same: if this fails the sweeper goes on, and whoever asks again joins.
func (n *Node) removed(ctx context.Context, out chat.Outgoing, err error) (session.Event, error) {
	if err != nil {
		return nil, err
	}
	if err := n.opts.Outbox.Publish(ctx, out.Message.GetConversation(), out.Version); err != nil {
		pending := &wire.Error{
			Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: retryAfter, Message: "the removal is under way, and not everywhere yet",
		}
		return nil, &chat.Failure{Answer: pending, Op: "removal", Cause: err}
	}
	return ok(), nil
}

func (n *Node) friends(ctx context.Context, who chat.Account) ([]*pb.Friend, error) {
	friends, err := n.opts.Service.ListFriends(ctx, who.ID)
	if err != nil || len(friends) == 0 {
		return friends, err
	}
	ids := make([]int64, len(friends))
	for i, f := range friends {
		ids[i], _ = wire.ParseID(f.GetUser().GetId()) // ours
	}
	places, err := n.opts.Locator.Locate(ctx, ids)
	if err != nil {
		return friends, nil //nolint:nilerr // who is online is not known now: nobody is shown so, and the list is told all the same
	}
	for i := range friends {
		// Only to friends: who merely asked learns nothing.
		friends[i].Online = friends[i].GetState() == pb.Friend_STATE_FRIEND && len(places[i]) > 0
	}
	return friends, nil
}

// send checks a message that needs I/O to be checked, and hands it to the log.
func (n *Node) send(ctx context.Context, c *Client, who chat.Account, r *pb.SendRequest) (session.Event, error) {
	var sent chat.Sent
	if r.GetResend() {
		// Before its rules: what was stored had been allowed, whatever has ended since.
		var err error
		if sent, err = n.opts.Service.FindSent(ctx, who, r); err != nil {
			return nil, err
		}
		if sent.Found {
			return body(&pb.Envelope{Body: &pb.Envelope_Sent{Sent: &pb.SendResponse{
				ClientMsgId: r.GetClientMsgId(), Seq: sent.Seq, TimeMs: sent.TimeMs,
			}}}), nil
		}
	}
	basis := n.basis(r.GetConversation())
	s, err := n.opts.Service.PrepareSend(ctx, basis, who, r)
	if err != nil {
		return nil, err
	}
	s.Record.Resend, s.Record.SearchFrom = r.GetResend(), sent.SearchFrom
	c.prepared = prepared{s, basis.Life}
	return session.Prepared{}, nil
}

// append hands a checked message to the log, and then lets the session go on: in this order, or the session's next message could
// overtake it.
//
// Nor may it overtake one that has failed. The log refuses what comes while it tells of a failure; once it has told, the session must
// know. So a failure that is told but that the session has not been given goes first, and none is told to its end while this is
// between looking for such and the log.
//
// It is acknowledged without more only if the node held its lease as it was from before the right was checked until the log had
// answered: whoever removes somebody waits for such a node. Else the right is looked at once more.
func (n *Node) append(c *Client) {
	c.appending.Lock()
	defer c.appending.Unlock()
	if c.hasFailed() {
		c.post(session.Prepared{})
		return
	}
	s := c.prepared
	c.prepared = prepared{}
	r, m := s.Record, s.Record.Message
	answer := session.Appended{Conversation: m.GetConversation(), ClientMsgID: m.GetClientMsgId()}
	entry, err := r.Entry(n.opts.Topic.Partitions)
	var handing atomic.Bool // the log may answer before Append returns
	handing.Store(true)
	defer handing.Store(false)
	if err == nil {
		began := n.opts.Clock.Now()
		err = n.opts.Log.Append(entry, func(at eventlog.Appended, err error) {
			n.metrics.appends.Observe(n.opts.Clock.Now().Sub(began).Seconds())
			s.Permit.Release()
			if err != nil {
				answer.Err = appendError(err)
			} else {
				n.ends.raise(entry.Partition, at.Offset+1)
				answer.Seq, answer.Time = eventlog.Seq(n.opts.Topic.Epoch, at.Offset), at.Time
			}
			if err == nil {
				c.logAnswered(logged{answer, r, s.life == "" || s.life != n.presence.Incarnation()})
				return
			}
			c.post(answer) // also before those that wait for a look: it is no acknowledgement, and holds back what comes later
			if !handing.Load() {
				c.appending.Lock()
				c.appending.Unlock() //nolint:staticcheck // only to have an append that is being handed over be over
			}
		})
	}
	if err != nil {
		s.Permit.Release()
		c.post(session.Done{Err: appendError(err)})
		return
	}
	c.post(session.Admitted{Conversation: m.GetConversation(), ClientMsgID: m.GetClientMsgId()})
}

func appendError(err error) *wire.Error {
	switch {
	case errors.Is(err, eventlog.ErrTooLarge):
		return wire.Errorf(pb.Code_CODE_TOO_LARGE, "the message is larger than the log takes")
	case errors.Is(err, eventlog.ErrBacklog):
		return &wire.Error{Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: retryAfter, Message: "too many messages await the log"}
	case errors.Is(err, eventlog.ErrUnknownOutcome):
		return &wire.Error{Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: retryAfter, Message: "the log did not answer: send it again, it will be stored once"}
	}
	return &wire.Error{Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: retryAfter, Message: "the log is away"}
}

func host(a net.Addr) string {
	h, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return h
}

// requestName is the request's name in the protocol, for labels.
func requestName(e *pb.Envelope) string {
	m := e.ProtoReflect()
	f := m.WhichOneof(m.Descriptor().Oneofs().ByName("body"))
	if f == nil {
		return "none"
	}
	return string(f.Name())
}
