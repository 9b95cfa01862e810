package history_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/consumers/history"
	"github.com/futurechat/future/consumers/mysqlstore"
	"github.com/futurechat/future/consumers/mysqlstore/storetest"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const partitions = 4

// world is a log, a database, and what was sent.
type world struct {
	t     testing.TB
	log   *eventlog.Memory
	store *mysqlstore.Store
	sent  map[string][]string // by conversation, in order
}

func newWorld(t testing.TB, k storetest.Kind, o eventlog.MemoryOptions) *world {
	t.Helper()
	w := &world{t: t, log: eventlog.NewMemory(o), store: k.Open(t), sent: map[string][]string{}}
	t.Cleanup(func() {
		if err := w.log.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	if err := w.log.CreateTopic(t.Context(), eventlog.TopicSpec{Name: chat.TopicMessages, Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	w.remember(1)
	return w
}

// remember stores what the log is now, as an operator or a first start does.
func (w *world) remember(epoch uint32) {
	w.t.Helper()
	info, err := w.log.Topic(w.t.Context(), chat.TopicMessages)
	if err != nil {
		w.t.Fatal(err)
	}
	state := eventlog.State{Topic: chat.TopicMessages, ID: info.ID, Partitions: info.Partitions, Epoch: epoch}
	if err := w.store.SaveLogState(w.t.Context(), state); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) send(m *pb.Message) eventlog.Appended {
	w.t.Helper()
	e, err := chat.Record{Kind: chat.KindMessage, Message: m}.Entry(partitions)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.append(e)
}

func (w *world) append(e eventlog.Entry) eventlog.Appended {
	w.t.Helper()
	type answer struct {
		at  eventlog.Appended
		err error
	}
	done := make(chan answer, 1)
	if err := w.log.Append(e, func(at eventlog.Appended, err error) { done <- answer{at, err} }); err != nil {
		w.t.Fatal(err)
	}
	a := <-done
	if a.err != nil {
		w.t.Fatal(a.err)
	}
	return a.at
}

func text(conversation string, sender int64, s string) *pb.Message {
	return &pb.Message{
		Conversation: conversation, ClientMsgId: wire.NewMessageID(), Sender: &pb.User{Id: wire.FormatID(sender), Name: "anna"},
		Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: s}}},
	}
}

// sendMany sends messages in several conversations, some of them twice.
func (w *world) sendMany(n int) {
	w.t.Helper()
	for i := range n {
		// So many that each partition has some: the low bits of FNV tell the like apart badly.
		a, apart := int64(1+i%41), int64(10+i%3)
		m := text(wire.Direct(a, a+apart), a+int64(i%2)*apart, fmt.Sprint(i))
		w.send(m)
		w.sent[m.GetConversation()] = append(w.sent[m.GetConversation()], m.GetPayload().GetText().GetText())
		if i%5 == 0 {
			w.send(m)
		}
	}
}

// caughtUp waits until all of the log is in the database.
func (w *world) caughtUp() {
	w.t.Helper()
	waitFor(w.t, "history has all", func() bool {
		offsets, err := w.store.HistoryOffsets(w.t.Context(), chat.TopicMessages)
		if err != nil {
			w.t.Fatal(err)
		}
		for p := range int32(partitions) {
			_, end, err := w.log.Bounds(w.t.Context(), chat.TopicMessages, p)
			if err != nil || offsets[p] != end {
				return false
			}
		}
		return true
	})
}

// complete compares the database with what was sent.
func (w *world) complete() {
	w.t.Helper()
	for conversation, want := range w.sent {
		page, err := w.store.Messages(w.t.Context(), conversation, 0, 0, 10_000, true)
		if err != nil {
			w.t.Fatal(err)
		}
		var got []string
		for _, m := range page {
			got = append(got, m.GetPayload().GetText().GetText())
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			w.t.Fatalf("%s: %v, sent were %v", conversation, got, want)
		}
	}
}

func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !is(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long until %s", what)
		}
	}
}

