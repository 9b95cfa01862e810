package redispresence

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/futurechat/future/router/presence"
)

// tailTTL is far longer than recents are kept without an append, and an append without a raise. So when a tail has expired, so have the
// recents that it was of.
const tailTTL = 7 * 24 * time.Hour

// tailKey has the life in it: whoever comes late with a former one's changes nothing of this one's. The braces put it on the server of
// a cluster that has the epoch, so that they are lost together.
func (s *Store) tailKey(t presence.Tail) string {
	return s.o.Prefix + "tail:{" + s.epochKey() + "}:" + t.Partition + ":" + t.Epoch
}

// raiseScript sets a tail that is lower, or is not there. KEYS: tail. ARGV: offset, ttl ms. Offsets are below 2^48, so exact as doubles.
var raiseScript = redis.NewScript(`
local v = redis.call('GET', KEYS[1])
if v and tonumber(v) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

// Tail implements presence.Tails.
func (s *Store) Tail(ctx context.Context, t presence.Tail) (int64, error) {
	key := s.tailKey(t)
	pipe := s.client.Pipeline()
	pipe.SetNX(ctx, key, t.Offset, tailTTL) // in order, since both are of one key
	get := pipe.Get(ctx, key)
	if err := exec(ctx, pipe); err != nil {
		return 0, wrap("tail "+t.Partition, err)
	}
	offset, err := strconv.ParseInt(get.Val(), 10, 64)
	return offset, wrap("tail "+t.Partition, err)
}

// RaiseTails implements presence.Tails.
func (s *Store) RaiseTails(ctx context.Context, tails []presence.Tail) error {
	return wrap("raise tails", s.scripted(ctx, raiseScript, func() error {
		pipe := s.client.Pipeline()
		for _, t := range tails {
			raiseScript.EvalSha(ctx, pipe, []string{s.tailKey(t)}, t.Offset, tailTTL.Milliseconds())
		}
		return exec(ctx, pipe)
	}))
}

// scripted does what needs a script, and does it again with the script if the servers were started anew and do not have it.
func (s *Store) scripted(ctx context.Context, script *redis.Script, do func() error) error {
	err := do()
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		if err = script.Load(ctx, s.client).Err(); err == nil {
			err = do()
		}
	}
	return err
}
