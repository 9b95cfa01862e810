package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/futurechat/future/ops/clustertest"
)

// Options for Run. Defaults gives what they should be.
type Options struct {
	// Faults to carry out, by name or by role (node: all of node-…). None: all.
	Faults []string
	// Repeat is how often each is carried out.
	Repeat int

	// Processes of the cluster, and partitions of the log.
	Nodes, Routers, Histories, Partitions int
	// Sessions of all together: of five in a row of pairs, the last has two devices a person.
	Sessions int
	// Rate in messages a second, Size of a text in bytes.
	Rate, Size int
	// Before the fault and After it was healed there is traffic for that long. Hold is how long a process is paused or cut off.
	Before, After, Hold time.Duration
	// Idle is how long nobody writes. Burst is how long too much is offered, Flood what is offered to find how much that is.
	Idle, Burst time.Duration
	Flood       int

	// Progress is told what is going on.
	Progress func(format string, args ...any)
	// Done is told each verdict.
	Done func(Verdict)

	grace    time.Duration // how long a copy too many may still come when all has arrived
	inserted []Fault       // by tests, after the others
}

// Defaults are the options of the record.
func Defaults() Options {
	return Options{
		Repeat: 1, Nodes: 3, Routers: 3, Histories: 2, Partitions: 64, Sessions: 9000, Rate: 500, Size: 100,
		Before: 10 * time.Second, After: 20 * time.Second, Hold: 10 * time.Second, Idle: 60 * time.Second, Burst: time.Minute, Flood: 20_000,
		grace: time.Second,
	}
}

// Check says what is wrong with the options.
func (o *Options) Check() error {
	least := func(name string, value, least int) error {
		if value < least {
			return fmt.Errorf("%s: %d, at least %d is wanted", name, value, least)
		}
		return nil
	}
	const room = 24 // for a message's number in its text
	_, err := o.chosen()
	return errors.Join(
		err, least("repeat", o.Repeat, 1), least("nodes", o.Nodes, 2), least("routers", o.Routers, 2), least("histories", o.Histories, 1),
		least("partitions", o.Partitions, 1), least("sessions", o.Sessions, 2*devicesOfFive), least("rate", o.Rate, 1), least("flood", o.Flood, 1),
		least("size", o.Size, room), least("before (ms)", int(o.Before.Milliseconds()), 1), least("duration (ms)", int(o.After.Milliseconds()), 1),
		least("hold (ms)", int(o.Hold.Milliseconds()), 1), least("idle (ms)", int(o.Idle.Milliseconds()), 1), least("burst (ms)", int(o.Burst.Milliseconds()), 1),
	)
}

// chosen are the faults to carry out.
func (o *Options) chosen() ([]Fault, error) {
	all := Catalog()
	if len(o.Faults) == 0 {
		return all, nil
	}
	var names []string
	for _, f := range all {
		names = append(names, f.Name)
	}
	for _, want := range o.Faults {
		if !slices.ContainsFunc(all, func(f Fault) bool { return f.is(want) }) {
			return nil, fmt.Errorf("there is no fault %q: %s; node, router and history stand for all of theirs", want, strings.Join(names, ", "))
		}
	}
	return slices.DeleteFunc(all, func(f Fault) bool { return !slices.ContainsFunc(o.Faults, f.is) }), nil
}

func (f Fault) is(want string) bool {
	role, _, _ := strings.Cut(f.Name, "-")
	return f.Name == want || role == want
}

// Outcome is what a campaign gave.
type Outcome struct {
	// Real says that Kafka, Redis and the database were real servers.
	Real     bool      `json:"real_servers"`
	Servers  string    `json:"servers"`
	Setting  string    `json:"setting"`
	Verdicts []Verdict `json:"verdicts"`
}

// Failed is how many verdicts are failures.
func (o *Outcome) Failed() int {
	n := 0
	for _, v := range o.Verdicts {
		if !v.Pass {
			n++
		}
	}
	return n
}

// Verdict is what is said of one fault.
type Verdict struct {
	Fault string    `json:"fault"`
	Turn  int       `json:"turn"`
	Began time.Time `json:"began"`
	// Pass: the Tally has its zeros and the fault was seen to hit. Failures says why not.
	Pass     bool     `json:"pass"`
	Failures []string `json:"failures,omitempty"`
	Evidence []string `json:"evidence"`
	// Lasted is from the fault to its healing, Stated how much longer messages might be refused or late, in milliseconds.
	Lasted float64 `json:"fault_ms"`
	Stated float64 `json:"stated_stall_ms"`
	Tally
	Timing
	// CPU by role, of this program and of all on the machine, in percent of a core.
	CPU map[string]float64 `json:"cpu_percent"`
	// NodeErrors are the errors that nodes answered to clients, by code, as far as the nodes lived to tell. The SDK tries again
	// what may succeed later, so most are no refusals to a person.
	NodeErrors map[string]int `json:"node_errors,omitempty"`
	Goals      []Goal         `json:"goals,omitempty"`
	// Note says what a reader must know of the figures.
	Note string `json:"note,omitempty"`
}

