package chattest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

func notice(p chat.Pair) *pb.Message {
	return &pb.Message{
		Conversation: wire.Direct(p.Lo.ID, p.Hi.ID), Sender: p.Lo.User(), ClientMsgId: wire.NewMessageID(),
		Payload: &pb.Payload{Kind: &pb.Payload_Friend{Friend: &pb.FriendNotice{
			Change: pb.FriendNotice_CHANGE_REQUESTED, By: p.Lo.User(), To: p.Hi.User(), Greeting: p.Greeting, Version: p.Version,
		}}},
	}
}

// ask makes lo ask hi, or whatever state is.
func ask(state chat.PairState, greeting string) func(chat.Pair) (chat.Pair, *pb.Message, error) {
	return func(p chat.Pair) (chat.Pair, *pb.Message, error) {
		p.State, p.AskedBy, p.Greeting, p.ChangedMs = state, p.Lo.ID, greeting, int64(5000+p.Version)
		p.Version++
		return p, notice(p), nil
	}
}

func (s suite) strangers(t *testing.T) {
	f := s.fixture(t)
	p := f.people("alice", "bob")
	for _, pair := range [][2]int64{{p[0].ID, p[1].ID}, {p[1].ID, p[0].ID}} {
		got, err := f.Pair(f.ctx, pair[0], pair[1])
		f.must(err)
		if got.Lo.ID != p[0].ID || got.Hi.ID != p[1].ID || got.State != chat.PairNone || got.Version != 0 || got.AskedBy != 0 {
			t.Fatalf("got %+v", got)
		}
	}
	if n, err := f.CountPairs(f.ctx, p[0].ID); err != nil || n != 0 {
		t.Fatalf("%d, %v", n, err)
	}
	got, err := f.Pair(f.ctx, p[0].ID, 1<<40) // nobody
	f.must(err)
	if got.State != chat.PairNone || got.Hi.ID != 1<<40 {
		t.Fatalf("got %+v", got)
	}
}

func (s suite) changePair(t *testing.T) {
	f := s.fixture(t)
	p := f.people("alice", "bob")
	const greeting = "hello 'you' %s 🙂 \\"
	var was chat.Pair
	changed, out, err := f.ChangePair(f.ctx, p[0].ID, p[1].ID, func(old chat.Pair) (chat.Pair, *pb.Message, error) {
		was = old
		return ask(chat.PairAsked, greeting)(old)
	})
	f.must(err)
	if was.State != chat.PairNone || was.Version != 0 || was.Lo.Name != "alice" || was.Hi.Name != "bob" {
		t.Fatalf("decide got %+v", was)
	}
	want := chat.Pair{
		Lo: chat.Account{ID: p[0].ID, Name: "alice"}, Hi: chat.Account{ID: p[1].ID, Name: "bob"},
		State: chat.PairAsked, AskedBy: p[0].ID, Greeting: greeting, Version: 1, ChangedMs: 5000,
	}
	got, err := f.Pair(f.ctx, p[1].ID, p[0].ID)
	f.must(err)
	if changed != want || got != want {
		t.Fatalf("changed %+v, read %+v, want %+v", changed, got, want)
	}
	unsent, err := f.Unsent(f.ctx, "", 0, 10)
	f.must(err)
	if len(unsent) != 1 || unsent[0].ID != out.ID || unsent[0].Version != 1 || !unsent[0].Message.EqualVT(out.Message) || !out.Message.EqualVT(notice2(want, out)) {
		t.Fatalf("outbox has %+v, told was %+v", unsent, out)
	}

	changed, out, err = f.ChangePair(f.ctx, p[0].ID, p[1].ID, ask(chat.PairFriends, ""))
	f.must(err)
	want.State, want.Greeting, want.Version, want.ChangedMs = chat.PairFriends, "", 2, 5001
	if got, err = f.Pair(f.ctx, p[0].ID, p[1].ID); err != nil || got != want || changed != want || out.Version != 2 {
		t.Fatalf("changed %+v, read %+v, %v, want %+v", changed, got, err, want)
	}
	if _, _, err := f.ChangePair(f.ctx, p[1].ID, p[0].ID, ask(chat.PairNone, "")); err == nil {
		t.Fatal("the higher before the lower was taken")
	}
}

// notice2 is the notice of a pair with the id that was made for it.
func notice2(p chat.Pair, out chat.Outgoing) *pb.Message {
	m := notice(p)
	m.ClientMsgId = out.Message.GetClientMsgId()
	return m
}

func (s suite) changeRefused(t *testing.T) {
	f := s.fixture(t)
	p := f.people("alice", "bob")
	refused := wire.Errorf(pb.Code_CODE_ALREADY, "you have asked")
	no := func(old chat.Pair) (chat.Pair, *pb.Message, error) {
		old.State = chat.PairFriends
		return old, nil, refused
	}
	for round := range 2 {
		_, _, err := f.ChangePair(f.ctx, p[0].ID, p[1].ID, no)
		var as *wire.Error
		if !errors.As(err, &as) || as != refused {
			t.Fatalf("round %d: %v is not decide's own error", round, err)
		}
		got, err := f.Pair(f.ctx, p[0].ID, p[1].ID)
		f.must(err)
		unsent, err := f.Unsent(f.ctx, "", 0, 10)
		f.must(err)
		if int(got.Version) != round || len(unsent) != round || got.State == chat.PairFriends {
			t.Fatalf("round %d: %+v, outbox %v", round, got, unsent)
		}
		if round == 0 { // and once more on a pair that exists
			_, _, err := f.ChangePair(f.ctx, p[0].ID, p[1].ID, ask(chat.PairAsked, ""))
			f.must(err)
		}
	}
}

