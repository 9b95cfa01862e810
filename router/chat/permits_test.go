package chat_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/futurechat/future/router/chat"
)

// A fence is done once all permits that were out when it came are back, and never waits for later ones.
func TestPermits_AFenceWaitsForWhatWasOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := chat.NewPermits()
		type permit struct {
			id int
			*chat.Permit
		}
		type fence struct {
			waits map[int]bool
			done  int
		}
		var out []permit
		var fences []*fence
		check := func() {
			for i, f := range fences {
				if want := len(f.waits) == 0; f.done > 1 || (f.done == 1) != want {
					t.Fatalf("fence %d waits for %v, and was done %d times", i, f.waits, f.done)
				}
			}
		}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				out = append(out, permit{i, p.Take("d:1:2")})
			case 1:
				if len(out) == 0 {
					continue
				}
				at := rapid.IntRange(0, len(out)-1).Draw(t, "which")
				gone := out[at]
				out = slices.Delete(out, at, at+1)
				for _, f := range fences {
					delete(f.waits, gone.id)
				}
				gone.Release()
				gone.Release() // does nothing
			case 2:
				f := &fence{waits: map[int]bool{}}
				for _, o := range out {
					f.waits[o.id] = true
				}
				fences = append(fences, f)
				p.Fence("d:1:2", uint64(i), func() {}, func() { f.done++ })
			}
			check()
		}
		for _, o := range out {
			o.Release()
		}
		for _, f := range fences {
			if f.done != 1 {
				t.Fatal("a fence never came to its end")
			}
		}
	})
}

func TestPermits_OtherConversationsAreNotWaitedFor(t *testing.T) {
	p := chat.NewPermits()
	other := p.Take("d:1:3")
	done := false
	p.Fence("d:1:2", 5, func() {}, func() { done = true })
	other.Release()
	if !done {
		t.Fatal("waited for another conversation's permit")
	}
}

// What was looked up before a fence does not get into the cache after it, while what is looked up later does.
func TestPermits_AnOlderLookCannotBePutBack(t *testing.T) {
	p := chat.NewPermits()
	cached := uint64(0)
	put := func(permit *chat.Permit, version uint64) { permit.Remember(version, func() { cached = version }) }
	before := p.Take("g:7")
	put(before, 4)
	p.Fence("g:7", 5, func() { cached = 0 }, func() {})
	put(before, 4)
	if cached != 0 {
		t.Fatal("the older version was put back")
	}
	after := p.Take("g:7")
	put(after, 5)
	if cached != 5 {
		t.Fatal("the new version was refused")
	}
	before.Release()
	after.Release()
	later := p.Take("g:7")
	if put(later, 4); cached != 4 {
		t.Fatal("nobody remembers a fence once all that was looked up before it is gone")
	}
	later.Release()
}

// A model of the whole: senders look up a version, cached or not, and append; a remover raises it, fences, and closes. Nothing
// that was checked against an older version is appended after the closing.
func TestPermits_NothingOldIsAppendedAfterTheFence(t *testing.T) {
	p := chat.NewPermits()
	var mu sync.Mutex
	cache, closed := uint64(0), uint64(0)
	var version atomic.Uint64
	version.Store(1)
	var all sync.WaitGroup
	stop := make(chan struct{})
	failed := make(chan string, 1)
	for range 8 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				permit := p.Take("d:1:2")
				mu.Lock()
				v := cache
				mu.Unlock()
				if v == 0 {
					v = version.Load()
					permit.Remember(v, func() { mu.Lock(); cache = v; mu.Unlock() })
				}
				mu.Lock() // the append
				if closed > v {
					select {
					case failed <- fmt.Sprintf("checked against %d, appended after the closing of %d", v, closed):
					default:
					}
				}
				mu.Unlock()
				permit.Release()
			}
		})
	}
	for range 2000 {
		v := version.Add(1)
		done := make(chan struct{})
		p.Fence("d:1:2", v, func() {
			mu.Lock()
			if cache < v {
				cache = 0
			}
			mu.Unlock()
		}, func() { close(done) })
		<-done
		mu.Lock()
		closed = v
		mu.Unlock()
	}
	close(stop)
	all.Wait()
	select {
	case f := <-failed:
		t.Fatal(f)
	default:
	}
}
