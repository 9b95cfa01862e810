package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/ops/clustertest"
)

var interrupt = os.Interrupt

// watcher is a log in which a line is waited for.
type watcher struct {
	want  string
	found chan struct{}

	mu   sync.Mutex
	all  *strings.Builder
	seen bool
}

func (w *watcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(b)
	if !w.seen && strings.Contains(w.all.String(), w.want) {
		w.seen = true
		close(w.found)
	}
	return len(b), nil
}

// stranger speaks the protocol by hand.
type stranger struct {
	t    *testing.T
	conn net.Conn
	in   *wire.Reader
	id   uint64
}

func newStranger(t *testing.T, addr string) *stranger {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(ctxFor(t), "tcp", addr)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	return &stranger{t: t, conn: conn, in: wire.NewReader(conn, 1<<20)}
}

func (s *stranger) write(e *pb.Envelope) {
	s.t.Helper()
	frame, err := wire.AppendFrame(nil, e)
	must(s.t, err)
	_, err = s.conn.Write(frame)
	must(s.t, err)
}

// ask sends a request and gives its answer, passing over events.
func (s *stranger) ask(e *pb.Envelope) *pb.Envelope {
	s.t.Helper()
	s.id++
	e.Id = s.id
	s.write(e)
	return s.answer(s.id)
}

func (s *stranger) answer(id uint64) *pb.Envelope {
	s.t.Helper()
	for {
		e, err := s.in.Next()
		must(s.t, err)
		if e.GetId() == id {
			return e
		}
	}
}

// closed reads the end of the connection, and gives the reason that was told.
func (s *stranger) closed() (reason pb.Closing_Reason) {
	s.t.Helper()
	for {
		e, err := s.in.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return reason
		}
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				s.t.Fatal("the connection was not ended")
			}
			return reason // reset
		}
		if c := e.GetClosing(); c != nil {
			reason = c.GetReason()
		}
	}
}

func (s *stranger) hello() {
	s.t.Helper()
	if s.ask(&pb.Envelope{Body: &pb.Envelope_Hello{Hello: &pb.HelloRequest{Version: 1, Client: "by hand"}}}).GetHelloOk() == nil {
		s.t.Fatal("Hello was refused")
	}
}

func (s *stranger) register(name string) *pb.SessionResponse {
	s.t.Helper()
	got := s.ask(&pb.Envelope{Body: &pb.Envelope_Register{Register: &pb.RegisterRequest{Name: name, Password: password, Device: device()}}})
	if got.GetSession() == nil {
		s.t.Fatalf("%s was refused: %v", name, got)
	}
	return got.GetSession()
}

func device() *pb.Device { return &pb.Device{Id: wire.NewMessageID(), Name: "by hand"} }

func send(conversation, id, text string) *pb.Envelope {
	return &pb.Envelope{Body: &pb.Envelope_Send{Send: &pb.SendRequest{
		Conversation: conversation, ClientMsgId: id, Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: text}}},
	}}}
}

