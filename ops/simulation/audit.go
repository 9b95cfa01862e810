package simulation

import (
	"maps"
	"slices"
	"time"

	"github.com/futurechat/future/clientsdk/resume"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/timeline"
)

func direct(a, b *person) string { return wire.Direct(a.id, b.id) }

func canary(w *world, from, to *person) resume.Message {
	return resume.Message{
		Conversation: direct(from, to), ID: w.messageID(from.rng),
		Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: "one more"}}},
	}
}

// conversations are those that have messages, sorted.
func (t *truth) conversations() []string {
	if len(t.names) != len(t.talks) {
		t.names = slices.Sorted(maps.Keys(t.talks))
	}
	return t.names
}

// audit holds the database and what people are told of it against the log, once all is well.
func (w *world) audit() {
	for _, name := range w.truth.conversations() {
		w.auditHistory(name)
	}
	if names := w.db.memory.Conversations(); len(names) != len(w.truth.talks) {
		w.violate("history", "it has %d conversations of %d", len(names), len(w.truth.talks))
	}
	if dead := w.db.memory.Dead(chat.TopicMessages); len(dead) > 0 {
		w.violate("history", "%d records are dead, the first for: %s", len(dead), dead[0].Reason)
	}
	w.auditHeads()
}

// auditHistory: history has each valid message once, in order, each joined to the one before.
func (w *world) auditHistory(name string) {
	stored, err := w.db.memory.Messages(at, name, 0, 0, 1<<30, true)
	talk := w.truth.talks[name]
	if err != nil || len(stored) != len(talk) {
		w.violate("history", "it has %d messages of %s: the log has %d (%v)", len(stored), name, len(talk), err)
		return
	}
	prev := uint64(0)
	for i, m := range stored {
		if f := talk[i]; f.id != chat.IdentityOf(m) || f.seq != m.GetSeq() || !m.GetPrevKnown() || m.GetPrevSeq() != prev {
			w.violate("history", "message %d of %s is %d after %d: it is %d after %d in the log", i, name, m.GetSeq(), m.GetPrevSeq(), f.seq, prev)
			return
		}
		prev = m.GetSeq()
	}
}

// auditHeads: everybody is told where each conversation stands, and exactly how much of it he has not read.
func (w *world) auditHeads() {
	p := w.start("auditor")
	line := timeline.New(timeline.Options{Store: w.dbPort(p), Recents: w.redisPort(p), Log: w.logPort(p), Topic: w.topic(), Clock: p})
	left := len(w.people)
	for _, who := range w.people {
		p.spawn(func() {
			heads, err := line.Heads(p.ctx, who.id)
			if err != nil {
				w.violate("unread", "heads of %s: %v", who.name, err)
			}
			w.auditHeadsOf(who, heads)
			left--
		})
	}
	w.settle()
	for until := w.now + 10*time.Second; left > 0 && w.now < until && w.broken == nil; {
		w.run(w.now + 10*time.Millisecond)
	}
	if left > 0 && w.broken == nil {
		w.violate("unread", "heads are not answered")
	}
}

func (w *world) auditHeadsOf(who *person, heads []*pb.Head) {
	told := map[string]bool{}
	for _, h := range heads {
		name := h.GetConversation()
		told[name] = true
		// A position may stand on a copy; what is read is the message before it then.
		marked := w.truth.before(name, w.truth.reads[readKey{who.id, name}]+1)
		unread := 0
		for _, f := range w.truth.talks[name] {
			if f.seq > h.GetReadSeq() && f.id.Sender != who.id && slices.Contains(f.members, who.id) {
				unread++
			}
		}
		if h.GetSeq() != w.truth.lastFor(who.id, name) || int(h.GetUnread()) != unread || h.GetReadSeq() < marked {
			w.violate("unread", "%s is told of %s: head %d, %d unread above %d; it is head %d, %d unread, %d was marked",
				who.name, name, h.GetSeq(), h.GetUnread(), h.GetReadSeq(), w.truth.lastFor(who.id, name), unread, marked)
		}
	}
	for _, name := range w.truth.conversations() {
		if w.truth.lastFor(who.id, name) > 0 && !told[name] {
			w.violate("unread", "%s is not told of %s", who.name, name)
		}
	}
}
