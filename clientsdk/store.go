package future

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/futurechat/future/clientsdk/resume"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// store keeps what must outlive the program in a folder: `journal`, which grows by one JSON line a change, each with its
// checksum, and is written anew when most of it is out of date; `lock`, held by the process that uses the folder. A line
// that a crash cut short ends what is read; what stood behind it was not yet told to anybody. A nil store keeps nothing.
type store struct {
	dir   string
	lock  *os.File
	file  *os.File
	state saved
	buf   []byte
	lines int
	dirty bool // written since the last sync to disk
	err   error
}

// saved is what the journal says, replayed.
type saved struct {
	Device    string
	Token     string
	User      User
	Cluster   string
	Epoch     uint32
	Started   bool
	Positions map[string]uint64
	Outbox    []savedMessage
}

type savedMessage struct {
	Conversation, ID string
	Payload          []byte
	ReplyTo          *Ref `json:",omitempty"`
}

// record is one line of the journal; one of its fields is set. All replaces what was known before.
type record struct {
	All       *saved        `json:"all,omitempty"`
	Session   *savedSession `json:"session,omitempty"`
	Forgotten *saved        `json:"forgotten,omitempty"`
	Started   bool          `json:"started,omitempty"`
	Position  *savedPos     `json:"pos,omitempty"`
	Out       *savedMessage `json:"out,omitempty"`
	Done      string        `json:"done,omitempty"`
}

type savedSession struct {
	Token string
	User  User
}

type savedPos struct {
	C string
	S uint64
}

// rewriteAt is how many lines beyond those needed make the journal be written anew.
const rewriteAt = 4096

// openStore takes the folder, makes it if need be, and reads what is there.
func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the client's folder: %w", err)
	}
	lock, err := lockFolder(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock the client's folder %s: %w", dir, err)
	}
	s := &store{dir: dir, lock: lock, state: saved{Positions: map[string]uint64{}}}
	if err = s.read(); err == nil {
		err = s.rewrite()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the client's folder %s: %w", dir, err), s.close())
	}
	return s, nil
}

func (s *store) path() string { return filepath.Join(s.dir, "journal") }

func (s *store) read() error {
	f, err := os.Open(s.path())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // what has no end was cut short
		}
		if err != nil {
			return err
		}
		rec, ok := decodeLine(line)
		if !ok {
			return nil
		}
		s.state.apply(rec)
	}
}

// encodeLine is `checksum json newline`.
func encodeLine(dst []byte, rec record) ([]byte, error) {
	text, err := json.Marshal(rec)
	if err != nil {
		return dst, err
	}
	dst = fmt.Appendf(dst, "%08x ", crc32.ChecksumIEEE(text))
	return append(append(dst, text...), '\n'), nil
}

func decodeLine(line []byte) (record, bool) {
	const sum = 9 // eight digits and a space
	if len(line) <= sum {
		return record{}, false
	}
	text := line[sum : len(line)-1]
	if string(line[:sum]) != fmt.Sprintf("%08x ", crc32.ChecksumIEEE(text)) {
		return record{}, false
	}
	var rec record
	return rec, json.Unmarshal(text, &rec) == nil
}

func (s *saved) apply(rec record) {
	switch {
	case rec.All != nil:
		*s = *rec.All
		if s.Positions == nil {
			s.Positions = map[string]uint64{}
		}
	case rec.Session != nil:
		s.Token, s.User = rec.Session.Token, rec.Session.User
	case rec.Forgotten != nil:
		s.User.ID, s.Cluster, s.Epoch = rec.Forgotten.User.ID, rec.Forgotten.Cluster, rec.Forgotten.Epoch
		s.Started, s.Positions = false, map[string]uint64{}
	case rec.Started:
		s.Started = true
	case rec.Position != nil:
		s.Positions[rec.Position.C] = rec.Position.S
	case rec.Out != nil:
		s.Outbox = append(s.Outbox, *rec.Out)
	case rec.Done != "":
		if i := slices.IndexFunc(s.Outbox, func(m savedMessage) bool { return m.ID == rec.Done }); i >= 0 {
			s.Outbox = slices.Delete(s.Outbox, i, i+1)
		}
	}
}

// add changes the state; flush writes it.
func (s *store) add(rec record) {
	if s == nil {
		return
	}
	s.state.apply(rec)
	var err error
	if s.buf, err = encodeLine(s.buf, rec); err != nil {
		s.err = err
	}
	s.lines++
}

// flush hands what was added to the operating system, so that the program may be killed. The first error stays: from
// then on the client goes on in memory, and Close tells.
func (s *store) flush() error {
	if s == nil || len(s.buf) == 0 {
		return nil
	}
	if s.err == nil {
		_, s.err = s.file.Write(s.buf)
	}
	s.buf = s.buf[:0]
	s.dirty = true
	if s.err == nil && s.lines > rewriteAt+2*(len(s.state.Positions)+len(s.state.Outbox)) {
		s.err = s.rewrite()
	}
	return s.err
}

// sync hands it to the disk, so that power may fail.
func (s *store) sync() error {
	if s != nil && s.dirty && s.err == nil {
		s.dirty = false
		s.err = s.file.Sync()
		return s.err
	}
	return nil
}

// rewrite replaces the journal by one line; a crash leaves the old one or the new one.
func (s *store) rewrite() error {
	line, err := encodeLine(nil, record{All: &s.state})
	if err != nil {
		return err
	}
	tmp := s.path() + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil { // one that was there before
		return errors.Join(err, f.Close())
	}
	if _, err := f.Write(line); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := os.Rename(tmp, s.path()); err != nil {
		return errors.Join(err, f.Close())
	}
	if s.file != nil {
		err = s.file.Close()
	}
	s.file, s.lines, s.dirty = f, 0, false
	return errors.Join(err, syncFolder(s.dir))
}

func (s *store) close() error {
	if s == nil {
		return nil
	}
	err := errors.Join(s.flush(), s.sync())
	if err == nil {
		err = s.err
	}
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	return errors.Join(err, s.lock.Close())
}

// resumeState is what the machine goes on from.
func (s *store) resumeState() resume.State {
	if s == nil {
		return resume.State{}
	}
	out := resume.State{User: s.state.User.ID, Cluster: s.state.Cluster, Epoch: s.state.Epoch, Started: s.state.Started}
	for _, c := range slices.Sorted(maps.Keys(s.state.Positions)) {
		out.Positions = append(out.Positions, resume.Position{Conversation: c, Seq: s.state.Positions[c]})
	}
	for _, m := range s.state.Outbox {
		payload := new(pb.Payload)
		if err := proto.Unmarshal(m.Payload, payload); err != nil {
			continue // its checksum was right: it is from a later version of the SDK
		}
		msg := resume.Message{Conversation: m.Conversation, ID: m.ID, Payload: payload}
		if m.ReplyTo != nil {
			msg.ReplyTo = &pb.Ref{SenderId: m.ReplyTo.SenderID, ClientMsgId: m.ReplyTo.ID}
		}
		out.Outbox = append(out.Outbox, msg)
	}
	return out
}

func saveMessage(m resume.Message) (*savedMessage, error) {
	payload, err := proto.Marshal(m.Payload)
	if err != nil {
		return nil, err
	}
	out := &savedMessage{Conversation: m.Conversation, ID: m.ID, Payload: payload}
	if m.ReplyTo != nil {
		out.ReplyTo = &Ref{SenderID: m.ReplyTo.GetSenderId(), ID: m.ReplyTo.GetClientMsgId()}
	}
	return out, nil
}
