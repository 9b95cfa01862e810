package faults

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/futurechat/future/ops/clustertest"
)

// trial is one fault with the traffic around it.
type trial struct {
	*campaign
	fault *Fault
	run   *run
	v     *Verdict
}

// carry has the fault happen amid traffic, waits until all has arrived or the time for it is over, and fills in the verdict.
func (t *trial) carry(ctx context.Context, turn int) error {
	r, v := t.run, t.v
	for _, x := range t.crowd.sessions {
		x.reset()
	}
	t.crowd.run.Store(r)
	defer t.crowd.run.Store(nil)
	m := t.startMeter()
	rate := t.Rate
	if t.fault.idle {
		rate = 0
	}
	r.start(ctx, rate)
	defer r.stop()
	if err := clustertest.Sleep(ctx, t.Before); err != nil {
		return err
	}
	for _, x := range t.crowd.sessions {
		x.mark()
	}
	if t.fault.idle {
		m.again()
	}
	s := &shot{stage: t.stage, o: &t.Options, run: r, turn: turn, targets: map[string]bool{}}
	began := r.now()
	failed := t.fault.carry(ctx, s)
	if s.healed == 0 {
		s.healed = r.now()
	}
	if !t.fault.idle {
		if err := clustertest.Sleep(ctx, s.healed+t.After-r.now()); err != nil {
			return err
		}
	}
	r.stop()
	m.stop(v)
	if err := t.settle(ctx, s.healed); err != nil {
		return err
	}
	b := r.books(s.targets)
	b.Fault, b.Healed, b.Stated = began, s.healed, t.fault.stated
	if err := t.database(ctx, b); err != nil {
		return err
	}
	v.Evidence, v.Lasted, v.Stated = s.evidence, ms(b.Healed-b.Fault), ms(b.Stated)
	v.Tally, v.Timing = b.Count(), b.Time(s.partitions)
	v.Failures = v.Tally.Failures(s.hit, t.fault.idle)
	if v.Away > 0 {
		v.Failures = append(v.Failures, fmt.Sprintf("%d sessions had no node in the end", v.Away))
	}
	if v.Before.P99 > unsteady || v.Behind.P99 > unsteady {
		v.Note = fmt.Sprintf("before the fault messages took %.0f ms (p99) already, and this program was behind with sending by %.0f ms (p99): "+
			"the machine has no room for this load beside its others, and these stalls are not the cluster's alone", v.Before.P99, v.Behind.P99)
	}
	if t.fault.goals != nil {
		v.Goals = t.fault.goals(v)
	}
	return failed
}

// unsteady is from what on a cluster without a fault is taken for one that has too little of a machine, in milliseconds.
const unsteady = 250

// settle waits until every message is answered, and every acknowledged one at all devices: for half a minute after healing and the
// end of the traffic, and for what was acknowledged late for half a minute after that.
func (t *trial) settle(ctx context.Context, healed time.Duration) error {
	const look = 200 * time.Millisecond
	answered := max(healed, t.run.now()) + deadline
	for {
		now, p := t.run.now(), t.run.progress()
		if p.unanswered == 0 && p.missing == 0 {
			break
		}
		if now > answered && (p.missing == 0 || now > max(healed, p.lastAck)+deadline) {
			break
		}
		if err := clustertest.Sleep(ctx, look); err != nil {
			return err
		}
	}
	return clustertest.Sleep(ctx, t.grace)
}

// database reads the rows, until all that was acknowledged is there or the time for it is over.
func (t *trial) database(ctx context.Context, b *Books) error {
	const look, least = time.Second, 5 * time.Second
	acked := 0
	for _, o := range b.Offers {
		if o.Acked > 0 {
			acked++
		}
	}
	end := max(b.Healed+deadline, t.run.now()+least)
	for {
		now := t.run.now()
		var err error
		if b.Rows, b.History, err = readDatabase(ctx, t.stage.cluster, t.run, t.Partitions); err != nil {
			return err
		}
		if b.stored() == acked || now > end {
			return nil
		}
		if err := clustertest.Sleep(ctx, look); err != nil {
			return err
		}
	}
}

// stored is how many acknowledged messages have a row.
func (b *Books) stored() int {
	rows := make(map[int]bool, len(b.Rows))
	for _, r := range b.Rows {
		rows[r.Number] = true
	}
	n := 0
	for _, o := range b.Offers {
		if o.Acked > 0 && rows[o.Number] {
			n++
		}
	}
	return n
}

// meter measures what a run uses.
type meter struct {
	t     *trial
	began time.Time
	end   chan struct{}
	wait  sync.WaitGroup

	mu            sync.Mutex // guards what follows
	before, after usage
	self, machine time.Duration
	errors        map[string]map[string]float64 // by process and code
}

func (t *trial) startMeter() *meter {
	m := &meter{t: t, end: make(chan struct{})}
	m.again()
	m.wait.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				m.mu.Lock()
				m.after.look(t.stage)
				m.mu.Unlock()
			case <-m.end:
				return
			}
		}
	})
	return m
}

// again begins anew.
func (m *meter) again() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.began, m.before = time.Now(), usage{}
	m.before.look(m.t.stage)
	m.after = maps.Clone(m.before)
	m.self, m.machine = selfCPU(), machineCPU()
	m.errors = m.t.nodeErrors()
}

func (m *meter) stop(v *Verdict) {
	close(m.end)
	m.wait.Wait()
	took := time.Since(m.began)
	m.after.look(m.t.stage)
	v.CPU = m.after.byRole(m.before, took)
	percent := func(d time.Duration) float64 { return float64(d) / float64(took) * 100 }
	v.CPU["bench"], v.CPU["machine"] = percent(selfCPU()-m.self), percent(machineCPU()-m.machine)
	for role, p := range v.CPU {
		v.CPU[role] = float64(int(p*10+0.5)) / 10
	}
	for process, codes := range m.t.nodeErrors() {
		for c, n := range codes {
			if d := int(n - m.errors[process][c]); d > 0 {
				if v.NodeErrors == nil {
					v.NodeErrors = map[string]int{}
				}
				v.NodeErrors[c] += d
			}
		}
	}
}

// nodeErrors asks the nodes how often they have answered each error.
func (t *trial) nodeErrors() map[string]map[string]float64 {
	all := map[string]map[string]float64{}
	for _, p := range t.stage.processes(roleNode) {
		if !gone(p) {
			all[p.Name] = metric(context.Background(), p, "future_node_errors_total")
		}
	}
	return all
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// machineCPU is what all cores together have worked, from proc_stat(5).
func machineCPU() time.Duration {
	const tick, idle, iowait, last = 10 * time.Millisecond, 4, 5, 8
	b, err := os.ReadFile("/proc/" + "stat")
	if err != nil || runtime.GOOS != "linux" {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var sum time.Duration
	for i, field := range strings.Fields(line) {
		if i == 0 || i == idle || i == iowait || i > last {
			continue
		}
		if n, err := strconv.ParseInt(field, 10, 64); err == nil {
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

// String is one line for progress.
func (v *Verdict) String() string {
	word := "pass"
	if !v.Pass {
		word = "FAIL: " + strings.Join(v.Failures, "; ")
	}
	return fmt.Sprintf("%s: %s; %d offered, %d acknowledged, %d stored, longest stall %.0f ms (others %.0f)", v.Fault, word, v.Offered,
		v.Acknowledged, v.Stored, v.LongestStall, v.OthersStall)
}
