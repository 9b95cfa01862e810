package chat

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"runtime"
	"time"

	"github.com/futurechat/future/router/eventlog"
)

// Options for New. Store and Topic are required.
type Options struct {
	Store Store
	// Topic is what is known of TopicMessages: partitions and epoch.
	Topic eventlog.State
	// Now default time.Now, Rand crypto/rand.
	Now  func() time.Time
	Rand io.Reader
	// Argon is how passwords are hashed from now on. A password hashed otherwise is hashed anew when it is next given.
	Argon Argon
	// Hashers is how many passwords are hashed at a time, HashQueue how many may wait for it. Defaults: half of the processors, 64.
	Hashers, HashQueue int
	// Attempts is how many wrong passwords in a row an address may give for a name, and AttemptEvery the time after which it
	// gets one more. Defaults 10, 30 s.
	Attempts     int
	AttemptEvery time.Duration
	// MaxPairs is how many friends and requests an account may have. Default 1,000.
	MaxPairs int
	// MaxMembers is how many members a group may have. Default 10,000.
	MaxMembers int
	// FriendTTL is how long a friendship is taken for granted, FriendCache how many are remembered. Defaults 30 s, 100,000.
	FriendTTL   time.Duration
	FriendCache int
}

// Service has the rules. Its methods are safe for concurrent use and take requests that wire.Validate has passed. An error is,
// or holds, a *wire.Error (see Answer and Failure).
type Service struct {
	opts     Options
	store    Store
	hasher   *hasher
	attempts *attempts
	friends  *friendCache
	permits  *Permits
	members  *friendCache // of (user, -group)
}

// New makes a Service.
func New(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Argon == (Argon{}) {
		o.Argon = DefaultArgon
	}
	o.Hashers = cmp.Or(o.Hashers, max(runtime.GOMAXPROCS(0)/2, 1))
	o.HashQueue = cmp.Or(o.HashQueue, 64)
	o.Attempts = cmp.Or(o.Attempts, 10)
	o.AttemptEvery = cmp.Or(o.AttemptEvery, 30*time.Second)
	o.MaxPairs = cmp.Or(o.MaxPairs, 1000)
	o.MaxMembers = cmp.Or(o.MaxMembers, 10_000)
	o.FriendTTL = cmp.Or(o.FriendTTL, 30*time.Second)
	o.FriendCache = cmp.Or(o.FriendCache, 100_000)
	return &Service{
		opts:     o,
		store:    o.Store,
		hasher:   newHasher(o.Argon, o.Hashers, o.HashQueue),
		attempts: newAttempts(o.Attempts, o.AttemptEvery, maxAttemptKeys),
		friends:  newFriendCache(o.FriendCache, o.FriendTTL),
		permits:  NewPermits(),
		members:  newFriendCache(o.FriendCache, o.FriendTTL),
	}
}

func (s *Service) nowMs() int64 { return s.opts.Now().UnixMilli() }

// FindUser finds an account by its name, byte by byte. NOT_FOUND.
func (s *Service) FindUser(ctx context.Context, name string) (Account, error) {
	a, err := s.byName(ctx, "find user", name)
	a.PasswordHash = ""
	return a, err
}
