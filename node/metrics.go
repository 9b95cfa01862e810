package node

import (
	"errors"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/groups"
)

type metrics struct {
	sessions  prometheus.Gauge
	requests  *prometheus.HistogramVec
	refused   *prometheus.CounterVec
	closed    *prometheus.CounterVec
	delivered prometheus.Counter
	leftOut   prometheus.Counter
	compares  prometheus.Counter
	forwards  *prometheus.CounterVec
	appends   prometheus.Histogram
	looks     *prometheus.CounterVec

	groupMessages *prometheus.CounterVec
	groupReads    prometheus.Counter
}

// countGroups adds what an index counted.
func (m *metrics) countGroups(s groups.Stats) {
	if s == (groups.Stats{}) {
		return
	}
	m.groupMessages.WithLabelValues("at_once").Add(float64(s.Messages - s.Held))
	m.groupMessages.WithLabelValues("held").Add(float64(s.Held))
	m.groupMessages.WithLabelValues("dropped").Add(float64(s.Dropped))
	m.groupReads.Add(float64(s.Reads))
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "future_node_sessions", Help: "Connections with a session.",
		}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "future_node_request_seconds", Help: "From the start of a request to its answer; sends up to the log's queue.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"request"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "future_node_errors_total", Help: "Errors answered to clients, by code.",
		}, []string{"code"}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "future_node_closed_total", Help: "Connections that the node ended, by reason.",
		}, []string{"reason"}),
		delivered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "future_node_delivered_total", Help: "Deliveries queued to connections.",
		}),
		leftOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "future_node_left_out_total", Help: "Deliveries left out for want of room; their clients compare heads.",
		}),
		compares: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "future_node_compares_total", Help: "Sessions told to compare heads.",
		}),
		forwards: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "future_node_forwards_total", Help: "Frames from routers, by what became of them.",
		}, []string{"status"}),
		appends: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "future_node_append_seconds", Help: "From handing a message to the log to its durable answer.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		looks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "future_node_looks_total", Help: "Messages in the log whose sender's right was looked at again, as the node had no lease throughout: allowed, ended, unknown.",
		}, []string{"result"}),
	}
	m.groupMessages = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "future_node_group_messages_total",
		Help: "Groups' messages: handed out at once, or once the group's members were read again; or dropped for too many waited: members compare heads.",
	}, []string{"result"})
	m.groupReads = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "future_node_group_reads_total", Help: "Reads of who of the people here is a member of a group.",
	})
	if r == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.sessions, m.requests, m.refused, m.closed, m.delivered, m.leftOut, m.compares, m.forwards, m.appends, m.groupMessages, m.groupReads, m.looks,
	} {
		errs = append(errs, r.Register(c))
	}
	return m, errors.Join(errs...)
}

// codeName bounds the label to the codes that this program knows.
func codeName(c pb.Code) string {
	if name, ok := pb.Code_name[int32(c)]; ok {
		return strings.TrimPrefix(name, "CODE_")
	}
	return "other"
}
