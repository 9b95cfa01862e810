package simulation

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/futurechat/future/clientsdk/resume"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// truth sees all, and holds what is done against what the log says: it decides by itself, and from the log alone, which messages
// there are and in what order.
type truth struct {
	w       *world
	byID    map[chat.Identity]*fact
	bySeq   map[seqKey]*fact
	talks   map[string][]*fact // valid messages, in order
	names   []string           // of talks
	parts   map[int32][]*fact  // valid messages, in order
	said    map[chat.Identity]*submission
	orders  map[orderKey]*order
	history map[int32]int64 // what history has stored
	judged  map[int32]int64 // commits were held against the facts up to here
	owners  map[string]string
	reads   map[readKey]uint64

	// Of removals. closed are the closings that the log has; invalid are records behind one, of whom no more may be heard.
	closed  map[readKey]uint64 // their highest versions; user 0: for both of a pair
	invalid map[seqKey]bool
	noRight map[chat.Identity]bool // what has such a record
	broken  map[int32][]int64      // their offsets, by partition
	// By conversation, from the database: the version by which two became friends last. From clients: the highest closing that was
	// in the log when a removal was answered, and when that was.
	opened   map[string]uint64
	openedAt map[readKey]time.Duration // and when somebody was let in again
	ended    map[string]ending

	// Of groups: who is a member by the log, and who by the database while the notice has not come.
	inside  map[string][]int64
	joining map[readKey][]span
}

type ending struct {
	version uint64
	at      time.Duration
}

// fact is a valid message: the first copy of its identity in the log.
type fact struct {
	id        chat.Identity
	partition int32
	offset    int64
	seq       uint64
	members   []int64
	perhaps   []int64  // others who may have been shown it
	seqs      []uint64 // of all its copies
	recent    bool     // was appended to the recents
	there     map[int64]bool
	pushed    map[int64]bool
	acked     bool
	ackedTo   int // the segment of the device that was told so
}

type (
	seqKey struct {
		partition int32
		seq       uint64
	}
	orderKey struct {
		device       *device
		segment      int
		conversation string
	}
	readKey struct {
		user         int64
		conversation string
	}
)

// order is what a device submitted to a conversation, and how much of it the log has.
type order struct{ submitted, written int }

type submission struct {
	at    time.Duration
	order *order
	nth   int
	text  string
	over  bool // its sender was told that it failed for good
}

func newTruth(w *world) *truth {
	return &truth{
		w: w, byID: map[chat.Identity]*fact{}, bySeq: map[seqKey]*fact{}, talks: map[string][]*fact{}, parts: map[int32][]*fact{},
		said: map[chat.Identity]*submission{}, orders: map[orderKey]*order{}, history: map[int32]int64{}, judged: map[int32]int64{},
		owners: map[string]string{}, reads: map[readKey]uint64{},
		closed: map[readKey]uint64{}, invalid: map[seqKey]bool{}, noRight: map[chat.Identity]bool{}, broken: map[int32][]int64{}, opened: map[string]uint64{}, ended: map[string]ending{}, openedAt: map[readKey]time.Duration{},
		inside: map[string][]int64{}, joining: map[readKey][]span{},
	}
}

