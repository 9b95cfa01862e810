package tcpgate

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tidwall/evio"
)

// The shapes of other evios.
type (
	otherConn  struct{ evio.Conn }
	valueConn  struct{ evio.Conn }
	noPollConn struct {
		evio.Conn
		fd   int
		loop *struct{}
	}
	retypedConn struct {
		evio.Conn
		fd   uintptr
		loop *otherLoop
	}
	otherLoop struct{ poll *otherPoll }
	otherPoll struct {
		fd    int
		notes struct{ notes []any }
	}
)

func TestInspect_OtherEvio_ErrLayout(t *testing.T) {
	for _, ec := range []evio.Conn{
		&otherConn{}, valueConn{}, &noPollConn{fd: 1, loop: &struct{}{}},
		&retypedConn{fd: 1, loop: &otherLoop{&otherPoll{fd: 1, notes: struct{ notes []any }{[]any{1}}}}},
	} {
		if _, err := inspect(ec); !errors.Is(err, ErrLayout) {
			t.Errorf("%T: %v", ec, err)
		}
	}
}

// TestWheel_LooksInTime: never before a connection is due, at most a tick late,
// and at least once per horizon.
func TestWheel_LooksInTime(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	now := int64(12345)
	w := newWheel(time.Second, now)
	due, added := map[*Conn]int64{}, map[*Conn]int64{}
	put := func(c *Conn) {
		due[c], added[c] = now+rnd.Int64N(100*w.tick), now
		if rnd.IntN(20) == 0 {
			due[c] = now + 10*wheelSlots*w.tick
		}
		w.add(c, due[c])
	}
	for range 300 {
		put(new(Conn))
	}
	horizon := wheelSlots * w.tick
	stoodStill := -horizon
	for range 5_000 {
		now += rnd.Int64N(w.tick / 2)
		if rnd.IntN(1000) == 0 { // the process stood still: then all are looked at, once more than needed
			now += 2 * horizon
			stoodStill = now
		}
		w.advance(now, func(c *Conn) {
			if now-stoodStill > horizon && now < due[c] && now-added[c] < horizon-2*w.tick {
				t.Fatalf("looked at %d ns before it was due", due[c]-now)
			}
			put(c)
		})
		for c, at := range due {
			if at < now-w.tick || added[c] < now-horizon {
				t.Fatalf("due at %d, added at %d, not looked at at %d", at, added[c], now)
			}
		}
		if w.size != len(due) {
			t.Fatalf("%d of %d in the wheel", w.size, len(due))
		}
	}
	for c := range due {
		w.remove(c)
		delete(due, c)
	}
	w.each(func(*Conn) { t.Fatal("not empty") })
	if w.size != 0 {
		t.Fatal(w.size)
	}
}

// TestDue is the table of deadlines, without a clock.
func TestDue(t *testing.T) {
	s := int64(time.Second)
	opts := Options{HelloTimeout: 5 * time.Second, LoginTimeout: 30 * time.Second, IdleTimeout: 75 * time.Second}
	for name, tc := range map[string]struct {
		change func(*Conn)
		at     int64
		why    CloseReason
	}{
		"new":                   {func(*Conn) {}, 5 * s, CloseHelloTimeout},
		"greeted":               {func(c *Conn) { c.greeted, c.lastFrame = true, 2*s }, 30 * s, CloseLoginTimeout},
		"logged in":             {func(c *Conn) { c.greeted, c.lastFrame = true, 2*s; c.LoggedIn() }, 77 * s, CloseIdle},
		"a frame keeps it":      {func(c *Conn) { c.greeted, c.lastFrame = true, 50*s; c.LoggedIn() }, 125 * s, CloseIdle},
		"paused is not idle":    {func(c *Conn) { c.greeted, c.paused = true, true; c.LoggedIn() }, int64(time.Hour), CloseIdle},
		"paused without login":  {func(c *Conn) { c.greeted, c.paused = true, true }, 30 * s, CloseLoginTimeout},
		"logged in, no a frame": {func(c *Conn) { c.LoggedIn() }, 5 * s, CloseHelloTimeout},
	} {
		c := &Conn{loop: &loop{gate: &Gate{opts: opts}}}
		tc.change(c)
		if at, why := c.due(0); at != tc.at || why != tc.why {
			t.Errorf("%s: due at %d s for %s", name, at/s, why)
		}
	}
}

// TestOutbox_AsAStream: whatever is pushed, and however much is written at a
// time, the pieces are the stream, and what is counted is right.
func TestOutbox_AsAStream(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	var o outbox
	var want, got []byte
	frames := 0
	for range 20_000 {
		if rnd.IntN(2) == 0 || frames > 40 {
			pieces, n := o.gather(make([][]byte, 0, 1+rnd.IntN(6)))
			joined := bytes.Join(pieces, nil)
			if len(joined) != n {
				t.Fatalf("%d bytes gathered, said %d", len(joined), n)
			}
			if n > 0 {
				n = rnd.IntN(n + 1)
			}
			got = append(got, joined[:n]...)
			frames -= o.wrote(n)
		} else {
			f := make([]byte, 1+rnd.IntN(30))
			for i := range f {
				f[i] = byte(rnd.Uint32())
			}
			o.push(f)
			want = append(want, f...)
			frames++
		}
		if o.frames() != frames || o.bytes != len(want)-len(got) {
			t.Fatalf("%d frames, %d bytes; want %d, %d", o.frames(), o.bytes, frames, len(want)-len(got))
		}
	}
	if !bytes.HasPrefix(want, got) || len(got) == 0 {
		t.Fatal("the stream differs")
	}
	if most := 4 * 64; cap(o.queue) > most {
		t.Errorf("room for %d frames, never more than 42 were queued", cap(o.queue))
	}
}
