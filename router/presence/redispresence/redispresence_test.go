package redispresence

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/futurechat/future/router/presence"
	"github.com/futurechat/future/router/presence/presencetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// closedAddr is an address on loopback where nobody listens.
func closedAddr(t testing.TB) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return addr
}

func fixture(t *testing.T, s *Store) presencetest.Fixture {
	del := func(t *testing.T, keys ...string) {
		t.Helper()
		for _, key := range keys {
			if err := s.client.Del(t.Context(), key).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return presencetest.Fixture{
		Store:      s,
		Broken:     open(t, Options{Addrs: []string{closedAddr(t)}}),
		Wipe:       func(t *testing.T) { t.Helper(); del(t, keys(t, s)...) },
		LosePlaces: func(t *testing.T, user int64) { t.Helper(); del(t, s.placesKey(user)) },
		LoseRecents: func(t *testing.T, conversation string) {
			t.Helper()
			// One of the two keys is as good as both, and is the harder case. The one that is left must not matter.
			del(t, []string{s.messagesKey(conversation), s.recentsMetaKey(conversation)}[len(conversation)%2])
		},
		Advance: time.Sleep, // its server's clock is real
		TTL:     100 * time.Millisecond,
	}
}

// keys are all that begin with the store's prefix.
func keys(t *testing.T, s *Store) (all []string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	err := s.eachMaster(ctx, func(ctx context.Context, c redis.Cmdable) error {
		scan := c.Scan(ctx, 0, s.o.Prefix+"*", 1000).Iterator()
		for scan.Next(ctx) {
			all = append(all, scan.Val())
		}
		return scan.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// real gives a store on the server that FUTURE_TEST_REDIS names (several with commas: a cluster), under a prefix of its own.
func real(t *testing.T, addrs string) *Store {
	t.Helper()
	s := open(t, Options{Addrs: strings.Split(addrs, ","), Prefix: "test-" + rand.Text() + ":"})
	t.Cleanup(func() {
		for _, key := range keys(t, s) {
			if err := s.client.Del(context.WithoutCancel(t.Context()), key).Err(); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

func TestMiniredis_Conforms(t *testing.T) {
	presencetest.Run(t, func(t *testing.T) presencetest.Fixture {
		m := miniredis.RunT(t)
		f := fixture(t, open(t, Options{Addrs: []string{m.Addr()}}))
		f.Advance, f.TTL = m.FastForward, time.Minute
		return f
	})
}

func TestRealRedis_Conforms(t *testing.T) {
	addrs := os.Getenv("FUTURE_TEST_REDIS")
	if addrs == "" {
		t.Log("FUTURE_TEST_REDIS is not set: the suite ran on miniredis only")
		return
	}
	presencetest.Run(t, func(t *testing.T) presencetest.Fixture { return fixture(t, real(t, addrs)) })
}

// The script and Memory are the same.
func TestAppend_DoesWhatMemoryDoes(t *testing.T) {
	ctx := t.Context()
	s := open(t, Options{Addrs: []string{miniredis.RunT(t).Addr()}})
	if addrs := os.Getenv("FUTURE_TEST_REDIS"); addrs != "" {
		s = real(t, addrs)
	}
	for seed := range uint64(20) {
		m := presence.NewMemory(presence.MemoryOptions{})
		conv := fmt.Sprintf("d:1:%d", seed)
		rng := newRand(seed)
		for range 40 {
			var batch []presence.Recent
			seq := 1 + rng.Uint64N(60)
			for range 1 + rng.IntN(8) {
				batch = append(batch, presence.Recent{Conversation: conv, Seq: seq, Message: bytes.Repeat([]byte("x"), rng.IntN(4)*rng.IntN(3000))})
				seq += 1 + rng.Uint64N(3)
			}
			keep := rng.Uint64N(70)
			want, _, err := m.Append(ctx, batch, keep, "")
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := s.Append(ctx, batch, keep, "")
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: append of %v answers %v, want %v", seed, seqs(batch), got, want)
			}
			after, before, limit, forward := rng.Uint64N(70), rng.Uint64N(70), rng.IntN(12), rng.IntN(2) == 0
			wantPage, err := m.Page(ctx, conv, after, before, limit, forward)
			if err != nil {
				t.Fatal(err)
			}
			gotPage, err := s.Page(ctx, conv, after, before, limit, forward)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(gotPage) != fmt.Sprint(wantPage) {
				t.Fatalf("seed %d: page %d %d %d %v is\n%v, want\n%v", seed, after, before, limit, forward, gotPage, wantPage)
			}
		}
	}
}

func seqs(batch []presence.Recent) (all []uint64) {
	for _, m := range batch {
		all = append(all, m.Seq)
	}
	return all
}

func TestR32_KeysAreAsDocumented(t *testing.T) {
	m := miniredis.RunT(t)
	s := open(t, Options{Addrs: []string{m.Addr()}})
	ctx := t.Context()
	if ok, err := s.Acquire(ctx, presence.IncarnationLease("inc"), "inc", "h:1", 10*time.Second); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := s.Register(ctx, []presence.Entry{{User: 7, Place: presence.Place{Incarnation: "inc", Connection: 3, Device: "phone"}}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Append(ctx, []presence.Recent{{Conversation: "d:7:9", Seq: 12, Users: []int64{7}, Message: []byte("m")}}, 0, ""); err != nil {
		t.Fatal(err)
	}
	if got, err := m.Get("future:lease:node:inc"); got != "inc\nh:1" || err != nil {
		t.Errorf("lease is %q, %v", got, err)
	}
	if got := m.HGet("future:presence:{u:7}", "inc/3"); got != "phone" {
		t.Errorf("place is %q", got)
	}
	if got, err := m.ZMembers("future:recents:{d:7:9}"); err != nil || !slices.Equal(got, []string{"00000000000000000012:m"}) {
		t.Errorf("recents are %q, %v", got, err)
	}
	if got := m.HGet("future:recentsmeta:{d:7:9}", "newest"); got != "00000000000000000012" {
		t.Errorf("newest is %q", got)
	}
	if got, err := m.ZScore("future:uheads:{u:7}", "d:7:9"); got != 12 || err != nil {
		t.Errorf("head is %v, %v", got, err)
	}
	for key, want := range map[string][2]time.Duration{
		"future:lease:node:inc":      {9 * time.Second, 10 * time.Second},
		"future:presence:{u:7}":      {time.Hour, time.Hour},
		"future:recents:{d:7:9}":     {time.Hour, 2 * time.Hour},
		"future:recentsmeta:{d:7:9}": {time.Hour, 2 * time.Hour},
		"future:uheads:{u:7}":        {30 * 24 * time.Hour, 30 * 24 * time.Hour},
		"future:epoch":               {0, 0},
	} {
		if got := m.TTL(key); got < want[0] || got > want[1] {
			t.Errorf("%s lives for %v, want %v to %v", key, got, want[0], want[1])
		}
	}
	if m.TTL("future:recents:{d:7:9}") != m.TTL("future:recentsmeta:{d:7:9}") {
		t.Error("recents and what is known of them do not expire together")
	}
	m.FastForward(2 * time.Hour)
	if page, err := s.Page(ctx, "d:7:9", 0, 0, 10, true); err != nil || page.Newest != 0 {
		t.Errorf("after two hours there is %+v, %v", page, err)
	}
}

func TestLocate_SweepsWhatWasSeenDeadTwice(t *testing.T) {
	m := miniredis.RunT(t)
	s := open(t, Options{Addrs: []string{m.Addr()}})
	ctx := t.Context()
	locate := func() {
		t.Helper()
		if _, err := s.Locate(ctx, []int64{7}); err != nil {
			t.Fatal(err)
		}
	}
	fields := func(want ...string) {
		t.Helper()
		got, err := m.HKeys("future:presence:{u:7}")
		if err != nil {
			t.Fatal(err)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("fields %v, want %v", got, want)
		}
	}
	if ok, err := s.Acquire(ctx, presence.IncarnationLease("live"), "live", "h:1", time.Hour); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, incarnation := range []string{"live", "dead"} {
		if _, err := s.Register(ctx, []presence.Entry{{User: 7, Place: presence.Place{Incarnation: incarnation, Connection: 3}}}); err != nil {
			t.Fatal(err)
		}
	}
	locate()
	locate()
	fields("dead/3", "live/3")
	s.dead.mu.Lock()
	s.dead.since["dead"] = s.dead.since["dead"].Add(-deadFor)
	s.dead.mu.Unlock()
	locate()
	fields("live/3")
}

func TestDead_IsBounded(t *testing.T) {
	d, now := newDead(), time.Unix(1e9, 0)
	for i := range 3 * deadMost {
		if d.seen(fmt.Sprint(i), now) {
			t.Fatalf("%d was seen once", i)
		}
		if len(d.since) > deadMost {
			t.Fatalf("%d are remembered", len(d.since))
		}
	}
}

// A server that was started anew does not know the scripts.
func TestAppend_LoadsItsScript(t *testing.T) {
	m := miniredis.RunT(t)
	s := open(t, Options{Addrs: []string{m.Addr()}})
	for seq := uint64(1); seq < 4; seq++ {
		if _, _, err := s.Append(t.Context(), []presence.Recent{{Conversation: "d:1:2", Seq: seq}}, 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := s.client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestErrors(t *testing.T) {
	m := miniredis.RunT(t)
	s := open(t, Options{Addrs: []string{m.Addr()}})
	for answer, unavailable := range map[string]bool{
		"LOADING Redis is loading the dataset in memory": true, "OOM command not allowed": true, "READONLY You can't write": true,
		"ERR max number of clients reached": true, "WRONGTYPE Operation against a key": false, "NOPERM this user": false,
	} {
		m.SetError(answer)
		_, err := s.Epoch(t.Context())
		if err == nil || errors.Is(err, presence.ErrUnavailable) != unavailable {
			t.Errorf("%s: %v, unavailable: want %v", answer, err, unavailable)
		}
	}
	m.SetError("")
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Ping(ctx); !errors.Is(err, presence.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// A server that accepts and says nothing costs the timeouts and no more.
func TestSilentServer_IsUnavailableInTime(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := open(t, Options{Addrs: []string{l.Addr().String()}, DialTimeout: 50 * time.Millisecond, Timeout: 50 * time.Millisecond})
	began := time.Now()
	if _, err := s.Epoch(t.Context()); !errors.Is(err, presence.ErrUnavailable) {
		t.Errorf("%v is not ErrUnavailable", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	for _, o := range []Options{{}, {Addrs: []string{"h:1"}, Prefix: "{x}"}} {
		if s, err := New(o); err == nil {
			t.Errorf("%+v is taken", o)
			_ = s.Close()
		}
	}
}

func TestCheck_TellsThatKeysAreEvicted(t *testing.T) {
	addrs := os.Getenv("FUTURE_TEST_REDIS")
	if addrs == "" {
		s := open(t, Options{Addrs: []string{miniredis.RunT(t).Addr()}}) // does not tell its configuration
		if err := s.Check(t.Context()); err != nil {
			t.Error(err)
		}
		return
	}
	s := real(t, addrs)
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	// Nothing can be evicted by the few moments for which the limit is set: it is far above what is used.
	set := func(name, value string) {
		t.Helper()
		err := s.eachMaster(t.Context(), func(ctx context.Context, c redis.Cmdable) error { return c.ConfigSet(ctx, name, value).Err() })
		if err != nil {
			t.Fatal(err)
		}
	}
	set("maxmemory", "100gb")
	set("maxmemory-policy", "allkeys-lru")
	err := s.Check(t.Context())
	set("maxmemory-policy", "noeviction")
	if !errors.Is(err, ErrEvicts) {
		t.Errorf("a server that evicts: %v", err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	set("maxmemory", "0")
}
