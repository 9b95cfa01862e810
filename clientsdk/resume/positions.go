package resume

import (
	"slices"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// fruitlessMost is how often history is asked in vain for what a head promises, before only a higher head is believed.
const fruitlessMost = 4

// conversation is what is known of one. needs tells whether history must be asked.
type conversation struct {
	name string
	// position: all up to here was shown or is not for this viewer. It means nothing until known.
	position uint64
	known    bool
	// target: something is said to exist up to here. settled: history was asked for all up to here, in vain, since the heads
	// were last read.
	target, settled uint64
	// held are messages that came before the ones they follow, by seq, none twice.
	held []*pb.Message

	queued, fetching bool
	retryAt          time.Time
	fruitless        int
	// suspect: the regular comparison found this head, which was not delivered; 0: none.
	suspect uint64
}

func (c *conversation) needs() bool {
	return c.known && c.position < c.target && (c.target > c.settled || len(c.held) > 0)
}

// conversation finds or makes one. nil: its name is none, or there are too many.
func (m *Machine) conversation(name string) *conversation {
	if c := m.conversations[name]; c != nil {
		return c
	}
	if _, err := wire.ParseConversation(name); err != nil {
		m.stats.Invalid++
		return nil
	}
	if len(m.inOrder) >= m.cfg.Conversations {
		m.stats.Overflows++
		return nil
	}
	c := &conversation{name: name}
	m.conversations[name] = c
	m.inOrder = append(m.inOrder, c)
	return c
}

func validMessage(msg *pb.Message) bool {
	if msg.GetSeq() == 0 || wire.CheckMessageID(msg.GetClientMsgId()) != nil {
		return false
	}
	if _, err := wire.ParseID(msg.GetSender().GetId()); err != nil {
		return false
	}
	if t, ok := msg.GetPayload().GetKind().(*pb.Payload_Text); ok && wire.CheckText(t.Text.GetText()) != nil {
		return false
	}
	return true
}

func (m *Machine) delivered(msg *pb.Message) {
	c := m.conversation(msg.GetConversation())
	if c == nil {
		return
	}
	if !validMessage(msg) {
		// Its place must not be passed over on the word of a frame that is wrong; history will tell.
		m.stats.Invalid++
		return
	}
	m.begin(c, msg)
	switch {
	case c.known && msg.GetSeq() <= c.position:
		m.stats.Duplicates++
	case c.known && joins(c, msg.GetPrevKnown(), msg.GetPrevSeq()) && m.room > 0:
		m.show(c, msg, false)
		m.drain(c)
	default:
		c.target = max(c.target, msg.GetSeq())
		m.hold(c, msg)
		m.want(c)
	}
}

func (m *Machine) skipped(s *pb.Skip) {
	c := m.conversation(s.GetConversation())
	if c == nil || s.GetSeq() == 0 {
		return
	}
	m.begin(c, nil)
	switch {
	case !c.known || s.GetSeq() <= c.position:
	case joins(c, s.GetPrevKnown(), s.GetPrevSeq()):
		m.pass(c, s.GetSeq())
		m.drain(c)
	default:
		c.target = max(c.target, s.GetSeq())
		m.want(c)
	}
}

func joins(c *conversation, prevKnown bool, prev uint64) bool { return prevKnown && prev <= c.position }

// begin gives a conversation its first position if that can be told by now. msg is the first that came of it, or nil.
func (m *Machine) begin(c *conversation, msg *pb.Message) {
	switch {
	case c.known:
	case m.started:
		c.known = true // it had no message when the heads were read
	case m.blind && msg != nil:
		m.beginAt(c, before(msg))
	}
}

// before is the position that msg joins.
func before(msg *pb.Message) uint64 {
	if msg.GetPrevKnown() && msg.GetPrevSeq() < msg.GetSeq() {
		return msg.GetPrevSeq()
	}
	return msg.GetSeq() - 1
}

func (m *Machine) beginAt(c *conversation, seq uint64) {
	if len(c.held) > 0 {
		seq = min(seq, before(c.held[0])) // what came during this session is shown
	}
	c.known, c.position = true, seq
	m.do(Begun{Position{c.name, seq}})
}

func (m *Machine) show(c *conversation, msg *pb.Message, late bool) {
	c.position = msg.GetSeq()
	m.room--
	m.stats.Shown++
	if late {
		m.stats.ShownLate++
	}
	m.do(Show{Message: msg, Late: late})
}

func (m *Machine) pass(c *conversation, seq uint64) {
	c.position = seq
	m.do(Passed{Position{c.name, seq}})
}

// hold keeps a message until those before it have come.
func (m *Machine) hold(c *conversation, msg *pb.Message) {
	i, found := slices.BinarySearchFunc(c.held, msg.GetSeq(), func(x *pb.Message, seq uint64) int {
		return compare(x.GetSeq(), seq)
	})
	size := heldSize(msg)
	switch {
	case found:
		m.stats.Duplicates++
	case len(c.held) >= m.cfg.HeldEach || m.held >= m.cfg.HeldAll || m.heldBytes+size > m.cfg.HeldBytes:
		m.stats.Overflows++
	default:
		c.held = slices.Insert(c.held, i, msg)
		m.held++
		m.heldBytes += size
		m.stats.Held++
	}
}

// heldSize is about what a message takes in memory: a frame may carry fields that no rule bounds.
func heldSize(msg *pb.Message) int { return 512 + msg.SizeVT() }

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// drain does join, and has fetched what is still missing.
func (m *Machine) drain(c *conversation) {
	m.join(c)
	m.want(c)
}

// join shows what is held and follows now, and drops what has come otherwise.
func (m *Machine) join(c *conversation) {
	n := 0
	for ; n < len(c.held); n++ {
		msg := c.held[n]
		if msg.GetSeq() > c.position {
			if !joins(c, msg.GetPrevKnown(), msg.GetPrevSeq()) || m.room == 0 {
				break
			}
			m.show(c, msg, false)
		}
		m.held--
		m.heldBytes -= heldSize(msg)
	}
	if n > 0 {
		c.held = slices.Delete(c.held, 0, n)
		if len(c.held) == 0 {
			c.held = nil
		}
	}
}

// want queues a conversation to be fetched, if it must be and is not already.
func (m *Machine) want(c *conversation) {
	if !m.connected || !c.needs() || c.queued || c.fetching || !c.retryAt.IsZero() {
		return
	}
	c.queued = true
	m.wanting = append(m.wanting, c)
}

// fetchLater has a conversation fetched after a pause.
func (m *Machine) fetchLater(c *conversation, d time.Duration) {
	if c.queued || c.fetching || !c.retryAt.IsZero() {
		return
	}
	c.retryAt = m.now.Add(d)
	m.timers.add(timer{at: c.retryAt, conversation: c})
}

func (m *Machine) retryFetch(c *conversation) {
	c.retryAt = time.Time{}
	if c.position >= c.suspect {
		c.suspect = 0 // the delivery was only on its way
	}
	m.want(c)
}

// fetch asks for history as far as bounds allow. It waits until a good part of a page has room, so that a program that
// takes its messages one by one does not cost a request each.
func (m *Machine) fetch() {
	enough := min(m.cfg.PageSize, (m.cfg.Room+1)/2)
	for m.connected && m.fetching < m.cfg.Fetches && len(m.wanting) > 0 && m.room >= enough {
		c := m.wanting[0]
		m.wanting[0] = nil
		m.wanting = m.wanting[1:]
		c.queued = false
		// What was held for want of room may join now.
		m.join(c)
		if !c.needs() {
			continue
		}
		c.fetching = true
		m.fetching++
		m.stats.Fetches++
		m.do(Fetch{Conversation: c.name, After: c.position, Limit: max(1, min(m.cfg.PageSize, m.room))})
	}
}

func (m *Machine) page(e Page) {
	c := m.conversations[e.Conversation]
	if c == nil || !c.fetching {
		m.stats.Stale++
		return
	}
	c.fetching = false
	m.fetching--
	if e.Err != nil {
		if noSession(e.Err) {
			m.do(Reconnect{"history: " + e.Err.Code.String()})
		}
		c.fruitless++
		n := c.fruitless
		if !mayRetry(e.Err) {
			n = 100 // it is not ours to read, or the server is at fault: the longest pause
		}
		m.fetchLater(c, m.pause(n, e.Err))
		return
	}
	was := c.position
	full := m.take(c, e.Page)
	if c.suspect != 0 && c.position > was {
		m.stats.HeadDifferences++ // history had what was never delivered
	}
	c.suspect = 0
	m.join(c)
	switch {
	case c.position > was:
		c.fruitless = 0
		m.want(c)
	case full: // it waits for room
		m.want(c)
	case c.needs():
		m.nothingNew(c, e.Page)
	}
}

// take shows a page as far as there is room; full tells that there was not enough.
func (m *Machine) take(c *conversation, p *pb.HistoryResponse) (full bool) {
	if p.GetCoversAfter() > c.position {
		return false // it leaves a hole
	}
	end := p.GetCoversBefore()
	last := c.position
	slices.SortStableFunc(p.GetMessages(), func(a, b *pb.Message) int { return compare(a.GetSeq(), b.GetSeq()) })
	for _, msg := range p.GetMessages() {
		switch {
		case msg.GetConversation() != c.name || end != 0 && msg.GetSeq() >= end:
			m.stats.Invalid++
		case msg.GetSeq() <= c.position:
		case !validMessage(msg):
			m.stats.Invalid++ // history is the last word: this one cannot be had
			m.pass(c, msg.GetSeq())
		case m.room == 0:
			return true
		default:
			m.show(c, msg, true)
		}
		last = max(last, c.position)
	}
	// Beyond what is known to exist there is nothing to pass over.
	if to := min(end-1, max(c.target, last)); end > 0 && to > c.position {
		m.pass(c, to)
	}
	return false
}

// nothingNew: a page moved nothing although something is missing. It may not be readable yet, so history is asked again;
// a head alone is believed only so often, since it may stand on a record that this viewer may not see.
func (m *Machine) nothingNew(c *conversation, p *pb.HistoryResponse) {
	c.fruitless++
	if c.fruitless >= fruitlessMost && len(c.held) == 0 && !p.GetMore() && p.GetCoversAfter() <= c.position {
		c.settled, c.fruitless = c.target, 0
	}
	if c.needs() {
		m.fetchLater(c, m.pause(c.fruitless, nil))
	}
}

// sync asks for the heads. One asked for while another is under way is asked for after it: the answer under way may have
// been read too early.
func (m *Machine) sync(regular bool) {
	if m.syncing {
		m.again = true
		return
	}
	m.syncing, m.regular = true, regular
	m.stats.Syncs++
	m.do(Sync{})
}

func (m *Machine) heads(e Heads) {
	if !m.syncing {
		m.stats.Stale++
		return
	}
	m.syncing = false
	if e.Err != nil {
		m.headsFailed(e.Err)
		return
	}
	m.syncFailures = 0
	regular := m.regular && !m.again
	m.nextSync = m.now.Add(m.cfg.Compare/2 + time.Duration(m.rng.Int64N(int64(m.cfg.Compare)+1)))
	for _, h := range e.Heads {
		m.head(h, regular)
	}
	if !m.started {
		m.start()
	}
	if m.again {
		m.again = false
		m.sync(false)
	}
}

func (m *Machine) headsFailed(err *wire.Error) {
	if noSession(err) {
		m.do(Reconnect{"sync: " + err.Code.String()})
	}
	m.again = false
	m.syncFailures++
	m.nextSync = m.now.Add(m.pause(m.syncFailures, err))
	if m.started || m.blind {
		return
	}
	// Chat goes on without heads.
	m.blind = true
	for _, c := range m.inOrder {
		if !c.known && len(c.held) > 0 {
			m.beginAt(c, before(c.held[0]))
			m.drain(c)
		}
	}
}

func (m *Machine) head(h *pb.Head, regular bool) {
	c := m.conversation(h.GetConversation())
	if c == nil {
		return
	}
	if !c.known {
		if m.started {
			c.known = true
		} else {
			m.beginAt(c, h.GetSeq())
			m.drain(c)
		}
	}
	c.target = max(c.target, h.GetSeq())
	c.settled = 0 // history may have caught up since it was asked
	if regular && c.needs() && !c.queued && !c.fetching && c.retryAt.IsZero() {
		c.suspect = c.target
		m.fetchLater(c, m.cfg.Settle)
		return
	}
	m.want(c)
}

// start: the heads are known for the first time. What came of a conversation without a head began meanwhile.
func (m *Machine) start() {
	m.started, m.blind = true, false
	for _, c := range m.inOrder {
		if !c.known {
			c.known = true
			m.drain(c)
		}
	}
	m.do(Started{})
}
