package deliver

import (
	"crypto/sha256"
	"time"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

// windowAge is how long an identity is kept at least: a node stamps a resend with the history offset H that it knows, and the
// record is in the log well within that time or its produce has failed.
const windowAge = time.Minute

// window remembers the identities of a partition's messages by where they came first, for all offsets from start to where
// the partition is. It answers what is a duplicate: the same identity at a lower offset. Below start it knows nothing; a
// resend that may have its first try there is judged after a Refill.
//
// A record not marked as a resend is judged by what is here alone. It may come behind its own resend all the same: a node that was
// cut off writes it when it is back, long after its client went to another. So at takeover the window is filled from the log, as far
// back as windowAge (Config.Reach bounds it): no append waits for as long.
type window struct {
	start int64
	most  int // entries
	first map[chat.Identity]firstSeen
	order []chat.Identity // by offset
}

type firstSeen struct {
	offset int64
	time   time.Time
	hash   contentHash
}

func newWindow(start int64, most int) window {
	return window{start: start, most: most, first: map[chat.Identity]firstSeen{}}
}

// add remembers where an identity comes first. Offsets rise.
func (w *window) add(id chat.Identity, at firstSeen) {
	if _, known := w.first[id]; !known {
		w.first[id] = at
		w.order = append(w.order, id)
	}
}

// extend puts what a Refill found below start in front, and reports false if that does not fit.
func (w *window) extend(start int64, found []seen) bool {
	if len(w.order)+len(found) > w.most {
		return false
	}
	order := make([]chat.Identity, 0, len(found)+len(w.order))
	below := make(map[chat.Identity]bool, len(found))
	for _, s := range found {
		if !below[s.id] {
			below[s.id] = true
			order = append(order, s.id)
			w.first[s.id] = s.firstSeen
		}
	}
	for _, id := range w.order {
		if !below[id] { // else it has a lower offset now, and stands in front
			order = append(order, id)
		}
	}
	w.order, w.start = order, start
	return true
}

// trim drops what nobody can ask for any more: entries older than windowAge (by the log's clock, as of now) that lie below
// settled, the history offset as it was known windowAge ago. Any resend stamped since has its SearchFrom at or above that.
// If there are still too many, the oldest go as well: then start says so, and a resend that reaches below is refilled.
func (w *window) trim(now time.Time, settled int64) {
	n := 0
	for _, id := range w.order {
		at := w.first[id]
		expired := now.Sub(at.time) > windowAge && at.offset < settled
		if !expired && len(w.order)-n <= w.most {
			break
		}
		w.start = at.offset + 1
		delete(w.first, id)
		n++
	}
	// Copied once half is gone, so that what was dropped is freed in the end and the cost per entry stays constant.
	if w.order = w.order[n:]; cap(w.order) > 64 && len(w.order) < cap(w.order)/2 {
		w.order = append(make([]chat.Identity, 0, len(w.order)), w.order...)
	}
}

// seen is a message found by a Refill.
type seen struct {
	id chat.Identity
	firstSeen
}

// contentHash tells contents apart that were given the same identity, as chat.SameContent would.
type contentHash [16]byte

func hashContent(m *pb.Message) contentHash {
	content := pb.Message{Payload: m.GetPayload(), ReplyTo: m.GetReplyTo()}
	// The encoding is deterministic: fields in order, no maps. It cannot fail: the message was just decoded.
	encoded, _ := content.MarshalVT()
	sum := sha256.Sum256(encoded)
	return contentHash(sum[:16])
}

// settling gives the history offset as it was known windowAge ago, from samples that rise.
type settling struct {
	offset  int64
	samples []historySample // at most one a second, so at most windowAge of them and a few
}

type historySample struct {
	at     time.Time
	offset int64
}

func (s *settling) sample(now time.Time, offset int64) {
	if n := len(s.samples); n == 0 || now.Sub(s.samples[n-1].at) >= time.Second {
		s.samples = append(s.samples, historySample{now, offset})
	}
	s.advance(now)
}

func (s *settling) advance(now time.Time) int64 {
	n := 0
	for n < len(s.samples) && now.Sub(s.samples[n].at) >= windowAge {
		s.offset = s.samples[n].offset
		n++
	}
	s.samples = s.samples[n:]
	return s.offset
}
