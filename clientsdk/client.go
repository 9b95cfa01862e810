package future

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Client is one device's session with a cluster. Its methods may be called from any goroutine. All that block take a
// context and return its error, wrapped, when it ends.
type Client struct {
	loop *loop
	// ended is closed when the loop and all that it started are gone.
	ended chan struct{}
	close sync.Once
}

// Session is what a login gives.
type Session struct {
	User User
	// Token resumes the session (WithToken, Credentials); with WithDir it is kept for you.
	Token string
	// Degraded: a part of the cluster is away; messages may come late.
	Degraded bool
}

// Dial connects to one of addrs, each "host:port". With a token, of WithToken or from the folder, it resumes that
// session too; whether that went well is told by Session. It returns ErrUnreachable when every address was tried once
// in vain; from the first connection on the client reconnects by itself, until Close.
func Dial(ctx context.Context, addrs []string, opts ...Option) (*Client, error) {
	o := defaults()
	for _, opt := range opts {
		opt(&o)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, errors.New("no address: \"host:port\" is wanted")
	}
	l, err := newLoop(addrs, o)
	if err != nil {
		return nil, err
	}
	c := &Client{loop: l, ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		l.run()
	}()
	if err := l.ready(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// RegisterOption adds to a registration.
type RegisterOption func(*pb.RegisterRequest)

// WithEmail gives the address to which the account can be recovered.
func WithEmail(address string) RegisterOption {
	return func(r *pb.RegisterRequest) { r.Email = address }
}

// Register makes an account and logs in to it. ErrNameTaken: there is one of that name. After ErrDisconnected try Login:
// the account may have been made.
func (c *Client) Register(ctx context.Context, name, password string, opts ...RegisterOption) (Session, error) {
	r := &pb.RegisterRequest{Name: name, Password: password}
	for _, opt := range opts {
		opt(r)
	}
	if err := errors.Join(
		field("name", wire.CheckName(name)), field("password", wire.CheckPassword(password)), field("email", wire.CheckEmail(r.Email)),
	); err != nil {
		return Session{}, fmt.Errorf("register: %w", err)
	}
	return c.enter(ctx, "register", &pb.Envelope{Body: &pb.Envelope_Register{Register: r}})
}

// Login opens a session. ErrBadCredentials: there is no such account, or the password is wrong. ErrAlready: there is a
// session; Logout comes first.
func (c *Client) Login(ctx context.Context, name, password string) (Session, error) {
	if err := errors.Join(field("name", wire.CheckName(name)), field("password", wire.CheckPassword(password))); err != nil {
		return Session{}, fmt.Errorf("log in: %w", err)
	}
	return c.enter(ctx, "log in", &pb.Envelope{Body: &pb.Envelope_Login{Login: &pb.LoginRequest{Name: name, Password: password}}})
}

// Resume opens a session by its token. ErrSessionEnded: log in anew.
func (c *Client) Resume(ctx context.Context, token string) (Session, error) {
	return c.enter(ctx, "resume", &pb.Envelope{Body: &pb.Envelope_Resume{Resume: &pb.ResumeRequest{Token: token}}})
}

// Reconnect comes back after ErrStayAway, with the token that the client has.
func (c *Client) Reconnect(ctx context.Context) error {
	s, ok := c.Session()
	if !ok && s.Token == "" {
		return fmt.Errorf("reconnect: %w", ErrNotLoggedIn)
	}
	_, err := c.Resume(ctx, s.Token)
	return err
}

func (c *Client) enter(ctx context.Context, op string, e *pb.Envelope) (Session, error) {
	answer, err := c.loop.call(ctx, e, callEnter)
	if err != nil {
		return Session{}, fmt.Errorf("%s: %w", op, err)
	}
	s, _ := c.Session()
	s.Degraded = answer.GetSession().GetDegraded()
	return s, nil
}

// Logout ends the session for good: its token is worth nothing from then on. The client can Login again.
func (c *Client) Logout(ctx context.Context) error {
	if _, err := c.loop.call(ctx, &pb.Envelope{Body: &pb.Envelope_Logout{Logout: &pb.LogoutRequest{}}}, callOnce); err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	return nil
}

// Session is the present session, and whether there is one. The token stays while the client is offline or away.
func (c *Client) Session() (Session, bool) { return c.loop.session() }

// FindUser finds an account by its exact name, or returns ErrNotFound.
func (c *Client) FindUser(ctx context.Context, name string) (User, error) {
	answer, err := c.loop.call(ctx, &pb.Envelope{Body: &pb.Envelope_FindUser{FindUser: &pb.FindUserRequest{Name: name}}}, callAgain)
	if err != nil {
		return User{}, fmt.Errorf("find user: %w", err)
	}
	return fromUser(answer.GetUser().GetUser()), nil
}

// AddFriend asks an account to be friends. After ErrDisconnected the request may have been made; asking again does no
// harm (ErrAlready).
func (c *Client) AddFriend(ctx context.Context, name, greeting string) error {
	return c.do(ctx, "add friend", &pb.Envelope{Body: &pb.Envelope_AddFriend{
		AddFriend: &pb.AddFriendRequest{Name: name, Greeting: greeting},
	}})
}

// AnswerFriend accepts or rejects the request of an account.
func (c *Client) AnswerFriend(ctx context.Context, name string, accept bool) error {
	return c.do(ctx, "answer friend request", &pb.Envelope{Body: &pb.Envelope_AnswerFriend{
		AnswerFriend: &pb.AnswerFriendRequest{Name: name, Accept: accept},
	}})
}

// RemoveFriend ends a friendship. When it returns nil no node takes a message between the two any more, and neither is sent one. That
// takes some 12 seconds if a node of the cluster has just died. After ErrUnavailable or ErrDisconnected the removal is perhaps under
// way: asking again waits for the rest of it, and gets ErrNotFound if it was done.
func (c *Client) RemoveFriend(ctx context.Context, name string) error {
	return c.do(ctx, "remove friend", &pb.Envelope{Body: &pb.Envelope_RemoveFriend{
		RemoveFriend: &pb.RemoveFriendRequest{Name: name},
	}})
}

func (c *Client) do(ctx context.Context, op string, e *pb.Envelope) error {
	if _, err := c.loop.call(ctx, e, callOnce); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// Friends lists friends and open requests, in both directions.
func (c *Client) Friends(ctx context.Context) ([]Friend, error) {
	answer, err := c.loop.call(ctx, &pb.Envelope{Body: &pb.Envelope_ListFriends{ListFriends: &pb.ListFriendsRequest{}}}, callAgain)
	if err != nil {
		return nil, fmt.Errorf("list friends: %w", err)
	}
	out := make([]Friend, 0, len(answer.GetFriends().GetFriends()))
	for _, f := range answer.GetFriends().GetFriends() {
		out = append(out, fromFriend(f))
	}
	return out, nil
}

// Conversations lists the account's conversations with their newest message and unread count.
func (c *Client) Conversations(ctx context.Context) ([]Conversation, error) {
	answer, err := c.loop.call(ctx, &pb.Envelope{Body: &pb.Envelope_Conversations{Conversations: &pb.ConversationsRequest{}}}, callAgain)
	if err != nil {
		return nil, fmt.Errorf("list conversations: %w", err)
	}
	s, _ := c.Session()
	out := make([]Conversation, 0, len(answer.GetConversationList().GetConversations()))
	for _, conv := range answer.GetConversationList().GetConversations() {
		out = append(out, fromConversation(conv, s.User.ID))
	}
	return out, nil
}

// MarkRead says that the account has read everything in a conversation up to seq. A message that came this moment may have to be
// stored first: that is waited for.
func (c *Client) MarkRead(ctx context.Context, conversation string, seq uint64) error {
	_, err := c.loop.call(ctx, &pb.Envelope{Body: &pb.Envelope_Read{
		Read: &pb.ReadRequest{Conversation: conversation, Seq: seq},
	}}, callPatient)
	if err != nil {
		return fmt.Errorf("mark read: %w", err)
	}
	return nil
}

// HistoryOptions says which messages of a conversation are wanted: those with After < Seq < Before.
type HistoryOptions struct {
	// After and Before are seqs; 0: no bound.
	After, Before uint64
	// Forward: oldest first. Otherwise newest first.
	Forward bool
	// Limit is how many at most; 0: all.
	Limit int
}

// historyPage keeps a page of the longest texts under the frame limit. historyTries is how often a page that brings nothing
// new is asked for again.
const (
	historyPage  = 50
	historyTries = 10
)

// History reads a conversation page by page. What is acknowledged but not yet readable is waited for. After an error
// the sequence ends.
func (c *Client) History(ctx context.Context, conversation string, opts HistoryOptions) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		left := opts.Limit
		after, before := opts.After, opts.Before
		self, _ := c.Session()
		for tries := 0; ; tries++ {
			limit := historyPage
			if opts.Limit > 0 {
				limit = min(limit, left)
			}
			answer, err := c.loop.call(ctx, &pb.Envelope{Body: &pb.Envelope_History{History: &pb.HistoryRequest{
				Conversation: conversation, After: after, Before: before, Limit: uint32(limit), Forward: opts.Forward,
			}}}, callPatient)
			if err != nil {
				yield(Message{}, fmt.Errorf("history: %w", err))
				return
			}
			page := answer.GetHistoryPage()
			wasAfter, wasBefore := after, before
			for i, m := range page.GetMessages() {
				if !opts.Forward {
					m = page.GetMessages()[len(page.GetMessages())-1-i]
				}
				// A server that repeats itself must not keep us here for ever.
				if m.GetSeq() <= after || before != 0 && m.GetSeq() >= before {
					continue
				}
				if opts.Forward {
					after = m.GetSeq()
				} else {
					before = m.GetSeq()
				}
				if !yield(fromMessage(m, self.User.ID, true), nil) {
					return
				}
				if left--; opts.Limit > 0 && left == 0 {
					return
				}
			}
			if !page.GetMore() {
				return
			}
			// What the page covers may reach further than its messages.
			if to := page.GetCoversBefore(); opts.Forward && to > after+1 {
				after = to - 1
			}
			if from := page.GetCoversAfter(); !opts.Forward && from > opts.After && (before == 0 || from+1 < before) {
				before = from + 1
			}
			if after != wasAfter || before != wasBefore {
				tries = 0
				continue
			}
			if tries >= historyTries {
				yield(Message{}, fmt.Errorf("history: %w", ErrPending))
				return
			}
			if err := c.loop.pause(ctx, nil); err != nil {
				yield(Message{}, fmt.Errorf("history: %w", err))
				return
			}
		}
	}
}

// Events brings what happens: messages, changes of state, friends who come and go, messages that failed. The channel is
// closed by Close. With WithHandlers it brings nothing.
//
// A program that does not read it loses no message: up to WithEventBuffer messages wait in memory, further ones are left
// with the server and fetched when the program reads again. The connection is read all the while, so that sending goes
// on. Of the other events the newest 256 wait; for Presence the bound may lose changes, which Friends tells again.
func (c *Client) Events() <-chan Event { return c.loop.public }

// Close ends the connection, but not the session, and returns when all goroutines of the client have ended. What is not
// acknowledged stays in the folder, or without one is given up with ErrClosed: see Drain. The error is that of saving
// the folder.
func (c *Client) Close() error {
	c.close.Do(c.loop.stop)
	<-c.ended
	return c.loop.closeErr
}
