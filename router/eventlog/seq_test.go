package eventlog_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/futurechat/future/router/eventlog"
)

func TestSeq_RisesWithOffsetAndEpoch(t *testing.T) {
	last := uint64(0)
	for _, at := range []struct {
		epoch  uint32
		offset int64
	}{{1, 0}, {1, 1}, {1, 1<<48 - 1}, {2, 0}, {eventlog.MaxEpoch, 1<<48 - 1}} {
		seq := eventlog.Seq(at.epoch, at.offset)
		if seq <= last {
			t.Errorf("seq %d of %+v is not above %d", seq, at, last)
		}
		if epoch, offset := eventlog.SplitSeq(seq); epoch != at.epoch || offset != at.offset {
			t.Errorf("%+v came back as %d, %d", at, epoch, offset)
		}
		if uint64(float64(seq)) != seq {
			t.Errorf("seq %d does not fit a double", seq)
		}
		last = seq
	}
}

// A log that is not the one that was known halts, and the error names what would be skipped.
func TestVerify_AnotherLogHalts(t *testing.T) {
	log := eventlog.NewMemory(eventlog.MemoryOptions{})
	defer func() { _ = log.Close(t.Context()) }()
	ctx := t.Context()
	if err := log.CreateTopic(ctx, eventlog.TopicSpec{Name: "x", Partitions: 2, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	info, err := log.Topic(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	for range 5 {
		if err := log.Append(eventlog.Entry{Topic: "x"}, func(_ eventlog.Appended, err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := log.TrimTo("x", 0, 2); err != nil {
		t.Fatal(err)
	}
	known := eventlog.State{Topic: "x", ID: info.ID, Partitions: 2, Epoch: 1, Seen: map[int32]int64{0: 3}}
	if err := eventlog.Verify(ctx, log, known); err != nil {
		t.Fatalf("the log that is known: %v", err)
	}
	for name, test := range map[string]struct {
		change func(*eventlog.State)
		want   string
	}{
		"another id":        {func(s *eventlog.State) { s.ID = "other" }, "deleted and made anew"},
		"more partitions":   {func(s *eventlog.State) { s.Partitions = 3 }, "has 2 partitions"},
		"trimmed unread":    {func(s *eventlog.State) { s.Seen = map[int32]int64{0: 1} }, "records 1 to 1 are gone"},
		"shorter than seen": {func(s *eventlog.State) { s.Seen = map[int32]int64{0: 9} }, "records 5 to 8 were lost"},
	} {
		t.Run(name, func(t *testing.T) {
			s := known
			test.change(&s)
			err := eventlog.Verify(ctx, log, s)
			if !errors.Is(err, eventlog.ErrHalted) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want a halt with %q", err, test.want)
			}
		})
	}
	s := known
	s.Topic = "missing"
	if err := eventlog.Verify(ctx, log, s); !errors.Is(err, eventlog.ErrNoTopic) {
		t.Errorf("missing topic: %v", err)
	}
}
