package redispresence

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/futurechat/future/router/presence"
)

// digits is how a seq is written in members, fields and arguments: of one length, so that strings compare as numbers do. The
// script does no arithmetic with it, for Lua has only doubles.
const digits = 20

func pad(seq uint64) string { return fmt.Sprintf("%0*d", digits, seq) }

// appendScript is stretch.add of package presence; what it does and why is told there.
// KEYS: messages, meta. ARGV: ttl ms, most, most bytes, keepAbove, the first seq less one, the epoch, then seq and message of each.
// What was appended under another epoch may lack its end, and nobody could tell: it is dropped, and begun anew.
// Every member is above its bare seq, and below seq and ';', which comes after ':'.
var appendScript = redis.NewScript(`
local Z, M = KEYS[1], KEYS[2]
local keepAbove, before, epoch, first, last = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[#ARGV - 1]
local meta = redis.call('HMGET', M, 'after', 'low', 'keep', 'bytes', 'newest', 'epoch')
local after, low, keep, newest = meta[1], meta[2] or '', meta[3] or '', meta[5]
local bytes = tonumber(meta[4] or 0)
local count = redis.call('ZCARD', Z)
if keepAbove > keep then keep = keepAbove end
local prevs, prev = {}, nil
local function skip()
  for i = 7, #ARGV, 2 do prevs[#prevs + 1] = '' end
  return prevs
end
if count == 0 or not after or meta[6] ~= epoch then
  redis.call('DEL', Z, M)
  after, low, keep, newest, bytes, count = before, '', keepAbove, last, 0, 0
elseif first > newest then -- by far the most frequent: nothing has to be looked for
  prev = newest
  newest = last
elseif last > after then
  if before < after then after = before end
  if low ~= '' and low < after then after = low end
  if last > newest then newest = last end
  low = ''
elseif last < keep then
  redis.call('HSET', M, 'keep', keep)
  return skip()
elseif low == '' or last <= low then
  for _, m in ipairs(redis.call('ZRANGEBYLEX', Z, '-', '(' .. after .. ';')) do
    bytes = bytes - (#m - 21)
    count = count - 1
  end
  redis.call('ZREMRANGEBYLEX', Z, '-', '(' .. after .. ';')
  low = before
elseif before < low then
  low = before
end
for i = 7, #ARGV, 2 do
  local s, found = ARGV[i], 0
  if prev then
    prevs[#prevs + 1] = prev -- not in one with the next: miniredis' Lua would assign that first
    prev = s
  else
    local from = after
    if s <= after then from = low end
    local p = redis.call('ZREVRANGEBYLEX', Z, '(' .. s, '(' .. from .. ';', 'LIMIT', 0, 1)
    prevs[#prevs + 1] = p[1] and string.sub(p[1], 1, 20) or ''
    found = redis.call('ZLEXCOUNT', Z, '(' .. s, '(' .. s .. ';')
  end
  if found == 0 then
    redis.call('ZADD', Z, 0, s .. ':' .. ARGV[i + 1])
    bytes = bytes + #ARGV[i + 1]
    count = count + 1
  end
end
local most, mostBytes = tonumber(ARGV[2]), tonumber(ARGV[3])
while count > 1 and (count > most or bytes > mostBytes) do
  local oldest = redis.call('ZRANGE', Z, 0, 0)[1]
  local s = string.sub(oldest, 1, 20)
  if bytes <= mostBytes and s >= keepAbove then break end
  redis.call('ZREMRANGEBYRANK', Z, 0, 0)
  bytes = bytes - (#oldest - 21)
  count = count - 1
  if s <= after then low = s else after, low = s, '' end
end
redis.call('HSET', M, 'after', after, 'low', low, 'keep', keep, 'bytes', bytes, 'newest', newest, 'epoch', epoch)
redis.call('PEXPIRE', Z, ARGV[1])
redis.call('PEXPIRE', M, ARGV[1])
return prevs`)

