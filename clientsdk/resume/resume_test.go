package resume_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/futurechat/future/clientsdk/resume"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// small makes every bound be met.
func small(t *rapid.T) resume.Config {
	cfg := resume.Defaults
	cfg.Window = rapid.IntRange(1, 6).Draw(t, "window")
	cfg.Fetches = rapid.IntRange(1, 3).Draw(t, "fetches")
	cfg.PageSize = rapid.IntRange(1, 5).Draw(t, "page")
	cfg.Room = rapid.IntRange(1, 8).Draw(t, "room")
	cfg.HeldEach = rapid.IntRange(0, 4).Draw(t, "heldEach")
	cfg.HeldAll = rapid.IntRange(0, 6).Draw(t, "heldAll")
	return cfg
}

// Whatever the network, the server and the program's restarts do: every message is shown once and in order, and every
// message sent is stored once and in order.
func TestModel_EachMessageOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, small(t))
		conv := func() string { return rapid.SampledFrom(w.convs).Draw(t, "conversation") }
		n := rapid.SampledFrom([]int{20, 100, 600}).Draw(t, "steps")
		for range n {
			switch k := rapid.IntRange(0, 99).Draw(t, "action"); {
			case k < 18:
				w.append(conv(), peer, w.id(), w.chance("hidden", 15))
			case k < 32:
				w.submit(conv())
			case k < 52 && len(w.toServer) > 0:
				w.serve(true)
			case k < 76 && len(w.toClient) > 0:
				w.receive()
			case k < 84:
				w.take()
			case k < 90:
				if at := w.m.Wake(); !at.IsZero() {
					w.tick(max(at.Sub(w.now), 0))
				}
			case k < 92:
				w.tick(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			case k < 96 && w.up:
				w.disconnect()
			case k < 98:
				w.restart()
			case !w.up:
				w.connect()
			}
			if !w.up && w.chance("back", 40) {
				w.connect()
			}
		}
		w.heal()
		w.check()
	})
}

func message(conv string, prev, seq uint64) *pb.Message {
	return &pb.Message{
		Conversation: conv, Seq: seq, PrevSeq: prev, PrevKnown: true, Sender: &pb.User{Id: peer},
		ClientMsgId: "0193b1a0-0000-7000-8000-000000000001", Payload: text("x"),
	}
}

func count[E resume.Effect](effects []resume.Effect) (n int) {
	for _, e := range effects {
		if _, ok := e.(E); ok {
			n++
		}
	}
	return n
}

// started is a machine whose client follows d:1:2 from seq 10 on.
func started() (*resume.Machine, time.Time) {
	now := time.Unix(1_700_000_000, 0)
	m := resume.New(resume.Defaults, rand.New(rand.NewPCG(1, 2)), resume.State{
		User: self, Cluster: "test", Epoch: 1, Started: true, Positions: []resume.Position{{Conversation: "d:1:2", Seq: 10}},
	})
	m.Step(now, resume.Opened{User: self, Cluster: "test", Epoch: 1})
	m.Step(now, resume.Heads{Heads: []*pb.Head{{Conversation: "d:1:2", Seq: 10}}})
	return m, now
}

func TestGap_IsFilledBeforeWhatFollows(t *testing.T) {
	m, now := started()
	out := m.Step(now, resume.Delivered{Messages: []*pb.Message{message("d:1:2", 12, 14)}})
	if count[resume.Show](out) != 0 || count[resume.Fetch](out) != 1 {
		t.Fatalf("a message over a gap: %v", out)
	}
	out = m.Step(now, resume.Page{Conversation: "d:1:2", Page: &pb.HistoryResponse{
		CoversAfter: 10, CoversBefore: 14, Messages: []*pb.Message{message("d:1:2", 10, 12)},
	}})
	if count[resume.Show](out) != 2 {
		t.Fatalf("the gap was filled: %v", out)
	}
}

func TestEpoch_PositionsAreForgotten(t *testing.T) {
	m, now := started()
	m.Step(now, resume.Lost{})
	out := m.Step(now, resume.Opened{User: self, Cluster: "test", Epoch: 2})
	if count[resume.Forgotten](out) != 1 {
		t.Fatal(out)
	}
	out = m.Step(now, resume.Heads{Heads: []*pb.Head{{Conversation: "d:1:2", Seq: 5}}})
	if count[resume.Begun](out) != 1 || count[resume.Fetch](out) != 0 {
		t.Fatalf("the new epoch begins at its heads: %v", out)
	}
}

