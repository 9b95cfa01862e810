package presence_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/futurechat/future/router/presence"
	"github.com/futurechat/future/router/presence/presencetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory_Conforms(t *testing.T) {
	presencetest.Run(t, func(*testing.T) presencetest.Fixture {
		now := time.Unix(1e9, 0)
		m := presence.NewMemory(presence.MemoryOptions{Now: func() time.Time { return now }})
		return presencetest.Fixture{
			Store:       m,
			Broken:      presence.NewMemory(presence.MemoryOptions{Fault: func(presence.Op) error { return presence.ErrUnavailable }}),
			Wipe:        func(*testing.T) { m.Wipe() },
			LosePlaces:  func(_ *testing.T, user int64) { m.LosePlaces(user) },
			LoseRecents: func(_ *testing.T, conversation string) { m.LoseRecents(conversation) },
			Advance:     func(d time.Duration) { now = now.Add(d) },
			TTL:         time.Minute,
		}
	})
}

func TestMemory_RecentsExpire(t *testing.T) {
	now := time.Unix(1e9, 0)
	m := presence.NewMemory(presence.MemoryOptions{Now: func() time.Time { return now }})
	if _, _, err := m.Append(t.Context(), []presence.Recent{{Conversation: "d:1:2", Seq: 1}}, 0, ""); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if page, err := m.Page(t.Context(), "d:1:2", 0, 0, 1, true); err != nil || page.Newest != 0 {
		t.Errorf("after an hour there is %+v, %v", page, err)
	}
	prevs, _, err := m.Append(t.Context(), []presence.Recent{{Conversation: "d:1:2", Seq: 2}}, 0, "")
	if err != nil || prevs[0].Known {
		t.Errorf("after an hour prev is %+v, %v", prevs[0], err)
	}
}
