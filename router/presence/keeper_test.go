package presence_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/futurechat/future/router/presence"
)

var errLost = fmt.Errorf("answer lost: %w", presence.ErrUnavailable)

// world is a Keeper with a store whose answers come late, not at all, or after what was asked was not done.
type world struct {
	t     tb
	now   time.Time
	store *presence.Memory
	k     *presence.Keeper
	inc   int

	pending []pendingCall
	fault   func() (refused, lost bool)
	delay   func() time.Duration

	incarnation string // by Resume and Suspend
	told        map[uint64]string
	compares    map[uint64]int
	groups      map[int64]string // told last: registered, or lost
	lostGroups  map[int64]int
	stopped     bool
	everHeld    bool
	log         []string
}

type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

type pendingCall struct {
	at     time.Time
	answer func() presence.Event
}

func newWorld(t tb) *world {
	w := &world{t: t, now: time.Unix(1e9, 0), told: make(map[uint64]string), compares: make(map[uint64]int), groups: map[int64]string{}, lostGroups: map[int64]int{}}
	w.store = presence.NewMemory(presence.MemoryOptions{Now: func() time.Time { return w.now }})
	w.fault = func() (bool, bool) { return false, false }
	w.delay = func() time.Duration { return time.Millisecond }
	w.k = presence.NewKeeper(presence.KeeperOptions{MaxBatch: 4, CompareBatch: 3, NewIncarnation: func() string {
		w.inc++
		return fmt.Sprint("inc", w.inc)
	}})
	return w
}

func (w *world) step(e presence.Event) {
	w.t.Helper()
	was := w.incarnation
	for _, effect := range w.k.Step(w.now, e) {
		w.log = append(w.log, fmt.Sprintf("%T", effect))
		w.carryOut(effect)
	}
	if inc, until := w.k.Incarnation(); inc != w.incarnation || inc != "" && !w.now.Before(until) {
		w.t.Fatalf("incarnation %q until %v, told %q, was %q", inc, until, w.incarnation, was)
	}
}

// call does what is asked when it is asked or when it is answered, which must not matter, or not at all.
func (w *world) call(do func() presence.Event, failed presence.Event) {
	refused, lost := w.fault()
	early := w.delay()%2 == 0
	var e presence.Event
	if early && !refused {
		e = do()
	}
	w.pending = append(w.pending, pendingCall{w.now.Add(w.delay()), func() presence.Event {
		if !early && !refused {
			e = do()
		}
		if refused || lost {
			return failed
		}
		return e
	}})
}

func (w *world) carryOut(effect presence.Effect) {
	w.t.Helper()
	ctx := context.Background()
	switch e := effect.(type) {
	case presence.AcquireLease:
		w.call(func() presence.Event {
			ok, err := w.store.Acquire(ctx, presence.IncarnationLease(e.Incarnation), e.Incarnation, "h:1", e.TTL)
			return presence.LeaseAnswered{ID: e.ID, Held: ok, Err: err}
		}, presence.LeaseAnswered{ID: e.ID, Err: errLost})
	case presence.RenewLease:
		w.call(func() presence.Event {
			ok, err := w.store.Renew(ctx, presence.IncarnationLease(e.Incarnation), e.Incarnation, e.TTL)
			return presence.LeaseAnswered{ID: e.ID, Held: ok, Err: err}
		}, presence.LeaseAnswered{ID: e.ID, Err: errLost})
	case presence.ReleaseLease:
		w.call(func() presence.Event {
			_ = w.store.Release(ctx, presence.IncarnationLease(e.Incarnation), e.Incarnation)
			return presence.LeaseReleased{ID: e.ID}
		}, presence.LeaseReleased{ID: e.ID})
	case presence.ReadEpoch:
		w.call(func() presence.Event {
			epoch, err := w.store.Epoch(ctx)
			return presence.EpochAnswered{ID: e.ID, Epoch: epoch, Err: err}
		}, presence.EpochAnswered{ID: e.ID, Err: errLost})
	case presence.WriteEntries:
		w.checkWrite(e)
		w.call(func() presence.Event {
			added, err := w.store.Register(ctx, e.Register)
			if err == nil {
				err = w.store.Unregister(ctx, e.Unregister)
			}
			return presence.EntriesWritten{ID: e.ID, Added: added, Err: err}
		}, presence.EntriesWritten{ID: e.ID, Err: errLost})
	case presence.Registered:
		was := w.told[e.Connection]
		if was == "registered" || was == "degraded" && e.Degraded {
			w.t.Fatalf("connection %d was told %s, now degraded: %v", e.Connection, was, e.Degraded)
		}
		w.told[e.Connection] = map[bool]string{true: "degraded", false: "registered"}[e.Degraded]
	case presence.GroupRegistered:
		if e.Lost == (w.groups[e.Group] == "") {
			w.t.Fatalf("group %d was told %q, now lost: %t", e.Group, w.groups[e.Group], e.Lost)
		}
		if w.groups[e.Group] = "registered"; e.Lost {
			w.lostGroups[e.Group]++
		}
	case presence.Compare:
		if w.incarnation == "" || len(e.Connections) > 3 {
			w.t.Fatalf("compare %v while %q", e.Connections, w.incarnation)
		}
		for _, c := range e.Connections {
			if w.told[c] != "registered" && w.told[c] != "degraded" {
				w.t.Fatalf("compare %d, which was told %q", c, w.told[c])
			}
			w.compares[c]++
		}
	case presence.Suspend:
		if w.incarnation == "" {
			w.t.Fatalf("suspended twice")
		}
		w.incarnation = ""
	case presence.Resume:
		if w.incarnation != "" {
			w.t.Fatalf("resumed as %s while %s", e.Incarnation, w.incarnation)
		}
		w.incarnation, w.everHeld = e.Incarnation, true
	case presence.Stopped:
		w.stopped = true
	}
}

