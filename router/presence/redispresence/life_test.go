package redispresence

import (
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/futurechat/future/router/presence"
)

// A server that comes back with an older state has lost messages that were appended, and says nothing of it. What is appended
// next must not seem to follow what is left: a client would pass over what lies between.
func TestAppend_AfterARestartThatLostTheEnd_DoesNotJoin(t *testing.T) {
	m := miniredis.RunT(t)
	s := open(t, Options{Addrs: []string{m.Addr()}})
	life := func(run string) { s.run.Store(&run) }
	add := func(seq uint64) presence.Prev {
		t.Helper()
		prevs, _, err := s.Append(t.Context(), []presence.Recent{{Conversation: "d:1:2", Seq: seq, Message: []byte("m")}}, 1, "")
		if err != nil {
			t.Fatal(err)
		}
		return prevs[0]
	}
	life("first")
	before, err := s.Epoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(3) {
		add(seq + 1)
	}
	meta := s.client.HGetAll(t.Context(), s.recentsMetaKey("d:1:2")).Val()
	add(4)
	add(5)
	// As a snapshot from before 4 and 5 has it.
	if n, err := s.client.ZRemRangeByLex(t.Context(), s.messagesKey("d:1:2"), "("+pad(3)+";", "+").Result(); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	s.client.HSet(t.Context(), s.recentsMetaKey("d:1:2"), meta)
	life("second")
	after, err := s.Epoch(t.Context())
	if err != nil || after == before {
		t.Fatalf("epoch %s, before the restart %s: %v", after, before, err)
	}
	if prev := add(6); prev.Known {
		t.Errorf("6 seems to follow %d", prev.Seq)
	}
	page, err := s.Page(t.Context(), "d:1:2", 0, 0, 10, true)
	if err != nil || page.ContiguousFrom != 6 || len(page.Messages) != 1 {
		t.Errorf("recents are whole from %d on: %v, %v", page.ContiguousFrom, page.Messages, err)
	}
	if prev := add(7); !prev.Known || prev.Seq != 6 {
		t.Errorf("7 follows %v", prev)
	}
}
