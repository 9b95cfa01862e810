package chat

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/eventlog"
)

// The topics of the cluster.
const (
	// TopicMessages carries every message, by conversation.
	TopicMessages = "chat.messages"
	// TopicPush carries one record per message that did not reach every recipient.
	TopicPush = "chat.push"
)

// Kind is what a record of TopicMessages is. A kind that a program does not know it passes over, and history keeps its bytes.
type Kind string

// KindMessage is a message that people see: one that a user sent, or a notice.
const KindMessage Kind = "m"

// Headers of a record.
const (
	headerKind   = "k"
	headerResend = "r" // the partition's history offset when the node looked the message up and did not find it
	headerRule   = "v" // "version offset": see Record.Checked
)

// Record is a record of TopicMessages. Its value is the protocol's Message without what the log gives: seq, prev_seq, time.
type Record struct {
	Kind    Kind
	Message *pb.Message
	// Resend: the same identity may be in the log before, at SearchFrom or after.
	Resend bool
	// SearchFrom is the offset below which the identity surely is not: all records below were in the database when it was
	// looked for there.
	SearchFrom int64
	// Checked: the sender's right was checked against Version of the pair or group. All changes of it whose records are below
	// CheckedFrom in the partition have versions up to that one.
	Checked     bool
	Version     uint64
	CheckedFrom int64
}

// ErrBadRecord is matched by errors.Is for a record that cannot be read, now or ever.
var ErrBadRecord = errors.New("chat: bad record")

// Entry is the record as it is appended; partitions is how many TopicMessages has.
func (r Record) Entry(partitions int) (eventlog.Entry, error) {
	value, err := r.Message.MarshalVT()
	if err != nil {
		return eventlog.Entry{}, fmt.Errorf("encode record: %w", err)
	}
	e := eventlog.Entry{
		Topic:     TopicMessages,
		Partition: eventlog.PartitionOf(r.Message.GetConversation(), partitions),
		Key:       []byte(r.Message.GetConversation()),
		Value:     value,
		Headers:   []eventlog.Header{{Key: headerKind, Value: []byte(r.Kind)}},
	}
	if r.Resend {
		e.Headers = append(e.Headers, eventlog.Header{Key: headerResend, Value: strconv.AppendInt(nil, r.SearchFrom, 10)})
	}
	if r.Checked {
		e.Headers = append(e.Headers, eventlog.Header{Key: headerRule, Value: fmt.Appendf(nil, "%d %d", r.Version, r.CheckedFrom)})
	}
	return e, nil
}

// ParseRecord reads a record of TopicMessages back and gives its message seq and time. A record of an unknown kind has no
// Message. ErrBadRecord if it cannot be read.
func ParseRecord(epoch uint32, rec eventlog.Record) (Record, error) {
	var r Record
	for _, h := range rec.Headers {
		switch h.Key {
		case headerKind:
			r.Kind = Kind(h.Value)
		case headerResend:
			from, err := strconv.ParseInt(string(h.Value), 10, 64)
			if err != nil {
				return r, fmt.Errorf("%w: %d/%d: header %s: %w", ErrBadRecord, rec.Partition, rec.Offset, headerResend, err)
			}
			r.Resend, r.SearchFrom = true, from
		case headerRule:
			version, from, _ := strings.Cut(string(h.Value), " ")
			var err, err2 error
			r.Version, err = strconv.ParseUint(version, 10, 64)
			r.CheckedFrom, err2 = strconv.ParseInt(from, 10, 64)
			if err := errors.Join(err, err2); err != nil {
				return r, fmt.Errorf("%w: %d/%d: header %s: %w", ErrBadRecord, rec.Partition, rec.Offset, headerRule, err)
			}
			r.Checked = true
		}
	}
	if r.Kind != KindMessage {
		return r, nil
	}
	m := new(pb.Message)
	if err := m.UnmarshalVT(rec.Value); err != nil {
		return r, fmt.Errorf("%w: %d/%d: %w", ErrBadRecord, rec.Partition, rec.Offset, err)
	}
	if _, err := wire.ParseConversation(m.GetConversation()); err != nil {
		return r, fmt.Errorf("%w: %d/%d: %w", ErrBadRecord, rec.Partition, rec.Offset, err)
	}
	if _, err := wire.ParseID(m.GetSender().GetId()); err != nil {
		return r, fmt.Errorf("%w: %d/%d: sender: %w", ErrBadRecord, rec.Partition, rec.Offset, err)
	}
	if err := wire.CheckMessageID(m.GetClientMsgId()); err != nil {
		return r, fmt.Errorf("%w: %d/%d: %w", ErrBadRecord, rec.Partition, rec.Offset, err)
	}
	m.Seq, m.TimeMs = eventlog.Seq(epoch, rec.Offset), rec.Time.UnixMilli()
	r.Message = m
	return r, nil
}

// Identity names a message for good: its position may change with the log, this never does.
type Identity struct {
	Conversation string
	Sender       int64
	ClientMsgID  string
}

// IdentityOf is the identity of a message that ParseRecord or a store gave.
func IdentityOf(m *pb.Message) Identity {
	sender, _ := wire.ParseID(m.GetSender().GetId()) // checked when it was read
	return Identity{m.GetConversation(), sender, m.GetClientMsgId()}
}

// SameContent reports whether two messages of one identity say the same. A retry says the same; a client that gave the id to
// another message is told ID_REUSED.
func SameContent(a, b *pb.Message) bool {
	return a.GetPayload().EqualVT(b.GetPayload()) && a.GetReplyTo().EqualVT(b.GetReplyTo())
}
