package timeline

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
)

// headReads is how many conversations of one request are looked at at a time.
const headReads = 8

// Heads gives the heads of a user's conversations, at most chat.MaxConversations, the newest. The session must have been
// registered before (I4): a message that was routed earlier raised the head in the recents before its router looked for
// sessions, so it is in what is read here; one that is routed later finds the session and is delivered. So no head is below
// what was acknowledged and routed before the session was registered.
//
// The unread are those of the database and, above its head, those of others in the recents. UNAVAILABLE if the database is away,
// or if presence is and what the database does not have is too much to be read from the log.
func (r *Reader) Heads(ctx context.Context, user int64) ([]*pb.Head, error) {
	ctx, cancel := r.opts.Clock.WithTimeout(ctx, r.opts.Patience)
	defer cancel()
	groups, err := r.opts.Store.GroupsOf(ctx, user)
	if err != nil {
		return nil, unavailable("groups", err)
	}
	newest, recentErr := r.recentHeads(ctx, user, groups)
	if recentErr != nil {
		return r.headsFromLog(ctx, user, groups)
	}
	heads, err := r.storedHeads(ctx, user)
	if err != nil {
		return nil, err
	}
	var above []*pb.Head // those that the recents are ahead of
	for _, conversation := range slices.Sorted(maps.Keys(newest)) {
		if !isGroup(conversation) && chat.MayRead(user, conversation) != nil {
			continue
		}
		h := heads.get(conversation)
		if newest[conversation] > h.GetSeq() {
			above = append(above, h)
		}
	}
	err = clock.Each(r.opts.Clock, len(above), headReads, func(i int) error {
		return r.raise(ctx, user, above[i], newest[above[i].GetConversation()])
	})
	if err != nil {
		return nil, err
	}
	return r.newest(ctx, heads)
}

// recentHeads gives the heads in the recents: of a user's own conversations, and of the groups that he is in.
func (r *Reader) recentHeads(ctx context.Context, user int64, groups []int64) (map[string]uint64, error) {
	heads, err := r.opts.Recents.Heads(ctx, user)
	if err != nil || len(groups) == 0 {
		return heads, err
	}
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = wire.Group(g)
	}
	ofGroups, err := r.opts.Recents.Newest(ctx, names)
	if err != nil {
		return nil, err
	}
	heads = maps.Clone(heads)
	maps.Copy(heads, ofGroups)
	return heads, nil
}

func isGroup(conversation string) bool { return strings.HasPrefix(conversation, "g:") }

// headSet is heads by conversation.
type headSet map[string]*pb.Head

func (s headSet) get(conversation string) *pb.Head {
	h := s[conversation]
	if h == nil {
		h = &pb.Head{Conversation: conversation}
		s[conversation] = h
	}
	return h
}

func (r *Reader) storedHeads(ctx context.Context, user int64) (headSet, error) {
	stored, err := r.opts.Store.Heads(ctx, user)
	if err != nil {
		return nil, unavailable("heads", err)
	}
	heads := make(headSet, len(stored))
	for _, h := range stored {
		heads[h.Conversation] = protoHead(h)
	}
	return heads, nil
}

func protoHead(h chat.Head) *pb.Head {
	return &pb.Head{Conversation: h.Conversation, Seq: h.Seq, ReadSeq: h.ReadSeq, Unread: h.Unread}
}

