package deliver

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/presence"
)

type identity = chat.Identity

// batch is a stretch of the partition on its way through the phases.
type batch struct {
	next   int64     // the offset due after it
	newest time.Time // the log's time of its last record
	parsed []parsed  // what can be delivered, in order, until it was judged

	refill   refill
	found    map[identity]firstSeen // by the refill, of the resends
	closings chat.Closings          // found by the refill, and in the batch up to where it is judged
	ends     []end                  // the same, to be remembered

	messages []*message
	rejected []rejected
	users    []int64 // to be located, each once
	named    map[int64]bool
	groups   []int64 // likewise

	namedGroups map[int64]bool

	deadline time.Time
	awaiting int // frames not answered
	push     []PushRecord
}

type parsed struct {
	chat.Record
	offset int64
}

// message is a valid message. Only these are appended, so that prev_seq joins valid records.
type message struct {
	m      *pb.Message
	sender int64
	audience
	reached []bool // as users
	recent  []byte // encoded without prev
	body    []byte // encoded with prev
}

// rejected is a message whose sender is told so.
type rejected struct {
	seq    uint64
	sender int64
	answer *pb.Rejected
}

func (b *batch) recents() []presence.Recent {
	out := make([]presence.Recent, len(b.messages))
	for i, m := range b.messages {
		out[i] = presence.Recent{Conversation: m.m.GetConversation(), Seq: m.m.GetSeq(), Message: m.recent}
		if m.group == 0 {
			out[i].Users = m.users
		}
	}
	return out
}

// ---- read and judge

// begin takes the next records.
func (p *Partition) begin(records []eventlog.Record) {
	if len(records) == 0 {
		return
	}
	if p.phase != idle { // a fault of the shell; nothing may be skipped
		p.lose(LostFault)
		return
	}
	last := records[len(records)-1]
	b := &batch{next: last.Offset + 1, newest: last.Time, named: map[int64]bool{}, closings: chat.Closings{}}
	p.batch = b
	p.stats.Records += len(records)
	search, ends := p.window.start, p.closings.from
	wanted := map[identity]bool(nil)
	for _, r := range records {
		rec, err := chat.ParseRecord(p.c.LogEpoch, r)
		if err != nil || rec.Message == nil { // history keeps what cannot be read, or is of an unknown kind
			p.stats.Passed++
			continue
		}
		b.parsed = append(b.parsed, parsed{rec, r.Offset})
		if rec.Resend && rec.SearchFrom < p.window.start {
			if wanted == nil {
				wanted = map[identity]bool{}
			}
			wanted[chat.IdentityOf(rec.Message)] = true
			search = min(search, max(rec.SearchFrom, 0))
		}
		if rec.Checked {
			ends = min(ends, max(rec.CheckedFrom, 0))
		}
	}
	if p.needs(search, ends, wanted) {
		p.stats.Refills++
		p.enter(refilling)
		return
	}
	p.judge()
}

// needs says whether the log is to be read again, and from where to where: for the window from search on or from its reach, and for
// the ends of rights from ends on.
func (p *Partition) needs(search, ends int64, wanted map[identity]bool) bool {
	window := min(search, p.reach)
	f := refill{from: window, windowFrom: window, searchFrom: search, wanted: wanted}
	if window < p.window.start {
		f.to = p.window.start
	}
	if ends < p.closings.from {
		f.from, f.to = min(f.from, ends), max(f.to, p.closings.from)
	}
	f.lowest, f.whole = f.from, f.to >= p.closings.from
	p.batch.refill = f
	return f.to > 0
}

// refilled takes what is in the log below the window. The shell reads from the log's start if that is higher than what was
// asked for. What was there before has gone by retention, two weeks old or more: if it was not in the database when the node
// looked, it is by now, or history has halted. Such a first try is not found, so the message is delivered again; clients
// and the database know it by its identity. To take it for a duplicate instead could lose it.
func (p *Partition) refilled(e Refilled) {
	if !p.awaits(refilling) {
		return
	}
	b := p.batch
	f := &b.refill
	for _, r := range e.Records {
		f.take(p.c.LogEpoch, r, p.window.start, p.c.Window, b.newest)
	}
	switch {
	case e.Err != nil:
		p.failed()
	case e.Done && f.more():
		p.enter(refilling)
	case e.Done:
		p.refillDone(f)
		p.judge()
	}
}

