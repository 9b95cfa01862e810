// Package eventlogtest is the conformance suite that every eventlog.Log passes.
package eventlogtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/futurechat/future/router/eventlog"
)

// Tune is how the suite wants the log that is made for one test.
type Tune struct {
	// MaxRecords bounds the appends not yet answered; 0 for the implementation's default.
	MaxRecords int
	// Patience is how long an append that gets no answer is tried before it fails; 0 for a long time.
	Patience time.Duration
}

// Fixture is a log under test, with the handles that bring about what a test needs. The maker sees to its end, also when the
// test has already closed Log.
type Fixture struct {
	Log eventlog.Log
	// MaxRecordBytes is the largest Entry.Size that Log accepts.
	MaxRecordBytes int
	// Stall keeps appends from being answered until Resume.
	Stall, Resume func()
	// Stalled, if not nil, waits until an append is stalled, so that what is appended from then on is behind it and not with it.
	Stalled func(t *testing.T)
	// FailStalled makes what is stalled fail, at once or when Patience ends. Appends that are tried before Resume may fail too.
	FailStalled func()
	// Trim raises a partition's start, as retention does.
	Trim func(t *testing.T, topic string, partition int32, start int64)
	// CutNext, if not nil, loses the answer to the next append: the log has written it, and the connection breaks.
	CutNext func()
}

// Wait is how long the suite waits for what must happen before it calls the log broken.
const Wait = 30 * time.Second

type suite struct {
	newLog func(t *testing.T, tune Tune) Fixture
}

// Run runs the suite; newLog makes a fresh log for each test.
func Run(t *testing.T, newLog func(t *testing.T, tune Tune) Fixture) {
	s := suite{newLog}
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"OrderPerPartitionIsKept", s.order},
		{"ConcurrentAppendersKeepTheirOrder", s.concurrent},
		{"BoundsFollowTheLog", s.bounds},
		{"OpenOutsideTheLogIsRefused", s.outOfRange},
		{"ReaderThatLostItsPlaceIsTold", s.trimmedUnderReader},
		{"ReaderResumesWhereAsked", s.resume},
		{"ReaderWaitsForTheNextRecord", s.readerWaits},
		{"ReaderCloseEndsNext", s.readerClose},
		{"ManyAndBigRecords", s.big},
		{"TooLargeIsRefused", s.tooLarge},
		{"NothingKeysAndHeadersComeBack", s.contents},
		{"OffsetsAreCommittedPerGroup", s.offsets},
		{"TopicsAreCreatedOnce", s.topics},
		{"MissingTopicAndPartition", s.missing},
		{"BacklogIsBounded", s.backlog},
		{"CloseWaitsForPending", s.closeWaits},
		{"CloseFailsWhatItCannotWaitFor", s.closePending},
		{"FailureFailsWhatIsQueuedBehind", s.failure},
		{"LostAnswersLeaveNoDuplicate", s.cut},
	} {
		t.Run(test.name, test.run)
	}
}

// name gives a name that no other run used, since a real broker keeps topics and groups.
func name(t *testing.T) string {
	short := t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]
	return fmt.Sprintf("%s-%08x", short, rand.Uint32())
}

func ctxFor(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), Wait)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newTopic(t *testing.T, log eventlog.Log, partitions int) string {
	t.Helper()
	topic := name(t)
	must(t, log.CreateTopic(ctxFor(t), eventlog.TopicSpec{Name: topic, Partitions: partitions, Replication: 1, MinInSync: 1, Retention: 24 * time.Hour}))
	return topic
}

// acks collects what the done calls of a test say, in their order.
type acks struct {
	mu   sync.Mutex
	all  []ack
	more chan struct{}
}

type ack struct {
	id int // as given to done
	eventlog.Appended
	err error
}

func newAcks() *acks { return &acks{more: make(chan struct{}, 1)} }

func (a *acks) done(id int) func(eventlog.Appended, error) {
	return func(at eventlog.Appended, err error) {
		a.mu.Lock()
		a.all = append(a.all, ack{id, at, err})
		a.mu.Unlock()
		select {
		case a.more <- struct{}{}:
		default:
		}
	}
}

