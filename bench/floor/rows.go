package floor

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Row is one line of the table. Value and Baseline are medians over the rounds.
type Row struct {
	Row   string  `json:"row"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Baseline is what the barest way to do the same gives; Ratio is Value / Baseline. null: there is none.
	Baseline *float64 `json:"baseline"`
	Ratio    *float64 `json:"ratio"`
	// Goal is the bound, and GoalIs "at most" or "at least". null: there is none, and nothing to be met.
	Goal   *float64 `json:"goal"`
	GoalIs string   `json:"goal_is,omitempty"`
	Met    *bool    `json:"met"`
	// Note says what the baseline is, and how far the rounds lay apart.
	Note string `json:"note"`
}

func (r Row) against(baseline float64) Row {
	r.Baseline = &baseline
	if baseline > 0 {
		ratio := r.Value / baseline
		r.Ratio = &ratio
	}
	return r
}

func (r Row) atMost(goal float64) Row {
	met := r.Value <= goal
	r.Goal, r.GoalIs, r.Met = &goal, "at most", &met
	return r
}

func (r Row) atLeast(goal float64) Row {
	met := r.Value >= goal
	r.Goal, r.GoalIs, r.Met = &goal, "at least", &met
	return r
}

// row makes a row of the figure of a part.
func (f *floor) row(name, unit, part, figure, against string) Row {
	ours, theirs := f.figures(part, product, figure), f.figures(part, baseline, figure)
	r := Row{Row: name, Unit: unit, Value: median(ours), Note: "rounds " + rounds(ours)}
	if len(theirs) > 0 {
		r = r.against(median(theirs))
		r.Note += "; baseline: " + against + ", rounds " + rounds(theirs)
	}
	return r
}

func (f *floor) figures(part, side, figure string) []float64 {
	var all []float64
	for _, r := range f.out.Rounds {
		if v, ok := r.Figures[figure]; ok && r.Part == part && r.Side == side {
			all = append(all, v)
		}
	}
	return all
}

// median of values; of an even number, the mean of the two in the middle.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func rounds(values []float64) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = number(v)
	}
	return strings.Join(all, " ")
}

func number(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 0.1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.4f", v)
	}
}

func (f *floor) latencyRows() {
	// What the product may take on top of the baseline, in ms: the goals of the project.
	const e2eP50, e2eP99, ackP50 = 0.9, 5, 0.3
	load := fmt.Sprintf(" at %d/s", f.Rate)
	above := func(r Row, most float64) Row { return r.atMost(*r.Baseline + most) }
	const (
		consume = "raw kafka-go, produce to consume"
		produce = "raw kafka-go, produce to acknowledgement"
	)
	f.out.Rows = append(f.out.Rows,
		above(f.row("end to end p50"+load, "ms", PartLatency, "e2e_p50_ms", consume), e2eP50),
		above(f.row("end to end p99"+load, "ms", PartLatency, "e2e_p99_ms", consume), e2eP99),
		above(f.row("acknowledgement p50"+load, "ms", PartLatency, "ack_p50_ms", produce), ackP50),
		f.row("acknowledgement p99"+load, "ms", PartLatency, "ack_p99_ms", produce),
		f.row("CPU of all servers"+load, "CPU-ms/message", PartLatency, "cpu_ms", "raw kafka-go, the one process"),
		f.row("CPU of nodes"+load, "CPU-ms/message", PartLatency, "cpu_nodes_ms", ""),
		f.row("CPU of routers"+load, "CPU-ms/message", PartLatency, "cpu_routers_ms", ""),
		f.row("CPU of history"+load, "CPU-ms/message", PartLatency, "cpu_histories_ms", ""),
	)
}

func (f *floor) historyRows() {
	const (
		empty, full = 15_000, 8_000 // messages a second: the goals of the project
		flat        = 1.2           // times the memory at the start, for what Go's collector leaves lying about
		inserts     = "raw inserts of the same rows"
	)
	f.out.Rows = append(f.out.Rows,
		f.row("history, empty database", "messages/s", partEmpty, "rate", inserts).atLeast(empty),
		f.row("CPU of history, empty database", "CPU-ms/message", partEmpty, "cpu_ms", inserts),
	)
	if f.HistoryRows > 0 {
		name := fmt.Sprintf("history, %d rows", max(f.HistoryRows, f.HistoryMessages))
		r := f.row(name, "messages/s", partFilled, "rate", inserts)
		if f.HistoryRows >= FullHistoryRows {
			r = r.atLeast(full)
		} else {
			r.Note += fmt.Sprintf("; the goal is about %d rows", FullHistoryRows)
		}
		f.out.Rows = append(f.out.Rows, r)
	}
	start := median(f.figures(partMemory, product, "rss_start_mib"))
	r := f.row("history, memory in the end", "MiB", partMemory, "rss_end_mib", "")
	r = r.against(start)
	r.Note = fmt.Sprintf("baseline: the same process' RSS when half of its first %d messages were stored; after %.0f messages; peak %s MiB",
		f.HistoryMessages, median(f.figures(partMemory, product, "rows")), rounds(f.figures(partMemory, product, "rss_peak_mib")))
	f.out.Rows = append(f.out.Rows, r.atMost(flat*start))
	if f.out.Database != "" {
		for i := range f.out.Rows {
			if strings.HasPrefix(f.out.Rows[i].Row, "history") {
				f.out.Rows[i].Note += "; database: " + f.out.Database
			}
		}
	}
}

// Table writes rows for people.
func Table(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	optional := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return number(*v)
	}
	fmt.Fprintln(t, "row\tvalue\tunit\tbaseline\tratio\tgoal\tmet")
	for _, r := range rows {
		goal, met := "-", "-"
		if r.Goal != nil {
			goal, met = r.GoalIs+" "+number(*r.Goal), "MISSED"
			if *r.Met {
				met = "yes"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Row, number(r.Value), r.Unit, optional(r.Baseline), optional(r.Ratio), goal, met)
	}
	return t.Flush()
}
