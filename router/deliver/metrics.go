package deliver

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics have no label but those of small, fixed sets. In alerts: halted above 0; a rising record age; tail_lost.
type metrics struct {
	records, messages, passed prometheus.Counter
	recipients                *prometheus.CounterVec // result
	duplicates                *prometheus.CounterVec // content
	batch                     prometheus.Histogram
	stage                     *prometheus.HistogramVec // stage
	age                       prometheus.Histogram
	owned, halted, suspects   prometheus.Gauge
	takeovers                 prometheus.Counter
	lost                      *prometheus.CounterVec // reason
	suspected, skipped        prometheus.Counter
	retries                   prometheus.Counter
	refills, tailLost         prometheus.Counter
	invalid                   prometheus.Counter
	pushDropped               prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	var errs []error
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "future_router_" + name, Help: help})
		errs = append(errs, reg.Register(c))
		return c
	}
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "future_router_" + name, Help: help}, []string{label})
		for _, v := range values {
			c.WithLabelValues(v)
		}
		errs = append(errs, reg.Register(c))
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "future_router_" + name, Help: help})
		errs = append(errs, reg.Register(g))
		return g
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "future_router_" + name, Help: help, Buckets: buckets})
		errs = append(errs, reg.Register(h))
		return h
	}
	m := &metrics{
		records:    counter("records_total", "Records read."),
		messages:   counter("messages_total", "Messages whose delivery was completed."),
		passed:     counter("records_passed_over_total", "Records of an unknown kind, or unreadable; history keeps them."),
		recipients: vec("recipients_total", "Recipients of messages, by whether one of their connections took it.", "result", "reached", "not_reached"),
		duplicates: vec("duplicates_total", "Messages dropped since their identity came before, by content.", "content", "same", "other"),
		batch:      histogram("batch_records", "Records in a batch.", prometheus.ExponentialBuckets(1, 4, 6)),
		stage: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "future_router_stage_seconds", Help: "Time that a batch spent in a stage, retries included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 14),
		}, []string{"stage"}),
		age: histogram("record_age_seconds", "Age of a batch's newest record when the batch was done: how far delivery lags.",
			prometheus.ExponentialBuckets(0.001, 2, 17)),
		owned:       gauge("partitions_owned", "Partitions that this router delivers."),
		halted:      gauge("halted", "Partitions that are stopped since the log is not the one that was known."),
		suspects:    gauge("suspect_nodes", "Nodes given up, summed over partitions."),
		takeovers:   counter("takeovers_total", "Partitions taken over."),
		lost:        vec("partitions_lost_total", "Partitions lost, by reason.", "reason", string(LostStale), string(LostLease), string(LostStore), string(LostFault), lostLog),
		suspected:   counter("nodes_suspected_total", "Times that a node did not answer in time and was given up."),
		skipped:     counter("frames_skipped_total", "Frames to nodes that were given up or not sent."),
		retries:     counter("retries_total", "Stages put off since Redis or the log did not answer."),
		refills:     counter("refills_total", "Times that the log was read again to fill the dedupe window and for the ends of rights, at a takeover or for records that reach below what is known."),
		invalid:     counter("invalid_total", "Messages dropped, since the sender's right to write had ended before them in the log. None was acknowledged."),
		tailLost:    counter("recents_tail_lost_total", "Messages whose prev was made unknown since the recents lack what was appended."),
		pushDropped: counter("push_dropped_total", "Push records that the log will never take."),
	}
	errs = append(errs, reg.Register(m.stage))
	return m, errors.Join(errs...)
}

func (m *metrics) count(s Stats) {
	add := func(c prometheus.Counter, n int) {
		if n > 0 {
			c.Add(float64(n))
		}
	}
	add(m.records, s.Records)
	add(m.messages, s.Messages)
	add(m.passed, s.Passed)
	add(m.recipients.WithLabelValues("reached"), s.Reached)
	add(m.recipients.WithLabelValues("not_reached"), s.Unreached)
	add(m.duplicates.WithLabelValues("same"), s.Duplicates-s.IDReused)
	add(m.duplicates.WithLabelValues("other"), s.IDReused)
	add(m.suspected, s.Suspected)
	add(m.skipped, s.Skipped)
	add(m.retries, s.Retries)
	add(m.refills, s.Refills)
	add(m.invalid, s.Invalid)
	add(m.tailLost, s.TailLost)
}
