package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/futurechat/future/ops/clustertest"
)

// Fault is something that can happen to a cluster.
type Fault struct {
	Name, About string
	// stated is how long after healing messages may still be refused or late.
	stated time.Duration
	// onHost is the role whose first process is to be on a host of its own; crowded: most sessions are to be at the first node.
	onHost  string
	crowded bool
	// idle: nobody writes.
	idle bool
	// carry carries the fault out. It tells the shot what was hit, when it was healed, and what shows that it has hit.
	carry func(ctx context.Context, s *shot) error
	// goals compares figures with what is wanted.
	goals func(v *Verdict) []Goal
}

// shot is a fault that is carried out.
type shot struct {
	*stage
	o   *Options
	run *run
	// turn is how often the fault was carried out before: each time another process is the target.
	turn int

	targets    map[string]bool
	who        string // the last of them, for people
	partitions int    // that the routers had which were hit
	healed     time.Duration
	evidence   []string
	hit        bool
}

// target picks a process of a role.
func (s *shot) target(ctx context.Context, role string) *clustertest.Process {
	return s.aim(ctx, s.at(role, s.turn%s.sizes[role]))
}

// aim notes a process as a target, and how many partitions it has.
func (s *shot) aim(ctx context.Context, p *clustertest.Process) *clustertest.Process {
	s.targets[p.Name] = true
	s.who = fmt.Sprintf("%s, pid %d", p.Name, p.PID())
	if strings.HasPrefix(p.Name, roleRouter) {
		n := int(metric(ctx, p, "future_router_partitions_owned")[""])
		s.partitions += n
		s.who += fmt.Sprintf(", with %d partitions", n)
	}
	return p
}

func (s *shot) saw(format string, args ...any) {
	s.evidence = append(s.evidence, fmt.Sprintf(format, args...))
	s.hit = true
}

func (s *shot) heal() { s.healed = s.run.now() }

// Catalog is all faults, in the order in which they are carried out.
func Catalog() []Fault {
	var all []Fault
	add := func(f ...Fault) { all = append(all, f...) }
	add(Fault{
		Name: "idle", About: "nobody writes: what the cluster uses by itself", idle: true, carry: idle,
		goals: func(v *Verdict) []Goal {
			return []Goal{goal("CPU of all processes, idle", v.CPU[roleNode]+v.CPU[roleRouter]+v.CPU[roleHistory], 3, "% of a core")}
		},
	})
	for _, role := range []string{roleNode, roleRouter, roleHistory} {
		add(
			Fault{
				Name: role + "-kill", About: "SIGKILL; the others go on without it", stated: killed(role), goals: killGoals(role),
				carry: func(ctx context.Context, s *shot) error { return s.kill(ctx, role) },
			},
			Fault{
				Name: role + "-stop", About: "SIGSTOP, and SIGCONT after -hold", stated: 5 * time.Second, goals: heldGoals(role),
				carry: func(ctx context.Context, s *shot) error { return s.freeze(ctx, role) },
			},
			Fault{
				Name: role + "-drain", About: "SIGTERM, and another one in its place once it has ended", stated: time.Second,
				goals: movedGoals(role), carry: func(ctx context.Context, s *shot) error { return s.drain(ctx, role, s.turn%s.sizes[role]) },
			},
			Fault{
				Name: role + "-rolling", About: "drained and started anew, one after the other", stated: time.Second,
				goals: movedGoals(role), carry: func(ctx context.Context, s *shot) error { return s.rolling(ctx, role) },
			},
		)
	}
	add(
		Fault{
			Name: "node-cut", About: "its host is gone: no packet to or from it, for -hold", stated: 5 * time.Second, onHost: roleNode,
			goals: heldGoals(roleNode), carry: func(ctx context.Context, s *shot) error { return s.cut(ctx, roleNode) },
		},
		Fault{
			Name: "router-cut", About: "its host is gone: no packet to or from it, for -hold", stated: 5 * time.Second, onHost: roleRouter,
			goals: heldGoals(roleRouter), carry: func(ctx context.Context, s *shot) error { return s.cut(ctx, roleRouter) },
		},
		Fault{
			Name: "router-add", About: "one router more", stated: time.Second, goals: movedGoals(roleRouter), carry: addRouter,
		},
		Fault{
			Name: "redis-empty", About: "Redis forgets everything", stated: 5 * time.Second, carry: emptyRedis,
		},
		Fault{
			Name: "node-crowd", About: "SIGKILL of a node that has nine of ten sessions: they all come to the others", stated: 10 * time.Second,
			crowded: true, goals: crowdGoals, carry: func(ctx context.Context, s *shot) error { s.turn = 0; return s.kill(ctx, roleNode) },
		},
		Fault{
			Name: "overload", About: "three times what the cluster can take, for -burst", stated: 10 * time.Second, carry: overload,
			goals: func(v *Verdict) []Goal {
				return []Goal{goal("normal again after the burst", v.Normal/1000, 10, "s")}
			},
		},
	)
	return all
}

