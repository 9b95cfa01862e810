package presence

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Op names a call of the store at which a fault can be injected.
type Op string

// The calls that MemoryOptions.Fault is asked about, before anything is done. MemoryOptions.Lost is asked about the same ones
// after it was done, so that only the answer is lost.
const (
	OpRegister   Op = "register"
	OpUnregister Op = "unregister"
	OpLocate     Op = "locate"
	OpEpoch      Op = "epoch"
	OpAcquire    Op = "acquire"
	OpOwners     Op = "owners"
	OpRenew      Op = "renew"
	OpRelease    Op = "release"
	OpLives      Op = "lives"
	OpRevoke     Op = "revoke"
	OpAppend     Op = "append"
	OpPage       Op = "page"
	OpHeads      Op = "heads"
	OpNewest     Op = "newest"
	OpTail       Op = "tail"
	OpRaiseTails Op = "raise tails"
)

// MemoryOptions configure a Memory. The zero value is usable.
type MemoryOptions struct {
	// Now is the store's clock, by which leases and recents expire. Default time.Now.
	Now func() time.Time
	// Fault is asked before each call; a non-nil error, which should be ErrUnavailable, makes it fail with nothing done. It must
	// not call the store.
	Fault func(Op) error
	// Lost is asked after each call that changes something; a non-nil error is answered instead of the result.
	Lost func(Op) error
	// RecentsTTL is how long recents are kept after the last append. Default 1 h.
	RecentsTTL time.Duration
}

// Memory is a Store in memory: deterministic, lost with the process. It must be made by NewMemory.
type Memory struct {
	opts MemoryOptions // set at start

	mu      sync.Mutex
	epochs  int
	epoch   string // "" until it is asked for
	places  map[holder][]Place
	leases  map[string]memLease
	recents map[string]*memRecents
	heads   map[int64]map[string]uint64
	tails   map[tailOf]Tail
}

// tailOf is whose tail it is: of a partition, in a life of the stored data.
type tailOf struct{ partition, epoch string }

// holder is who has places: a user, or a group.
type holder struct{ user, group int64 }

func (e Entry) holder() holder { return holder{e.User, e.Group} }

type memLease struct {
	owner, value string
	until        time.Time
}

type memRecents struct {
	stretch
	until time.Time
}

var _ Store = (*Memory)(nil)

// NewMemory makes an empty store.
func NewMemory(opts MemoryOptions) *Memory {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Fault == nil {
		opts.Fault = func(Op) error { return nil }
	}
	if opts.Lost == nil {
		opts.Lost = func(Op) error { return nil }
	}
	opts.RecentsTTL = cmp.Or(opts.RecentsTTL, time.Hour)
	m := &Memory{opts: opts}
	m.Wipe()
	return m
}

// Wipe loses everything: the epoch is another one then.
func (m *Memory) Wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch = ""
	m.places = make(map[holder][]Place)
	m.leases = make(map[string]memLease)
	m.recents = make(map[string]*memRecents)
	m.heads = make(map[int64]map[string]uint64)
	m.tails = make(map[tailOf]Tail)
}

// LosePlaces loses all places of a user. The epoch stays, as with each partial loss.
func (m *Memory) LosePlaces(user int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.places, holder{user: user})
}

// LoseGroup loses which incarnations have members of a group.
func (m *Memory) LoseGroup(group int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.places, holder{group: group})
}

// LoseLease loses a lease.
func (m *Memory) LoseLease(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.leases, name)
}

// LoseRecents loses a conversation's recents.
func (m *Memory) LoseRecents(conversation string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.recents, conversation)
}

// FailOver is a replica taking over that lacks the last writes: the epoch is another one, so no recents count, and some users' places and
// heads are lost. Leases stay.
func (m *Memory) FailOver(lost ...int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch = ""
	m.recents = make(map[string]*memRecents)
	for _, user := range lost {
		delete(m.places, holder{user: user})
		delete(m.heads, user)
	}
}

// Live gives all entries whose incarnation has its lease, in no order: for tests to look at.
func (m *Memory) Live() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	var live []Entry
	for h := range m.places {
		for _, p := range m.locateLocked(h) {
			live = append(live, Entry{User: h.user, Group: h.group, Place: p})
		}
	}
	return live
}

func (m *Memory) begin(ctx context.Context, op Op) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnavailable, op, err)
	}
	return m.opts.Fault(op)
}

// Register implements Registry.
func (m *Memory) Register(ctx context.Context, entries []Entry) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpRegister); err != nil {
		return nil, err
	}
	added := make([]bool, len(entries))
	for i, e := range entries {
		e.Place.Addr = ""
		at := m.findLocked(e)
		if added[i] = at < 0; added[i] {
			m.places[e.holder()] = append(m.places[e.holder()], e.Place)
		} else {
			m.places[e.holder()][at] = e.Place
		}
	}
	if err := m.opts.Lost(OpRegister); err != nil {
		return nil, err
	}
	return added, nil
}

