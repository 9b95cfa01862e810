package chattest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/futurechat/future/router/chat"
)

// names are accounts that some database would take for one another.
var names = []string{
	"0614897828", "614897828", "00614897828", "alice", "Alice", "ALICE", "álice", "a\u0301lice", "alıce", "ali%", "ali_", "ali'ce", `ali"ce`, `ali\ce`,
	"ß", "ss", "🙂🙂", "🙃🙃", "日本語", "شكرا", "a b", "a  b", "-- x", "?1", "%s%n", "0x10", "1e3", "1000",
}

func (s suite) names(t *testing.T) {
	f := s.fixture(t)
	made := f.people(names...)
	for i, name := range names {
		a, err := f.AccountByName(f.ctx, name)
		f.must(err)
		if a != made[i] {
			t.Errorf("%q: got %+v, want %+v", name, a, made[i])
		}
	}
	for _, name := range []string{"aLICE", "614897828 ", "0614897828\u200b", "ali", "%", "", "a\u0300lice", "🙁🙁"} {
		if a, err := f.AccountByName(f.ctx, name); !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("%q: got %+v, %v", name, a, err)
		}
	}
}

func (s suite) taken(t *testing.T) {
	f := s.fixture(t)
	f.people(names...)
	for _, name := range names {
		if _, err := f.CreateAccount(f.ctx, chat.Account{Name: name, PasswordHash: "other"}); !errors.Is(err, chat.ErrNameTaken) {
			t.Errorf("%q again: %v", name, err)
		}
		if a, err := f.AccountByName(f.ctx, name); err != nil || a.PasswordHash == "other" {
			t.Errorf("%q: %+v, %v: the refused one changed the account", name, a, err)
		}
	}
}

func (s suite) takenAtOnce(t *testing.T) {
	f := s.fixture(t)
	var made atomic.Int32
	atOnce(8, func(int) {
		_, err := f.CreateAccount(f.ctx, chat.Account{Name: "alice", PasswordHash: "x"})
		switch {
		case err == nil:
			made.Add(1)
		case !errors.Is(err, chat.ErrNameTaken):
			t.Error(err)
		}
	})
	if made.Load() != 1 {
		t.Fatalf("%d accounts of one name", made.Load())
	}
}

func atOnce(n int, do func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

func (s suite) account(t *testing.T) {
	f := s.fixture(t)
	want := chat.Account{Name: "alice", Email: "o'alice+%s@example.org", PasswordHash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA", CreatedMs: 1_700_000_000_123}
	made, err := f.CreateAccount(f.ctx, want)
	f.must(err)
	want.ID = made.ID
	if got, err := f.AccountByName(f.ctx, "alice"); err != nil || got != want || made != want {
		t.Fatalf("made %+v, got %+v, %v, want %+v", made, got, err, want)
	}
	// Two may have one e-mail address, or none.
	for _, name := range []string{"bob", "carol"} {
		_, err := f.CreateAccount(f.ctx, chat.Account{Name: name, Email: want.Email, PasswordHash: "x"})
		f.must(err)
	}
}

func (s suite) passwordHash(t *testing.T) {
	f := s.fixture(t)
	alice := f.people("alice", "bob")[0]
	f.must(f.SetPasswordHash(f.ctx, alice.ID, alice.PasswordHash, "new"))
	f.must(f.SetPasswordHash(f.ctx, alice.ID, alice.PasswordHash, "too late"))
	f.must(f.SetPasswordHash(f.ctx, 1<<40, "x", "nobody"))
	for name, want := range map[string]string{"alice": "new", "bob": alice.PasswordHash} {
		if a, err := f.AccountByName(f.ctx, name); err != nil || a.PasswordHash != want {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

func token(s string) chat.TokenHash { return sha256.Sum256([]byte(s)) }

func (s suite) session(t *testing.T) {
	f := s.fixture(t)
	bob, alice := f.people("bob"), f.people("alice")
	made, err := f.CreateSession(f.ctx, chat.Session{Account: alice[0], DeviceID: "d1", DeviceName: "alice's 📱", CreatedMs: 77}, token("t1"))
	f.must(err)
	if made.ID == 0 {
		t.Fatal("no id")
	}
	_, err = f.CreateSession(f.ctx, chat.Session{Account: bob[0], DeviceID: "d1", CreatedMs: 78}, token("t2"))
	f.must(err)
	got, err := f.SessionByToken(f.ctx, token("t1"))
	f.must(err)
	if got != made || got.Account != alice[0] {
		t.Fatalf("got %+v, want %+v", got, made)
	}
	for _, wrong := range []chat.TokenHash{{}, token("t3")} {
		if got, err := f.SessionByToken(f.ctx, wrong); !errors.Is(err, chat.ErrNotFound) {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
}

func (s suite) sameDevice(t *testing.T) {
	f := s.fixture(t)
	people := f.people("alice", "bob")
	open := func(i int, device, tok string) chat.Session {
		made, err := f.CreateSession(f.ctx, chat.Session{Account: people[i], DeviceID: device, DeviceName: tok}, token(tok))
		f.must(err)
		return made
	}
	first := open(0, "phone", "a")
	open(0, "laptop", "b")
	open(1, "phone", "c")
	second := open(0, "phone", "d")
	if first.ID == second.ID {
		t.Fatal("the new session has the old one's id")
	}
	for tok, want := range map[string]bool{"a": false, "b": true, "c": true, "d": true} {
		_, err := f.SessionByToken(f.ctx, token(tok))
		if want && err != nil || !want && !errors.Is(err, chat.ErrNotFound) {
			t.Errorf("%s: %v, want it to live: %t", tok, err, want)
		}
	}
	f.must(f.EndSession(f.ctx, first.ID)) // ended long ago; the one that replaced it lives on
	if _, err := f.SessionByToken(f.ctx, token("d")); err != nil {
		t.Error(err)
	}
}

func (s suite) sameDeviceAtOnce(t *testing.T) {
	f := s.fixture(t)
	alice := f.people("alice")[0]
	const n = 8
	atOnce(n, func(i int) {
		if _, err := f.CreateSession(f.ctx, chat.Session{Account: alice, DeviceID: "phone"}, token(fmt.Sprint(i))); err != nil {
			t.Error(err)
		}
	})
	alive := 0
	for i := range n {
		if _, err := f.SessionByToken(f.ctx, token(fmt.Sprint(i))); err == nil {
			alive++
		}
	}
	if alive != 1 {
		t.Fatalf("%d sessions of one device", alive)
	}
}

func (s suite) endSession(t *testing.T) {
	f := s.fixture(t)
	alice := f.people("alice")[0]
	made, err := f.CreateSession(f.ctx, chat.Session{Account: alice, DeviceID: "d"}, token("t"))
	f.must(err)
	for range 2 {
		f.must(f.EndSession(f.ctx, made.ID))
		if _, err := f.SessionByToken(f.ctx, token("t")); !errors.Is(err, chat.ErrNotFound) {
			t.Fatal(err)
		}
	}
	f.must(f.EndSession(f.ctx, 1<<40))
}
