package presencetest

import (
	"testing"

	"github.com/futurechat/future/router/presence"
)

func (s suite) tails(t *testing.T) {
	f := s.open(t)
	one, other, next := presence.TailName("t", 1, 0), presence.TailName("t", 1, 1), presence.TailName("t", 2, 0)
	want := func(partition, epoch string, begin, want int64) {
		t.Helper()
		got, err := f.Store.Tail(f.ctx(), presence.Tail{Partition: partition, Epoch: epoch, Offset: begin})
		f.must(err)
		if got.Offset != want {
			t.Errorf("the tail of %s in %s is %d, want %d", partition, epoch, got.Offset, want)
		}
	}
	raise := func(tails ...presence.Tail) {
		t.Helper()
		f.must(f.Store.RaiseTails(f.ctx(), tails))
	}
	e1 := f.epoch()
	again := presence.TailName("t", 1, 7)
	for _, at := range []int64{9, 12} {
		got, err := f.Store.Tail(f.ctx(), presence.Tail{Partition: again, Epoch: e1, Offset: at - 4, Again: at})
		f.must(err)
		if want := (presence.Tail{Partition: again, Epoch: e1, Offset: at - 4, Again: 9}); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		raise(presence.Tail{Partition: again, Epoch: e1, Offset: 8})
	}
	want(one, e1, 7, 7)
	want(one, e1, 9, 7) // it is known: whoever comes second begins where the first did
	want(one, e1, 0, 7)
	raise(presence.Tail{Partition: one, Epoch: e1, Offset: 12}, presence.Tail{Partition: other, Epoch: e1, Offset: 3})
	want(one, e1, 0, 12)
	want(other, e1, 0, 3)
	want(next, e1, 1, 1)
	raise(presence.Tail{Partition: one, Epoch: e1, Offset: 10}, presence.Tail{Partition: one, Epoch: e1, Offset: 12})
	want(one, e1, 0, 12)
	const high = 1<<48 - 2 // exact
	raise(presence.Tail{Partition: other, Epoch: e1, Offset: high}, presence.Tail{Partition: other, Epoch: e1, Offset: high - 1})
	want(other, e1, 0, high)
	raise()

	f.Wipe(t)
	e2 := f.epoch()
	want(one, e2, 4, 4)
	raise(presence.Tail{Partition: one, Epoch: e1, Offset: 20}) // comes late
	want(one, e2, 0, 4)
}
