package kafkalog

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/futurechat/future/router/eventlog"
)

// Long before sequences or epochs come to their end, a partition goes on with the next epoch, or the next producer id.
func TestStamp_GoesOnBeforeItsEnd(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	l, err := New(Options{Brokers: cluster.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close(context.WithoutCancel(t.Context())) }()
	id := partitionID{"t", 0}
	written := 0
	write := func() {
		t.Helper()
		done := make(chan error, 1)
		err := l.Append(eventlog.Entry{Topic: "t", Value: fmt.Append(nil, written)}, func(at eventlog.Appended, err error) {
			if err == nil && at.Offset != int64(written) {
				err = fmt.Errorf("written at %d, not %d", at.Offset, written)
			}
			done <- err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		written++
	}
	// With an empty partition the worker is still to tell that it is done: so the stamp is changed under the lock, when idle.
	change := func(f func(p *partition)) stamp {
		for {
			l.mu.Lock()
			p := l.partitions[id]
			if p.state == idle {
				f(p)
				s := p.stamp
				l.mu.Unlock()
				return s
			}
			l.mu.Unlock()
		}
	}
	write()
	before := change(func(p *partition) { p.restamp(); p.stamp.sequence = 0 })
	write()
	// A broker takes no jump within an epoch, but any number after its records are gone; here only ours is looked at.
	change(func(p *partition) { p.stamp.epoch++; p.stamp.sequence = 0 })
	write()
	after := change(func(p *partition) {
		p.stamp.sequence = restampAt - 1
		p.batch = &batch{entries: make([]pending, 1)}
		l.writtenLocked(p)
	})
	if after.sequence != 0 || after.epoch != before.epoch+2 || after.producer != before.producer {
		t.Errorf("from %+v to %+v", before, after)
	}
	write()
	change(func(p *partition) { p.stamp.epoch = math.MaxInt16; p.restamp() })
	write()
	if last := change(func(*partition) {}); last.producer == before.producer || last.producer < 0 {
		t.Errorf("from %+v to %+v", before, last)
	}
	write()
}
