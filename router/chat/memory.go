package chat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/eventlog"
)

// Op names a method of the memory store at which a fault can be injected.
type Op string

// The operations that MemoryOptions.Fault is asked about, one a method of Store.
const (
	OpCreateAccount   Op = "CreateAccount"
	OpAccountByName   Op = "AccountByName"
	OpSetPasswordHash Op = "SetPasswordHash"
	OpCreateSession   Op = "CreateSession"
	OpSessionByToken  Op = "SessionByToken"
	OpEndSession      Op = "EndSession"
	OpPair            Op = "Pair"
	OpPairs           Op = "Pairs"
	OpCountPairs      Op = "CountPairs"
	OpChangePair      Op = "ChangePair"
	OpUnsent          Op = "Unsent"
	OpSent            Op = "Sent"
	OpMessages        Op = "Messages"
	OpFindMessage     Op = "FindMessage"
	OpLastMessages    Op = "LastMessages"
	OpHeads           Op = "Heads"
	OpHead            Op = "Head"
	OpMarkRead        Op = "MarkRead"
	OpWriteBatch      Op = "WriteBatch"
	OpHistoryOffsets  Op = "HistoryOffsets"
	OpLogState        Op = "LogState"
	OpSaveLogState    Op = "SaveLogState"
	OpNextRouterEpoch Op = "NextRouterEpoch"
)

// Answer is the moment when a change has been committed but not yet answered: a fault there loses the answer alone.
func (o Op) Answer() Op { return o + ".answer" }

// MemoryOptions configure a Memory. The zero value is usable.
type MemoryOptions struct {
	// Fault is asked before each operation, and once more at Op.Answer after one that changes something; a non-nil error makes
	// the operation fail with it. It must not call the store.
	Fault func(op Op) error
}

// Memory is a Store in memory: deterministic (ids count from 1, all orders are fixed), lost with the process. It has no clock:
// all times are given to it.
type Memory struct {
	fault func(op Op) error // set at start

	mu       sync.Mutex
	accounts []Account // by id-1
	sessions map[int64]memSession
	lastID   int64 // of sessions
	pairs    map[[2]int64]Pair
	outbox   []Outgoing // by id
	lastOut  int64
	groups   []*memGroup // by id-1
	talks    map[string]*memTalk
	closings Closings
	cursors  map[memReader]memCursor
	offsets  map[memPartition]int64
	dead     map[string][]DeadRecord // by topic
	states   map[string]eventlog.State
	epochs   map[memPartition]uint64
}

type memSession struct {
	Session
	token TokenHash
}

type memPartition struct {
	topic     string
	partition int32
}

type memReader struct {
	user         int64
	conversation string
}

type memCursor struct {
	seq    uint64
	n, own int
}

// memTalk is a conversation. The n of a message is its index plus 1.
type memTalk struct {
	messages []*pb.Message
	sent     map[int64]int
	byID     map[Identity]*pb.Message
	changes  map[uint64]uint64 // of a group: version → where its notice stands
}

var _ Store = (*Memory)(nil)

// NewMemory makes an empty store.
func NewMemory(opts MemoryOptions) *Memory {
	if opts.Fault == nil {
		opts.Fault = func(Op) error { return nil }
	}
	return &Memory{
		fault:    opts.Fault,
		sessions: map[int64]memSession{},
		pairs:    map[[2]int64]Pair{},
		talks:    map[string]*memTalk{},
		closings: Closings{},
		cursors:  map[memReader]memCursor{},
		offsets:  map[memPartition]int64{},
		dead:     map[string][]DeadRecord{},
		states:   map[string]eventlog.State{},
		epochs:   map[memPartition]uint64{},
	}
}

// enter is what every operation begins with; it takes the lock if it returns nil.
func (m *Memory) enter(ctx context.Context, op Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := m.fault(op); err != nil {
		return err
	}
	m.mu.Lock()
	return nil
}

// CreateAccount implements Store.
func (m *Memory) CreateAccount(ctx context.Context, a Account) (Account, error) {
	if err := m.enter(ctx, OpCreateAccount); err != nil {
		return Account{}, err
	}
	defer m.mu.Unlock()
	if m.findLocked(a.Name) != nil {
		return Account{}, fmt.Errorf("create account: %w", ErrNameTaken)
	}
	a.ID = int64(len(m.accounts) + 1)
	m.accounts = append(m.accounts, a)
	return a, m.fault(OpCreateAccount.Answer())
}

func (m *Memory) findLocked(name string) *Account {
	for i := range m.accounts {
		if m.accounts[i].Name == name {
			return &m.accounts[i]
		}
	}
	return nil
}

// accountLocked gives what is known of an account: perhaps only its id.
func (m *Memory) accountLocked(id int64) Account {
	if id < 1 || id > int64(len(m.accounts)) {
		return Account{ID: id}
	}
	return m.accounts[id-1]
}

// AccountByName implements Store.
func (m *Memory) AccountByName(ctx context.Context, name string) (Account, error) {
	if err := m.enter(ctx, OpAccountByName); err != nil {
		return Account{}, err
	}
	defer m.mu.Unlock()
	a := m.findLocked(name)
	if a == nil {
		return Account{}, fmt.Errorf("account by name: %w", ErrNotFound)
	}
	return *a, nil
}

