package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/chat/chattest"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/outbox"
	"github.com/futurechat/future/router/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 4

var errAway = errors.New("away")

type fixture struct {
	*testing.T
	store *chat.Memory
	log   *eventlog.Memory
	lease *presence.Memory

	mu       sync.Mutex
	fault    map[chat.Op]error
	logFault func(op eventlog.Op, partition int32) error
	written  map[int32]int64
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, fault: map[chat.Op]error{}, written: map[int32]int64{}, logFault: func(eventlog.Op, int32) error { return nil }}
	f.store = chat.NewMemory(chat.MemoryOptions{Fault: func(op chat.Op) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.fault[op]
	}})
	f.log = eventlog.NewMemory(eventlog.MemoryOptions{Fault: func(op eventlog.Op, _ string, p int32) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.logFault(op, p)
	}})
	f.lease = presence.NewMemory(presence.MemoryOptions{})
	t.Cleanup(func() { _ = f.log.Close(context.WithoutCancel(t.Context())) })
	f.must(f.log.CreateTopic(t.Context(), eventlog.TopicSpec{Name: chat.TopicMessages, Partitions: partitions}))
	for i := range 6 {
		_, err := f.store.CreateAccount(t.Context(), chat.Account{Name: fmt.Sprint("user", i)})
		f.must(err)
	}
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// publisher makes one, as another process would; failpoint may be nil.
func (f *fixture) publisher(owner string, failpoint func(string)) *outbox.Publisher {
	f.Helper()
	p, err := outbox.New(outbox.Options{
		Store: f.store, Log: f.log, Leases: f.lease, Owner: owner, Partitions: partitions, Failpoint: failpoint, Registerer: prometheus.NewRegistry(),
	})
	f.must(err)
	return p
}

// change commits a change of a pair with its row.
func (f *fixture) change(lo, hi int64) chat.Outgoing {
	f.Helper()
	_, out, err := f.store.ChangePair(f.Context(), lo, hi, func(p chat.Pair) (chat.Pair, *pb.Message, error) {
		p.State = chat.PairAsked
		p.Version++
		m := chattest.Message(wire.Direct(lo, hi), lo, 0, fmt.Sprint(p.Version))
		m.Seq, m.TimeMs = 0, 0
		return p, m, nil
	})
	f.must(err)
	return out
}

// records reads all of a conversation's partition.
func (f *fixture) records(conversation string) []eventlog.Record {
	f.Helper()
	p := eventlog.PartitionOf(conversation, partitions)
	_, end, err := f.log.Bounds(f.Context(), chat.TopicMessages, p)
	f.must(err)
	r, err := f.log.Open(f.Context(), chat.TopicMessages, p, 0)
	f.must(err)
	defer func() { _ = r.Close() }()
	var all []eventlog.Record
	for int64(len(all)) < end {
		some, err := r.Next(f.Context())
		f.must(err)
		all = append(all, some...)
	}
	return all
}

// seen gives what a router that judges as design.md says would let through: a copy is known only by a lower offset at or above its
// own SearchFrom, the worst that the window may be.
func (f *fixture) seen(conversation string) (texts []string, copies int) {
	f.Helper()
	first := map[chat.Identity]int64{}
	for _, rec := range f.records(conversation) {
		r, err := chat.ParseRecord(1, rec)
		f.must(err)
		id := chat.IdentityOf(r.Message)
		if r.Message.GetConversation() != conversation {
			continue
		}
		if !r.Resend {
			f.Fatalf("record %d is not marked", rec.Offset)
		}
		if at, known := first[id]; known && at >= r.SearchFrom {
			copies++
			continue
		}
		first[id] = rec.Offset
		texts = append(texts, r.Message.GetPayload().GetText().GetText())
	}
	return texts, copies
}

// history writes all that the log has of a conversation's partition.
func (f *fixture) history(conversation string) {
	f.Helper()
	p := eventlog.PartitionOf(conversation, partitions)
	b := chat.Batch{Topic: chat.TopicMessages, Partition: p, From: f.written[p]}
	for _, rec := range f.records(conversation) {
		r, err := chat.ParseRecord(1, rec)
		f.must(err)
		if rec.Offset >= b.From {
			b.Messages = append(b.Messages, r.Message)
			b.Next = rec.Offset + 1
		}
	}
	if len(b.Messages) > 0 {
		_, err := f.store.WriteBatch(f.Context(), b)
		f.must(err)
		f.written[p] = b.Next
	}
}

func (f *fixture) unsent() int {
	f.Helper()
	rows, err := f.store.Unsent(f.Context(), "", 0, 1000)
	f.must(err)
	return len(rows)
}

