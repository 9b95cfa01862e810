package redispresence

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/futurechat/future/router/presence"
)

func field(p presence.Place) string {
	return p.Incarnation + "/" + strconv.FormatUint(p.Connection, 10)
}

func parseField(name, device string) (presence.Place, bool) {
	incarnation, connection, ok := strings.Cut(name, "/")
	id, err := strconv.ParseUint(connection, 10, 64)
	if !ok || err != nil {
		return presence.Place{}, false
	}
	return presence.Place{Incarnation: incarnation, Connection: id, Device: device}, true
}

// entryKey is the hash that an entry is a field of.
func (s *Store) entryKey(e presence.Entry) string {
	if e.Group != 0 {
		return s.groupNodesKey(e.Group)
	}
	return s.placesKey(e.User)
}

// Register implements presence.Registry.
func (s *Store) Register(ctx context.Context, entries []presence.Entry) ([]bool, error) {
	pipe := s.client.Pipeline()
	sets := make([]*redis.IntCmd, len(entries))
	for i, e := range entries {
		key := s.entryKey(e)
		sets[i] = pipe.HSet(ctx, key, field(e.Place), e.Place.Device)
		pipe.PExpire(ctx, key, s.o.PlacesTTL)
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, wrap("register", err)
	}
	added := make([]bool, len(entries))
	for i, set := range sets {
		added[i] = set.Val() > 0
	}
	return added, nil
}

// Unregister implements presence.Registry.
func (s *Store) Unregister(ctx context.Context, entries []presence.Entry) error {
	pipe := s.client.Pipeline()
	for _, e := range entries {
		pipe.HDel(ctx, s.entryKey(e), field(e.Place))
	}
	return wrap("unregister", exec(ctx, pipe))
}

// Locate implements presence.Registry.
func (s *Store) Locate(ctx context.Context, users []int64) ([][]presence.Place, error) {
	places, _, err := s.LocateGroups(ctx, users, nil)
	return places, err
}

// LocateGroups implements presence.Registry. One round trip brings the hashes and the leases of the incarnations that had one when
// they were last seen: a cluster has few. A second is needed only for the leases of others in the hashes.
func (s *Store) LocateGroups(ctx context.Context, users, groups []int64) (places, nodes [][]presence.Place, err error) {
	keys := make([]string, 0, len(users)+len(groups))
	for _, id := range users {
		keys = append(keys, s.placesKey(id))
	}
	for _, id := range groups {
		keys = append(keys, s.groupNodesKey(id))
	}
	all, err := s.locate(ctx, keys)
	if err != nil {
		return nil, nil, err
	}
	return all[:len(users):len(users)], all[len(users):], nil
}

func (s *Store) locate(ctx context.Context, keys []string) ([][]presence.Place, error) {
	pipe := s.client.Pipeline()
	hashes := make([]*redis.MapStringStringCmd, len(keys))
	for i, key := range keys {
		hashes[i] = pipe.HGetAll(ctx, key)
	}
	leases := make(map[string]*redis.StringCmd)
	for _, incarnation := range s.held.all() {
		leases[incarnation] = pipe.Get(ctx, s.leaseKey(presence.IncarnationLease(incarnation)))
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, wrap("locate", err)
	}
	places := make([][]presence.Place, len(keys))
	for i, hash := range hashes {
		for name, device := range hash.Val() {
			p, ok := parseField(name, device)
			if !ok {
				continue
			}
			places[i] = append(places[i], p)
			if leases[p.Incarnation] == nil {
				leases[p.Incarnation] = pipe.Get(ctx, s.leaseKey(presence.IncarnationLease(p.Incarnation)))
			}
		}
	}
	if pipe.Len() > 0 {
		if err := exec(ctx, pipe); err != nil {
			return nil, wrap("locate: leases", err)
		}
	}
	for incarnation, lease := range leases {
		_, _, held := splitLease(lease.Val())
		s.held.note(incarnation, held)
	}
	s.sweep(ctx, places, keys, leases)
	for i, all := range places {
		live := all[:0]
		for _, p := range all {
			if _, addr, held := splitLease(leases[p.Incarnation].Val()); held {
				p.Addr = addr
				live = append(live, p)
			}
		}
		slices.SortFunc(live, func(a, b presence.Place) int {
			return cmp.Or(cmp.Compare(a.Incarnation, b.Incarnation), cmp.Compare(a.Connection, b.Connection))
		})
		places[i] = live
	}
	return places, nil
}

