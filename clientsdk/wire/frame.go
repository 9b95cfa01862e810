package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/futurechat/future/clientsdk/wire/futurev1"
)

const (
	// Version is the protocol version that this package speaks.
	Version = 1
	// HeaderLen is the length of a frame's header in bytes: the payload's length, big-endian.
	HeaderLen = 4
	// DefaultMaxFrame is the longest payload in bytes that a node takes, and a client should.
	DefaultMaxFrame = 256 << 10
)

// ErrFrameTooLarge is matched by errors.Is for a frame whose header promises more than the limit.
var ErrFrameTooLarge = errors.New("frame too large")

// ErrMalformed is matched by errors.Is for a frame whose payload is no Envelope.
var ErrMalformed = errors.New("malformed frame")

// AppendFrame appends e as one frame to dst.
func AppendFrame(dst []byte, e *futurev1.Envelope) ([]byte, error) {
	n := e.SizeVT()
	start := len(dst)
	dst = append(dst, make([]byte, HeaderLen+n)...)
	binary.BigEndian.PutUint32(dst[start:], uint32(n))
	if _, err := e.MarshalToSizedBufferVT(dst[start+HeaderLen:]); err != nil {
		return dst[:start], fmt.Errorf("encode envelope: %w", err)
	}
	return dst, nil
}

// Decode reads the payload of one frame. The envelope keeps no reference to it.
func Decode(payload []byte) (*futurev1.Envelope, error) {
	e := new(futurev1.Envelope)
	if err := e.UnmarshalVT(payload); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return e, nil
}

// Reader reads frames from a stream. It is not safe for concurrent use.
type Reader struct {
	r   io.Reader
	max int
	buf []byte
}

// NewReader returns a Reader that refuses payloads longer than limit bytes.
func NewReader(r io.Reader, limit int) *Reader { return &Reader{r: r, max: limit} }

// keepBuf is the largest buffer in bytes that a Reader keeps between frames.
const keepBuf = 16 << 10

// Next returns the next envelope. At the end of the stream it returns io.EOF if that falls between two frames, else
// io.ErrUnexpectedEOF. After any error but ErrMalformed the stream has lost its framing.
func (r *Reader) Next() (*futurev1.Envelope, error) {
	var header [HeaderLen]byte
	if _, err := io.ReadFull(r.r, header[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(header[:]))
	if n > int64(r.max) {
		return nil, fmt.Errorf("%w: %d bytes, allowed are %d", ErrFrameTooLarge, n, r.max)
	}
	// A peer that promises much and sends little must not make us hold much: grow as bytes come.
	r.buf = r.buf[:0]
	for int64(len(r.buf)) < n {
		step := min(n-int64(len(r.buf)), keepBuf)
		start := len(r.buf)
		r.buf = append(r.buf, make([]byte, step)...)
		if _, err := io.ReadFull(r.r, r.buf[start:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	e, err := Decode(r.buf)
	if cap(r.buf) > keepBuf {
		r.buf = nil
	}
	return e, err
}
