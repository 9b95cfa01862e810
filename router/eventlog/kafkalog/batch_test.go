package kafkalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/futurechat/future/router/eventlog"
)

var someTime = time.UnixMilli(1_700_000_000_123)

// someEntries have all that can make a difference in the coding: nil and empty, short and long, headers.
func someEntries() []eventlog.Entry {
	return []eventlog.Entry{
		{Value: []byte("no key")},
		{Key: []byte("no value")},
		{Key: []byte{}, Value: []byte{}},
		{Key: []byte{0, 255}, Value: bytes.Repeat([]byte("long "), 50_000)},
		{Key: []byte("k"), Value: []byte("v"), Headers: []eventlog.Header{{Key: "a", Value: []byte("1")}, {Key: "b"}, {Key: "", Value: []byte{}}}},
	}
}

func appends(entries ...eventlog.Entry) (all []pending) {
	for _, e := range entries {
		all = append(all, pending{entry: e, size: e.Size()})
	}
	return all
}

func TestEncodeBatch_KafkaGoReadsIt(t *testing.T) {
	entries := someEntries()
	b := encodeBatch(appends(entries...), stamp{producer: 7, epoch: 3, sequence: 11}, someTime)
	var set protocol.RecordSet
	if _, err := set.ReadFrom(bytes.NewBuffer(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))); err != nil {
		t.Fatal(err)
	}
	stream, ok := set.Records.(*protocol.RecordStream)
	if !ok || len(stream.Records) != 1 {
		t.Fatalf("read as %T", set.Records)
	}
	batch, ok := stream.Records[0].(*protocol.RecordBatch)
	if !ok || batch.ProducerID != 7 || batch.ProducerEpoch != 3 || batch.BaseSequence != 11 || batch.Attributes != 0 {
		t.Fatalf("read as %+v", stream.Records[0])
	}
	for i, e := range entries {
		r, err := set.Records.ReadRecord()
		if err != nil {
			t.Fatal(err)
		}
		key, value := readAll(t, r.Key), readAll(t, r.Value)
		if r.Offset != int64(i) || !r.Time.Equal(someTime) || !reflect.DeepEqual(key, e.Key) || !reflect.DeepEqual(value, e.Value) {
			t.Errorf("record %d: %d %v %q %.40q", i, r.Offset, r.Time, key, value)
		}
		if len(r.Headers) != len(e.Headers) {
			t.Fatalf("record %d: headers %v", i, r.Headers)
		}
		for j, h := range r.Headers {
			if h.Key != e.Headers[j].Key || !bytes.Equal(h.Value, e.Headers[j].Value) {
				t.Errorf("record %d: headers %v", i, r.Headers)
			}
		}
	}
	if _, err := set.Records.ReadRecord(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last: %v", err)
	}
}

