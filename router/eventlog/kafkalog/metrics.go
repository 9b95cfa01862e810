package kafkalog

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/futurechat/future/router/eventlog"
)

type metrics struct {
	appends  *prometheus.CounterVec // by result
	latency  prometheus.Histogram
	retries  prometheus.Counter
	requests *prometheus.CounterVec // by api

	registerer prometheus.Registerer
	registered []prometheus.Collector
}

func newMetrics(to prometheus.Registerer, l *Log) (*metrics, error) {
	m := &metrics{
		appends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "future_kafkalog_appends_total", Help: "Appends answered, by result.",
		}, []string{"result"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "future_kafkalog_append_seconds", Help: "Time from an append to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "future_kafkalog_retries_total", Help: "Batches tried again.",
		}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "future_kafkalog_requests_total", Help: "Requests sent to brokers, by kind.",
		}, []string{"kind"}),
		registerer: to,
	}
	if to == nil {
		return m, nil
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			l.mu.Lock()
			defer l.mu.Unlock()
			return float64(value())
		})
	}
	for _, c := range []prometheus.Collector{
		m.appends, m.latency, m.retries, m.requests,
		gauge("future_kafkalog_pending_records", "Appends not yet answered.", func() int { return l.records }),
		gauge("future_kafkalog_pending_bytes", "Bytes of appends not yet answered.", func() int { return l.bytes }),
	} {
		if err := to.Register(c); err != nil {
			m.unregister()
			return nil, err
		}
		m.registered = append(m.registered, c)
	}
	return m, nil
}

func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
}

func (m *metrics) appended(b *batch, now time.Time) {
	m.appends.WithLabelValues("ok").Add(float64(len(b.entries)))
	for i := range b.entries {
		m.latency.Observe(now.Sub(b.entries[i].at).Seconds())
	}
}

func (m *metrics) failed(err error) {
	for _, known := range []struct {
		err    error
		result string
	}{
		{eventlog.ErrBehindFailed, "behind_failed"}, {eventlog.ErrUnknownOutcome, "unknown_outcome"},
		{eventlog.ErrTooLarge, "too_large"}, {eventlog.ErrNoTopic, "no_topic"},
	} {
		if errors.Is(err, known.err) {
			m.appends.WithLabelValues(known.result).Inc()
			return
		}
	}
	m.appends.WithLabelValues("unavailable").Inc()
}
