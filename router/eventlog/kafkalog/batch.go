package kafkalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/segmentio/kafka-go/compress"

	"github.com/futurechat/future/router/eventlog"
)

// The record batch, magic 2, as in https://kafka.apache.org/documentation/#recordbatch. It is written here because
// kafka-go cannot write a producer's id and sequence, and read here because kafka-go takes a record's time from the producer's
// stamp even where the broker has put its own (LogAppendTime).
const (
	batchHeader = 61 // bytes from base offset to record count
	batchPrefix = 12 // base offset and length, which the length does not count

	attrCompression   = 0x07
	attrLogAppendTime = 0x08
	attrControl       = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp is who writes a batch and as which number, so that the broker can tell a retry from a new batch.
type stamp struct {
	producer int64
	epoch    int16
	sequence int32
}

// encodeBatch writes an uncompressed batch. All records get the time now.
func encodeBatch(entries []pending, s stamp, now time.Time) []byte {
	size := batchHeader
	for i := range entries {
		size += entries[i].size
	}
	be := binary.BigEndian
	b := make([]byte, batchHeader, size)
	ms := uint64(now.UnixMilli())
	be.PutUint32(b[12:], ^uint32(0)) // leader epoch: the broker's
	b[16] = 2                        // magic
	be.PutUint32(b[23:], uint32(len(entries)-1))
	be.PutUint64(b[27:], ms)
	be.PutUint64(b[35:], ms)
	be.PutUint64(b[43:], uint64(s.producer))
	be.PutUint16(b[51:], uint16(s.epoch))
	be.PutUint32(b[53:], uint32(s.sequence))
	be.PutUint32(b[57:], uint32(len(entries)))
	for i := range entries {
		b = appendRecord(b, i, &entries[i].entry)
	}
	be.PutUint32(b[8:], uint32(len(b)-batchPrefix))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

func appendRecord(b []byte, delta int, e *eventlog.Entry) []byte {
	size := 2 + varintLen(int64(delta)) + bytesLen(e.Key) + bytesLen(e.Value) + varintLen(int64(len(e.Headers)))
	for _, h := range e.Headers {
		size += varintLen(int64(len(h.Key))) + len(h.Key) + bytesLen(h.Value)
	}
	b = binary.AppendVarint(b, int64(size))
	b = append(b, 0, 0) // attributes, time delta
	b = binary.AppendVarint(b, int64(delta))
	b = appendBytes(b, e.Key)
	b = appendBytes(b, e.Value)
	b = binary.AppendVarint(b, int64(len(e.Headers)))
	for _, h := range e.Headers {
		b = binary.AppendVarint(b, int64(len(h.Key)))
		b = append(b, h.Key...)
		b = appendBytes(b, h.Value)
	}
	return b
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(b, -1)
	}
	b = binary.AppendVarint(b, int64(len(v)))
	return append(b, v...)
}

func bytesLen(v []byte) int {
	if v == nil {
		return 1
	}
	return varintLen(int64(len(v))) + len(v)
}

func varintLen(v int64) int {
	u := uint64(v<<1) ^ uint64(v>>63)
	n := 1
	for ; u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

var errCorrupt = errors.New("corrupt record batch")

// maxInflated bounds what a compressed batch may grow to.
const maxInflated = 64 << 20

// decodeBatches reads the records of a partition from offset from on, and gives the offset that is due next. The broker
// answers whole batches, so the first may begin below from, and the last may be cut off. A hole in the offsets, other than
// where a control batch stands, is eventlog.ErrOutOfRange, after the records before it.
func decodeBatches(b []byte, partition int32, from int64) (records []eventlog.Record, next int64, err error) {
	next = from
	for len(b) >= batchPrefix {
		base, size := int64(binary.BigEndian.Uint64(b)), int(int32(binary.BigEndian.Uint32(b[8:])))
		if size < batchHeader-batchPrefix {
			return records, next, fmt.Errorf("%w: length %d", errCorrupt, size)
		}
		if size > len(b)-batchPrefix {
			break
		}
		batch := b[:batchPrefix+size]
		b = b[batchPrefix+size:]
		if batch[16] != 2 {
			return records, next, fmt.Errorf("%w: magic %d", errCorrupt, batch[16])
		}
		if crc32.Checksum(batch[21:], castagnoli) != binary.BigEndian.Uint32(batch[17:]) {
			return records, next, fmt.Errorf("%w: checksum", errCorrupt)
		}
		last := base + int64(int32(binary.BigEndian.Uint32(batch[23:])))
		if last < next {
			continue
		}
		if base > next {
			return records, next, fmt.Errorf("%w: records from %d to %d are missing", eventlog.ErrOutOfRange, next, base-1)
		}
		if binary.BigEndian.Uint16(batch[21:])&attrControl != 0 {
			next = last + 1
			continue
		}
		if records, next, err = decodeBatch(batch, partition, base, next, records); err != nil {
			return records, next, err
		}
		if next != last+1 {
			return records, next, fmt.Errorf("%w: records from %d to %d are missing", eventlog.ErrOutOfRange, next, last)
		}
	}
	return records, next, nil
}

func decodeBatch(batch []byte, partition int32, base, next int64, into []eventlog.Record) ([]eventlog.Record, int64, error) {
	be := binary.BigEndian
	attrs := be.Uint16(batch[21:])
	first, latest := int64(be.Uint64(batch[27:])), int64(be.Uint64(batch[35:]))
	count := int(int32(be.Uint32(batch[57:])))
	body := batch[batchHeader:]
	if c := compress.Compression(attrs & attrCompression); c != compress.None {
		var err error
		if body, err = inflate(c, body); err != nil {
			return into, next, err
		}
	}
	all := decoder{b: body}
	for range count {
		d := decoder{b: all.sized()}
		d.take(1) // attributes
		ms := first + d.varint()
		if attrs&attrLogAppendTime != 0 {
			ms = latest
		}
		r := eventlog.Record{Partition: partition, Offset: base + d.varint(), Time: time.UnixMilli(ms)}
		r.Key, r.Value = d.sized(), d.sized()
		headers := d.varint()
		if headers < 0 || headers > int64(len(d.b)) {
			return into, next, errCorrupt
		}
		for range headers {
			key := string(d.sized())
			r.Headers = append(r.Headers, eventlog.Header{Key: key, Value: d.sized()})
		}
		if d.err != nil || all.err != nil {
			return into, next, errCorrupt
		}
		if r.Offset < next {
			continue
		}
		if r.Offset > next {
			return into, next, fmt.Errorf("%w: records from %d to %d are missing", eventlog.ErrOutOfRange, next, r.Offset-1)
		}
		into = append(into, r)
		next++
	}
	return into, next, nil
}

func inflate(c compress.Compression, b []byte) ([]byte, error) {
	codec := c.Codec()
	if codec == nil {
		return nil, fmt.Errorf("%w: compression %d", errCorrupt, c)
	}
	r := codec.NewReader(bytes.NewReader(b))
	defer func() { _ = r.Close() }() // a reader of memory
	out, err := io.ReadAll(io.LimitReader(r, maxInflated+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if len(out) > maxInflated {
		return nil, fmt.Errorf("%w: over %d bytes", errCorrupt, maxInflated)
	}
	return out, nil
}
