package tcpgate

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	refused   *prometheus.CounterVec
	closed    *prometheus.CounterVec
	dropped   *prometheus.CounterVec
	framesIn  prometheus.Counter
	bytesIn   prometheus.Counter
	framesOut prometheus.Counter
	bytesOut  prometheus.Counter
	blocked   prometheus.Counter
	restarts  prometheus.Counter
	longTurns prometheus.Counter

	longest atomic.Int64 // turn in nanoseconds, since the last look
}

// longTurn is a turn during which other connections of the loop wait noticeably.
const longTurn = int64(5 * time.Millisecond)

// turned notes how long a turn of a loop took.
func (m *metrics) turned(d int64) {
	if d >= longTurn {
		m.longTurns.Inc()
	}
	for {
		most := m.longest.Load()
		if d <= most || m.longest.CompareAndSwap(most, d) {
			return
		}
	}
}

// Reasons of frames_dropped_total.
const (
	dropOverBudget = "over_budget" // the connection's queue was full
	dropClosed     = "closed"      // still queued when the connection ended
)

func newMetrics(reg prometheus.Registerer, connections func() float64) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "future_gate", Name: name, Help: help})
	}
	byReason := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "future_gate", Name: name, Help: help}, []string{"reason"})
	}
	m := &metrics{
		refused:   byReason("connections_refused_total", "Connections closed as soon as they were accepted."),
		closed:    byReason("connections_closed_total", "Connections that ended."),
		dropped:   byReason("frames_dropped_total", "Outgoing frames that were not written."),
		framesIn:  counter("frames_received_total", "Frames read from clients."),
		bytesIn:   counter("received_bytes_total", "Bytes read from clients."),
		framesOut: counter("frames_sent_total", "Frames written to clients' sockets."),
		bytesOut:  counter("sent_bytes_total", "Bytes written to clients' sockets."),
		blocked:   counter("writes_blocked_total", "Times a socket took less than was queued for it."),
		longTurns: counter("long_turns_total", "Turns of an event loop of 5 ms and more, during which its other connections wait."),
		restarts:  counter("loop_restarts_total", "Event loops that failed and were served again."),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.refused, m.closed, m.dropped, m.framesIn, m.bytesIn, m.framesOut, m.bytesOut, m.blocked, m.restarts, m.longTurns,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "future_gate", Name: "longest_turn_seconds", Help: "The longest turn of an event loop since this was last asked for.",
		}, func() float64 { return time.Duration(m.longest.Swap(0)).Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "future_gate", Name: "connections", Help: "Open connections."}, connections),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("tcpgate: metrics: %w", err)
		}
	}
	return m, nil
}