// refillDone puts to use what was found.
func (p *Partition) refillDone(f *refill) {
	b := p.batch
	b.found = map[identity]firstSeen{}
	for _, s := range f.valid(f.hits) {
		if _, known := b.found[s.id]; !known {
			b.found[s.id] = s.firstSeen
		}
	}
	if f.windowFrom < p.window.start {
		if !f.overflow {
			p.window.extend(f.windowFrom, f.valid(f.candidates))
		}
		p.reach = full
	}
	for _, e := range f.ends {
		b.closings[e.Key()] = max(b.closings[e.Key()], e.Version)
		p.raiseVersion(e.Conversation, e.Version)
	}
	b.ends = f.ends
	if f.whole {
		p.closings.from = min(p.closings.from, f.lowest)
	}
	b.refill = refill{}
}

// judge sorts out duplicates and what is invalid, and goes on with the rest.
func (p *Partition) judge() {
	b := p.batch
	for _, r := range b.parsed {
		if c, closes := chat.ClosingOf(r.Message); closes {
			b.closings.Note(r.Message)
			b.ends = append(b.ends, end{c, r.offset})
		}
		id := chat.IdentityOf(r.Message)
		first, known := p.window.first[id]
		if f, ok := b.found[id]; ok && (!known || f.offset < first.offset) {
			first, known = f, true
		}
		hash := hashContent(r.Message)
		if known && first.offset < r.offset { // of a valid one: so nothing was dropped if this one is not
			p.stats.Duplicates++
			if first.hash != hash {
				p.stats.IDReused++
				b.reject(r.Message, id.Sender, wire.Errorf(pb.Code_CODE_ID_REUSED, "another message has this client_msg_id"))
			}
			continue
		}
		if r.Checked && max(p.closings.highest(id.Conversation, id.Sender), b.closings.Highest(id.Conversation, id.Sender)) > r.Version {
			p.stats.Invalid++
			b.reject(r.Message, id.Sender, chat.NoRight(id.Conversation))
			continue
		}
		p.window.add(id, firstSeen{r.offset, time.UnixMilli(r.Message.GetTimeMs()), hash})
		b.accept(r.Message, id.Sender, p.audienceOf(r.Record))
	}
	// Only now: what is forgotten for them may matter for this batch.
	for _, e := range b.ends {
		p.closings.note(e)
	}
	b.parsed, b.found, b.closings, b.ends = nil, nil, nil, nil
	switch {
	case len(b.messages) > 0:
		p.enter(appending)
	case len(b.users) > 0:
		p.enter(locating)
	default:
		p.finish()
	}
}

func (b *batch) accept(m *pb.Message, sender int64, to audience) {
	m.PrevSeq, m.PrevKnown = 0, false
	encoded, _ := m.MarshalVT() // cannot fail: it was just decoded
	b.messages = append(b.messages, &message{m: m, sender: sender, audience: to, reached: make([]bool, len(to.users)), recent: encoded})
	b.locate(to.users...)
	b.locateGroup(to)
}

func (b *batch) reject(m *pb.Message, sender int64, why *wire.Error) {
	b.rejected = append(b.rejected, rejected{m.GetSeq(), sender, &pb.Rejected{
		Conversation: m.GetConversation(), ClientMsgId: m.GetClientMsgId(), Error: why.Proto(),
	}})
	b.locate(sender)
}

func (b *batch) locate(users ...int64) {
	for _, u := range users {
		if !b.named[u] {
			b.named[u] = true
			b.users = append(b.users, u)
		}
	}
}

// ---- append, locate

