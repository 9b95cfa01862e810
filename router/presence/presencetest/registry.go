package presencetest

import (
	"cmp"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/futurechat/future/router/presence"
)

func (f f) wantPlaces(user int64, want ...presence.Place) {
	f.t.Helper()
	got := f.locate(user)[0]
	slices.SortFunc(got, func(a, b presence.Place) int {
		return cmp.Or(cmp.Compare(a.Incarnation, b.Incarnation), cmp.Compare(a.Connection, b.Connection))
	})
	if len(got) == 0 && len(want) == 0 {
		return
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("user %d is at %v, want %v", user, got, want)
	}
}

func (f f) wantAdded(want []bool, entries ...presence.Entry) {
	f.t.Helper()
	if got := f.register(entries...); !slices.Equal(got, want) {
		f.t.Errorf("added %v, want %v", got, want)
	}
}

func (s suite) places(t *testing.T) {
	f := s.open(t)
	f.wantPlaces(1)
	f.register(entry(1, "a", 1), entry(1, "b", 1))
	f.wantPlaces(1)
	f.live("a")
	f.wantPlaces(1, located("a", 1))
	f.live("b")
	f.wantPlaces(1, located("a", 1), located("b", 1))
	f.must(f.Store.Release(f.ctx(), presence.IncarnationLease("a"), "a"))
	f.wantPlaces(1, located("b", 1))
	if !f.acquire(presence.IncarnationLease("c"), "c", "c.example:1", f.TTL) {
		t.Fatal("lease refused")
	}
	f.register(entry(2, "c", 1<<63))
	f.wantPlaces(2, located("c", 1<<63))
	f.Advance(2 * f.TTL)
	f.wantPlaces(2)
}

func (s suite) added(t *testing.T) {
	f := s.open(t)
	f.live("a")
	f.wantAdded([]bool{true, true}, entry(1, "a", 1), entry(2, "a", 2))
	f.wantAdded([]bool{false, true, false}, entry(1, "a", 1), entry(1, "a", 3), entry(2, "a", 2))
	f.LosePlaces(t, 1)
	f.wantPlaces(1)
	f.wantAdded([]bool{true, false}, entry(1, "a", 1), entry(2, "a", 2))
	f.wantPlaces(1, located("a", 1))
	f.wantAdded(nil)
}

func (s suite) unregister(t *testing.T) {
	f := s.open(t)
	f.live("a")
	f.live("aa")
	f.register(entry(1, "a", 1), entry(1, "a", 11), entry(1, "aa", 1), entry(2, "a", 1))
	f.must(f.Store.Unregister(f.ctx(), []presence.Entry{entry(1, "a", 1)}))
	f.wantPlaces(1, located("a", 11), located("aa", 1))
	f.wantPlaces(2, located("a", 1))
	f.must(f.Store.Unregister(f.ctx(), []presence.Entry{entry(1, "a", 1), entry(3, "a", 1)}))
	f.must(f.Store.Unregister(f.ctx(), nil))
	f.must(f.Store.Unregister(f.ctx(), []presence.Entry{entry(1, "aa", 1), entry(1, "a", 11)}))
	f.wantPlaces(1)
}

func (s suite) locateMany(t *testing.T) {
	f := s.open(t)
	f.live("a")
	const users = 300
	var entries []presence.Entry
	var ids []int64
	for u := int64(users); u > 0; u-- {
		ids = append(ids, u)
		if u%3 != 0 {
			entries = append(entries, entry(u, "a", uint64(u)))
		}
	}
	f.register(entries...)
	for i, places := range f.locate(ids...) {
		if want := ids[i]%3 != 0; (len(places) == 1) != want {
			t.Fatalf("user %d is at %v", ids[i], places)
		} else if want && places[0] != located("a", uint64(ids[i])) {
			t.Fatalf("user %d is at %v", ids[i], places)
		}
	}
	if got := f.locate(); len(got) != 0 {
		t.Errorf("nobody is at %v", got)
	}
	if got := f.locate(7, 7); !reflect.DeepEqual(got[0], got[1]) || len(got[0]) != 1 {
		t.Errorf("asked twice, user 7 is at %v", got)
	}
}