// written is a record that has entered the log.
func (t *truth) written(topic string, r eventlog.Record) {
	t.w.mix(uint64(r.Offset)<<8 | uint64(r.Partition))
	switch topic {
	case chat.TopicPush:
		t.push(r)
		return
	case chat.TopicMessages:
	default:
		return
	}
	rec, err := chat.ParseRecord(1, r)
	if err != nil || rec.Message == nil {
		t.w.violate("log", "record %d/%d cannot be read: %v", r.Partition, r.Offset, err)
		return
	}
	id := chat.IdentityOf(rec.Message)
	if rec.Checked && max(t.closed[readKey{0, id.Conversation}], t.closed[readKey{id.Sender, id.Conversation}]) > rec.Version {
		t.w.count("invalid messages in the log")
		t.w.tracef("log %d/%d is %s of %d in %s, which is invalid: checked at version %d", r.Partition, r.Offset, short(id.ClientMsgID), id.Sender, id.Conversation, rec.Version)
		t.invalid[seqKey{r.Partition, rec.Message.GetSeq()}], t.noRight[id] = true, true
		t.broken[r.Partition] = append(t.broken[r.Partition], r.Offset)
		return
	}
	t.close(rec.Message)
	f := t.byID[id]
	if f == nil {
		c, _ := wire.ParseConversation(id.Conversation) // ParseRecord has looked
		members, perhaps := []int64{c.A, c.B}, []int64(nil)
		if c.Kind == 'g' {
			members, perhaps = t.audience(rec)
			t.w.count("messages to groups")
		}
		f = &fact{
			id: id, partition: r.Partition, offset: r.Offset, seq: rec.Message.GetSeq(), members: members, perhaps: perhaps,
			there: map[int64]bool{}, pushed: map[int64]bool{},
		}
		t.byID[id] = f
		t.talks[id.Conversation] = append(t.talks[id.Conversation], f)
		t.parts[r.Partition] = append(t.parts[r.Partition], f)
		t.inOrder(f)
	} else {
		t.w.count("copies in the log")
	}
	f.seqs = append(f.seqs, rec.Message.GetSeq())
	t.bySeq[seqKey{r.Partition, rec.Message.GetSeq()}] = f
	t.w.tracef("log %d/%d is %s of %d in %s, resend %v from %d", r.Partition, r.Offset, short(id.ClientMsgID), id.Sender, id.Conversation, rec.Resend, rec.SearchFrom)
}

// short is how messages are called in traces: what differs between their ids.
func short(id string) string { return id[strings.LastIndexByte(id, '-')+1:] }

// inOrder: what a device sent to a conversation enters the log in the order in which it was submitted. What was given up may still
// come, late: a message of unknown outcome that its sender had no right to send again. And two who parted and are friends anew
// may see one that was refused meanwhile behind later ones, if the refusal was lost: to the sender its outcome was unknown.
func (t *truth) inOrder(f *fact) {
	s := t.said[f.id]
	if s == nil || s.over {
		return
	}
	if s.nth < s.order.written && t.openedAt[readKey{f.id.Sender, f.id.Conversation}] > s.at {
		t.w.count("sent again behind later ones, friends anew")
		return
	}
	if s.nth < s.order.written {
		t.w.violate("send order", "message %d of a device to %s entered the log after message %d", s.nth, f.id.Conversation, s.order.written)
	}
	s.order.written = s.nth
}

func (t *truth) push(r eventlog.Record) {
	p, err := deliver.ParsePush(r.Value)
	if err != nil {
		t.w.violate("log", "push record: %v", err)
		return
	}
	t.w.count("push records")
	partition := eventlog.PartitionOf(p.Conversation, t.w.o.Partitions)
	if f := t.bySeq[seqKey{partition, p.Seq}]; f != nil {
		for _, u := range p.Users {
			f.pushed[int64(u)] = true
		}
		if p.Version > 0 { // a group's, for all who were members
			for _, u := range f.members {
				f.pushed[u] = true
			}
		}
	}
}

// appended is what a router put into the recents.
func (t *truth) appended(messages []presence.Recent, _ []presence.Prev) {
	for _, m := range messages {
		if t.invalid[seqKey{eventlog.PartitionOf(m.Conversation, t.w.o.Partitions), m.Seq}] {
			t.w.violate("validity", "the recents were given %d of %s, which is invalid", m.Seq, m.Conversation)
		}
		if f := t.bySeq[seqKey{eventlog.PartitionOf(m.Conversation, t.w.o.Partitions), m.Seq}]; f != nil {
			f.recent = true
		}
	}
}

