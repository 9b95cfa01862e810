package timeline

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/presence"
)

// query is a request for the messages with after < seq < before.
type query struct {
	conversation  string
	after, before uint64 // before is never 0
	limit         int
	forward       bool
}

func newQuery(r *pb.HistoryRequest) query {
	q := query{
		conversation: r.GetConversation(), after: r.GetAfter(), before: r.GetBefore(),
		limit: int(min(r.GetLimit(), wire.MaxHistoryLimit)), forward: r.GetForward(),
	}
	if q.before == 0 {
		q.before = math.MaxUint64
	}
	if q.limit == 0 {
		q.limit = wire.DefaultHistory
	}
	return q
}

// bound is before as stores take it.
func (q query) bound() uint64 {
	if q.before == math.MaxUint64 {
		return 0
	}
	return q.before
}

// stretch is a range of a conversation, from < seq < to, with all messages in it: sorted, each identity once.
type stretch struct {
	from, to uint64
	messages []*pb.Message
}

// answer makes the response of what is complete. partial: there is more between the stretch and the query's bound.
func (q query) answer(s stretch, partial bool) *pb.HistoryResponse {
	// What the database said of the first one's predecessor holds. The others' are here.
	for i, m := range s.messages {
		if i > 0 {
			m.PrevSeq, m.PrevKnown = s.messages[i-1].GetSeq(), true
		} else if s.from == 0 {
			m.PrevSeq, m.PrevKnown = 0, true
		}
	}
	from, to := max(s.from, q.after), min(s.to, q.before)
	var in []*pb.Message
	for _, m := range s.messages {
		if m.GetSeq() > from && m.GetSeq() < to {
			in = append(in, m)
		}
	}
	more := partial || !q.forward && from > q.after
	if n := q.fit(in); n < len(in) {
		more = true
		if q.forward {
			in = in[:n]
			to = in[n-1].GetSeq() + 1
		} else {
			in = in[len(in)-n:]
			from = in[0].GetSeq() - 1
		}
	}
	// The range between two neighbours has nothing in it, and is the least that can be said.
	return &pb.HistoryResponse{Messages: in, CoversAfter: from, CoversBefore: max(to, from+1), More: more}
}

// maxPageBytes bounds the messages of a page, but for a single one, so that an answer fits in a frame of the usual limit.
const maxPageBytes = wire.DefaultMaxFrame * 3 / 4

// fit is how many of the messages, from the query's end on, one page takes: at least one.
func (q query) fit(in []*pb.Message) int {
	bytes := 0
	for n := range min(len(in), q.limit) {
		m := in[n]
		if !q.forward {
			m = in[len(in)-1-n]
		}
		if bytes += m.SizeVT(); bytes > maxPageBytes {
			return max(n, 1)
		}
	}
	return min(len(in), q.limit)
}

// page reads what a query asks for.
func (r *Reader) page(ctx context.Context, q query) (*pb.HistoryResponse, error) {
	if q.after >= q.before-1 { // nothing can be between
		return q.answer(stretch{from: q.after, to: q.before}, false), nil
	}
	recent, err := r.recents(ctx, q) // first: see the package's comment
	if err == nil && recent.suffices(q) {
		return q.answer(recent.stretch, false), nil
	}
	stored, err := r.stored(ctx, q)
	switch {
	case err != nil:
		return nil, err
	case recent.joins(stored.to):
		return q.answer(merge(stored.stretch, recent.stretch), false), nil
	case stored.settles(q):
		return q.answer(stored.stretch, false), nil
	}
	return r.withLog(ctx, q, stored, recent)
}

// withLog answers a query where something may be in neither the recents nor the database: from the history offset on, up to where
// the recents begin, or to the log's end if they have nothing. If the log does not give it, what is complete without is told.
func (r *Reader) withLog(ctx context.Context, q query, stored storedPage, recent recentPage) (*pb.HistoryResponse, error) {
	upTo := int64(-1)
	if recent.some {
		_, upTo = eventlog.SplitSeq(recent.from + 1)
	}
	tail, err := r.tail(ctx, q, stored.offset, upTo)
	switch {
	case err == nil:
		known := merge(stored.stretch, tail.stretch)
		if tail.full && !q.forward {
			known = tail.stretch // it has as many as were asked for, but not all down to the database's
		}
		if joined := recent.joins(known.to); joined || !recent.some {
			if joined {
				known = merge(known, recent.stretch)
			}
			return q.answer(known, tail.partial), nil
		}
		return q.answer(known, true), nil
	case q.forward && stored.to > q.after+1:
		return q.answer(stored.stretch, true), nil
	case !q.forward && len(recent.messages) > 0:
		return q.answer(recent.stretch, true), nil
	}
	return nil, err
}

// recentPage is what the recents have of a query.
type recentPage struct {
	stretch      // complete: from is just below the lowest seq that it can speak for
	some    bool // the recents have anything of this conversation
	full    bool // as many as were asked for
}