func (s suite) groups(t *testing.T) {
	f := s.open(t)
	f.live("a")
	f.live("b")
	node := func(group int64, incarnation string) presence.Entry {
		return presence.Entry{Group: group, Place: presence.Place{Incarnation: incarnation}}
	}
	f.wantAdded([]bool{true, true, true, true, true}, node(7, "a"), node(7, "b"), node(7, "dead"), node(8, "b"), entry(7, "a", 1))
	f.wantAdded([]bool{false}, node(7, "a"))
	check := func(users, groups []int64, want ...[]string) {
		t.Helper()
		places, nodes, err := f.Store.LocateGroups(f.ctx(), users, groups)
		f.must(err)
		var got [][]string
		for _, found := range append(places, nodes...) {
			var at []string
			for _, p := range found {
				if p.Addr != p.Incarnation+".example:1" {
					t.Errorf("%+v has another address", p)
				}
				at = append(at, p.Incarnation)
			}
			slices.Sort(at)
			got = append(got, at)
		}
		if len(places) != len(users) || len(nodes) != len(groups) || !reflect.DeepEqual(got, want) {
			t.Errorf("users %v and groups %v are at %q, want %q", users, groups, got, want)
		}
	}
	check([]int64{7}, []int64{8, 7, 9}, []string{"a"}, []string{"b"}, []string{"a", "b"}, nil)
	check(nil, []int64{7}, []string{"a", "b"})
	check([]int64{8}, nil, nil)
	f.must(f.Store.Unregister(f.ctx(), []presence.Entry{node(7, "a"), node(9, "a")}))
	check([]int64{7}, []int64{7, 8}, []string{"a"}, []string{"b"}, []string{"b"})
	f.wantAdded([]bool{true}, node(7, "a"))
}

func (s suite) epoch(t *testing.T) {
	f := s.open(t)
	first := f.epoch()
	if first == "" || f.epoch() != first {
		t.Fatalf("epoch %q, then %q", first, f.epoch())
	}
	f.live("a")
	f.register(entry(1, "a", 1))
	f.append(0, message("d:1:2", 1, 1))
	f.Wipe(t)
	f.wantPlaces(1)
	if got := f.page("d:1:2", 0, 0, 10, true); got.Newest != 0 || len(f.heads(1)) != 0 {
		t.Errorf("after a loss there are %+v and %v", got, f.heads(1))
	}
	if f.renew(presence.IncarnationLease("a"), "a", time.Minute) {
		t.Error("a lease that was lost is renewed")
	}
	second := f.epoch()
	if second == first || second == "" || f.epoch() != second {
		t.Errorf("epoch %q, after the loss %q, then %q", first, second, f.epoch())
	}
}

func (s suite) leases(t *testing.T) {
	f := s.open(t)
	name := presence.PartitionLease("chat.messages", 3)
	if !f.acquire(name, "a", "1", time.Minute) {
		t.Fatal("a free lease is refused")
	}
	if f.acquire(name, "b", "2", time.Minute) || f.renew(name, "b", time.Minute) {
		t.Error("somebody else got a lease that is held")
	}
	// Neither is "a" the owner of what "aa" has, nor the other way round.
	if f.acquire(name, "aa", "", time.Minute) || f.acquire(name, "", "", time.Minute) {
		t.Error("an owner is known by a part of its name")
	}
	if !f.acquire(name, "a", "1", time.Minute) || !f.renew(name, "a", time.Minute) {
		t.Error("the owner is refused")
	}
	f.must(f.Store.Release(f.ctx(), name, "b"))
	if !f.renew(name, "a", time.Minute) {
		t.Error("somebody else gave the lease up")
	}
	if !f.acquire(presence.PartitionLease("chat.messages", 4), "b", "", time.Minute) || !f.acquire(presence.OutboxLease, "b", "", time.Minute) {
		t.Error("other leases are free")
	}
	f.must(f.Store.Release(f.ctx(), name, "a"))
	f.must(f.Store.Release(f.ctx(), name, "a"))
	if f.renew(name, "a", time.Minute) || !f.acquire(name, "b", "2", time.Minute) {
		t.Error("a lease that was given up is not free")
	}
}