// A program with an outbox of its own sends what an earlier life of it may have sent: a node must look for it.
func TestSubmit_WhatHasAnIDAlreadyIsAResend(t *testing.T) {
	m, now := started()
	out := m.Step(now, resume.Submit{Message: resume.Message{Conversation: "d:1:2", ID: "a", Payload: text("x")}, Written: true})
	if w, ok := out[0].(resume.Write); !ok || !w.Resend {
		t.Fatalf("%#v", out)
	}
}

// A node that asks for patience gets it.
func TestRetry_WaitsAsLongAsTheNodeAsks(t *testing.T) {
	m, now := started()
	x := resume.Message{Conversation: "d:1:2", ID: "0193b1a0-0000-7000-8000-000000000002", Payload: text("x")}
	if out := m.Step(now, resume.Submit{Message: x}); count[resume.Write](out) != 1 {
		t.Fatalf("not written: %v", out)
	}
	const patience = 3 * time.Second
	busy := &wire.Error{Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: patience}
	out := m.Step(now, resume.Answered{Conversation: x.Conversation, ID: x.ID, Err: busy})
	out = append(out, m.Step(now.Add(patience-time.Millisecond), resume.Tick{})...)
	if count[resume.Write](out) != 0 {
		t.Fatalf("written again too early: %v", out)
	}
	at := m.Wake()
	if at.Before(now.Add(patience)) || at.After(now.Add(2*patience)) {
		t.Fatalf("wakes after %v", at.Sub(now))
	}
	if out := m.Step(at, resume.Tick{}); count[resume.Write](out) != 1 {
		t.Fatalf("not written again: %v", out)
	}
}

func TestAccount_AnothersOutboxIsNotSent(t *testing.T) {
	m, now := started()
	m.Step(now, resume.Lost{})
	m.Step(now, resume.Submit{Message: resume.Message{Conversation: "d:1:2", ID: "a", Payload: text("x")}})
	out := m.Step(now, resume.Opened{User: "9", Cluster: "test", Epoch: 1})
	if count[resume.Failed](out) != 1 || count[resume.Write](out) != 0 || m.Outbox() != 0 {
		t.Fatal(out)
	}
}

func TestComparison_ADifferenceIsCountedOnceItHasSettled(t *testing.T) {
	m, _ := started()
	now := m.Wake()
	if out := m.Step(now, resume.Tick{}); count[resume.Sync](out) != 1 {
		t.Fatal(out)
	}
	out := m.Step(now, resume.Heads{Heads: []*pb.Head{{Conversation: "d:1:2", Seq: 20}}})
	if count[resume.Fetch](out) != 0 {
		t.Fatal("a delivery may still be on its way")
	}
	now = m.Wake()
	if out := m.Step(now, resume.Tick{}); count[resume.Fetch](out) != 1 {
		t.Fatal(out)
	}
	m.Step(now, resume.Page{Conversation: "d:1:2", Page: &pb.HistoryResponse{
		CoversAfter: 10, CoversBefore: 21, Messages: []*pb.Message{message("d:1:2", 10, 20)},
	}})
	if m.Stats().HeadDifferences != 1 {
		t.Fatalf("%+v", m.Stats())
	}
}

// A head may stand on a record that the viewer may not see: history is not asked for it for ever.
func TestHead_ThatHistoryDoesNotKnowIsLeftAlone(t *testing.T) {
	m, now := started()
	out := m.Step(now, resume.Compare{})
	out = append(out, m.Step(now, resume.Heads{Heads: []*pb.Head{{Conversation: "d:1:2", Seq: 20}}})...)
	fetches := 0
	for range 50 {
		n := count[resume.Fetch](out)
		fetches += n
		if n > 0 {
			out = m.Step(now, resume.Page{Conversation: "d:1:2", Page: &pb.HistoryResponse{CoversAfter: 10}})
			continue
		}
		now = m.Wake()
		out = m.Step(now, resume.Tick{})
		if count[resume.Sync](out) > 0 {
			break
		}
	}
	if fetches == 0 || fetches > 10 {
		t.Fatalf("%d fetches", fetches)
	}
	// What then comes over it is not lost.
	out = m.Step(now, resume.Delivered{Messages: []*pb.Message{message("d:1:2", 20, 22)}})
	if count[resume.Fetch](out) != 1 {
		t.Fatal(out)
	}
}

