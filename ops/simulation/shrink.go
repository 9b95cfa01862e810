package simulation

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Shrink looks for a smaller run that breaks the same promise: without kinds of faults, shorter, with fewer people and processes. It
// tries until a number of runs is used up or stop says so, and gives the smallest that it found.
func Shrink(o Options, check string, runs int, stop func() bool) Options {
	o.Trace, o.WholeTrace = false, false
	breaks := func(try Options) bool {
		runs--
		r := Run(try)
		return r.Broken != nil && r.Broken.Check == check
	}
	for smaller := true; smaller; {
		smaller = false
		for _, try := range o.smaller() {
			if runs <= 0 || stop() {
				return o
			}
			if breaks(try) {
				o, smaller = try, true
				break
			}
		}
	}
	return o
}

// smaller gives runs that are a step smaller, those that leave out most first.
func (o Options) smaller() (all []Options) {
	full := o.shape()
	with := func(change func(*Options)) {
		try := full
		try.Without = slices.Clone(full.Without)
		change(&try)
		all = append(all, try)
	}
	var left []string
	for _, name := range FaultKinds() {
		if o.on(name) {
			left = append(left, name)
		}
	}
	if len(left) > 2 {
		half := len(left) / 2
		with(func(t *Options) { t.Without = append(t.Without, left[:half]...) })
		with(func(t *Options) { t.Without = append(t.Without, left[half:]...) })
	}
	for _, part := range []time.Duration{2, 4} {
		if d := (full.Faults - full.Faults/part).Truncate(time.Second); d >= time.Second && d < full.Faults {
			with(func(t *Options) { t.Faults = d })
		}
	}
	fewer := func(n int, least int, set func(*Options, int)) {
		if n > least {
			with(func(t *Options) { set(t, n-1) })
		}
	}
	fewer(full.People, 2, func(t *Options, n int) { t.People = n })
	fewer(full.Nodes, 1, func(t *Options, n int) { t.Nodes = n })
	fewer(full.Routers, 1, func(t *Options, n int) { t.Routers = n })
	fewer(full.Histories, 1, func(t *Options, n int) { t.Histories = n })
	fewer(full.Partitions, 1, func(t *Options, n int) { t.Partitions = n })
	for _, name := range left {
		with(func(t *Options) { t.Without = append(t.Without, name) })
	}
	return all
}

// Args are the arguments of ops/simulation/run that repeat a run.
func (o Options) Args() string {
	args := []string{fmt.Sprintf("-seed %d", o.Seed)}
	for _, n := range []struct {
		name string
		n    int
	}{{"nodes", o.Nodes}, {"routers", o.Routers}, {"histories", o.Histories}, {"people", o.People}, {"partitions", o.Partitions}} {
		if n.n != 0 {
			args = append(args, fmt.Sprintf("-%s %d", n.name, n.n))
		}
	}
	if o.Faults != 0 {
		args = append(args, fmt.Sprintf("-faults %v", o.Faults))
	}
	if o.Heal != 0 && o.Heal != healWithin {
		args = append(args, fmt.Sprintf("-heal %v", o.Heal))
	}
	if len(o.Without) > 0 {
		args = append(args, "-without "+strings.Join(o.Without, ","))
	}
	return strings.Join(args, " ")
}
