package node

import (
	"encoding/binary"

	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/session"
	"github.com/futurechat/future/router/peer"
)

var _ peer.Handler = (*Node)(nil)

// Forward implements peer.Handler: it hands a router's messages to the connections that they are for.
func (n *Node) Forward(link uint64, f peer.Forward) peer.Answer {
	if f.Incarnation == "" || f.Incarnation != n.presence.Incarnation() {
		n.metrics.forwards.WithLabelValues("wrong_incarnation").Inc()
		return peer.Answer{Status: peer.StatusWrongIncarnation}
	}
	n.inboxMu.Lock()
	defer n.inboxMu.Unlock()
	got := n.inbox.Receive(link, f)
	if got.Status != peer.StatusDelivered {
		n.metrics.forwards.WithLabelValues("stale").Inc()
		return peer.Answer{Status: got.Status}
	}
	n.metrics.forwards.WithLabelValues("delivered").Inc()
	if got.Compare {
		// Before what comes now, so that no client takes it for the next after a hole.
		n.CompareAll()
	}
	answer := peer.Answer{Status: peer.StatusDelivered}
	for _, m := range got.Messages {
		if m.Group != 0 {
			answer.Missed = n.forwardGroup(m, answer.Missed)
			continue
		}
		frame := deliveryFrame(m.Body)
		for _, r := range m.Recipients {
			if !n.deliver(r, session.Deliver{Frame: frame}) {
				answer.Missed = append(answer.Missed, peer.Missed{Seq: m.Seq, Recipient: r})
			}
		}
	}
	for _, m := range got.Repeats {
		for _, r := range m.Recipients {
			if !n.has(r) {
				answer.Missed = append(answer.Missed, peer.Missed{Seq: m.Seq, Recipient: r})
			}
		}
	}
	for _, r := range got.Rejections {
		frame, err := wire.AppendFrame(nil, &pb.Envelope{Body: &pb.Envelope_Rejected{Rejected: r.Rejected}})
		if err != nil {
			n.log.Error("a rejection could not be encoded", zap.Error(err))
			continue
		}
		for _, to := range r.Recipients {
			n.deliver(to, session.Deliver{Frame: frame})
		}
	}
	return answer
}

// deliver reports whether the recipient has a session here. One that has not synced yet counts: it reads its heads after it was
// registered, and the router had added the message to them before it saw the registration (I4).
func (n *Node) deliver(r peer.Recipient, d session.Deliver) bool {
	if !n.has(r) {
		return false
	}
	if c := n.client(r.Connection); c != nil {
		c.post(d)
	}
	return true
}

// has reports whether the recipient has a session here.
func (n *Node) has(r peer.Recipient) bool {
	c := n.client(r.Connection)
	return c != nil && c.account().Account.ID == r.User
}

// deliveryFrame wraps an encoded Message as it is into the frame of an Envelope{delivery{messages}}: one frame for all its
// recipients here, and nothing is encoded again.
func deliveryFrame(message []byte) []byte {
	const messages, delivery = 1, 210 // field numbers in future.proto
	inner := protowire.SizeTag(messages) + protowire.SizeBytes(len(message))
	outer := protowire.SizeTag(delivery) + protowire.SizeBytes(inner)
	b := make([]byte, 0, wire.HeaderLen+outer)
	b = binary.BigEndian.AppendUint32(b, uint32(outer))
	b = protowire.AppendTag(b, delivery, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(inner))
	b = protowire.AppendTag(b, messages, protowire.BytesType)
	return protowire.AppendBytes(b, message)
}

// LinkLost implements peer.Handler.
func (n *Node) LinkLost(link uint64) {
	n.inboxMu.Lock()
	defer n.inboxMu.Unlock()
	if n.inbox.LinkLost(link) {
		n.CompareAll()
	}
}

// Kick implements peer.Handler: it ends connections, say because their device logged in elsewhere.
func (n *Node) Kick(k peer.Kick) {
	if k.Incarnation == "" || k.Incarnation != n.presence.Incarnation() {
		return
	}
	for _, id := range k.Connections {
		if c := n.client(id); c != nil {
			c.close(k.Reason)
		}
	}
}
