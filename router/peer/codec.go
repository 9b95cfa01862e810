package peer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/peer/peerv1"
)

// protocolVersion is what Hello says. A higher one only adds.
const protocolVersion = 1

const (
	headerLen = 4
	// MaxFrame is the largest frame in bytes that either side takes.
	MaxFrame = 8 << 20
	// keepBuf is the largest buffer that a frameReader keeps between frames, and its step while a frame comes in.
	keepBuf = 64 << 10
)

// errMalformed is matched by what cannot be understood. The link is closed then: both ends are ours.
var errMalformed = errors.New("peer: malformed frame")

// encode gives a frame with its length in front.
func encode(f *peerv1.Frame) ([]byte, error) {
	n := f.SizeVT()
	if n > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes, allowed are %d", ErrTooLarge, n, MaxFrame)
	}
	b := make([]byte, headerLen+n)
	binary.BigEndian.PutUint32(b, uint32(n))
	if _, err := f.MarshalToSizedBufferVT(b[headerLen:]); err != nil {
		return nil, fmt.Errorf("peer: encode frame: %w", err)
	}
	return b, nil
}

// frameReader reads frames from a stream.
type frameReader struct {
	r     io.Reader
	limit int
	buf   []byte
}

// next returns the next frame, which keeps no reference to the reader. At the end of the stream it returns io.EOF if that falls
// between two frames.
func (r *frameReader) next() (*peerv1.Frame, error) {
	var header [headerLen]byte
	if _, err := io.ReadFull(r.r, header[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(header[:]))
	if n > int64(r.limit) {
		return nil, fmt.Errorf("%w: %d bytes, allowed are %d", ErrTooLarge, n, r.limit)
	}
	// Memory is given as bytes come, not as they are promised.
	r.buf = r.buf[:0]
	for int64(len(r.buf)) < n {
		start := len(r.buf)
		r.buf = append(r.buf, make([]byte, min(n-int64(start), keepBuf))...)
		if _, err := io.ReadFull(r.r, r.buf[start:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	f := new(peerv1.Frame)
	err := f.UnmarshalVT(r.buf)
	if cap(r.buf) > keepBuf {
		r.buf = nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return f, nil
}

func forwardFrame(id uint64, f *Forward) (*peerv1.Frame, error) {
	w := &peerv1.Forward{
		Id: id, Incarnation: f.Incarnation, Partition: f.Partition, RouterEpoch: f.RouterEpoch, Number: f.Number,
		Messages: make([]*peerv1.Message, len(f.Messages)),
	}
	messages := make([]peerv1.Message, len(f.Messages))
	for i := range f.Messages {
		m := &f.Messages[i]
		messages[i].Seq, messages[i].Body, messages[i].Recipients = m.Seq, m.Body, recipientsOut(m.Recipients)
		messages[i].Group, messages[i].Version = m.Group, m.Version
		w.Messages[i] = &messages[i]
	}
	for _, r := range f.Rejections {
		rejected, err := r.Rejected.MarshalVT()
		if err != nil {
			return nil, fmt.Errorf("peer: encode rejection: %w", err)
		}
		w.Rejections = append(w.Rejections, &peerv1.Rejection{Seq: r.Seq, Rejected: rejected, Recipients: recipientsOut(r.Recipients)})
	}
	return &peerv1.Frame{Body: &peerv1.Frame_Forward{Forward: w}}, nil
}

func forwardIn(w *peerv1.Forward) (Forward, error) {
	f := Forward{Incarnation: w.Incarnation, Partition: w.Partition, RouterEpoch: w.RouterEpoch, Number: w.Number}
	var err error
	if len(w.Messages) > 0 {
		f.Messages = make([]Message, len(w.Messages))
	}
	for i, m := range w.Messages {
		f.Messages[i] = Message{Seq: m.Seq, Body: m.Body, Group: m.Group, Version: m.Version}
		if f.Messages[i].Recipients, err = recipientsIn(m.Recipients); err != nil {
			return Forward{}, err
		}
	}
	for _, r := range w.Rejections {
		in := Rejection{Seq: r.Seq, Rejected: new(pb.Rejected)}
		if err := in.Rejected.UnmarshalVT(r.Rejected); err != nil {
			return Forward{}, fmt.Errorf("%w: rejection: %w", errMalformed, err)
		}
		if in.Recipients, err = recipientsIn(r.Recipients); err != nil {
			return Forward{}, err
		}
		f.Rejections = append(f.Rejections, in)
	}
	return f, nil
}

func answerFrame(id uint64, a Answer) *peerv1.Frame {
	w := &peerv1.Answer{Id: id, Status: uint32(a.Status)}
	if n := len(a.Missed); n > 0 {
		w.MissedSeqs = make([]uint64, n)
		w.Missed = &peerv1.Recipients{Users: make([]int64, n), Connections: make([]uint64, n)}
		for i, m := range a.Missed {
			w.MissedSeqs[i], w.Missed.Users[i], w.Missed.Connections[i] = m.Seq, m.Recipient.User, m.Recipient.Connection
		}
	}
	return &peerv1.Frame{Body: &peerv1.Frame_Answer{Answer: w}}
}

func answerIn(w *peerv1.Answer) (Answer, error) {
	// A status that is not known is for the caller to judge; one that does not fit was never one.
	if w.Status == 0 || w.Status > 255 {
		return Answer{}, fmt.Errorf("%w: status %d", errMalformed, w.Status)
	}
	a := Answer{Status: Status(w.Status)}
	missed, err := recipientsIn(w.Missed)
	if err != nil {
		return Answer{}, err
	}
	if len(missed) != len(w.MissedSeqs) {
		return Answer{}, fmt.Errorf("%w: %d recipients missed, %d seqs", errMalformed, len(missed), len(w.MissedSeqs))
	}
	for i, r := range missed {
		a.Missed = append(a.Missed, Missed{Seq: w.MissedSeqs[i], Recipient: r})
	}
	return a, nil
}

func kickFrame(k Kick) *peerv1.Frame {
	return &peerv1.Frame{Body: &peerv1.Frame_Kick{Kick: &peerv1.Kick{
		Incarnation: k.Incarnation, Connections: k.Connections, Reason: int32(k.Reason),
	}}}
}

func kickIn(w *peerv1.Kick) Kick {
	return Kick{Incarnation: w.Incarnation, Connections: w.Connections, Reason: pb.Closing_Reason(w.Reason)}
}

func helloFrame(self string) *peerv1.Frame {
	return &peerv1.Frame{Body: &peerv1.Frame_Hello{Hello: &peerv1.Hello{Version: protocolVersion, Self: self}}}
}

func recipientsOut(rs []Recipient) *peerv1.Recipients {
	if len(rs) == 0 {
		return nil
	}
	w := &peerv1.Recipients{Users: make([]int64, len(rs)), Connections: make([]uint64, len(rs))}
	for i, r := range rs {
		w.Users[i], w.Connections[i] = r.User, r.Connection
	}
	return w
}

func recipientsIn(w *peerv1.Recipients) ([]Recipient, error) {
	if w == nil {
		return nil, nil
	}
	if len(w.Users) != len(w.Connections) {
		return nil, fmt.Errorf("%w: %d users, %d connections", errMalformed, len(w.Users), len(w.Connections))
	}
	rs := make([]Recipient, len(w.Users))
	for i := range rs {
		rs[i] = Recipient{User: w.Users[i], Connection: w.Connections[i]}
	}
	return rs, nil
}
