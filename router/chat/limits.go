package chat

import (
	"net/netip"
	"sync"
	"time"
)

// maxAttemptKeys bounds the table of attempts. A new key costs whoever makes it a password to be hashed, so pushing one out
// takes half as many hashes: longer than its bucket takes to fill by itself.
const maxAttemptKeys = 1 << 16

// attempts are token buckets by key. Only those that are not full are kept, and of these only the last used.
type attempts struct {
	burst time.Duration // a bucket is a time: how long it takes to fill
	every time.Duration

	mu    sync.Mutex
	empty generations[string, time.Time] // when the bucket will be full again
}

func newAttempts(burst int, every time.Duration, most int) *attempts {
	return &attempts{burst: time.Duration(burst) * every, every: every, empty: newGenerations[string, time.Time](most)}
}

// take takes a token, or says how long until there is one.
func (a *attempts) take(now time.Time, key string) (wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	full, ok := a.empty.get(key)
	if !ok || full.Before(now) {
		full = now
	}
	full = full.Add(a.every)
	if wait := full.Sub(now) - a.burst; wait > 0 {
		return wait
	}
	a.empty.put(key, full)
	return 0
}

// giveBack returns a token that take gave.
func (a *attempts) giveBack(now time.Time, key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	full, ok := a.empty.get(key)
	if full = full.Add(-a.every); !ok || !full.After(now) {
		a.empty.drop(key)
		return
	}
	a.empty.put(key, full)
}

// attemptKey is a name and an address. Of IPv6 the first 64 bits count: who has one address there has them all.
func attemptKey(name, addr string) string {
	const v6 = 64
	at, err := netip.ParseAddr(addr)
	if err != nil {
		if with, err := netip.ParseAddrPort(addr); err == nil {
			at = with.Addr()
		}
	}
	switch at = at.Unmap(); {
	case !at.IsValid():
		return name + "\x00" + addr
	case at.Is6():
		if p, err := at.WithZone("").Prefix(v6); err == nil {
			return name + "\x00" + p.String()
		}
	}
	return name + "\x00" + at.String()
}

// generations is a map that keeps what was used last: between half of most and most entries.
type generations[K comparable, V any] struct {
	most          int
	recent, older map[K]V
}

func newGenerations[K comparable, V any](most int) generations[K, V] {
	return generations[K, V]{most: most, recent: map[K]V{}}
}

func (g *generations[K, V]) get(k K) (V, bool) {
	if v, ok := g.recent[k]; ok {
		return v, true
	}
	v, ok := g.older[k]
	return v, ok
}

func (g *generations[K, V]) put(k K, v V) {
	if _, ok := g.recent[k]; !ok && len(g.recent) >= max(g.most/2, 1) {
		g.recent, g.older = map[K]V{}, g.recent
	}
	g.recent[k] = v
}

func (g *generations[K, V]) drop(k K) {
	delete(g.recent, k)
	delete(g.older, k)
}

func (g *generations[K, V]) clear() { g.recent, g.older = map[K]V{}, nil }