// SetPasswordHash implements Store.
func (m *Memory) SetPasswordHash(ctx context.Context, account int64, old, hash string) error {
	if err := m.enter(ctx, OpSetPasswordHash); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.accountLocked(account).PasswordHash == old && account <= int64(len(m.accounts)) && account > 0 {
		m.accounts[account-1].PasswordHash = hash
	}
	return m.fault(OpSetPasswordHash.Answer())
}

// CreateSession implements Store.
func (m *Memory) CreateSession(ctx context.Context, s Session, token TokenHash) (Session, error) {
	if err := m.enter(ctx, OpCreateSession); err != nil {
		return Session{}, err
	}
	defer m.mu.Unlock()
	maps.DeleteFunc(m.sessions, func(_ int64, old memSession) bool {
		return old.Account.ID == s.Account.ID && old.DeviceID == s.DeviceID
	})
	m.lastID++
	s.ID = m.lastID
	m.sessions[s.ID] = memSession{s, token}
	return s, m.fault(OpCreateSession.Answer())
}

// SessionByToken implements Store.
func (m *Memory) SessionByToken(ctx context.Context, token TokenHash) (Session, error) {
	if err := m.enter(ctx, OpSessionByToken); err != nil {
		return Session{}, err
	}
	defer m.mu.Unlock()
	for _, s := range m.sessions {
		if s.token == token {
			s.Account = m.accountLocked(s.Account.ID)
			return s.Session, nil
		}
	}
	return Session{}, fmt.Errorf("session by token: %w", ErrNotFound)
}

// EndSession implements Store.
func (m *Memory) EndSession(ctx context.Context, id int64) error {
	if err := m.enter(ctx, OpEndSession); err != nil {
		return err
	}
	defer m.mu.Unlock()
	delete(m.sessions, id)
	return m.fault(OpEndSession.Answer())
}

// Pair implements Store.
func (m *Memory) Pair(ctx context.Context, a, b int64) (Pair, error) {
	if err := m.enter(ctx, OpPair); err != nil {
		return Pair{}, err
	}
	defer m.mu.Unlock()
	return m.pairLocked(min(a, b), max(a, b)), nil
}

func (m *Memory) pairLocked(lo, hi int64) Pair {
	p := m.pairs[[2]int64{lo, hi}]
	a, b := m.accountLocked(lo), m.accountLocked(hi)
	p.Lo, p.Hi = Account{ID: lo, Name: a.Name}, Account{ID: hi, Name: b.Name}
	return p
}

// Pairs implements Store.
func (m *Memory) Pairs(ctx context.Context, user int64, limit int) ([]Pair, error) {
	if err := m.enter(ctx, OpPairs); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	all := m.pairsLocked(user)
	slices.SortFunc(all, func(a, b Pair) int { return strings.Compare(a.Other(user).Name, b.Other(user).Name) })
	return all[:min(len(all), max(limit, 0))], nil
}

func (m *Memory) pairsLocked(user int64) (all []Pair) {
	for k, p := range m.pairs {
		if p.State != PairNone && (k[0] == user || k[1] == user) {
			all = append(all, m.pairLocked(k[0], k[1]))
		}
	}
	return all
}

// CountPairs implements Store.
func (m *Memory) CountPairs(ctx context.Context, user int64) (int, error) {
	if err := m.enter(ctx, OpCountPairs); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	return len(m.pairsLocked(user)), nil
}

// ChangePair implements Store.
func (m *Memory) ChangePair(ctx context.Context, lo, hi int64, decide func(Pair) (Pair, *pb.Message, error)) (Pair, Outgoing, error) {
	if lo >= hi {
		return Pair{}, Outgoing{}, errors.New("chat: change pair: lower and higher account are the wrong way round")
	}
	if err := m.enter(ctx, OpChangePair); err != nil {
		return Pair{}, Outgoing{}, err
	}
	defer m.mu.Unlock()
	p, notice, err := decide(m.pairLocked(lo, hi))
	if err != nil {
		return Pair{}, Outgoing{}, err
	}
	m.pairs[[2]int64{lo, hi}] = p
	return p, m.outgoingLocked(notice, p.Version), m.fault(OpChangePair.Answer())
}

// Unsent implements Store.
func (m *Memory) Unsent(ctx context.Context, conversation string, upTo uint64, limit int) ([]Outgoing, error) {
	if err := m.enter(ctx, OpUnsent); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var list []Outgoing
	for _, o := range m.outbox {
		if conversation != "" && (o.Message.GetConversation() != conversation || o.Version > upTo) {
			continue
		}
		if len(list) >= limit {
			break
		}
		o.Message = clone(o.Message)
		list = append(list, o)
	}
	return list, nil
}

// Sent implements Store.
func (m *Memory) Sent(ctx context.Context, ids []int64) error {
	if err := m.enter(ctx, OpSent); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.outbox = slices.DeleteFunc(m.outbox, func(o Outgoing) bool { return slices.Contains(ids, o.ID) })
	return m.fault(OpSent.Answer())
}
