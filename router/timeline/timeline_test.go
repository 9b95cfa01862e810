package timeline_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/chat/chattest"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/presence"
	"github.com/futurechat/future/router/timeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const talk = "d:1:2"

var errAway = errors.New("away")

// world is a log of one partition, a router and a history consumer that are somewhere in it, and what they wrote.
type world struct {
	*testing.T
	log      *eventlog.Memory
	presence *presence.Memory
	store    *chat.Memory
	reader   *timeline.Reader

	valid   []*pb.Message // of talk, each identity once
	end     int64
	routed  int64 // the router's position
	written int64 // history's position
	all     []*pb.Message

	away map[string]bool // presence, store, log
	step func()          // before each read of a dependency
	most int             // records read at once
}

func newWorld(t *testing.T, maxRecords int) *world {
	w := &world{T: t, away: map[string]bool{}, step: func() {}, most: maxRecords}
	fault := func(what string) error {
		if w.away[what] {
			return errAway
		}
		return nil
	}
	w.log = eventlog.NewMemory(eventlog.MemoryOptions{Manual: true, MaxBatch: 7, Fault: func(op eventlog.Op, _ string, _ int32) error {
		if op == eventlog.OpAppend || op == eventlog.OpAck || op == eventlog.OpCreate {
			return nil
		}
		return fault("log")
	}})
	t.Cleanup(func() { _ = w.log.Close(context.WithoutCancel(t.Context())) })
	w.presence = presence.NewMemory(presence.MemoryOptions{Fault: func(op presence.Op) error {
		if op == presence.OpAppend {
			return nil
		}
		return fault("presence")
	}})
	w.store = chat.NewMemory(chat.MemoryOptions{Fault: func(op chat.Op) error {
		if op == chat.OpWriteBatch || op == chat.OpWriteBatch.Answer() {
			return nil
		}
		return fault("store")
	}})
	w.must(w.log.CreateTopic(t.Context(), eventlog.TopicSpec{Name: chat.TopicMessages, Partitions: 1}))
	w.reader = timeline.New(timeline.Options{
		Store: stepStore{w.store, w}, Recents: stepRecents{w.presence, w}, Log: stepLog{w.log, w},
		Topic: eventlog.State{Partitions: 1, Epoch: 1}, MaxRecords: maxRecords, Patience: 5 * time.Second,
	})
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// send appends a message to the log. One that was sent before is a copy there.
func (w *world) send(m *pb.Message) {
	w.Helper()
	entry, err := chat.Record{Kind: chat.KindMessage, Message: m}.Entry(1)
	w.must(err)
	w.must(w.log.Append(entry, func(at eventlog.Appended, err error) {
		w.must(err)
		w.end = at.Offset + 1
	}))
	for w.log.Step() {
	}
	m = &pb.Message{Conversation: m.GetConversation(), Sender: m.GetSender(), ClientMsgId: m.GetClientMsgId(), Payload: m.GetPayload(), TimeMs: 5, Seq: eventlog.Seq(1, w.end-1)}
	first := !slices.ContainsFunc(w.all, func(o *pb.Message) bool { return chat.IdentityOf(o) == chat.IdentityOf(m) })
	w.all = append(w.all, m)
	if first && m.GetConversation() == talk {
		w.valid = append(w.valid, m)
	}
}

func (w *world) say(sender int64, text string) *pb.Message {
	m := chattest.Message(talk, sender, 0, text)
	m.Seq, m.TimeMs = 0, 0
	w.send(m)
	return m
}

// route lets the router go on by n records, as far as there are.
func (w *world) route(n int64) {
	w.Helper()
	for ; n > 0 && w.routed < w.end; n-- {
		m := w.all[w.routed]
		first := slices.IndexFunc(w.all, func(o *pb.Message) bool { return chat.IdentityOf(o) == chat.IdentityOf(m) })
		if int64(first) == w.routed {
			encoded, err := m.MarshalVT()
			w.must(err)
			c, err := wire.ParseConversation(m.GetConversation())
			w.must(err)
			_, _, err = w.presence.Append(context.Background(), []presence.Recent{{
				Conversation: m.GetConversation(), Seq: m.GetSeq(), Users: []int64{c.A, c.B}, Message: encoded,
			}}, eventlog.Seq(1, w.written), "")
			w.must(err)
		}
		w.routed++
	}
}

// write lets history go on.
func (w *world) write(n int64) {
	w.Helper()
	if next := min(w.written+n, w.end); next > w.written {
		_, err := w.store.WriteBatch(context.Background(), chat.Batch{Topic: chat.TopicMessages, From: w.written, Next: next, Messages: w.all[w.written:next]})
		w.must(err)
		w.written = next
	}
}

// The dependencies as the reader sees them: before each read the world may go on.
type (
	stepStore struct {
		*chat.Memory
		w *world
	}
	stepRecents struct {
		*presence.Memory
		w *world
	}
	stepLog struct {
		*eventlog.Memory
		w *world
	}
)

func (s stepStore) HistoryOffsets(ctx context.Context, topic string) (map[int32]int64, error) {
	s.w.step()
	return s.Memory.HistoryOffsets(ctx, topic)
}

func (s stepStore) Messages(ctx context.Context, c string, after, before uint64, limit int, forward bool) ([]*pb.Message, error) {
	s.w.step()
	return s.Memory.Messages(ctx, c, after, before, limit, forward)
}

func (s stepStore) Heads(ctx context.Context, user int64) ([]chat.Head, error) {
	s.w.step()
	return s.Memory.Heads(ctx, user)
}

func (s stepRecents) Page(ctx context.Context, c string, after, before uint64, limit int, forward bool) (presence.Page, error) {
	s.w.step()
	return s.Memory.Page(ctx, c, after, before, limit, forward)
}

func (s stepRecents) Heads(ctx context.Context, user int64) (map[string]uint64, error) {
	s.w.step()
	return s.Memory.Heads(ctx, user)
}

func (s stepLog) Bounds(ctx context.Context, topic string, p int32) (start, end int64, err error) {
	s.w.step()
	return s.Memory.Bounds(ctx, topic, p)
}

func (s stepLog) Open(ctx context.Context, topic string, p int32, from int64) (eventlog.Reader, error) {
	s.w.step()
	return s.Memory.Open(ctx, topic, p, from)
}

// exact holds that an answer has what it says it has.
func (w *world) exact(q *pb.HistoryRequest, a *pb.HistoryResponse) {
	w.Helper()
	w.exactOr(q, a, false)
}

// exactOr lets copies pass of what the caller has already: when the log is read in steps they are not known.
func (w *world) exactOr(q *pb.HistoryRequest, a *pb.HistoryResponse, inSteps bool) {
	w.Helper()
	var copies []*pb.Message
	a.Messages = slices.DeleteFunc(a.GetMessages(), func(m *pb.Message) bool {
		first := slices.IndexFunc(w.valid, func(o *pb.Message) bool { return chat.IdentityOf(o) == chat.IdentityOf(m) })
		if !inSteps || !q.GetForward() || w.valid[first].GetSeq() > q.GetAfter() {
			return false
		}
		copies = append(copies, m)
		return true
	})
	if len(copies) > 0 {
		for _, m := range a.GetMessages() {
			m.PrevKnown = false // it joins the copies too
		}
	}
	from, to := a.GetCoversAfter(), a.GetCoversBefore()
	if from < q.GetAfter() || q.GetBefore() != 0 && q.GetBefore() > q.GetAfter() && to > max(q.GetBefore(), from+1) || to <= from {
		w.Fatalf("%v: covers (%d, %d)", q, from, to)
	}
	var want []*pb.Message
	prev := map[uint64]uint64{}
	for i, m := range w.valid {
		if i > 0 {
			prev[m.GetSeq()] = w.valid[i-1].GetSeq()
		}
		if m.GetSeq() > from && m.GetSeq() < to {
			want = append(want, m)
		}
	}
	if len(want) != len(a.GetMessages()) || len(want) > int(q.GetLimit()) {
		w.Fatalf("%v: covers (%d, %d) with %d messages, there are %d (end %d, routed %d, written %d)", q, from, to, len(a.GetMessages()), len(want), w.end, w.routed, w.written)
	}
	for i, m := range a.GetMessages() {
		if m.GetSeq() != want[i].GetSeq() || chat.IdentityOf(m) != chat.IdentityOf(want[i]) || !chat.SameContent(m, want[i]) {
			w.Fatalf("%v: message %d is at %d, want %d", q, i, m.GetSeq(), want[i].GetSeq())
		}
		if m.GetPrevKnown() && m.GetPrevSeq() != prev[m.GetSeq()] || i > 0 && !m.GetPrevKnown() && len(copies) == 0 {
			w.Fatalf("%v: message %d has prev %d (known %t), want %d", q, i, m.GetPrevSeq(), m.GetPrevKnown(), prev[m.GetSeq()])
		}
	}
}

// Whatever is where, and whatever goes on while it is read: an answer is exact in the range that it names, it has what had been
// routed before it was asked for, and it goes on with the next one.
func TestR17_HistoryIsExactWhereverTheMessagesAre(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { randomHistory(t, rand.New(rand.NewPCG(seed, 7)), seed%4 == 3) })
	}
}

