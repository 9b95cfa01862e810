package simulation

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
)

// Sweep is many runs.
type Sweep struct {
	// Options are those of each run, but for the seed.
	Options Options
	// From is the first seed, Seeds how many there are. The first Twice of them are run twice, and must come out the same.
	From         uint64
	Seeds, Twice int
	// Workers is how many run at a time. Each run has one goroutine.
	Workers int
	// Keep goes on after a failure, and finds all.
	Keep bool
	// Progress, if not nil, is called after each seed, by one goroutine at a time.
	Progress func(done int, failed int)
}

// Report is what came of a Sweep.
type Report struct {
	Seeds, Events int
	// Failed are the runs that broke a promise, by seed; those that were not the same twice too.
	Failed []Result
	Counts map[string]int
	// Healed is the longest time until all was well, by the time of the runs.
	Healed time.Duration
	// Hash is of all runs, in whatever order they ended.
	Hash uint64
	Took time.Duration
}

// Run runs the seeds until all are done, one fails, or ctx ends.
func (s Sweep) Run(ctx context.Context) Report {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	report := Report{Counts: map[string]int{}}
	began := time.Now()
	var mu sync.Mutex
	next := 0
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next >= s.Seeds || ctx.Err() != nil {
			return 0, false
		}
		next++
		return next - 1, true
	}
	var workers sync.WaitGroup
	for range max(s.Workers, 1) {
		workers.Go(func() {
			for i, ok := take(); ok; i, ok = take() {
				r := s.one(i)
				mu.Lock()
				report.add(r)
				if r.Broken != nil && !s.Keep {
					cancel()
				}
				if s.Progress != nil {
					s.Progress(report.Seeds, len(report.Failed))
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	report.Took = time.Since(began)
	slices.SortFunc(report.Failed, func(a, b Result) int { return int(int64(a.Seed) - int64(b.Seed)) })
	return report
}

func (s Sweep) one(i int) Result {
	o := s.Options
	o.Seed = s.From + uint64(i)
	r := Run(o)
	if i < s.Twice && r.Broken == nil {
		if again := Run(o); again.Hash != r.Hash {
			r.Broken = &Violation{Check: "repeatable", What: fmt.Sprintf("the hash of all that happened is %x and then %x", r.Hash, again.Hash)}
		}
	}
	return r
}

func (r *Report) add(one Result) {
	r.Seeds++
	r.Events += one.Events
	r.Hash += one.Hash
	r.Healed = max(r.Healed, one.Healed)
	for what, n := range one.Counts {
		r.Counts[what] += n
	}
	if one.Broken != nil {
		r.Failed = append(r.Failed, one)
	}
}

// Never are what never happened of all that a sweep must have tried.
func (r *Report) Never() (never []string) {
	for _, what := range mustHappen() {
		if r.Counts[what] == 0 {
			never = append(never, what)
		}
	}
	return never
}

// WriteCounts tells how often each thing happened.
func (r *Report) WriteCounts(out io.Writer) error {
	for _, what := range slices.Sorted(maps.Keys(r.Counts)) {
		if _, err := fmt.Fprintf(out, "%10d  %s\n", r.Counts[what], what); err != nil {
			return err
		}
	}
	return nil
}