// Append implements presence.Recents. On one server it is one round trip, whose commands are done in order. On a cluster they are
// not, so it is three: the messages, the heads, the epoch.
func (s *Store) Append(ctx context.Context, messages []presence.Recent, keepAbove uint64, epoch string) ([]presence.Prev, string, error) {
	if err := presence.CheckRecents(messages); err != nil {
		return nil, "", err
	}
	if epoch == "" || len(messages) == 0 {
		now, err := s.Epoch(ctx)
		if err != nil || len(messages) == 0 {
			return nil, now, err
		}
		epoch = now
	}
	prevs, now := make([]presence.Prev, 0, len(messages)), ""
	for part := range slices.Chunk(messages, appendAtOnce) {
		got, at, err := s.append(ctx, part, keepAbove, epoch)
		if redis.HasErrorPrefix(err, "NOSCRIPT") { // the servers were started anew
			if err = appendScript.Load(ctx, s.client).Err(); err == nil {
				got, at, err = s.append(ctx, part, keepAbove, epoch)
			}
		}
		if err != nil {
			return nil, "", wrap("append", err)
		}
		// The epoch is that of after the last append: one that changed midway has changed at the end, too.
		prevs, now = append(prevs, got...), at
	}
	return prevs, now, nil
}

// appendAtOnce is how many messages go in one round trip. Each has the whole Options.Timeout: so a server that is slow gets a large
// batch done, too, where all at once would fail as often as they are tried.
const appendAtOnce = 64

func (s *Store) append(ctx context.Context, messages []presence.Recent, keepAbove uint64, epoch string) ([]presence.Prev, string, error) {
	pipe := s.client.Pipeline()
	step := func() error {
		if !s.cluster {
			return nil
		}
		return exec(ctx, pipe)
	}
	runs := presence.Runs(messages)
	answers := make([]*redis.Cmd, len(runs))
	for i, run := range runs {
		answers[i] = s.appendRun(ctx, pipe, messages, run, keepAbove, epoch)
	}
	if err := step(); err != nil {
		return nil, "", err
	}
	s.raiseHeads(ctx, pipe, messages)
	if err := step(); err != nil {
		return nil, "", err
	}
	asked := s.askEpoch(ctx, pipe)
	if err := exec(ctx, pipe); err != nil {
		return nil, "", err
	}
	prevs := make([]presence.Prev, len(messages))
	for i, run := range runs {
		seqs, err := answers[i].StringSlice()
		if err != nil || len(seqs) != len(run.At) {
			return nil, "", fmt.Errorf("%d answers for %d messages: %w", len(seqs), len(run.At), err)
		}
		for j, at := range run.At {
			if prevs[at], err = parsePrev(seqs[j]); err != nil {
				return nil, "", err
			}
		}
	}
	return prevs, s.epochOf(asked), nil
}

func (s *Store) appendRun(ctx context.Context, pipe redis.Pipeliner, messages []presence.Recent, run presence.Run, keepAbove uint64, epoch string) *redis.Cmd {
	ttl := s.o.RecentsTTL + rand.N(s.o.RecentsTTL)
	args := make([]any, 0, 6+2*len(run.At))
	args = append(args, ttl.Milliseconds(), presence.MaxRecents(run.Conversation), presence.MaxRecentsBytes,
		pad(keepAbove), pad(messages[run.At[0]].Seq-1), epoch)
	for _, at := range run.At {
		args = append(args, pad(messages[at].Seq), messages[at].Message)
	}
	keys := []string{s.messagesKey(run.Conversation), s.recentsMetaKey(run.Conversation)}
	return appendScript.EvalSha(ctx, pipe, keys, args...)
}

func parsePrev(seq string) (presence.Prev, error) {
	if seq == "" {
		return presence.Prev{}, nil
	}
	n, err := strconv.ParseUint(seq, 10, 64)
	return presence.Prev{Seq: n, Known: true}, err
}

// raiseHeads raises heads with ZADD GT, which compares and sets at once, and exactly: see presence.MaxSeq.
func (s *Store) raiseHeads(ctx context.Context, pipe redis.Pipeliner, messages []presence.Recent) {
	heads := make(map[int64]map[string]uint64)
	for _, m := range messages {
		for _, id := range m.Users {
			if heads[id] == nil {
				heads[id] = make(map[string]uint64, 1)
			}
			heads[id][m.Conversation] = max(heads[id][m.Conversation], m.Seq)
		}
	}
	for id, of := range heads {
		members := make([]redis.Z, 0, len(of))
		for conversation, seq := range of {
			members = append(members, redis.Z{Score: float64(seq), Member: conversation})
		}
		key := s.headsKey(id)
		pipe.ZAddGT(ctx, key, members...)
		pipe.Expire(ctx, key, s.o.HeadsTTL)
	}
}