// start runs a history until stop is called or the test ends.
func start(t testing.TB, o history.Options) (stop func()) {
	t.Helper()
	o.RetryMin, o.RetryMax = time.Millisecond, 20*time.Millisecond
	o.CommitEvery = 5 * time.Millisecond
	if o.MaxWait == 0 {
		o.MaxWait = 5 * time.Millisecond
	}
	h, err := history.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func metric(t testing.TB, r *prometheus.Registry, name, partition string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (partition == "" || m.GetLabel()[0].GetValue() == partition) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestRun_StoresAllOnceAndInOrder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		w := newWorld(t, k, eventlog.MemoryOptions{})
		w.sendMany(300)
		r := prometheus.NewRegistry()
		stop := start(t, history.Options{Log: w.log, Store: w.store, Registerer: r, BatchSize: 20})
		w.caughtUp()
		w.sendMany(300)
		w.caughtUp()
		w.complete()
		if n := metric(t, r, "future_history_messages_total", ""); n != 600 {
			t.Errorf("%v messages counted", n)
		}
		if n := metric(t, r, "future_history_duplicates_total", ""); n != 120 {
			t.Errorf("%v duplicates counted", n)
		}
		stop()
		committed, err := w.log.Committed(t.Context(), history.Group, chat.TopicMessages)
		if err != nil {
			t.Fatal(err)
		}
		offsets, err := w.store.HistoryOffsets(t.Context(), chat.TopicMessages)
		if err != nil || fmt.Sprint(committed) != fmt.Sprint(offsets) && len(offsets) == partitions {
			t.Errorf("committed %v, stored %v, %v", committed, offsets, err)
		}
	})
}

func TestRun_TwoAtOnceAreHarmless(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		w := newWorld(t, k, eventlog.MemoryOptions{MaxBatch: 10})
		stop := start(t, history.Options{Log: w.log, Store: w.store, BatchSize: 7})
		start(t, history.Options{Log: w.log, Store: w.store, BatchSize: 13})
		w.sendMany(500)
		w.caughtUp()
		stop() // the other goes on alone
		w.sendMany(200)
		w.caughtUp()
		w.complete()
	})
}

var errFault = errors.New("injected")

// faulty is a store that fails now and then, also after it has done what it was asked.
type faulty struct {
	history.Store
	chance func() bool
}

func (f faulty) WriteBatch(ctx context.Context, b chat.Batch) (chat.Written, error) {
	if f.chance() {
		return chat.Written{}, fmt.Errorf("before: %w", errFault)
	}
	w, err := f.Store.WriteBatch(ctx, b)
	if err == nil && f.chance() {
		return chat.Written{}, fmt.Errorf("after: %w", errFault)
	}
	return w, err
}

func (f faulty) LogState(ctx context.Context, topic string) (eventlog.State, error) {
	if f.chance() {
		return eventlog.State{}, fmt.Errorf("state: %w", errFault)
	}
	return f.Store.LogState(ctx, topic)
}

func TestRun_FaultsOfLogAndDatabaseLoseNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		for seed := range uint64(5) {
			t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
				var mu sync.Mutex
				random := rand.New(rand.NewPCG(seed, 1))
				chance := func() bool {
					mu.Lock()
					defer mu.Unlock()
					return random.IntN(4) == 0
				}
				var failing atomic.Bool
				w := newWorld(t, k, eventlog.MemoryOptions{MaxBatch: 10, Fault: func(op eventlog.Op, _ string, _ int32) error {
					if failing.Load() && op != eventlog.OpAppend && op != eventlog.OpAck && chance() {
						return eventlog.ErrUnavailable
					}
					return nil
				}})
				w.sendMany(100)
				failing.Store(true)
				for range 2 {
					start(t, history.Options{Log: w.log, Store: faulty{w.store, func() bool { return failing.Load() && chance() }}, BatchSize: 10})
				}
				w.sendMany(100)
				waitFor(t, "something is stored", func() bool {
					offsets, err := w.store.HistoryOffsets(t.Context(), chat.TopicMessages)
					return err == nil && len(offsets) == partitions
				})
				failing.Store(false)
				w.caughtUp()
				w.complete()
			})
		}
	})
}

