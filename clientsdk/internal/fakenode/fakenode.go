// Package fakenode is a node for the tests of the SDK and of what is built on it: it speaks the protocol over loopback
// sockets and does what PROTOCOL.md promises, in memory. A test can have it do otherwise.
package fakenode

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Node is the fake. It has the accounts alice (1) and bob (2), both with the password "password".
type Node struct {
	t        testing.TB
	listener net.Listener
	wait     sync.WaitGroup

	sync.Mutex // guards what follows
	Sessions   []*Session
	users      map[string]*pb.User // by name
	Tokens     map[string]*pb.User
	Logs       map[string][]*pb.Message
	stored     map[string]*pb.Message // by client_msg_id
	Seq        uint64
	Hello      *pb.HelloResponse
	Reads      map[string]uint64
	Requests   []*pb.Envelope
	// On sees every request first; true: it was dealt with.
	On func(s *Session, e *pb.Envelope) bool
}

// Session is one connection.
type Session struct {
	node    *Node
	Conn    net.Conn
	Account *pb.User
}

// Start starts a node that ends with the test.
func Start(t testing.TB) *Node {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it returns at once
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{
		t: t, listener: listener, users: map[string]*pb.User{}, Tokens: map[string]*pb.User{}, Logs: map[string][]*pb.Message{},
		stored: map[string]*pb.Message{}, Reads: map[string]uint64{}, Seq: 100,
		Hello: &pb.HelloResponse{Version: 1, Node: "fake", MaxFrame: wire.DefaultMaxFrame, PingMs: 5000, SilenceMs: 15000, Cluster: "test", Epoch: 1},
	}
	n.User("alice")
	n.User("bob")
	n.wait.Go(n.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		n.Kill()
		n.wait.Wait()
	})
	return n
}

// Addr is where it listens.
func (n *Node) Addr() string { return n.listener.Addr().String() }

// User makes an account; ids count from 1.
func (n *Node) User(name string) *pb.User {
	u := &pb.User{Id: fmt.Sprint(len(n.users) + 1), Name: name}
	n.users[name] = u
	n.Tokens["token-"+name] = u
	return u
}

func (n *Node) accept() {
	for {
		c, err := n.listener.Accept()
		if err != nil {
			return
		}
		n.Lock()
		s := &Session{node: n, Conn: c}
		n.Sessions = append(n.Sessions, s)
		n.Unlock()
		n.wait.Go(s.serve)
	}
}

// Kill ends all connections.
func (n *Node) Kill() {
	n.Lock()
	defer n.Unlock()
	for _, s := range n.Sessions {
		_ = s.Conn.Close()
	}
	n.Sessions = nil
}

func (s *Session) serve() {
	n := s.node
	defer func() {
		_ = s.Conn.Close()
		n.Lock()
		n.Sessions = slices.DeleteFunc(n.Sessions, func(x *Session) bool { return x == s })
		n.Unlock()
	}()
	r := wire.NewReader(s.Conn, wire.DefaultMaxFrame)
	for {
		e, err := r.Next()
		if err != nil {
			return
		}
		n.Lock()
		n.Requests = append(n.Requests, e)
		on := n.On
		n.Unlock()
		if on != nil && on(s, e) {
			continue
		}
		n.Lock()
		s.handle(e)
		n.Unlock()
	}
}

// Write sends a frame; a client that is gone is noticed by reading.
func (s *Session) Write(e *pb.Envelope) {
	b, err := wire.AppendFrame(nil, e)
	if err != nil {
		s.node.t.Error(err)
		return
	}
	_ = s.Conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_, _ = s.Conn.Write(b)
}

// Fail answers an error.
func (s *Session) Fail(e *pb.Envelope, err *wire.Error) {
	s.Write(&pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_Error{Error: err.Proto()}})
}

// Close ends the connection with a reason, and perhaps tells where to go.
func (s *Session) Close(reason pb.Closing_Reason, retry time.Duration, addrs ...string) {
	s.Write(&pb.Envelope{Body: &pb.Envelope_Closing{Closing: &pb.Closing{
		Reason: reason, RetryAfterMs: uint32(retry.Milliseconds()), Addrs: addrs,
	}}})
	_ = s.Conn.Close()
}

func (s *Session) ok(e *pb.Envelope) {
	s.Write(&pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_Ok{Ok: &pb.Ok{}}})
}

func (s *Session) enter(e *pb.Envelope, u *pb.User, err *wire.Error) {
	if u == nil {
		s.Fail(e, err)
		return
	}
	s.Account = u
	s.Write(&pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_Session{Session: &pb.SessionResponse{User: u, Token: "token-" + u.Name, SessionId: "1"}}})
}