// reached is a frame that a node took: whom it reached, and whether it says rightly what was before.
func (t *truth) reached(f peer.Forward, a peer.Answer) {
	type recipient struct {
		seq uint64
		to  peer.Recipient
	}
	missed := map[recipient]bool{}
	for _, m := range a.Missed {
		missed[recipient{m.Seq, m.Recipient}] = true
	}
	for _, m := range f.Messages {
		known := t.bySeq[seqKey{f.Partition, m.Seq}]
		if known == nil || known.seq != m.Seq {
			t.w.violate("delivery", "%d/%d was delivered, which is no valid message", f.Partition, m.Seq)
			return
		}
		for _, r := range m.Recipients {
			if !missed[recipient{m.Seq, r}] {
				known.there[r.User] = true
			}
		}
		var body pb.Message
		if err := body.UnmarshalVT(m.Body); err != nil {
			t.w.violate("delivery", "a delivered message cannot be read: %v", err)
			return
		}
		if prev := t.before(known.id.Conversation, m.Seq); body.GetPrevKnown() && body.GetPrevSeq() != prev {
			t.w.violate("prev", "%s %d says that %d is before it: it is %d", known.id.Conversation, m.Seq, body.GetPrevSeq(), prev)
		}
	}
}

// after gives the first valid message of a conversation above a position that a user is to see; nil: none.
func (t *truth) after(user int64, conversation string, seq uint64) *fact {
	talk := t.talks[conversation]
	i, _ := slices.BinarySearchFunc(talk, seq+1, func(f *fact, seq uint64) int {
		switch {
		case f.seq < seq:
			return -1
		case f.seq > seq:
			return 1
		}
		return 0
	})
	for ; i < len(talk); i++ {
		if slices.Contains(talk[i].members, user) {
			return talk[i]
		}
	}
	return nil
}

// lastFor gives the seq of the newest message of a conversation that a user is to see; 0: there is none.
func (t *truth) lastFor(user int64, conversation string) uint64 {
	for _, f := range slices.Backward(t.talks[conversation]) {
		if slices.Contains(f.members, user) {
			return f.seq
		}
	}
	return 0
}

// before gives the seq of the valid message before a position; 0: there is none.
func (t *truth) before(conversation string, seq uint64) uint64 {
	prev := uint64(0)
	for _, f := range t.talks[conversation] {
		if f.seq >= seq {
			break
		}
		prev = f.seq
	}
	return prev
}

// commits is a router's promise that all below an offset was done: it is among the recents or in history, and whom it did not
// reach has a push record.
func (t *truth) commits(group string, partition int32, from, to int64) {
	if group != deliver.Group {
		return
	}
	if to < from {
		t.w.count("commits down")
	}
	for _, f := range t.parts[partition] {
		if f.offset < t.judged[partition] || f.offset >= to {
			continue
		}
		if !f.recent && f.offset >= t.history[partition] {
			t.w.violate("commit", "%d of partition %d is committed, but %d is neither in history nor was it among the recents", to, partition, f.offset)
		}
		for _, u := range f.members {
			if u != f.id.Sender && !f.there[u] && !f.pushed[u] {
				t.w.violate("push", "%d of partition %d is committed, but %d reached user %d nowhere and has no push record for him", to, partition, f.offset, u)
			}
		}
	}
	t.judged[partition] = max(t.judged[partition], to)
}

// stored is a batch that history wrote.
func (t *truth) stored(b chat.Batch, w chat.Written) {
	if b.From != t.history[b.Partition] {
		t.w.violate("history", "partition %d: a batch from %d was stored at %d", b.Partition, b.From, t.history[b.Partition])
	}
	t.history[b.Partition] = b.Next
	t.w.count("batches stored")
	if w.Duplicates > 0 {
		t.w.count("batches with duplicates")
	}
	invalid := 0
	for _, offset := range t.broken[b.Partition] {
		if offset >= b.From && offset < b.Next {
			invalid++
		}
	}
	if w.Invalid != invalid {
		t.w.violate("validity", "history took %d messages of [%d, %d) of partition %d for invalid: %d are", w.Invalid, b.From, b.Next, b.Partition, invalid)
	}
}

// leased is a lease that was taken.
func (t *truth) leased(name, owner string) {
	if was := t.owners[name]; was != owner {
		if was != "" && strings.HasPrefix(name, "partition:") {
			t.w.count("handovers")
			t.w.tracef("%s goes from %s to %s", name, was, owner)
		}
		t.owners[name] = owner
	}
}

