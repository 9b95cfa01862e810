package kafkalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/rawproduce"
)

// Each message here speaks for itself on a connection of kafka-go's Transport (protocol.RawExchanger), which still does the
// dialing, TLS, version negotiation and pooling. The Transport knows brokers but no topics: who leads what is ours to know,
// so every message says which broker it goes to.

// correlation is the same for all: the Transport lends a connection to one request at a time.
const correlation = 1

var errAbandoned = errors.New("given up before it was sent")

// raw is what all messages share. A message is used once.
type raw struct {
	key      protocol.ApiKey
	clientID string
	to       target
	version  int16 // as negotiated on the connection
}

// target is the broker with this id, or if that is negative whichever has its turn: so tries go round the brokers, and one that
// takes connections but does not answer is passed by.
type target struct {
	broker int32
	turn   uint32
}

func (m *raw) ApiKey() protocol.ApiKey { return m.key }

func (m *raw) Required(versions map[protocol.ApiKey]int16) bool {
	m.version = versions[m.key]
	return true
}

func (m *raw) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	if m.to.broker >= 0 {
		return protocol.Broker{ID: m.to.broker}, nil
	}
	if len(cluster.Brokers) == 0 {
		return protocol.Broker{ID: -1}, nil // the Transport takes one of the addresses that it was given
	}
	ids := slices.Sorted(maps.Keys(cluster.Brokers))
	return protocol.Broker{ID: ids[int(m.to.turn%uint32(len(ids)))]}, nil
}

// call is a message in kafka-go's own coding.
type call struct {
	raw
	req protocol.Message
}

// callAnswer wraps the answer, since the Transport goes on to wait for its own metadata when it sees one to CreateTopics.
type callAnswer struct {
	raw
	res protocol.Message
}

func (m *call) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	res, err := protocol.RoundTrip(rw, m.version, correlation, m.clientID, m.req)
	if err != nil {
		return nil, err
	}
	return &callAnswer{raw{key: m.key}, res}, nil
}

// produceMessage is a produce request to one broker. It knows whether a byte of it may have left.
type produceMessage struct {
	raw
	req   rawproduce.Request
	state atomic.Int32
}

const (
	produceWaiting int32 = iota
	produceSent
	produceAbandoned
)

func (m *produceMessage) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if !m.state.CompareAndSwap(produceWaiting, produceSent) {
		return nil, errAbandoned
	}
	return protocol.RoundTrip(rw, m.version, correlation, m.clientID, &m.req)
}

// abandon makes sure that the message will not be sent from now on, and reports whether it never was.
func (m *produceMessage) abandon() bool {
	return m.state.CompareAndSwap(produceWaiting, produceAbandoned) || m.state.Load() == produceAbandoned
}

// recordSet is a batch as it stands in a produce request: behind its length.
func recordSet(batch []byte) protocol.RawRecordSet {
	size := binary.BigEndian.AppendUint32(nil, uint32(len(batch)))
	return protocol.RawRecordSet{Reader: io.MultiReader(bytes.NewReader(size), bytes.NewReader(batch))}
}

// boundsMessage asks a partition's leader for its first and its next offset. Kafka refuses both in one request.
type boundsMessage struct {
	raw
	topic     string
	partition int32
}

type boundsAnswer struct {
	raw
	code       int16
	start, end int64
}

func (m *boundsMessage) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	a := &boundsAnswer{raw: raw{key: protocol.ListOffsets}}
	for _, ask := range []struct {
		timestamp int64
		into      *int64
	}{{-2, &a.start}, {-1, &a.end}} {
		res, err := protocol.RoundTrip(rw, m.version, correlation, m.clientID, &listoffsets.Request{
			ReplicaID: -1,
			Topics: []listoffsets.RequestTopic{{Topic: m.topic, Partitions: []listoffsets.RequestPartition{
				{Partition: m.partition, CurrentLeaderEpoch: -1, Timestamp: ask.timestamp},
			}}},
		})
		if err != nil {
			return nil, err
		}
		r, ok := res.(*listoffsets.Response)
		if !ok || len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
			return nil, fmt.Errorf("%w: offsets of other partitions", errAnswer)
		}
		p := r.Topics[0].Partitions[0]
		if a.code = p.ErrorCode; a.code != 0 {
			return a, nil
		}
		*ask.into = p.Offset
	}
	return a, nil
}

// fetchMessage reads one partition; the batches come back as they are.
type fetchMessage struct {
	raw
	req fetch.Request
}

type fetchAnswer struct {
	raw
	code    int16
	start   int64 // of the log; -1 if not told
	end     int64 // high watermark
	batches []byte
}

func (m *fetchMessage) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if err := protocol.WriteRequest(rw, m.version, correlation, m.clientID, &m.req); err != nil {
		return nil, err
	}
	b, err := readAnswer(rw)
	if err != nil {
		return nil, err
	}
	return decodeFetch(b, m.version)
}

