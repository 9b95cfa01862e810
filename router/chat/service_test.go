package chat_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

// cheap is argon2id at its smallest: the tests are not about its strength.
var cheap = chat.Argon{MemoryKiB: 8, Time: 1, Threads: 1}

var errAway = errors.New("away")

type rig struct {
	*testing.T
	*chat.Service
	store *chat.Memory
	opts  chat.Options

	mu    sync.Mutex
	now   time.Time
	fault func(chat.Op) error
	calls map[chat.Op]int
}

func newRig(t *testing.T, change ...func(*chat.Options)) *rig {
	r := &rig{T: t, now: time.UnixMilli(1_700_000_000_000), fault: func(chat.Op) error { return nil }, calls: map[chat.Op]int{}}
	r.store = chat.NewMemory(chat.MemoryOptions{Fault: func(op chat.Op) error {
		r.mu.Lock()
		r.calls[op]++
		fault := r.fault
		r.mu.Unlock()
		return fault(op)
	}})
	r.opts = chat.Options{
		Store: r.store, Topic: eventlog.State{Partitions: 4, Epoch: 1}, Argon: cheap,
		Now: func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now },
	}
	for _, c := range change {
		c(&r.opts)
	}
	r.Service = chat.New(r.opts)
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *rig) failing(ops ...chat.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = func(op chat.Op) error {
		if slices.Contains(ops, op) {
			return errAway
		}
		return nil
	}
}

func (r *rig) count(op chat.Op) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[op]
}

func device(n int) *pb.Device {
	return &pb.Device{Id: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), Name: "d"}
}

const password = "correct horse"

func (r *rig) register(name string) chat.Account {
	r.Helper()
	l, err := r.Register(r.Context(), &pb.RegisterRequest{Name: name, Password: password, Device: device(1)}, "1.2.3.4")
	r.must(err)
	return l.Session.Account
}

func (r *rig) login(name, password, addr string) (*chat.Login, error) {
	return r.Login(r.Context(), &pb.LoginRequest{Name: name, Password: password, Device: device(1)}, addr)
}

func code(err error) pb.Code {
	if err == nil {
		return 0
	}
	return chat.Answer(err).Code
}

// away holds that an error is UNAVAILABLE with a time to come back after, and tells the log its cause.
func (r *rig) away(what string, err error) {
	r.Helper()
	if code(err) != pb.Code_CODE_UNAVAILABLE || chat.Answer(err).RetryAfter <= 0 || !errors.Is(err, errAway) || !strings.Contains(err.Error(), "away") {
		r.Errorf("%s: %v", what, err)
	}
}

func TestR1_RegisterLogInResumeLogOut(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	first, err := r.Register(ctx, &pb.RegisterRequest{Name: "0614897828", Password: password, Email: "a@b", Device: device(1)}, "x")
	r.must(err)
	if _, err := r.Register(ctx, &pb.RegisterRequest{Name: "0614897828", Password: password, Device: device(1)}, "x"); code(err) != pb.Code_CODE_NAME_TAKEN {
		t.Fatal(err)
	}
	other := r.register("614897828")
	if other.ID == first.Session.Account.ID {
		t.Fatal("two names, one account")
	}
	if _, err := r.login("614897828", "wrong horse", "x"); code(err) != pb.Code_CODE_BAD_CREDENTIALS {
		t.Fatal(err)
	}
	resume := func(token string, n int) error {
		l, err := r.Resume(ctx, &pb.ResumeRequest{Token: token, Device: device(n)})
		if err == nil && (l.Token != "" || l.Session.Account.Name != "0614897828" || l.Session.Account.PasswordHash != "") {
			t.Fatalf("got %+v", l)
		}
		return err
	}
	r.must(resume(first.Token, 1))
	if err := resume(first.Token, 2); code(err) != pb.Code_CODE_SESSION_ENDED {
		t.Fatalf("with another device: %v", err)
	}
	if err := resume("nonsense", 1); code(err) != pb.Code_CODE_SESSION_ENDED {
		t.Fatal(err)
	}
	second, err := r.login("0614897828", password, "x")
	r.must(err)
	if second.Token == first.Token || len(second.Token) < 43 || second.Session.Account.PasswordHash != "" {
		t.Fatalf("got %+v", second)
	}
	if err := resume(first.Token, 1); code(err) != pb.Code_CODE_SESSION_ENDED {
		t.Fatalf("the device logged in anew: %v", err)
	}
	r.must(r.Logout(ctx, second.Session.ID))
	if err := resume(second.Token, 1); code(err) != pb.Code_CODE_SESSION_ENDED {
		t.Fatal(err)
	}
	// The token itself is nowhere stored, only its hash.
	if _, err := r.store.SessionByToken(ctx, sha256.Sum256([]byte(second.Token))); !errors.Is(err, chat.ErrNotFound) {
		t.Fatal(err)
	}
	r.failing(chat.OpAccountByName, chat.OpSessionByToken, chat.OpEndSession)
	_, err = r.login("0614897828", password, "x")
	r.away("login", err)
	r.away("resume", resume("x", 1))
	r.away("logout", r.Logout(ctx, 1))
	_, err = r.FindUser(ctx, "x")
	r.away("find", err)
}