func (s suite) leaseExpires(t *testing.T) {
	f := s.open(t)
	if !f.acquire("outbox", "a", "", 3*f.TTL) {
		t.Fatal("a free lease is refused")
	}
	f.Advance(2 * f.TTL)
	if !f.renew("outbox", "a", 3*f.TTL) {
		t.Fatal("it expired too early")
	}
	f.Advance(2 * f.TTL)
	if f.acquire("outbox", "b", "", f.TTL) {
		t.Fatal("the renewal did not prolong it")
	}
	f.Advance(2 * f.TTL)
	if f.renew("outbox", "a", f.TTL) {
		t.Error("an expired lease is renewed")
	}
	if !f.acquire("outbox", "b", "", f.TTL) {
		t.Error("an expired lease is not free")
	}
}

func (s suite) leaseSets(t *testing.T) {
	f := s.open(t)
	names := []string{presence.PartitionLease("t", 0), presence.PartitionLease("t", 1), presence.PartitionLease("t", 2)}
	owners := func(want ...string) {
		t.Helper()
		got, err := f.Store.Owners(f.ctx(), names)
		f.must(err)
		if !slices.Equal(got, want) {
			t.Fatalf("owners are %q, want %q", got, want)
		}
	}
	each := func(got []bool, err error, want ...bool) {
		t.Helper()
		f.must(err)
		if !slices.Equal(got, want) {
			t.Fatalf("answered %v, want %v", got, want)
		}
	}
	owners("", "", "")
	if !f.acquire(names[1], "b", "", 3*f.TTL) {
		t.Fatal("a free lease is refused")
	}
	got, err := f.Store.AcquireEach(f.ctx(), names, "a", "value", 3*f.TTL)
	each(got, err, true, false, true)
	owners("a", "b", "a")
	f.Advance(2 * f.TTL)
	got, err = f.Store.RenewEach(f.ctx(), names[1:], "a", 3*f.TTL)
	each(got, err, false, true)
	f.Advance(2 * f.TTL)
	owners("", "", "a")
	got, err = f.Store.RenewEach(f.ctx(), names, "a", f.TTL)
	each(got, err, false, false, true)
	f.must(f.Store.Release(f.ctx(), names[2], "a"))
	owners("", "", "")
	got, err = f.Store.AcquireEach(f.ctx(), nil, "a", "", f.TTL)
	each(got, err)
}

func (s suite) leaseLost(t *testing.T) {
	f := s.open(t)
	f.live("a")
	f.Wipe(t)
	if f.renew(presence.IncarnationLease("a"), "a", time.Minute) {
		t.Error("a lost lease is renewed")
	}
	f.register(entry(1, "a", 1))
	f.wantPlaces(1)
}

func (s suite) wantLives(f f, want ...presence.Life) {
	f.t.Helper()
	got, err := f.Store.Lives(f.ctx())
	f.must(err)
	if !slices.Equal(got, want) {
		f.t.Errorf("lives: %v, want %v", got, want)
	}
}

// lasting gives an incarnation a lease that outlives the test.
func (s suite) lasting(f f, incarnation string) {
	f.t.Helper()
	if !f.acquire(presence.IncarnationLease(incarnation), incarnation, incarnation+".example:1", 100*f.TTL) {
		f.t.Fatal("a free lease is refused")
	}
}

func (s suite) lives(t *testing.T) {
	f := s.open(t)
	s.wantLives(f)
	s.lasting(f, "b")
	s.lasting(f, "a")
	a, b := presence.Life{Incarnation: "a", Addr: "a.example:1"}, presence.Life{Incarnation: "b", Addr: "b.example:1"}
	if !f.acquire("outbox", "o", "", time.Minute) || !f.acquire("c", "c", "c.example:1", f.TTL) {
		t.Fatal("a free lease is refused")
	}
	s.wantLives(f, a, b)
	f.must(f.Store.Release(f.ctx(), presence.IncarnationLease("b"), "b"))
	s.wantLives(f, a)
	if !f.acquire(presence.IncarnationLease("c"), "c", "c.example:1", f.TTL) {
		t.Fatal("a free lease is refused")
	}
	s.wantLives(f, a, presence.Life{Incarnation: "c", Addr: "c.example:1"})
	f.Advance(2 * f.TTL)
	s.wantLives(f, a)
	f.Wipe(t)
	s.wantLives(f)
}

