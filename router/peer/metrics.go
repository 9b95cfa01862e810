package peer

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type serverMetrics struct {
	links     prometheus.Gauge
	refused   *prometheus.CounterVec
	lost      *prometheus.CounterVec
	frames    *prometheus.CounterVec
	handshake prometheus.Gauge
	queued    prometheus.Gauge
}

// Reasons of future_peer_server_refused_total.
const (
	refusedHandshake = "handshake" // a stranger, or another cluster's member
	refusedHello     = "hello"     // a member that did not say Hello
	refusedEvicted   = "too_many_handshakes"
	refusedMaxLinks  = "too_many_links"
)

// Kinds of frames in metrics.
const (
	kindForward = "forward"
	kindKick    = "kick"
	kindPing    = "ping"
	kindAsk     = "ask"
	kindFence   = "fence"
	kindUnknown = "unknown"
)

func newServerMetrics(reg prometheus.Registerer) (*serverMetrics, error) {
	const ns = "future_peer_server"
	m := &serverMetrics{
		links:     prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Name: "links", Help: "Links of members."}),
		handshake: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Name: "handshakes", Help: "Connections that have yet to prove that they are members'."}),
		queued:    prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Name: "queued_bytes", Help: "Bytes of answers that wait to be written."}),
		refused:   byLabel(ns, "refused_total", "Connections refused.", "reason"),
		lost:      byLabel(ns, "links_lost_total", "Links that ended.", "reason"),
		frames:    byLabel(ns, "frames_received_total", "Frames from members.", "kind"),
	}
	return m, register(reg, m.links, m.handshake, m.queued, m.refused, m.lost, m.frames)
}

type poolMetrics struct {
	links    prometheus.Gauge
	dials    *prometheus.CounterVec
	lost     *prometheus.CounterVec
	answers  *prometheus.CounterVec
	late     prometheus.Counter
	unknown  prometheus.Counter
	kicks    *prometheus.CounterVec
	fences   *prometheus.CounterVec
	queued   prometheus.Gauge
	duration prometheus.Histogram
}

// Results of future_peer_pool_forwards_total, kicks_total and dials_total.
const (
	resultAnswered = "answered"
	resultLost     = "lost"
	resultTimeout  = "timeout"
	resultFull     = "full"
	resultTooLarge = "too_large"
	resultQueued   = "queued"
	resultGood     = "good"
	resultFailed   = "failed"
)

func newPoolMetrics(reg prometheus.Registerer) (*poolMetrics, error) {
	const ns = "future_peer_pool"
	m := &poolMetrics{
		links:   prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Name: "links", Help: "Links that are up."}),
		dials:   byLabel(ns, "dials_total", "Tries to make a link.", "result"),
		lost:    byLabel(ns, "links_lost_total", "Links that ended.", "reason"),
		answers: byLabel(ns, "forwards_total", "Forwards by what became of them.", "result"),
		late:    prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Name: "late_answers_total", Help: "Answers after their time."}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Name: "unknown_frames_total", Help: "Frames of a kind that is not known."}),
		kicks:   byLabel(ns, "kicks_total", "Kicks by what became of them.", "result"),
		fences:  byLabel(ns, "fences_total", "Fences by what became of them.", "result"),
		queued:  prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Name: "queued_bytes", Help: "Bytes that wait to be written to links."}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: ns, Name: "forward_seconds",
			Help: "From Send to the answer.", Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .3}}),
	}
	return m, register(reg, m.links, m.dials, m.lost, m.answers, m.late, m.unknown, m.kicks, m.fences, m.queued, m.duration)
}

func byLabel(namespace, name, help, label string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, []string{label})
}

func register(reg prometheus.Registerer, cs ...prometheus.Collector) error {
	if reg == nil {
		return nil
	}
	for _, c := range cs {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("peer: metrics: %w", err)
		}
	}
	return nil
}
