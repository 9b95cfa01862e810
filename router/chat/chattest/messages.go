package chattest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

func contextEnded(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}

func (s suite) pages(t *testing.T) {
	f := s.fixture(t)
	for i := range int64(10) { // at offsets 1, 3, …, 19, in batches of their own
		f.write(0, Message("d:1:2", 1+i%2, 2*i+1, fmt.Sprint(i)), Message("d:1:3", 1, 2*i+2, "not theirs"))
	}
	at := func(offset int64) uint64 { return eventlog.Seq(1, offset) }
	for _, test := range []struct {
		what          string
		after, before uint64
		limit         int
		forward       bool
		want          string
	}{
		{"all", 0, 0, 100, true, "0 1 2 3 4 5 6 7 8 9"},
		{"all, backward", 0, 0, 100, false, "0 1 2 3 4 5 6 7 8 9"},
		{"the first", 0, 0, 3, true, "0 1 2"},
		{"the last", 0, 0, 3, false, "7 8 9"},
		{"after one", at(5), 0, 2, true, "3 4"},
		{"after, but the last", at(5), 0, 2, false, "8 9"},
		{"after no one's seq", at(6), 0, 2, true, "3 4"},
		{"before", 0, at(15), 2, false, "5 6"},
		{"before, but the first", 0, at(15), 2, true, "0 1"},
		{"between", at(3), at(9), 100, true, "2 3"},
		{"between, backward", at(3), at(9), 1, false, "3"},
		{"between neighbours", at(3), at(5), 100, true, ""},
		{"bounds crossed", at(9), at(3), 100, true, ""},
		{"bounds alike", at(5), at(5), 100, false, ""},
		{"above all", at(19), 0, 100, true, ""},
		{"below all", 0, at(1), 100, false, ""},
		{"no limit", 0, 0, 0, true, ""},
		{"highest bounds", 1<<63 - 1, 1<<63 - 1, 5, true, ""},
		{"unsigned bounds", 0, 1<<64 - 1, 2, false, "8 9"},
	} {
		for range 2 {
			page, err := f.Messages(f.ctx, "d:1:2", test.after, test.before, test.limit, test.forward)
			f.must(err)
			if got := texts(page); got != test.want {
				t.Fatalf("%s: got %q, want %q", test.what, got, test.want)
			}
			if len(page) > 0 {
				_, offset := eventlog.SplitSeq(page[0].GetSeq())
				first := at(offset - 2)
				if offset == 1 {
					first = 0
				}
				f.chained(page, first)
			}
		}
	}
	if page, err := f.Messages(f.ctx, "d:8:9", 0, 0, 5, true); err != nil || len(page) != 0 {
		t.Fatalf("got %v, %v", page, err)
	}
}

func (s suite) epochs(t *testing.T) {
	f := s.fixture(t)
	a, b, c := Message("d:1:2", 1, 50, "a"), Message("d:1:2", 1, 60, "b"), Message("d:1:2", 2, 70, "c")
	b.Seq, c.Seq = eventlog.Seq(2, 60), eventlog.Seq(eventlog.MaxEpoch, 1<<48-1)
	f.write(0, a)
	f.write(0, b, c)
	page, err := f.Messages(f.ctx, "d:1:2", a.GetSeq(), 0, 10, true)
	f.must(err)
	if texts(page) != "b c" || page[1].GetSeq() != c.GetSeq() {
		t.Fatalf("got %v", page)
	}
	f.chained(page, a.GetSeq())
	if h := f.head(1, "d:1:2"); h.Seq != c.GetSeq() || h.Unread != 1 {
		t.Fatalf("got %+v", h)
	}
}

