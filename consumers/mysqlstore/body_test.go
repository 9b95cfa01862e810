package mysqlstore

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

func text(s string) *pb.Payload {
	return &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: s}}}
}

// FuzzBody holds the fast way of encoding against protojson, byte by byte, and reads it back.
func FuzzBody(f *testing.F) {
	for _, s := range []string{"", "hello", `"quoted\"`, "\x00\x01\x1f\x7f", "\b\f\n\r\t", "<a href='&'>", "päö 字 🙂\u2028\u2029", "\xff", "\u00a0\ufeff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := text(s)
		got, err := encodeBody(p)
		encoded, wantErr := protojson.Marshal(p)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("error %v, protojson's %v", err, wantErr)
		}
		if err != nil {
			return
		}
		var want bytes.Buffer
		if err := json.Compact(&want, encoded); err != nil {
			t.Fatal(err)
		}
		if got != want.String() {
			t.Fatalf("got %s, protojson has %s", got, want.String())
		}
		if back, err := decodeBody([]byte(got)); err != nil || !back.EqualVT(p) {
			t.Fatalf("read back %v, %v", back, err)
		}
	})
}

func TestBody_OtherKindsAreProtojson(t *testing.T) {
	notice := &pb.Payload{Kind: &pb.Payload_Friend{Friend: &pb.FriendNotice{
		Change: pb.FriendNotice_CHANGE_ACCEPTED, By: &pb.User{Id: "1", Name: "a\"b"}, Greeting: "hi", Version: 1 << 60,
	}}}
	for _, p := range []*pb.Payload{nil, {}, notice, {Kind: &pb.Payload_Text{}}} {
		body, err := encodeBody(p)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeBody([]byte(body))
		if err != nil || (back == nil) != (p == nil) || p.GetKind() != nil && p.GetText() == nil && !back.EqualVT(p) {
			t.Errorf("%v became %s, then %v, %v", p, body, back, err)
		}
	}
}

func BenchmarkBody(b *testing.B) {
	p := text("The quick brown fox jumps over the lazy dog, \"again\" and again.")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := encodeBody(p); err != nil {
			b.Fatal(err)
		}
	}
}
