package simulation

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/resume"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
)

func TestR44_ManySeeds_EveryPromiseIsKept_AndEachRunComesOutTheSame(t *testing.T) {
	s := Sweep{From: 1, Seeds: 50, Twice: 10, Workers: runtime.GOMAXPROCS(0)}
	r := s.Run(t.Context())
	for _, f := range r.Failed {
		t.Errorf("seed %d: %v; see it by: go run ./ops/simulation/run -seed %d", f.Seed, f.Broken, f.Seed)
	}
	for _, what := range []string{"messages acknowledged", "handovers", "messages resent", "shown by history", "duplicates dropped by routers"} {
		if r.Counts[what] == 0 {
			t.Errorf("%s: never in %d seeds", what, r.Seeds)
		}
	}
}

// What is planted here breaks a promise in the simulated world itself. It must be seen, by the check that is meant to see it.
func TestR44_APlantedFault_IsCaughtByItsCheck(t *testing.T) {
	plants := []struct {
		name   string
		checks string // those that may see it first
		plant  func(w *world)
	}{
		{"a node swallows what is for one user", "push liveness", func(w *world) {
			w.planted.forward = func(f *peer.Forward) {
				f.Messages = slices.DeleteFunc(slices.Clone(f.Messages), func(m peer.Message) bool {
					return w.healed && slices.ContainsFunc(m.Recipients, func(r peer.Recipient) bool { return r.User == 1 })
				})
			}
		}},
		{"the log acknowledges what it does not have", "acknowledged", func(w *world) {
			w.planted.append = func([]eventlog.Entry) bool { return w.now > warmUp+4*time.Second && w.now < warmUp+5*time.Second }
		}},
		{"the log gives away the place of what it has acknowledged", "push shown", func(w *world) {
			w.planted.write = func(p *simPartition) {
				if p.end() == 12 {
					p.records = p.records[:11]
				}
			}
		}},
		{"an offset is committed that is not there yet", "liveness push commit", func(w *world) {
			w.planted.commit = func(at int64) int64 { return at + 1 }
		}},
		{"Redis says that it has what it has not", "commit", func(w *world) {
			w.planted.recents = func() bool { return w.now > warmUp+3*time.Second }
		}},
		{"a client is shown a message twice", "shown", func(w *world) {
			w.planted.show = func(d *device, m *pb.Message) {
				if d.n == 3 && w.now > warmUp+3*time.Second {
					d.pos[m.GetConversation()] = m.GetSeq()
				}
			}
		}},
		{"a client passes over a message", "passed over", func(w *world) {
			w.planted.show = func(d *device, m *pb.Message) {
				if d.n == 3 && w.now > warmUp+3*time.Second {
					w.truth.passed(d, resume.Position{Conversation: m.GetConversation(), Seq: m.GetSeq()})
				}
			}
		}},
		{"a removal is not fenced", "acknowledged", func(w *world) { w.planted.fence = func() bool { return true } }},
		{"history does not look at rights", "validity", func(w *world) {
			w.planted.store = func(b *chat.Batch) { b.Checks = nil }
		}},
		{"history loses the oldest messages", "history shown liveness", func(w *world) {
			w.planted.store = func(b *chat.Batch) {
				if b.From == 0 { // before anybody could ask for them
					b.Messages = nil
				}
			}
		}},
	}
	for _, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			if check := firstBroken(t, Options{plant: p.plant}); check == "" || !strings.Contains(p.checks, check) {
				t.Fatalf("it was caught by %q, not by %q", check, p.checks)
			}
		})
	}
}

// firstBroken gives the check that fails first in some seeds.
func firstBroken(t *testing.T, o Options) string {
	t.Helper()
	for seed := range uint64(40) {
		o.Seed = seed
		if r := Run(o); r.Broken != nil {
			t.Log(r.Broken)
			return r.Broken.Check
		}
	}
	return ""
}

func TestR44_AFailingSeed_ShrinksToASmallerOneThatFailsAlike(t *testing.T) {
	// Caught only if routers hand over: so those faults must stay.
	o := Options{Seed: 3, plant: func(w *world) {
		w.planted.append = func(e []eventlog.Entry) bool { return w.counts["fault node-crash"] > 0 && w.now < warmUp+8*time.Second }
	}}
	for r := Run(o); r.Broken == nil; r = Run(o) {
		o.Seed++
	}
	check := Run(o).Broken.Check
	small := Shrink(o, check, 150, func() bool { return false })
	r := Run(small)
	if r.Broken == nil || r.Broken.Check != check {
		t.Fatalf("the smaller run breaks %v, not %s", r.Broken, check)
	}
	if len(small.Without) < len(FaultKinds())/2 || slices.Contains(small.Without, "node-crash") || small.People >= 5 {
		t.Fatalf("it has shrunk to no less than %s", small.Args())
	}
}

func TestOptions_ArgsRepeatARun(t *testing.T) {
	o := Options{Seed: 7, People: 3, Faults: 4 * time.Second, Without: []string{"skew", "link-cut"}}
	if got, want := o.Args(), "-seed 7 -people 3 -faults 4s -without skew,link-cut"; got != want {
		t.Fatalf("%q, not %q", got, want)
	}
}

func TestSweep_EndsInOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := Sweep{From: 1, Seeds: 1 << 20, Workers: 2, Progress: func(done, _ int) {
		if done == 3 {
			cancel()
		}
	}}
	if r := s.Run(ctx); r.Seeds < 3 || r.Seeds > 5 {
		t.Fatalf("%d seeds were run after it was ended", r.Seeds)
	}
}

func TestNever_NamesWhatDidNotHappen(t *testing.T) {
	r := Report{Counts: map[string]int{}}
	for _, what := range mustHappen() {
		r.Counts[what] = 1
	}
	r.Counts["handovers"] = 0
	if never := strings.Join(r.Never(), ","); never != "handovers" {
		t.Fatalf("%q", never)
	}
}