func (s suite) fidelity(t *testing.T) {
	f := s.fixture(t)
	first := Message("d:1:2", 1, 3, "hello")
	reply := Message("d:1:2", 2, 4, "yes?")
	reply.ReplyTo = &pb.Ref{SenderId: "1", ClientMsgId: first.GetClientMsgId()}
	notices := make([]*pb.Message, 0, 5)
	for i := range int64(5) {
		m := Message("d:1:2", 2, 5+i, "")
		m.Payload = &pb.Payload{Kind: &pb.Payload_Friend{Friend: &pb.FriendNotice{
			Change: pb.FriendNotice_Change(i), By: &pb.User{Id: "2", Name: `b"ö'b`}, To: &pb.User{Id: "9007199254740993", Name: "🙂"},
			Greeting: strings.Repeat("%s 'شكرا' \u202e\n", int(i)), Version: uint64(i) * (1<<63 - 1),
		}}}
		notices = append(notices, m)
	}
	longest := Message("d:1:2", 9007199254740993, 10, "x")
	longest.Sender.Name = strings.Repeat("🙂", wire.MaxNameRunes)
	sent := append([]*pb.Message{first, reply}, append(notices, longest)...)
	f.write(0, sent...)
	page := f.page("d:1:2")
	if len(page) != len(sent) {
		t.Fatalf("got %d messages, want %d", len(page), len(sent))
	}
	prev := uint64(0)
	for i, want := range sent {
		want.PrevSeq, want.PrevKnown = prev, true
		found, err := f.FindMessage(f.ctx, chat.IdentityOf(want))
		f.must(err)
		if !page[i].EqualVT(want) || !found.EqualVT(want) {
			t.Errorf("message %d: page has %v, found %v, want %v", i, page[i], found, want)
		}
		prev = want.GetSeq()
	}
}

func (s suite) texts(t *testing.T) {
	f := s.fixture(t)
	all := []string{
		"%s%n%d%%", `quotes ' " \ ` + "`", "'; DROP TABLE messages; --", "tab\tnewline\r\nback\bbell\a\x01\x1a\x1b\x7f", "  spaces at the ends  ", "\n",
		"🙂👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿", "مرحبا \u202eright to left\u202c שלום", "e\u0301 é ﬁ ß İ ı", "\ufeffBOM \u2028 \u2029 \ufffd \U0010ffff", "0614897828", "null", `{"text":{}}`, "<script>&amp;</script>",
		strings.Repeat("x", wire.MaxTextBytes), strings.Repeat("🙂", wire.MaxTextBytes/4), strings.Repeat("\"", wire.MaxTextBytes), strings.Repeat("\x01", wire.MaxTextBytes), strings.Repeat("é\n", wire.MaxTextBytes/3),
	}
	var sent []*pb.Message
	for i, text := range all {
		sent = append(sent, Message("d:1:2", 1, int64(i), text))
	}
	f.write(0, sent...)
	for i, m := range f.page("d:1:2") {
		if got := m.GetPayload().GetText().GetText(); got != all[i] {
			t.Errorf("text %d: got %.40q (%d bytes), want %.40q (%d bytes)", i, got, len(got), all[i], len(all[i]))
		}
	}
}

func (s suite) find(t *testing.T) {
	f := s.fixture(t)
	a, b := Message("d:1:2", 1, 0, "a"), Message("d:1:2", 1, 1, "b")
	f.write(0, a, b)
	got, err := f.FindMessage(f.ctx, chat.IdentityOf(b))
	f.must(err)
	if got.GetSeq() != b.GetSeq() || got.GetTimeMs() != b.GetTimeMs() || got.GetPrevSeq() != a.GetSeq() || !got.GetPrevKnown() {
		t.Fatalf("got %v", got)
	}
	id := chat.IdentityOf(a)
	for _, wrong := range []chat.Identity{
		{Conversation: "d:1:3", Sender: 1, ClientMsgID: id.ClientMsgID}, {Conversation: "d:1:2", Sender: 2, ClientMsgID: id.ClientMsgID},
		{Conversation: "d:1:2", Sender: 1, ClientMsgID: wire.NewMessageID()}, {Conversation: "d:1:2", Sender: 1, ClientMsgID: "nonsense"},
		{Conversation: "d:1:2", Sender: 1, ClientMsgID: strings.ToUpper(id.ClientMsgID)},
	} {
		if wrong == id { // an id without letters has one spelling
			continue
		}
		if got, err := f.FindMessage(f.ctx, wrong); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("%+v: got %v, %v", wrong, got, err)
		}
	}
}

