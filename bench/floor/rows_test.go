package floor

import (
	"bytes"
	"strings"
	"testing"
)

func figures(part, side string, name string, values ...float64) []Round {
	var all []Round
	for _, v := range values {
		all = append(all, Round{Part: part, Side: side, Figures: map[string]float64{name: v}})
	}
	return all
}

func TestRow_Rounds_MedianAndRatio(t *testing.T) {
	f := &floor{out: &Outcome{Rounds: append(
		figures(PartLatency, product, "e2e_p50_ms", 9, 3, 2, 2.8),
		figures(PartLatency, baseline, "e2e_p50_ms", 1, 2, 50)...,
	)}}
	r := f.row("x", "ms", PartLatency, "e2e_p50_ms", "raw")
	if r.Value != 2.9 || *r.Baseline != 2 || *r.Ratio != 1.45 {
		t.Errorf("value %v, baseline %v, ratio %v", r.Value, *r.Baseline, *r.Ratio)
	}
	if r.Goal != nil || r.Met != nil {
		t.Errorf("a row without a goal has one: %+v", r)
	}
}

func TestGoals_AtTheBound_Met(t *testing.T) {
	for _, c := range []struct {
		row Row
		met bool
	}{
		{Row{Value: 2}.atMost(2), true}, {Row{Value: 2.01}.atMost(2), false},
		{Row{Value: 15000}.atLeast(15000), true}, {Row{Value: 14999}.atLeast(15000), false},
	} {
		if *c.row.Met != c.met {
			t.Errorf("%v %s %v: met %v", c.row.Value, c.row.GoalIs, *c.row.Goal, *c.row.Met)
		}
	}
}

func TestHistoryRows_FewRows_GoalOfManyIsNotJudged(t *testing.T) {
	f := &floor{Options: Defaults(), out: &Outcome{Rounds: append(
		figures(partEmpty, product, "rate", 20_000), figures(partFilled, product, "rate", 9000)...,
	)}}
	f.HistoryRows = 1000
	f.historyRows()
	for _, r := range f.out.Rows {
		if strings.HasPrefix(r.Row, "history, 200000 rows") {
			if r.Goal != nil || r.Met != nil {
				t.Errorf("got %+v", r)
			}
			return
		}
	}
	t.Errorf("no such row: %+v", f.out.Rows)
}

func TestTable_Missed_Says(t *testing.T) {
	var out bytes.Buffer
	if err := Table(&out, []Row{Row{Row: "slow", Value: 3, Unit: "ms"}.atMost(2)}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "at most 2.00  MISSED") {
		t.Error(out.String())
	}
}
