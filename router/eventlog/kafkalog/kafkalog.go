package kafkalog

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/futurechat/future/router/eventlog"
)

// Options configure a Log.
type Options struct {
	// Brokers are addresses, host:port, to find the cluster by. Required.
	Brokers []string
	// ClientID names this process in the brokers' logs and quotas. Default "future".
	ClientID string
	// TLS, if not nil, is used on all connections.
	TLS *tls.Config
	// Dial connects to a broker. Default a net.Dialer with 3 s.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger gets what an operator can act on; nil drops it.
	Logger *zap.Logger
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
	// MaxRecords, MaxBytes bound appends not yet answered. Defaults 65,536 and 64 MiB.
	MaxRecords int
	MaxBytes   int
	// MaxRecordBytes is the largest Entry.Size accepted. Default 1,000,000. A topic's max.message.bytes must be larger by 61;
	// CreateTopic sees to it.
	MaxRecordBytes int
	// MaxBatch is the largest number of records that one Next gives. Default 512.
	MaxBatch int
	// Patience is how long after its Append a record is tried before it fails, and lookups before they give up. A try that is
	// under way then is waited for, 3 s at most. Default 30 s.
	Patience time.Duration
}

func (o *Options) setDefaults() {
	if o.ClientID == "" {
		o.ClientID = "future"
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: requestTimeout}).DialContext
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	o.MaxRecords = cmp.Or(o.MaxRecords, 65_536)
	o.MaxBytes = cmp.Or(o.MaxBytes, 64<<20)
	o.MaxRecordBytes = cmp.Or(o.MaxRecordBytes, 1_000_000)
	o.MaxBatch = cmp.Or(o.MaxBatch, 512)
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
}

const (
	// requestTimeout bounds one try of a request that waits for replicas.
	requestTimeout = 3 * time.Second
	// lookupTimeout bounds one try of a request that any broker can answer from memory. Short, since the next broker may do.
	lookupTimeout = time.Second
	// brokersTTL is the longest time after which the Transport asks for the list of brokers again. It also bounds that request.
	brokersTTL = 500 * time.Millisecond
)

// Log is an eventlog.Log on Kafka. Make it with New.
type Log struct {
	// set at start
	opts      Options
	addr      net.Addr
	transport *kafka.Transport
	conns     *connections
	metrics   *metrics
	ctx       context.Context // ends when Close has waited enough
	cancel    context.CancelFunc

	turn   atomic.Uint32 // whose turn it is to answer a lookup
	asking singleflight.Group

	mu           sync.Mutex
	partitions   map[partitionID]*partition
	brokers      map[int32]*broker
	unrouted     []*partition
	producer     stamp // what partitions without one begin with; its id is -1 before it is known
	records      int   // appended and not yet answered
	bytes        int   // of those
	closed       bool  // no more appends
	ended        bool  // workers are to end
	topics       map[string]*topicInfo
	coordinators map[string]int32 // of groups, by id of the broker

	wake    chan struct{} // for the router
	emptied chan struct{} // closed once closed is set and records is 0
	down    chan struct{} // closed at the end of Close
	workers sync.WaitGroup
	readers sync.WaitGroup
}

var _ eventlog.Log = (*Log)(nil)

// New makes a Log. It does not need a broker to be there: Topic tells whether one is. Close it in the end.
func New(opts Options) (*Log, error) {
	if len(opts.Brokers) == 0 {
		return nil, errors.New("kafkalog: no brokers given")
	}
	for _, b := range opts.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			return nil, fmt.Errorf("kafkalog: broker %q: %w", b, err)
		}
	}
	opts.setDefaults()
	l := &Log{
		opts:         opts,
		addr:         kafka.TCP(opts.Brokers...),
		conns:        newConnections(opts.Dial),
		partitions:   make(map[partitionID]*partition),
		brokers:      make(map[int32]*broker),
		producer:     stamp{producer: -1},
		topics:       make(map[string]*topicInfo),
		coordinators: make(map[string]int32),
		wake:         make(chan struct{}, 1),
		emptied:      make(chan struct{}),
		down:         make(chan struct{}),
	}
	var err error
	if l.metrics, err = newMetrics(opts.Registerer, l); err != nil {
		return nil, fmt.Errorf("kafkalog: metrics: %w", err)
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.transport = &kafka.Transport{
		Dial:        l.conns.Dial,
		DialTimeout: requestTimeout,
		ClientID:    opts.ClientID,
		TLS:         opts.TLS,
		MetadataTTL: brokersTTL,
		// Only brokers: the topics are ours to know. nil would ask for all topics of the cluster, again and again.
		MetadataTopics: []string{},
	}
	l.workers.Go(l.route)
	return l, nil
}

