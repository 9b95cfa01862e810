package deliver_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
)

func TestPushRecord_HasIdsAndNoText(t *testing.T) {
	in := deliver.PushRecord{Conversation: "d:7:9", Seq: seq(43), Sender: 7, ClientMsgID: messageID(1), TimeMs: 5, Users: []deliver.UserID{9}}
	e, err := in.Entry(4)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"conversation":"d:7:9","seq":"281474976710699","sender":"7","client_msg_id":"0192f0c1-0000-7000-8000-000000000001","time_ms":5,"users":["9"]}`
	if string(e.Value) != want || e.Topic != chat.TopicPush || string(e.Key) != "d:7:9" || e.Partition != eventlog.PartitionOf("d:7:9", 4) {
		t.Fatalf("entry is %+v, value %s", e, e.Value)
	}
	out, err := deliver.ParsePush(e.Value)
	if err != nil || out.Seq != in.Seq || out.Sender != 7 || out.Users[0] != 9 {
		t.Fatalf("parsed %+v, %v", out, err)
	}
	for _, bad := range []string{``, `{"users":["x"]}`, strings.Replace(want, `"9"]`, `9]`, 1)} {
		if _, err := deliver.ParsePush([]byte(bad)); !errors.Is(err, chat.ErrBadRecord) {
			t.Errorf("%s gave %v", bad, err)
		}
	}
}