func (s suite) changeAtOnce(t *testing.T) {
	f := s.fixture(t)
	p := f.people("alice", "bob", "carol")
	const n, rounds = 6, 5
	atOnce(n, func(i int) {
		other := p[1+i%2] // two pairs that share alice
		for range rounds {
			if _, _, err := f.ChangePair(f.ctx, p[0].ID, other.ID, ask(chat.PairAsked, "")); err != nil {
				t.Error(err)
			}
		}
	})
	for _, other := range p[1:] {
		got, err := f.Pair(f.ctx, p[0].ID, other.ID)
		f.must(err)
		unsent, err := f.Unsent(f.ctx, wire.Direct(p[0].ID, other.ID), 1<<40, 1000)
		f.must(err)
		if got.Version != n/2*rounds || len(unsent) != n/2*rounds {
			t.Fatalf("version %d with %d outbox rows, want %d", got.Version, len(unsent), n/2*rounds)
		}
		for i, o := range unsent {
			if o.Version != uint64(i+1) || o.Message.GetPayload().GetFriend().GetVersion() != o.Version {
				t.Fatalf("row %d has version %d", i, o.Version)
			}
		}
	}
}

func (s suite) pairs(t *testing.T) {
	f := s.fixture(t)
	// Alice is in the middle, so she is now the lower and now the higher of a pair.
	p := f.people("zed", "Bob", "alice", "bob", "carol", "0614", "dora")
	alice := p[2]
	for i, state := range []chat.PairState{chat.PairFriends, chat.PairAsked, 0, chat.PairFriends, chat.PairNone, chat.PairAsked} {
		if i == 2 {
			continue
		}
		_, _, err := f.ChangePair(f.ctx, min(alice.ID, p[i].ID), max(alice.ID, p[i].ID), ask(state, p[i].Name))
		f.must(err)
	}
	_, _, err := f.ChangePair(f.ctx, p[3].ID, p[4].ID, ask(chat.PairFriends, "not hers"))
	f.must(err)
	all, err := f.Pairs(f.ctx, alice.ID, 100)
	f.must(err)
	var listed []string
	for _, pair := range all {
		if pair.Greeting != pair.Other(alice.ID).Name || pair.Other(pair.Other(alice.ID).ID).Name != "alice" {
			t.Errorf("got %+v", pair)
		}
		listed = append(listed, pair.Other(alice.ID).Name)
	}
	if !slices.Equal(listed, []string{"0614", "Bob", "bob", "zed"}) {
		t.Fatalf("got %q", listed)
	}
	if n, err := f.CountPairs(f.ctx, alice.ID); err != nil || n != 4 {
		t.Fatalf("%d, %v", n, err)
	}
	if some, err := f.Pairs(f.ctx, alice.ID, 2); err != nil || len(some) != 2 || some[1] != all[1] {
		t.Fatalf("%+v, %v", some, err)
	}
}

func (s suite) outbox(t *testing.T) {
	f := s.fixture(t)
	p := f.people("alice", "bob", "carol")
	var made []chat.Outgoing
	for i := range 6 {
		_, out, err := f.ChangePair(f.ctx, p[0].ID, p[1+i%2].ID, ask(chat.PairAsked, fmt.Sprint(i)))
		f.must(err)
		made = append(made, out)
	}
	withBob := wire.Direct(p[0].ID, p[1].ID)
	check := func(what, conversation string, upTo uint64, limit int, want ...int) {
		t.Helper()
		got, err := f.Unsent(f.ctx, conversation, upTo, limit)
		f.must(err)
		var ids, wanted []int64
		for _, o := range got {
			ids = append(ids, o.ID)
		}
		for _, i := range want {
			wanted = append(wanted, made[i].ID)
		}
		if !slices.Equal(ids, wanted) {
			t.Fatalf("%s: got rows %d, want %d", what, ids, wanted)
		}
	}
	check("all", "", 0, 100, 0, 1, 2, 3, 4, 5)
	check("some", "", 0, 3, 0, 1, 2)
	check("bob's", withBob, 1<<40, 100, 0, 2, 4)
	check("bob's up to 2", withBob, 2, 100, 0, 2)
	check("bob's first", withBob, 3, 1, 0)
	check("up to 0", withBob, 0, 100)
	check("nobody's", "d:7:9", 9, 100)
	f.must(f.Sent(f.ctx, []int64{made[2].ID, made[1].ID}))
	f.must(f.Sent(f.ctx, []int64{made[2].ID, 1 << 40}))
	f.must(f.Sent(f.ctx, nil))
	check("after", "", 0, 100, 0, 3, 4, 5)
	check("bob's after", withBob, 2, 100, 0)
}
