package deliver

import "github.com/futurechat/future/router/peer"

// Inbox is what a node remembers of the routers' frames. It decides what of a Forward is handed on and whether something may
// have been missed before it. It is pure, and not safe for concurrent use: whoever owns it hands on what one call returned
// before he makes the next for the same partition, or the order is lost.
//
// When do sessions have to compare their heads? A router numbers its frames to this incarnation from 1, and raises the
// number also when it gives up on a frame. So:
//
//   - The number is not the one after the last: something was left out. Compare.
//   - A higher router epoch than the one known: the router before may have left something out and died before it could say
//     so. Compare, once per epoch.
//   - A link is lost that a partition's last frame came over: its router may be gone with a frame on the way. Compare. If the
//     router lives it has moved on to another link by then, or does so soon, and its numbers tell the rest.
//   - The first frame ever of a partition, number 1: nothing was left out by this router, nor by one before it, since this
//     incarnation is younger than its takeover. For one that is older a router leaves out number 1, and sends number 2 at once
//     (Config.Before): the router before may have given this node up from the very first frame on, and died before the node
//     answered its knocks, so that its epoch is not known here.
//
// So a steady cluster has no compares at all, and a takeover has one per partition and node; nor has a node that is new.
//
// The mark. A partition's messages come in order of seq, so one number per partition says what was handed on: messages not
// above it are repeats (a router that starts again from a committed offset, or sends a frame again). The mark is per
// partition and not per connection, so it also drops a repeat for a connection that registered after the first delivery, and
// so never got it. That is right, by I4: the router had appended the message to the recents before it looked up who is
// where and did not find that connection; so the connection was registered after the append, and a session reads its heads
// and recents after it is registered: its resync has the message. Nor is anything lost that a frame left out by a hole
// carried and a later router repeats below the mark: the compare was told before what raised the mark.
type Inbox struct {
	incarnation string // that the last frame named
	partitions  map[int32]*stream
}

// stream is what is known of one partition.
type stream struct {
	epoch  uint64 // highest router epoch seen
	number uint64 // highest number seen in that epoch
	link   uint64 // over which the last frame came
	linked bool   // that link is not known to be lost
	mark   uint64 // highest seq handed on, of any router epoch; a higher log epoch has higher seqs
}

// NewInbox returns an empty inbox.
func NewInbox() *Inbox { return &Inbox{partitions: map[int32]*stream{}} }

// Receipt is what to do about a Forward, in the order of the fields.
type Receipt struct {
	// Status is what to answer. Unless it is StatusDelivered the rest is empty.
	Status peer.Status
	// Compare: tell the sessions to compare their heads, before anything below is handed on.
	Compare bool
	// Rejections and Messages are to be handed on, in order.
	Rejections []peer.Rejection
	Messages   []peer.Message
	// Repeats were handed on before. Hand them to nobody, but answer their recipients that have no session as Missed like those
	// of Messages: a router that delivered them before may have died before it wrote the push record.
	Repeats []peer.Message
}

// Receive takes a Forward that came over a link. Its caller has made sure that it names the node's present incarnation: a
// former one's is answered StatusWrongIncarnation and never comes here.
func (i *Inbox) Receive(link uint64, f peer.Forward) Receipt {
	if f.Incarnation != i.incarnation {
		// A new life has its own numbers. Its sessions were registered anew and have resynced: nothing is to be compared.
		i.incarnation = f.Incarnation
		for _, s := range i.partitions {
			s.number, s.linked = 0, false
		}
	}
	s, known := i.partitions[f.Partition]
	if !known {
		s = &stream{epoch: f.RouterEpoch}
		i.partitions[f.Partition] = s
	}
	if f.RouterEpoch < s.epoch {
		return Receipt{Status: peer.StatusStale}
	}
	r := Receipt{Status: peer.StatusDelivered}
	if f.RouterEpoch > s.epoch {
		s.epoch, s.number = f.RouterEpoch, 0
		r.Compare = true
	}
	// A number that is not higher was sent again after its link broke, or comes late over an old one: what it could have left
	// out was told at the higher number, and the mark sorts out what is new in it.
	if f.Number > s.number {
		r.Compare = r.Compare || f.Number != s.number+1
		s.number = f.Number
	}
	s.link, s.linked = link, true

	before := s.mark
	for _, m := range f.Messages {
		if m.Seq > s.mark {
			r.Messages = append(r.Messages, m)
			s.mark = m.Seq
		} else {
			r.Repeats = append(r.Repeats, m)
		}
	}
	for _, m := range f.Rejections {
		if m.Seq > before {
			r.Rejections = append(r.Rejections, m)
			s.mark = max(s.mark, m.Seq)
		}
	}
	return r
}

// LinkLost says that nothing more comes over a link, and whether the sessions have to compare their heads.
func (i *Inbox) LinkLost(link uint64) (compare bool) {
	for _, s := range i.partitions {
		if s.linked && s.link == link {
			s.linked = false
			compare = true
		}
	}
	return compare
}
