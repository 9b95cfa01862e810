package deliver_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
)

// fwd is a frame of partition 3 for incarnation "i".
func fwd(epoch, number uint64, offsets ...int64) peer.Forward {
	f := peer.Forward{Incarnation: "i", Partition: 3, RouterEpoch: epoch, Number: number}
	for _, o := range offsets {
		f.Messages = append(f.Messages, peer.Message{Seq: seq(o)})
	}
	return f
}

// receipt names what is to be done: `compare 5 6 again 4 reject 7`, or the status.
func receipt(r deliver.Receipt) string {
	if r.Status != peer.StatusDelivered {
		return map[peer.Status]string{peer.StatusStale: "stale"}[r.Status]
	}
	s := ""
	if r.Compare {
		s += " compare"
	}
	for _, m := range r.Messages {
		_, o := eventlog.SplitSeq(m.Seq)
		s += fmt.Sprint(" ", o)
	}
	for _, m := range r.Repeats {
		_, o := eventlog.SplitSeq(m.Seq)
		s += fmt.Sprint(" again ", o)
	}
	for _, m := range r.Rejections {
		_, o := eventlog.SplitSeq(m.Seq)
		s += fmt.Sprint(" reject ", o)
	}
	if s == "" {
		return ""
	}
	return s[1:]
}

func TestInbox(t *testing.T) {
	type step struct {
		link uint64
		f    peer.Forward
		want string
	}
	other := func(f peer.Forward, incarnation string, partition int32) peer.Forward {
		f.Incarnation, f.Partition = incarnation, partition
		return f
	}
	rejecting := func(f peer.Forward, offset int64) peer.Forward {
		f.Rejections = []peer.Rejection{{Seq: seq(offset)}}
		return f
	}
	higher := fwd(8, 1, 0)
	higher.Messages[0].Seq = eventlog.Seq(logEpoch+1, 0)
	for name, steps := range map[string][]step{
		"steady: no compare":                   {{1, fwd(7, 1, 5), "5"}, {1, fwd(7, 2, 6, 7), "6 7"}, {1, fwd(7, 3), ""}, {1, fwd(7, 4, 8), "8"}},
		"hole":                                 {{1, fwd(7, 1, 5), "5"}, {1, fwd(7, 3, 7), "compare 7"}, {1, fwd(7, 4, 8), "8"}},
		"hole told by an empty frame":          {{1, fwd(7, 1, 5), "5"}, {1, fwd(7, 3), "compare"}, {1, fwd(7, 4, 8), "8"}},
		"first frame was left out":             {{1, fwd(7, 2, 5), "compare 5"}},
		"a new router: one compare, no repeat": {{1, fwd(7, 9, 5, 6), "compare 5 6"}, {2, fwd(8, 1, 5, 6, 7), "compare 7 again 5 again 6"}, {2, fwd(8, 2, 8), "8"}},
		"a former router":                      {{1, fwd(8, 1, 5), "5"}, {2, fwd(7, 2, 6), "stale"}, {1, fwd(8, 2, 6), "6"}},
		"the same frame over another link":     {{1, fwd(7, 1, 5), "5"}, {2, fwd(7, 1, 5), "again 5"}, {2, fwd(7, 2, 6), "6"}},
		"the same frame, the first was lost":   {{1, fwd(7, 1, 5), "5"}, {2, fwd(7, 2, 6), "6"}},
		"a late frame after a hole was told":   {{1, fwd(7, 1, 5), "5"}, {2, fwd(7, 3), "compare"}, {1, fwd(7, 2, 6), "6"}, {2, fwd(7, 4, 7), "7"}},
		"late, and overtaken":                  {{1, fwd(7, 1, 5), "5"}, {2, fwd(7, 3, 7), "compare 7"}, {1, fwd(7, 2, 6), "again 6"}},
		"partitions are apart":                 {{1, fwd(7, 1, 5), "5"}, {1, other(fwd(2, 1, 4), "i", 4), "4"}, {1, fwd(7, 2, 6), "6"}},
		"a new life has its own numbers":       {{1, fwd(7, 1, 5), "5"}, {1, other(fwd(7, 1, 6), "j", 3), "6"}, {1, other(fwd(7, 3, 7), "j", 3), "compare 7"}},
		"a new life: former routers stay so":   {{1, fwd(7, 1, 5), "5"}, {1, other(fwd(6, 1, 6), "j", 3), "stale"}},
		"rejections are not repeated":          {{1, rejecting(fwd(7, 1, 5), 6), "5 reject 6"}, {1, rejecting(fwd(7, 2, 7), 6), "7"}},
		"a rejection below the frame's last":   {{1, rejecting(fwd(7, 1, 5), 4), "5 reject 4"}},
		"a log made anew has higher seqs":      {{1, fwd(7, 1, 5), "5"}, {1, higher, "compare 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			i := deliver.NewInbox()
			for n, s := range steps {
				if got := receipt(i.Receive(s.link, s.f)); got != s.want {
					t.Fatalf("frame %d gave %q, want %q", n, got, s.want)
				}
			}
		})
	}
}

func TestInbox_LinkLost(t *testing.T) {
	i := deliver.NewInbox()
	i.Receive(1, fwd(7, 1, 5))
	if i.LinkLost(2) {
		t.Fatal("a link without a partition")
	}
	i.Receive(2, fwd(7, 2, 6))
	if i.LinkLost(1) {
		t.Fatal("the partition has moved on, and its numbers say that nothing is missing")
	}
	if !i.LinkLost(2) {
		t.Fatal("no compare")
	}
	if i.LinkLost(2) {
		t.Fatal("a second compare")
	}
	if got := receipt(i.Receive(3, fwd(7, 3, 7))); got != "7" {
		t.Fatalf("gave %q", got)
	}
}

// Whatever frames come: messages are handed on in order and once, and every message that was left out is below a compare.
func TestInbox_Rapid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := deliver.NewInbox()
		var mark int64 = -1
		epoch, number, offset := uint64(1), uint64(1), int64(0)
		i.Receive(1, fwd(epoch, number)) // what is left out before the very first frame is another matter: see Inbox
		var lost []int64                 // left out since the last compare
		clean := map[int64]bool{}        // a compare came after they were left out
		for range rapid.IntRange(1, 40).Draw(t, "frames") {
			if rapid.IntRange(0, 9).Draw(t, "new router") == 0 {
				epoch, number = epoch+1, 0
				offset = max(0, offset-int64(rapid.IntRange(0, 3).Draw(t, "back")))
			}
			number++
			f := fwd(epoch, number)
			for range rapid.IntRange(0, 3).Draw(t, "messages") {
				f.Messages = append(f.Messages, peer.Message{Seq: seq(offset)})
				offset++
			}
			if rapid.IntRange(0, 4).Draw(t, "lost") == 0 {
				for _, m := range f.Messages {
					_, o := eventlog.SplitSeq(m.Seq)
					lost = append(lost, o)
				}
				continue
			}
			got := i.Receive(1, f)
			if got.Compare {
				for _, o := range lost {
					clean[o] = true
				}
				lost = nil
			}
			for _, m := range got.Messages {
				_, o := eventlog.SplitSeq(m.Seq)
				if o <= mark {
					t.Fatalf("%d after %d", o, mark)
				}
				for missing := mark + 1; missing < o; missing++ {
					if !clean[missing] {
						t.Fatalf("%d handed on, but %d was never compared", o, missing)
					}
				}
				mark = o
			}
			if len(got.Messages)+len(got.Repeats) != len(f.Messages) {
				t.Fatal("a message is neither new nor a repeat")
			}
		}
	})
}
