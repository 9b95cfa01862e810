package resume

import (
	"slices"
	"strings"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// inVainMost is how often the first message of a conversation may be told that an earlier one must go first, before a
// new connection, which knows of none, is asked for.
const inVainMost = 3

// lane is the outbox of one conversation. Those before next were written to this connection; when one of them fails so
// that a retry may help, the lane pauses until none is under way and the time has come, and begins again at the first.
type lane struct {
	conversation string
	queue        []*letter
	next         int
	inFlight     int
	paused       bool
	// alone: the first was retried, and the others wait for its answer.
	alone    bool
	retryAt  time.Time
	failures int
	inVain   int
	ready    bool
}

type letter struct {
	message  Message
	written  bool // to any connection, ever
	inFlight bool
}

func (l *lane) reset() {
	l.next, l.inFlight, l.paused, l.alone, l.retryAt, l.failures, l.inVain, l.ready = 0, 0, false, false, time.Time{}, 0, 0, false
	for _, x := range l.queue {
		x.inFlight = false
	}
}

func (m *Machine) submit(msg Message, written bool) {
	l := m.lanes[msg.Conversation]
	if l == nil {
		l = &lane{conversation: msg.Conversation}
		m.lanes[msg.Conversation] = l
	}
	l.queue = append(l.queue, &letter{message: msg, written: written})
	m.outbox++
	m.makeReady(l)
}

func (m *Machine) makeReady(l *lane) {
	if !m.connected || l.ready {
		return
	}
	l.ready = true
	m.ready = append(m.ready, l)
}

// write sends from the lanes in turn, so that a long one does not keep the others waiting.
func (m *Machine) write() {
	for m.inFlight < m.cfg.Window && len(m.ready) > 0 {
		l := m.ready[0]
		m.ready[0] = nil
		m.ready = m.ready[1:]
		l.ready = false
		if !m.mayWrite(l) {
			continue
		}
		x := l.queue[l.next]
		l.next++
		l.inFlight++
		m.inFlight++
		x.inFlight = true
		m.stats.Written++
		if x.written {
			m.stats.Resent++
		}
		m.do(Write{Message: x.message, Resend: x.written})
		x.written = true
		m.makeReady(l)
	}
}

func (m *Machine) mayWrite(l *lane) bool {
	if l.paused {
		if l.inFlight > 0 || m.now.Before(l.retryAt) {
			return false
		}
		l.paused, l.alone, l.next, l.retryAt = false, true, 0, time.Time{}
	}
	if l.alone && l.inFlight > 0 {
		return false
	}
	return l.next < len(l.queue)
}

func (m *Machine) find(conversation, id string) (*lane, int) {
	l := m.lanes[conversation]
	if l == nil {
		return nil, -1
	}
	i := slices.IndexFunc(l.queue, func(x *letter) bool { return x.message.ID == id })
	return l, i
}

func (m *Machine) answered(e Answered) {
	l, i := m.find(e.Conversation, e.ID)
	if l == nil || i < 0 || !l.queue[i].inFlight {
		m.stats.Stale++
		return
	}
	if e.Err != nil && mayRetry(e.Err) {
		m.failed(l, i, e.Err)
		return
	}
	x := m.remove(l, i)
	l.alone, l.failures, l.inVain = false, 0, 0
	if e.Err != nil {
		m.stats.Failed++
		m.do(Failed{x.message, e.Err})
	} else {
		m.stats.Acked++
		m.do(Sent{Conversation: e.Conversation, ID: e.ID, Seq: e.Seq, Time: e.Time})
	}
	m.makeReady(l)
}

// failed: a retry may help.
func (m *Machine) failed(l *lane, i int, err *wire.Error) {
	x := l.queue[i]
	x.inFlight = false
	l.inFlight--
	m.inFlight--
	if noSession(err) {
		m.do(Reconnect{"send: " + err.Code.String()})
	}
	inOrder := err.Code == pb.Code_CODE_RETRY_IN_ORDER
	if inOrder && i == 0 && l.alone {
		if l.inVain++; l.inVain >= inVainMost {
			l.inVain = 0
			m.do(Reconnect{"the node waits for a message that this client does not have"})
		}
	}
	if !inOrder || !l.paused {
		if !l.paused {
			l.failures++
		}
		at := m.now.Add(m.pause(l.failures, err))
		if l.retryAt.Before(at) {
			l.retryAt = at
			m.timers.add(timer{at: at, lane: l})
		}
	}
	l.paused, l.alone = true, false
	m.makeReady(l)
}

// remove takes a letter out for good.
func (m *Machine) remove(l *lane, i int) *letter {
	x := l.queue[i]
	l.queue = slices.Delete(l.queue, i, i+1)
	if x.inFlight {
		l.inFlight--
		m.inFlight--
	}
	if i < l.next {
		l.next--
	}
	m.outbox--
	if len(l.queue) == 0 {
		l.retryAt = time.Time{}
		delete(m.lanes, l.conversation)
	}
	return x
}

// rejected gives a message up that the server has dropped. Not for a right that had ended: what was dropped is one copy, and the
// message still gets an answer of its own, or is sent again; by then the right may have begun anew, and that copy is stored.
func (m *Machine) rejected(e Rejected) {
	l, i := m.find(e.Conversation, e.ID)
	ended := e.Err != nil && (e.Err.Code == pb.Code_CODE_NOT_FRIENDS || e.Err.Code == pb.Code_CODE_NOT_FOUND)
	if l == nil || i < 0 || ended {
		m.stats.Stale++
		return
	}
	x := m.remove(l, i)
	m.stats.Failed++
	m.do(Failed{x.message, e.Err})
	m.makeReady(l)
}

// failAll gives up the whole outbox: it was another account's.
func (m *Machine) failAll() {
	for _, l := range m.sortedLanes() {
		for len(l.queue) > 0 {
			m.stats.Failed++
			m.do(Failed{Message: m.remove(l, 0).message})
		}
	}
}

// sortedLanes is the same at every run, as a map's order is not.
func (m *Machine) sortedLanes() []*lane {
	out := make([]*lane, 0, len(m.lanes))
	for _, l := range m.lanes {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *lane) int { return strings.Compare(a.conversation, b.conversation) })
	return out
}
