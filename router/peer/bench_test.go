package peer

import (
	"slices"
	"sync"
	"testing"
	"time"
)

func message() Forward {
	f := Forward{Incarnation: "0192f0c1-boot", Partition: 7, RouterEpoch: 3, Number: 1}
	for i := range 4 {
		f.Messages = append(f.Messages, Message{
			Seq: uint64(i), Body: make([]byte, 250), Recipients: []Recipient{{User: 1000 + int64(i), Connection: 77}},
		})
	}
	return f
}

// BenchmarkRoundTrip: one Forward of four messages at a time, Send to answer.
func BenchmarkRoundTrip(b *testing.B) {
	s, p := startServer(b, serverOptions(quietNode{})), startPool(b, poolOptions())
	f := message()
	took := make([]time.Duration, 0, b.N)
	done := make(chan error, 1)
	for b.Loop() {
		begun := time.Now()
		p.Send(s.Addr(), f, wait, func(_ Answer, err error) { done <- err })
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkThroughput: 64 Forwards under way, as from 64 partitions, on one link.
func BenchmarkThroughput(b *testing.B) {
	s, p := startServer(b, serverOptions(quietNode{})), startPool(b, poolOptions())
	f := message()
	slots := make(chan struct{}, 64)
	var wg sync.WaitGroup
	b.ResetTimer()
	for range b.N {
		slots <- struct{}{}
		wg.Add(1)
		p.Send(s.Addr(), f, wait, func(_ Answer, err error) {
			if err != nil {
				b.Error(err)
			}
			<-slots
			wg.Done()
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "forwards/s")
	b.ReportMetric(float64(b.N*len(f.Messages))/b.Elapsed().Seconds(), "messages/s")
}

type quietNode struct{ *fakeNode }

func (quietNode) Forward(uint64, Forward) Answer   { return Answer{Status: StatusDelivered} }
func (quietNode) Fence(_ Fence, done func(string)) { done("") }
func (quietNode) LinkLost(uint64)                  {}