func TestR1_PasswordsAreArgon2idAndHashedAnewWhenParametersChange(t *testing.T) {
	r := newRig(t)
	r.register("alice")
	hash := func() string {
		a, err := r.store.AccountByName(t.Context(), "alice")
		r.must(err)
		return a.PasswordHash
	}
	old := hash()
	if !strings.HasPrefix(old, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Fatalf("got %q", old)
	}
	_, err := r.login("alice", password, "x")
	r.must(err)
	if hash() != old {
		t.Fatal("hashed anew without need")
	}
	r.opts.Argon.Time = 2
	r.Service = chat.New(r.opts)
	if _, err := r.login("alice", "wrong horse", "x"); code(err) != pb.Code_CODE_BAD_CREDENTIALS || hash() != old {
		t.Fatalf("%v, hash %q", err, hash())
	}
	_, err = r.login("alice", password, "x")
	r.must(err)
	if !strings.HasPrefix(hash(), "$argon2id$v=19$m=8,t=2,p=1$") {
		t.Fatalf("got %q", hash())
	}
	_, err = r.login("alice", password, "x")
	r.must(err)
	if chat.DefaultArgon != (chat.Argon{MemoryKiB: 19456, Time: 2, Threads: 1}) {
		t.Fatal("the default is not OWASP's")
	}
}

func TestLogin_WrongPasswordsAreLimitedPerNameAndAddress(t *testing.T) {
	r := newRig(t, func(o *chat.Options) { o.Attempts, o.AttemptEvery = 3, time.Minute })
	r.register("alice")
	for _, name := range []string{"alice", "nobody"} { // who does not exist looks the same
		for i := range 3 {
			if _, err := r.login(name, "wrong horse", "[2001:db8::1]:5000"); code(err) != pb.Code_CODE_BAD_CREDENTIALS {
				t.Fatalf("%s %d: %v", name, i, err)
			}
		}
		_, err := r.login(name, password, "2001:db8::2") // the same network
		if e := chat.Answer(err); e == nil || e.Code != pb.Code_CODE_RATE_LIMITED || e.RetryAfter != time.Minute {
			t.Fatalf("%s: %v", name, err)
		}
	}
	_, err := r.login("alice", password, "10.0.0.1") // nobody locks her out
	r.must(err)
	r.pass(time.Minute)
	for range 10 { // and right ones cost nothing
		_, err = r.login("alice", password, "2001:db8::1")
		r.must(err)
	}
	if _, err := r.login("alice", "wrong horse", "2001:db8::1"); code(err) != pb.Code_CODE_BAD_CREDENTIALS {
		t.Fatal(err)
	}
	if _, err := r.login("alice", "wrong horse", "2001:db8::1"); code(err) != pb.Code_CODE_RATE_LIMITED {
		t.Fatal(err)
	}
	r.failing(chat.OpAccountByName)
	for range 5 { // what was not tried does not count
		_, err = r.login("alice", password, "10.0.0.2")
		r.away("login", err)
	}
}

func TestLogin_HashingHasABoundedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := chat.Argon{MemoryKiB: 4 << 10, Time: 1, Threads: 1}
		r := newRig(t, func(o *chat.Options) { o.Hashers, o.HashQueue, o.Argon = 1, 2, slow })
		const n = 40
		var mu sync.Mutex
		got := map[pb.Code]int{}
		var all sync.WaitGroup
		start := make(chan struct{})
		for i := range n {
			all.Go(func() {
				<-start
				_, err := r.login(fmt.Sprint("nobody", i), password, "x")
				if err != nil && code(err) == pb.Code_CODE_RATE_LIMITED && chat.Answer(err).RetryAfter <= 0 {
					t.Error("no time to come back after")
				}
				mu.Lock()
				got[code(err)]++
				mu.Unlock()
			})
		}
		close(start)
		all.Wait()
		if got[pb.Code_CODE_BAD_CREDENTIALS] < 3 || got[pb.Code_CODE_RATE_LIMITED] == 0 || got[pb.Code_CODE_BAD_CREDENTIALS]+got[pb.Code_CODE_RATE_LIMITED] != n {
			t.Fatalf("got %v", got)
		}
	})
}