// removes are outbox rows that go: the log must have what they say.
func (t *truth) removes(ids []int64) {
	rows, _ := t.w.db.memory.Unsent(at, "", 0, 1<<30) // it cannot fail
	for _, row := range rows {
		if slices.Contains(ids, row.ID) && t.byID[chat.IdentityOf(row.Message)] == nil {
			t.w.violate("outbox", "row %d of %s was removed before the log had it", row.ID, row.Message.GetConversation())
		}
	}
}

// ---- what clients do and see

func (t *truth) identity(d *device, conversation, id string) chat.Identity {
	return chat.Identity{Conversation: conversation, Sender: d.person.id, ClientMsgID: id}
}

func (t *truth) submitted(d *device, m resume.Message) {
	key := orderKey{d, d.saved.segment, m.Conversation}
	o := t.orders[key]
	if o == nil {
		o = &order{}
		t.orders[key] = o
	}
	o.submitted++
	t.said[t.identity(d, m.Conversation, m.ID)] = &submission{t.w.now, o, o.submitted, m.Payload.GetText().GetText(), false}
	t.w.count("messages submitted")
	t.w.tracef("%s submits %s to %s", d.name, short(m.ID), m.Conversation)
}

// acked: what is acknowledged is in the log, at that place.
func (t *truth) acked(d *device, e resume.Sent) {
	f := t.byID[t.identity(d, e.Conversation, e.ID)]
	t.w.tracef("%s has %s acknowledged at %d", d.name, short(e.ID), e.Seq)
	if f == nil || !slices.Contains(f.seqs, e.Seq) {
		t.w.violate("acknowledged", "%s: message %s to %s was acknowledged at %d, but the log does not have it there", d.name, e.ID, e.Conversation, e.Seq)
		return
	}
	f.acked, f.ackedTo = true, d.saved.segment
	t.w.mix(e.Seq)
	end, was := t.ended[e.Conversation]
	if s := t.said[f.id]; was && s.at > end.at && t.opened[e.Conversation] < end.version {
		t.w.violate("removal", "%s: message %s to %s was submitted after a removal was answered, and acknowledged", d.name, e.ID, e.Conversation)
	}
}

// failed: what was acknowledged never fails.
func (t *truth) failed(d *device, e resume.Failed) {
	// A program that has forgotten that it was told sends again, perhaps when the right has ended and history does not have it yet.
	var told *wire.Error
	noRight := errors.As(e.Err, &told) && (told.Code == pb.Code_CODE_NOT_FRIENDS || told.Code == pb.Code_CODE_NOT_FOUND)
	forgotten := func(f *fact) bool { return noRight && f.ackedTo != d.saved.segment }
	if f := t.byID[t.identity(d, e.Message.Conversation, e.Message.ID)]; f != nil && f.acked && !forgotten(f) {
		t.w.violate("acknowledged", "%s: message %s to %s was acknowledged and then failed: %v", d.name, e.Message.ID, e.Message.Conversation, e.Err)
	}
	if s := t.said[t.identity(d, e.Message.Conversation, e.Message.ID)]; s != nil {
		s.over = true
	}
	t.w.tracef("%s gives up %s: %v", d.name, short(e.Message.ID), e.Err)
}

// shown: a device shows the next message of a conversation, and nothing else.
func (t *truth) shown(d *device, m *pb.Message) {
	conversation, position := m.GetConversation(), d.pos[m.GetConversation()]
	t.w.mix(m.GetSeq() ^ uint64(d.n)<<56)
	t.w.tracef("%s shows %d of %s", d.name, m.GetSeq(), conversation)
	next := t.after(d.person.id, conversation, position)
	if f := t.bySeq[seqKey{eventlog.PartitionOf(conversation, t.w.o.Partitions), m.GetSeq()}]; f != nil && f.seq == m.GetSeq() &&
		f.id.Conversation == conversation && f.seq > position && (next == nil || f.seq < next.seq) && slices.Contains(f.perhaps, d.person.id) {
		t.w.count("shown before the notice of joining")
		return
	}
	switch {
	case next == nil || next.seq != m.GetSeq():
		t.w.violate("shown", "%s shows %d of %s after %d: next is %s", d.name, m.GetSeq(), conversation, position, next)
	case next.id != chat.IdentityOf(m):
		t.w.violate("shown", "%s shows %d of %s under the identity of another message", d.name, m.GetSeq(), conversation)
	case !slices.Contains(next.members, d.person.id):
		t.w.violate("shown", "%s shows a message of %s, which is not his", d.name, conversation)
	case t.said[next.id] != nil && t.said[next.id].text != m.GetPayload().GetText().GetText():
		t.w.violate("shown", "%s shows %d of %s with another text than was sent", d.name, m.GetSeq(), conversation)
	}
}

