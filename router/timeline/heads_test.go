package timeline_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/futurechat/future/clientsdk/wire"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/chat/chattest"
	"github.com/futurechat/future/router/eventlog"
)

func heads(t *testing.T, w *world, user int64) map[string]string {
	t.Helper()
	list, err := w.reader.Heads(t.Context(), user)
	w.must(err)
	got := map[string]string{}
	for _, h := range list {
		_, at := eventlog.SplitSeq(h.GetSeq())
		_, read := eventlog.SplitSeq(h.GetReadSeq())
		got[h.GetConversation()] = fmt.Sprintf("at %d read %d unread %d", at, read, h.GetUnread())
	}
	return got
}

func TestR19_HeadsCountWhatTheDatabaseDoesNotHaveYet(t *testing.T) {
	for _, source := range []string{"recents", "log"} {
		t.Run(source, func(t *testing.T) {
			w := newWorld(t, 100)
			w.say(1, "0")
			again := w.say(1, "1")
			w.say(2, "2")
			w.write(3)
			_, err := w.store.MarkRead(t.Context(), 2, talk, eventlog.Seq(1, 0))
			w.must(err)
			w.say(1, "3")
			w.say(2, "4")
			w.say(1, "5")
			w.send(chattest.Message("d:2:3", 3, 0, "another"))
			w.send(again) // a copy counts nowhere
			w.route(100)
			w.away["presence"] = source == "log"
			w.exactHeads(2, map[string]string{talk: "at 5 read 0 unread 3", "d:2:3": "at 6 read 0 unread 1"})
			w.exactHeads(1, map[string]string{talk: "at 5 read 0 unread 2"})
			w.exactHeads(9, map[string]string{})
		})
	}
}

func (w *world) exactHeads(user int64, want map[string]string) {
	w.Helper()
	if got := heads(w.T, w, user); fmt.Sprint(got) != fmt.Sprint(want) {
		w.Fatalf("user %d: got %v, want %v", user, got, want)
	}
}

// I4: what had been routed when the heads were asked for is in them, and unread counts are exact, whatever goes on meanwhile.
func TestI4_HeadsAreNeverBelowWhatWasRouted(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 3))
		w := newWorld(t, 500)
		for i := range 1 + random.IntN(90) {
			w.say(1+random.Int64N(2), fmt.Sprint(i))
		}
		total := w.end
		w.route(random.Int64N(w.end + 1))
		w.write(random.Int64N(w.end + 1))
		w.away["presence"] = seed%5 == 4
		w.step = func() {
			w.route(random.Int64N(5))
			w.write(random.Int64N(20))
		}
		routed := max(w.routed, w.written)
		list, err := w.reader.Heads(t.Context(), 2)
		w.must(err)
		if routed == 0 && len(list) == 0 {
			continue
		}
		_, at := eventlog.SplitSeq(list[0].GetSeq())
		if at < routed-1 || at >= total {
			t.Fatalf("seed %d: head at %d, routed or written were %d", seed, at, routed)
		}
		unread := uint32(0)
		for _, m := range w.valid {
			if m.GetSeq() <= list[0].GetSeq() && chat.IdentityOf(m).Sender == 1 {
				unread++
			}
		}
		if list[0].GetUnread() != unread {
			t.Fatalf("seed %d: unread %d, want %d up to %d (written %d, routed %d)", seed, list[0].GetUnread(), unread, at, w.written, w.routed)
		}
	}
}

// What is trimmed from the recents while heads are read, since the database has it now, still counts.
func TestHeads_CountWhatIsTrimmedMeanwhile(t *testing.T) {
	w := newWorld(t, 100)
	for i := range 6 {
		w.say(1, fmt.Sprint(i))
	}
	w.write(1)
	w.route(6)
	reads := 0
	w.step = func() {
		if reads++; reads == 3 { // the two lists of heads were read, and now the recents are
			w.write(4)
			w.presence.LoseRecents(talk)
			w.say(1, "6")
			w.route(7)
		}
	}
	w.exactHeads(2, map[string]string{talk: "at 6 read 0 unread 6"}) // 5 was lost and is not in the database yet
}

func TestHeads_PartsAwayAreTold(t *testing.T) {
	w := newWorld(t, 10)
	for i := range 30 {
		w.say(1, fmt.Sprint(i))
	}
	w.write(10)
	for _, away := range [][]string{{"store"}, {"presence", "log"}, {"presence"}} { // the last: 20 records are more than may be read
		clear(w.away)
		for _, what := range away {
			w.away[what] = true
		}
		if list, err := w.reader.Heads(t.Context(), 1); !errors.Is(err, wire.ErrUnavailable) || chat.Answer(err).RetryAfter <= 0 {
			t.Errorf("%v: %v, %v", away, list, err)
		}
	}
	clear(w.away)
	w.away["presence"] = true
	w.write(15)
	w.exactHeads(2, map[string]string{talk: "at 29 read 0 unread 30"})
}

func TestHeads_AreCutToTheNewest(t *testing.T) {
	w := newWorld(t, 10_000)
	for i := range int64(chat.MaxConversations + 5) {
		m := chattest.Message(wire.Direct(1, 2+i), 1, 0, "x")
		w.send(m)
		w.all[i].TimeMs = 100_000 - i
	}
	w.write(chat.MaxConversations + 4)
	w.route(1 << 30) // the oldest by time is only in the recents: so it is the newest
	list, err := w.reader.Heads(t.Context(), 1)
	w.must(err)
	if len(list) != chat.MaxConversations || list[0].GetConversation() != wire.Direct(1, 2+chat.MaxConversations+4) || list[1].GetConversation() != wire.Direct(1, 2) {
		t.Fatalf("%d heads, first %v, %v", len(list), list[0], list[1])
	}
}