func TestRun_DeadRecordsDoNotStopIt(t *testing.T) {
	w := newWorld(t, storetest.Kinds()[0], eventlog.MemoryOptions{})
	r := prometheus.NewRegistry()
	for p := range int32(partitions) {
		w.append(eventlog.Entry{Topic: chat.TopicMessages, Partition: p, Value: []byte("garbage"), Headers: []eventlog.Header{{Key: "k", Value: []byte("m")}}})
		w.append(eventlog.Entry{Topic: chat.TopicMessages, Partition: p, Value: []byte("of a later version"), Headers: []eventlog.Header{{Key: "k", Value: []byte("z")}}})
	}
	w.sendMany(50)
	start(t, history.Options{Log: w.log, Store: w.store, Registerer: r})
	w.caughtUp()
	w.complete()
	if n := metric(t, r, "future_history_dead_records_total", ""); n != 2*partitions {
		t.Errorf("%v dead records counted", n)
	}
}

func TestRun_APartitionThatLostRecordsHaltsAlone(t *testing.T) {
	w := newWorld(t, storetest.Kinds()[0], eventlog.MemoryOptions{})
	w.sendMany(100)
	stop := start(t, history.Options{Log: w.log, Store: w.store})
	w.caughtUp()
	stop()

	lost := eventlog.PartitionOf("d:1:11", partitions)
	_, end, err := w.log.Bounds(t.Context(), chat.TopicMessages, lost)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.log.TruncateTo(chat.TopicMessages, lost, end-3); err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewRegistry()
	var asked atomic.Int64 // how often what is remembered was looked at
	start(t, history.Options{Log: w.log, Store: faulty{w.store, func() bool { asked.Add(1); return false }}, Registerer: r})
	waitFor(t, "the partition is halted", func() bool { return metric(t, r, "future_history_halted", fmt.Sprint(lost)) == 1 })

	// The log grows past what was lost: that must not look whole. Another partition goes on meanwhile.
	var other string
	for i := int64(1); other == ""; i++ {
		if c := wire.Direct(i, i+500); eventlog.PartitionOf(c, partitions) != lost {
			other = c
		}
	}
	for range 10 {
		w.send(text("d:1:11", 1, "after the loss"))
	}
	w.send(text(other, 1, "elsewhere"))
	before := asked.Load()
	waitFor(t, "the halted partition has looked again", func() bool { return asked.Load() > before+5 })
	waitFor(t, "the other partition goes on", func() bool {
		page, err := w.store.Messages(t.Context(), other, 0, 0, 1, false)
		return err == nil && len(page) == 1
	})
	offsets, err := w.store.HistoryOffsets(t.Context(), chat.TopicMessages)
	if err != nil || offsets[lost] != end || metric(t, r, "future_history_halted", fmt.Sprint(lost)) != 1 {
		t.Fatalf("the halted partition went on by itself: %v, %v", offsets, err)
	}

	// An operator decides to take what is there from where it was lost, in a new epoch.
	if _, err := w.store.WriteBatch(t.Context(), chat.Batch{Topic: chat.TopicMessages, Partition: lost, From: end, Next: end - 3}); err != nil {
		t.Fatal(err)
	}
	w.remember(2)
	w.caughtUp()
	page, err := w.store.Messages(t.Context(), "d:1:11", 0, 0, 10, false)
	if err != nil || len(page) != 10 || page[9].GetPayload().GetText().GetText() != "after the loss" {
		t.Fatalf("%v, %v", page, err)
	}
	if epoch, _ := eventlog.SplitSeq(page[9].GetSeq()); epoch != 2 {
		t.Errorf("epoch %d", epoch)
	}
	waitFor(t, "it is told that nothing is halted", func() bool { return metric(t, r, "future_history_halted", fmt.Sprint(lost)) == 0 })
}

