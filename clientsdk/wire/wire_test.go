package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

var update = flag.Bool("update", false, "write the golden frames of kinds that have none yet")

// fill gives every field of m a value that says where it stands, so that a golden frame shows each field's place.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if o := f.ContainingOneof(); o != nil && m.WhichOneof(o) != nil {
			continue
		}
		switch {
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).List().AppendMutable().Message(), depth+1)
		case f.IsList():
			m.Mutable(f).List().Append(scalar(f))
		case f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, scalar(f))
		}
	}
}

func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	n := int64(f.Number())
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n) + 200)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(1<<53 + uint64(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1_700_000_000_000 + n)
	default:
		return protoreflect.ValueOfString(string(f.Name()) + " é🙂%s")
	}
}

// TestGoldenFrames: a golden file never changes once it has landed; a client of that day must be understood for ever.
func TestGoldenFrames(t *testing.T) {
	bodies := (&pb.Envelope{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range bodies.Len() {
		f := bodies.Get(i)
		t.Run(string(f.Name()), func(t *testing.T) {
			e := &pb.Envelope{Id: 7}
			fill(e.ProtoReflect().Mutable(f).Message(), 0)
			golden(t, string(f.Name()), e)
		})
	}
	// What a kind got later stands in frames of its own.
	t.Run("closing_addrs", func(t *testing.T) {
		golden(t, "closing_addrs", &pb.Envelope{Body: &pb.Envelope_Closing{Closing: &pb.Closing{
			Reason: pb.Closing_REASON_DRAINING, Message: "this node goes down", RetryAfterMs: 120, Addrs: []string{"node2.example:7700", "[2001:db8::1]:7700"},
		}}})
	})
}

// golden holds a frame against its file, bytes and JSON.
func golden(t *testing.T, name string, e *pb.Envelope) {
	t.Helper()
	frame, err := wire.AppendFrame(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	binFile := filepath.Join("testdata", "golden", name+".frame")
	jsonFile := filepath.Join("testdata", "golden", name+".json")
	if _, err := os.Stat(binFile); *update && errors.Is(err, os.ErrNotExist) {
		text, _ := protojson.MarshalOptions{Multiline: true, Indent: "  ", UseProtoNames: true}.Marshal(e)
		if err := errors.Join(os.WriteFile(binFile, frame, 0o644), os.WriteFile(jsonFile, append(text, '\n'), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(binFile)
	if err != nil {
		t.Fatalf("%v (go test ./clientsdk/wire -update makes the missing ones)", err)
	}
	got, err := wire.NewReader(iotest.OneByteReader(bytes.NewReader(want)), wire.DefaultMaxFrame).Next()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	fromJSON := new(pb.Envelope)
	if err := protojson.Unmarshal(text, fromJSON); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, fromJSON) {
		t.Errorf("the golden frame and its JSON differ:\n%v\n%v", got, fromJSON)
	}
}

func TestReader_EndsAndLimits(t *testing.T) {
	frame, err := wire.AppendFrame(nil, &pb.Envelope{Id: 1, Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}})
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(frame) {
		_, err := wire.NewReader(bytes.NewReader(frame[:cut]), 100).Next()
		want := io.ErrUnexpectedEOF
		if cut == 0 {
			want = io.EOF
		}
		if !errors.Is(err, want) {
			t.Errorf("cut at %d: %v, want %v", cut, err, want)
		}
	}
	long := binary.BigEndian.AppendUint32(nil, 101)
	if _, err := wire.NewReader(bytes.NewReader(long), 100).Next(); !errors.Is(err, wire.ErrFrameTooLarge) {
		t.Errorf("101 bytes: %v", err)
	}
	garbage := append(binary.BigEndian.AppendUint32(nil, 3), 0xff, 0xff, 0xff)
	r := wire.NewReader(bytes.NewReader(append(garbage, frame...)), 100)
	if _, err := r.Next(); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("garbage: %v", err)
	}
	if e, err := r.Next(); err != nil || e.GetId() != 1 {
		t.Errorf("after garbage: %v %v", e, err)
	}
}

func TestIDs_OnlyCanonical(t *testing.T) {
	for _, s := range []string{"1", "17", "9223372036854775807"} {
		if id, err := wire.ParseID(s); err != nil || wire.FormatID(id) != s {
			t.Errorf("ParseID(%q) = %d, %v", s, id, err)
		}
	}
	for _, s := range []string{"", "0", "017", "-1", "+1", " 1", "1 ", "1e3", "0x1", "9223372036854775808", "١", "1_0"} {
		if _, err := wire.ParseID(s); err == nil {
			t.Errorf("ParseID(%q) took it", s)
		}
	}
	for _, s := range []string{"d:1:2", "g:5", "n:9"} {
		if _, err := wire.ParseConversation(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", "d", "d:1", "d:2:1", "d:1:1", "d:1:2:3", "d:01:2", "g:", "g:1:2", "n:0", "x:1", "d:1:2 "} {
		if _, err := wire.ParseConversation(s); err == nil {
			t.Errorf("ParseConversation(%q) took it", s)
		}
	}
	c, err := wire.ParseConversation(wire.Direct(12, 5))
	if err != nil || c.Other(5) != 12 || c.Other(12) != 5 || !c.Has(5) || c.Has(6) {
		t.Errorf("%+v %v", c, err)
	}
}

func TestR23_Names(t *testing.T) {
	for _, s := range []string{"alice", "0614897828", "李雷", "a b", "%s%n", "o'neil", "مرحبا", "🙂🙂"} {
		if err := wire.CheckName(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "a", " ab", "ab ", "a\nb", "a\x00b", "a\xffb", "a\u202eb", strings.Repeat("x", 33)} {
		if wire.CheckName(s) == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestValidate_NamesTheField(t *testing.T) {
	device := &pb.Device{Id: "0193b1a0-0000-7000-8000-000000000001"}
	text := func(s string) *pb.Payload { return &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: s}}} }
	send := func(change func(*pb.SendRequest)) *pb.Envelope {
		r := &pb.SendRequest{Conversation: "d:1:2", ClientMsgId: wire.NewMessageID(), Payload: text("hello %s%n 🙂")}
		change(r)
		return &pb.Envelope{Id: 1, Body: &pb.Envelope_Send{Send: r}}
	}
	for name, tc := range map[string]struct {
		e     *pb.Envelope
		field string
	}{
		"good":           {send(func(*pb.SendRequest) {}), ""},
		"no id":          {&pb.Envelope{Body: &pb.Envelope_Ping{}}, "id"},
		"empty":          {send(func(r *pb.SendRequest) { r.Payload = text("") }), "payload.text"},
		"long":           {send(func(r *pb.SendRequest) { r.Payload = text(strings.Repeat("x", 16<<10+1)) }), "payload.text"},
		"nul":            {send(func(r *pb.SendRequest) { r.Payload = text("a\x00") }), "payload.text"},
		"broken utf-8":   {send(func(r *pb.SendRequest) { r.Payload = text("a\xff") }), "payload.text"},
		"no payload":     {send(func(r *pb.SendRequest) { r.Payload = nil }), "payload"},
		"forged notice":  {send(func(r *pb.SendRequest) { r.Payload = &pb.Payload{Kind: &pb.Payload_Friend{}} }), "payload"},
		"bad message id": {send(func(r *pb.SendRequest) { r.ClientMsgId = "1" }), "client_msg_id"},
		"bad conv":       {send(func(r *pb.SendRequest) { r.Conversation = "d:2:1\xff" }), "conversation"},
		"no device":      {&pb.Envelope{Id: 1, Body: &pb.Envelope_Login{Login: &pb.LoginRequest{Name: "bob", Password: "password"}}}, "device.id"},
		"short password": {&pb.Envelope{Id: 1, Body: &pb.Envelope_Login{Login: &pb.LoginRequest{Name: "bob", Password: "x", Device: device}}}, "password"},
		"limit":          {&pb.Envelope{Id: 1, Body: &pb.Envelope_History{History: &pb.HistoryRequest{Conversation: "d:1:2", Limit: 201}}}, "limit"},
	} {
		err := wire.Validate(tc.e)
		if (err == nil) != (tc.field == "") || err != nil && (err.Field != tc.field || !errors.Is(err, wire.ErrInvalid)) {
			t.Errorf("%s: %v, want field %q", name, err, tc.field)
		}
	}
	if err := wire.Validate(&pb.Envelope{Id: 1}); !errors.Is(err, wire.ErrUnsupported) {
		t.Errorf("no body: %v", err)
	}
}

func TestError_RoundTripsAndCompares(t *testing.T) {
	in := wire.Invalid("name", errors.New("is too long"))
	out := wire.FromProto(in.Proto())
	if !errors.Is(out, wire.ErrInvalid) || errors.Is(out, wire.ErrNotFound) || out.Error() != "INVALID name: is too long" {
		t.Error(out)
	}
}

func FuzzReader(f *testing.F) {
	files, err := filepath.Glob("testdata/golden/*.frame")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden frames", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := wire.NewReader(bytes.NewReader(in), 1<<16)
		for {
			e, err := r.Next()
			if errors.Is(err, wire.ErrMalformed) {
				continue
			}
			if err != nil {
				return
			}
			_ = wire.Validate(e)
			frame, err := wire.AppendFrame(nil, e)
			if err != nil {
				t.Fatal(err)
			}
			again, err := wire.NewReader(bytes.NewReader(frame), 1<<20).Next()
			if err != nil {
				t.Fatalf("what we encoded is not read again: %v", err)
			}
			if !again.EqualVT(e) {
				t.Fatal("changed on its way")
			}
		}
	})
}