// passed: a position moves over nothing that should be shown.
func (t *truth) passed(d *device, p resume.Position) {
	if next := t.after(d.person.id, p.Conversation, d.pos[p.Conversation]); next != nil && next.seq <= p.Seq {
		t.w.violate("passed over", "%s passes over %s of %s, from %d to %d", d.name, next, p.Conversation, d.pos[p.Conversation], p.Seq)
	}
}

func (f *fact) String() string {
	if f == nil {
		return "none"
	}
	_, offset := eventlog.SplitSeq(f.seq)
	return short(f.id.ClientMsgID) + " at offset " + wire.FormatID(offset)
}

// read is a read position that was acknowledged.
func (t *truth) read(p *person, conversation string, seq uint64) {
	key := readKey{p.id, conversation}
	t.reads[key] = max(t.reads[key], seq)
	t.w.count("reads marked")
}

// ---- removals

// pairChanged is a change of two people's relation in the database.
func (t *truth) pairChanged(p chat.Pair) {
	conversation := wire.Direct(p.Lo.ID, p.Hi.ID)
	switch p.State {
	case chat.PairFriends:
		t.opened[conversation] = p.Version
		t.openedAt[readKey{p.Lo.ID, conversation}], t.openedAt[readKey{p.Hi.ID, conversation}] = t.w.now, t.w.now
		t.w.count("friendships begun")
	case chat.PairNone:
		t.w.count("removals")
	}
	t.w.tracef("pair %s is %v, version %d", conversation, p.State, p.Version)
}

// close notes the end of a right that a record is, if it is one. A copy may come behind a later one.
func (t *truth) close(m *pb.Message) {
	ends := func(user int64, version uint64) {
		key := readKey{user, m.GetConversation()}
		t.closed[key] = max(t.closed[key], version)
	}
	if n := m.GetPayload().GetFriend(); n.GetChange() == pb.FriendNotice_CHANGE_REMOVED {
		ends(0, n.GetVersion())
	}
	switch n := m.GetPayload().GetGroup(); n.GetChange() {
	case pb.GroupNotice_CHANGE_LEFT, pb.GroupNotice_CHANGE_REMOVED:
		u, _ := wire.ParseID(n.GetSubjects()[0].GetId()) // the server's own
		ends(u, n.GetVersion())
	}
}

// removed is a removal that was answered: the log must have the end of the friendship that there was when it was asked for.
func (t *truth) removed(conversation string, opened uint64) {
	version := t.closed[readKey{0, conversation}]
	if version <= opened {
		t.w.violate("removal", "of %s, friends by version %d, it was answered while the log had only version %d", conversation, opened, version)
	}
	t.ended[conversation] = ending{version, t.w.now}
	t.w.count("removals answered")
	t.w.tracef("%s has ended by version %d: answered", conversation, version)
}

// rejected is a message that a sender is told does not count: it was not acknowledged. Where a copy is meant that was invalid, one that
// was sent again when two were friends anew may have been acknowledged meanwhile: resume.Machine passes that over.
func (t *truth) rejected(d *device, r *pb.Rejected) {
	f := t.byID[t.identity(d, r.GetConversation(), r.GetClientMsgId())]
	if f != nil && t.noRight[f.id] {
		t.w.count("rejected copies of what counts")
		return
	}
	if f != nil && f.acked && f.ackedTo == d.saved.segment {
		t.w.violate("acknowledged", "%s: message %s to %s was acknowledged and then rejected", d.name, r.GetClientMsgId(), r.GetConversation())
	}
}
