package deliver

import (
	"context"
	"sync"
)

// mailbox brings a worker what happens elsewhere. It is bounded by what the worker has asked for: each frame, push and commit
// in flight is answered once. While the worker reads the log, an event that must not wait ends the read.
type mailbox struct {
	wake chan struct{} // has one when there is something new

	mu        sync.Mutex
	events    []Event
	poked     bool
	interrupt context.CancelFunc // not nil while the worker reads
	waited    bool               // what was dropped ends the read as well
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

// post adds an event, and ends a read.
func (m *mailbox) post(e Event) { m.put(e, true) }

// drop adds an event that can wait until the next records come, unless reading says otherwise.
func (m *mailbox) drop(e Event) { m.put(e, false) }

// poke makes the worker look around.
func (m *mailbox) poke() { m.put(nil, true) }

func (m *mailbox) put(e Event, urgent bool) {
	m.mu.Lock()
	if e != nil {
		m.events = append(m.events, e)
	}
	var interrupt context.CancelFunc
	if urgent || m.waited {
		m.poked = true
		interrupt, m.interrupt = m.interrupt, nil
	}
	m.mu.Unlock()
	if interrupt != nil {
		interrupt()
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take gives what came.
func (m *mailbox) take() []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	events := m.events
	m.events, m.poked = nil, false
	return events
}

// reading lets interrupt be called by the next urgent event; if waited, by any. It reports false if there was one already.
func (m *mailbox) reading(interrupt context.CancelFunc, waited bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.poked || waited && len(m.events) > 0 {
		return false
	}
	m.interrupt, m.waited = interrupt, waited
	return true
}

// read ends reading.
func (m *mailbox) read() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.interrupt, m.waited = nil, false
}
