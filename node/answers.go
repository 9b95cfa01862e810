package node

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/session"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
)

// logged is a send that the log has taken.
type logged struct {
	answer session.Appended
	record chat.Record
	again  bool // the sender's right is to be looked at again before the message is acknowledged
}

const (
	// lookers look at rights again: only while the node has no lease, or just lost it.
	lookers = 8
	// lookTimeout bounds one such look.
	lookTimeout = 2 * time.Second
)

// logAnswered takes the log's answers to a session's sends that are durable. They are told in the order in which they come: where one needs a look
// at the database, those behind it wait, for the session takes the order for the log's.
func (c *Client) logAnswered(l logged) {
	c.mu.Lock()
	if !c.looking && !l.again {
		c.mu.Unlock()
		c.post(l.answer)
		return
	}
	c.late = append(c.late, l) // bounded by the sends in flight
	looking := c.looking
	c.looking = true
	c.mu.Unlock()
	if looking {
		return
	}
	if execute := c.node.opts.Execute; execute != nil {
		execute(func() { c.tellLate(c.node.checkAgain) })
		return
	}
	select {
	case c.node.again <- c:
	default:
		c.tellLate(func(chat.Record) *wire.Error {
			return notLooked("this node has too much to do: send it again, it will be stored once")
		})
	}
}

// look looks at rights again, for clients with answers that wait for it.
func (n *Node) look() {
	for {
		select {
		case c := <-n.again:
			c.tellLate(n.checkAgain)
		case <-n.ctx.Done():
			return
		}
	}
}

// tellLate tells all answers that wait. One look serves all messages to a conversation that the log has answered before it; after
// a look that failed nothing more is asked for those at hand.
func (c *Client) tellLate(check func(chat.Record) *wire.Error) {
	type right struct {
		conversation string
		version      uint64
	}
	for {
		c.mu.Lock()
		list := c.late
		if c.late = nil; len(list) == 0 {
			c.looking = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		known := map[right]*wire.Error{}
		var away *wire.Error
		for _, l := range list {
			if l.again {
				k := right{l.answer.Conversation, l.record.Version}
				verdict, looked := known[k]
				if !looked {
					if verdict = away; verdict == nil {
						verdict = check(l.record)
					}
					if known[k] = verdict; verdict != nil && verdict.RetryAfter > 0 {
						away = verdict
					}
				}
				l.answer.Err = verdict
			}
			c.post(l.answer)
		}
	}
}

// checkAgain gives what the sender of a record that is in the log is to be told instead of an acknowledgement, or nil.
func (n *Node) checkAgain(r chat.Record) *wire.Error {
	ctx, cancel := n.opts.Clock.WithTimeout(n.ctx, lookTimeout)
	defer cancel()
	err := n.opts.Service.CheckAgain(ctx, r)
	if err == nil {
		n.metrics.looks.WithLabelValues("allowed").Inc()
		return nil
	}
	answer := chat.Answer(err)
	if answer.Code == pb.Code_CODE_NOT_FRIENDS || answer.Code == pb.Code_CODE_NOT_FOUND {
		n.metrics.looks.WithLabelValues("ended").Inc()
		return answer
	}
	n.metrics.looks.WithLabelValues("unknown").Inc()
	n.log.Warn("a message is not acknowledged, since the sender's right is not known", zap.Error(err))
	return notLooked("the message may be stored: send it again, it will be stored once")
}

func notLooked(message string) *wire.Error {
	return &wire.Error{Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: retryAfter, Message: message}
}

// ends are lower bounds of where the log's partitions end, from what is surely in it.
type ends []atomic.Int64

func (e ends) raise(partition int32, to int64) {
	if int(partition) >= len(e) || partition < 0 {
		return
	}
	for {
		old := e[partition].Load()
		if old >= to || e[partition].CompareAndSwap(old, to) {
			return
		}
	}
}

// LogSeen tells the node up to where each partition of the log is in the database.
func (n *Node) LogSeen(offsets map[int32]int64) {
	for p, offset := range offsets {
		n.ends.raise(p, offset)
	}
}

// basis is what the node knows of itself now, for a check of the right to write to a conversation. The end comes before the life: a
// closing below it was fenced before, and if this node holds its lease still, then also here. The other way round the node may be
// stopped in between, be waited out, and take an end from behind the closing for what it remembers from before.
func (n *Node) basis(conversation string) chat.Basis {
	end := n.ends[eventlog.PartitionOf(conversation, n.opts.Topic.Partitions)].Load()
	return chat.Basis{Life: n.presence.Incarnation(), LogEnd: end}
}

// Fence implements peer.Handler.
func (n *Node) Fence(f peer.Fence, done func(incarnation string)) {
	incarnation := n.presence.Incarnation()
	if c, err := wire.ParseConversation(f.Conversation); err == nil && c.Kind == 'g' {
		n.fenceGroup(c.A, f.Version)
	}
	n.opts.Service.Fence(f.Conversation, f.Version, func() { done(incarnation) })
}
