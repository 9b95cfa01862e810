package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"testing"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/peer/peerv1"
)

func TestCodec_ForwardComesBackWhole(t *testing.T) {
	want := full()
	w, err := forwardFrame(9, &want)
	if err != nil {
		t.Fatal(err)
	}
	f := overTheWire(t, w)
	got, err := forwardIn(f.GetForward())
	if err != nil {
		t.Fatal(err)
	}
	if id := f.GetForward().Id; id != 9 {
		t.Errorf("id %d, want 9", id)
	}
	if !got.Rejections[0].Rejected.EqualVT(want.Rejections[0].Rejected) {
		t.Errorf("rejected: got %v, want %v", got.Rejections[0].Rejected, want.Rejections[0].Rejected)
	}
	got.Rejections[0].Rejected, want.Rejections[0].Rejected = nil, nil
	if want := fmt.Sprintf("%+v", want); fmt.Sprintf("%+v", got) != want {
		t.Errorf("got  %+v\nwant %s", got, want)
	}
}

func TestCodec_AnswerAndKickComeBackWhole(t *testing.T) {
	for _, want := range []Answer{
		{Status: StatusDelivered},
		{Status: StatusStale, Missed: []Missed{{1, Recipient{2, 3}}, {1 << 63, Recipient{-1, 1 << 63}}}},
	} {
		w := overTheWire(t, answerFrame(7, want)).GetAnswer()
		got, err := answerIn(w)
		if err != nil || w.Id != 7 || !reflect.DeepEqual(got, want) {
			t.Errorf("got %d %+v, %v, want 7 %+v", w.Id, got, err, want)
		}
	}
	want := Kick{Incarnation: "boot", Connections: []uint64{1, 1 << 63}, Reason: pb.Closing_REASON_REPLACED}
	if got := kickIn(overTheWire(t, kickFrame(want)).GetKick()); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCodec_ListsOfUnequalLengthAreRefused(t *testing.T) {
	uneven := &peerv1.Recipients{Users: []int64{1, 2}, Connections: []uint64{1}}
	_, inMessage := forwardIn(&peerv1.Forward{Messages: []*peerv1.Message{{Recipients: uneven}}})
	_, inRejection := forwardIn(&peerv1.Forward{Rejections: []*peerv1.Rejection{{Recipients: uneven}}})
	_, inAnswer := answerIn(&peerv1.Answer{Status: 1, Missed: uneven})
	_, seqs := answerIn(&peerv1.Answer{Status: 1, MissedSeqs: []uint64{1}})
	_, status := answerIn(&peerv1.Answer{Status: 256})
	for i, err := range []error{inMessage, inRejection, inAnswer, seqs, status} {
		if !errors.Is(err, errMalformed) {
			t.Errorf("%d: got %v", i, err)
		}
	}
}

func TestCodec_TooLargeIsRefusedOnBothSides(t *testing.T) {
	f := Forward{Messages: []Message{{Body: make([]byte, MaxFrame)}}}
	w, err := forwardFrame(1, &f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := encode(w); !errors.Is(err, ErrTooLarge) {
		t.Errorf("encode: got %v", err)
	}
	// The body is not there: it must be refused by its header.
	r := &frameReader{r: bytes.NewReader(binary.BigEndian.AppendUint32(nil, MaxFrame+1)), limit: MaxFrame}
	if _, err := r.next(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("read: got %v", err)
	}
}

func TestCodec_UnknownFieldsAndKindsAreRead(t *testing.T) {
	// Field 15 of Frame, a string; and a Ping that has got a field 3.
	for _, payload := range [][]byte{{15<<3 | 2, 1, 'x'}, {5<<3 | 2, 2, 3 << 3, 1}} {
		r := &frameReader{r: bytes.NewReader(framed(payload)), limit: MaxFrame}
		if f, err := r.next(); err != nil || (f.GetPing() == nil) != (payload[0] == 15<<3|2) {
			t.Errorf("%x: got %v, %v", payload, f, err)
		}
	}
}

// FuzzFrameReader: no bytes make it panic, read past its limit, or give a frame that cannot be written again.
func FuzzFrameReader(f *testing.F) {
	one := full()
	forward, err := forwardFrame(1, &one)
	if err != nil {
		f.Fatal(err)
	}
	for _, w := range []*peerv1.Frame{
		helloFrame("self"), forward, answerFrame(1, Answer{Status: 1, Missed: []Missed{{1, Recipient{2, 3}}}}),
		kickFrame(Kick{Incarnation: "b", Connections: []uint64{1}}), {},
	} {
		b, err := encode(w)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(framed([]byte{2<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &frameReader{r: bytes.NewReader(b), limit: 1 << 16}
		for {
			w, err := r.next()
			if errors.Is(err, errMalformed) {
				continue // the framing still stands
			}
			if err != nil {
				if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, ErrTooLarge) {
					return
				}
				t.Fatal(err)
			}
			if _, err := encode(w); err != nil {
				t.Fatal(err)
			}
			if b := w.GetForward(); b != nil {
				fuzzForward(t, b)
			}
			if b := w.GetAnswer(); b != nil {
				_, _ = answerIn(b)
			}
		}
	})
}

// fuzzForward: what is understood means the same after another trip.
func fuzzForward(t *testing.T, w *peerv1.Forward) {
	in, err := forwardIn(w)
	if err != nil {
		return
	}
	again, err := forwardFrame(w.Id, &in)
	if err != nil {
		t.Fatal(err)
	}
	back, err := forwardIn(overTheWire(t, again).GetForward())
	if err != nil {
		t.Fatal(err)
	}
	if len(back.Messages) != len(in.Messages) || len(back.Rejections) != len(in.Rejections) || back.Number != in.Number {
		t.Fatalf("got %+v, want %+v", back, in)
	}
}

func framed(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

func overTheWire(t *testing.T, f *peerv1.Frame) *peerv1.Frame {
	t.Helper()
	b, err := encode(f)
	if err != nil {
		t.Fatal(err)
	}
	r := &frameReader{r: bytes.NewReader(b), limit: MaxFrame}
	f, err = r.next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the frame: %v", err)
	}
	return f
}