// raise moves a head of the database to where the recents are, and counts what others wrote between.
func (r *Reader) raise(ctx context.Context, user int64, h *pb.Head, newest uint64) error {
	const most = 10_000 // the recents have far fewer
	p, err := r.opts.Recents.Page(ctx, h.GetConversation(), h.GetSeq(), 0, most, true)
	if err != nil {
		return unavailable("recents", err)
	}
	if p.ContiguousFrom == 0 || p.ContiguousFrom > h.GetSeq()+1 {
		// Some may have been trimmed since the head was read, or had expired: then the database has them by now. What it still
		// does not have is counted when it does.
		stored, err := r.opts.Store.Head(ctx, user, h.GetConversation())
		switch {
		case err == nil:
			h.Seq, h.ReadSeq, h.Unread = stored.Seq, stored.ReadSeq, stored.Unread
		case !errors.Is(err, chat.ErrNotFound):
			return unavailable("head", err)
		}
	}
	if isGroup(h.GetConversation()) && h.GetSeq() == 0 {
		// He has just joined, and history does not know of it yet: what of the recents is for him cannot be told until it does.
		h.Seq = newest
		return nil
	}
	for _, m := range p.Messages {
		if m.Seq <= h.GetSeq() {
			continue
		}
		decoded, err := decodeRecent(h.GetConversation(), m)
		if err != nil {
			return unavailable("recents", err)
		}
		if chat.IdentityOf(decoded).Sender != user {
			h.Unread++
		}
	}
	h.Seq = max(h.GetSeq(), newest, p.Newest)
	return nil
}

// headsFromLog is Heads without presence: what the database does not have yet is read from the log, of all partitions.
func (r *Reader) headsFromLog(ctx context.Context, user int64, groups []int64) ([]*pb.Head, error) {
	offsets, err := r.opts.Store.HistoryOffsets(ctx, chat.TopicMessages) // before the heads, as for a page
	if err != nil {
		return nil, unavailable("heads", err)
	}
	heads, err := r.storedHeads(ctx, user)
	if err != nil {
		return nil, err
	}
	ends := make([]int64, r.opts.Topic.Partitions)
	err = clock.Each(r.opts.Clock, len(ends), headReads, func(p int) (err error) {
		_, ends[p], err = r.opts.Log.Bounds(ctx, chat.TopicMessages, int32(p))
		return err
	})
	if err != nil {
		return nil, unavailable("log bounds", err)
	}
	records := int64(0)
	for p, end := range ends {
		records += max(end-offsets[int32(p)], 0)
	}
	if records > int64(r.opts.MaxRecords) {
		return nil, unavailable("heads", errHistoryLags)
	}
	var late []*pb.Message
	for p, end := range ends {
		valid, err := r.valid(ctx, int32(p), offsets[int32(p)], end, func(conversation string) bool {
			c, err := wire.ParseConversation(conversation)
			return err == nil && (c.Has(user) || c.Kind == 'g' && slices.Contains(groups, c.A))
		})
		if err != nil {
			return nil, err
		}
		late = append(late, valid...)
	}
	for _, m := range once(late) {
		h := heads.get(m.GetConversation())
		if m.GetSeq() <= h.GetSeq() {
			continue // written since the offsets were read
		}
		known, err := r.known(ctx, m)
		if err != nil {
			return nil, err
		}
		if !known {
			h.Seq = m.GetSeq()
			if chat.IdentityOf(m).Sender != user {
				h.Unread++
			}
		}
	}
	return r.newest(ctx, heads)
}

// newest cuts heads to the newest conversations. Positions of different partitions cannot be compared, so it takes the times of
// the last messages; what is not in the database yet is newest of all.
func (r *Reader) newest(ctx context.Context, heads headSet) ([]*pb.Head, error) {
	names := slices.Sorted(maps.Keys(heads))
	if len(names) > chat.MaxConversations {
		last, err := r.opts.Store.LastMessages(ctx, names)
		if err != nil {
			return nil, unavailable("last messages", err)
		}
		at := func(name string) int64 {
			if m := last[name]; m.GetSeq() >= heads[name].GetSeq() {
				return m.GetTimeMs()
			}
			return 1<<63 - 1
		}
		slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(at(b), at(a)), strings.Compare(a, b)) })
		names = names[:chat.MaxConversations]
	}
	out := make([]*pb.Head, 0, len(names))
	for _, name := range names {
		if h := heads[name]; h.GetSeq() > 0 {
			out = append(out, h)
		}
	}
	return out, nil
}
