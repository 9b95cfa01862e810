package future_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/clientsdk/internal/fakenode"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

func isSend(e *pb.Envelope) bool { return e.GetSend() != nil }

func TestSend_ReceiptAndOwnCopy(t *testing.T) {
	n := fakenode.Start(t)
	c := alice(t, n)
	synced(t, n, c)
	r, err := c.Send(t.Context(), "d:1:2", "hello %s%n 🙂")
	if err != nil || r.Seq == 0 || r.ID == "" || r.Time.IsZero() {
		t.Fatal(r, err)
	}
	m := messages(t, c, 1)[0]
	if m.Text != "hello %s%n 🙂" || !m.Own || m.ID != r.ID || m.Seq != r.Seq || m.Missed {
		t.Fatalf("%+v", m)
	}
	if err := c.Drain(t.Context()); err != nil || c.Stats().Acked != 1 {
		t.Fatal(err, c.Stats())
	}
}

func TestSend_WhatANodeWouldRefuseIsRefusedHere(t *testing.T) {
	n := fakenode.Start(t)
	c := alice(t, n)
	for _, text := range []string{"", "a\x00", "a\xff", string(make([]byte, wire.MaxTextBytes+1))} {
		if _, err := c.Send(t.Context(), "d:1:2", text); !errors.Is(err, future.ErrInvalid) {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	if _, err := c.Send(t.Context(), "d:2:1", "x"); !errors.Is(err, future.ErrInvalid) {
		t.Error(err)
	}
	if len(n.Seen(isSend)) != 0 {
		t.Error("something was sent")
	}
}

func TestSend_RefusalIsTypedAndTold(t *testing.T) {
	n := fakenode.Start(t)
	n.On = func(s *fakenode.Session, e *pb.Envelope) bool {
		if isSend(e) {
			s.Fail(e, wire.ErrNotFriends)
		}
		return isSend(e)
	}
	c := alice(t, n)
	if _, err := c.Send(t.Context(), "d:1:2", "x"); !errors.Is(err, future.ErrNotFriends) {
		t.Fatal(err)
	}
	for e := range c.Events() {
		if f, ok := e.(future.SendFailed); ok {
			if f.Text != "x" || !errors.Is(f.Err, future.ErrNotFriends) {
				t.Fatalf("%+v", f)
			}
			return
		}
	}
}

func TestReconnect_LostAnswerIsSentAgainWithTheSameID(t *testing.T) {
	n := fakenode.Start(t)
	lose := true
	n.On = func(s *fakenode.Session, e *pb.Envelope) bool {
		if !isSend(e) || !lose {
			return false
		}
		lose = false
		n.Set(func() { // it is stored, but the connection ends before anybody hears of it
			n.Append("d:1:2", s.Account, e.GetSend().GetClientMsgId(), e.GetSend().GetPayload())
		})
		_ = s.Conn.Close()
		return true
	}
	c := alice(t, n)
	synced(t, n, c)
	r, err := c.Send(t.Context(), "d:1:2", "once")
	if err != nil {
		t.Fatal(err)
	}
	sends := n.Seen(isSend)
	if len(sends) != 2 || sends[0].GetSend().GetResend() || !sends[1].GetSend().GetResend() || sends[1].GetSend().GetClientMsgId() != r.ID {
		t.Fatal(sends)
	}
	n.Say("after")
	if got := messages(t, c, 2); got[0].Text != "once" || got[1].Text != "after" {
		t.Fatalf("%+v", got)
	}
}

// Connections end at random while both sides write, and some when a message was stored and not yet acknowledged: everything once, in
// order, on both sides.
func TestReconnect_NothingLostDoubledOrReordered(t *testing.T) {
	const each = 300
	n := fakenode.Start(t)
	var sends atomic.Int64
	n.On = func(s *fakenode.Session, e *pb.Envelope) bool {
		if !isSend(e) || e.GetSend().GetResend() || sends.Add(1)%50 != 0 {
			return false
		}
		n.Set(func() { n.Append("d:1:2", s.Account, e.GetSend().GetClientMsgId(), e.GetSend().GetPayload()) })
		_ = s.Conn.Close()
		return true
	}
	c := alice(t, n, future.WithEventBuffer(20))
	synced(t, n, c)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range each {
		n.Say(fmt.Sprintf("bob %d", i))
		if _, err := c.SendAsync("d:1:2", fmt.Sprintf("alice %d", i)); err != nil {
			t.Fatal(err)
		}
		if rng.IntN(25) == 0 {
			n.Kill()
		}
	}
	got := messages(t, c, 2*each)
	if err := c.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.Lock()
	defer n.Unlock()
	log := n.Logs["d:1:2"]
	if len(log) != 2*each {
		t.Fatalf("%d messages are stored, %d were written", len(log), 2*each)
	}
	next := map[string]int{}
	for i, m := range got {
		if m.Seq != log[i].Seq {
			t.Fatalf("message %d is %d, want %d", i, m.Seq, log[i].Seq)
		}
		if want := fmt.Sprintf("%s %d", m.Sender.Name, next[m.Sender.Name]); m.Text != want {
			t.Fatalf("%q, want %q", m.Text, want)
		}
		next[m.Sender.Name]++
	}
	if s := c.Stats(); s.Lost == 0 || s.Resent == 0 {
		t.Errorf("the test did not break anything: %+v", s)
	}
}

// A program that does not read its events can still send, holds no more than the buffer, and misses nothing later.
func TestBackPressure_UnreadEventsStayWithTheServer(t *testing.T) {
	const many = 500
	n := fakenode.Start(t)
	c := alice(t, n, future.WithEventBuffer(8))
	synced(t, n, c)
	for i := range many {
		n.Say(fmt.Sprint(i))
	}
	if _, err := c.Send(t.Context(), "d:1:3", "still works"); err != nil {
		t.Fatal(err)
	}
	if s := c.Stats(); s.Unread > 8+2 || s.Shown > 8 {
		t.Fatalf("%+v", s)
	}
	i := 0
	for i < many {
		if m := messages(t, c, 1)[0]; m.Conversation == "d:1:2" {
			if m.Text != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, m.Text)
			}
			i++
		}
	}
}