func (s suite) last(t *testing.T) {
	f := s.fixture(t)
	f.write(0, Message("d:1:2", 1, 0, "a"), Message("d:1:3", 1, 1, "b"), Message("d:1:2", 1, 2, "c"))
	f.write(1, Message("n:1", 2, 0, "d"))
	last, err := f.LastMessages(f.ctx, []string{"d:1:2", "d:1:3", "n:1", "d:1:4", "nonsense"})
	f.must(err)
	if len(last) != 3 || texts([]*pb.Message{last["d:1:2"], last["d:1:3"], last["n:1"]}) != "c b d" {
		t.Fatalf("got %v", last)
	}
	f.chained([]*pb.Message{last["d:1:2"]}, eventlog.Seq(1, 0))
	if last, err = f.LastMessages(f.ctx, nil); err != nil || len(last) != 0 {
		t.Fatalf("got %v, %v", last, err)
	}
	many := make([]string, 0, 1000)
	for i := range int64(1000) {
		many = append(many, wire.Direct(1, 2+i))
	}
	if last, err = f.LastMessages(f.ctx, many); err != nil || len(last) != 2 {
		t.Fatalf("got %d, %v", len(last), err)
	}
}

func (s suite) unread(t *testing.T) {
	f := s.fixture(t)
	f.write(0, Message("d:1:2", 1, 0, "a"), Message("d:1:2", 1, 1, "b"), Message("d:1:2", 2, 2, "c"), Message("n:2", 1, 3, "d"))
	at := func(offset int64) uint64 { return eventlog.Seq(1, offset) }
	check := func(user int64, conversation string, want chat.Head) {
		t.Helper()
		want.Conversation = conversation
		if got := f.head(user, conversation); got != want {
			t.Fatalf("user %d: got %+v, want %+v", user, got, want)
		}
	}
	check(1, "d:1:2", chat.Head{Seq: at(2), Unread: 1})
	check(2, "d:1:2", chat.Head{Seq: at(2), Unread: 2})
	check(2, "n:2", chat.Head{Seq: at(3), Unread: 1})
	h, err := f.MarkRead(f.ctx, 2, "d:1:2", at(0))
	f.must(err)
	if want := (chat.Head{Conversation: "d:1:2", Seq: at(2), ReadSeq: at(0), Unread: 1}); h != want {
		t.Fatalf("got %+v, want %+v", h, want)
	}
	check(2, "d:1:2", h)
	check(1, "d:1:2", chat.Head{Seq: at(2), Unread: 1}) // his reading is his own
	f.write(0, Message("d:1:2", 1, 9, "e"), Message("d:1:2", 2, 10, "f"))
	check(2, "d:1:2", chat.Head{Seq: at(10), ReadSeq: at(0), Unread: 2})
	check(1, "d:1:2", chat.Head{Seq: at(10), Unread: 2})
}

// unreadRandom holds the counts against those of a plain model, over many orders of writing and reading.
func (s suite) unreadRandom(t *testing.T) {
	f := s.fixture(t)
	random := rand.New(rand.NewPCG(1, 2))
	var all []*pb.Message
	read := map[int64]uint64{}
	offset := int64(0)
	for range 60 {
		var batch []*pb.Message
		for range 1 + random.IntN(3) {
			offset += 1 + random.Int64N(2)
			batch = append(batch, Message("d:1:2", 1+random.Int64N(2), offset, "x"))
		}
		f.write(0, batch...)
		all = append(all, batch...)
		offset = f.due(0)
		user := 1 + random.Int64N(2)
		seq := eventlog.Seq(1, random.Int64N(offset+3))
		_, err := f.MarkRead(f.ctx, user, "d:1:2", seq)
		f.must(err)
		for _, m := range all {
			if m.GetSeq() <= seq {
				read[user] = max(read[user], m.GetSeq())
			}
		}
		for user := range int64(3) {
			if user == 0 {
				continue
			}
			unread := uint32(0)
			for _, m := range all {
				if m.GetSeq() > read[user] && chat.IdentityOf(m).Sender != user {
					unread++
				}
			}
			if h := f.head(user, "d:1:2"); h.Unread != unread || h.ReadSeq != read[user] {
				t.Fatalf("user %d with %d messages: got %+v, want %d unread above %d", user, len(all), h, unread, read[user])
			}
		}
	}
}

