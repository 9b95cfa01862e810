package timeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
)

// unavailable is the answer when the database or the log is away.
func unavailable(op string, cause error) error {
	answer := wire.Errorf(pb.Code_CODE_UNAVAILABLE, "a part of the cluster is away")
	answer.RetryAfter = time.Second
	return &chat.Failure{Answer: answer, Op: op, Cause: cause}
}

var errHistoryLags = errors.New("history is further behind than may be read from the log at once")

// pending is the answer for what is in the log, but too much to be read from there.
func pending() error {
	return &chat.Failure{Answer: chat.Pending("the newest part of it"), Op: "history", Cause: errHistoryLags}
}

// tailPage is what the log has of a query.
type tailPage struct {
	stretch
	full    bool // as many as were asked for: the stretch ends there
	partial bool // it ends before upTo
}

// tail reads a conversation from the log, from the history offset on up to upTo, or to the log's end if that is below 0.
func (r *Reader) tail(ctx context.Context, q query, from, upTo int64) (tailPage, error) {
	partition := r.partition(q.conversation)
	if upTo < 0 {
		_, end, err := r.opts.Log.Bounds(ctx, chat.TopicMessages, partition)
		if err != nil {
			return tailPage{}, unavailable("log bounds", err)
		}
		upTo = end
	}
	most := int64(r.opts.MaxRecords)
	var t tailPage
	if upTo-from > most {
		if !q.forward {
			return t, pending()
		}
		// In steps: from where the caller is. What was sent before that and once more after it is then not known for a copy;
		// the caller knows it by its identity.
		if epoch, offset := eventlog.SplitSeq(q.after); epoch == r.opts.Topic.Epoch {
			from = min(max(from, offset+1), upTo)
		}
		t.partial = upTo-from > most
		upTo = min(upTo, from+most)
	}
	t.stretch = stretch{from: r.seq(from) - 1, to: max(r.seq(from), r.seq(upTo))}
	valid, err := r.valid(ctx, partition, from, upTo, func(conversation string) bool { return conversation == q.conversation })
	if err != nil {
		return t, err
	}
	t.messages = once(valid)
	return t, r.sift(ctx, q, &t)
}

// valid reads the valid messages of some conversations with from <= offset < upTo. What ended their senders' rights may stand below, down to
// where these were checked: that is read as well, which is seldom more than a few records.
func (r *Reader) valid(ctx context.Context, partition int32, from, upTo int64, wanted func(conversation string) bool) ([]*pb.Message, error) {
	var all []chat.Record
	closings, since := chat.Closings{}, from
	err := r.read(ctx, partition, from, upTo, func(rec chat.Record) {
		if !wanted(rec.Message.GetConversation()) {
			return
		}
		closings.Note(rec.Message)
		if closings.Invalid(rec) {
			return
		}
		all = append(all, rec)
		if rec.Checked {
			since = min(since, max(rec.CheckedFrom, 0))
		}
	})
	below := chat.Closings{}
	if err == nil && since < from {
		err = r.closings(ctx, partition, since, from, below)
	}
	if err != nil {
		return nil, err
	}
	var messages []*pb.Message
	for _, rec := range all {
		if !below.Invalid(rec) {
			messages = append(messages, rec.Message)
		}
	}
	return messages, nil
}

// closings notes those with from <= offset < to.
func (r *Reader) closings(ctx context.Context, partition int32, from, to int64, into chat.Closings) error {
	start, _, err := r.opts.Log.Bounds(ctx, chat.TopicMessages, partition)
	if err != nil {
		return unavailable("log bounds", err)
	}
	if from = max(from, start); to-from > int64(r.opts.MaxRecords) {
		return pending()
	}
	return r.read(ctx, partition, from, to, func(rec chat.Record) { into.Note(rec.Message) })
}

// sift drops what the database has at a lower position, and stops once there are as many as were asked for.
func (r *Reader) sift(ctx context.Context, q query, t *tailPage) error {
	kept := make([]*pb.Message, 0, min(len(t.messages), q.limit+1))
	for i := range t.messages {
		m := t.messages[i]
		if !q.forward {
			m = t.messages[len(t.messages)-1-i]
		}
		if m.GetSeq() <= q.after || m.GetSeq() >= q.before {
			continue
		}
		known, err := r.known(ctx, m)
		if err != nil {
			return err
		}
		if known {
			continue
		}
		if kept = append(kept, m); len(kept) > q.limit {
			t.full = true
			break
		}
	}
	t.messages = kept
	if !q.forward {
		for i, j := 0, len(kept)-1; i < j; i, j = i+1, j-1 {
			kept[i], kept[j] = kept[j], kept[i]
		}
	}
	switch {
	case t.full && q.forward:
		t.to, t.partial = kept[q.limit].GetSeq()+1, true
	case t.full:
		t.from = kept[0].GetSeq() - 1
	default:
		// What lies outside the query was left out.
		t.from, t.to = max(t.from, min(q.after, t.to-1)), min(t.to, max(q.before, t.from+1))
	}
	return nil
}

// known says whether the database has a message's identity at a lower position: then it is a copy.
func (r *Reader) known(ctx context.Context, m *pb.Message) (bool, error) {
	found, err := r.opts.Store.FindMessage(ctx, chat.IdentityOf(m))
	switch {
	case errors.Is(err, chat.ErrNotFound):
		return false, nil
	case err != nil:
		return false, unavailable("find message", err)
	}
	return found.GetSeq() < m.GetSeq(), nil
}

// read gives the messages of one partition with from <= offset < to, all of which the log has. Few may read at a time.
func (r *Reader) read(ctx context.Context, partition int32, from, to int64, take func(chat.Record)) error {
	if from >= to {
		return nil
	}
	select {
	case r.reads <- struct{}{}:
		defer func() { <-r.reads }()
	case <-ctx.Done():
		return unavailable("log reads", context.Cause(ctx))
	}
	reader, err := r.opts.Log.Open(ctx, chat.TopicMessages, partition, from)
	if err != nil {
		return unavailable("log open", err)
	}
	defer func() { _ = reader.Close() }() // only read
	for next := from; next < to; {
		records, err := reader.Next(ctx)
		if err != nil {
			return unavailable("log read", fmt.Errorf("%d/%d: %w", partition, next, err))
		}
		for _, record := range records {
			next = record.Offset + 1
			if record.Offset >= to {
				break
			}
			parsed, err := chat.ParseRecord(r.opts.Topic.Epoch, record)
			if err != nil || parsed.Message.GetPayload().GetKind() == nil {
				continue // history keeps it among the dead
			}
			take(parsed)
		}
	}
	return nil
}