func killed(role string) time.Duration {
	if role == roleHistory {
		return 0 // nobody but history itself waits for it
	}
	return 5 * time.Second
}

// otherStall: the fault of a node is not the others'.
func otherStall(v *Verdict) Goal {
	return goal("longest stall between sessions of other nodes", v.OthersStall, 300, "ms")
}

func killGoals(role string) func(*Verdict) []Goal {
	return func(v *Verdict) []Goal {
		switch role {
		case roleNode:
			return []Goal{otherStall(v), goal("99 % of its sessions are back", v.Back.P99/1000, 5, "s")}
		case roleRouter:
			return partitionGoals(v, 2000, 4000)
		}
		return nil
	}
}

// heldGoals are for a process that is paused or cut off.
func heldGoals(role string) func(*Verdict) []Goal {
	return func(v *Verdict) []Goal {
		switch role {
		case roleNode:
			return []Goal{otherStall(v)}
		case roleRouter:
			return partitionGoals(v, 5000, 5000)
		}
		return nil
	}
}

func movedGoals(role string) func(*Verdict) []Goal {
	return func(v *Verdict) []Goal {
		if role == roleRouter {
			return partitionGoals(v, 500, 500)
		}
		return nil
	}
}

func partitionGoals(v *Verdict, p50, p99 float64) []Goal {
	return []Goal{
		goal("stall of the router's partitions, p50", percentile(v.Partitions, 50), p50, "ms"),
		goal("stall of the router's partitions, p99", percentile(v.Partitions, 99), p99, "ms"),
	}
}

func crowdGoals(v *Verdict) []Goal {
	const least = 10 // ms: below that three times is nothing that anybody notices
	return []Goal{
		goal("all its sessions are back", v.Back.Max/1000, 10, "s"),
		goal("p99 of others' messages meanwhile", v.Meanwhile.P99, 3*max(v.Before.P99, least), "ms"),
	}
}

func idle(ctx context.Context, s *shot) error {
	s.saw("nothing was sent")
	err := clustertest.Sleep(ctx, s.o.Idle)
	s.heal()
	return err
}

func (s *shot) kill(ctx context.Context, role string) error {
	p := s.target(ctx, role)
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	s.heal() // nothing is going to be mended
	p.Kill() // waits for its end, and says that it was meant
	s.saw("%s: gone by SIGKILL", s.who)
	return nil
}

func (s *shot) freeze(ctx context.Context, role string) error {
	p := s.target(ctx, role)
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() { _ = p.Signal(syscall.SIGCONT) }() // whatever happens: what is stopped cannot end
	err := clustertest.Sleep(ctx, s.o.Hold)
	if state := processState(p.PID()); state == "T" {
		s.saw("%s: stopped (state T) for %v", s.who, s.o.Hold)
	}
	s.heal()
	return errors.Join(err, p.Signal(syscall.SIGCONT))
}

// processState is the letter of proc_pid_stat(5), or empty.
func processState(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/" + "stat")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) == 0 {
		return ""
	}
	return fields[0]
}

func (s *shot) drain(ctx context.Context, role string, slot int) error {
	p := s.aim(ctx, s.at(role, slot))
	began := time.Now()
	if err := end(ctx, p); err != nil {
		return err
	}
	s.saw("%s: ended by SIGTERM within %v", s.who, time.Since(began).Round(time.Millisecond))
	_, err := s.replace(ctx, role, slot)
	s.heal()
	return err
}

func (s *shot) rolling(ctx context.Context, role string) error {
	const rest = 3 * time.Second // as those who roll out an update do
	for slot := range s.sizes[role] {
		if slot > 0 {
			if err := clustertest.Sleep(ctx, rest); err != nil {
				return err
			}
		}
		if err := s.drain(ctx, role, slot); err != nil {
			return err
		}
	}
	return nil
}