func TestRetryable_KeepsTheOrder(t *testing.T) {
	n := fakenode.Start(t)
	failed := map[string]bool{}
	held := ""
	n.On = func(s *fakenode.Session, e *pb.Envelope) bool {
		id := e.GetSend().GetClientMsgId()
		switch {
		case !isSend(e):
			return false
		case held != "" && held != id:
			s.Fail(e, wire.ErrRetryInOrder)
			return true
		case len(failed) < 5 && !failed[id]:
			failed[id], held = true, id
			s.Fail(e, &wire.Error{Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: time.Millisecond})
			return true
		}
		held = ""
		return false
	}
	c := alice(t, n)
	for i := range 20 {
		if _, err := c.SendAsync("d:1:2", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.Lock()
	defer n.Unlock()
	for i, m := range n.Logs["d:1:2"] {
		if m.Payload.GetText().GetText() != fmt.Sprint(i) {
			t.Fatalf("message %d is %v", i, m.Payload)
		}
	}
}

func TestOutbox_IsBounded(t *testing.T) {
	n := fakenode.Start(t)
	n.On = func(_ *fakenode.Session, e *pb.Envelope) bool { return isSend(e) } // never answered
	c := alice(t, n, future.WithOutbox(3))
	var pending []*future.Pending
	for range 3 {
		p, err := c.SendAsync("d:1:2", "x")
		if err != nil {
			t.Fatal(err)
		}
		pending = append(pending, p)
	}
	if _, err := c.SendAsync("d:1:2", "x"); !errors.Is(err, future.ErrOutboxFull) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Send(ctx, "d:1:2", "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := c.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range pending {
		if _, err := p.Wait(t.Context()); !errors.Is(err, future.ErrClosed) {
			t.Fatal(err)
		}
	}
	if _, err := c.Send(t.Context(), "d:1:2", "x"); !errors.Is(err, future.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := c.Friends(t.Context()); !errors.Is(err, future.ErrClosed) {
		t.Fatal(err)
	}
}

func TestFolder_RestartGoesOnWhereItWas(t *testing.T) {
	n := fakenode.Start(t)
	dir := filepath.Join(t.TempDir(), "alice")
	c := alice(t, n, future.WithDir(dir))
	synced(t, n, c)
	if _, err := future.Dial(t.Context(), []string{n.Addr()}, future.WithDir(dir)); !errors.Is(err, future.ErrLocked) {
		t.Fatalf("two processes in one folder: %v", err)
	}
	n.Say("one")
	messages(t, c, 1)
	n.Set(func() { n.On = func(_ *fakenode.Session, e *pb.Envelope) bool { return isSend(e) } })
	for i := range 3 {
		if _, err := c.SendAsync("d:1:2", fmt.Sprint("mine ", i)); err != nil {
			t.Fatal(err)
		}
	}
	n.Say("two") // comes, but the program ends before it reads
	waitFor(t, "the second message", func() bool { return c.Stats().Shown == 2 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	n.Say("three")
	n.Set(func() { n.On = nil; n.Requests = nil })

	c = alice(t, n, future.WithDir(dir))
	if s, ok := c.Session(); !ok || s.User.Name != "alice" {
		t.Fatal("the token was not kept")
	}
	if err := c.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range messages(t, c, 5) {
		got = append(got, m.Text)
	}
	if fmt.Sprint(got) != "[two three mine 0 mine 1 mine 2]" {
		t.Fatal(got)
	}
	for _, e := range n.Seen(isSend) {
		if !e.GetSend().GetResend() {
			t.Error("sent again without saying so")
		}
	}
	info, err := os.Stat(filepath.Join(dir, "journal"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
}

func TestClosing_ReplacedStaysAwayUntilAPersonActs(t *testing.T) {
	n := fakenode.Start(t)
	c := alice(t, n)
	synced(t, n, c)
	n.Set(func() { n.Sessions[0].Close(pb.Closing_REASON_REPLACED, 0) })
	if s := changed(t, c, future.Away); !errors.Is(s.Err, future.ErrReplaced) || !errors.Is(s.Err, future.ErrStayAway) {
		t.Fatal(s)
	}
	if _, err := c.Friends(t.Context()); !errors.Is(err, future.ErrReplaced) {
		t.Fatal(err)
	}
	if _, err := c.Send(t.Context(), "d:1:2", "x"); !errors.Is(err, future.ErrReplaced) {
		t.Fatal(err)
	}
	if err := c.Reconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Friends(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestSession_EndedIsRefreshed(t *testing.T) {
	n := fakenode.Start(t)
	asked := make(chan error, 10)
	c := alice(t, n, future.WithRefresh(func(_ context.Context, ended error) (future.Credentials, error) {
		asked <- ended
		return future.Credentials{Name: "alice", Password: "password"}, nil
	}))
	synced(t, n, c)
	n.Set(func() { n.Tokens = map[string]*pb.User{} })
	n.Kill()
	if _, err := c.Send(t.Context(), "d:1:2", "x"); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; !errors.Is(err, future.ErrSessionEnded) {
		t.Fatal(err)
	}
}

func TestSession_EndedIsToldAndLoginWorksAgain(t *testing.T) {
	n := fakenode.Start(t)
	c := alice(t, n)
	changed(t, c, future.Online)
	n.Set(func() { n.Tokens = map[string]*pb.User{} })
	n.Kill()
	if s := changed(t, c, future.LoggedOut); !errors.Is(s.Err, future.ErrSessionEnded) {
		t.Fatal(s)
	}
	if _, err := c.Send(t.Context(), "d:1:2", "x"); !errors.Is(err, future.ErrSessionEnded) {
		t.Fatal(err)
	}
	if _, err := c.Login(t.Context(), "alice", "wrong password"); !errors.Is(err, future.ErrBadCredentials) {
		t.Fatal(err)
	}
	if _, err := c.Login(t.Context(), "alice", "password"); err != nil {
		t.Fatal(err)
	}
	if err := c.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Session(); ok {
		t.Fatal("still a session")
	}
	if _, err := c.Register(t.Context(), "carol", "password", future.WithEmail("carol@example.test")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Login(t.Context(), "alice", "password"); err == nil {
		t.Log("a node may allow it")
	}
}

// farConn claims to come from another machine.
type farConn struct{ net.Conn }

func (farConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

func TestPassword_NeverInClearOffLoopback(t *testing.T) {
	n := fakenode.Start(t)
	far := future.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return farConn{c}, err
	})
	c := dial(t, n, far)
	if _, err := c.Login(t.Context(), "alice", "password"); !errors.Is(err, future.ErrInsecure) {
		t.Fatal(err)
	}
	if _, err := c.Register(t.Context(), "carol", "password"); !errors.Is(err, future.ErrInsecure) {
		t.Fatal(err)
	}
	if len(n.Seen(func(e *pb.Envelope) bool { return e.GetLogin() != nil || e.GetRegister() != nil })) != 0 {
		t.Fatal("the password was sent")
	}
	alice(t, n, far, future.WithInsecurePasswords())
}

func TestSilence_ADeadNodeIsLeft(t *testing.T) {
	n := fakenode.Start(t)
	n.Hello.PingMs, n.Hello.SilenceMs = 20, 100
	c := alice(t, n)
	waitFor(t, "a ping", func() bool { return len(n.Seen(func(e *pb.Envelope) bool { return e.GetPing() != nil })) > 0 })
	n.Set(func() { n.On = func(_ *fakenode.Session, e *pb.Envelope) bool { return e.GetPing() != nil } })
	changed(t, c, future.Offline)
	n.Set(func() { n.On = nil })
	changed(t, c, future.Online)
}

func TestDial_NobodyThere(t *testing.T) {
	refuse := future.WithDialer(func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") })
	if _, err := future.Dial(t.Context(), []string{"127.0.0.1:1", "127.0.0.1:2"}, refuse); !errors.Is(err, future.ErrUnreachable) {
		t.Fatal(err)
	}
	if _, err := future.Dial(t.Context(), nil); err == nil {
		t.Fatal("no address")
	}
}

func TestHistory_BothWaysAndPending(t *testing.T) {
	n := fakenode.Start(t)
	for i := range 120 {
		n.Say(fmt.Sprint(i))
	}
	pending := 2
	n.On = func(s *fakenode.Session, e *pb.Envelope) bool {
		if e.GetHistory() == nil || pending == 0 {
			return false
		}
		pending--
		s.Fail(e, &wire.Error{Code: pb.Code_CODE_PENDING, RetryAfter: time.Millisecond})
		return true
	}
	c := alice(t, n)
	for _, o := range []future.HistoryOptions{{}, {Forward: true}, {Limit: 70}, {Limit: 70, Forward: true}} {
		i := 0
		for m, err := range c.History(t.Context(), "d:1:2", o) {
			want := 119 - i
			if o.Forward {
				want = i
			}
			if err != nil || m.Text != fmt.Sprint(want) {
				t.Fatal(o, i, m, err)
			}
			i++
		}
		if want := 120; i != want && o.Limit == 0 || o.Limit > 0 && i != o.Limit {
			t.Fatalf("%+v: %d messages", o, i)
		}
	}
	if err := c.MarkRead(t.Context(), "d:1:2", 300); err != nil || n.Reads["d:1:2"] != 300 {
		t.Fatal(err, n.Reads)
	}
}

func TestHandlers_GetEventsInOrder(t *testing.T) {
	n := fakenode.Start(t)
	got := make(chan string, 10)
	c := alice(t, n, future.WithHandlers(future.Handlers{Message: func(m future.Message) { got <- m.Text }}))
	synced(t, n, c)
	n.Say("a")
	n.Say("b")
	if a, b := <-got, <-got; a != "a" || b != "b" {
		t.Fatal(a, b)
	}
}

func TestEpoch_RaisedForgetsPositions(t *testing.T) {
	n := fakenode.Start(t)
	c := alice(t, n)
	n.Say("old")
	synced(t, n, c)
	n.Set(func() { n.Hello.Epoch, n.Seq, n.Logs = 2, 10, map[string][]*pb.Message{} })
	n.Kill()
	changed(t, c, future.Online)
	synced(t, n, c)
	n.Say("new")
	for m := range c.Events() {
		if m, ok := m.(future.Message); ok && m.Text == "new" {
			return
		}
	}
}
