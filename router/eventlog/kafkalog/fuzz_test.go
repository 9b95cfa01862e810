package kafkalog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/futurechat/future/router/eventlog"
)

func FuzzDecodeBatches(f *testing.F) {
	f.Add(encodeBatch(appends(someEntries()[:3]...), stamp{1, 2, 3}, someTime), int64(0), false)
	f.Add(bytes.Join([][]byte{batchAt(10, 3, 0, someTime), batchAt(13, 1, attrControl, someTime), batchAt(14, 2, attrLogAppendTime, someTime)}, nil), int64(11), false)
	f.Add(batchAt(10, 3, 0, someTime)[:70], int64(10), true)
	f.Add(compressed(f, protocol.Gzip), int64(0), true)
	f.Add(compressed(f, protocol.Snappy), int64(0), true)
	f.Add(compressed(f, protocol.Lz4), int64(0), true)
	f.Add(compressed(f, protocol.Zstd), int64(0), true)
	f.Fuzz(func(t *testing.T, b []byte, from int64, signed bool) {
		if from < 0 || from > 1<<62 {
			return
		}
		// Without this nothing that the fuzzer changes would get past the checksum.
		if b = bytes.Clone(b); signed && len(b) >= batchHeader {
			binary.BigEndian.PutUint32(b[8:], uint32(len(b)-batchPrefix))
			b[16] = 2
			sign(b)
		}
		records, next, err := decodeBatches(b, 1, from)
		if next < from {
			t.Fatalf("from %d back to %d", from, next)
		}
		at := from - 1
		for _, r := range records {
			if r.Offset <= at || r.Offset >= next {
				t.Fatalf("record %d after %d, next %d", r.Offset, at, next)
			}
			at = r.Offset
		}
		if err != nil && !errors.Is(err, errCorrupt) && !errors.Is(err, eventlog.ErrOutOfRange) {
			t.Fatalf("unexpected kind of error: %v", err)
		}
	})
}

// someFetch is a fetch answer of a version, as a broker writes it behind the correlation id.
func someFetch(version int16, batches []byte) []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, 0)
	if version >= 7 {
		b = be.AppendUint16(b, 0)
		b = be.AppendUint32(b, 0)
	}
	b = be.AppendUint32(b, 1)
	b = append(b, 0, 1, 't')
	b = be.AppendUint32(b, 1)
	b = be.AppendUint32(b, 2)  // partition
	b = be.AppendUint16(b, 0)  // code
	b = be.AppendUint64(b, 15) // end
	b = be.AppendUint64(b, 15)
	if version >= 5 {
		b = be.AppendUint64(b, 3) // start
	}
	b = be.AppendUint32(b, 1)
	b = append(b, make([]byte, 16)...)
	if version >= 11 {
		b = be.AppendUint32(b, 0xffffffff)
	}
	b = be.AppendUint32(b, uint32(len(batches)))
	return append(b, batches...)
}

func TestDecodeFetch_OfEachVersion(t *testing.T) {
	for version := int16(4); version <= 11; version++ {
		a, err := decodeFetch(someFetch(version, []byte("batches")), version)
		if err != nil || a.code != 0 || a.end != 15 || string(a.batches) != "batches" || version >= 5 && a.start != 3 {
			t.Errorf("version %d: %+v, %v", version, a, err)
		}
	}
}

func FuzzDecodeFetch(f *testing.F) {
	for version := int16(4); version <= 11; version++ {
		f.Add(someFetch(version, batchAt(10, 2, 0, someTime)), version)
	}
	f.Add([]byte{0, 0, 0, 0, 0, 70}, int16(11)) // an error of the whole request
	f.Fuzz(func(t *testing.T, b []byte, version int16) {
		a, err := decodeFetch(b, version)
		if (a == nil) == (err == nil) {
			t.Fatalf("%+v, %v", a, err)
		}
		if a != nil && len(a.batches) > len(b) {
			t.Fatal("batches from nowhere")
		}
	})
}

// someMetadata is a metadata answer, version 10, about the topic "t" with leaders.
func someMetadata(code int16, leaders ...int32) []byte {
	be := binary.BigEndian
	b := []byte{0}             // header tags
	b = be.AppendUint32(b, 0)  // throttle
	b = append(b, 2)           // one broker
	b = be.AppendUint32(b, 5)  // its id
	b = append(b, 2, 'h')      // host
	b = be.AppendUint32(b, 92) // port
	b = append(b, 0)           // rack: null
	b = append(b, 0)           // tags
	b = append(b, 2, 'c')      // cluster
	b = be.AppendUint32(b, 5)  // controller
	b = append(b, 2)           // one topic
	b = be.AppendUint16(b, uint16(code))
	b = append(b, 2, 't')
	b = append(b, bytes.Repeat([]byte{0xab}, 16)...)
	b = append(b, 0) // internal
	b = binary.AppendUvarint(b, uint64(len(leaders))+1)
	for i := range leaders {
		i = len(leaders) - 1 - i // in no order
		b = be.AppendUint16(b, 0)
		b = be.AppendUint32(b, uint32(i))
		b = be.AppendUint32(b, uint32(leaders[i]))
		b = be.AppendUint32(b, 0)             // epoch
		b = append(b, 3, 0, 0, 0, 5, 0, 0, 0) // two replicas
		b = append(b, 6, 2, 0, 0, 0, 5, 1, 0) // one in sync, none offline, tags
	}
	b = be.AppendUint32(b, 0) // operations
	return append(b, 0, 0)    // tags
}

func TestDecodeTopic(t *testing.T) {
	a, err := decodeTopic(someMetadata(0, 5, -1, 6), "t")
	if err != nil {
		t.Fatal(err)
	}
	if a.code != 0 || a.id[0] != 0xab || a.replication != 2 || len(a.brokers) != 1 || a.brokers[0] != 5 ||
		len(a.leaders) != 3 || a.leaders[0] != 5 || a.leaders[1] != -1 || a.leaders[2] != 6 {
		t.Errorf("got %+v", a)
	}
	if a, err := decodeTopic(someMetadata(0, 5), "other"); err != nil || a.code != codeUnknownTopic {
		t.Errorf("about another topic: %+v, %v", a, err)
	}
}

func FuzzDecodeTopic(f *testing.F) {
	f.Add(someMetadata(0, 5, -1, 6))
	f.Add(someMetadata(codeUnknownTopic))
	f.Add(someMetadata(0, 5)[:30])
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeTopic(b, "t")
		if (a == nil) == (err == nil) {
			t.Fatalf("%+v, %v", a, err)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 6, 0, 0, 0, correlation, 'o', 'k'})
	f.Add([]byte{0, 0, 0, 6, 0, 0, 0, 9, 'o', 'k'})
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, correlation})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 && binary.BigEndian.Uint32(b) > 1<<20 {
			return // it may ask for that much memory
		}
		if got, err := readAnswer(bytes.NewReader(b)); err == nil && !bytes.HasPrefix(b[8:], got) {
			t.Fatalf("%x from %x", got, b)
		}
	})
}