func TestR4_FriendsAskAcceptRejectList(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	alice, bob := r.register("alice"), r.register("bob")
	add := func(by chat.Account, name string) (chat.Outgoing, error) {
		return r.AddFriend(ctx, by, &pb.AddFriendRequest{Name: name, Greeting: "hi %s 🙂"})
	}
	answer := func(by chat.Account, name string, accept bool) (chat.Outgoing, error) {
		return r.AnswerFriend(ctx, by, &pb.AnswerFriendRequest{Name: name, Accept: accept})
	}
	list := func(a chat.Account) string {
		friends, err := r.ListFriends(ctx, a.ID)
		r.must(err)
		var s []string
		for _, f := range friends {
			s = append(s, fmt.Sprint(f.GetUser().GetName(), " ", f.GetState(), " ", f.GetGreeting(), " ", f.GetConversation(), " ", f.GetTimeMs()))
		}
		return strings.Join(s, "; ")
	}
	refused := func(what string, want pb.Code, err error) {
		t.Helper()
		if code(err) != want {
			t.Fatalf("%s: got %v, want %v", what, err, want)
		}
	}
	noticed := func(out chat.Outgoing, err error, change pb.FriendNotice_Change, by chat.Account, version uint64) {
		t.Helper()
		r.must(err)
		m, n := out.Message, out.Message.GetPayload().GetFriend()
		if m.GetConversation() != wire.Direct(alice.ID, bob.ID) || m.GetSender().GetName() != by.Name || wire.CheckMessageID(m.GetClientMsgId()) != nil ||
			n.GetChange() != change || n.GetBy().GetId() != wire.FormatID(by.ID) || n.GetVersion() != version || out.Version != version || n.GetTo().GetId() == n.GetBy().GetId() {
			t.Fatalf("got %v", out)
		}
		unsent, err := r.store.Unsent(ctx, m.GetConversation(), version, 100)
		r.must(err)
		if last := unsent[len(unsent)-1]; last.ID != out.ID || !last.Message.EqualVT(m) {
			t.Fatalf("the outbox has %v", unsent)
		}
	}
	_, err := add(alice, "alice")
	refused("oneself", pb.Code_CODE_INVALID, err)
	_, err = add(alice, "nobody")
	refused("nobody", pb.Code_CODE_NOT_FOUND, err)
	_, err = answer(bob, "alice", true)
	refused("nothing asked", pb.Code_CODE_NOT_FOUND, err)
	_, err = answer(bob, "nobody", true)
	refused("nobody asked", pb.Code_CODE_NOT_FOUND, err)
	_, err = answer(bob, "bob", true)
	refused("oneself", pb.Code_CODE_NOT_FOUND, err)

	out, err := add(alice, "bob")
	noticed(out, err, pb.FriendNotice_CHANGE_REQUESTED, alice, 1)
	if out.Message.GetPayload().GetFriend().GetGreeting() != "hi %s 🙂" {
		t.Fatalf("got %v", out)
	}
	_, err = add(alice, "bob")
	refused("asked already", pb.Code_CODE_ALREADY, err)
	_, err = answer(alice, "bob", true)
	refused("one's own request", pb.Code_CODE_NOT_FOUND, err)
	if a, b := list(alice), list(bob); a != "bob STATE_ASKED_BY_ME hi %s 🙂 d:1:2 1700000000000" || b != "alice STATE_ASKED_BY_THEM hi %s 🙂 d:1:2 1700000000000" {
		t.Fatalf("%q, %q", a, b)
	}
	out, err = answer(bob, "alice", false)
	noticed(out, err, pb.FriendNotice_CHANGE_REJECTED, bob, 2)
	if list(alice)+list(bob) != "" {
		t.Fatal(list(alice))
	}
	out, err = add(bob, "alice") // again, the other way round
	noticed(out, err, pb.FriendNotice_CHANGE_REQUESTED, bob, 3)
	r.pass(time.Second)
	out, err = add(alice, "bob") // asking back accepts
	noticed(out, err, pb.FriendNotice_CHANGE_ACCEPTED, alice, 4)
	if got := list(bob); got != "alice STATE_FRIEND hi %s 🙂 d:1:2 1700000001000" {
		t.Fatal(got)
	}
	_, err = add(bob, "alice")
	refused("friends already", pb.Code_CODE_ALREADY, err)
	_, err = answer(alice, "bob", true)
	refused("accepted already", pb.Code_CODE_ALREADY, err)
	_, err = answer(alice, "bob", false)
	refused("too late to reject", pb.Code_CODE_NOT_FOUND, err)
	if unsent, err := r.store.Unsent(ctx, "", 0, 100); err != nil || len(unsent) != 4 {
		t.Fatalf("a refusal left something: %v, %v", unsent, err)
	}
	r.failing(chat.OpChangePair)
	_, err = add(alice, "bob")
	r.away("add", err)
	r.failing(chat.OpCountPairs)
	_, err = add(alice, "bob")
	r.away("add", err)
	r.failing(chat.OpPairs)
	_, err = r.ListFriends(ctx, alice.ID)
	r.away("list", err)
}