func (f *fixture) expect(conversation string, want ...string) {
	f.Helper()
	if got, _ := f.seen(conversation); fmt.Sprint(got) != fmt.Sprint(want) {
		f.Fatalf("%s: a client sees %q, want %q", conversation, got, want)
	}
}

func TestPublish_BringsEarlierRowsFirst(t *testing.T) {
	f := newFixture(t)
	f.change(1, 2)
	f.change(1, 3)
	second := f.change(1, 2)
	f.change(1, 2)
	p := f.publisher("a", nil)
	f.must(p.Publish(t.Context(), "d:1:2", second.Version))
	f.expect("d:1:2", "1", "2")
	f.expect("d:1:3")
	if f.unsent() != 2 {
		t.Fatalf("%d rows left", f.unsent())
	}
	f.must(p.Publish(t.Context(), "d:1:2", 3))
	f.must(p.Publish(t.Context(), "d:1:2", 3))
	f.expect("d:1:2", "1", "2", "3")
	if len(f.records("d:1:2")) != 3 {
		t.Fatal("a row was produced twice")
	}
}

func TestPublish_AFailureKeepsTheRowAndThoseBehindIt(t *testing.T) {
	f := newFixture(t)
	f.change(1, 2)
	f.change(1, 2)
	p := f.publisher("a", nil)
	for name, set := range map[string]func(){
		"log refuses": func() { f.logFault = refuse(eventlog.OpAppend, eventlog.ErrUnavailable) },
		"log refuses one": func() {
			refused := false
			f.logFault = func(o eventlog.Op, _ int32) error {
				if o != eventlog.OpAppend || refused {
					return nil
				}
				refused = true
				return eventlog.ErrUnavailable
			}
		},
		"store away":     func() { f.fault[chat.OpFindMessage] = errAway },
		"offsets away":   func() { f.fault[chat.OpHistoryOffsets] = errAway },
		"rows not there": func() { f.fault[chat.OpUnsent] = errAway },
	} {
		f.set(set)
		if err := p.Publish(t.Context(), "d:1:2", 9); err == nil {
			t.Fatalf("%s: no error", name)
		}
		f.set(func() { clear(f.fault); f.logFault = func(eventlog.Op, int32) error { return nil } })
		if f.unsent() != 2 || len(f.records("d:1:2")) != 0 {
			t.Fatalf("%s: %d rows, %d records", name, f.unsent(), len(f.records("d:1:2")))
		}
	}
	f.must(p.Publish(t.Context(), "d:1:2", 9))
	f.expect("d:1:2", "1", "2")
}

func refuse(op eventlog.Op, err error) func(eventlog.Op, int32) error {
	return func(o eventlog.Op, _ int32) error {
		if o == op {
			return err
		}
		return nil
	}
}

// Whatever is lost or repeated, and whether or not history has it meanwhile: it is seen once.
func TestPublish_IsSeenOnceAfterACrashAtAnyPoint(t *testing.T) {
	for _, point := range []string{outbox.BeforeProduce, outbox.BeforeDelete, "answer lost", "delete lost"} {
		for _, history := range []bool{false, true} {
			t.Run(fmt.Sprint(point, history), func(t *testing.T) {
				f := newFixture(t)
				f.change(1, 2)
				f.change(1, 2)
				ctx, crash := context.WithCancel(t.Context())
				defer crash()
				p := f.publisher("a", func(name string) {
					if name == point {
						crash()
					}
				})
				switch point {
				case "answer lost":
					f.set(func() { f.logFault = refuse(eventlog.OpAck, eventlog.ErrUnknownOutcome) })
				case "delete lost":
					f.set(func() { f.fault[chat.OpSent] = errAway })
				}
				if err := p.Publish(ctx, "d:1:2", 9); err == nil {
					t.Fatal("no crash")
				}
				f.set(func() { clear(f.fault); f.logFault = func(eventlog.Op, int32) error { return nil } })
				if f.unsent() != 2 {
					t.Fatalf("%d rows left", f.unsent())
				}
				if history {
					f.history("d:1:2")
				}
				f.must(f.publisher("b", nil).Publish(t.Context(), "d:1:2", 9))
				f.expect("d:1:2", "1", "2")
				if history && len(f.records("d:1:2")) != 2 {
					t.Fatal("what history has was produced again")
				}
				if f.unsent() != 0 {
					t.Fatalf("%d rows left", f.unsent())
				}
				f.history("d:1:2")
				page, err := f.store.Messages(t.Context(), "d:1:2", 0, 0, 10, true)
				f.must(err)
				if len(page) != 2 {
					t.Fatalf("history has %d", len(page))
				}
			})
		}
	}
}

