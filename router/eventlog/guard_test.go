package eventlog_test

import (
	"context"
	"errors"
	"testing"

	"github.com/futurechat/future/router/eventlog"
)

func TestGuard_RefusesWhatWasHalted(t *testing.T) {
	log := eventlog.NewGuard(eventlog.NewMemory(eventlog.MemoryOptions{}))
	defer func() { _ = log.Close(context.WithoutCancel(t.Context())) }()
	if err := log.CreateTopic(t.Context(), eventlog.TopicSpec{Name: "x", Partitions: 3, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	halted := func(want ...bool) {
		t.Helper()
		for p, w := range want {
			done := make(chan error, 1)
			err := log.Append(eventlog.Entry{Topic: "x", Partition: int32(p)}, func(_ eventlog.Appended, err error) { done <- err })
			if errors.Is(err, eventlog.ErrHalted) != w {
				t.Errorf("partition %d: %v, halted is %t", p, err, w)
			}
			if err == nil {
				if err := <-done; err != nil {
					t.Errorf("partition %d: %v", p, err)
				}
			}
		}
	}
	halted(false, false, false)
	log.Halt(1)
	halted(false, true, false)
	log.Halt(2)
	halted(false, true, true)
	log.Halt()
	halted(true, true, true)
	log.Halt(0)
	halted(true, true, true)
}