func (m *Memory) findLocked(e Entry) int {
	for i, p := range m.places[e.holder()] {
		if p.Incarnation == e.Place.Incarnation && p.Connection == e.Place.Connection {
			return i
		}
	}
	return -1
}

// Unregister implements Registry.
func (m *Memory) Unregister(ctx context.Context, entries []Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpUnregister); err != nil {
		return err
	}
	for _, e := range entries {
		if at := m.findLocked(e); at >= 0 {
			places := m.places[e.holder()]
			m.places[e.holder()] = append(places[:at:at], places[at+1:]...)
		}
	}
	return m.opts.Lost(OpUnregister)
}

// Locate implements Registry.
func (m *Memory) Locate(ctx context.Context, users []int64) ([][]Place, error) {
	places, _, err := m.LocateGroups(ctx, users, nil)
	return places, err
}

// LocateGroups implements Registry.
func (m *Memory) LocateGroups(ctx context.Context, users, groups []int64) (places, nodes [][]Place, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpLocate); err != nil {
		return nil, nil, err
	}
	places, nodes = make([][]Place, len(users)), make([][]Place, len(groups))
	for i, user := range users {
		places[i] = m.locateLocked(holder{user: user})
	}
	for i, group := range groups {
		nodes[i] = m.locateLocked(holder{group: group})
	}
	return places, nodes, nil
}

func (m *Memory) locateLocked(h holder) (live []Place) {
	for _, p := range m.places[h] {
		if l, ok := m.leaseLocked(IncarnationLease(p.Incarnation)); ok {
			p.Addr = l.value
			live = append(live, p)
		}
	}
	return live
}

// Epoch implements Registry.
func (m *Memory) Epoch(ctx context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpEpoch); err != nil {
		return "", err
	}
	return m.epochLocked(), nil
}

func (m *Memory) epochLocked() string {
	if m.epoch == "" {
		m.epochs++
		m.epoch = fmt.Sprintf("memory-%d", m.epochs)
	}
	return m.epoch
}

func (m *Memory) leaseLocked(name string) (memLease, bool) {
	l, ok := m.leases[name]
	if !ok || !m.opts.Now().Before(l.until) {
		return memLease{}, false
	}
	return l, true
}

// Acquire implements Leases.
func (m *Memory) Acquire(ctx context.Context, name, owner, value string, ttl time.Duration) (bool, error) {
	return one(m.AcquireEach(ctx, []string{name}, owner, value, ttl))
}

// Renew implements Leases.
func (m *Memory) Renew(ctx context.Context, name, owner string, ttl time.Duration) (bool, error) {
	return one(m.RenewEach(ctx, []string{name}, owner, ttl))
}

func one(each []bool, err error) (bool, error) { return err == nil && each[0], err }

// AcquireEach implements LeaseSets.
func (m *Memory) AcquireEach(ctx context.Context, names []string, owner, value string, ttl time.Duration) ([]bool, error) {
	return m.eachLease(ctx, OpAcquire, names, func(l *memLease) bool {
		if l.owner != "" && l.owner != owner {
			return false
		}
		*l = memLease{owner, value, m.opts.Now().Add(ttl)}
		return true
	})
}

// RenewEach implements LeaseSets.
func (m *Memory) RenewEach(ctx context.Context, names []string, owner string, ttl time.Duration) ([]bool, error) {
	return m.eachLease(ctx, OpRenew, names, func(l *memLease) bool {
		if l.owner != owner {
			return false
		}
		l.until = m.opts.Now().Add(ttl)
		return true
	})
}

// eachLease lets f change leases; a lease that nobody has is the zero one.
func (m *Memory) eachLease(ctx context.Context, op Op, names []string, f func(*memLease) bool) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, op); err != nil {
		return nil, err
	}
	done := make([]bool, len(names))
	for i, name := range names {
		l, _ := m.leaseLocked(name)
		if done[i] = f(&l); done[i] {
			m.leases[name] = l
		}
	}
	if err := m.opts.Lost(op); err != nil {
		return nil, err
	}
	return done, nil
}

// Owners implements LeaseSets.
func (m *Memory) Owners(ctx context.Context, names []string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpOwners); err != nil {
		return nil, err
	}
	owners := make([]string, len(names))
	for i, name := range names {
		l, _ := m.leaseLocked(name)
		owners[i] = l.owner
	}
	return owners, nil
}

// Release implements Leases.
func (m *Memory) Release(ctx context.Context, name, owner string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpRelease); err != nil {
		return err
	}
	if m.leases[name].owner == owner {
		delete(m.leases, name)
	}
	return m.opts.Lost(OpRelease)
}

