package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/futurechat/future/ops/clustertest"
)

// Roles of processes.
const (
	roleNode    = "node"
	roleRouter  = "router"
	roleHistory = "history"
)

// stage is a cluster whose processes come and go. A slot is a place for a process: clients know nodes by their slots, as they would
// by addresses that stay.
type stage struct {
	cluster *clustertest.Cluster
	host    *clustertest.Host // made when a fault first needs one
	sizes   map[string]int
	say     func(format string, args ...any)

	mu      sync.Mutex // guards slots
	slots   map[string][]*clustertest.Process
	onHost  map[*clustertest.Process]bool
	crowded bool // most sessions belong in the first slot
}

func newStage(c *clustertest.Cluster, say func(string, ...any)) *stage {
	s := &stage{
		cluster: c, say: say, onHost: map[*clustertest.Process]bool{},
		slots: map[string][]*clustertest.Process{
			roleNode: slices.Clone(c.Nodes), roleRouter: slices.Clone(c.Routers), roleHistory: slices.Clone(c.Histories),
		},
		sizes: map[string]int{roleNode: len(c.Nodes), roleRouter: len(c.Routers), roleHistory: len(c.Histories)},
	}
	return s
}

// names are the addresses that clients are given.
func (s *stage) names() []string {
	var all []string
	for i := range s.sizes[roleNode] {
		all = append(all, slotName(i))
	}
	return all
}

func slotName(slot int) string { return "node-slot:" + strconv.Itoa(slot+1) }

// resolve gives the address of the node that is in a slot now. What is no slot's name, a node may have told: it is an address.
func (s *stage) resolve(name string) string {
	number, ok := strings.CutPrefix(name, "node-slot:")
	slot, err := strconv.Atoi(number)
	if !ok || err != nil {
		return name
	}
	return s.at(roleNode, slot-1).Addr
}

func (s *stage) at(role string, slot int) *clustertest.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots[role][slot]
}

func (s *stage) put(role string, slot int, p *clustertest.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slots[role][slot] = p
}

// processes are those that are in slots now.
func (s *stage) processes(role string) []*clustertest.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.slots[role])
}

// replace starts a process in the slot of one that has ended.
func (s *stage) replace(ctx context.Context, role string, slot int) (*clustertest.Process, error) {
	p, err := s.cluster.Add(ctx, role)
	if err != nil {
		return nil, err
	}
	s.put(role, slot, p)
	return p, nil
}

// patience is for what the cluster does by itself: a process that ends or starts, sessions that come back.
const patience = 90 * time.Second

// restore makes the cluster what it is to be before a fault: all slots filled, no process more, a Host under the fault's target if it
// wants one, and the sessions where they belong.
func (s *stage) restore(ctx context.Context, f *Fault, c *crowd) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*patience, errors.New("the cluster did not come to rest before the fault"))
	defer cancel()
	for _, role := range []string{roleHistory, roleRouter, roleNode} {
		if err := s.fill(ctx, role, f.onHost == role); err != nil {
			return err
		}
	}
	s.crowded = f.crowded
	for _, x := range c.sessions {
		x.home = s.home(x.number)
	}
	return s.gather(ctx, c)
}

func (s *stage) fill(ctx context.Context, role string, onHost bool) error {
	for len(s.processes(role)) > s.sizes[role] {
		all := s.processes(role)
		s.mu.Lock()
		s.slots[role] = all[:len(all)-1]
		s.mu.Unlock()
		if err := end(ctx, all[len(all)-1]); err != nil {
			return err
		}
	}
	for slot, p := range s.processes(role) {
		wants := onHost && slot == 0
		if !gone(p) && s.onHost[p] == wants {
			continue
		}
		if !gone(p) {
			if err := end(ctx, p); err != nil {
				return err
			}
		}
		if !wants {
			if _, err := s.replace(ctx, role, slot); err != nil {
				return err
			}
			continue
		}
		if err := s.placeOnHost(ctx, role, slot); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) placeOnHost(ctx context.Context, role string, slot int) (err error) {
	if s.host == nil {
		if s.host, err = s.cluster.AddHost(ctx); err != nil {
			return err
		}
	}
	p, err := s.cluster.AddOn(ctx, s.host, role)
	if err != nil {
		return err
	}
	s.onHost[p] = true
	s.put(role, slot, p)
	return nil
}

func end(ctx context.Context, p *clustertest.Process) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.Stop(ctx)
}

// home is the slot where a session belongs.
func (s *stage) home(session int) int {
	const others = 10 // of a crowd, one in so many is not in it
	nodes := s.sizes[roleNode]
	if s.crowded && session/2%others != 0 {
		return 0
	}
	if s.crowded {
		return 1 + session%(nodes-1)
	}
	return session % nodes
}

// gather waits until all sessions are where they belong, and moves those that are elsewhere: some at a time, since a herd is no part
// of this fault.
func (s *stage) gather(ctx context.Context, c *crowd) error {
	const step, herd = 200 * time.Millisecond, 300
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		lost, moved := 0, 0
		for _, x := range c.sessions {
			switch at := x.at(); {
			case at == "":
				lost++
			case at != s.at(roleNode, x.home).Name:
				if moved++; moved <= herd {
					x.move(x.home)
				}
			}
		}
		if lost+moved == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d sessions have no node, %d are at another than they should be: %w", lost, moved, context.Cause(ctx))
		}
	}
}

// usage is the CPU that processes have used, by name; of those that have ended, what was last seen.
type usage map[string]time.Duration

func (u usage) look(s *stage) {
	for _, role := range []string{roleNode, roleRouter, roleHistory} {
		for _, p := range s.processes(role) {
			if now, err := p.Usage(); err == nil { // else it has ended
				u[p.Name] = now.CPU
			}
		}
	}
}

// byRole is what was used since before, in percent of a core.
func (u usage) byRole(before usage, took time.Duration) map[string]float64 {
	sum := map[string]float64{}
	for _, name := range slices.Sorted(maps.Keys(u)) {
		role, _, _ := strings.Cut(name, "-")
		sum[role] += float64(u[name]-before[name]) / float64(took) * 100
	}
	return sum
}

// gone tells whether a process has ended.
func gone(p *clustertest.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}