func TestRetryInOrder_WithNothingEarlierAsksForANewConnection(t *testing.T) {
	m, now := started()
	out := m.Step(now, resume.Submit{Message: resume.Message{Conversation: "d:1:2", ID: "a", Payload: text("x")}})
	for range 20 {
		if count[resume.Reconnect](out) > 0 {
			return
		}
		if count[resume.Write](out) > 0 {
			out = m.Step(now, resume.Answered{Conversation: "d:1:2", ID: "a", Err: &wire.Error{Code: pb.Code_CODE_RETRY_IN_ORDER}})
			continue
		}
		now = m.Wake()
		out = m.Step(now, resume.Tick{})
	}
	t.Fatal("it never asked")
}

// A copy was written late, behind the end of a friendship, and dropped; the friendship began anew, and the resend is stored.
func TestRejected_ACopyBehindTheEndOfARight_TheAnswerDecides(t *testing.T) {
	m, now := started()
	m.Step(now, resume.Submit{Message: resume.Message{Conversation: "d:1:2", ID: "a", Payload: text("x")}})
	out := m.Step(now, resume.Rejected{Conversation: "d:1:2", ID: "a", Err: &wire.Error{Code: pb.Code_CODE_NOT_FRIENDS}})
	if n := count[resume.Failed](out); n != 0 {
		t.Fatal("a message was given up that is stored")
	}
	if out = m.Step(now, resume.Answered{Conversation: "d:1:2", ID: "a", Seq: 9}); count[resume.Sent](out) != 1 {
		t.Fatalf("its acknowledgement was not told: %v", out)
	}
	m.Step(now, resume.Submit{Message: resume.Message{Conversation: "d:1:2", ID: "b", Payload: text("x")}})
	out = m.Step(now, resume.Rejected{Conversation: "d:1:2", ID: "b", Err: &wire.Error{Code: pb.Code_CODE_ID_REUSED}})
	if count[resume.Failed](out) != 1 {
		t.Fatal("another message has the id, and this one was not given up")
	}
}

// FuzzHostile: whatever a server sends, nothing panics and what is held stays bounded.
func FuzzHostile(f *testing.F) {
	files, err := filepath.Glob("../wire/testdata/golden/*.frame")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden frames", err)
	}
	for i, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[wire.HeaderLen:], uint8(i))
	}
	f.Fuzz(func(t *testing.T, payload []byte, order uint8) {
		e, err := wire.Decode(payload)
		if err != nil {
			return
		}
		m, now := started()
		m.Step(now, resume.Submit{Message: resume.Message{Conversation: "d:1:2", ID: "0193b1a0-0000-7000-8000-000000000001", Payload: text("x")}})
		events := []resume.Event{
			resume.Delivered{Messages: e.GetDelivery().GetMessages()},
			resume.Skipped{Skip: e.GetSkip()},
			resume.Heads{Heads: e.GetHeads().GetHeads()},
			resume.Compare{},
			resume.Page{Conversation: "d:1:2", Page: e.GetHistoryPage()},
			resume.Answered{Conversation: "d:1:2", ID: "0193b1a0-0000-7000-8000-000000000001", Err: wire.FromProto(e.GetError())},
			resume.Rejected{Conversation: e.GetRejected().GetConversation(), ID: e.GetRejected().GetClientMsgId()},
			resume.Tick{}, resume.Lost{}, resume.Opened{User: self, Cluster: "x"},
		}
		for i := range 40 {
			out := m.Step(now, events[(i*int(order|1))%len(events)])
			if len(out) > 3*len(payload)+200 {
				t.Fatalf("%d effects of %d bytes", len(out), len(payload))
			}
			now = now.Add(time.Second)
		}
	})
}

// A server that sends what never joins, in ever more conversations, gets no more memory than the bounds say.
func TestHostile_WhatNeverJoinsIsBounded(t *testing.T) {
	cfg := resume.Defaults
	cfg.Conversations = 50
	now := time.Unix(1_700_000_000, 0)
	m := resume.New(cfg, rand.New(rand.NewPCG(1, 2)), resume.State{User: self, Started: true})
	m.Step(now, resume.Opened{User: self})
	for i := range 20_000 {
		m.Step(now, resume.Delivered{Messages: []*pb.Message{message(fmt.Sprintf("g:%d", i%500+1), uint64(i)+1, uint64(i)+2)}})
	}
	s := m.Stats()
	if s.Held > uint64(cfg.HeldAll) || s.Shown != 0 || s.Overflows != 20_000-s.Held {
		t.Fatalf("%+v", s)
	}
}
