package history

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/futurechat/future/router/clock"
)

// LeaseName is the lease of who runs a partition's history.
func LeaseName(topic string, partition int32) string {
	return fmt.Sprintf("history:%s:%d", topic, partition)
}

// share runs a partition whenever it is this process' turn, until ctx ends.
func (h *History) share(ctx context.Context, partition int32) {
	if h.opts.Leases == nil {
		h.run(ctx, partition)
		return
	}
	name, every := LeaseName(h.opts.Topic, partition), h.opts.LeaseTTL/3
	jittered := h.pauses(every, every)
	for first := true; first || jittered.wait(ctx); first = false {
		if !h.wanted(partition) {
			continue
		}
		mine, err := h.opts.Leases.Acquire(ctx, name, h.opts.Owner, h.opts.Owner, h.opts.LeaseTTL)
		if err != nil {
			// History must not wait for Redis. If two run the partition now, the offset fences them.
			h.failed(ctx, "lease", partition, err)
		}
		if mine || err != nil && ctx.Err() == nil {
			h.runLeased(ctx, name, partition, every)
		}
	}
}

func (h *History) wanted(partition int32) bool { return h.opts.Wants == nil || h.opts.Wants(partition) }

// runLeased runs a partition until the lease is another's, or the partition should be.
func (h *History) runLeased(ctx context.Context, name string, partition int32, every time.Duration) {
	running, cancel := context.WithCancel(ctx)
	worker := h.opts.Clock.NewGroup()
	worker.Go(func() { h.run(running, partition) })
	for clock.Sleep(ctx, h.opts.Clock, every) && h.wanted(partition) {
		// Acquire renews what is ours, and takes it if it was lost with Redis and nobody else has it.
		mine, err := h.opts.Leases.Acquire(ctx, name, h.opts.Owner, h.opts.Owner, h.opts.LeaseTTL)
		if err == nil && !mine {
			break
		}
	}
	cancel()
	worker.Wait()
	if ctx.Err() == nil {
		h.forget(partition)
	}
	const patience = time.Second // the lease ends by itself
	last, cancelLast := h.opts.Clock.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancelLast()
	if err := h.opts.Leases.Release(last, name, h.opts.Owner); err != nil {
		h.opts.Logger.Warn("history: release lease", zap.String("lease", name), zap.Error(err))
	}
}

// at notes where a partition stands.
func (h *History) at(partition int32, next int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.offsets[partition] = next
}

// forget notes that a partition does not run here any more.
func (h *History) forget(partition int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.offsets, partition)
	delete(h.committed, partition)
	h.metrics.lag.DeleteLabelValues(label(partition))
}

// report commits offsets and measures lag, until ctx ends. All of it is for people only.
func (h *History) report(ctx context.Context) {
	const lagEvery = 15
	for round := 0; clock.Sleep(ctx, h.opts.Clock, h.opts.CommitEvery); round++ {
		h.commit(ctx)
		if round%lagEvery == 0 {
			h.measure(ctx)
		}
	}
}

func (h *History) commit(ctx context.Context) {
	h.mu.Lock()
	moved := make(map[int32]int64)
	for p, at := range h.offsets {
		if had, ok := h.committed[p]; !ok || had != at {
			moved[p] = at
		}
	}
	h.mu.Unlock()
	if len(moved) == 0 {
		return
	}
	if err := h.opts.Log.Commit(ctx, Group, h.opts.Topic, moved); err != nil {
		h.failed(ctx, "commit", -1, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.Copy(h.committed, moved)
}

func (h *History) measure(ctx context.Context) {
	h.mu.Lock()
	offsets := maps.Clone(h.offsets)
	h.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(offsets)) {
		_, end, err := h.opts.Log.Bounds(ctx, h.opts.Topic, p)
		if err != nil {
			h.failed(ctx, "lag", p, err)
			return
		}
		h.metrics.lag.WithLabelValues(label(p)).Set(float64(max(end-offsets[p], 0)))
	}
}