// recents reads the recents. Their stretch reaches from ContiguousFrom to the newest, or as far as the page does.
func (r *Reader) recents(ctx context.Context, q query) (recentPage, error) {
	p, err := r.opts.Recents.Page(ctx, q.conversation, q.after, q.bound(), q.limit+1, q.forward)
	if err != nil || p.ContiguousFrom == 0 {
		return recentPage{}, err
	}
	s := recentPage{some: true, stretch: stretch{from: p.ContiguousFrom - 1, to: p.Newest + 1}}
	for _, m := range p.Messages {
		if m.Seq < p.ContiguousFrom {
			continue // there may be others between, which are not here
		}
		decoded, err := decodeRecent(q.conversation, m)
		if err != nil {
			return recentPage{}, err
		}
		s.messages = append(s.messages, decoded)
	}
	if n := len(p.Messages); n > q.limit && q.forward {
		s.full, s.to = true, min(s.to, p.Messages[n-1].Seq+1)
	}
	if n := len(s.messages); n > q.limit && !q.forward {
		s.full, s.from = true, max(s.from, s.messages[0].GetSeq()-1)
	}
	return s, nil
}

// decodeRecent reads a message that a router put into the recents.
func decodeRecent(conversation string, m presence.RecentMessage) (*pb.Message, error) {
	decoded := new(pb.Message)
	if err := decoded.UnmarshalVT(m.Message); err != nil {
		return nil, fmt.Errorf("recents of %s at %d: %w", conversation, m.Seq, err)
	}
	decoded.Seq, decoded.PrevSeq, decoded.PrevKnown = m.Seq, 0, false
	return decoded, nil
}

// suffices says whether the recents alone answer a query. While no router runs, the database is ahead of them. So an empty page does
// not, nor do recents that end below where a backward query begins. Without a bound they do: the answer says where they end, a
// client that knows of a higher head asks on from there, and what was never routed is still to be delivered.
func (p recentPage) suffices(q query) bool {
	switch {
	case len(p.messages) == 0:
		return false
	case q.forward:
		return q.after >= p.from
	}
	return (q.bound() == 0 || q.before <= p.to) && (p.full || q.after >= p.from)
}

// joins says whether there is no hole between what is complete below to and the recents.
func (p recentPage) joins(to uint64) bool { return p.some && p.from < to }

// storedPage is what the database has of a query: complete below the history offset and as far as its messages go, since they
// are written in order.
type storedPage struct {
	stretch
	offset int64 // the history offset
	full   bool  // as many as were asked for
}

// settles says whether the database alone answers a query.
func (p storedPage) settles(q query) bool { return q.before <= p.to || q.forward && p.full }

// stored reads the history offset, and then the database. Many that ask for the same at a time share one answer (breakdown); that
// it may be older than the caller's recents shows as a hole, and is filled from the log.
func (r *Reader) stored(ctx context.Context, q query) (storedPage, error) {
	key := fmt.Sprintf("%s %d %d %d %t", q.conversation, q.after, q.before, q.limit, q.forward)
	p, err := r.flight.do(ctx, r.opts.Clock, key, func() (storedPage, error) {
		ctx, cancel := r.opts.Clock.WithTimeout(context.WithoutCancel(ctx), r.opts.Patience)
		defer cancel()
		offsets, err := r.opts.Store.HistoryOffsets(ctx, chat.TopicMessages)
		if err != nil {
			return storedPage{}, err
		}
		messages, err := r.opts.Store.Messages(ctx, q.conversation, q.after, q.bound(), q.limit+1, q.forward)
		return storedPage{offset: offsets[r.partition(q.conversation)], stretch: stretch{messages: messages}}, err
	})
	if err != nil {
		return p, unavailable("history", err)
	}
	p.messages = cloneAll(p.messages) // shared, and prev_seq is set on them
	p.from, p.to = q.after, r.seq(p.offset)
	if n := len(p.messages); n > 0 {
		p.to = max(p.to, p.messages[n-1].GetSeq()+1)
		if p.full = n > q.limit; p.full && q.forward {
			p.to = p.messages[n-1].GetSeq() + 1
		} else if p.full {
			p.from = p.messages[0].GetSeq() - 1
		}
	}
	return p, nil
}

// cloneAll copies messages so that prev can be set; what they point to is only read.
func cloneAll(messages []*pb.Message) []*pb.Message {
	out := make([]*pb.Message, len(messages))
	for i, m := range messages {
		out[i] = &pb.Message{
			Conversation: m.GetConversation(), Seq: m.GetSeq(), PrevSeq: m.GetPrevSeq(), PrevKnown: m.GetPrevKnown(), Sender: m.GetSender(),
			ClientMsgId: m.GetClientMsgId(), TimeMs: m.GetTimeMs(), Payload: m.GetPayload(), ReplyTo: m.GetReplyTo(),
		}
	}
	return out
}

// merge joins two stretches that overlap or touch. Where they say the same, a's copy is kept.
func merge(a, b stretch) stretch {
	out := stretch{from: min(a.from, b.from), to: max(a.to, b.to)}
	out.messages = append(slices.Clone(a.messages), b.messages...)
	slices.SortStableFunc(out.messages, func(x, y *pb.Message) int { return cmp.Compare(x.GetSeq(), y.GetSeq()) })
	out.messages = once(out.messages)
	return out
}

// once keeps each identity where it comes first.
func once(sorted []*pb.Message) []*pb.Message {
	seen := make(map[chat.Identity]bool, len(sorted))
	return slices.DeleteFunc(sorted, func(m *pb.Message) bool {
		id := chat.IdentityOf(m)
		again := seen[id]
		seen[id] = true
		return again
	})
}
