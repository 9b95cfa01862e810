package mysqlstore_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/consumers/mysqlstore"
	"github.com/futurechat/future/consumers/mysqlstore/storetest"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

// filler writes messages as history does: several partitions at once, each batch over many conversations.
type filler struct {
	store         *mysqlstore.Store
	partitions    int
	writers       int
	batch         int
	conversations int // in each partition
	next          []int64
}

func (f *filler) messages(partition int, from int64, n int) []*pb.Message {
	list := make([]*pb.Message, n)
	for i := range list {
		pair := int64(partition + f.partitions*rand.IntN(f.conversations) + 1)
		sender := pair + rand.Int64N(2)*1_000_000
		list[i] = &pb.Message{
			Conversation: wire.Direct(pair, pair+1_000_000), Seq: eventlog.Seq(1, from+int64(i)), ClientMsgId: wire.NewMessageID(),
			TimeMs: time.Now().UnixMilli(), Sender: &pb.User{Id: wire.FormatID(sender), Name: "somebody"},
			Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: "The quick brown fox jumps over the lazy dog, and on."}}},
		}
	}
	return list
}

// fill writes about rows messages.
func (f *filler) fill(b *testing.B, rows int) {
	b.Helper()
	if f.next == nil {
		f.next = make([]int64, f.partitions)
	}
	places := make(chan int, f.partitions)
	for p := range f.partitions {
		places <- p
	}
	work := make(chan int)
	var all sync.WaitGroup
	for range f.writers {
		all.Go(func() {
			for n := range work {
				p := <-places
				from := f.next[p]
				_, err := f.store.WriteBatch(b.Context(), chat.Batch{
					Topic: chat.TopicMessages, Partition: int32(p), From: from, Next: from + int64(n), Messages: f.messages(p, from, n),
				})
				if err != nil {
					b.Error(err)
				}
				f.next[p] = from + int64(n)
				places <- p
			}
		})
	}
	for rows > 0 {
		work <- min(rows, f.batch)
		rows -= f.batch
	}
	close(work)
	all.Wait()
}

// BenchmarkWriteBatch tells how many messages a second are stored. FUTURE_BENCH_ROWS is how many there are before: default none.
func BenchmarkWriteBatch(b *testing.B) {
	before, _ := strconv.Atoi(os.Getenv("FUTURE_BENCH_ROWS"))
	for _, k := range storetest.Kinds() {
		b.Run(fmt.Sprintf("%s/rows=%d", k.Name, before), func(b *testing.B) {
			f := &filler{store: k.Open(b), partitions: 16, writers: 4, batch: 500, conversations: 5000}
			f.fill(b, before)
			b.ResetTimer()
			f.fill(b, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			b.StopTimer()
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.HeapInuse)/(1<<20), "heap-MiB")
		})
	}
}
