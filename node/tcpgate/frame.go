package tcpgate

import (
	"encoding/binary"

	"github.com/futurechat/future/clientsdk/wire"
)

// frameReader keeps the beginning of a frame until the rest has come. It is
// empty, and holds no memory, between frames. It is not wire.Reader because that
// one blocks on its stream, where a loop is given what happens to have come.
type frameReader struct {
	buf []byte
}

// take cuts the first frame off in, together with what was kept before. If ok,
// payload is that frame's (it may share in's memory) and rest is what follows
// it; otherwise all of in was kept, or err says that the frame is over limit.
func (r *frameReader) take(in []byte, limit int) (payload, rest []byte, ok bool, err error) {
	if len(r.buf) == 0 && len(in) >= wire.HeaderLen {
		size, err := payloadLen(in, limit)
		if err != nil {
			return nil, nil, false, err
		}
		if end := wire.HeaderLen + size; len(in) >= end {
			return in[wire.HeaderLen:end:end], in[end:], true, nil
		}
	}
	if in = r.fill(in, wire.HeaderLen); len(r.buf) < wire.HeaderLen {
		return nil, nil, false, nil
	}
	size, err := payloadLen(r.buf, limit)
	if err != nil {
		return nil, nil, false, err
	}
	if in = r.fill(in, wire.HeaderLen+size); len(r.buf) < wire.HeaderLen+size {
		return nil, nil, false, nil
	}
	payload, r.buf = r.buf[wire.HeaderLen:], nil
	return payload, in, true, nil
}

// fill moves bytes from in until total are kept. The buffer doubles with what
// arrives: a peer that announces a large frame and sends none of it costs
// nothing.
func (r *frameReader) fill(in []byte, total int) (rest []byte) {
	n := min(total-len(r.buf), len(in))
	if n <= 0 {
		return in
	}
	if need := len(r.buf) + n; need > cap(r.buf) {
		grown := make([]byte, len(r.buf), min(max(need, 2*cap(r.buf)), max(total, need)))
		copy(grown, r.buf)
		r.buf = grown
	}
	r.buf = append(r.buf, in[:n]...)
	return in[n:]
}

// stash keeps bytes unread, frames and parts of frames alike, while reading is
// paused. owned says that nobody else will write to them: then they need not be
// copied, and a handler that pauses after every frame copies nothing twice.
func (r *frameReader) stash(in []byte, owned bool) {
	if owned && len(r.buf) == 0 {
		r.buf = in
		return
	}
	r.buf = append(r.buf, in...)
}

// unstash gives back all that is kept, to be taken again from its beginning.
func (r *frameReader) unstash() []byte {
	kept := r.buf
	r.buf = nil
	return kept
}

func payloadLen(header []byte, limit int) (int, error) {
	size := binary.BigEndian.Uint32(header)
	if uint64(size) > uint64(limit) {
		return 0, wire.ErrFrameTooLarge
	}
	return int(size), nil
}
