package clustertest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/consumers/mysqlstore"
	"github.com/futurechat/future/router/chat"
)

// SeededPair is two friends and their conversation, with the sessions of each.
type SeededPair struct {
	Conversation string
	Devices      [2][]Seat
}

// SeedPairs is SeedSessions for pairs of friends, each person with as many sessions as devices says of the pair's number. No notice
// tells of these friendships.
func (c *Cluster) SeedPairs(ctx context.Context, pairs int, devices func(pair int) int) (_ []SeededPair, err error) {
	store, err := c.OpenStore(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	all, prefix := make([]SeededPair, pairs), "pair-"+strings.ToLower(rand.Text()[:8])
	return all, seedEach(pairs, func(i int) (err error) {
		all[i], err = seedPair(ctx, store, fmt.Sprintf("%s-%d", prefix, i), devices(i))
		return err
	})
}

func seedPair(ctx context.Context, store *mysqlstore.Store, name string, devices int) (p SeededPair, err error) {
	var ids [2]int64
	for side := range ids {
		a, err := store.CreateAccount(ctx, chat.Account{Name: fmt.Sprintf("%s-%d", name, side), PasswordHash: "none", CreatedMs: 1})
		if err != nil {
			return p, err
		}
		ids[side] = a.ID
		for range devices {
			s, err := NewSeat(ctx, store, a)
			if err != nil {
				return p, err
			}
			p.Devices[side] = append(p.Devices[side], s)
		}
	}
	p.Conversation = wire.Direct(ids[0], ids[1])
	_, out, err := store.ChangePair(ctx, min(ids[0], ids[1]), max(ids[0], ids[1]), func(pair chat.Pair) (chat.Pair, *pb.Message, error) {
		pair.State, pair.AskedBy, pair.Version, pair.ChangedMs = chat.PairFriends, ids[0], pair.Version+1, 1
		return pair, &pb.Message{Conversation: p.Conversation}, nil
	})
	if err != nil {
		return p, err
	}
	return p, store.Sent(ctx, []int64{out.ID}) // nobody is told
}
