package redispresence

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/futurechat/future/router/presence"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// BenchmarkAppend appends batches as a router does: 512 messages of 300 bytes, two members each.
func BenchmarkAppend(b *testing.B) {
	addrs := os.Getenv("FUTURE_TEST_REDIS")
	if addrs == "" {
		addrs = miniredis.RunT(b).Addr()
	}
	for _, conversations := range []int{512, 50} {
		b.Run(fmt.Sprintf("conversations=%d", conversations), func(b *testing.B) {
			s := open(b, Options{Addrs: strings.Split(addrs, ","), Prefix: "bench:"})
			const batch = 512
			body := bytes.Repeat([]byte("m"), 300)
			seq := uint64(1)
			epoch, err := s.Epoch(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				messages := make([]presence.Recent, batch)
				for i := range messages {
					c := int64(i % conversations)
					messages[i] = presence.Recent{Conversation: fmt.Sprintf("d:%d:%d", c, c+1), Seq: seq, Users: []int64{c, c + 1}, Message: body}
					seq++
				}
				if _, _, err := s.Append(b.Context(), messages, presence.MaxSeq, epoch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batch), "µs/message")
		})
	}
}

func BenchmarkLocate(b *testing.B) {
	addrs := os.Getenv("FUTURE_TEST_REDIS")
	if addrs == "" {
		addrs = miniredis.RunT(b).Addr()
	}
	s := open(b, Options{Addrs: strings.Split(addrs, ","), Prefix: "bench:"})
	const users = 512
	var entries []presence.Entry
	var ids []int64
	for i := range int64(users) {
		ids = append(ids, i)
		entries = append(entries, presence.Entry{User: i, Place: presence.Place{Incarnation: fmt.Sprint("inc", i%8), Connection: uint64(i)}})
	}
	if _, err := s.Register(b.Context(), entries); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Locate(b.Context(), ids); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*users), "µs/user")
}
