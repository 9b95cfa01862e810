package timeline

import (
	"context"
	"sync"
	"time"

	"github.com/futurechat/future/router/clock"
)

// flight lets many that ask the database for the same at a time share one answer.
type flight struct {
	mu    sync.Mutex
	calls map[string]*sharedCall
}

type sharedCall struct {
	done chan struct{} // closed once page and err are set
	page storedPage
	err  error
}

// do gives what read gives, or what a read of the same key gives that is under way. That goes on when its caller's ctx ends, for
// the sake of the others.
func (f *flight) do(ctx context.Context, c clock.Clock, key string, read func() (storedPage, error)) (storedPage, error) {
	f.mu.Lock()
	call := f.calls[key]
	if call == nil {
		call = &sharedCall{done: make(chan struct{})}
		if f.calls == nil {
			f.calls = map[string]*sharedCall{}
		}
		f.calls[key] = call
		c.NewGroup().Go(func() { // bounded in time by read; nobody waits for it at the end of the process
			call.page, call.err = read()
			f.mu.Lock()
			delete(f.calls, key)
			f.mu.Unlock()
			close(call.done)
		})
	}
	f.mu.Unlock()
	c.Wait(ctx, time.Time{}, call.done)
	if !clock.Closed(call.done) {
		return storedPage{}, context.Cause(ctx)
	}
	return call.page, call.err
}
