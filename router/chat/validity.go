package chat

import (
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// Validity is a function of the log alone. A message bears the version of the pair or group that its sender's right was checked
// against. A notice that ends the right, a closing, bears the version that it made. A message is invalid if a closing for its
// sender with a higher version stands before it in the partition. Then it was never acknowledged (design.md, "Exact removals"):
// whoever reads the log passes it over.
//
// Of closings that matter for a message none stands below its CheckedFrom: those there have versions up to the message's. So who
// reads the log from there on needs nothing else. Messages without a version (of a program that did not know this), and the
// server's notices, are always valid.

// Everybody is the user of a closing that is for all members of its conversation.
const Everybody int64 = 0

// Closing says whose right to write to a conversation ends, and the version of the pair or group by which it did.
type Closing struct {
	Conversation string
	User         int64 // or Everybody
	Version      uint64
}

// ClosingOf gives the closing that a message is, if it is one. Only the server makes such messages.
func ClosingOf(m *pb.Message) (Closing, bool) {
	if n := m.GetPayload().GetFriend(); n.GetChange() == pb.FriendNotice_CHANGE_REMOVED {
		return Closing{Conversation: m.GetConversation(), User: Everybody, Version: n.GetVersion()}, true
	}
	switch n := m.GetPayload().GetGroup(); n.GetChange() {
	case pb.GroupNotice_CHANGE_LEFT, pb.GroupNotice_CHANGE_REMOVED: // of one subject
		if len(n.GetSubjects()) == 1 {
			user, err := wire.ParseID(n.GetSubjects()[0].GetId())
			return Closing{Conversation: m.GetConversation(), User: user, Version: n.GetVersion()}, err == nil
		}
	}
	return Closing{}, false
}

// ClosingKey is what closings are kept by.
type ClosingKey struct {
	Conversation string
	User         int64
}

// Key is what it is kept by.
func (c Closing) Key() ClosingKey { return ClosingKey{c.Conversation, c.User} }

// ClosedFor gives the keys of the closings that a message's validity depends on.
func ClosedFor(conversation string, sender int64) [2]ClosingKey {
	return [2]ClosingKey{{conversation, Everybody}, {conversation, sender}}
}

// Closings are the highest closing versions of a stretch of the log, read in order.
type Closings map[ClosingKey]uint64

// Note remembers a closing, if the message is one.
func (c Closings) Note(m *pb.Message) {
	if closing, ok := ClosingOf(m); ok {
		c[closing.Key()] = max(c[closing.Key()], closing.Version)
	}
}

// Highest is the version of the highest closing for a sender, 0 if there is none.
func (c Closings) Highest(conversation string, sender int64) uint64 {
	keys := ClosedFor(conversation, sender)
	return max(c[keys[0]], c[keys[1]])
}

// Invalid reports whether a record that comes next is a message that its sender had no right to any more.
func (c Closings) Invalid(r Record) bool {
	return r.Checked && c.Highest(r.Message.GetConversation(), IdentityOf(r.Message).Sender) > r.Version
}

// Invalid reports whether message i of the batch is, by the closings before it.
func (b Batch) Invalid(i int, before Closings) bool {
	if b.Checks == nil {
		return false
	}
	return before.Invalid(Record{Message: b.Messages[i], Checked: b.Checks[i].Checked, Version: b.Checks[i].Version})
}

// NoRight is what the sender of an invalid message is told.
func NoRight(conversation string) *wire.Error {
	if len(conversation) > 0 && conversation[0] == 'g' {
		return wire.Errorf(pb.Code_CODE_NOT_FOUND, "there is no such group")
	}
	return notFriends()
}