// checkWrite: written is only under the lease that is held, each connection once, and never two writes at a time.
func (w *world) checkWrite(e presence.WriteEntries) {
	w.t.Helper()
	if inc, until := w.k.Incarnation(); inc == "" || !w.now.Before(until) {
		w.t.Fatalf("write without a lease")
	}
	if n := len(e.Register) + len(e.Unregister); n == 0 || n > 4 {
		w.t.Fatalf("write of %d entries", n)
	}
	seen := make(map[[2]uint64]bool)
	for _, entry := range slices.Concat(e.Register, e.Unregister) {
		key := [2]uint64{entry.Place.Connection, uint64(entry.Group)}
		if seen[key] || entry.Place.Incarnation != w.incarnation {
			w.t.Fatalf("write of %v, twice or not under %s", entry, w.incarnation)
		}
		seen[key] = true
	}
}

// run lets time pass, giving answers and ticks when they are due.
func (w *world) run(d time.Duration) {
	w.t.Helper()
	until := w.now.Add(d)
	for range 100_000 {
		next := w.k.Next()
		at := -1
		for i, p := range w.pending {
			if !p.at.After(next) && (at < 0 || p.at.Before(w.pending[at].at)) {
				at = i
			}
		}
		if at >= 0 {
			next = w.pending[at].at
		}
		if next.After(until) || w.stopped && at < 0 {
			w.now = until
			return
		}
		w.now = later(w.now, next)
		if at < 0 {
			w.step(presence.Tick{})
			continue
		}
		p := w.pending[at]
		w.pending = slices.Delete(w.pending, at, at+1)
		w.step(p.answer())
	}
	w.t.Fatalf("the keeper does not come to rest: %v", w.log[len(w.log)-20:])
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// live gives the connections that others find, by number.
func (w *world) live() (all []uint64) {
	for _, e := range w.store.Live() {
		if e.Group == 0 {
			all = append(all, e.Place.Connection)
		}
	}
	slices.Sort(all)
	return all
}

// liveGroups gives the groups for which others find this node.
func (w *world) liveGroups() (all []uint64) {
	for _, e := range w.store.Live() {
		if e.Group != 0 {
			all = append(all, uint64(e.Group))
		}
	}
	slices.Sort(all)
	return all
}

func (w *world) wantLive(want ...uint64) {
	w.t.Helper()
	if got := w.live(); !slices.Equal(got, want) {
		w.t.Fatalf("others find %v, want %v", got, want)
	}
}

func (w *world) register(connections ...uint64) {
	w.t.Helper()
	for _, c := range connections {
		w.step(presence.Register{Connection: c, User: int64(c % 7), Device: "phone"})
	}
}

func TestKeeper_RegistersUnderALease(t *testing.T) {
	w := newWorld(t)
	w.register(1, 2)
	w.wantLive()
	w.run(100 * time.Millisecond)
	w.wantLive(1, 2)
	if w.told[1] != "registered" || len(w.compares) != 0 {
		t.Errorf("told %v, compares %v", w.told, w.compares)
	}
	w.step(presence.Unregister{Connection: 1})
	w.register(3)
	w.run(100 * time.Millisecond)
	w.wantLive(2, 3)
	w.run(time.Hour)
	w.wantLive(2, 3)
	if w.inc != 1 || len(w.compares) != 0 {
		t.Errorf("after a quiet hour: %d incarnations, compares %v", w.inc, w.compares)
	}
}

func TestKeeper_StoreDown_AnswersDegradedThenRegisters(t *testing.T) {
	w := newWorld(t)
	down := true
	w.fault = func() (bool, bool) { return down, false }
	w.delay = func() time.Duration { return 5 * time.Second } // nothing is known to fail yet
	w.register(1)
	w.run(999 * time.Millisecond)
	if w.told[1] != "" {
		t.Errorf("told %s at once", w.told[1])
	}
	w.run(time.Millisecond)
	if w.told[1] != "degraded" {
		t.Errorf("told %q after a second", w.told[1])
	}
	w.delay = func() time.Duration { return time.Millisecond }
	w.run(time.Minute)
	w.register(2)
	if w.told[2] != "degraded" { // at once, since it is known by now
		t.Errorf("told %q", w.told[2])
	}
	down = false
	w.run(time.Second)
	w.wantLive(1, 2)
	if w.told[1] != "registered" || w.told[2] != "registered" || w.compares[1] != 1 || w.compares[2] != 1 {
		t.Errorf("told %v, compares %v", w.told, w.compares)
	}
}

func TestKeeper_LateLease_SuspendsBeforeOthersReckonItDead(t *testing.T) {
	w := newWorld(t)
	w.register(1, 2)
	w.run(time.Second)
	down := true
	w.fault = func() (bool, bool) { return down, false }
	var suspended time.Time
	for w.incarnation != "" {
		if len(w.live()) != 2 {
			t.Fatal("others reckon it dead while it delivers")
		}
		suspended = w.now
		w.run(50 * time.Millisecond)
	}
	if got := suspended.Sub(time.Unix(1e9, 0)); got < 9*time.Second || got > 13*time.Second {
		t.Errorf("suspended after %v", got)
	}
	w.run(time.Minute)
	w.wantLive()
	down = false
	w.run(2 * time.Second)
	w.wantLive(1, 2)
	if w.incarnation == "inc1" || w.compares[1] != 1 || w.compares[2] != 1 {
		t.Errorf("incarnation %s, compares %v", w.incarnation, w.compares)
	}
}

func TestKeeper_LostLease_TakesAnotherIncarnation(t *testing.T) {
	w := newWorld(t)
	w.register(1)
	w.run(time.Second)
	w.store.LoseLease(presence.IncarnationLease("inc1"))
	w.wantLive()
	w.run(4 * time.Second)
	w.wantLive(1)
	if w.incarnation != "inc2" || w.compares[1] != 1 || w.told[1] != "registered" {
		t.Errorf("incarnation %s, compares %v, told %v", w.incarnation, w.compares, w.told)
	}
}

func TestKeeper_LostEntry_IsFoundWithin30Renewals(t *testing.T) {
	w := newWorld(t)
	for c := range uint64(100) {
		w.register(c + 1)
	}
	w.run(time.Second)
	w.store.LosePlaces(3) // 14 connections: 3, 10, ..
	w.run(30*3*time.Second + time.Second)
	if len(w.live()) != 100 || len(w.compares) != 14 || w.compares[3] != 1 || w.compares[10] != 1 {
		t.Errorf("others find %d, compares %v", len(w.live()), w.compares)
	}
}

func TestKeeper_ChangedEpoch_RewritesAndComparesAll(t *testing.T) {
	w := newWorld(t)
	for c := range uint64(20) {
		w.register(c + 1)
	}
	w.run(time.Second)
	w.store.Wipe()
	w.run(6 * time.Second)
	if len(w.live()) != 20 || len(w.compares) != 20 {
		t.Errorf("others find %d, compares %v", len(w.live()), w.compares)
	}
}

func TestKeeper_Shutdown_LeavesNothing(t *testing.T) {
	for name, broken := range map[string]bool{"store up": false, "store down": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for c := range uint64(20) {
				w.register(c + 1)
			}
			w.run(time.Second)
			w.fault = func() (bool, bool) { return broken, false }
			w.step(presence.Shutdown{})
			w.run(2 * time.Second)
			if !w.stopped {
				t.Fatal("not stopped")
			}
			w.fault = func() (bool, bool) { return false, false }
			if ok, err := w.store.Acquire(t.Context(), presence.IncarnationLease("inc1"), "x", "", time.Hour); err != nil || ok == broken {
				// While the store is down the lease is left to expire.
				t.Errorf("the lease was free: %v, %v", ok, err)
			}
			if live := w.live(); !broken && len(live) != 0 {
				t.Errorf("left are %v", live)
			}
		})
	}
}

