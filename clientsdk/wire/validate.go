package wire

import (
	"fmt"
	"unicode/utf8"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Validate holds a request against the rules that need nothing but the request itself. It returns nil, or the error to
// answer: UNSUPPORTED for a body that is no request, INVALID with the field's name for the rest. Decode does not check
// UTF-8, so every string of a request is checked here.
func Validate(e *pb.Envelope) *Error {
	if e.GetId() == 0 {
		return Invalid("id", fmt.Errorf("is 0: choose another number"))
	}
	c := checker{}
	switch b := e.GetBody().(type) {
	case *pb.Envelope_Hello:
		c.most("client", b.Hello.GetClient(), MaxClientBytes)
	case *pb.Envelope_Ping, *pb.Envelope_Logout, *pb.Envelope_Sync, *pb.Envelope_ListFriends, *pb.Envelope_Conversations:
	case *pb.Envelope_Register:
		c.check("name", CheckName(b.Register.GetName()))
		c.check("password", CheckPassword(b.Register.GetPassword()))
		c.check("email", CheckEmail(b.Register.GetEmail()))
		c.device(b.Register.GetDevice())
	case *pb.Envelope_Login:
		c.check("name", CheckName(b.Login.GetName()))
		c.check("password", CheckPassword(b.Login.GetPassword()))
		c.device(b.Login.GetDevice())
	case *pb.Envelope_Resume:
		c.most("token", b.Resume.GetToken(), MaxPasswordBytes)
		c.device(b.Resume.GetDevice())
	case *pb.Envelope_FindUser:
		c.check("name", CheckName(b.FindUser.GetName()))
	case *pb.Envelope_AddFriend:
		c.check("name", CheckName(b.AddFriend.GetName()))
		c.check("greeting", CheckGreeting(b.AddFriend.GetGreeting()))
	case *pb.Envelope_AnswerFriend:
		c.check("name", CheckName(b.AnswerFriend.GetName()))
	case *pb.Envelope_RemoveFriend:
		c.check("name", CheckName(b.RemoveFriend.GetName()))
	case *pb.Envelope_Send:
		c.send(b.Send)
	case *pb.Envelope_History:
		c.conversation("conversation", b.History.GetConversation())
		if b.History.GetLimit() > MaxHistoryLimit {
			c.check("limit", fmt.Errorf("is %d: 0 to %d are allowed", b.History.GetLimit(), MaxHistoryLimit))
		}
	case *pb.Envelope_Read:
		c.conversation("conversation", b.Read.GetConversation())
	default:
		return Errorf(pb.Code_CODE_UNSUPPORTED, "this node does not know that request")
	}
	return c.err
}

// checker keeps the first error.
type checker struct{ err *Error }

func (c *checker) check(field string, err error) {
	if err != nil && c.err == nil {
		c.err = Invalid(field, err)
	}
}

func (c *checker) most(field, s string, bytes int) {
	if len(s) > bytes {
		c.check(field, fmt.Errorf("has %d bytes: at most %d are allowed", len(s), bytes))
	}
	c.check(field, checkString(s))
}

func (c *checker) device(d *pb.Device) {
	c.check("device.id", CheckDeviceID(d.GetId()))
	c.check("device.name", checkString(d.GetName()))
	if n := utf8.RuneCountInString(d.GetName()); n > MaxDeviceRunes {
		c.check("device.name", fmt.Errorf("has %d characters: at most %d are allowed", n, MaxDeviceRunes))
	}
}

func (c *checker) conversation(field, s string) {
	c.check(field, checkString(s))
	if c.err == nil {
		_, err := ParseConversation(s)
		c.check(field, err)
	}
}

func (c *checker) send(r *pb.SendRequest) {
	c.conversation("conversation", r.GetConversation())
	c.check("client_msg_id", CheckMessageID(r.GetClientMsgId()))
	if ref := r.GetReplyTo(); ref != nil {
		_, err := ParseID(ref.GetSenderId())
		c.check("reply_to.sender_id", err)
		c.check("reply_to.client_msg_id", CheckMessageID(ref.GetClientMsgId()))
	}
	switch k := r.GetPayload().GetKind().(type) {
	case *pb.Payload_Text:
		c.check("payload.text", CheckText(k.Text.GetText()))
	case nil:
		c.check("payload", fmt.Errorf("is missing or of a kind that this node does not know"))
	default:
		c.check("payload", fmt.Errorf("is of a kind that only the server makes"))
	}
}