func TestR31_BadRequests_AreNamedAndHurtNobody(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 1, Routers: 1, Histories: 1})
	addr := c.Nodes[0].Addr
	alice, bob := newPerson(t, "alice", addr), newPerson(t, "bob", addr)
	conversation := befriend(t, alice, bob)

	s := newStranger(t, addr)
	code := func(e *pb.Envelope) pb.Code { t.Helper(); return s.ask(e).GetError().GetCode() }
	if got := code(send(conversation, wire.NewMessageID(), "x")); got != pb.Code_CODE_NOT_LOGGED_IN {
		t.Errorf("a message before Hello: %v", got)
	}
	s.hello()
	if got := code(send(conversation, wire.NewMessageID(), "x")); got != pb.Code_CODE_NOT_LOGGED_IN {
		t.Errorf("a message before log-in: %v", got)
	}
	me := s.register("mallory")
	mine, alices := me.GetUser().GetId(), alice.session.User.ID
	long := strings.Repeat("x", wire.MaxTextBytes+1)
	for name, test := range map[string]struct {
		e    *pb.Envelope
		want pb.Code
	}{
		"no body":              {&pb.Envelope{}, pb.Code_CODE_UNSUPPORTED},
		"an answer":            {&pb.Envelope{Body: &pb.Envelope_Ok{Ok: &pb.Ok{}}}, pb.Code_CODE_UNSUPPORTED},
		"second log-in":        {&pb.Envelope{Body: &pb.Envelope_Login{Login: &pb.LoginRequest{Name: "alice", Password: password, Device: device()}}}, pb.Code_CODE_ALREADY},
		"to a stranger":        {send("d:"+alices+":"+mine, wire.NewMessageID(), "x"), pb.Code_CODE_NOT_FRIENDS},
		"to nobody":            {send("d:"+mine+":999999", wire.NewMessageID(), "x"), pb.Code_CODE_NOT_FRIENDS},
		"between others":       {send(conversation, wire.NewMessageID(), "x"), pb.Code_CODE_NOT_FRIENDS},
		"to oneself":           {send("d:"+mine+":"+mine, wire.NewMessageID(), "x"), pb.Code_CODE_INVALID},
		"to notices":           {send("n:"+mine, wire.NewMessageID(), "x"), pb.Code_CODE_FORBIDDEN},
		"to a group":           {send("g:1", wire.NewMessageID(), "x"), pb.Code_CODE_NOT_FOUND},
		"leading zero":         {send("d:0"+alices+":"+mine, wire.NewMessageID(), "x"), pb.Code_CODE_INVALID},
		"turned round":         {send("d:"+mine+":"+alices, wire.NewMessageID(), "x"), pb.Code_CODE_INVALID},
		"no conversation":      {send("", wire.NewMessageID(), "x"), pb.Code_CODE_INVALID},
		"no id":                {send("d:"+alices+":"+mine, "", "x"), pb.Code_CODE_INVALID},
		"id of another kind":   {send("d:"+alices+":"+mine, "9b2f6a3e-0c1d-4a57-8d5e-2f0d7b1c9a11", "x"), pb.Code_CODE_INVALID},
		"empty text":           {send("d:"+alices+":"+mine, wire.NewMessageID(), ""), pb.Code_CODE_INVALID},
		"long text":            {send("d:"+alices+":"+mine, wire.NewMessageID(), long), pb.Code_CODE_INVALID},
		"NUL":                  {send("d:"+alices+":"+mine, wire.NewMessageID(), "a\x00b"), pb.Code_CODE_INVALID},
		"broken UTF-8":         {send("d:"+alices+":"+mine, wire.NewMessageID(), "a\xff"), pb.Code_CODE_INVALID},
		"no payload":           {&pb.Envelope{Body: &pb.Envelope_Send{Send: &pb.SendRequest{Conversation: "d:" + alices + ":" + mine, ClientMsgId: wire.NewMessageID()}}}, pb.Code_CODE_INVALID},
		"server's payload":     {&pb.Envelope{Body: &pb.Envelope_Send{Send: &pb.SendRequest{Conversation: "d:" + alices + ":" + mine, ClientMsgId: wire.NewMessageID(), Payload: &pb.Payload{Kind: &pb.Payload_Friend{Friend: &pb.FriendNotice{}}}}}}, pb.Code_CODE_INVALID},
		"history of others":    {&pb.Envelope{Body: &pb.Envelope_History{History: &pb.HistoryRequest{Conversation: conversation}}}, pb.Code_CODE_NOT_FOUND},
		"history over limit":   {&pb.Envelope{Body: &pb.Envelope_History{History: &pb.HistoryRequest{Conversation: conversation, Limit: 201}}}, pb.Code_CODE_INVALID},
		"read of others":       {&pb.Envelope{Body: &pb.Envelope_Read{Read: &pb.ReadRequest{Conversation: conversation, Seq: 1}}}, pb.Code_CODE_NOT_FOUND},
		"friend of nobody":     {&pb.Envelope{Body: &pb.Envelope_AddFriend{AddFriend: &pb.AddFriendRequest{Name: "nobody there"}}}, pb.Code_CODE_NOT_FOUND},
		"friend of oneself":    {&pb.Envelope{Body: &pb.Envelope_AddFriend{AddFriend: &pb.AddFriendRequest{Name: "mallory"}}}, pb.Code_CODE_INVALID},
		"long greeting":        {&pb.Envelope{Body: &pb.Envelope_AddFriend{AddFriend: &pb.AddFriendRequest{Name: "alice", Greeting: strings.Repeat("ä", 201)}}}, pb.Code_CODE_INVALID},
		"answer to no request": {&pb.Envelope{Body: &pb.Envelope_AnswerFriend{AnswerFriend: &pb.AnswerFriendRequest{Name: "alice", Accept: true}}}, pb.Code_CODE_NOT_FOUND},
		"find nobody":          {&pb.Envelope{Body: &pb.Envelope_FindUser{FindUser: &pb.FindUserRequest{Name: "nobody there"}}}, pb.Code_CODE_NOT_FOUND},
		"removes a stranger":   {&pb.Envelope{Body: &pb.Envelope_RemoveFriend{RemoveFriend: &pb.RemoveFriendRequest{Name: "alice"}}}, pb.Code_CODE_NOT_FOUND},
		"removes nobody":       {&pb.Envelope{Body: &pb.Envelope_RemoveFriend{RemoveFriend: &pb.RemoveFriendRequest{Name: "nobody there"}}}, pb.Code_CODE_NOT_FOUND},
	} {
		if got := code(test.e); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
		if s.ask(&pb.Envelope{Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}}).GetOk() == nil {
			t.Fatalf("%s: the connection does not live", name)
		}
	}
	db := database(t, c)
	if n := count(t, db, "SELECT COUNT(*) FROM pairs WHERE lo = ? OR hi = ?", mine, mine); n != 0 {
		t.Errorf("%d pairs of mallory were stored", n)
	}

	// Framing that is broken ends the connection, and says why.
	for name, test := range map[string]struct {
		raw  []byte
		want pb.Closing_Reason
	}{
		"too large": {binary.BigEndian.AppendUint32(nil, wire.DefaultMaxFrame+1), pb.Closing_REASON_TOO_LARGE},
		"huge":      {bytes.Repeat([]byte{0xff}, 64), pb.Closing_REASON_TOO_LARGE},
		"garbage":   {append(binary.BigEndian.AppendUint32(nil, 4), 0xff, 0xff, 0xff, 0xff), pb.Closing_REASON_MALFORMED},
	} {
		s := newStranger(t, addr)
		s.hello()
		_, err := s.conn.Write(test.raw)
		must(t, err)
		if got := s.closed(); got != test.want {
			t.Errorf("%s: closed with %v, want %v", name, got, test.want)
		}
	}

	// The two friends noticed nothing.
	if _, err := alice.Send(ctxFor(t), conversation, "%s%n \"'; DROP TABLE messages; -- 🎉 \u202eשלום 007"); err != nil {
		t.Error(err)
	}
	got := bob.awaitCount(conversation, 3)
	if got[2].Text != "%s%n \"'; DROP TABLE messages; -- 🎉 \u202eשלום 007" || len(got) != 3 {
		t.Errorf("bob was shown %s", texts(got))
	}
}

// R23: names are compared byte by byte.
func TestR23_NamesWithLeadingZeros_AreTwoAccounts(t *testing.T) {
	t.Parallel()
	c := startCluster(t, clustertest.Options{Nodes: 1, Routers: 1, Histories: 1})
	addr := c.Nodes[0].Addr
	with, without := newPerson(t, "0614897828", addr), newPerson(t, "614897828", addr)
	if with.session.User.ID == without.session.User.ID {
		t.Fatal("they are one account")
	}
	conversation := befriend(t, with, without)
	_, err := with.Send(ctxFor(t), conversation, "0614897828")
	must(t, err)
	got := without.awaitCount(conversation, 3)
	if got[2].Text != "0614897828" || got[2].Sender.Name != "0614897828" {
		t.Errorf("was shown %+v", got[2])
	}
	found, err := with.FindUser(ctxFor(t), "614897828")
	must(t, err)
	if found.ID != without.session.User.ID {
		t.Errorf("found %+v", found)
	}
}