// A register whose answer was lost is done late, after the connection was unregistered.
func TestKeeper_LateWrite_IsUndone(t *testing.T) {
	w := newWorld(t)
	w.run(time.Second)
	lost := true
	w.fault = func() (bool, bool) { r := lost; lost = false; return r, false }
	w.register(1)
	w.run(10 * time.Millisecond)
	w.step(presence.Unregister{Connection: 1})
	w.run(time.Second)
	late := presence.Entry{User: 1, Place: presence.Place{Incarnation: "inc1", Connection: 1}}
	if _, err := w.store.Register(t.Context(), []presence.Entry{late}); err != nil {
		t.Fatal(err)
	}
	w.wantLive(1)
	w.run(2 * time.Minute)
	w.wantLive()
}

// TestKeeper_AnyFaults: whatever happens, the node never delivers while others reckon it dead, and when faults end others find
// exactly the connections that there are, and every one that had not been found for a while was told to compare after that.
func TestKeeper_AnyFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		faults := rapid.IntRange(0, 60).Draw(t, "faults %")
		w.fault = func() (bool, bool) {
			r := rapid.IntRange(0, 199).Draw(t, "fault")
			return r < faults, r >= 100 && r-100 < faults
		}
		w.delay = func() time.Duration {
			return time.Duration(rapid.SampledFrom([]int{1, 2, 3, 10, 200, 999, 1000}).Draw(t, "delay")) * time.Millisecond
		}
		var next uint64
		open, groups := make(map[uint64]bool), make(map[uint64]bool)
		missedGroup := make(map[uint64]int)
		missed := make(map[uint64]int) // connection → how many compares it had been told when it was last not found
		look := func() {
			found := w.live()
			for c := range open {
				if _, ok := slices.BinarySearch(found, c); !ok && w.told[c] != "" {
					missed[c] = w.compares[c]
				}
			}
			found = w.liveGroups()
			for g := range groups {
				if _, ok := slices.BinarySearch(found, g); !ok && w.groups[int64(g)] != "" {
					missedGroup[g] = w.lostGroups[int64(g)]
				}
			}
		}
		w.step(presence.Tick{})
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 14).Draw(t, "what") {
			case 12:
				g := rapid.Uint64Range(1, 3).Draw(t, "group")
				if !groups[g] {
					groups[g] = true
					w.groups[int64(g)] = ""
					w.step(presence.Register{Group: int64(g)})
				}
			case 13:
				g := rapid.Uint64Range(1, 3).Draw(t, "group")
				delete(groups, g)
				delete(missedGroup, g)
				w.step(presence.Unregister{Group: int64(g)})
			case 14:
				w.store.LoseGroup(int64(rapid.IntRange(1, 3).Draw(t, "group")))
			case 0, 1, 2:
				next++
				open[next] = true
				w.register(next)
			case 3, 4:
				if all := sorted(open); len(all) > 0 {
					c := rapid.SampledFrom(all).Draw(t, "closed")
					delete(open, c)
					delete(missed, c)
					w.step(presence.Unregister{Connection: c})
				}
			case 5:
				w.store.Wipe()
			case 6:
				w.store.LosePlaces(int64(rapid.IntRange(0, 6).Draw(t, "user")))
			case 7:
				w.store.LoseLease(presence.IncarnationLease(w.incarnation))
			default:
				for range rapid.IntRange(1, 8).Draw(t, "half seconds") {
					w.run(500 * time.Millisecond)
					look()
				}
			}
			look()
		}
		w.fault = func() (bool, bool) { return false, false }
		w.delay = func() time.Duration { return time.Millisecond }
		w.run(3 * time.Minute) // 30 renewals, and removals again
		if got, want := w.live(), sorted(open); !slices.Equal(got, want) {
			t.Fatalf("others find %v, want %v", got, want)
		}
		if got, want := w.liveGroups(), sorted(groups); !slices.Equal(got, want) {
			t.Fatalf("others find it for the groups %v, want %v", got, want)
		}
		for _, g := range sorted(groups) {
			if w.groups[int64(g)] != "registered" {
				t.Fatalf("group %d was told %q", g, w.groups[int64(g)])
			}
			if had, ok := missedGroup[g]; ok && w.lostGroups[int64(g)] <= had {
				t.Fatalf("group %d was not found for a while, and is not told so", g)
			}
		}
		for _, c := range sorted(open) {
			if w.told[c] != "registered" {
				t.Fatalf("connection %d was told %q", c, w.told[c])
			}
			if had, ok := missed[c]; ok && w.compares[c] <= had {
				t.Fatalf("connection %d was not found for a while, and not told to compare", c)
			}
		}
	})
}

