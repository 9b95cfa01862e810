package outbox

import (
	"context"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/clock"
	"github.com/futurechat/future/router/presence"
)

// Run sweeps until ctx ends, whenever it holds the lease, and then gives it up. Failures are logged, and tried again at the next
// look; without a lease store nobody sweeps: nothing is delivered then anyway.
func (p *Publisher) Run(ctx context.Context) error {
	defer p.release(ctx)
	for clock.Sleep(ctx, p.opts.Clock, p.opts.Every) {
		if err := p.look(ctx); err != nil && ctx.Err() == nil {
			p.opts.Logger.Warn("outbox sweep failed, tried again at the next look", zap.Error(err))
		}
	}
	return nil
}

func (p *Publisher) release(ctx context.Context) {
	if !p.leased {
		return
	}
	ctx, cancel := p.opts.Clock.WithTimeout(context.WithoutCancel(ctx), p.opts.Every)
	defer cancel()
	if err := p.opts.Leases.Release(ctx, presence.OutboxLease, p.opts.Owner); err != nil {
		p.opts.Logger.Warn("outbox lease not released: it ends by itself", zap.Error(err))
	}
}

// look is one look of the sweeper, if it holds the lease.
func (p *Publisher) look(ctx context.Context) (err error) {
	if p.leased {
		p.leased, err = p.opts.Leases.Renew(ctx, presence.OutboxLease, p.opts.Owner, p.opts.LeaseTTL)
	}
	if err == nil && !p.leased {
		p.leased, err = p.opts.Leases.Acquire(ctx, presence.OutboxLease, p.opts.Owner, "", p.opts.LeaseTTL)
	}
	if err != nil || !p.leased {
		p.seen = nil
		return err
	}
	rows, err := p.opts.Store.Unsent(ctx, "", 0, p.opts.Batch)
	if err != nil {
		return fmt.Errorf("unsent: %w", err)
	}
	ctx, cancel := p.opts.Clock.WithTimeout(ctx, p.opts.LeaseTTL/2) // a lease that was renewed now holds until then
	defer cancel()
	return p.sweep(ctx, rows)
}

// sweep brings the rows that were there at the last look too: newer ones are on their way by the node that made them. A
// conversation whose row fails waits; the others go on, and go first at the next look, so that a partition that does not answer
// takes no time from them.
func (p *Publisher) sweep(ctx context.Context, rows []chat.Outgoing) error {
	seen := make(map[int64]bool, len(rows))
	var order []string
	due := map[string][]chat.Outgoing{}
	for _, row := range rows {
		seen[row.ID] = true
		if !p.seen[row.ID] {
			continue
		}
		c := row.Message.GetConversation()
		if due[c] == nil {
			order = append(order, c)
		}
		due[c] = append(due[c], row)
	}
	slices.SortStableFunc(order, func(a, b string) int {
		switch {
		case p.failed[a] == p.failed[b]:
			return 0
		case p.failed[a]:
			return 1
		}
		return -1
	})
	failed := map[string]bool{}
	left := 0
	var failure error
	for _, c := range order {
		if err := p.bringInTime(ctx, due[c]); err != nil {
			left += len(due[c])
			failed[c], failure = true, err
		}
	}
	p.seen, p.failed = seen, failed
	p.metrics.waiting.Set(float64(left))
	return failure
}

func (p *Publisher) bringInTime(ctx context.Context, rows []chat.Outgoing) error {
	ctx, cancel := p.opts.Clock.WithTimeout(ctx, p.opts.Every)
	defer cancel()
	return p.bring(ctx, rows)
}
