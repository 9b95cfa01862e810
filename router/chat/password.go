package chat

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
)

// Argon are the parameters of argon2id (RFC 9106).
type Argon struct {
	// MemoryKiB is m, Time t, Threads p.
	MemoryKiB uint32
	Time      uint32
	Threads   uint8
}

// DefaultArgon is OWASP's choice for argon2id (Password Storage Cheat Sheet, 2024): 19 MiB, 2 passes, 1 lane.
var DefaultArgon = Argon{MemoryKiB: 19 << 10, Time: 2, Threads: 1}

const (
	saltBytes = 16
	keyBytes  = 32
)

var (
	errHashQueue = errors.New("chat: too many passwords wait to be hashed")
	errBadHash   = errors.New("chat: a stored password hash cannot be read")
)

// hashFailure turns what the hasher answers into an answer for the client.
func hashFailure(op string, err error) error {
	if errors.Is(err, errHashQueue) {
		return limited(time.Second, "too many people log in at once")
	}
	return away(op, err)
}

// hasher runs argon2id, a few at a time and with a bounded queue: each run takes tens of milliseconds and m of memory, so without
// a bound a flood of log-ins would stop the node.
type hasher struct {
	params  Argon
	dummy   string // for names that nobody has; no password fits it
	most    int64
	waiting atomic.Int64 // including those that run
	slots   chan struct{}
}

func newHasher(params Argon, atOnce, queue int) *hasher {
	return &hasher{
		params: params,
		dummy:  phc(params, make([]byte, saltBytes), make([]byte, keyBytes)),
		most:   int64(atOnce + queue),
		slots:  make(chan struct{}, atOnce),
	}
}

// run waits for its turn. errHashQueue, or the context's end.
func (h *hasher) run(ctx context.Context, do func()) error {
	defer h.waiting.Add(-1)
	if h.waiting.Add(1) > h.most {
		return errHashQueue
	}
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-h.slots }()
	do()
	return nil
}

// hash gives a password's hash in the PHC string format.
func (h *hasher) hash(ctx context.Context, salt []byte, password string) (hash string, err error) {
	err = h.run(ctx, func() { hash = phc(h.params, salt, derive(h.params, salt, password, keyBytes)) })
	return hash, err
}

// verify says whether a password fits a hash, and whether that was made with other parameters than today's.
func (h *hasher) verify(ctx context.Context, hash, password string) (ok, outdated bool, err error) {
	params, salt, key, err := parsePHC(hash)
	if err != nil {
		return false, false, err
	}
	err = h.run(ctx, func() {
		ok = subtle.ConstantTimeCompare(key, derive(params, salt, password, len(key))) == 1
	})
	return ok, params != h.params || len(salt) != saltBytes || len(key) != keyBytes, err
}

func derive(p Argon, salt []byte, password string, n int) []byte {
	return argon2.IDKey([]byte(password), salt, p.Time, p.MemoryKiB, p.Threads, uint32(n))
}

// phc is the PHC string format: https://github.com/P-H-C/phc-string-format.
func phc(p Argon, salt, key []byte) string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.MemoryKiB, p.Time, p.Threads, b64(salt), b64(key))
}

// parsePHC is its inverse. The bounds are those that argon2 would panic at, or that would take all memory.
func parsePHC(s string) (p Argon, salt, key []byte, err error) {
	const parts, mostKiB, mostKey = 6, 4 << 20, 128
	f := strings.Split(s, "$")
	if len(f) != parts || f[0] != "" || f[1] != "argon2id" || f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, nil, nil, errBadHash
	}
	if n, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=%d", &p.MemoryKiB, &p.Time, &p.Threads); n != 3 || err != nil {
		return p, nil, nil, errBadHash
	}
	salt, errSalt := base64.RawStdEncoding.DecodeString(f[4])
	key, errKey := base64.RawStdEncoding.DecodeString(f[5])
	if errSalt != nil || errKey != nil || len(key) == 0 || len(key) > mostKey || p.MemoryKiB > mostKiB || p.Time < 1 || p.Threads < 1 {
		return p, nil, nil, errBadHash
	}
	return p, salt, key, nil
}