func randomHistory(t *testing.T, random *rand.Rand, faults bool) {
	w := newWorld(t, 5+random.IntN(60))
	var sent []*pb.Message
	grow := func() {
		switch {
		case len(sent) > 0 && random.IntN(6) == 0: // a copy
			w.send(sent[random.IntN(len(sent))])
		case random.IntN(3) == 0:
			m := chattest.Message("d:1:3", 1, 0, "not theirs")
			w.send(m)
		default:
			sent = append(sent, w.say(1+random.Int64N(2), fmt.Sprint(len(sent))))
		}
	}
	move := func() {
		for range random.IntN(4) {
			grow()
		}
		if random.IntN(2) == 0 {
			w.route(random.Int64N(8))
		}
		if random.IntN(2) == 0 {
			w.write(random.Int64N(8))
		}
	}
	for range 1 + random.IntN(80) {
		grow()
	}
	w.route(random.Int64N(w.end + 10))
	w.write(random.Int64N(w.end + 10))
	lost := false
	for range 25 {
		move()
		if random.IntN(10) == 0 {
			w.presence.LoseRecents(talk)
			lost = true
		}
		if faults {
			for _, what := range []string{"presence", "store", "log"} {
				w.away[what] = random.IntN(4) == 0
			}
		}
		w.step = func() {}
		if random.IntN(2) == 0 {
			w.step = move
		}
		q := &pb.HistoryRequest{Conversation: talk, Limit: 1 + random.Uint32N(12), Forward: random.IntN(2) == 0}
		if random.IntN(2) == 0 {
			q.After = eventlog.Seq(1, random.Int64N(w.end+3))
		}
		if random.IntN(3) == 0 {
			q.Before = eventlog.Seq(1, random.Int64N(w.end+3))
		}
		routed, written := w.routed, w.written
		a, err := w.reader.History(t.Context(), 1+random.Int64N(2), q)
		w.step = func() {}
		if err != nil {
			e := chat.Answer(err)
			if e.RetryAfter <= 0 || e.Code == pb.Code_CODE_UNAVAILABLE && !faults {
				t.Fatalf("%v: %v", q, err)
			}
			continue
		}
		w.exactOr(q, a, w.end-written > int64(w.most))
		if q.GetBefore() != 0 || lost && w.away["log"] {
			continue
		}
		// The newest that had been routed is in it, unless there was no room or it says that there is more.
		for _, m := range w.valid {
			if _, at := eventlog.SplitSeq(m.GetSeq()); at < routed && m.GetSeq() > q.GetAfter() && m.GetSeq() >= a.GetCoversBefore() && (!q.GetForward() || !a.GetMore()) {
				// A backward answer may end at the recents' newest while the database is ahead, but never below what was routed.
				t.Fatalf("%v: %d had been routed, and covers end at %d, more %t", q, m.GetSeq(), a.GetCoversBefore(), a.GetMore())
			}
		}
	}
}