func (s suite) markRead(t *testing.T) {
	f := s.fixture(t)
	at := func(offset int64) uint64 { return eventlog.Seq(1, offset) }
	if h, err := f.MarkRead(f.ctx, 1, "d:1:2", at(5)); !errors.Is(err, chat.ErrNotFound) {
		t.Fatalf("a conversation that history does not know: %+v, %v", h, err)
	}
	f.write(0, Message("d:1:2", 1, 10, "a"), Message("d:1:2", 1, 12, "b"), Message("d:1:2", 1, 14, "c"))
	for _, step := range []struct {
		seq, read uint64
		unread    uint32
	}{
		{0, 0, 3}, {at(9), 0, 3}, // nothing at or below it
		{at(13), at(12), 1},                 // to the newest at or below it
		{at(10), at(12), 1}, {0, at(12), 1}, // never down
		{at(12), at(12), 1},
		{at(99), at(14), 0}, // never beyond what there is
		{1<<64 - 1, at(14), 0},
	} {
		h, err := f.MarkRead(f.ctx, 2, "d:1:2", step.seq)
		f.must(err)
		if want := (chat.Head{Conversation: "d:1:2", Seq: at(14), ReadSeq: step.read, Unread: step.unread}); h != want || f.head(2, "d:1:2") != want {
			t.Fatalf("to %d: got %+v, want %+v", step.seq, h, want)
		}
	}
	f.write(0, Message("d:1:2", 1, 15, "d")) // what came later is not read, although a higher seq was named
	if h := f.head(2, "d:1:2"); h.Unread != 1 || h.ReadSeq != at(14) {
		t.Fatalf("got %+v", h)
	}
	if _, err := f.MarkRead(f.ctx, 3, "d:1:2", at(14)); !errors.Is(err, chat.ErrNotFound) {
		t.Fatalf("somebody else: %v", err)
	}
}

func (s suite) markReadAtOnce(t *testing.T) {
	f := s.fixture(t)
	const n = 12
	for i := range int64(n) {
		f.write(0, Message("d:1:2", 1, i, "x"))
	}
	atOnce(n, func(i int) {
		if _, err := f.MarkRead(f.ctx, 2, "d:1:2", eventlog.Seq(1, int64(i*5%n))); err != nil {
			t.Error(err)
		}
	})
	if h := f.head(2, "d:1:2"); h.ReadSeq != eventlog.Seq(1, n-1) || h.Unread != 0 {
		t.Fatalf("got %+v: the highest wins", h)
	}
}

func (s suite) heads(t *testing.T) {
	f := s.fixture(t)
	f.write(0, Message("d:1:2", 1, 0, "a"), Message("d:2:3", 2, 1, "b"), Message("n:2", 9, 2, "c"), Message("n:3", 9, 3, "d"), Message("d:1:22", 1, 4, "e"))
	heads, err := f.Heads(f.ctx, 2)
	f.must(err)
	got := map[string]chat.Head{}
	for _, h := range heads {
		got[h.Conversation] = h
		if one, err := f.Head(f.ctx, 2, h.Conversation); err != nil || one != h {
			t.Errorf("%s: %+v among all, %+v, %v alone", h.Conversation, h, one, err)
		}
	}
	if len(heads) != 3 || got["d:1:2"].Unread != 1 || got["d:2:3"].Unread != 0 || got["n:2"].Unread != 1 || got["d:2:3"].Seq != eventlog.Seq(1, 1) {
		t.Fatalf("got %+v", heads)
	}
	for _, c := range []string{"d:1:22", "n:3", "d:2:9", "nonsense", ""} {
		if h, err := f.Head(f.ctx, 2, c); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("%q: got %+v, %v", c, h, err)
		}
	}
	if heads, err := f.Heads(f.ctx, 77); err != nil || len(heads) != 0 {
		t.Fatalf("got %+v, %v", heads, err)
	}
}
