package future

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/futurechat/future/clientsdk/resume"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

func fill(t testing.TB, s *store) {
	out, err := saveMessage(resume.Message{
		Conversation: "d:1:2", ID: "a", Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: "x\n\"é"}}},
		ReplyTo: &pb.Ref{SenderId: "1", ClientMsgId: "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []record{
		{Session: &savedSession{Token: "t", User: User{ID: "1", Name: "alice"}}},
		{Forgotten: &saved{User: User{ID: "1"}, Cluster: "test", Epoch: 1}},
		{Position: &savedPos{C: "d:1:2", S: 7}}, {Started: true}, {Out: out},
		{Out: &savedMessage{Conversation: "d:1:2", ID: "c"}}, {Done: "c"}, {Position: &savedPos{C: "d:1:2", S: 9}},
	} {
		s.add(r)
	}
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
}

func TestStore_IsReadAgain(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s, err = openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	got := s.resumeState()
	if got.User != "1" || got.Epoch != 1 || !got.Started || len(got.Positions) != 1 || got.Positions[0].Seq != 9 || s.state.Token != "t" ||
		s.state.User.Name != "alice" || len(got.Outbox) != 1 || got.Outbox[0].Payload.GetText().GetText() != "x\n\"é" || got.Outbox[0].ReplyTo.GetClientMsgId() != "b" {
		t.Fatalf("%+v", got)
	}
}

// A crash may cut the journal anywhere: what was written before the cut is there, and the folder opens.
func TestStore_CutAnywhere(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, s)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for n := range len(whole) + 1 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "journal"), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openStore(dir)
		if err != nil {
			t.Fatal(n, err)
		}
		if p := s.state.Positions["d:1:2"]; p < last {
			t.Fatalf("cut at %d: position %d after %d", n, p, last)
		} else {
			last = p
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	if last != 9 {
		t.Fatal(last)
	}
}

func TestStore_IsWrittenAnewBeforeItGrows(t *testing.T) {
	dir := t.TempDir()
	s, err := openStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3 * rewriteAt) {
		s.add(record{Position: &savedPos{C: "d:1:2", S: i}})
		if err := s.flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "journal"))
	if err != nil || info.Size() > 100*rewriteAt {
		t.Fatal(info.Size(), err)
	}
}

func TestStore_FolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(filepath.Join(file, "x")); err == nil || errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
}

func FuzzJournal(f *testing.F) {
	for _, r := range []record{{Done: "a"}, {All: &saved{Token: "t"}}, {Position: &savedPos{C: "d:1:2", S: 1}}} {
		line, err := encodeLine(nil, r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if rec, ok := decodeLine(line); ok {
			s := saved{Positions: map[string]uint64{}}
			s.apply(rec)
			s.apply(record{Position: &savedPos{C: "a", S: 1}})
		}
	})
}

func TestStore_FolderThatCannotBeWrittenIsTold(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "journal.new"), 0o700); err != nil { // where the journal would be written anew
		t.Fatal(err)
	}
	if _, err := openStore(dir); err == nil {
		t.Fatal("opened")
	}
}