func TestRun_RecordsGoneUnreadHalt(t *testing.T) {
	w := newWorld(t, storetest.Kinds()[0], eventlog.MemoryOptions{})
	w.sendMany(100)
	for p := range int32(partitions) {
		if err := w.log.TrimTo(chat.TopicMessages, p, 1); err != nil {
			t.Fatal(err)
		}
	}
	r := prometheus.NewRegistry()
	start(t, history.Options{Log: w.log, Store: w.store, Registerer: r})
	waitFor(t, "all are halted", func() bool {
		n := 0.0
		for p := range partitions {
			n += metric(t, r, "future_history_halted", fmt.Sprint(p))
		}
		return n == partitions
	})
}

// leases are kept in memory; away makes them fail.
type leases struct {
	mu    sync.Mutex
	owner map[string]string
	away  bool
}

func (l *leases) Acquire(_ context.Context, name, owner, _ string, _ time.Duration) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away {
		return false, errFault
	}
	if l.owner[name] == "" {
		l.owner[name] = owner
	}
	return l.owner[name] == owner, nil
}

func (l *leases) Release(_ context.Context, name, owner string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owner[name] == owner {
		delete(l.owner, name)
	}
	return nil
}

// has waits until an owner has as many partitions.
func (l *leases) has(t *testing.T, owner string, want int) {
	t.Helper()
	waitFor(t, fmt.Sprint(owner, " has ", want), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		n := 0
		for _, o := range l.owner {
			if o == owner {
				n++
			}
		}
		return n == want
	})
}

func TestRun_SharesPartitionsAndTakesThemOver(t *testing.T) {
	w := newWorld(t, storetest.Kinds()[0], eventlog.MemoryOptions{})
	l := &leases{owner: map[string]string{}}
	var alone atomic.Bool
	o := history.Options{Log: w.log, Store: w.store, Leases: l, LeaseTTL: 15 * time.Millisecond}
	o.Owner = "even"
	o.Wants = func(p int32) bool { return p%2 == 0 || alone.Load() }
	start(t, o)
	o.Owner = "odd"
	o.Wants = func(p int32) bool { return p%2 == 1 }
	stop := start(t, o)
	l.has(t, "even", 2)
	l.has(t, "odd", 2)
	w.sendMany(100)
	w.caughtUp()
	stop()
	alone.Store(true)
	l.has(t, "even", 4)
	w.sendMany(100)
	w.caughtUp()
	alone.Store(false)
	l.has(t, "even", 2)
	alone.Store(true)
	w.sendMany(100)
	w.caughtUp()
	w.complete()
}

func TestRun_GoesOnWithoutLeases(t *testing.T) {
	w := newWorld(t, storetest.Kinds()[0], eventlog.MemoryOptions{})
	l := &leases{owner: map[string]string{}, away: true}
	for _, owner := range []string{"a", "b"} {
		start(t, history.Options{Log: w.log, Store: w.store, Leases: l, LeaseTTL: 15 * time.Millisecond, Owner: owner})
	}
	w.sendMany(100)
	w.caughtUp()
	w.complete()
}

func TestRun_WaitsForTheTopicToBeRemembered(t *testing.T) {
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	w := &world{t: t, log: log, store: storetest.Kinds()[0].Open(t), sent: map[string][]string{}}
	t.Cleanup(func() {
		if err := log.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	r := prometheus.NewRegistry()
	start(t, history.Options{Log: log, Store: w.store, Registerer: r})
	waitFor(t, "it has tried", func() bool { return metric(t, r, "future_history_retries_total", "state") > 1 })
	if err := log.CreateTopic(t.Context(), eventlog.TopicSpec{Name: chat.TopicMessages, Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	w.remember(1)
	w.sendMany(20)
	w.caughtUp()
	w.complete()
}
