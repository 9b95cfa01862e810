package tcpgate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
)

// wholeFrames is what the stream data says when it is read at once.
func wholeFrames(data []byte, limit int) (frames []string, tooLarge bool) {
	for len(data) >= wire.HeaderLen {
		size := int64(binary.BigEndian.Uint32(data))
		if size > int64(limit) {
			return frames, true
		}
		if int64(len(data)) < wire.HeaderLen+size {
			break
		}
		frames = append(frames, string(data[wire.HeaderLen:wire.HeaderLen+size]))
		data = data[wire.HeaderLen+size:]
	}
	return frames, false
}

// FuzzFrameReader cuts a stream into pieces as cuts says, pauses where it says,
// and wants the frames that the whole stream has.
func FuzzFrameReader(f *testing.F) {
	f.Add([]byte(nil), []byte(nil), uint16(0))
	f.Add(frame("one"), []byte{1, 1, 1}, uint16(3))
	f.Add(slices.Concat(frame(""), frame("two"), frame("")), []byte{3, 0x82, 7}, uint16(10))
	f.Add(slices.Concat(frame("ok"), frame("too long"), frame("ok")), []byte{5}, uint16(7))
	f.Add(frame(strings.Repeat("x", 300))[:250], []byte{4, 200}, uint16(1000))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0}, []byte{1, 1, 1, 1}, uint16(0xffff))
	f.Add(slices.Concat(frame("a"), frame("b"), frame("c"), frame("d")), []byte{0xff, 0xff}, uint16(1))
	f.Fuzz(func(t *testing.T, data, cuts []byte, limit16 uint16) {
		limit := int(limit16)
		want, wantLarge := wholeFrames(data, limit)
		var r frameReader
		var got []string
		var failed error
		fed := 0
		feed := func(in []byte, owned, pauses bool) {
			for len(in) > 0 && failed == nil {
				payload, rest, ok, err := r.take(in, limit)
				if failed = err; err != nil || !ok {
					return
				}
				got = append(got, string(payload))
				if in = rest; pauses && len(in) > 0 {
					r.stash(in, owned)
					if in, owned = r.unstash(), true; r.buf != nil {
						t.Fatal("unstash keeps bytes")
					}
				}
			}
		}
		for rest := data; len(rest) > 0 && failed == nil; {
			n, pauses := len(rest), false
			if len(cuts) > 0 {
				n, pauses = min(int(cuts[0]&0x7f)+1, n), cuts[0]&0x80 != 0
				cuts = cuts[1:]
			}
			// The loop's read buffer is used again for the next piece.
			piece := bytes.Clone(rest[:n])
			feed(piece, false, pauses)
			for i := range piece {
				piece[i] = 0xee
			}
			rest, fed = rest[n:], fed+n
			if cap(r.buf) > 2*fed {
				t.Fatalf("%d bytes arrived, %d are held", fed, cap(r.buf))
			}
		}
		if (failed != nil) != wantLarge || failed != nil && !errors.Is(failed, wire.ErrFrameTooLarge) {
			t.Fatalf("error %v, want one: %v", failed, wantLarge)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("frames %q, want %q", got, want)
		}
		if whole := wire.HeaderLen*len(want) + len(strings.Join(want, "")); failed == nil && whole == len(data) && r.buf != nil {
			t.Fatal("memory is held between frames")
		}
	})
}

func TestFrames_HoweverCut_ArriveWholeAndInOrder(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, nil)
	client := dial(t, g)
	rnd := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	var want []string
	for _, size := range []int{0, 1, 3, 0, 0xffff - wire.HeaderLen, 0xffff, 70_000, 5, wire.DefaultMaxFrame, 1, 200, 0} {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(rnd.Uint32())
		}
		want = append(want, string(payload))
		stream = appendFrame(stream, payload)
	}
	for len(stream) > 0 {
		n := min(1+rnd.IntN(1<<rnd.IntN(18)), len(stream))
		send(t, client, stream[:n])
		stream = stream[n:]
	}
	r.waitFor(t, "all frames", func() bool { return len(r.frames) >= len(want) })
	if !slices.Equal(r.frames, want) {
		t.Error("the frames differ")
	}
	wantCount(t, g.metrics.framesIn, float64(len(want)))
}