// wait waits for n done calls and gives them.
func (a *acks) wait(t *testing.T, n int) []ack {
	t.Helper()
	ctx := ctxFor(t)
	for {
		a.mu.Lock()
		all := append([]ack(nil), a.all...)
		a.mu.Unlock()
		if len(all) >= n {
			if len(all) > n {
				t.Fatalf("done was called %d times for %d appends", len(all), n)
			}
			return all
		}
		select {
		case <-a.more:
		case <-ctx.Done():
			t.Fatalf("%d of %d appends answered", len(all), n)
		}
	}
}

func (a *acks) waitGood(t *testing.T, n int) []ack {
	t.Helper()
	all := a.wait(t, n)
	for _, k := range all {
		if k.err != nil {
			t.Fatalf("append %d: %v", k.id, k.err)
		}
	}
	return all
}

func entry(topic string, partition int32, value string) eventlog.Entry {
	return eventlog.Entry{Topic: topic, Partition: partition, Key: []byte("key"), Value: []byte(value)}
}

// appendAll appends values to one partition and waits until they are written.
func appendAll(t *testing.T, log eventlog.Log, topic string, partition int32, values ...string) []ack {
	t.Helper()
	a := newAcks()
	for i, v := range values {
		must(t, log.Append(entry(topic, partition, v), a.done(i)))
	}
	return a.waitGood(t, len(values))
}

// appendAfterFailure appends like appendAll. The log may refuse it as long as the done calls of the failure have not all returned.
func appendAfterFailure(t *testing.T, log eventlog.Log, topic string, partition int32, values ...string) {
	t.Helper()
	a, ctx := newAcks(), ctxFor(t)
	for i, v := range values {
		for {
			err := log.Append(entry(topic, partition, v), a.done(i))
			if err == nil {
				break
			}
			if i > 0 || !errors.Is(err, eventlog.ErrBehindFailed) || ctx.Err() != nil {
				t.Fatal(err)
			}
			runtime.Gosched()
		}
	}
	a.waitGood(t, len(values))
}

func numbered(from, to int) (values []string) {
	for i := from; i < to; i++ {
		values = append(values, fmt.Sprint(i))
	}
	return values
}

// read reads n records of a partition, and sees that offsets have no hole.
func read(t *testing.T, log eventlog.Log, topic string, partition int32, from int64, n int) []eventlog.Record {
	t.Helper()
	r, err := log.Open(ctxFor(t), topic, partition, from)
	must(t, err)
	defer func() { must(t, r.Close()) }()
	return readOn(t, r, partition, from, n)
}

func readOn(t *testing.T, r eventlog.Reader, partition int32, from int64, n int) (all []eventlog.Record) {
	t.Helper()
	for len(all) < n {
		records, err := r.Next(ctxFor(t))
		must(t, err)
		if len(records) == 0 {
			t.Fatal("Next gave no records and no error")
		}
		for _, rec := range records {
			if want := from + int64(len(all)); rec.Offset != want || rec.Partition != partition {
				t.Fatalf("read %d/%d, want %d/%d", rec.Partition, rec.Offset, partition, want)
			}
			all = append(all, rec)
		}
	}
	if len(all) > n {
		t.Fatalf("read %d records, want %d", len(all), n)
	}
	return all
}

func wantValues(t *testing.T, records []eventlog.Record, values []string) {
	t.Helper()
	if len(records) != len(values) {
		t.Fatalf("%d records, want %d", len(records), len(values))
	}
	for i, r := range records {
		if string(r.Value) != values[i] {
			t.Fatalf("record %d is %.40q, want %.40q", i, r.Value, values[i])
		}
	}
}

func wantEnd(t *testing.T, log eventlog.Log, topic string, partition int32, want int64) {
	t.Helper()
	_, end, err := log.Bounds(ctxFor(t), topic, partition)
	must(t, err)
	if end != want {
		t.Fatalf("log ends at %d, want %d", end, want)
	}
}
