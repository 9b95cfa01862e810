package chat_test

import (
	"context"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

func (r *rig) remove(by chat.Account, name string) (chat.Outgoing, error) {
	r.Helper()
	return r.RemoveFriend(r.Context(), by, &pb.RemoveFriendRequest{Name: name})
}

func TestR4_RemoveFriend(t *testing.T) {
	r := newRig(t)
	alice, bob := r.register("alice"), r.register("bob")
	r.register("carol")
	for _, name := range []string{"alice", "bob", "nobody"} {
		if _, err := r.remove(alice, name); code(err) != pb.Code_CODE_NOT_FOUND {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := r.AddFriend(t.Context(), alice, &pb.AddFriendRequest{Name: "bob"})
	r.must(err)
	if _, err := r.remove(alice, "bob"); code(err) != pb.Code_CODE_NOT_FOUND {
		t.Errorf("who merely asked: %v", err)
	}
	_, err = r.AnswerFriend(t.Context(), bob, &pb.AnswerFriendRequest{Name: "alice", Accept: true})
	r.must(err)
	out, err := r.remove(bob, "alice")
	r.must(err)
	c, closes := chat.ClosingOf(out.Message)
	if n := out.Message.GetPayload().GetFriend(); !closes || c != (chat.Closing{Conversation: "d:1:2", User: chat.Everybody, Version: 3}) ||
		n.GetBy().GetName() != "bob" || n.GetTo().GetName() != "alice" || out.Version != 3 {
		t.Fatalf("the notice is %v", out.Message)
	}
	for _, who := range []chat.Account{alice, bob} {
		if list, err := r.ListFriends(t.Context(), who.ID); err != nil || len(list) != 0 {
			t.Errorf("%s has %v, %v", who.Name, list, err)
		}
	}
	// Who asks again while it is under way joins, also the other one; then there is nothing any more.
	for _, who := range []chat.Account{bob, alice} {
		joined, err := r.remove(who, map[string]string{"alice": "bob", "bob": "alice"}[who.Name])
		if err != nil || joined.ID != out.ID || joined.Version != 3 {
			t.Errorf("%s asks again: %+v, %v", who.Name, joined, err)
		}
	}
	r.must(r.store.Sent(t.Context(), []int64{out.ID}))
	if _, err := r.remove(bob, "alice"); code(err) != pb.Code_CODE_NOT_FOUND {
		t.Errorf("once it was done: %v", err)
	}
	r.friends(alice, bob) // and anew
	if _, err := r.PrepareSend(t.Context(), life, alice, text("d:1:2", "x")); err != nil {
		t.Error(err)
	}
	r.failing(chat.OpChangePair)
	_, err = r.remove(alice, "bob")
	r.away("remove", err)
}

// A removal at another node: until this one is fenced it may go on with what it knows, after that it must look.
func TestFence_ForgetsWhatIsOlder(t *testing.T) {
	r := newRig(t)
	alice, bob := r.register("alice"), r.register("bob")
	r.friends(alice, bob)
	node := chat.New(r.opts)
	send := func() (chat.Sending, error) {
		return node.PrepareSend(t.Context(), life, alice, text("d:1:2", "x"))
	}
	first, err := send()
	r.must(err)
	out, err := r.remove(bob, "alice")
	r.must(err)
	second, err := send()
	r.must(err) // cached
	done := false
	node.Fence("d:1:2", out.Version, func() { done = true })
	if _, err := send(); code(err) != pb.Code_CODE_NOT_FRIENDS {
		t.Errorf("after the fence: %v", err)
	}
	if _, decided, err := node.PrepareCached(life, alice, text("d:1:2", "x")); decided || err != nil {
		t.Errorf("after the fence the cache decides: %v", err)
	}
	first.Permit.Release()
	if done {
		t.Error("fenced while a message was under way")
	}
	second.Permit.Release()
	if !done {
		t.Error("not fenced though nothing is under way")
	}
}

// A look that was made before the removal, and ends after the fence, does not bring the friendship back into the cache.
func TestFence_ALookUnderWayIsNotRemembered(t *testing.T) {
	r := newRig(t)
	alice, bob := r.register("alice"), r.register("bob")
	r.friends(alice, bob)
	slow := &slowPair{Memory: r.store, read: make(chan struct{}), goOn: make(chan struct{})}
	opts := r.opts
	opts.Store = slow
	node := chat.New(opts)
	var sending chat.Sending
	prepared := make(chan error)
	go func() {
		var err error
		sending, err = node.PrepareSend(t.Context(), life, alice, text("d:1:2", "x"))
		prepared <- err
	}()
	<-slow.read
	out, err := r.remove(bob, "alice")
	r.must(err)
	done := make(chan struct{})
	node.Fence("d:1:2", out.Version, func() { close(done) })
	slow.goOn <- struct{}{}
	r.must(<-prepared)
	select {
	case <-done:
		t.Fatal("fenced while a message was under way that was checked before")
	default:
	}
	if _, decided, _ := node.PrepareCached(life, alice, text("d:1:2", "x")); decided {
		t.Error("the old friendship is in the cache")
	}
	sending.Permit.Release()
	<-done
}

// slowPair holds the first Pair back after it has read.
type slowPair struct {
	*chat.Memory
	read, goOn chan struct{}
}

func (s *slowPair) Pair(ctx context.Context, a, b int64) (chat.Pair, error) {
	p, err := s.Memory.Pair(ctx, a, b)
	s.read <- struct{}{}
	<-s.goOn
	return p, err
}

// What was looked up in one life of the node's lease counts in no other: in between a removal may have passed it by.
func TestPrepareSend_TheCacheIsOfOneLife(t *testing.T) {
	r := newRig(t, func(o *chat.Options) { o.FriendTTL = time.Hour })
	alice, bob := r.register("alice"), r.register("bob")
	r.friends(alice, bob)
	q := text("d:1:2", "x")
	_, err := r.PrepareSend(t.Context(), life, alice, q)
	r.must(err)
	for _, b := range []chat.Basis{{}, {Life: "2"}} {
		if _, decided, _ := r.PrepareCached(b, alice, q); decided {
			t.Errorf("%+v: the cache decides", b)
		}
	}
	r.failing(chat.OpPair)
	if _, err := r.PrepareSend(t.Context(), life, alice, q); err != nil {
		t.Errorf("with the lease, without the database: %v", err)
	}
	_, err = r.PrepareSend(t.Context(), chat.Basis{}, alice, q)
	r.away("without a lease", err)
}

func TestCheckAgain(t *testing.T) {
	r := newRig(t)
	alice, bob := r.register("alice"), r.register("bob")
	r.friends(alice, bob)
	s, err := r.PrepareSend(t.Context(), chat.Basis{}, alice, text("d:1:2", "x"))
	r.must(err)
	r.must(r.CheckAgain(t.Context(), s.Record))
	r.failing(chat.OpPair)
	r.away("without the database", r.CheckAgain(t.Context(), s.Record))
	r.failing()
	_, err = r.remove(bob, "alice")
	r.must(err)
	if err := r.CheckAgain(t.Context(), s.Record); code(err) != pb.Code_CODE_NOT_FRIENDS {
		t.Errorf("after the removal: %v", err)
	}
	r.friends(alice, bob)
	if err := chat.Answer(r.CheckAgain(t.Context(), s.Record)); err.Code != pb.Code_CODE_UNAVAILABLE || err.RetryAfter <= 0 {
		t.Errorf("friends anew: %v", err)
	}
}

func TestNoRight(t *testing.T) {
	if chat.NoRight("d:1:2").Code != pb.Code_CODE_NOT_FRIENDS || chat.NoRight("g:7").Code != wire.ErrNotFound.Code {
		t.Error("another answer than a send gets")
	}
}
