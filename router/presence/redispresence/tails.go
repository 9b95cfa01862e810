package redispresence

import (
	"context"
	"fmt"
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

// raiseScript sets a tail that is lower, or is not there. KEYS: tail. ARGV: offset, again, ttl ms. Offsets are below 2^48, so exact as
// doubles.
var raiseScript = redis.NewScript(`
local v = redis.call('HGET', KEYS[1], 'offset')
if v and tonumber(v) > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'offset', ARGV[1])
redis.call('HSETNX', KEYS[1], 'again', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1`)

// tailScript gives a tail, and sets it if it is not there. KEYS, ARGV: as above.
var tailScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'offset', ARGV[1], 'again', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'offset', 'again')`)

// Tail implements presence.Tails.
func (s *Store) Tail(ctx context.Context, t presence.Tail) (presence.Tail, error) {
	got, err := tailScript.Run(ctx, s.client, []string{s.tailKey(t)}, t.Offset, t.Again, tailTTL.Milliseconds()).Int64Slice()
	if err == nil && len(got) != 2 {
		err = fmt.Errorf("%d values", len(got))
	}
	if err != nil {
		return presence.Tail{}, wrap("tail "+t.Partition, err)
	}
	t.Offset, t.Again = got[0], got[1]
	return t, nil
}

// RaiseTails implements presence.Tails.
func (s *Store) RaiseTails(ctx context.Context, tails []presence.Tail) error {
	return wrap("raise tails", s.scripted(ctx, raiseScript, func() error {
		pipe := s.client.Pipeline()
		for _, t := range tails {
			raiseScript.EvalSha(ctx, pipe, []string{s.tailKey(t)}, t.Offset, t.Again, tailTTL.Milliseconds())
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