func readAll(t *testing.T, b protocol.Bytes) []byte {
	t.Helper()
	if b == nil {
		return nil
	}
	all, err := protocol.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// An entry's size is what the bounds of a batch are counted in, so it must never be less than what is written.
func TestEncodeBatch_NoLargerThanEntriesSay(t *testing.T) {
	size := batchHeader
	for _, e := range someEntries() {
		size += e.Size()
	}
	if n := len(encodeBatch(appends(someEntries()...), stamp{}, someTime)); n > size {
		t.Errorf("%d bytes, counted as %d", n, size)
	}
}

func TestDecodeBatches_ReadsWhatWasEncoded(t *testing.T) {
	entries := someEntries()
	b := encodeBatch(appends(entries...), stamp{}, someTime)
	records, next, err := decodeBatches(b, 4, 0)
	if err != nil || next != int64(len(entries)) || len(records) != len(entries) {
		t.Fatalf("%d records, next %d, %v", len(records), next, err)
	}
	for i, r := range records {
		e := entries[i]
		if r.Partition != 4 || r.Offset != int64(i) || !r.Time.Equal(someTime) ||
			!reflect.DeepEqual(r.Key, e.Key) || !reflect.DeepEqual(r.Value, e.Value) || !reflect.DeepEqual(r.Headers, e.Headers) {
			t.Errorf("record %d: %+v", i, r)
		}
	}
}

func TestDecodeBatches_ReadsCompressed(t *testing.T) {
	for _, c := range []protocol.Attributes{protocol.Gzip, protocol.Snappy, protocol.Lz4, protocol.Zstd} {
		b := compressed(t, c)
		records, next, err := decodeBatches(b, 0, 1)
		if err != nil || next != 3 || len(records) != 2 {
			t.Fatalf("%v: %d records, next %d, %v", c, len(records), next, err)
		}
		if got := string(records[1].Value); got != strings.Repeat("c", 1000) {
			t.Errorf("%v: %.40q", c, got)
		}
	}
}

// compressed is a batch of three records as kafka-go writes it.
func compressed(t testing.TB, c protocol.Attributes) []byte {
	t.Helper()
	var records []protocol.Record
	for _, v := range []string{"a", "b", "c"} {
		records = append(records, protocol.Record{Value: protocol.NewBytes([]byte(strings.Repeat(v, 1000)))})
	}
	set := protocol.RecordSet{Version: 2, Attributes: c, Records: protocol.NewRecordReader(records...)}
	var b bytes.Buffer
	if _, err := set.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()[4:]
}

// batchAt is a batch of n records from an offset on, with the attributes and the times as a broker writes them.
func batchAt(base int64, n int, attributes uint16, latest time.Time) []byte {
	var entries []eventlog.Entry
	for i := range n {
		entries = append(entries, eventlog.Entry{Value: fmt.Append(nil, base+int64(i))})
	}
	b := encodeBatch(appends(entries...), stamp{}, someTime)
	binary.BigEndian.PutUint64(b, uint64(base))
	binary.BigEndian.PutUint16(b[21:], attributes)
	binary.BigEndian.PutUint64(b[35:], uint64(latest.UnixMilli()))
	sign(b)
	return b
}

// sign puts a batch's checksum right.
func sign(b []byte) {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
}

func TestDecodeBatches(t *testing.T) {
	later := someTime.Add(time.Hour)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	a, b := batchAt(10, 3, 0, someTime), batchAt(13, 2, 0, someTime)
	wrong := bytes.Clone(b)
	wrong[len(wrong)-1]++
	holed := batchAt(10, 3, 0, someTime)
	binary.BigEndian.PutUint32(holed[23:], 5) // it ends at 15, as after compaction
	sign(holed)
	for _, c := range []struct {
		name  string
		bytes []byte
		from  int64
		want  int64 // the offset that is due next
		err   error
		time  time.Time
	}{
		{"from the beginning", join(a, b), 10, 15, nil, someTime},
		{"from within a batch", join(a, b), 12, 15, nil, someTime},
		{"batch before is passed over", join(a, b), 13, 15, nil, someTime},
		{"last is cut off", join(a, b[:len(b)-1]), 10, 13, nil, someTime},
		{"header is cut off", join(a, b[:5]), 10, 13, nil, someTime},
		{"nothing", nil, 10, 10, nil, someTime},
		{"hole before", join(a, b), 9, 9, eventlog.ErrOutOfRange, someTime},
		{"hole between", join(a, batchAt(14, 1, 0, someTime)), 10, 13, eventlog.ErrOutOfRange, someTime},
		{"hole at a batch's end", holed, 10, 13, eventlog.ErrOutOfRange, someTime},
		{"control batch is passed over", join(a, batchAt(13, 1, attrControl, someTime), batchAt(14, 1, 0, someTime)), 10, 15, nil, someTime},
		{"broker's time counts", batchAt(10, 3, attrLogAppendTime, later), 10, 13, nil, later},
		{"checksum", join(a, wrong), 10, 13, errCorrupt, someTime},
	} {
		t.Run(c.name, func(t *testing.T) {
			records, next, err := decodeBatches(c.bytes, 0, c.from)
			if next != c.want || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("next %d, %v, want %d, %v", next, err, c.want, c.err)
			}
			at := c.from
			for _, r := range records {
				if r.Offset == 13 && c.name == "control batch is passed over" {
					t.Fatal("got the control record")
				}
				if string(r.Value) != fmt.Sprint(r.Offset) || r.Offset < at || !r.Time.Equal(c.time) {
					t.Fatalf("got %+v at %d", r, at)
				}
				at = r.Offset + 1
			}
			if at != c.want {
				t.Fatalf("records end at %d, want %d", at, c.want)
			}
		})
	}
}