// campaign is a Run under way.
type campaign struct {
	Options
	dir     string
	servers *clustertest.Servers
	serial  int
	hosts   bool

	stage *stage // nil: to be made
	crowd *crowd
}

// Run carries out faults, one after the other, on one cluster. What was judged before an error is in the outcome; a verdict that
// fails is no error.
func Run(ctx context.Context, o Options) (_ Outcome, err error) {
	if err := o.Check(); err != nil {
		return Outcome{}, err
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	c := &campaign{Options: o}
	chosen, err := o.chosen()
	if err != nil {
		return Outcome{}, err
	}
	chosen = append(chosen, o.inserted...)
	c.hosts = slices.ContainsFunc(chosen, func(f Fault) bool { return f.onHost != "" })
	if c.dir, err = os.MkdirTemp("", "future-faults-"); err != nil {
		return Outcome{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	if c.servers, err = clustertest.FindServers(ctx, filepath.Join(c.dir, "embedded")); err != nil {
		return Outcome{}, err
	}
	defer func() { err = errors.Join(err, c.servers.Stop()) }()
	out := Outcome{Real: c.servers.Real, Servers: c.servers.String()}
	if !out.Real {
		out.Servers += ": good to see that it runs, no proof"
	}
	out.Setting = fmt.Sprintf("%d nodes, %d routers, %d histories, %d partitions; %d sessions, %d messages/s of %d bytes",
		o.Nodes, o.Routers, o.Histories, o.Partitions, o.Sessions, o.Rate, o.Size)
	c.Progress("%s; %s", out.Servers, out.Setting)
	defer c.close(ctx)
	for _, f := range chosen {
		for turn := range o.Repeat {
			v, err := c.judge(ctx, &f, turn)
			if ctx.Err() != nil {
				return out, context.Cause(ctx)
			}
			if err != nil {
				return out, err
			}
			out.Verdicts = append(out.Verdicts, v)
			if o.Done != nil {
				o.Done(v)
			}
		}
	}
	return out, nil
}

// devicesOfFive is how many devices two persons have in each of five pairs together.
const devicesOfFive = 4*2 + 4

func devices(pair int) int {
	if pair%5 == 4 {
		return 2
	}
	return 1
}

// pairs is how many pairs have that many sessions, or a few more.
func pairs(sessions int) int {
	n := 0
	for have := 0; have < sessions; n++ {
		have += 2 * devices(n)
	}
	return n
}

// open starts a cluster and all sessions, if there are none.
func (c *campaign) open(ctx context.Context) error {
	if c.stage != nil {
		return nil
	}
	c.serial++
	dir := filepath.Join(c.dir, fmt.Sprintf("cluster-%d", c.serial))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	began := time.Now()
	cluster, err := clustertest.Start(ctx, clustertest.Options{
		Dir: dir, Nodes: c.Nodes, Routers: c.Routers, Histories: c.Histories, Partitions: c.Partitions, Servers: c.servers, Hosts: c.hosts,
	})
	if err != nil {
		return err
	}
	c.stage = newStage(cluster, c.Progress)
	c.Progress("the cluster is up after %v", since(began))
	began = time.Now()
	people, err := cluster.SeedPairs(ctx, pairs(c.Sessions), devices)
	if err != nil {
		return err
	}
	c.Progress("%d accounts and their friendships are in the database after %v", 2*len(people), since(began))
	began = time.Now()
	if c.crowd, err = c.stage.enter(ctx, people); err != nil {
		return err
	}
	c.Progress("%d sessions are open after %v", len(c.crowd.sessions), since(began))
	return nil
}

func since(t time.Time) time.Duration { return time.Since(t).Round(10 * time.Millisecond) }

// close ends sessions and cluster, also when ctx has ended.
func (c *campaign) close(ctx context.Context) {
	if c.crowd != nil {
		if err := c.crowd.close(); err != nil {
			c.Progress("sessions did not end well: %v", err)
		}
	}
	if c.stage != nil {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		// A terminal's Ctrl-C goes to the processes too, which then have ended by themselves.
		if err := c.stage.cluster.Stop(stopping); err != nil && ctx.Err() == nil {
			c.Progress("the cluster did not end well: %v", err)
		}
	}
	c.crowd, c.stage = nil, nil
}

// judge carries out a fault and judges it. A cluster that does not come to rest before is judged by that, and another one made.
func (c *campaign) judge(ctx context.Context, f *Fault, turn int) (Verdict, error) {
	v := Verdict{Fault: f.Name, Turn: turn + 1, Began: time.Now()}
	if err := c.open(ctx); err != nil {
		return v, err
	}
	c.Progress("%s: %s", f.Name, f.About)
	if err := c.stage.restore(ctx, f, c.crowd); err != nil {
		v.Failures = []string{"before the fault: " + err.Error()}
		c.close(ctx)
		return v, nil //nolint:nilerr // it is the verdict
	}
	t := &trial{campaign: c, fault: f, v: &v, run: newRun(c.crowd, c.Size)}
	err := t.carry(ctx, turn)
	if err != nil && ctx.Err() == nil {
		v.Failures = append(v.Failures, err.Error())
	}
	v.Pass = len(v.Failures) == 0
	return v, nil
}
