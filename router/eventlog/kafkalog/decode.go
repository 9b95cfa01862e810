package kafkalog

import "encoding/binary"

// decoder takes values off a message; after the first that does not fit, all are zero and err is set.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) take(n int) []byte {
	if d.err == nil && (n < 0 || n > len(d.b)) {
		d.err = errCorrupt
	}
	if d.err != nil {
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.take(-1)
		return 0
	}
	d.take(n)
	return v
}

func (d *decoder) uvarint() int {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > 1<<31 {
		d.take(-1)
		return 0
	}
	d.take(n)
	return int(v)
}

// sized takes a slice with a signed varint length, where a negative one is nil.
func (d *decoder) sized() []byte {
	n := d.varint()
	if n < 0 {
		return nil
	}
	if n > int64(len(d.b)) {
		n = -1
	}
	return d.take(int(n))
}

func (d *decoder) int16() int16 {
	if v := d.take(2); v != nil {
		return int16(binary.BigEndian.Uint16(v))
	}
	return 0
}

func (d *decoder) int32() int32 {
	if v := d.take(4); v != nil {
		return int32(binary.BigEndian.Uint32(v))
	}
	return 0
}

func (d *decoder) int64() int64 {
	if v := d.take(8); v != nil {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

// string takes a string of the protocol's older kind, with a 16-bit length; null is empty.
func (d *decoder) string() string { return string(d.take(max(0, int(d.int16())))) }

// compact takes a string or bytes of the newer kind, with a varint length plus one; null is empty.
func (d *decoder) compact() string { return string(d.take(max(0, d.uvarint()-1))) }

// tags skips the tagged fields that end every structure of the newer kind.
func (d *decoder) tags() {
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		d.uvarint()
		d.take(d.uvarint())
	}
}