// Page implements presence.Recents. A page must not have what is below ContiguousFrom, which may be there while a router
// rebuilds the recents; when forward that takes another look, from there on.
func (s *Store) Page(ctx context.Context, conversation string, after, before uint64, limit int, forward bool) (presence.Page, error) {
	for {
		page, below, err := s.page(ctx, conversation, after, before, limit, forward)
		if err != nil {
			return presence.Page{}, wrap("page", err)
		}
		if !below || !forward {
			return page, nil
		}
		after = page.ContiguousFrom - 1 // higher than it was, so this ends
	}
}

// page reports whether something was below ContiguousFrom and left out.
func (s *Store) page(ctx context.Context, conversation string, after, before uint64, limit int, forward bool) (presence.Page, bool, error) {
	key := s.messagesKey(conversation)
	var meta *redis.SliceCmd
	var card *redis.IntCmd
	var list *redis.StringSliceCmd
	_, err := s.client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		meta = pipe.HMGet(ctx, s.recentsMetaKey(conversation), "after", "newest")
		card = pipe.ZCard(ctx, key)
		by := &redis.ZRangeBy{Min: "(" + pad(after) + ";", Max: "+", Count: int64(max(limit, 1))}
		if before != 0 {
			by.Max = "(" + pad(before)
		}
		if forward {
			list = pipe.ZRangeByLex(ctx, key, by)
		} else {
			list = pipe.ZRevRangeByLex(ctx, key, by)
		}
		return nil
	})
	if err != nil {
		return presence.Page{}, false, err
	}
	members := list.Val()
	if limit <= 0 {
		members = nil
	}
	return parsePage(meta.Val(), card.Val(), members)
}

func parsePage(meta []any, count int64, members []string) (presence.Page, bool, error) {
	if count == 0 || len(meta) != 2 || meta[0] == nil {
		return presence.Page{}, false, nil
	}
	from, err1 := strconv.ParseUint(fmt.Sprint(meta[0]), 10, 64)
	newest, err2 := strconv.ParseUint(fmt.Sprint(meta[1]), 10, 64)
	if err1 != nil || err2 != nil {
		return presence.Page{}, false, fmt.Errorf("meta is %q", meta)
	}
	page := presence.Page{ContiguousFrom: from + 1, Newest: newest}
	below := false
	for _, m := range members {
		digits, message, _ := strings.Cut(m, ":")
		seq, err := strconv.ParseUint(digits, 10, 64)
		switch {
		case err != nil:
			return presence.Page{}, false, err
		case seq <= from:
			below = true
		default:
			page.Messages = append(page.Messages, presence.RecentMessage{Seq: seq, Message: []byte(message)})
		}
	}
	if n := len(page.Messages); n > 1 && page.Messages[0].Seq > page.Messages[n-1].Seq {
		slices.Reverse(page.Messages)
	}
	return page, below, nil
}

// Newest implements presence.Recents.
func (s *Store) Newest(ctx context.Context, conversations []string) (map[string]uint64, error) {
	pipe := s.client.Pipeline()
	answers := make([]*redis.StringCmd, len(conversations))
	for i, c := range conversations {
		answers[i] = pipe.HGet(ctx, s.recentsMetaKey(c), "newest")
	}
	if err := exec(ctx, pipe); err != nil {
		return nil, wrap("newest", err)
	}
	newest := make(map[string]uint64)
	for i, answer := range answers {
		if seq, err := strconv.ParseUint(answer.Val(), 10, 64); err == nil {
			newest[conversations[i]] = seq
		}
	}
	return newest, nil
}

// Heads implements presence.Recents.
func (s *Store) Heads(ctx context.Context, id int64) (map[string]uint64, error) {
	all, err := s.client.ZRangeWithScores(ctx, s.headsKey(id), 0, -1).Result()
	if err != nil {
		return nil, wrap("heads", err)
	}
	heads := make(map[string]uint64, len(all))
	for _, z := range all {
		if conversation, ok := z.Member.(string); ok {
			heads[conversation] = uint64(z.Score)
		}
	}
	return heads, nil
}
