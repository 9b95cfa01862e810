package history

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	messages   prometheus.Counter
	batches    prometheus.Counter
	duplicates prometheus.Counter
	differing  prometheus.Counter
	invalid    prometheus.Counter
	dead       prometheus.Counter
	fenced     prometheus.Counter
	retries    *prometheus.CounterVec
	seconds    prometheus.Histogram
	lag        *prometheus.GaugeVec
	halted     *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		messages:   counter("future_history_messages_total", "Messages stored, without duplicates."),
		batches:    counter("future_history_batches_total", "Transactions that stored a batch."),
		duplicates: counter("future_history_duplicates_total", "Messages whose identity was stored before."),
		differing:  counter("future_history_differing_total", "Duplicates with other content than what is stored."),
		invalid:    counter("future_history_invalid_total", "Messages passed over, since the sender's right to write had ended before them in the log."),
		dead:       counter("future_history_dead_records_total", "Records stored as they are, since they could not be read."),
		fenced:     counter("future_history_fenced_total", "Batches that another writer had stored before."),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "future_history_retries_total", Help: "What failed and was tried again, by what it was.",
		}, []string{"op"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "future_history_write_seconds", Help: "Time to store a batch.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "future_history_lag_records", Help: "Records of the log that are not in the database yet.",
		}, []string{"partition"}),
		halted: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "future_history_halted", Help: "1: the log is not the one that is remembered; an operator must decide.",
		}, []string{"partition"}),
	}
	for _, c := range []prometheus.Collector{m.messages, m.batches, m.duplicates, m.differing, m.invalid, m.dead, m.fenced, m.retries, m.seconds, m.lag, m.halted} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func label(partition int32) string { return strconv.Itoa(int(partition)) }