// appended gives each message its prev, and only now has people looked up (I4).
func (p *Partition) appended(e Appended) {
	if !p.awaits(appending) {
		return
	}
	b := p.batch
	if e.Err != nil || len(e.Prevs) != len(b.messages) {
		p.failed()
		return
	}
	p.storeEpochAt = p.now
	if e.Epoch != p.storeEpoch {
		p.lose(LostStore)
		return
	}
	for i, m := range b.messages {
		prev := e.Prevs[i]
		conversation, seq := m.m.GetConversation(), m.m.GetSeq()
		// The recents may have lost their tail, by a failover of their server, and take the one before for the previous.
		if last, ok := p.last.get(conversation); ok && last < seq && prev.Known && prev.Seq != last {
			prev = presence.Prev{}
			p.stats.TailLost++
		}
		p.last.put(conversation, seq)
		m.body = withPrev(m.recent, prev)
	}
	if len(b.users)+len(b.groups) == 0 {
		p.forward(nil, nil)
		return
	}
	p.enter(locating)
}

// The protocol's numbers of Message.prev_seq and prev_known; a test holds them against the generated code.
const (
	fieldPrevSeq   protowire.Number = 3
	fieldPrevKnown protowire.Number = 4
)

// withPrev adds prev to an encoded Message. Protobuf fields may come in any order, so the rest is encoded only once.
func withPrev(encoded []byte, prev presence.Prev) []byte {
	const most = 2 + 10 + 2
	out := append(make([]byte, 0, len(encoded)+most), encoded...)
	if !prev.Known {
		return out
	}
	if prev.Seq != 0 {
		out = protowire.AppendVarint(protowire.AppendTag(out, fieldPrevSeq, protowire.VarintType), prev.Seq)
	}
	return protowire.AppendVarint(protowire.AppendTag(out, fieldPrevKnown, protowire.VarintType), 1)
}

func (p *Partition) located(e Located) {
	if !p.awaits(locating) {
		return
	}
	if e.Err != nil || len(e.Places) != len(p.batch.users) || len(e.Nodes) != len(p.batch.groups) {
		p.failed()
		return
	}
	p.forward(e.Places, e.Nodes)
}

// ---- push

// pushUnreached puts what did not reach everybody on chat.push. A user is reached if one of his connections took the message;
// the sender needs no notice.
func (p *Partition) pushUnreached() {
	b := p.batch
	for _, m := range b.messages {
		var users []UserID
		for i, u := range m.users {
			switch {
			case m.reached[i]:
				p.stats.Reached++
			case u != m.sender:
				p.stats.Unreached++
				users = append(users, UserID(u))
			}
		}
		if len(users) > 0 || m.group != 0 {
			b.push = append(b.push, PushRecord{
				Conversation: m.m.GetConversation(), Seq: m.m.GetSeq(), Sender: m.sender,
				ClientMsgID: m.m.GetClientMsgId(), TimeMs: m.m.GetTimeMs(), Users: users, Version: m.version,
			})
		}
	}
	if len(b.push) == 0 {
		p.finish()
		return
	}
	p.enter(pushing)
}

func (p *Partition) pushed(e Pushed) {
	if !p.awaits(pushing) {
		return
	}
	if len(e.Failed) > 0 {
		p.batch.push = e.Failed
		p.failed()
		return
	}
	p.finish()
}

// ---- memory of positions

// lastSeqs remembers the last seq appended per conversation, for those that were used last: between half of most and most.
type lastSeqs struct {
	most          int
	recent, older map[string]uint64
}

func newLastSeqs(most int) lastSeqs { return lastSeqs{most: most, recent: map[string]uint64{}} }

func (l *lastSeqs) get(conversation string) (uint64, bool) {
	if s, ok := l.recent[conversation]; ok {
		return s, true
	}
	s, ok := l.older[conversation]
	return s, ok
}

func (l *lastSeqs) put(conversation string, seq uint64) {
	if _, ok := l.recent[conversation]; !ok && len(l.recent) >= l.most/2 {
		l.recent, l.older = map[string]uint64{}, l.recent
	}
	l.recent[conversation] = seq
}