// TestKeeper_WithoutLosses_NeverDeliversUnseen: as long as the store loses nothing, a node that is not suspended has its lease.
func TestKeeper_WithoutLosses_NeverDeliversUnseen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		faults := rapid.IntRange(0, 90).Draw(t, "faults %")
		w.fault = func() (bool, bool) {
			r := rapid.IntRange(0, 199).Draw(t, "fault")
			return r < faults, r >= 100 && r-100 < faults
		}
		w.delay = func() time.Duration {
			return time.Duration(rapid.IntRange(1, 4000).Draw(t, "delay")) * time.Millisecond
		}
		w.step(presence.Tick{})
		for range 40 {
			w.run(time.Duration(rapid.IntRange(1, 3000).Draw(t, "time")) * time.Millisecond)
			if inc, until := w.k.Incarnation(); inc != "" && w.now.Before(until) {
				ok, err := w.store.Acquire(context.Background(), presence.IncarnationLease(inc), "somebody", "", time.Second)
				if err != nil || ok {
					t.Fatalf("%s is alive, but its lease is free: %v, %v", inc, ok, err)
				}
			}
		}
	})
}

func sorted(set map[uint64]bool) []uint64 {
	var all []uint64
	for c := range set {
		all = append(all, c)
	}
	slices.SortFunc(all, cmp.Compare)
	return all
}

