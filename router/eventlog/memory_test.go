package eventlog_test

import (
	"context"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/eventlog/eventlogtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory_Conforms(t *testing.T) { conforms(t, "") }

func TestPrefixed_Conforms(t *testing.T) { conforms(t, "somebody.") }

func conforms(t *testing.T, prefix string) {
	eventlogtest.Run(t, func(t *testing.T, tune eventlogtest.Tune) eventlogtest.Fixture {
		var failNext atomic.Bool
		log := eventlog.NewMemory(eventlog.MemoryOptions{
			MaxRecords:     tune.MaxRecords,
			MaxRecordBytes: 200_000,
			Fault: func(op eventlog.Op, _ string, _ int32) error {
				if op == eventlog.OpAppend && failNext.CompareAndSwap(true, false) {
					return eventlog.ErrUnavailable
				}
				return nil
			},
		})
		t.Cleanup(func() { _ = log.Close(context.WithoutCancel(t.Context())) })
		return eventlogtest.Fixture{
			Log:            eventlog.Prefixed(log, prefix),
			MaxRecordBytes: 200_000,
			Stall:          log.Hold,
			Resume:         log.Release,
			FailStalled: func() {
				failNext.Store(true)
				log.Release()
			},
			Trim: func(t *testing.T, topic string, partition int32, start int64) {
				if err := log.TrimTo(prefix+topic, partition, start); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}