// A client that goes on from where each answer ends gets all, once, in either direction.
func TestR17_PagingReachesEverything(t *testing.T) {
	for _, forward := range []bool{true, false} {
		for name, arrange := range map[string]func(w *world){
			"in the database":       func(w *world) { w.route(1000); w.write(1000); w.presence.LoseRecents(talk) },
			"in the recents":        func(w *world) { w.route(1000) },
			"in both":               func(w *world) { w.route(60); w.write(60); w.route(1000) },
			"with a hole":           func(w *world) { w.route(60); w.presence.LoseRecents(talk); w.write(40); w.route(1000) },
			"only in the log":       func(w *world) { w.write(20) },
			"router behind history": func(w *world) { w.route(30); w.write(1000) },
			"history has not begun": func(w *world) { w.route(90); w.presence.LoseRecents(talk) },
			"presence away":         func(w *world) { w.route(90); w.write(70); w.away["presence"] = true },
		} {
			t.Run(fmt.Sprint(name, forward), func(t *testing.T) {
				w := newWorld(t, 200)
				for i := range 100 {
					w.say(1+int64(i%2), fmt.Sprint(i))
				}
				arrange(w)
				q := &pb.HistoryRequest{Conversation: talk, Limit: 9, Forward: forward}
				if w.written > w.routed && !forward {
					q.Before = eventlog.Seq(1, w.end) // without a bound the answer ends where the recents do, and says so
				}
				var got []*pb.Message
				for range 40 {
					a, err := w.reader.History(t.Context(), 1, q)
					w.must(err)
					w.exact(q, a)
					if forward {
						got = append(got, a.GetMessages()...)
						q.After = a.GetCoversBefore() - 1
					} else {
						got = append(slices.Clone(a.GetMessages()), got...)
						q.Before = a.GetCoversAfter() + 1
					}
					if len(got) == 100 {
						break
					}
				}
				for i, m := range got {
					if m.GetSeq() != w.valid[i].GetSeq() {
						t.Fatalf("message %d is at %d, want %d", i, m.GetSeq(), w.valid[i].GetSeq())
					}
				}
				if len(got) != 100 {
					t.Fatalf("got %d messages", len(got))
				}
			})
		}
	}
}