// decodeFetch reads the answer to a fetch of one partition, versions 4 to 11.
func decodeFetch(b []byte, version int16) (*fetchAnswer, error) {
	d := &decoder{b: b}
	a := &fetchAnswer{raw: raw{key: protocol.Fetch}, start: -1}
	d.int32() // throttle
	if version >= 7 {
		if a.code = d.int16(); a.code != 0 && d.err == nil {
			return a, nil
		}
		d.int32() // session
	}
	if topics := d.int32(); topics != 1 {
		return nil, fmt.Errorf("%w: %d topics", errAnswer, topics)
	}
	d.string()
	if partitions := d.int32(); partitions != 1 {
		return nil, fmt.Errorf("%w: %d partitions", errAnswer, partitions)
	}
	d.int32() // partition
	a.code = d.int16()
	a.end = d.int64()
	d.int64() // last stable offset
	if version >= 5 {
		a.start = d.int64()
	}
	for aborted := d.int32(); aborted > 0 && d.err == nil; aborted-- {
		d.take(16)
	}
	if version >= 11 {
		d.int32() // preferred replica
	}
	a.batches = d.take(max(0, int(d.int32())))
	if d.err != nil {
		return nil, d.err
	}
	return a, nil
}

// maxAnswer bounds an answer that we read ourselves.
const maxAnswer = 128 << 20

var errAnswer = errors.New("malformed answer")

// readAnswer reads a whole answer, and gives what follows the correlation id.
func readAnswer(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := int(int32(binary.BigEndian.Uint32(head[:])))
	if size < 4 || size > maxAnswer {
		return nil, fmt.Errorf("%w: %d bytes", errAnswer, size)
	}
	if id := binary.BigEndian.Uint32(head[4:]); id != correlation {
		return nil, fmt.Errorf("%w: to request %d", errAnswer, id)
	}
	b := make([]byte, size-4)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, nil
}

// topicMessage is Metadata version 10 (Kafka 2.8), the first to tell a topic's id, which kafka-go does not speak.
type topicMessage struct {
	raw
	topic string
}

type topicAnswer struct {
	raw
	code        int16
	id          [16]byte
	leaders     []int32 // by partition; -1 for none at present
	replication int
	brokers     []int32 // of the cluster
}

func (m *topicMessage) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	be := binary.BigEndian
	b := make([]byte, 4, 64+len(m.clientID)+len(m.topic))
	b = be.AppendUint16(b, uint16(protocol.Metadata))
	b = be.AppendUint16(b, 10)
	b = be.AppendUint32(b, correlation)
	b = be.AppendUint16(b, uint16(len(m.clientID)))
	b = append(b, m.clientID...)
	b = append(b, 0)                   // header tags
	b = append(b, 2)                   // one topic
	b = append(b, make([]byte, 16)...) // id: by name
	b = binary.AppendUvarint(b, uint64(len(m.topic))+1)
	b = append(b, m.topic...)
	b = append(b, 0)       // topic tags
	b = append(b, 0, 0, 0) // create it, tell cluster's and topic's operations: no
	b = append(b, 0)       // tags
	be.PutUint32(b, uint32(len(b)-4))
	if _, err := rw.Write(b); err != nil {
		return nil, err
	}
	answer, err := readAnswer(rw)
	if err != nil {
		return nil, err
	}
	return decodeTopic(answer, m.topic)
}

// maxPartitions bounds the partitions of a topic that we believe an answer.
const maxPartitions = 1 << 20

func decodeTopic(b []byte, topic string) (*topicAnswer, error) {
	d := &decoder{b: b}
	a := &topicAnswer{raw: raw{key: protocol.Metadata}, code: codeUnknownTopic}
	d.tags()
	d.int32() // throttle
	for n := d.uvarint() - 1; n > 0 && d.err == nil; n-- {
		a.brokers = append(a.brokers, d.int32())
		d.compact()
		d.int32()
		d.compact()
		d.tags()
	}
	d.compact() // cluster
	d.int32()   // controller
	for n := d.uvarint() - 1; n > 0 && d.err == nil; n-- {
		t := decodeOneTopic(d)
		if t.name == topic {
			a.code, a.id, a.leaders, a.replication = t.code, t.id, t.leaders, t.replication
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	return a, nil
}

type oneTopic struct {
	name        string
	code        int16
	id          [16]byte
	leaders     []int32
	replication int
}

func decodeOneTopic(d *decoder) (t oneTopic) {
	t.code, t.name = d.int16(), d.compact()
	copy(t.id[:], d.take(16))
	d.take(1) // internal
	for p := d.uvarint() - 1; p > 0 && d.err == nil; p-- {
		d.int16() // code: that there is no leader is told by its id too
		index, leader := d.int32(), d.int32()
		d.int32() // epoch
		replicas := max(0, d.uvarint()-1)
		d.take(4 * replicas)
		d.take(4 * max(0, d.uvarint()-1)) // in sync
		d.take(4 * max(0, d.uvarint()-1)) // offline
		d.tags()
		if index < 0 || index >= maxPartitions {
			d.take(-1)
			return t
		}
		for int(index) >= len(t.leaders) {
			t.leaders = append(t.leaders, -1)
		}
		t.leaders[index] = leader
		t.replication = max(t.replication, replicas)
	}
	d.int32() // operations
	d.tags()
	return t
}
