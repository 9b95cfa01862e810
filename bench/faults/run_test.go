package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/futurechat/future/ops/clustertest"
)

func small() Options {
	o := Defaults()
	o.Nodes, o.Routers, o.Histories, o.Partitions = 2, 2, 1, 8
	o.Sessions, o.Rate, o.Before, o.After, o.Hold = 24, 40, 500*time.Millisecond, time.Second, 500*time.Millisecond
	o.grace = 100 * time.Millisecond
	return o
}

// The whole program at its smallest, on embedded servers: clean faults pass, and a row that is taken away behind the product's
// back fails.
func TestRun_SmallCluster_PassesAndFailsAsItShould(t *testing.T) {
	for _, name := range []string{"FUTURE_TEST_KAFKA", "FUTURE_TEST_REDIS", "FUTURE_TEST_MYSQL"} {
		t.Setenv(name, "")
	}
	o := small()
	o.Faults = []string{"node-kill", "router-stop", "history-drain", "redis-empty"}
	var told []string
	o.Progress = t.Logf
	o.Done = func(v Verdict) { told = append(told, v.Fault) }
	o.inserted = []Fault{
		{Name: "planted", carry: func(ctx context.Context, s *shot) error {
			s.heal()
			s.saw("a row was taken away")
			return takeRow(ctx, s)
		}},
	}
	out, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"node-kill", "router-stop", "history-drain", "redis-empty", "planted"}
	if !slices.Equal(told, want) || len(out.Verdicts) != len(want) || out.Real {
		t.Fatalf("told of %v; got %+v", told, out)
	}
	for _, v := range out.Verdicts[:4] {
		if !v.Pass || v.Offered == 0 || v.Acknowledged < v.Offered*9/10 || v.Stored < v.Acknowledged || len(v.Evidence) == 0 || v.LongestStall == 0 {
			t.Errorf("got %+v", v)
		}
	}
	if v := out.Verdicts[0]; v.Hit == 0 || v.Away != 0 || v.Back.Max == 0 {
		t.Errorf("a node was killed: got %+v", v.Timing)
	}
	if v := out.Verdicts[4]; v.Pass || v.Zero != (Zero{Lost: 1, NotStored: 1, AckedThenDropped: 1}) {
		t.Errorf("a row was taken away: got %+v", v)
	}
	if got := out.Failed(); got != 1 {
		t.Errorf("%d are counted as failed", got)
	}
	var printed strings.Builder
	if err := Table(&printed, out.Verdicts); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"FAILS: 1 acknowledged messages are lost", "gone by SIGKILL", "state T", "ended by SIGTERM", "keys are gone", "has no row, and history is past it"} {
		if !strings.Contains(printed.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, &printed)
		}
	}
}

// takeRow waits until history has a message of the run, and deletes it.
func takeRow(ctx context.Context, s *shot) error {
	for {
		rows, _, err := readDatabase(ctx, s.cluster, s.run, s.o.Partitions)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			if err := clustertest.Sleep(ctx, 20*time.Millisecond); err != nil {
				return err
			}
			continue
		}
		db, err := s.cluster.OpenDatabase()
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		_, err = db.ExecContext(ctx, `DELETE FROM messages WHERE conversation = ? AND seq = ?`, s.run.crowd.pairs[rows[0].Pair].conversation, rows[0].Seq)
		return err
	}
}

func TestRun_Cancelled_EndsAndSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, small()); err == nil {
		t.Error("no error")
	}
}

func TestChosen_NamesAndRoles(t *testing.T) {
	names := func(want ...string) string {
		o := Options{Faults: want}
		all, err := o.chosen()
		if err != nil {
			return err.Error()
		}
		var got []string
		for _, f := range all {
			got = append(got, f.Name)
		}
		return strings.Join(got, " ")
	}
	if got := names("history", "idle"); got != "idle history-kill history-stop history-drain history-rolling" {
		t.Errorf("got %q", got)
	}
	if got := names("node-kil"); !strings.Contains(got, "node-kill") || !strings.Contains(got, `"node-kil"`) {
		t.Errorf("got %q", got)
	}
	if got := strings.Fields(names()); len(got) != len(Catalog()) {
		t.Errorf("got %q", got)
	}
}

func TestPairs_SessionsAsAsked(t *testing.T) {
	for _, sessions := range []int{12, 24, 9000} {
		got := 0
		for i := range pairs(sessions) {
			got += 2 * devices(i)
		}
		if got != sessions {
			t.Errorf("%d sessions were asked for, %d would be opened", sessions, got)
		}
	}
}

// Sessions are spread evenly; of a crowd nine of ten are at the first node, and pairs among them as well as among the others.
func TestHome_EvenOrCrowded(t *testing.T) {
	s := &stage{sizes: map[string]int{roleNode: 3}}
	count := func() map[int]int {
		n := map[int]int{}
		for i := range 9000 {
			n[s.home(i)]++
		}
		return n
	}
	if got := count(); got[0] != 3000 || got[1] != 3000 || got[2] != 3000 {
		t.Errorf("got %v", got)
	}
	s.crowded = true
	if got := count(); got[0] != 8100 || got[1] != 450 || got[2] != 450 {
		t.Errorf("crowded: got %v", got)
	}
}

func TestText_ReadBack_OnlyOfThisRun(t *testing.T) {
	c := &crowd{pairs: make([]*pair, 9)}
	r, other := newRun(c, 60), newRun(c, 60)
	for _, i := range []int{0, 7, 123456} {
		text := r.text(i)
		if len(text) != 60 {
			t.Errorf("%q has %d bytes", text, len(text))
		}
		if got, ok := r.number(text); !ok || got != i {
			t.Errorf("%q: got %d, %v", text, got, ok)
		}
		if _, ok := other.number(text); ok {
			t.Errorf("%q is taken for one of another run", text)
		}
	}
}

// Numbers rise with each message of a driver, and lead back to the offer wherever it lies.
func TestOffers_FoundByNumber(t *testing.T) {
	c := &crowd{pairs: make([]*pair, 9)}
	r := newRun(c, 60)
	const n = 3 * chunk / 2
	for i := range n {
		for k, d := range r.drivers {
			if got := d.add(0, time.Second).Number; got != i*drivers+k {
				t.Fatalf("driver %d: offer %d has number %d", k, i, got)
			}
		}
	}
	for i := range n * drivers {
		r.arrived(i)
	}
	r.arrived(n * drivers) // nobody's
	r.all(func(o *offer) {
		if o.arrived.Load() != 1 {
			t.Fatalf("message %d: %d arrivals", o.Number, o.arrived.Load())
		}
	})
}

func TestPercentile_NearestRank(t *testing.T) {
	all := []float64{5, 1, 4, 2, 3}
	for percent, want := range map[int]float64{50: 3, 99: 5, 1: 1} {
		if got := percentile(all, percent); got != want {
			t.Errorf("p%d is %v, want %v", percent, got, want)
		}
	}
	if fmt.Sprint(all) != "[5 1 4 2 3]" || percentile(nil, 50) != 0 {
		t.Error("it changes what it is given, or stumbles over nothing")
	}
}
