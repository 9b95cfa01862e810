package chat_test

import (
	"fmt"
	"testing"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

func wantCode(t *testing.T, what string, err error, want pb.Code) {
	t.Helper()
	if code(err) != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestR16_OnlyMembersWrite_ByTheVersionTheyAreAt(t *testing.T) {
	r := newRig(t)
	alice, bob, carol := r.register("alice"), r.register("bob"), r.register("carol")
	g, _, err := r.CreateGroup(t.Context(), alice, "the club", []chat.Account{bob, bob, alice})
	r.must(err)
	club := wire.Group(g.ID)
	send := func(who chat.Account) (chat.Record, error) {
		s, err := r.PrepareSend(t.Context(), life, who, text(club, "x"))
		if err == nil {
			s.Permit.Release()
		}
		return s.Record, err
	}
	for _, who := range []chat.Account{alice, bob} {
		if rec, err := send(who); err != nil || !rec.Checked || rec.Version != 1 || rec.Message.GetConversation() != club {
			t.Errorf("%s: %+v, %v", who.Name, rec, err)
		}
	}
	_, err = send(carol)
	wantCode(t, "no member", err, pb.Code_CODE_NOT_FOUND)
	_, err = r.AddMembers(t.Context(), alice, g.ID, []chat.Account{carol, bob})
	r.must(err)
	if rec, err := send(carol); err != nil || rec.Version != 2 {
		t.Errorf("carol joined: %+v, %v", rec, err)
	}
	// What is remembered needs no database; a fence forgets it, of everybody in the group and of no other.
	cached := func(who chat.Account) bool {
		s, decided, err := r.PrepareCached(life, who, text(club, "x"))
		if decided && err == nil {
			s.Permit.Release()
		}
		return decided
	}
	if !cached(bob) || !cached(carol) {
		t.Error("a member is not remembered")
	}
	out, err := r.RemoveMember(t.Context(), alice, g.ID, bob)
	r.must(err)
	fenced := false
	r.Fence(club, out.Version, func() { fenced = true })
	if !fenced || cached(bob) || cached(carol) || cached(alice) {
		t.Error("a fence leaves what it is to end")
	}
	_, err = send(bob)
	wantCode(t, "taken out", err, pb.Code_CODE_NOT_FOUND)
	if rec, err := send(carol); err != nil || rec.Version != 3 {
		t.Errorf("carol stays: %+v, %v", rec, err)
	}
	c, closes := chat.ClosingOf(out.Message)
	if !closes || c != (chat.Closing{Conversation: club, User: bob.ID, Version: 3}) {
		t.Errorf("closing %+v, %t", c, closes)
	}
}

// Fences of any number of groups take little memory, and what one has ended is not remembered again for it.
func TestGroup_ManyFences_NothingComesBack(t *testing.T) {
	r := newRig(t)
	alice, bob := r.register("alice"), r.register("bob")
	g, _, err := r.CreateGroup(t.Context(), alice, "club", []chat.Account{bob})
	r.must(err)
	club := wire.Group(g.ID)
	s, err := r.PrepareSend(t.Context(), chat.Basis{Life: "life"}, bob, text(club, "x"))
	r.must(err)
	s.Permit.Release()
	r.Fence(club, 2, func() {})
	for i := range int64(10_000) {
		r.Fence(wire.Group(g.ID+1+i), 9, func() {})
		if i%1000 != 0 && i < 9_999 {
			continue
		}
		if _, decided, _ := r.PrepareCached(chat.Basis{Life: "life"}, bob, text(club, "x")); decided {
			t.Fatalf("after %d other fences a membership counts that was fenced", i+1)
		}
	}
}

func TestGroup_WhoMayChangeIt(t *testing.T) {
	r := newRig(t, func(o *chat.Options) { o.MaxMembers = 3 })
	alice, bob, carol, dora := r.register("alice"), r.register("bob"), r.register("carol"), r.register("dora")
	_, _, err := r.CreateGroup(t.Context(), alice, "x", nil)
	wantCode(t, "a name that is too short", err, pb.Code_CODE_INVALID)
	_, _, err = r.CreateGroup(t.Context(), alice, "club", []chat.Account{bob, carol, dora})
	wantCode(t, "too many", err, pb.Code_CODE_LIMIT)
	g, _, err := r.CreateGroup(t.Context(), alice, "club", []chat.Account{bob})
	r.must(err)
	add := func(by, who chat.Account) error {
		_, err := r.AddMembers(t.Context(), by, g.ID, []chat.Account{who})
		return err
	}
	remove := func(by, who chat.Account) error {
		_, err := r.RemoveMember(t.Context(), by, g.ID, who)
		return err
	}
	wantCode(t, "a member adds", add(bob, carol), pb.Code_CODE_FORBIDDEN)
	wantCode(t, "a stranger adds", add(dora, carol), pb.Code_CODE_NOT_FOUND)
	wantCode(t, "the owner adds", add(alice, carol), 0)
	wantCode(t, "once more", add(alice, carol), pb.Code_CODE_ALREADY)
	wantCode(t, "one too many", add(alice, dora), pb.Code_CODE_LIMIT)
	wantCode(t, "a member removes another", remove(bob, carol), pb.Code_CODE_FORBIDDEN)
	wantCode(t, "the owner goes", remove(alice, alice), pb.Code_CODE_FORBIDDEN)
	wantCode(t, "who is none is removed", remove(alice, dora), pb.Code_CODE_NOT_FOUND)
	wantCode(t, "a member goes", remove(bob, bob), 0)
	wantCode(t, "and again", remove(bob, bob), pb.Code_CODE_NOT_FOUND)
	wantCode(t, "the owner removes", remove(alice, carol), 0)
	if now, err := r.store.Group(t.Context(), g.ID); err != nil || now.Members != 1 || now.Version != 4 {
		t.Errorf("group %+v, %v", now, err)
	}
	r.failing(chat.OpChangeGroup)
	r.away("add", add(alice, carol))
}

func TestGroup_ANoticeNamesFewAndCountsMany(t *testing.T) {
	r := newRig(t)
	owner := r.register("owner")
	people := func(n int) (all []chat.Account) {
		for i := range n {
			all = append(all, chat.Account{ID: int64(1000 + i), Name: fmt.Sprint("user ", i)})
		}
		return all
	}
	for n, named := range map[int]int{3: 4, chat.MaxSubjects - 1: chat.MaxSubjects, chat.MaxSubjects: 0, 9999: 0} {
		_, out, err := r.CreateGroup(t.Context(), owner, "club", people(n))
		r.must(err)
		notice := out.Message.GetPayload().GetGroup()
		if len(notice.GetSubjects()) != named || int(notice.GetCount()) != n+1 {
			t.Errorf("%d others: %d named, %d counted", n, len(notice.GetSubjects()), notice.GetCount())
		}
	}
}