// Append implements eventlog.Log.
func (l *Log) Append(e eventlog.Entry, done func(eventlog.Appended, error)) error {
	a := pending{entry: e, done: done, size: e.Size(), at: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return eventlog.ErrClosed
	}
	if a.size > l.opts.MaxRecordBytes {
		return fmt.Errorf("%w: %d bytes of at most %d", eventlog.ErrTooLarge, a.size, l.opts.MaxRecordBytes)
	}
	p := l.partitionLocked(partitionID{e.Topic, e.Partition})
	if p.failing {
		return eventlog.ErrBehindFailed
	}
	if l.records+1 > l.opts.MaxRecords || l.bytes+a.size > l.opts.MaxBytes {
		return eventlog.ErrBacklog
	}
	l.records++
	l.bytes += a.size
	p.queue = append(p.queue, a)
	if p.state == idle {
		l.readyLocked(p)
	}
	return nil
}

// forgetLocked takes answered appends out of the bounds' count.
func (l *Log) forgetLocked(appends []pending) {
	for i := range appends {
		l.records--
		l.bytes -= appends[i].size
	}
	if l.closed && l.records == 0 && len(appends) > 0 {
		close(l.emptied)
	}
}

// Close implements eventlog.Log.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	if !again && l.records == 0 {
		close(l.emptied)
	}
	l.mu.Unlock()
	if again {
		<-l.down // so that here, too, every done was called
		return nil
	}

	var err error
	select {
	case <-l.emptied:
	case <-ctx.Done():
		// Both may have come at once.
		select {
		case <-l.emptied:
		default:
			err = fmt.Errorf("kafkalog: close: %w", ctx.Err())
		}
	}
	l.cancel()
	l.mu.Lock()
	l.ended = true
	for _, b := range l.brokers {
		b.idle.Broadcast()
	}
	l.mu.Unlock()
	l.workers.Wait()
	l.failLeft()
	l.readers.Wait()
	l.conns.close()
	l.transport.CloseIdleConnections()
	l.metrics.unregister()
	close(l.down)
	return err
}

// failLeft fails what workers and router have left, when they have ended.
func (l *Log) failLeft() {
	l.mu.Lock()
	var left []*partition
	for _, p := range l.partitions {
		if p.batch != nil || len(p.queue) > 0 {
			left = append(left, p)
		}
	}
	l.mu.Unlock()
	for _, p := range left {
		l.fail(p, eventlog.ErrClosed)
	}
}

// exchange sends a message and waits for its answer.
func (l *Log) exchange(ctx context.Context, m protocol.Message) (protocol.Message, error) {
	if l.ctx.Err() != nil {
		return nil, eventlog.ErrClosed
	}
	res, err := l.transport.RoundTrip(ctx, l.addr, m)
	if err != nil && l.ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", eventlog.ErrClosed, err)
	}
	return res, err
}

// raw is the beginning of a message to a broker; a negative one leaves it to whose turn it is.
func (l *Log) raw(key protocol.ApiKey, broker int32) raw {
	return raw{key: key, clientID: l.opts.ClientID, to: target{broker, l.turn.Add(1)}}
}

// connections are those that are open, so that Close ends them, whatever a broker is still to answer on them.
type connections struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	open   map[*connection]struct{}
	closed bool
}

type connection struct {
	net.Conn
	all *connections
}

func newConnections(dial func(ctx context.Context, network, address string) (net.Conn, error)) *connections {
	return &connections{dial: dial, open: make(map[*connection]struct{})}
}

// Dial opens a connection.
func (c *connections) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tracked := &connection{conn, c}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.open[tracked] = struct{}{}
	}
	c.mu.Unlock()
	if closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	return tracked, nil
}

// Close closes the connection.
func (c *connection) Close() error {
	c.all.mu.Lock()
	delete(c.all.open, c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

func (c *connections) close() {
	c.mu.Lock()
	c.closed = true
	open := c.open
	c.open = nil
	c.mu.Unlock()
	for conn := range open {
		_ = conn.Conn.Close() // nothing is to come on it
	}
}