// sweep removes places of incarnations that are dead for certain. presence.Keeper asks once for an incarnation's lease and
// writes entries only after the answer, so one that was seen without lease stays without. That a request could still be
// on its way, repeated by a cluster client, is what the time between two looks is for.
func (s *Store) sweep(ctx context.Context, places [][]presence.Place, keys []string, leases map[string]*redis.StringCmd) {
	var swept map[string]bool
	for incarnation, lease := range leases {
		if lease.Val() == "" && s.dead.seen(incarnation, time.Now()) {
			if swept == nil {
				swept = make(map[string]bool)
			}
			swept[incarnation] = true
		}
	}
	if swept == nil {
		return
	}
	pipe := s.client.Pipeline()
	for i, all := range places {
		for _, p := range all {
			if swept[p.Incarnation] {
				pipe.HDel(ctx, keys[i], field(p))
			}
		}
	}
	removed := pipe.Len()
	if err := exec(ctx, pipe); err != nil {
		s.log.Debug("places of dead nodes stay for now", zap.Error(err)) // they are left out, and found again
		return
	}
	s.log.Debug("places of dead nodes removed", zap.Int("places", removed))
}

const (
	deadFor  = time.Minute
	deadMost = 1024
)

// dead remembers which incarnations were seen without lease, and when first.
type dead struct {
	mu    sync.Mutex
	since map[string]time.Time
}

func newDead() *dead { return &dead{since: make(map[string]time.Time)} }

// seen reports whether an incarnation that is seen dead now was seen so at least deadFor ago.
func (d *dead) seen(incarnation string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	first, ok := d.since[incarnation]
	if ok {
		return now.Sub(first) >= deadFor
	}
	if len(d.since) >= deadMost {
		// Whole: at the rate at which nodes start, it takes days to come here, and what still matters is soon known again.
		clear(d.since)
	}
	d.since[incarnation] = now
	return false
}

// ---- leases: "owner\nvalue"

func splitLease(v string) (owner, value string, held bool) {
	owner, value, held = strings.Cut(v, "\n")
	return owner, value, held
}

var acquireScript = redis.NewScript(`
local v = redis.call('GET', KEYS[1])
if v and string.sub(v, 1, #ARGV[1] + 1) ~= ARGV[1] .. '\n' then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. '\n' .. ARGV[2], 'PX', ARGV[3])
return 1`)

var renewScript = redis.NewScript(`
local v = redis.call('GET', KEYS[1])
if not v or string.sub(v, 1, #ARGV[1] + 1) ~= ARGV[1] .. '\n' then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])`)

var releaseScript = redis.NewScript(`
local v = redis.call('GET', KEYS[1])
if not v or string.sub(v, 1, #ARGV[1] + 1) ~= ARGV[1] .. '\n' then return 0 end
return redis.call('DEL', KEYS[1])`)

// Acquire implements presence.Leases.
func (s *Store) Acquire(ctx context.Context, name, owner, value string, ttl time.Duration) (bool, error) {
	if err := s.list(ctx, name); err != nil {
		return false, err
	}
	return s.lease(ctx, "acquire", acquireScript, name, owner, value, ttl.Milliseconds())
}

// Renew implements presence.Leases.
func (s *Store) Renew(ctx context.Context, name, owner string, ttl time.Duration) (bool, error) {
	if err := s.list(ctx, name); err != nil {
		return false, err
	}
	return s.lease(ctx, "renew", renewScript, name, owner, ttl.Milliseconds())
}

// Release implements presence.Leases.
func (s *Store) Release(ctx context.Context, name, owner string) error {
	_, err := s.lease(ctx, "release", releaseScript, name, owner)
	return err
}

func (s *Store) lease(ctx context.Context, op string, script *redis.Script, name string, args ...any) (bool, error) {
	n, err := script.Run(ctx, s.client, []string{s.leaseKey(name)}, args...).Int()
	if err != nil {
		return false, wrap(op+" "+name, err)
	}
	return n == 1, nil
}

// Owners implements presence.LeaseSets.
func (s *Store) Owners(ctx context.Context, names []string) ([]string, error) {
	pipe := s.client.Pipeline()
	values := make([]*redis.StringCmd, len(names))
	for i, name := range names {
		values[i] = pipe.Get(ctx, s.leaseKey(name))
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, wrap("owners", err)
	}
	owners := make([]string, len(names))
	for i, v := range values {
		owners[i], _, _ = splitLease(v.Val())
	}
	return owners, nil
}