// steps drives a Keeper by hand: each call gives its effects as text.
type steps struct {
	t   *testing.T
	k   *presence.Keeper
	now time.Time
}

func newSteps(t *testing.T) *steps {
	s := &steps{t, presence.NewKeeper(presence.KeeperOptions{NewIncarnation: func() string { return "inc" }}), time.Unix(1e9, 0)}
	s.want(presence.Tick{}, "{1 inc 10s}")
	s.want(presence.LeaseAnswered{ID: 1, Held: true}, "{inc}", "{2}")
	s.want(presence.EpochAnswered{ID: 2, Epoch: "e1"})
	return s
}

func (s *steps) want(e presence.Event, effects ...string) {
	s.t.Helper()
	var got []string
	for _, effect := range s.k.Step(s.now, e) {
		got = append(got, fmt.Sprint(effect))
	}
	if !slices.Equal(got, effects) {
		s.t.Fatalf("%#v has effects %q, want %q", e, got, effects)
	}
}

func TestKeeper_UnregisterOvertakesNoRegister(t *testing.T) {
	s := newSteps(t)
	s.want(presence.Register{Connection: 1, User: 7}, "{3 [{7 0 {inc 1  }}] []}")
	s.want(presence.Unregister{Connection: 1})
	s.want(presence.Register{Connection: 2, User: 8})
	s.want(presence.Unregister{Connection: 2}) // not written yet: nothing to be removed
	s.want(presence.EntriesWritten{ID: 3, Added: []bool{true}}, "{4 [] [{7 0 {inc 1  }}]}")
	s.want(presence.EntriesWritten{ID: 3, Added: []bool{true}})
	s.want(presence.EntriesWritten{ID: 4})
}

