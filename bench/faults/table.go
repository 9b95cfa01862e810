package faults

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Table writes verdicts for people.
func Table(w io.Writer, verdicts []Verdict) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "fault\tverdict\toffered\tacked\trefused\tunanswered\tdelivered\tstored\tlost\tlate\tdoubled\tdisorder\tdropped\tacked outside\tstall ms\tothers ms\thit\tback p99 s")
	for _, v := range verdicts {
		word := "pass"
		if !v.Pass {
			word = "FAIL"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%d\t%d/%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.1f %%\t%.0f\t%.0f\t%d\t%.2f\n", v.Fault, word, v.Offered,
			v.Acknowledged, refused(&v), v.Unanswered, v.Delivered, v.Expected, v.Stored, v.Lost, v.Zero.Late, v.Doubled, v.OutOfOrder,
			v.AckedThenDropped, v.AckedOutside, v.LongestStall, v.OthersStall, v.Hit, v.Back.P99/1000)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, v := range verdicts {
		fmt.Fprintf(w, "\n%s: %s\n", v.Fault, strings.Join(v.Evidence, "; "))
		for _, f := range v.Failures {
			fmt.Fprintf(w, "  FAILS: %s\n", f)
		}
		for _, e := range v.Examples {
			fmt.Fprintf(w, "    %s\n", e)
		}
		fmt.Fprintf(w, "  before p50 %.1f p99 %.1f max %.1f ms; others meanwhile p50 %.1f p99 %.1f max %.1f ms; normal again %.1f s after healing\n",
			v.Before.P50, v.Before.P99, v.Before.Max, v.Meanwhile.P50, v.Meanwhile.P99, v.Meanwhile.Max, v.Normal/1000)
		if n := len(v.Partitions); n > 0 {
			fmt.Fprintf(w, "  stalls of %d partitions: p50 %.0f p99 %.0f ms; sending was behind by p99 %.1f ms\n", n, percentile(v.Partitions, 50),
				percentile(v.Partitions, 99), v.Behind.P99)
		}
		fmt.Fprintf(w, "  %% of a core: node %.1f router %.1f history %.1f, bench %.1f, whole machine %.0f\n", v.CPU[roleNode], v.CPU[roleRouter],
			v.CPU[roleHistory], v.CPU["bench"], v.CPU["machine"])
		if len(v.NodeErrors) > 0 {
			fmt.Fprintf(w, "  nodes answered: %s\n", counts(v.NodeErrors))
		}
		if v.Note != "" {
			fmt.Fprintf(w, "  NOTE: %s\n", v.Note)
		}
		for _, g := range v.Goals {
			met := "met"
			if !g.Met {
				met = "MISSED"
			}
			fmt.Fprintf(w, "  goal: %s: %.1f %s, at most %.1f: %s\n", g.What, g.Value, g.Unit, g.Most, met)
		}
	}
	summaries(w, verdicts)
	return nil
}

func refused(v *Verdict) string {
	if len(v.Refused) == 0 {
		return "0"
	}
	return counts(v.Refused)
}

// counts tells counts by code, the most frequent first.
func counts(n map[string]int) string {
	var all []string
	for _, c := range slices.SortedFunc(maps.Keys(n), func(a, b string) int { return cmp.Or(n[b]-n[a], strings.Compare(a, b)) }) {
		all = append(all, fmt.Sprintf("%s %d", c, n[c]))
	}
	return strings.Join(all, ", ")
}

// summaries tells of faults that were carried out several times.
func summaries(w io.Writer, verdicts []Verdict) {
	of := map[string][]Verdict{}
	var names []string
	for _, v := range verdicts {
		if of[v.Fault] == nil {
			names = append(names, v.Fault)
		}
		of[v.Fault] = append(of[v.Fault], v)
	}
	for _, name := range names {
		all := of[name]
		if len(all) < 2 {
			continue
		}
		var stalls, others, back []float64
		passed := 0
		for _, v := range all {
			stalls, others, back = append(stalls, v.Partitions...), append(others, v.OthersStall), append(back, v.Back.P99)
			if v.Pass {
				passed++
			}
		}
		fmt.Fprintf(w, "\n%s, %d times: %d passed; stalls of %d partitions p50 %.0f p99 %.0f ms; longest of others p50 %.0f max %.0f ms; 99 %% of sessions back p50 %.2f max %.2f s\n",
			name, len(all), passed, len(stalls), percentile(stalls, 50), percentile(stalls, 99), percentile(others, 50), percentile(others, 100),
			percentile(back, 50)/1000, percentile(back, 100)/1000)
	}
}