func TestR4_BothAskAtOnce(t *testing.T) {
	for range 20 {
		r := newRig(t)
		alice, bob := r.register("alice"), r.register("bob")
		var both sync.WaitGroup
		both.Go(func() { _, _ = r.AddFriend(t.Context(), alice, &pb.AddFriendRequest{Name: "bob"}) })
		both.Go(func() { _, _ = r.AddFriend(t.Context(), bob, &pb.AddFriendRequest{Name: "alice"}) })
		both.Wait()
		if p, err := r.store.Pair(t.Context(), alice.ID, bob.ID); err != nil || p.State != chat.PairFriends || p.Version != 2 {
			t.Fatalf("%+v, %v", p, err)
		}
	}
}

func TestR4_PairsAreLimited(t *testing.T) {
	r := newRig(t, func(o *chat.Options) { o.MaxPairs = 2 })
	a := make([]chat.Account, 0, 5)
	for i := range 5 {
		a = append(a, r.register(fmt.Sprint("user", i)))
	}
	add := func(by, to int) error {
		_, err := r.AddFriend(t.Context(), a[by], &pb.AddFriendRequest{Name: a[to].Name})
		return err
	}
	r.must(add(0, 1))
	r.must(add(2, 0))
	for _, who := range [][2]int{{0, 3}, {3, 0}} {
		if err := add(who[0], who[1]); code(err) != pb.Code_CODE_LIMIT {
			t.Fatalf("%v: %v", who, err)
		}
	}
	r.must(add(0, 2)) // to accept adds none
}

func TestNotice_HasAVersion7ID(t *testing.T) {
	r := newRig(t)
	alice := r.register("alice")
	r.register("bob")
	out, err := r.AddFriend(t.Context(), alice, &pb.AddFriendRequest{Name: "bob"})
	r.must(err)
	id, err := uuid.Parse(out.Message.GetClientMsgId())
	r.must(err)
	sec, nsec := id.Time().UnixTime()
	if id.Version() != 7 || id.Variant() != uuid.RFC4122 || time.Unix(sec, nsec).UnixMilli() != r.now.UnixMilli() {
		t.Fatalf("%s: version %d, %v", id, id.Version(), time.Unix(sec, nsec))
	}
}

func TestI9_FailuresHoldNoSecrets(t *testing.T) {
	r := newRig(t)
	r.failing(chat.OpCreateAccount, chat.OpCreateSession, chat.OpPair)
	_, err1 := r.Register(t.Context(), &pb.RegisterRequest{Name: "alice", Password: "s3cret-pass", Device: device(1)}, "x")
	_, err2 := r.PrepareSend(t.Context(), life, chat.Account{ID: 1}, text("d:1:2", "s3cret-text"))
	for _, err := range []error{err1, err2} {
		r.away("", err)
		if strings.Contains(fmt.Sprintf("%+v %#v", err, err), "s3cret") {
			t.Errorf("%v", err)
		}
	}
	if code(errors.New("anything")) != pb.Code_CODE_INTERNAL || strings.Contains(chat.Answer(errors.New("s3cret")).Message, "s3cret") {
		t.Error("what is not known is told to the client")
	}
}