// handle is called with the node's lock.
func (s *Session) handle(e *pb.Envelope) {
	n := s.node
	if err := wire.Validate(e); err != nil {
		s.Fail(e, err)
		return
	}
	switch b := e.GetBody().(type) {
	case *pb.Envelope_Hello:
		s.Write(&pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_HelloOk{HelloOk: n.Hello}})
	case *pb.Envelope_Register:
		if n.users[b.Register.GetName()] != nil {
			s.Fail(e, wire.ErrNameTaken)
			return
		}
		s.enter(e, n.User(b.Register.GetName()), nil)
	case *pb.Envelope_Login:
		u := n.users[b.Login.GetName()]
		if b.Login.GetPassword() != "password" {
			u = nil
		}
		s.enter(e, u, wire.ErrBadCredentials)
	case *pb.Envelope_Resume:
		s.enter(e, n.Tokens[b.Resume.GetToken()], wire.ErrSessionEnded)
	case *pb.Envelope_Sync:
		out := &pb.SyncResponse{}
		for c, log := range n.Logs {
			out.Heads = append(out.Heads, &pb.Head{Conversation: c, Seq: log[len(log)-1].Seq})
		}
		s.Write(&pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_Heads{Heads: out}})
	case *pb.Envelope_Send:
		s.send(e, b.Send)
	case *pb.Envelope_History:
		s.history(e, b.History)
	case *pb.Envelope_Read:
		n.Reads[b.Read.GetConversation()] = b.Read.GetSeq()
		s.ok(e)
	case *pb.Envelope_FindUser:
		if u := n.users[b.FindUser.GetName()]; u != nil {
			s.Write(&pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_User{User: &pb.UserResponse{User: u}}})
			return
		}
		s.Fail(e, wire.ErrNotFound)
	case *pb.Envelope_ListFriends:
		out := &pb.FriendsResponse{}
		for _, u := range n.users {
			if u != s.Account {
				out.Friends = append(out.Friends, &pb.Friend{User: u, State: pb.Friend_STATE_FRIEND, Online: true, Conversation: "d:1:2"})
			}
		}
		s.Write(&pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_Friends{Friends: out}})
	case *pb.Envelope_Conversations:
		out := &pb.ConversationsResponse{}
		for c, log := range n.Logs {
			out.Conversations = append(out.Conversations, &pb.Conversation{Id: c, Last: log[len(log)-1], Unread: 3})
		}
		s.Write(&pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_ConversationList{ConversationList: out}})
	case *pb.Envelope_Logout:
		s.ok(e)
		s.Close(pb.Closing_REASON_SESSION_ENDED, 0)
	default:
		s.ok(e)
	}
}

func (s *Session) send(e *pb.Envelope, r *pb.SendRequest) {
	n := s.node
	m := n.stored[r.GetClientMsgId()]
	if m == nil || !r.GetResend() {
		m = n.Append(r.GetConversation(), s.Account, r.GetClientMsgId(), r.GetPayload())
	}
	s.Write(&pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_Sent{Sent: &pb.SendResponse{ClientMsgId: m.ClientMsgId, Seq: m.Seq, TimeMs: m.TimeMs}}})
}

// Append stores a message and delivers it to all sessions, with the node's lock.
func (n *Node) Append(conv string, from *pb.User, id string, p *pb.Payload) *pb.Message {
	n.Seq += 2
	m := &pb.Message{Conversation: conv, Seq: n.Seq, PrevKnown: true, Sender: from, ClientMsgId: id, TimeMs: 1_700_000_000_000, Payload: p}
	if log := n.Logs[conv]; len(log) > 0 {
		m.PrevSeq = log[len(log)-1].Seq
	}
	n.Logs[conv] = append(n.Logs[conv], m)
	n.stored[id] = m
	for _, s := range n.Sessions {
		if s.Account != nil {
			s.Write(&pb.Envelope{Body: &pb.Envelope_Delivery{Delivery: &pb.Delivery{Messages: []*pb.Message{m}}}})
		}
	}
	return m
}

// Say is a message of bob's.
func (n *Node) Say(text string) {
	n.Lock()
	defer n.Unlock()
	n.Append("d:1:2", n.users["bob"], wire.NewMessageID(), &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: text}}})
}

func (s *Session) history(e *pb.Envelope, r *pb.HistoryRequest) {
	var in []*pb.Message
	for _, m := range s.node.Logs[r.GetConversation()] {
		if m.Seq > r.GetAfter() && (r.GetBefore() == 0 || m.Seq < r.GetBefore()) {
			in = append(in, m)
		}
	}
	limit := int(r.GetLimit())
	if limit == 0 {
		limit = wire.DefaultHistory
	}
	out := &pb.HistoryResponse{CoversAfter: r.GetAfter(), CoversBefore: r.GetBefore(), More: len(in) > limit}
	switch {
	case !out.More:
		out.Messages = in
	case r.GetForward():
		out.Messages, out.CoversBefore = in[:limit], in[limit].Seq
	default:
		out.Messages, out.CoversAfter = in[len(in)-limit:], in[len(in)-limit-1].Seq
	}
	s.Write(&pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_HistoryPage{HistoryPage: out}})
}

// Seen are the requests so far for which f holds.
func (n *Node) Seen(f func(*pb.Envelope) bool) (out []*pb.Envelope) {
	n.Lock()
	defer n.Unlock()
	for _, e := range n.Requests {
		if f(e) {
			out = append(out, e)
		}
	}
	return out
}

// Set changes what the lock guards.
func (n *Node) Set(f func()) {
	n.Lock()
	defer n.Unlock()
	f()
}
