package node

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/session"
	"github.com/futurechat/future/router/clock"
)

const (
	// drainStep is how often clients are told to go, and drainBatch how many of them each time: 1,500 a second. The nodes that they go
	// to have others to serve, and a log-in costs about a third of a core-millisecond there.
	drainStep, drainBatch = 20 * time.Millisecond, 30
	// drainPatience is how long one client's requests may take to be answered before its connection ends all the same.
	drainPatience = requestTimeout + time.Second
	// scatter is over how long clients that were told to come back do so: they are told in batches.
	scatter = 200 * time.Millisecond
	// mostAddrs is how many other nodes a client is told of.
	mostAddrs = 8
)

// Drain tells every client to go to another node and waits until they are gone, or ctx ends. What a client had asked for is
// answered before; what comes after is refused as DRAINING, which says that it was not carried out. The gate must take nobody new.
func (n *Node) Drain(ctx context.Context) error {
	told := map[*Client]time.Time{}
	for {
		all := n.all()
		if len(all) == 0 {
			return nil
		}
		slices.SortFunc(all, func(a, b *Client) int { return cmp.Compare(a.conn.ID(), b.conn.ID()) }) // who came first goes first
		now, batch := n.opts.Clock.Now(), drainBatch
		for _, c := range all {
			at, known := told[c]
			switch {
			case !known && batch > 0:
				batch--
				told[c] = now
				c.post(session.Drain{})
			case known && now.Sub(at) > drainPatience:
				c.close(pb.Closing_REASON_DRAINING)
			}
		}
		if !clock.Sleep(ctx, n.opts.Clock, drainStep) {
			return context.Cause(ctx)
		}
	}
}

// Connections is how many clients there are.
func (n *Node) Connections() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.clients)
}

// FinalFrame is the last frame of a connection that ends for reason.
func (n *Node) FinalFrame(reason pb.Closing_Reason) []byte {
	closing := &pb.Closing{Reason: reason, Message: closings[reason]}
	switch {
	case reason == pb.Closing_REASON_DRAINING:
		// Not 0: who does not wait at all meets all the others.
		closing.RetryAfterMs = 1 + uint32(n.opts.Rand()*float64(scatter.Milliseconds()))
		closing.Addrs = n.elsewhere()
	case reason > pb.Closing_REASON_DRAINING:
		closing.RetryAfterMs = 1000
	}
	frame, err := wire.AppendFrame(nil, &pb.Envelope{Body: &pb.Envelope_Closing{Closing: closing}})
	if err != nil {
		return nil // the connection ends without a word, as the protocol allows
	}
	return frame
}

// elsewhere is where one client may go, in an order of its own.
func (n *Node) elsewhere() []string {
	if n.opts.Elsewhere == nil {
		return nil
	}
	addrs := slices.Clone(n.opts.Elsewhere())
	for i := len(addrs) - 1; i > 0; i-- {
		j := int(n.opts.Rand() * float64(i+1))
		addrs[i], addrs[j] = addrs[j], addrs[i]
	}
	return addrs[:min(len(addrs), mostAddrs)]
}

var closings = map[pb.Closing_Reason]string{
	pb.Closing_REASON_SESSION_ENDED:   "this session has ended",
	pb.Closing_REASON_REPLACED:        "this device logged in on another connection",
	pb.Closing_REASON_TOO_LARGE:       "a frame was over the limit",
	pb.Closing_REASON_MALFORMED:       "a frame was no Envelope",
	pb.Closing_REASON_VERSION:         "this version of the protocol is not spoken here",
	pb.Closing_REASON_DRAINING:        "this node goes down: connect again",
	pb.Closing_REASON_SLOW_CONSUMER:   "the connection took too little for too long",
	pb.Closing_REASON_SILENT:          "nothing came for too long",
	pb.Closing_REASON_OVERLOADED:      "too much at once",
	pb.Closing_REASON_NODE_LOST_LEASE: "this node has lost touch with the cluster",
}
