package future

import (
	"strings"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Event is what Client.Events brings: a Message, StateChange, Presence or SendFailed.
type Event interface{ event() }

func (Message) event()     {}
func (StateChange) event() {}
func (Presence) event()    {}
func (SendFailed) event()  {}

// User is an account. ID is a canonical decimal number, as a string.
type User struct{ ID, Name string }

// Message is one message of a conversation. (Conversation, Sender.ID, ID) is its identity.
type Message struct {
	Conversation string
	// Seq is its position: it rises within the conversation but is not dense.
	Seq uint64
	// ID is the client_msg_id that its sender gave it.
	ID     string
	Sender User
	// Time is when the server's log took it.
	Time time.Time
	// Text is empty if this is a notice, or of a kind that this SDK does not know.
	Text string
	// Friend is set if this tells of a change between two users.
	Friend *FriendNotice
	// ReplyTo is the identity of the message that this one answers, or nil.
	ReplyTo *Ref
	// Own: the account of this client sent it, here or on another device.
	Own bool
	// Missed: it did not come at once but was fetched, because the client was away or had fallen behind.
	Missed bool
}

// Ref names a message of the same conversation by its identity.
type Ref struct{ SenderID, ID string }

// FriendNotice tells of a change between By, who made it, and To.
type FriendNotice struct {
	Change   FriendChange
	By, To   User
	Greeting string
}

// FriendChange is what happened between two users.
type FriendChange int

const (
	FriendRequested FriendChange = 1 + iota
	FriendAccepted
	FriendRejected
	FriendRemoved
)

// State is how the client stands to the cluster.
type State int

const (
	// Offline: there is no connection; the client is trying to get one. A move from a node that goes down to another is not told,
	// unless it takes more than 5 seconds.
	Offline State = iota
	// LoggedOut: there may be a connection, but no session: Login or Register is needed.
	LoggedOut
	// Online: there is a session.
	Online
	// Away: the server told the client to stay away (Err says why).
	Away
)

func (s State) String() string {
	if s < Offline || s > Away {
		return "unknown"
	}
	return [...]string{"offline", "logged out", "online", "away"}[s]
}

// StateChange tells that the client's State has changed.
type StateChange struct {
	State State
	// Err says why; nil when Online, and after Logout.
	Err error
	// Addr and Node are the address and name of the node, if there is a connection.
	Addr, Node string
	// Degraded: a part of the cluster is away and messages may come late.
	Degraded bool
}

// Presence tells that a friend came or went. Only the newest counts; Friends tells all.
type Presence struct {
	UserID string
	Online bool
}

// SendFailed tells that a message will never be delivered. It comes also for a message whose Send or SendAsync was asked
// before the program was restarted, so that nothing is lost in silence.
type SendFailed struct {
	Conversation, ID, Text string
	Err                    error
}

// Friend is another account and how it stands to this one.
type Friend struct {
	User  User
	State FriendState
	// Greeting came with the request.
	Greeting string
	// Time of the request, or of its acceptance.
	Time   time.Time
	Online bool
	// Conversation is that of the two.
	Conversation string
}

// FriendState is how another account stands to this one.
type FriendState int

const (
	IsFriend FriendState = 1 + iota
	AskedByThem
	AskedByMe
)

// Conversation is one of the account's conversations.
type Conversation struct {
	ID string
	// Peer is the other one of a direct conversation.
	Peer User
	// Last is its newest message, or nil.
	Last   *Message
	Unread int
	// ReadSeq is up to where this account has read, on any device.
	ReadSeq uint64
}

// Receipt says that a message is durable: it survives the loss of any one server.
type Receipt struct {
	// ID is the client_msg_id.
	ID   string
	Seq  uint64
	Time time.Time
}

// maxNote bounds what a server may say in words.
const maxNote = 1 << 10

// clip bounds and repairs what a server says in words.
func clip(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func fromUser(u *pb.User) User {
	id := u.GetId()
	if _, err := wire.ParseID(id); err != nil {
		id = ""
	}
	return User{ID: id, Name: clip(u.GetName(), 4*wire.MaxNameRunes)}
}

func fromMessage(m *pb.Message, self string, missed bool) Message {
	out := Message{
		Conversation: m.GetConversation(), Seq: m.GetSeq(), ID: clip(m.GetClientMsgId(), wire.MaxClientBytes),
		Sender: fromUser(m.GetSender()), Time: time.UnixMilli(m.GetTimeMs()), Missed: missed,
	}
	out.Own = out.Sender.ID == self && self != ""
	switch k := m.GetPayload().GetKind().(type) {
	case *pb.Payload_Text:
		out.Text = clip(k.Text.GetText(), wire.MaxTextBytes)
	case *pb.Payload_Friend:
		out.Friend = &FriendNotice{
			Change: FriendChange(k.Friend.GetChange()), By: fromUser(k.Friend.GetBy()), To: fromUser(k.Friend.GetTo()),
			Greeting: clip(k.Friend.GetGreeting(), 4*wire.MaxGreetingRunes),
		}
	}
	if r := m.GetReplyTo(); r != nil {
		out.ReplyTo = &Ref{SenderID: clip(r.GetSenderId(), wire.MaxClientBytes), ID: clip(r.GetClientMsgId(), wire.MaxClientBytes)}
	}
	return out
}

func fromFriend(f *pb.Friend) Friend {
	return Friend{
		User: fromUser(f.GetUser()), State: FriendState(f.GetState()), Greeting: clip(f.GetGreeting(), 4*wire.MaxGreetingRunes),
		Time: time.UnixMilli(f.GetTimeMs()), Online: f.GetOnline(), Conversation: clip(f.GetConversation(), wire.MaxClientBytes),
	}
}

func fromConversation(c *pb.Conversation, self string) Conversation {
	out := Conversation{
		ID: clip(c.GetId(), wire.MaxClientBytes), Peer: fromUser(c.GetPeer()), Unread: int(c.GetUnread()), ReadSeq: c.GetReadSeq(),
	}
	if c.GetLast() != nil {
		last := fromMessage(c.GetLast(), self, true)
		out.Last = &last
	}
	return out
}