func TestFrameOverLimit_SaysSoAndCloses(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, func(o *Options) {
		o.MaxFrame = 100
		o.Final = func(reason CloseReason) []byte { return frame("final " + string(reason)) }
	})
	client := dial(t, g)
	send(t, client, slices.Concat(frame(strings.Repeat("x", 100)), frame(strings.Repeat("y", 101)), frame("never seen")))
	wantFrame(t, client, "final too_large")
	wantEOF(t, client)
	client.Close()
	if reason := r.waitClosed(t, r.waitConns(t, 1)[0]); reason != CloseTooLarge {
		t.Errorf("closed with %s", reason)
	}
	if len(r.frames) != 1 {
		t.Errorf("%d frames, want the one within the limit", len(r.frames))
	}
}

func TestFrameOverLimit_PromiseAloneIsEnough(t *testing.T) {
	r := newRecorder()
	g := listen(t, r, nil)
	client := dial(t, g)
	send(t, client, []byte{0xff, 0xff, 0xff, 0xff})
	wantEOF(t, client)
	if reason := r.waitClosed(t, r.waitConns(t, 1)[0]); reason != CloseTooLarge {
		t.Errorf("closed with %s", reason)
	}
}

func TestPauseReads_KeepsWhatComesAndItsOrder(t *testing.T) {
	r := newRecorder()
	pauseFirst := func(c *Conn) {
		if c.ID() == 1 {
			c.PauseReads()
		}
	}
	r.onOpened = pauseFirst
	r.onFrame = func(c *Conn, _ []byte) { pauseFirst(c) }
	g := listen(t, r, nil)
	client := dial(t, g)
	c := r.waitConns(t, 1)[0]
	other := dial(t, g)
	const frames = 1500
	var stream []byte
	for i := range frames {
		stream = appendFrame(stream, fmt.Appendf(nil, "%d%100d", i, i))
	}
	send(t, client, stream[:100_001], stream[100_001:]) // more than one read brings
	for i := range 20 {                                 // as many turns of the loop
		send(t, other, frame("other"))
		r.waitFor(t, "the other's frame", func() bool { return len(r.frames) > i })
	}
	if got := r.frames[19]; got != "other" {
		t.Fatalf("frame %.10q came while reads are paused", got)
	}
	for i := range frames {
		c.ResumeReads()
		r.waitFor(t, "the next frame", func() bool { return len(r.frames) > 20+i })
	}
	for i, got := range r.frames[20:] {
		if want := fmt.Sprintf("%d%100d", i, i); got != want {
			t.Fatalf("frame %d is %q", i, got)
		}
	}
	c.Close("done")
	wantEOF(t, client)
	client.Close()
	if reason := r.waitClosed(t, c); reason != "done" {
		t.Errorf("a paused connection closed with %s", reason)
	}
}

func TestPauseReads_WithInputPending_DoesNotSpin(t *testing.T) {
	r := newRecorder()
	r.onFrame = func(c *Conn, _ []byte) { c.PauseReads() }
	g := listen(t, r, nil)
	client := dial(t, g)
	send(t, client, frame("one"))
	r.waitFor(t, "the frame", func() bool { return len(r.frames) == 1 })
	send(t, client, frame("two"))
	if share := cpuDuring(t, func() { <-time.After(300 * time.Millisecond) }); share > 0.4 {
		t.Errorf("the loop used %.0f %% CPU", share*100)
	}
	wantCount(t, g.metrics.bytesIn, float64(len(frame("one")))) // the rest is the kernel's, and TCP's to slow down
}
