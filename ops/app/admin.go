package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/futurechat/future/ops/config"
	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/peer"
)

// askAt is the process that an operator's question goes to: at, or else the one that the settings tell of.
func askAt(cfg *config.Config, at string) string { return cmp.Or(at, cfg.PeerAdvertise, cfg.PeerAddr) }

// members asks the process at a peer address who is in the cluster.
func members(ctx context.Context, cfg *config.Config, at string) ([]cluster.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := peer.Call(ctx, askAt(cfg, at), []byte(cfg.Secret), cfg.Cluster)
	if err != nil {
		return nil, fmt.Errorf("no process of the cluster answers (-at names the peer address of one): %w", err)
	}
	defer func() { _ = c.Close() }() // it has answered
	return c.Members(ctx)
}

// Members lists the cluster's processes as the one at a peer address sees them.
func Members(ctx context.Context, cfg *config.Config, at string, out io.Writer) error {
	all, err := members(ctx, cfg, at)
	if err != nil {
		return err
	}
	return list(all, out)
}

func list(all []cluster.Member, out io.Writer) error {
	slices.SortFunc(all, func(a, b cluster.Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tROLES\tSTATE\tPEER\tCLIENTS AT\tID\tSINCE\tVERSION")
	for _, m := range all {
		roles := make([]string, len(m.Roles))
		for i, r := range m.Roles {
			roles[i] = string(r)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, strings.Join(roles, ","), cmp.Or(m.State, cluster.Serving), m.Peer,
			cmp.Or(m.Client, "-"), m.ID, time.UnixMilli(m.SinceMs).UTC().Format(time.DateTime), m.Version)
	}
	return w.Flush()
}

// Drain asks a process, by its name, id or peer address, to go, tells how far it is, and returns when it is gone.
func Drain(ctx context.Context, cfg *config.Config, at, which string, out io.Writer) error {
	all, err := members(ctx, cfg, at)
	if err != nil {
		return err
	}
	target, err := pick(all, which)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is asked to go\n", describe(target))
	last, silent := -1, 0
	for {
		clients, err := drainOnce(ctx, cfg, target)
		switch {
		case ctx.Err() != nil:
			return errors.New("given up waiting; it goes all the same")
		case err == nil:
			if silent = 0; clients != last {
				fmt.Fprintf(out, "%s: %d clients left\n", target.Name, clients)
			}
			last = clients
		case last < 0:
			return fmt.Errorf("%s was not asked: %w", describe(target), err)
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, peer.ErrRefused): // nobody is there any more, or another
			fmt.Fprintf(out, "%s is gone\n", target.Name)
			return nil
		default:
			if silent++; silent >= patience {
				return fmt.Errorf("%s does not answer any more: %w", describe(target), err)
			}
		}
		select {
		case <-time.After(drainLook):
		case <-ctx.Done():
		}
	}
}

const (
	// drainLook is between two looks at how far a process is, and patience how many of them may go unanswered in a row.
	drainLook = 300 * time.Millisecond
	patience  = 5
)

func drainOnce(ctx context.Context, cfg *config.Config, target cluster.Member) (clients int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := peer.Call(ctx, target.Peer, []byte(cfg.Secret), cfg.Cluster)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }() // it has answered
	return c.Drain(ctx, target.ID)
}

// pick finds the one member that is meant.
func pick(all []cluster.Member, which string) (cluster.Member, error) {
	found := slices.DeleteFunc(slices.Clone(all), func(m cluster.Member) bool {
		return m.Name != which && m.ID != which && m.Peer != which
	})
	if len(found) == 1 {
		return found[0], nil
	}
	shown, problem := all, "no process has the name, id or peer address "+which
	if len(found) > 1 {
		shown, problem = found, fmt.Sprintf("%d processes are called %s: say the id or peer address", len(found), which)
	}
	var b strings.Builder
	if err := list(shown, &b); err != nil {
		return cluster.Member{}, err
	}
	return cluster.Member{}, fmt.Errorf("%s\n%s", problem, b.String())
}
