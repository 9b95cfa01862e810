package deliver

import (
	"encoding/json"
	"fmt"

	"github.com/futurechat/future/clientsdk/wire"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

// PushRecord is a record of chat.push: a message that did not reach everybody. It has ids and never text: whoever notifies
// reads the message, and whether it was read meanwhile, from the database. As the log's value it is a JSON object,
//
//	{"conversation":"d:7:9","seq":"281474976710699","sender":"7","client_msg_id":"0192…","time_ms":1700000000000,"users":["9"]}
//
// and for a group's "version":"3" besides, with ids as decimal strings, since JavaScript's numbers end at 2^53. Its key is the conversation. It may come more than
// once for a message, and then with fewer or more users. A reader ignores fields that it does not know.
type PushRecord struct {
	Conversation string `json:"conversation"`
	Seq          uint64 `json:"seq,string"`
	Sender       int64  `json:"sender,string"`
	ClientMsgID  string `json:"client_msg_id"`
	// TimeMs is when the log took the message, Unix milliseconds.
	TimeMs int64 `json:"time_ms"`
	// Users have no device that took the message. Never the sender.
	Users []UserID `json:"users"`
	// Version is set for a group's message, which always has a record: it is for whoever is a member at that version. Nodes do not
	// tell which of the members they reached; whoever notifies finds out by their cursors.
	Version uint64 `json:"version,string,omitempty"`
}

// UserID is an account's id, a decimal string in JSON.
type UserID int64

// MarshalText implements encoding.TextMarshaler.
func (u UserID) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%d", int64(u)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *UserID) UnmarshalText(text []byte) error {
	id, err := wire.ParseID(string(text))
	*u = UserID(id)
	return err
}

// Entry is the record as it is appended; partitions is how many chat.push has.
func (r PushRecord) Entry(partitions int) (eventlog.Entry, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return eventlog.Entry{}, fmt.Errorf("encode push record: %w", err)
	}
	return eventlog.Entry{
		Topic:     chat.TopicPush,
		Partition: eventlog.PartitionOf(r.Conversation, partitions),
		Key:       []byte(r.Conversation),
		Value:     value,
	}, nil
}

// ParsePush reads a record of chat.push back.
func ParsePush(value []byte) (PushRecord, error) {
	var r PushRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("%w: push: %w", chat.ErrBadRecord, err)
	}
	return r, nil
}