func (s suite) revoke(t *testing.T) {
	f := s.open(t)
	s.lasting(f, "a")
	s.lasting(f, "b")
	f.must(f.Store.Revoke(f.ctx(), "a", 3*f.TTL))
	if f.renew(presence.IncarnationLease("a"), "a", time.Minute) {
		t.Error("a lease that was revoked is renewed")
	}
	b := presence.Life{Incarnation: "b", Addr: "b.example:1"}
	s.wantLives(f, presence.Life{Incarnation: "a", Revoked: true}, b)
	f.Advance(2 * f.TTL)
	s.wantLives(f, presence.Life{Incarnation: "a", Revoked: true}, b)
	f.must(f.Store.Revoke(f.ctx(), "a", 3*f.TTL)) // once more: the time begins anew
	f.Advance(2 * f.TTL)
	s.wantLives(f, presence.Life{Incarnation: "a", Revoked: true}, b)
	f.Advance(2 * f.TTL)
	s.wantLives(f, b)
}

func (s suite) broken(t *testing.T) {
	f := s.open(t)
	b, ctx := f.Broken, f.ctx()
	calls := map[string]func() error{
		"register":      func() error { _, err := b.Register(ctx, []presence.Entry{entry(1, "a", 1)}); return err },
		"unregister":    func() error { return b.Unregister(ctx, []presence.Entry{entry(1, "a", 1)}) },
		"locate":        func() error { _, err := b.Locate(ctx, []int64{1}); return err },
		"epoch":         func() error { _, err := b.Epoch(ctx); return err },
		"acquire":       func() error { _, err := b.Acquire(ctx, "outbox", "a", "", time.Minute); return err },
		"renew":         func() error { _, err := b.Renew(ctx, "outbox", "a", time.Minute); return err },
		"release":       func() error { return b.Release(ctx, "outbox", "a") },
		"lives":         func() error { _, err := b.Lives(ctx); return err },
		"revoke":        func() error { return b.Revoke(ctx, "a", time.Minute) },
		"append":        func() error { _, _, err := b.Append(ctx, []presence.Recent{message("d:1:2", 1, 1)}, 0, ""); return err },
		"page":          func() error { _, err := b.Page(ctx, "d:1:2", 0, 0, 10, true); return err },
		"heads":         func() error { _, err := b.Heads(ctx, 1); return err },
		"locate groups": func() error { _, _, err := b.LocateGroups(ctx, nil, []int64{1}); return err },
		"tail":          func() error { _, err := b.Tail(ctx, presence.Tail{Partition: "t:1:0", Epoch: "e"}); return err },
		"raise tails":   func() error { return b.RaiseTails(ctx, []presence.Tail{{Partition: "t:1:0", Epoch: "e"}}) },
		"newest":        func() error { _, err := b.Newest(ctx, []string{"g:1"}); return err },
		"owners":        func() error { _, err := b.Owners(ctx, []string{"outbox"}); return err },
		"acquires":      func() error { _, err := b.AcquireEach(ctx, []string{"outbox"}, "a", "", time.Minute); return err },
		"renews":        func() error { _, err := b.RenewEach(ctx, []string{"outbox"}, "a", time.Minute); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, presence.ErrUnavailable) {
			t.Errorf("%s: %v is not ErrUnavailable", name, err)
		}
	}
}

func (s suite) newest(t *testing.T) {
	f := s.open(t)
	f.append(0, message("g:7", 3), message("g:8", 4), message("g:7", 9))
	f.append(0, message("g:7", 3))
	got, err := f.Store.Newest(f.ctx(), []string{"g:7", "g:9", "g:8"})
	f.must(err)
	if len(got) != 2 || got["g:7"] != 9 || got["g:8"] != 4 {
		t.Errorf("newest are %v", got)
	}
	if got, err := f.Store.Newest(f.ctx(), nil); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %v, %v", got, err)
	}
}