func TestR17_RecentsSpareTheDatabase(t *testing.T) {
	w := newWorld(t, 100)
	for i := range 20 {
		w.say(1, fmt.Sprint(i))
	}
	w.route(20)
	w.away["store"], w.away["log"] = true, true
	for _, q := range []*pb.HistoryRequest{
		{Conversation: talk, Limit: 5}, {Conversation: talk, Limit: 5, Forward: true, After: eventlog.Seq(1, 12)},
	} {
		a, err := w.reader.History(t.Context(), 2, q)
		w.must(err)
		w.exact(q, a)
		if len(a.GetMessages()) != 5 {
			t.Fatalf("got %v", a)
		}
	}
}

func TestHistory_TooMuchForTheLogIsPendingOrInSteps(t *testing.T) {
	w := newWorld(t, 10)
	for i := range 35 {
		w.say(1, fmt.Sprint(i))
	}
	w.write(5)
	q := &pb.HistoryRequest{Conversation: talk, Limit: 50}
	if _, err := w.reader.History(t.Context(), 1, q); !errors.Is(err, wire.ErrPending) || chat.Answer(err).RetryAfter <= 0 {
		t.Fatalf("backward: %v", err)
	}
	q.Forward = true
	steps := 0
	for q.GetAfter() < eventlog.Seq(1, 34) {
		a, err := w.reader.History(t.Context(), 1, q)
		w.must(err)
		w.exact(q, a)
		if a.GetMore() != (a.GetCoversBefore() <= eventlog.Seq(1, 34)) || a.GetCoversBefore() <= q.GetAfter()+1 {
			t.Fatalf("got %v", a)
		}
		q.After = a.GetCoversBefore() - 1
		steps++
	}
	if steps != 4 { // 15, 25, 35 and one for what was asked from 0
		t.Logf("%d steps", steps)
	}
}

