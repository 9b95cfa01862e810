package deliver_test

import (
	"testing"

	"github.com/futurechat/future/router/deliver"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

// One message between two who are online on two nodes, all phases.
func BenchmarkPartition_OneMessage(b *testing.B) {
	r := newRig(b, nil)
	places := at(on("a"), on("b"))
	e := deliver.Appended{Prevs: make([]presence.Prev, 1), Epoch: "e1"}
	delivered := peer.Answer{Status: peer.StatusDelivered}
	b.ReportAllocs()
	for n := range b.N {
		rec := deliver.Records{Records: records(b, msg{Offset: int64(n), Conversation: "d:1:2", Sender: 1, ID: n, Text: "hi"}).Records}
		r.p.Step(r.now, rec)
		r.p.Step(r.now, e)
		for _, s := range r.p.Step(r.now, places) {
			f := s.(deliver.Send).Forward
			r.p.Step(r.now, deliver.Answered{Incarnation: f.Incarnation, Number: f.Number, Answer: delivered})
		}
	}
}
