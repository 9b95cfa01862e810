package future_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/clientsdk/internal/fakenode"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// FuzzHostileServer: a server that is honest up to some point and then sends any bytes. The client does not panic, its
// calls end, and Close ends it.
func FuzzHostileServer(f *testing.F) {
	files, err := filepath.Glob("wire/testdata/golden/*.frame")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden frames", err)
	}
	for i, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(i%5), uint8(0))
		f.Add(b, uint8(i%5), uint8(1+i%8))
	}
	f.Fuzz(func(t *testing.T, bytes []byte, honest, id uint8) {
		// The golden frames have id 7; as an answer they must have the id that was asked for.
		if r, err := wire.Decode(bytes[min(wire.HeaderLen, len(bytes)):]); err == nil && len(bytes) > wire.HeaderLen {
			r.Id = uint64(id)
			if b, err := wire.AppendFrame(nil, r); err == nil {
				bytes = b
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		done := make(chan struct{})
		links := 0
		dialer := func(context.Context, string, string) (net.Conn, error) {
			if links++; links > 3 {
				return nil, errors.New("enough")
			}
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				serveHostile(server, int(honest%5), bytes)
				select {
				case <-done:
				case <-ctx.Done():
				}
			}()
			return client, nil
		}
		c, err := future.Dial(ctx, []string{"x:1"}, future.WithDialer(dialer), future.WithBackoff(time.Microsecond, time.Microsecond))
		if err != nil {
			close(done)
			return
		}
		_, err = c.Login(ctx, "alice", "password")
		_, sendErr := c.Send(ctx, "d:1:2", "x")
		for _, err := range []error{err, sendErr} {
			if err != nil && !typed(err) {
				t.Errorf("an error of no type: %v", err)
			}
		}
		close(done)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// serveHostile answers so many requests honestly, then sends what it was given.
func serveHostile(c net.Conn, honest int, bytes []byte) {
	r := wire.NewReader(c, wire.DefaultMaxFrame)
	for range honest {
		e, err := r.Next()
		if err != nil {
			return
		}
		out := &pb.Envelope{Id: e.GetId(), Body: &pb.Envelope_Ok{Ok: &pb.Ok{}}}
		switch e.GetBody().(type) {
		case *pb.Envelope_Hello:
			out.Body = &pb.Envelope_HelloOk{HelloOk: &pb.HelloResponse{Version: 1, MaxFrame: wire.DefaultMaxFrame, PingMs: 10_000, SilenceMs: 20_000}}
		case *pb.Envelope_Login, *pb.Envelope_Resume:
			out.Body = &pb.Envelope_Session{Session: &pb.SessionResponse{User: &pb.User{Id: "1", Name: "alice"}, Token: "t"}}
		case *pb.Envelope_Sync:
			out.Body = &pb.Envelope_Heads{Heads: &pb.SyncResponse{}}
		case *pb.Envelope_Send:
			out.Body = &pb.Envelope_Sent{Sent: &pb.SendResponse{Seq: 1}}
		}
		b, err := wire.AppendFrame(nil, out)
		if err != nil {
			return
		}
		if _, err := c.Write(b); err != nil {
			return
		}
	}
	_, _ = c.Write(bytes)
}

func typed(err error) bool {
	if _, ok := errors.AsType[*future.Error](err); ok {
		return true
	}
	for _, target := range []error{
		future.ErrDisconnected, future.ErrStayAway, future.ErrProtocol, future.ErrClosed, future.ErrUnreachable, future.ErrAccountChanged,
		context.DeadlineExceeded,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// A server that floods a program that reads nothing costs it no more than the bounds.
func TestHostile_AFloodIsBounded(t *testing.T) {
	n := fakenode.Start(t)
	c := alice(t, n)
	synced(t, n, c)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	frames := make([][]byte, 0, 64)
	text := string(make([]byte, 0))
	for len(text) < 16<<10 {
		text += "0123456789abcdef"
	}
	for i := range 64 {
		b, err := wire.AppendFrame(nil, &pb.Envelope{Body: &pb.Envelope_Delivery{Delivery: &pb.Delivery{Messages: []*pb.Message{{
			Conversation: wire.Group(int64(i + 1)), Seq: 1 << 40, PrevKnown: i%2 == 0, PrevSeq: uint64(i % 4), Sender: &pb.User{Id: "2"},
			ClientMsgId: wire.NewMessageID(), Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: text}}},
		}}}}})
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, b)
	}
	n.Lock()
	s := n.Sessions[0]
	n.Unlock()
	for i := range 4000 { // 64 MB
		if _, err := s.Conn.Write(frames[i%len(frames)]); err != nil {
			break
		}
		if i%50 == 0 {
			s.Write(&pb.Envelope{Body: &pb.Envelope_Presence{Presence: &pb.PresenceEvent{Changes: []*pb.PresenceEvent_Change{{UserId: "7"}, {UserId: "8"}}}}})
		}
	}
	if _, err := c.FindUser(t.Context(), "bob"); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 24<<20 {
		t.Errorf("the heap grew by %d MB; %+v", grown>>20, c.Stats())
	}
}
