package history

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

// take gives how many of the records make one batch: at least one, if there are any.
func take(records []eventlog.Record, most, mostBytes int) int {
	bytes := 0
	for i, r := range records {
		bytes += size(r)
		if i == most || i > 0 && bytes > mostBytes {
			return i
		}
	}
	return len(records)
}

func size(r eventlog.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// makeBatch turns records, of which there is at least one, into a batch. What no database could store as a message is dead:
// if the store refused it, it would be tried forever.
func makeBatch(topic string, epoch uint32, from int64, records []eventlog.Record) chat.Batch {
	last := records[len(records)-1]
	b := chat.Batch{Topic: topic, Partition: last.Partition, From: from, Next: last.Offset + 1}
	b.Messages, b.Checks = make([]*pb.Message, 0, len(records)), make([]chat.Check, 0, len(records))
	for _, r := range records {
		parsed, err := chat.ParseRecord(epoch, r)
		if err == nil {
			err = storable(parsed)
		}
		if err == nil {
			b.Messages = append(b.Messages, parsed.Message)
			b.Checks = append(b.Checks, chat.Check{Checked: parsed.Checked, Version: parsed.Version})
			continue
		}
		b.Dead = append(b.Dead, chat.DeadRecord{
			Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Headers: r.Headers,
			TimeMs: r.Time.UnixMilli(), Reason: err.Error(),
		})
	}
	return b
}

var (
	errNotUTF8        = errors.New("a text is not UTF-8")
	errUnknownPayload = errors.New("payload of an unknown kind")
	errNameTooLong    = errors.New("the sender's name is too long")
	errTextTooLong    = errors.New("the text is too long")
)

// storable says why a record is no message for the database. The text of a message is never part of it.
func storable(r chat.Record) error {
	if r.Message == nil {
		return fmt.Errorf("record of unknown kind %.20q", r.Kind)
	}
	m := r.Message
	if !utf8.ValidString(m.GetSender().GetName()) {
		return errNotUTF8
	}
	if utf8.RuneCountInString(m.GetSender().GetName()) > wire.MaxNameRunes {
		return errNameTooLong
	}
	if ref := m.GetReplyTo(); ref != nil {
		if _, err := wire.ParseID(ref.GetSenderId()); err != nil {
			return fmt.Errorf("reply_to: %w", err)
		}
		if err := wire.CheckMessageID(ref.GetClientMsgId()); err != nil {
			return fmt.Errorf("reply_to: %w", err)
		}
	}
	switch k := m.GetPayload().GetKind().(type) {
	case *pb.Payload_Text:
		return textFits(k.Text.GetText(), wire.MaxTextBytes)
	case *pb.Payload_Friend:
		for _, s := range []string{k.Friend.GetBy().GetId(), k.Friend.GetBy().GetName(), k.Friend.GetTo().GetId(), k.Friend.GetTo().GetName(), k.Friend.GetGreeting()} {
			if err := textFits(s, wire.MaxTextBytes); err != nil {
				return err
			}
		}
		return nil
	case *pb.Payload_Group:
		return groupFits(k.Group)
	default:
		return errUnknownPayload
	}
}

func groupFits(n *pb.GroupNotice) error {
	if len(n.GetSubjects()) > chat.MaxSubjects {
		return errTextTooLong
	}
	for _, u := range append([]*pb.User{n.GetBy(), {Name: n.GetName()}}, n.GetSubjects()...) {
		for _, s := range []string{u.GetId(), u.GetName()} {
			if err := textFits(s, wire.MaxTextBytes); err != nil {
				return err
			}
		}
	}
	return nil
}

func textFits(s string, most int) error {
	switch {
	case !utf8.ValidString(s):
		return errNotUTF8
	case len(s) > most:
		return errTextTooLong
	}
	return nil
}