// Two that have read the same row, and one of them stands still until the other is done and history has all.
func TestPublish_TwoAtOnceMakeACopyThatIsKnown(t *testing.T) {
	f := newFixture(t)
	f.change(1, 2)
	f.change(1, 2)
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := f.publisher("slow", func(name string) {
		if name == outbox.BeforeProduce {
			once.Do(func() { close(reached); <-goOn })
		}
	})
	done := make(chan error, 1)
	go func() { done <- slow.Publish(t.Context(), "d:1:2", 9) }()
	<-reached
	f.must(f.publisher("fast", nil).Publish(t.Context(), "d:1:2", 9))
	close(goOn)
	f.must(<-done)
	f.expect("d:1:2", "1", "2")
	if _, copies := f.seen("d:1:2"); copies == 0 {
		t.Fatal("the test made no copy")
	}
	// Many at a time, without any arrangement.
	var all sync.WaitGroup
	for i := range 6 {
		f.change(1, 3)
		all.Go(func() {
			if err := f.publisher(fmt.Sprint(i), nil).Publish(t.Context(), "d:1:3", 100); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	f.expect("d:1:3", "1", "2", "3", "4", "5", "6")
}

// sweeping runs publishers in a bubble; each named one is another process.
func sweeping(t *testing.T, test func(f *fixture, start func(owner string, failpoint func(string)) (stop func()))) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.lease = presence.NewMemory(presence.MemoryOptions{Now: time.Now})
		test(f, func(owner string, failpoint func(string)) func() {
			p := f.publisher(owner, failpoint)
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() {
				if err := p.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			return func() {
				cancel()
				running.Wait()
			}
		})
		f.must(f.log.Close(t.Context()))
	})
}

func TestRun_BringsWhatWasLeftBehind(t *testing.T) {
	sweeping(t, func(f *fixture, start func(string, func(string)) func()) {
		f.change(1, 2)
		f.change(1, 3)
		f.change(1, 2)
		stop := start("a", nil)
		defer stop()
		time.Sleep(1500 * time.Millisecond) // the bubble's clock
		synctest.Wait()
		if f.unsent() != 3 {
			t.Fatal("a row was taken from the node that made it")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		f.expect("d:1:2", "1", "2")
		f.expect("d:1:3", "1")
		if f.unsent() != 0 {
			t.Fatalf("%d rows left", f.unsent())
		}
	})
}

func TestRun_OneSweepsAndAnotherTakesOver(t *testing.T) {
	sweeping(t, func(f *fixture, start func(string, func(string)) func()) {
		var a, b atomic.Int32
		stopA := start("a", func(string) { a.Add(1) })
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		stopB := start("b", func(string) { b.Add(1) })
		defer stopB()
		f.change(1, 2)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if a.Load() != 2 || b.Load() != 0 || f.unsent() != 0 {
			t.Fatalf("a was at %d points, b at %d, %d rows left", a.Load(), b.Load(), f.unsent())
		}
		stopA() // gives the lease up
		f.change(1, 2)
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		if b.Load() != 2 || f.unsent() != 0 {
			t.Fatalf("b was at %d points, %d rows left", b.Load(), f.unsent())
		}
	})
}

func TestRun_AConversationThatFailsHoldsNoOtherUp(t *testing.T) {
	sweeping(t, func(f *fixture, start func(string, func(string)) func()) {
		f.change(1, 2)
		var others []string
		bad := eventlog.PartitionOf("d:1:2", partitions)
		for lo := int64(1); lo < 6; lo++ {
			for hi := lo + 1; hi <= 6; hi++ {
				if c := wire.Direct(lo, hi); eventlog.PartitionOf(c, partitions) != bad {
					f.change(lo, hi)
					others = append(others, c)
				}
			}
		}
		f.set(func() {
			f.logFault = func(op eventlog.Op, p int32) error {
				if op == eventlog.OpAppend && p == bad {
					return eventlog.ErrUnavailable
				}
				return nil
			}
		})
		stop := start("a", nil)
		defer stop()
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		for _, c := range others {
			f.expect(c, "1")
		}
		if f.unsent() != 1 {
			t.Fatalf("%d rows left", f.unsent())
		}
		f.set(func() { f.logFault = func(eventlog.Op, int32) error { return nil } })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		f.expect("d:1:2", "1")
	})
}

func TestRun_WithoutALeaseNobodySweeps(t *testing.T) {
	sweeping(t, func(f *fixture, start func(string, func(string)) func()) {
		f.lease = presence.NewMemory(presence.MemoryOptions{Now: time.Now, Fault: func(presence.Op) error { return presence.ErrUnavailable }})
		f.change(1, 2)
		stop := start("a", nil)
		defer stop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if f.unsent() != 1 {
			t.Fatal("swept without a lease")
		}
	})
}
