package chat_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/chat/chattest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory_Conforms(t *testing.T) {
	chattest.Run(t, func(*testing.T) chat.Store { return chat.NewMemory(chat.MemoryOptions{}) })
}