// Lives implements Lives.
func (m *Memory) Lives(ctx context.Context) ([]Life, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpLives); err != nil {
		return nil, err
	}
	var lives []Life
	for _, name := range slices.Sorted(maps.Keys(m.leases)) {
		l, held := m.leaseLocked(name)
		if !held {
			continue
		}
		if incarnation, ok := LeasedIncarnation(name); ok {
			lives = append(lives, Life{Incarnation: incarnation, Addr: l.value})
		} else if _, live := m.leaseLocked(IncarnationLease(l.owner)); !live && name == RevokedLease(l.owner) {
			lives = append(lives, Life{Incarnation: l.owner, Revoked: true})
		}
	}
	slices.SortFunc(lives, func(a, b Life) int { return strings.Compare(a.Incarnation, b.Incarnation) })
	return lives, nil
}

// Revoke implements Lives.
func (m *Memory) Revoke(ctx context.Context, incarnation string, stay time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpRevoke); err != nil {
		return err
	}
	delete(m.leases, IncarnationLease(incarnation))
	m.leases[RevokedLease(incarnation)] = memLease{owner: incarnation, until: m.opts.Now().Add(stay)}
	return m.opts.Lost(OpRevoke)
}

// Append implements Recents.
func (m *Memory) Append(ctx context.Context, messages []Recent, keepAbove uint64, epoch string) ([]Prev, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpAppend); err != nil {
		return nil, "", err
	}
	if err := CheckRecents(messages); err != nil {
		return nil, "", err
	}
	prevs := make([]Prev, len(messages))
	if now := m.epochLocked(); epoch != "" && epoch != now {
		return prevs, now, nil
	}
	for _, run := range Runs(messages) {
		entries := make([]RecentMessage, len(run.At))
		for i, at := range run.At {
			entries[i] = RecentMessage{messages[at].Seq, bytes.Clone(messages[at].Message)}
		}
		r := m.recentsLocked(run.Conversation)
		for i, prev := range r.add(entries, MaxRecents(run.Conversation), keepAbove) {
			prevs[run.At[i]] = prev
		}
		r.until = m.opts.Now().Add(m.opts.RecentsTTL)
	}
	for _, msg := range messages {
		for _, user := range msg.Users {
			if m.heads[user] == nil {
				m.heads[user] = make(map[string]uint64)
			}
			m.heads[user][msg.Conversation] = max(m.heads[user][msg.Conversation], msg.Seq)
		}
	}
	if err := m.opts.Lost(OpAppend); err != nil {
		return nil, "", err
	}
	return prevs, m.epochLocked(), nil
}

// recentsLocked gives the recents of a conversation, made if they are not there or have expired.
func (m *Memory) recentsLocked(conversation string) *memRecents {
	r := m.recents[conversation]
	if r == nil || !m.opts.Now().Before(r.until) {
		r = &memRecents{}
		m.recents[conversation] = r
	}
	return r
}

// Page implements Recents.
func (m *Memory) Page(ctx context.Context, conversation string, after, before uint64, limit int, forward bool) (Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpPage); err != nil {
		return Page{}, err
	}
	r := m.recents[conversation]
	if r == nil || !m.opts.Now().Before(r.until) {
		return Page{}, nil
	}
	return r.page(after, before, limit, forward), nil
}

// Newest implements Recents.
func (m *Memory) Newest(ctx context.Context, conversations []string) (map[string]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpNewest); err != nil {
		return nil, err
	}
	newest := make(map[string]uint64)
	for _, c := range conversations {
		if r := m.recents[c]; r != nil && m.opts.Now().Before(r.until) && len(r.entries) > 0 {
			newest[c] = r.newest()
		}
	}
	return newest, nil
}

// Heads implements Recents.
func (m *Memory) Heads(ctx context.Context, user int64) (map[string]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpHeads); err != nil {
		return nil, err
	}
	heads := maps.Clone(m.heads[user])
	if heads == nil {
		heads = make(map[string]uint64)
	}
	return heads, nil
}

// Tail implements Tails.
func (m *Memory) Tail(ctx context.Context, t Tail) (Tail, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpTail); err != nil {
		return Tail{}, err
	}
	of := tailOf{t.Partition, t.Epoch}
	if _, ok := m.tails[of]; !ok {
		m.tails[of] = t
	}
	if err := m.opts.Lost(OpTail); err != nil {
		return Tail{}, err
	}
	return m.tails[of], nil
}

// RaiseTails implements Tails.
func (m *Memory) RaiseTails(ctx context.Context, tails []Tail) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, OpRaiseTails); err != nil {
		return err
	}
	for _, t := range tails {
		of := tailOf{t.Partition, t.Epoch}
		if is, ok := m.tails[of]; ok {
			t.Offset, t.Again = max(t.Offset, is.Offset), is.Again
		}
		m.tails[of] = t
	}
	return m.opts.Lost(OpRaiseTails)
}