func TestHistory_LogAwayIsTold(t *testing.T) {
	w := newWorld(t, 100)
	for i := range 30 {
		w.say(1, fmt.Sprint(i))
	}
	w.write(10)
	w.away["log"], w.away["presence"] = true, true
	q := &pb.HistoryRequest{Conversation: talk, Limit: 50}
	if a, err := w.reader.History(t.Context(), 1, q); !errors.Is(err, wire.ErrUnavailable) {
		t.Fatalf("backward: %v, %v", a, err)
	}
	q.Forward = true
	a, err := w.reader.History(t.Context(), 1, q) // what is complete is told, and that there is more
	w.must(err)
	w.exact(q, a)
	if len(a.GetMessages()) != 10 || !a.GetMore() || a.GetCoversBefore() != eventlog.Seq(1, 10) {
		t.Fatalf("got %v", a)
	}
	q.After = eventlog.Seq(1, 20)
	if a, err := w.reader.History(t.Context(), 1, q); !errors.Is(err, wire.ErrUnavailable) {
		t.Fatalf("behind the database: %v, %v", a, err)
	}
	w.away["store"] = true
	if a, err := w.reader.History(t.Context(), 1, q); !errors.Is(err, wire.ErrUnavailable) || !errors.Is(err, errAway) {
		t.Fatalf("nothing there: %v, %v", a, err)
	}
}

func TestHistory_OnlyMembersMayRead(t *testing.T) {
	w := newWorld(t, 100)
	w.say(1, "secret")
	for _, c := range []string{talk, "g:1", "n:1", "d:1:9"} {
		if a, err := w.reader.History(t.Context(), 3, &pb.HistoryRequest{Conversation: c}); !errors.Is(err, wire.ErrNotFound) {
			t.Errorf("%s: %v, %v", c, a, err)
		}
	}
}

// lowPart are recents that are not whole below ContiguousFrom.
type lowPart struct{ page presence.Page }

func (l lowPart) Page(context.Context, string, uint64, uint64, int, bool) (presence.Page, error) {
	return l.page, nil
}

func (l lowPart) Heads(context.Context, int64) (map[string]uint64, error) { return nil, nil }

func (l lowPart) Newest(context.Context, []string) (map[string]uint64, error) { return nil, nil }

func TestHistory_RecentsThatAreNotWholeAreNotBelieved(t *testing.T) {
	w := newWorld(t, 100)
	var p presence.Page
	for i := range 10 {
		w.say(1, fmt.Sprint(i))
		if i == 3 || i == 4 { // 5 is missing
			continue
		}
		encoded, err := w.valid[i].MarshalVT()
		w.must(err)
		p.Messages = append(p.Messages, presence.RecentMessage{Seq: w.valid[i].GetSeq(), Message: encoded})
	}
	p.ContiguousFrom, p.Newest = eventlog.Seq(1, 5), eventlog.Seq(1, 9)
	reader := timeline.New(timeline.Options{Store: w.store, Recents: lowPart{p}, Log: w.log, Topic: eventlog.State{Partitions: 1, Epoch: 1}})
	for _, logAway := range []bool{true, false} {
		w.away["log"] = logAway
		q := &pb.HistoryRequest{Conversation: talk, Limit: 50}
		a, err := reader.History(t.Context(), 1, q)
		w.must(err)
		w.exact(q, a)
		if len(a.GetMessages()) != map[bool]int{true: 5, false: 10}[logAway] || a.GetMore() != logAway {
			t.Fatalf("got %v", a)
		}
	}
}