// An entry whose incarnation has no lease is dead for ever and may be swept: so none is written before the lease is held.
func TestKeeper_WritesNothingBeforeTheNextLease(t *testing.T) {
	s := newSteps(t)
	s.want(presence.Register{Connection: 1, User: 7}, "{3 [{7 0 {inc 1  }}] []}")
	s.want(presence.EntriesWritten{ID: 3, Added: []bool{true}}, "{1 false}")
	s.now = s.now.Add(10 * time.Second)
	s.want(presence.Tick{}, "{}", "{0 inc}", "{4 inc 10s}")
	s.want(presence.Register{Connection: 2, User: 8})
	s.want(presence.LeaseAnswered{ID: 4, Held: true}, "{inc}", "{5}")
	// Nor before the epoch is known again: it has changed, and all is written once, not before and after.
	s.want(presence.EpochAnswered{ID: 5, Epoch: "e2"}, "{6 [{7 0 {inc 1  }} {8 0 {inc 2  }}] []}")
	s.want(presence.EntriesWritten{ID: 6, Added: []bool{true, true}}, "{2 false}", "{[1]}")
}

// A group may come back while its end is being written: what is wanted last is stored.
func TestKeeper_AGroupComesBack(t *testing.T) {
	s := newSteps(t)
	s.want(presence.Register{Group: 7}, "{3 [{0 7 {inc 0  }}] []}")
	s.want(presence.EntriesWritten{ID: 3, Added: []bool{true}}, "{7 false}")
	s.want(presence.Unregister{Group: 7}, "{4 [] [{0 7 {inc 0  }}]}")
	s.want(presence.Register{Group: 7})
	s.want(presence.EntriesWritten{ID: 4}, "{5 [{0 7 {inc 0  }}] []}")
	s.want(presence.EntriesWritten{ID: 5, Added: []bool{true}}, "{7 false}")
	s.want(presence.Unregister{Group: 7}, "{6 [] [{0 7 {inc 0  }}]}")
	s.want(presence.Register{Group: 7})
	s.want(presence.Unregister{Group: 7})
	s.want(presence.EntriesWritten{ID: 6}, "{7 [] [{0 7 {inc 0  }}]}")
	s.want(presence.EntriesWritten{ID: 7})
}

func TestKeeper_EpochChangesDuringWrite_ComparesAfterTheNext(t *testing.T) {
	s := newSteps(t)
	s.want(presence.Register{Connection: 1, User: 7}, "{3 [{7 0 {inc 1  }}] []}")
	s.want(presence.EntriesWritten{ID: 3, Added: []bool{true}}, "{1 false}")
	s.now = s.now.Add(3 * time.Second)
	s.want(presence.Tick{}, "{4 inc 10s}")
	s.want(presence.LeaseAnswered{ID: 4, Held: true}, "{5}", "{6 [{7 0 {inc 1  }}] []}")
	s.want(presence.EpochAnswered{ID: 5, Epoch: "e2"})
	s.want(presence.EntriesWritten{ID: 6, Added: []bool{false}}, "{7 [{7 0 {inc 1  }}] []}")
	s.want(presence.EntriesWritten{ID: 7, Added: []bool{true}}, "{[1]}")
}

func TestKeeper_LostAnswerMayHideALoss_Compares(t *testing.T) {
	s := newSteps(t)
	s.want(presence.Register{Connection: 1, User: 7}, "{3 [{7 0 {inc 1  }}] []}")
	s.want(presence.EntriesWritten{ID: 3, Added: []bool{true}}, "{1 false}")
	s.now = s.now.Add(3 * time.Second)
	s.want(presence.Tick{}, "{4 inc 10s}")
	s.want(presence.LeaseAnswered{ID: 4, Held: true}, "{5}", "{6 [{7 0 {inc 1  }}] []}")
	s.want(presence.EntriesWritten{ID: 6, Err: errLost})
	s.now = s.now.Add(500 * time.Millisecond)
	s.want(presence.Tick{}, "{7 [{7 0 {inc 1  }}] []}")
	s.want(presence.EntriesWritten{ID: 7, Added: []bool{false}}, "{[1]}")
}

func TestKeeper_AnswersThatDoNotFit_AreErrors(t *testing.T) {
	s := newSteps(t)
	s.want(presence.Register{Connection: 1, User: 7}, "{3 [{7 0 {inc 1  }}] []}")
	s.want(presence.EntriesWritten{ID: 3})
	s.now = s.now.Add(500 * time.Millisecond)
	s.want(presence.Tick{}, "{4 [{7 0 {inc 1  }}] []}")
	s.want(presence.EntriesWritten{ID: 4, Added: []bool{false}}, "{1 false}")
}
