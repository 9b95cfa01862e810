package eventlog

import (
	"sync"
	"sync/atomic"
)

// Guard is a log that takes no more records for what was halted: a record in a log that is not the one that is known would get the
// position of one that was lost. Reading goes on.
type Guard struct {
	Log
	all        atomic.Bool
	partitions sync.Map // int32 → struct{}
}

// NewGuard guards a log in which nothing is halted yet.
func NewGuard(log Log) *Guard { return &Guard{Log: log} }

// Halt has Append refuse some partitions, or with none named all, with ErrHalted, for as long as the process lives.
func (g *Guard) Halt(partitions ...int32) {
	g.all.Store(g.all.Load() || len(partitions) == 0)
	for _, p := range partitions {
		g.partitions.Store(p, struct{}{})
	}
}

// Append implements Log.
func (g *Guard) Append(e Entry, done func(Appended, error)) error {
	if _, halted := g.partitions.Load(e.Partition); halted || g.all.Load() {
		return ErrHalted
	}
	return g.Log.Append(e, done)
}
