package timeline

import (
	"context"
	"slices"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

// groupPage reads a page of a group for one who is or was a member: of what was said while he was. What is not for him is as if it
// were not there, so a page that has nothing of it covers it all the same. PENDING while history does not have all notices
// that his rights begin and end with.
func (r *Reader) groupPage(ctx context.Context, user, group int64, q query) (*pb.HistoryResponse, error) {
	spans, pendingRights, err := r.opts.Store.Readable(ctx, group, user)
	switch {
	case err != nil:
		return nil, unavailable("rights", err)
	case pendingRights:
		return nil, chat.Pending("what you may read of this group")
	case len(spans) == 0:
		return nil, wire.Errorf(pb.Code_CODE_NOT_FOUND, "there is no such conversation")
	}
	cut := q
	cut.after = max(q.after, spans[0].From-1)
	if last := spans[len(spans)-1].To; last < q.before-1 {
		cut.before = last + 1
	}
	if cut.after >= cut.before {
		return q.nothing(cut), nil
	}
	page, err := r.page(ctx, cut)
	if err != nil {
		return nil, err
	}
	page.Messages = slices.DeleteFunc(page.Messages, func(m *pb.Message) bool {
		return !slices.ContainsFunc(spans, func(s chat.SeqSpan) bool { return s.From <= m.GetSeq() && m.GetSeq() <= s.To })
	})
	for i, m := range page.Messages { // the one before may be one that is not for him
		if i == 0 || page.Messages[i-1].GetSeq() != m.GetPrevSeq() {
			m.PrevSeq, m.PrevKnown = 0, false
		}
	}
	if page.GetCoversAfter() <= cut.after {
		page.CoversAfter = q.after
		page.More = page.More && q.forward
	}
	if page.GetCoversBefore() >= cut.before && q.bound() != 0 {
		page.CoversBefore = q.before
	}
	return page, nil
}

// nothing answers a query that lies outside of what one may read.
func (q query) nothing(cut query) *pb.HistoryResponse {
	before := q.before
	if q.bound() == 0 {
		before = max(cut.before, q.after+1)
	}
	return &pb.HistoryResponse{CoversAfter: q.after, CoversBefore: before}
}