// AcquireEach implements presence.LeaseSets.
func (s *Store) AcquireEach(ctx context.Context, names []string, owner, value string, ttl time.Duration) ([]bool, error) {
	return s.leases(ctx, "acquire", acquireScript, names, owner, value, ttl.Milliseconds())
}

// RenewEach implements presence.LeaseSets.
func (s *Store) RenewEach(ctx context.Context, names []string, owner string, ttl time.Duration) ([]bool, error) {
	return s.leases(ctx, "renew", renewScript, names, owner, ttl.Milliseconds())
}

func (s *Store) leases(ctx context.Context, op string, script *redis.Script, names []string, args ...any) ([]bool, error) {
	done := make([]bool, len(names))
	err := s.scripted(ctx, script, func() error {
		pipe := s.client.Pipeline()
		answers := make([]*redis.Cmd, len(names))
		for i, name := range names {
			answers[i] = script.EvalSha(ctx, pipe, []string{s.leaseKey(name)}, args...)
		}
		if err := exec(ctx, pipe); err != nil {
			return err
		}
		for i, a := range answers {
			n, err := a.Int()
			if err != nil {
				return err
			}
			done[i] = n == 1
		}
		return nil
	})
	if err != nil {
		return nil, wrap(fmt.Sprintf("%s %d leases", op, len(names)), err)
	}
	return done, nil
}

// list puts an incarnation among those that Lives looks at, before it has its lease and again with each renewal: who has a lease is
// listed.
func (s *Store) list(ctx context.Context, name string) error {
	incarnation, ok := presence.LeasedIncarnation(name)
	if !ok {
		return nil
	}
	return wrap("list "+name, s.client.SAdd(ctx, s.nodesKey(), incarnation).Err())
}

// Lives implements presence.Lives.
func (s *Store) Lives(ctx context.Context) ([]presence.Life, error) {
	listed, err := s.client.SMembers(ctx, s.nodesKey()).Result()
	if err != nil {
		return nil, wrap("lives", err)
	}
	slices.Sort(listed)
	pipe := s.client.Pipeline()
	leases, revoked := make([]*redis.StringCmd, len(listed)), make([]*redis.StringCmd, len(listed))
	for i, incarnation := range listed {
		leases[i] = pipe.Get(ctx, s.leaseKey(presence.IncarnationLease(incarnation)))
		revoked[i] = pipe.Get(ctx, s.leaseKey(presence.RevokedLease(incarnation)))
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, wrap("lives: leases", err)
	}
	var lives []presence.Life
	var gone []any
	for i, incarnation := range listed {
		_, addr, held := splitLease(leases[i].Val())
		switch {
		case held:
			lives = append(lives, presence.Life{Incarnation: incarnation, Addr: addr})
		case revoked[i].Val() != "":
			lives = append(lives, presence.Life{Incarnation: incarnation, Revoked: true})
		case s.dead.seen(incarnation, time.Now()): // as in sweep
			gone = append(gone, incarnation)
		}
	}
	if len(gone) > 0 {
		if err := s.client.SRem(ctx, s.nodesKey(), gone...).Err(); err != nil {
			s.log.Debug("dead nodes stay listed for now", zap.Error(err))
		}
	}
	return lives, nil
}

// revoking is how long a revocation is noted before the lease is gone for certain: far longer than a command may be on its way.
const revoking = time.Minute

// Revoke implements presence.Lives. The note is there before the lease is gone, and its time counts only from then on: so whoever
// looks in between sees the one or the other.
func (s *Store) Revoke(ctx context.Context, incarnation string, stay time.Duration) error {
	note := presence.RevokedLease(incarnation)
	if _, err := s.Acquire(ctx, note, incarnation, "", max(revoking, stay)); err != nil {
		return err
	}
	if err := s.Release(ctx, presence.IncarnationLease(incarnation), incarnation); err != nil {
		return err
	}
	_, err := s.Acquire(ctx, note, incarnation, "", stay)
	return err
}

// incarnations is a set of those seen with a lease.
type incarnations struct {
	mu  sync.Mutex
	set map[string]bool
}

func (i *incarnations) all() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Collect(maps.Keys(i.set))
}

func (i *incarnations) note(incarnation string, held bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if held {
		i.set[incarnation] = true
	} else {
		delete(i.set, incarnation)
	}
}