func (s *shot) cut(ctx context.Context, role string) error {
	s.aim(ctx, s.at(role, 0))
	before, err := s.host.Dropped(ctx)
	if err != nil {
		return err
	}
	if err := s.host.Cut(ctx, clustertest.Both); err != nil {
		return err
	}
	err = clustertest.Sleep(ctx, s.o.Hold)
	healing := context.WithoutCancel(ctx)
	err = errors.Join(err, s.host.Heal(healing))
	s.heal()
	after, failed := s.host.Dropped(healing)
	if after > before {
		s.saw("%s: cut off for %v, %d packets dropped", s.who, s.o.Hold, after-before)
	}
	return errors.Join(err, failed)
}

func addRouter(ctx context.Context, s *shot) error {
	p, err := s.cluster.Add(ctx, roleRouter)
	if err != nil {
		return err
	}
	s.heal()
	s.mu.Lock()
	s.slots[roleRouter] = append(s.slots[roleRouter], p)
	s.mu.Unlock()
	// It is ready before it has its share.
	owned := func() int { return int(metric(ctx, p, "future_router_partitions_owned")[""]) }
	for end := time.Now().Add(s.o.After / 2); owned() == 0 && time.Now().Before(end); {
		if err := clustertest.Sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if s.partitions = owned(); s.partitions > 0 {
		s.saw("%s, pid %d: has %d partitions", p.Name, p.PID(), s.partitions)
	}
	return nil
}

func emptyRedis(ctx context.Context, s *shot) error {
	keys, err := s.cluster.EmptyRedis(ctx)
	s.heal()
	if keys > 0 {
		s.saw("Redis: %d keys are gone", keys)
	}
	return err
}

// overload offers three times what was acknowledged a second when far too much was offered.
func overload(ctx context.Context, s *shot) error {
	const times, each = 3, 2 // a person's next message waits in his program while two are unacknowledged
	s.run.most.Store(each)
	defer s.run.most.Store(0)
	capacity, err := s.capacity(ctx)
	if err != nil {
		return err
	}
	s.say("overload: %d messages/s were acknowledged at most; %d a second are offered for %v", capacity, times*capacity, s.o.Burst)
	from, before := s.run.now(), s.run.progress()
	s.run.rate.Store(int64(times * capacity))
	err = clustertest.Sleep(ctx, s.o.Burst)
	s.run.rate.Store(int64(s.o.Rate))
	took, after := s.run.now()-from, s.run.progress()
	s.heal()
	perSecond := func(n int) int { return int(float64(n) / took.Seconds()) }
	offered, acked := perSecond(after.offered-before.offered), perSecond(after.acked-before.acked)
	text := fmt.Sprintf("capacity %d/s; %d/s were offered and %d/s acknowledged for %v", capacity, offered, acked, s.o.Burst)
	if offered > 2*capacity {
		s.saw("%s", text)
	} else {
		s.evidence = append(s.evidence, text+": this program did not offer enough")
	}
	return err
}

// capacity is how many messages a second are acknowledged when more are offered than can be.
func (s *shot) capacity(ctx context.Context) (int, error) {
	const long, ramp = 8 * time.Second, 3 * time.Second
	s.run.rate.Store(int64(s.o.Flood))
	if err := clustertest.Sleep(ctx, ramp); err != nil {
		return 0, err
	}
	from, before := s.run.now(), s.run.progress().acked
	if err := clustertest.Sleep(ctx, long-ramp); err != nil {
		return 0, err
	}
	n := float64(s.run.progress().acked-before) / (s.run.now() - from).Seconds()
	return max(int(n), s.o.Rate), nil
}

// metric reads a metric of a process, by its one label's value ("": it has none). What cannot be read is not there.
func metric(ctx context.Context, p *clustertest.Process, name string) map[string]float64 {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	text, err := p.Metrics(ctx)
	if err != nil {
		return nil
	}
	found := map[string]float64{}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		labels, value, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			continue
		}
		label := ""
		if _, quoted, ok := strings.Cut(labels, `"`); ok {
			label, _, _ = strings.Cut(quoted, `"`)
		}
		found[label] = n
	}
	return found
}
