package app

import (
	"errors"
	"net"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node"
	"github.com/futurechat/future/node/tcpgate"
)

// gateHandler hands the gate's connections to the node.
type gateHandler struct{ node *node.Node }

func (h gateHandler) Opened(c *tcpgate.Conn) { c.SetValue(h.node.Open(gateConn{c})) }

func (h gateHandler) Frame(c *tcpgate.Conn, payload []byte) { client(c).Frame(payload) }

func (h gateHandler) Closed(c *tcpgate.Conn, _ tcpgate.CloseReason, _ error) { client(c).Closed() }

func (h gateHandler) Drained(c *tcpgate.Conn) { client(c).Drained() }

func client(c *tcpgate.Conn) *node.Client { return c.Value().(*node.Client) } // set in Opened

// gateConn is a gate's connection as the node knows it.
type gateConn struct{ c *tcpgate.Conn }

func (g gateConn) ID() uint64           { return g.c.ID() }
func (g gateConn) RemoteAddr() net.Addr { return g.c.RemoteAddr() }
func (g gateConn) LoggedIn()            { g.c.LoggedIn() }

func (g gateConn) Send(frame []byte) error {
	err := g.c.Send(frame)
	if errors.Is(err, tcpgate.ErrSlowConsumer) {
		return node.ErrSlow
	}
	return err
}

func (g gateConn) Close(reason pb.Closing_Reason) {
	if r, ok := closeReasons[reason]; ok {
		g.c.Close(r)
		return
	}
	g.c.Close("node")
}

// closeReasons are what the gate's metrics call the node's reasons.
var closeReasons = map[pb.Closing_Reason]tcpgate.CloseReason{
	pb.Closing_REASON_SESSION_ENDED: "session_ended",
	pb.Closing_REASON_REPLACED:      "replaced",
	pb.Closing_REASON_MALFORMED:     "malformed",
	pb.Closing_REASON_VERSION:       "version",
	pb.Closing_REASON_DRAINING:      "draining",
	pb.Closing_REASON_SLOW_CONSUMER: tcpgate.CloseSlowConsumer,
	pb.Closing_REASON_OVERLOADED:    "overloaded",
}

// finalFrame says to a client why the gate closes its connection.
func finalFrame(n *node.Node) func(tcpgate.CloseReason) []byte {
	return func(r tcpgate.CloseReason) []byte {
		switch r {
		case tcpgate.CloseTooLarge:
			return n.FinalFrame(pb.Closing_REASON_TOO_LARGE)
		case tcpgate.CloseIdle, tcpgate.CloseHelloTimeout, tcpgate.CloseLoginTimeout:
			return n.FinalFrame(pb.Closing_REASON_SILENT)
		case tcpgate.CloseShutdown:
			return n.FinalFrame(pb.Closing_REASON_DRAINING)
		}
		return nil
	}
}

// refusal says to a client why it is not taken.
func refusal(n *node.Node) func(tcpgate.RefuseReason) []byte {
	return func(r tcpgate.RefuseReason) []byte {
		if r == tcpgate.RefuseDraining {
			return n.FinalFrame(pb.Closing_REASON_DRAINING)
		}
		return n.FinalFrame(pb.Closing_REASON_OVERLOADED)
	}
}
