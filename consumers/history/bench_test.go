package history_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	"github.com/futurechat/future/consumers/history"
	"github.com/futurechat/future/consumers/mysqlstore/storetest"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

// BenchmarkHistory tells how many messages a second go from a log in memory into the database, in many conversations.
func BenchmarkHistory(b *testing.B) {
	for _, k := range storetest.Kinds() {
		b.Run(k.Name, func(b *testing.B) {
			w := newWorld(b, k, eventlog.MemoryOptions{MaxRecords: 1 << 30, MaxBytes: 1 << 40})
			for i := range b.N {
				a := int64(1 + i*7919%20_000)
				e, err := chat.Record{Kind: chat.KindMessage, Message: text(wire.Direct(a, a+100_000+a%3), a, fmt.Sprint("The quick brown fox ", i))}.Entry(partitions)
				if err != nil {
					b.Fatal(err)
				}
				last := make(chan error, 1)
				done := func(eventlog.Appended, error) {}
				if i == b.N-1 {
					done = func(_ eventlog.Appended, err error) { last <- err }
				}
				if err := w.log.Append(e, done); err != nil {
					b.Fatal(err)
				}
				if i == b.N-1 {
					if err := <-last; err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ResetTimer()
			stop := start(b, history.Options{Log: w.log, Store: w.store, MaxWait: 100 * time.Millisecond})
			w.caughtUp()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			b.StopTimer()
			stop()
		})
	}
}
