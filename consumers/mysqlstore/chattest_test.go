package mysqlstore_test

import (
	"testing"

	"github.com/futurechat/future/consumers/mysqlstore/storetest"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/chat/chattest"
)

func TestStore_Conforms(t *testing.T) {
	storetest.Each(t, func(t *testing.T, k storetest.Kind) {
		chattest.Run(t, func(t *testing.T) chat.Store { return k.Open(t) })
	})
}
