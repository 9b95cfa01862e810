package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
	"github.com/futurechat/future/ops/e2e/traffic"
)

// redisLost measures what comes of losing Redis, with many sessions live: emptied at once, and away for -absent and empty
// after it. Sessions, friends, requests, messages and unread counts must be the same before and after; it prints how long until
// everybody is registered again, and how many commands Redis got in each 100 ms meanwhile.
func redisLost(ctx context.Context, s settings) error {
	c, stop, err := s.start(ctx, clustertest.Options{Nodes: 3, Routers: 2, Histories: 1, RelayRedis: true})
	if err != nil {
		return err
	}
	defer stop()
	direct := c.RedisRelay.To()
	people, err := acquaint(ctx, c)
	if err != nil {
		return err
	}
	defer func() {
		for _, p := range people {
			_ = p.Close()
		}
	}()
	crowd, err := enterAll(ctx, c, s.sessions)
	defer crowd.leave()
	if err != nil {
		return err
	}
	const rest = 3 * time.Second
	if err := clustertest.Sleep(ctx, rest); err != nil { // history writes what is there
		return err
	}
	want := s.sessions + len(people)
	before, err := traffic.State(ctx, c, people)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		s.say("  before: %s: %s", name, before[name])
	}
	empty := func() error { _, err := c.EmptyRedis(ctx); return err }
	for _, loss := range []struct {
		name string
		do   func() error
	}{
		{"emptied", empty},
		{fmt.Sprintf("away for %v, and empty after it", s.absent), func() error {
			c.RedisRelay.Cut()
			if err := errors.Join(clustertest.Sleep(ctx, s.absent), empty()); err != nil {
				return err
			}
			c.RedisRelay.Heal()
			return nil
		}},
	} {
		if err := loss.do(); err != nil {
			return err
		}
		took, perStep, err := rebuilt(ctx, direct, c.Namespace, want)
		if err != nil {
			return fmt.Errorf("%s: %w", loss.name, err)
		}
		s.say("Redis %s: all %d users registered again after %v", loss.name, want, took.Round(time.Millisecond))
		s.say("  commands per 100 ms: most %d; all: %v", slices.Max(perStep), perStep)
		after, err := traffic.State(ctx, c, people)
		if err != nil {
			return err
		}
		if !maps.Equal(before, after) {
			return fmt.Errorf("%s: before %v, after %v", loss.name, before, after)
		}
		s.say("  sessions, friends, requests, messages and unread counts are the same as before, by SQL and by the SDK")
		if n := crowd.gone(); n > 0 {
			return fmt.Errorf("%s: %d sessions have ended", loss.name, n)
		}
		s.say("  all %d sessions are still live", s.sessions)
	}
	return nil
}

// rebuilt waits until so many users have a place, and 5 s more, and counts commands meanwhile.
func rebuilt(ctx context.Context, addr, namespace string, want int) (took time.Duration, perStep []int, err error) {
	const step, after = 100 * time.Millisecond, 5 * time.Second
	r, err := traffic.DialRedis(ctx, addr)
	if err != nil {
		return 0, nil, err
	}
	defer r.Close()
	began := time.Now()
	last, err := served(r)
	if err != nil {
		return 0, nil, err
	}
	for next := began.Add(step); time.Since(began) < patience; next = next.Add(step) {
		if err := clustertest.Sleep(ctx, time.Until(next)); err != nil {
			return 0, nil, err
		}
		now, err := served(r)
		if err != nil {
			return 0, nil, err
		}
		places, err := r.Places(namespace)
		if err != nil {
			return 0, nil, err
		}
		const ours = 2 // that and this
		perStep = append(perStep, max(now-last-ours, 0))
		last = now
		if places >= want && took == 0 {
			took = time.Since(began)
		}
		if took > 0 && time.Since(began) > took+after {
			return took, perStep, nil
		}
	}
	return 0, nil, errors.New("not all users were registered again")
}

// served is how many commands the server has got; 0 if it does not tell, as the embedded one.
func served(r *traffic.Redis) (int, error) {
	info, err := r.Do("INFO", "stats")
	if err != nil {
		return 0, nil // then they are not counted
	}
	for line := range strings.Lines(info) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "total_commands_processed:"); ok {
			return strconv.Atoi(n)
		}
	}
	return 0, nil
}

// acquaint makes three people: two friends with messages unread, and one who has asked.
func acquaint(ctx context.Context, c *clustertest.Cluster) (map[string]*future.Client, error) {
	people := map[string]*future.Client{}
	for i, name := range []string{"alice", "bob", "carol"} {
		p, err := future.Dial(ctx, []string{c.Nodes[i%len(c.Nodes)].Addr}, future.WithInsecurePasswords(),
			future.WithHandlers(future.Handlers{}))
		if err != nil {
			return people, err
		}
		people[name] = p
		if _, err := p.Register(ctx, name, password); err != nil {
			return people, err
		}
	}
	alice, bob, carol := people["alice"], people["bob"], people["carol"]
	if err := errors.Join(alice.AddFriend(ctx, "bob", "hello"), bob.AnswerFriend(ctx, "alice", true),
		carol.AddFriend(ctx, "alice", "let me in")); err != nil {
		return people, err
	}
	friends, err := alice.Friends(ctx)
	if err != nil {
		return people, err
	}
	for _, f := range friends {
		for i := range 40 {
			if f.State != future.IsFriend {
				break
			}
			if _, err := alice.Send(ctx, f.Conversation, fmt.Sprintf("alice %d", i)); err != nil {
				return people, err
			}
		}
	}
	return people, nil
}
