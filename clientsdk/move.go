package future

import (
	"net"
	"time"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

const (
	// moveGrace is how long a client may be on its way from a node that goes down to another before its program is told Offline.
	moveGrace = 5 * time.Second
	// mostTold is how many addresses a node may tell, and mostAddr how long each may be.
	mostTold = 8
	mostAddr = 255
)

// target is an address to connect to.
type target struct {
	addr string
	// exposed: it was told over a network in clear, where anybody may have told it.
	exposed bool
	// via is the address of Dial by which we came to it, and differs if a node told us of addr. It is whose name TLS must prove, for
	// a node must not be able to send its clients, and their tokens, to somebody with another name and a good certificate for it.
	via string
}

// told: a node told us of it.
func (t target) told() bool { return t.addr != t.via }

// nextTarget is what to try next: where the last node sent us, once each, and then the addresses of Dial in turn. What was told
// is never kept for later: whoever speaks for a node for a moment must not keep its clients.
func (l *loop) nextTarget() target {
	if len(l.told) > 0 {
		t := l.told[0]
		l.told = l.told[1:]
		return t
	}
	addr := l.addrs[l.next%len(l.addrs)]
	l.next++
	return target{addr: addr, via: addr}
}

// move leaves a node that goes down for another, which the program need not notice: it is told Offline only if that takes long.
func (l *loop) move(c *pb.Closing) {
	err := closingError(c)
	l.told = nil
	addrs := c.GetAddrs()
	if l.link.told() && l.phase != phaseLive {
		addrs = nil // from one address to the next without ever a session: back to those of Dial
	}
	if !l.wantsLink() {
		addrs = nil // nobody goes there now, and by the time when somebody logs in it is old news
	}
	for _, addr := range addrs {
		host, port, bad := net.SplitHostPort(addr)
		if bad == nil && host != "" && port != "" && len(addr) <= mostAddr && addr != l.link.via && len(l.told) < mostTold {
			l.told = append(l.told, target{addr: addr, via: l.link.via, exposed: !l.link.private()})
		}
	}
	if l.phase == phaseHello {
		l.phase, l.dialErrs = phaseGreeted, nil // it can be reached, and says so: it is no address that was tried in vain
	}
	if l.phase == phaseLive && l.movedAt.IsZero() {
		l.moving, l.movedAt = StateChange{State: Offline, Err: err}, l.now()
	}
	l.lost(err, time.Duration(c.GetRetryAfterMs())*time.Millisecond)
}

// leaving: the node refuses requests because it goes down.
func (l *loop) leaving() {
	if l.link.leaving.IsZero() {
		l.link.leaving = l.now()
	}
	if l.phase == phaseEntering {
		l.phase = phaseGreeted
	}
}

// askElsewhere keeps a request that the node has not carried out, because it goes down, for the next connection.
func (l *loop) askElsewhere(c *call) {
	l.leaving()
	if !c.abandoned {
		l.waiting = append(l.waiting, c)
	}
}
