package simulation

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap/zapcore"
)

// registry takes the metrics of a process, and counts at its end those that tell what the product had to do.
func (w *world) registry(p *proc) prometheus.Registerer {
	r := &registry{}
	p.onKill = append(p.onKill, func() { r.count(w) })
	return r
}

type registry struct {
	collectors []prometheus.Collector
	wanted     []string // what each is counted as
}

// wantedMetrics are counted, by what they are called here.
var wantedMetrics = map[string]string{
	"future_router_takeovers_total":         "takeovers",
	"future_router_duplicates_total":        "duplicates dropped by routers",
	"future_router_refills_total":           "windows filled again",
	"future_router_partitions_lost_total":   "partitions lost:",
	"future_router_nodes_suspected_total":   "nodes suspected",
	"future_router_frames_skipped_total":    "frames skipped",
	"future_router_invalid_total":           "invalid messages dropped by routers",
	"future_history_invalid_total":          "invalid messages dropped by history",
	"future_fence_revoked_total":            "lives revoked",
	"future_node_group_messages_total":      "groups' messages:",
	"future_node_group_reads_total":         "reads of groups' members",
	"future_node_looks_total":               "rights looked at again:",
	"future_router_retries_total":           "stages tried again by routers",
	"future_router_recents_tail_lost_total": "lost tails of recents noticed",
	"future_history_duplicates_total":       "duplicates dropped by history",
	"future_history_fenced_total":           "history writers fenced",
	"future_history_retries_total":          "history tried again",
	"future_node_left_out_total":            "deliveries left out for slow clients",
	"future_node_compares_total":            "sessions told to compare",
	"future_outbox_rows_total":              "outbox rows brought to the log",
}

func (r *registry) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 8)
	c.Describe(descs)
	name := (<-descs).String()
	name = strings.TrimPrefix(name, `Desc{fqName: "`)
	name, _, _ = strings.Cut(name, `"`)
	if as := wantedMetrics[name]; as != "" {
		r.collectors, r.wanted = append(r.collectors, c), append(r.wanted, as)
	}
	return nil
}

func (r *registry) MustRegister(...prometheus.Collector) {}
func (r *registry) Unregister(prometheus.Collector) bool { return true }

func (r *registry) count(w *world) {
	for i, c := range r.collectors {
		metrics := make(chan prometheus.Metric, 64)
		c.Collect(metrics)
		close(metrics)
		for m := range metrics {
			var out dto.Metric
			if m.Write(&out) != nil {
				continue
			}
			as := r.wanted[i]
			if strings.HasSuffix(as, ":") { // told apart by label
				as += " " + out.GetLabel()[0].GetValue()
			}
			w.counts[as] += int(out.GetCounter().GetValue())
		}
	}
}

// traceCore writes a process's log into the trace.
type traceCore struct{ p *proc }

func (c traceCore) Enabled(zapcore.Level) bool        { return true }
func (c traceCore) With([]zapcore.Field) zapcore.Core { return c }
func (c traceCore) Sync() error                       { return nil }

func (c traceCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return ce.AddCore(e, c)
}

func (c traceCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	c.p.w.tracef("%s: %s %s", c.p.name, e.Message, fmt.Sprint(enc.Fields))
	return nil
}
