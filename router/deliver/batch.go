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

	// While refilling.
	refillFrom int64
	searchFrom int64             // from where on nothing may be left out for its age
	wanted     map[identity]bool // the resends' identities
	found      map[identity]firstSeen
	below      []seen // everything found, for the window
	overflow   bool   // it was too much for the window: only found counts

	messages []*message
	rejected []rejected
	users    []int64 // to be located, each once
	named    map[int64]bool

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
	m       *pb.Message
	sender  int64
	users   []int64
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
		out[i] = presence.Recent{Conversation: m.m.GetConversation(), Seq: m.m.GetSeq(), Users: m.users, Message: m.recent}
	}
	return out
}

// members are who gets a conversation's messages: of a direct one both, since the sender has other devices, and the one that
// he sent from takes its own message's place from the delivered copy.
func members(conversation string) []int64 {
	c, err := wire.ParseConversation(conversation)
	switch {
	case err != nil: // ParseRecord has looked
		return nil
	case c.Kind == 'd':
		return []int64{c.A, c.B}
	case c.Kind == 'n':
		return []int64{c.A}
	}
	return nil
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
	b := &batch{next: last.Offset + 1, newest: last.Time, refillFrom: p.window.start, searchFrom: p.window.start, named: map[int64]bool{}}
	p.batch = b
	p.stats.Records += len(records)
	for _, r := range records {
		rec, err := chat.ParseRecord(p.c.LogEpoch, r)
		if err != nil || rec.Message == nil { // history keeps what cannot be read, or is of an unknown kind
			p.stats.Passed++
			continue
		}
		b.parsed = append(b.parsed, parsed{rec, r.Offset})
		if rec.Resend && rec.SearchFrom < p.window.start {
			if b.wanted == nil {
				b.wanted = map[identity]bool{}
			}
			b.wanted[chat.IdentityOf(rec.Message)] = true
			b.searchFrom = min(b.searchFrom, max(rec.SearchFrom, 0))
		}
	}
	if b.refillFrom = min(b.searchFrom, p.reach); b.refillFrom < p.window.start {
		p.stats.Refills++
		p.enter(refilling)
		return
	}
	p.judge()
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
	for _, r := range e.Records {
		rec, err := chat.ParseRecord(p.c.LogEpoch, r)
		if err != nil || rec.Message == nil || r.Offset >= p.window.start {
			continue
		}
		if r.Offset < b.searchFrom && b.newest.Sub(r.Time) > windowAge {
			b.refillFrom, b.below = r.Offset+1, nil
			continue
		}
		s := seen{chat.IdentityOf(rec.Message), firstSeen{r.Offset, r.Time, hashContent(rec.Message)}}
		if _, known := b.found[s.id]; b.wanted[s.id] && !known {
			b.found[s.id] = s.firstSeen
		}
		// A range too large for the window is searched for the wanted alone, and the window stays as it is.
		if b.overflow = b.overflow || len(b.below) >= p.c.Window; !b.overflow {
			b.below = append(b.below, s)
		}
	}
	switch {
	case e.Err != nil:
		p.failed()
	case e.Done:
		if !b.overflow {
			p.window.extend(b.refillFrom, b.below)
		}
		b.below, p.reach = nil, full
		p.judge()
	}
}

// judge sorts out duplicates, and goes on with what is valid.
func (p *Partition) judge() {
	b := p.batch
	for _, r := range b.parsed {
		id := chat.IdentityOf(r.Message)
		first, known := p.window.first[id]
		if f, ok := b.found[id]; ok && (!known || f.offset < first.offset) {
			first, known = f, true
		}
		hash := hashContent(r.Message)
		if known && first.offset < r.offset {
			p.stats.Duplicates++
			if first.hash != hash {
				p.stats.IDReused++
				b.reject(r.Message, id.Sender)
			}
			continue
		}
		p.window.add(id, firstSeen{r.offset, time.UnixMilli(r.Message.GetTimeMs()), hash})
		b.accept(r.Message, id.Sender)
	}
	b.parsed, b.found, b.wanted = nil, nil, nil
	switch {
	case len(b.messages) > 0:
		p.enter(appending)
	case len(b.users) > 0:
		p.enter(locating)
	default:
		p.finish()
	}
}

func (b *batch) accept(m *pb.Message, sender int64) {
	m.PrevSeq, m.PrevKnown = 0, false
	encoded, _ := m.MarshalVT() // cannot fail: it was just decoded
	users := members(m.GetConversation())
	b.messages = append(b.messages, &message{m: m, sender: sender, users: users, reached: make([]bool, len(users)), recent: encoded})
	b.locate(users...)
}

func (b *batch) reject(m *pb.Message, sender int64) {
	reused := wire.Errorf(pb.Code_CODE_ID_REUSED, "another message has this client_msg_id")
	b.rejected = append(b.rejected, rejected{m.GetSeq(), sender, &pb.Rejected{
		Conversation: m.GetConversation(), ClientMsgId: m.GetClientMsgId(), Error: reused.Proto(),
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
	if len(b.users) == 0 {
		p.forward(nil)
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
	if e.Err != nil || len(e.Places) != len(p.batch.users) {
		p.failed()
		return
	}
	p.forward(e.Places)
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
		if len(users) > 0 {
			b.push = append(b.push, PushRecord{
				Conversation: m.m.GetConversation(), Seq: m.m.GetSeq(), Sender: m.sender,
				ClientMsgID: m.m.GetClientMsgId(), TimeMs: m.m.GetTimeMs(), Users: users,
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
