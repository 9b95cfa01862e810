package node

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/node/session"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
	"github.com/futurechat/future/router/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a node on memory parts, whose presence answers at once.
type rig struct {
	t    *testing.T
	node *Node
	log  *eventlog.Guard
	gate atomic.Pointer[sync.Mutex] // if set, who looks for a resent message in the database goes through it
}

type instantPresence struct{ node *Node }

func (p instantPresence) Register(c uint64, _ int64, _ string) { p.node.Registered(c, false) }
func (p instantPresence) Unregister(uint64)                    {}
func (p instantPresence) RegisterGroup(g int64)                { p.node.GroupRegistered(g, false) }
func (p instantPresence) UnregisterGroup(int64)                {}
func (p instantPresence) Incarnation() string                  { return "life" }

type nobody struct{}

func (nobody) Locate(_ context.Context, users []int64) ([][]presence.Place, error) {
	return make([][]presence.Place, len(users)), nil
}
func (nobody) Kick(string, peer.Kick)                        {}
func (nobody) Publish(context.Context, string, uint64) error { return nil }
func (nobody) History(context.Context, int64, *pb.HistoryRequest) (*pb.HistoryResponse, error) {
	return &pb.HistoryResponse{}, nil
}
func (nobody) Heads(context.Context, int64) ([]*pb.Head, error) { return nil, nil }

func newRig(t *testing.T) *rig {
	t.Helper()
	log := eventlog.NewGuard(eventlog.NewMemory(eventlog.MemoryOptions{}))
	if err := log.CreateTopic(t.Context(), eventlog.TopicSpec{Name: chat.TopicMessages, Partitions: 4, Replication: 1}); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, log: log}
	store := chat.NewMemory(chat.MemoryOptions{Fault: func(op chat.Op) error {
		if gate := r.gate.Load(); gate != nil && op == chat.OpFindMessage {
			gate.Lock()
			defer gate.Unlock()
		}
		return nil
	}})
	topic := eventlog.State{Topic: chat.TopicMessages, Partitions: 4, Epoch: 1}
	n, err := New(Options{
		Name: "n", Cluster: "c", Topic: topic, Timeline: nobody{}, Outbox: nobody{}, Log: log, Locator: nobody{}, Kicker: nobody{},
		Service: chat.New(chat.Options{Store: store, Topic: topic, Argon: chat.Argon{MemoryKiB: 8, Time: 1, Threads: 1}}),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.Start(instantPresence{n})
	t.Cleanup(func() {
		n.Stop()
		if err := log.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	r.node = n
	return r
}

// fakeConn keeps what is sent to it, up to room frames.
type fakeConn struct {
	t    *testing.T
	id   uint64
	mu   sync.Mutex
	cond *sync.Cond
	room int
	got  []*pb.Envelope
	end  pb.Closing_Reason
}

func newConn(t *testing.T, id uint64) *fakeConn {
	c := &fakeConn{t: t, id: id, room: 1 << 20}
	c.cond = sync.NewCond(&c.mu)
	return c
}

func (c *fakeConn) ID() uint64           { return c.id }
func (c *fakeConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *fakeConn) LoggedIn()            {}

func (c *fakeConn) Send(frame []byte) error {
	e, err := wire.Decode(frame[wire.HeaderLen:])
	if err != nil || int(binary.BigEndian.Uint32(frame)) != len(frame)-wire.HeaderLen {
		return errors.New("bad frame")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.room == 0 {
		return ErrSlow
	}
	c.room--
	c.got = append(c.got, e)
	c.cond.Broadcast()
	return nil
}

func (c *fakeConn) Close(r pb.Closing_Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = r
	c.cond.Broadcast()
}

// await waits for an envelope that fits.
func (c *fakeConn) await(fits func(*pb.Envelope) bool) *pb.Envelope {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	late := false
	defer time.AfterFunc(10*time.Second, func() {
		c.mu.Lock()
		late = true
		c.mu.Unlock()
		c.cond.Broadcast()
	}).Stop()
	for {
		for _, e := range c.got {
			if fits(e) {
				return e
			}
		}
		if late {
			c.t.Fatalf("what was awaited did not come, but %d others", len(c.got))
		}
		c.cond.Wait()
	}
}

func (r *rig) ask(c *Client, id uint64, e *pb.Envelope) {
	r.t.Helper()
	e.Id = id
	frame, err := wire.AppendFrame(nil, e)
	if err != nil {
		r.t.Fatal(err)
	}
	c.Frame(frame[wire.HeaderLen:])
}

// enter registers a user on a new connection.
func (r *rig) enter(id uint64, name string) (*Client, *fakeConn, int64) {
	r.t.Helper()
	conn := newConn(r.t, id)
	c := r.node.Open(conn)
	r.ask(c, 1, &pb.Envelope{Body: &pb.Envelope_Hello{Hello: &pb.HelloRequest{Version: 1}}})
	r.ask(c, 2, &pb.Envelope{Body: &pb.Envelope_Register{Register: &pb.RegisterRequest{
		Name: name, Password: "password", Device: &pb.Device{Id: wire.NewMessageID()},
	}}})
	got := conn.await(func(e *pb.Envelope) bool { return e.GetId() == 2 })
	user, err := wire.ParseID(got.GetSession().GetUser().GetId())
	if err != nil {
		r.t.Fatalf("%s: %v", name, got)
	}
	for running := true; running; { // a test may change the connection now
		c.mu.Lock()
		running = c.running
		c.mu.Unlock()
	}
	return c, conn, user
}

func (r *rig) forward(number uint64, to peer.Recipient, seqs ...uint64) peer.Answer {
	r.t.Helper()
	f := peer.Forward{Incarnation: "life", RouterEpoch: 1, Number: number}
	for _, seq := range seqs {
		body, err := (&pb.Message{Conversation: "d:1:2", Seq: seq}).MarshalVT()
		if err != nil {
			r.t.Fatal(err)
		}
		f.Messages = append(f.Messages, peer.Message{Seq: seq, Body: body, Recipients: []peer.Recipient{to}})
	}
	return r.node.Forward(1, f)
}

func delivered(seq uint64) func(*pb.Envelope) bool {
	return func(e *pb.Envelope) bool {
		m := e.GetDelivery().GetMessages()
		return len(m) == 1 && m[0].GetSeq() == seq
	}
}

func TestForward_ToTheSessionsThatAreHere(t *testing.T) {
	r := newRig(t)
	_, conn, user := r.enter(7, "alice")
	if a := r.forward(1, peer.Recipient{User: user, Connection: 7}, 10, 11); a.Status != peer.StatusDelivered || len(a.Missed) != 0 {
		t.Errorf("answer %+v", a)
	}
	conn.await(delivered(10))
	conn.await(delivered(11))
	// Somebody else's connection, and one that is gone, are missed, also when the message is repeated.
	for i, to := range []peer.Recipient{{User: user + 1, Connection: 7}, {User: user, Connection: 8}} {
		if a := r.forward(uint64(2+i), to, uint64(12+i), 11); len(a.Missed) != 2 {
			t.Errorf("%+v: answer %+v, want both missed", to, a)
		}
	}
	if a := r.node.Forward(1, peer.Forward{Incarnation: "another"}); a.Status != peer.StatusWrongIncarnation {
		t.Errorf("another life: %+v", a)
	}
	if a := r.node.Forward(1, peer.Forward{}); a.Status != peer.StatusWrongIncarnation {
		t.Errorf("no life: %+v", a)
	}
}

func TestForward_AfterAHoleTheSessionsCompareFirst(t *testing.T) {
	r := newRig(t)
	_, conn, user := r.enter(7, "alice")
	to := peer.Recipient{User: user, Connection: 7}
	r.forward(1, to, 10)
	r.forward(3, to, 12)
	conn.await(delivered(12))
	conn.mu.Lock()
	defer conn.mu.Unlock()
	var order []string
	for _, e := range conn.got {
		switch {
		case e.GetCompareHeads() != nil:
			order = append(order, "compare")
		case e.GetDelivery() != nil:
			order = append(order, wire.FormatID(int64(e.GetDelivery().GetMessages()[0].GetSeq())))
		}
	}
	if len(order) != 3 || order[0] != "10" || order[1] != "compare" || order[2] != "12" {
		t.Errorf("the session was told %v", order)
	}
}

// A delivery for which there is no room is left out, and the session compares heads once there is room.
func TestSlowReader_ComparesLater(t *testing.T) {
	r := newRig(t)
	c, conn, user := r.enter(7, "alice")
	conn.mu.Lock()
	conn.room = 0
	conn.mu.Unlock()
	r.forward(1, peer.Recipient{User: user, Connection: 7}, 10)
	conn.mu.Lock()
	conn.room = 10
	conn.mu.Unlock()
	c.Drained()
	conn.await(func(e *pb.Envelope) bool { return e.GetCompareHeads() != nil })
}

// Answers wait for room, in their order, and no request is run meanwhile: so a client on a slow line that asks for many pages gets
// them all, and one that takes nothing costs little.
func TestSlowReader_GetsItsAnswersLater(t *testing.T) {
	r := newRig(t)
	c, conn, _ := r.enter(7, "alice")
	room := func(n int) {
		conn.mu.Lock()
		conn.room = n
		conn.mu.Unlock()
	}
	room(0)
	history := &pb.Envelope{Body: &pb.Envelope_History{History: &pb.HistoryRequest{Conversation: "d:1:2"}}}
	held := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running {
			return -1
		}
		return len(c.held)
	}
	for i := range uint64(3) {
		r.ask(c, 3+i, history)
	}
	for held() != 1 { // the first page
		time.Sleep(time.Millisecond)
	}
	r.ask(c, 6, &pb.Envelope{Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}})
	for i := range uint64(4) {
		room(1)
		c.Drained()
		conn.await(func(e *pb.Envelope) bool { return e.GetId() == []uint64{3, 6, 4, 5}[i] })
		if i < 3 {
			for held() < 1 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	room(0)
	for i := range uint64(mostHeld) {
		r.ask(c, 10+i, &pb.Envelope{Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}})
	}
	if conn.end != 0 {
		t.Errorf("closed with %v", conn.end)
	}
	r.ask(c, 1000, &pb.Envelope{Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}})
	if conn.end != pb.Closing_REASON_SLOW_CONSUMER {
		t.Errorf("closed with %v", conn.end)
	}
}

// friends are alice, who is given, and bob.
func (r *rig) friends() (alice *Client, conn *fakeConn, conversation string) {
	r.t.Helper()
	a, connA, idA := r.enter(1, "alice")
	b, connB, idB := r.enter(2, "bob")
	r.ask(a, 3, &pb.Envelope{Body: &pb.Envelope_AddFriend{AddFriend: &pb.AddFriendRequest{Name: "bob"}}})
	connA.await(func(e *pb.Envelope) bool { return e.GetId() == 3 && e.GetOk() != nil })
	r.ask(b, 3, &pb.Envelope{Body: &pb.Envelope_AnswerFriend{AnswerFriend: &pb.AnswerFriendRequest{Name: "alice", Accept: true}}})
	connB.await(func(e *pb.Envelope) bool { return e.GetId() == 3 && e.GetOk() != nil })
	return a, connA, wire.Direct(idA, idB)
}

func say(conversation, text string) *pb.Envelope {
	return &pb.Envelope{Body: &pb.Envelope_Send{Send: &pb.SendRequest{
		Conversation: conversation, ClientMsgId: wire.NewMessageID(),
		Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: text}}},
	}}}
}

func TestR18_Sends_ReachTheLogInOrder(t *testing.T) {
	r := newRig(t)
	a, connA, conversation := r.friends()
	const n = 50
	for i := range uint64(n) {
		r.ask(a, 10+i, say(conversation, wire.FormatID(int64(i+1))))
	}
	last := uint64(0)
	for i := range uint64(n) {
		got := connA.await(func(e *pb.Envelope) bool { return e.GetId() == 10+i }).GetSent()
		if got.GetSeq() <= last {
			t.Fatalf("message %d has seq %d after %d", i, got.GetSeq(), last)
		}
		last = got.GetSeq()
	}
	// Once the log is not the one that is known, nothing more goes into it.
	r.log.Halt()
	r.ask(a, 99, say(conversation, "x"))
	if got := connA.await(func(e *pb.Envelope) bool { return e.GetId() == 99 }); got.GetError().GetCode() != pb.Code_CODE_UNAVAILABLE {
		t.Errorf("after a halt: %v", got)
	}
}

// A resend is looked for in the database by a worker; when it goes on, the next send, which needs no database, is at hand.
func TestR18_TheNextSendWaitsForTheLogToTakeTheOneBefore(t *testing.T) {
	r := newRig(t)
	alice, conn, conversation := r.friends()
	var gate sync.Mutex
	gate.Lock()
	r.gate.Store(&gate)
	first := say(conversation, "first")
	first.GetSend().Resend = true
	r.ask(alice, 10, first)
	r.ask(alice, 11, say(conversation, "second"))
	gate.Unlock()
	seq := func(id uint64) uint64 {
		return conn.await(func(e *pb.Envelope) bool { return e.GetId() == id }).GetSent().GetSeq()
	}
	if first, second := seq(10), seq(11); first == 0 || second <= first {
		t.Errorf("the first has seq %d, the second %d", first, second)
	}
}

// Who gives frames is an event loop, with thousands of other connections: it must not wait for what a request waits for.
func TestI6_ASlowDatabaseHoldsUpNoEventLoop(t *testing.T) {
	r := newRig(t)
	alice, conn, conversation := r.friends()
	var gate sync.Mutex
	gate.Lock()
	r.gate.Store(&gate)
	resend := say(conversation, "slow")
	resend.GetSend().Resend = true
	taken := make(chan struct{})
	go func() {
		r.ask(alice, 10, resend)
		close(taken)
	}()
	select {
	case <-taken:
	case <-time.After(10 * time.Second):
		t.Error("the frame is not taken while the database does not answer")
	}
	gate.Unlock()
	<-taken
	conn.await(func(e *pb.Envelope) bool { return e.GetId() == 10 && e.GetSent() != nil })
}

func TestMalformedFrame_EndsTheConnection(t *testing.T) {
	r := newRig(t)
	conn := newConn(t, 1)
	c := r.node.Open(conn)
	c.Frame([]byte{0xff, 0xff})
	if conn.end != pb.Closing_REASON_MALFORMED || conn.got[0].GetClosing().GetReason() != pb.Closing_REASON_MALFORMED {
		t.Errorf("closed with %v, told %v", conn.end, conn.got)
	}
}

// drainingConn's queue empties, and Drained is called, just between a refusal and whatever its caller does about it.
type drainingConn struct {
	*fakeConn
	drained func()
}

func (c *drainingConn) Send(frame []byte) error {
	err := c.fakeConn.Send(frame)
	if errors.Is(err, ErrSlow) && c.drained != nil {
		c.mu.Lock()
		c.room = 10
		c.mu.Unlock()
		c.drained()
	}
	return err
}

func TestSlowReader_ThatDrainsMeanwhile_MissesNothing(t *testing.T) {
	r := newRig(t)
	c, conn, user := r.enter(7, "alice")
	conn.mu.Lock()
	conn.room = 0
	conn.mu.Unlock()
	c.conn = &drainingConn{conn, c.Drained}
	r.forward(1, peer.Recipient{User: user, Connection: 7}, 10)
	conn.await(func(e *pb.Envelope) bool { return delivered(10)(e) || e.GetCompareHeads() != nil })
}

// The word to compare is no answer: a client without room for it is slow, not gone.
func TestSlowReader_IsToldToCompareLater(t *testing.T) {
	r := newRig(t)
	c, conn, _ := r.enter(7, "alice")
	conn.mu.Lock()
	conn.room = 0
	conn.mu.Unlock()
	r.node.CompareAll()
	conn.mu.Lock()
	if conn.end != 0 {
		t.Errorf("closed with %v", conn.end)
	}
	conn.room = 10
	conn.mu.Unlock()
	c.Drained()
	conn.await(func(e *pb.Envelope) bool { return e.GetCompareHeads() != nil })
}

// Who sends without end must not keep the goroutine that happens to run his events: it brings messages for all others too.
func TestFlood_DoesNotKeepWhoDelivers(t *testing.T) {
	r := newRig(t)
	c, _, user := r.enter(7, "alice")
	frame, err := wire.AppendFrame(nil, &pb.Envelope{Id: 9, Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}})
	if err != nil {
		t.Fatal(err)
	}
	c.conn = &noisyConn{fakeConn: newConn(t, 7), hear: func() { // a ping comes for each that is answered
		c.Frame(frame[wire.HeaderLen:])
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.forward(1, peer.Recipient{User: user, Connection: 7}, 10)
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("the delivery does not return")
	}
	c.conn.(*noisyConn).quiet.Store(true)
	<-done
}

type noisyConn struct {
	*fakeConn
	hear  func()
	quiet atomic.Bool
}

func (c *noisyConn) Send([]byte) error {
	if !c.quiet.Load() {
		c.hear()
	}
	return nil
}

func TestFlood_IsBounded(t *testing.T) {
	r := newRig(t)
	c, conn, _ := r.enter(7, "alice")
	frame, err := wire.AppendFrame(nil, &pb.Envelope{Id: 9, Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}})
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.running = true // somebody runs them, slowly
	c.mu.Unlock()
	for range 10 * backlog {
		c.Frame(frame[wire.HeaderLen:])
	}
	if len(c.events) > backlog || conn.end != pb.Closing_REASON_OVERLOADED {
		t.Errorf("%d events wait, closed with %v", len(c.events), conn.end)
	}
}

// A node that goes down answers what is under way, refuses what comes after, and tells where to go.
func TestR35_Drain_AnswersThenTellsWhereToGo(t *testing.T) {
	r := newRig(t)
	r.node.opts.Elsewhere = func() []string { return []string{"a:1", "b:2", "c:3"} }
	c, conn, _ := r.enter(1, "alice")
	drained := make(chan error, 1)
	go func() { drained <- r.node.Drain(t.Context()) }()
	closing := conn.await(func(e *pb.Envelope) bool { return e.GetClosing() != nil }).GetClosing()
	addrs := slices.Sorted(slices.Values(closing.GetAddrs()))
	if closing.GetReason() != pb.Closing_REASON_DRAINING || closing.GetRetryAfterMs() == 0 || !slices.Equal(addrs, []string{"a:1", "b:2", "c:3"}) {
		t.Errorf("got %v", closing)
	}
	r.ask(c, 9, &pb.Envelope{Body: &pb.Envelope_ListFriends{ListFriends: &pb.ListFriendsRequest{}}})
	refused := conn.await(func(e *pb.Envelope) bool { return e.GetId() == 9 })
	if refused.GetError().GetCode() != pb.Code_CODE_DRAINING {
		t.Errorf("got %v", refused)
	}
	c.Closed()
	if err := <-drained; err != nil || r.node.Connections() != 0 {
		t.Errorf("%v, %d connections are left", err, r.node.Connections())
	}
}

// An answer that found no room is told before the connection ends, though the session has nothing more to do.
func TestR35_Drain_WaitsForAnswersThatFoundNoRoom(t *testing.T) {
	r := newRig(t)
	c, conn, _ := r.enter(1, "alice")
	room := func(n int) {
		conn.mu.Lock()
		defer conn.mu.Unlock()
		conn.room = n
	}
	room(0)
	r.ask(c, 9, &pb.Envelope{Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}})
	c.post(session.Drain{})
	room(10)
	c.Drained()
	conn.await(func(e *pb.Envelope) bool { return e.GetClosing() != nil })
	conn.await(func(e *pb.Envelope) bool { return e.GetId() == 9 })
	if conn.end != pb.Closing_REASON_DRAINING {
		t.Errorf("closed with %v", conn.end)
	}
	c.Closed()
}

// elsewhere is a cluster in which users have another connection, on a device; it counts those that are ended.
type elsewhere struct {
	nobody
	at    presence.Place
	asked func()
	kicks int
}

func (e *elsewhere) Locate(context.Context, []int64) ([][]presence.Place, error) {
	e.asked()
	return [][]presence.Place{{e.at}}, nil
}
func (e *elsewhere) Kick(string, peer.Kick) { e.kicks++ }

// A client whose connection broke while its log-in waited is connected again by the time when it is carried out. To end that newer
// connection would strand it, since who was replaced does not come back.
func TestR35_AResumeOfABrokenConnection_LeavesTheNewerOneAlone(t *testing.T) {
	for name, want := range map[string]int{"not broken": 1, "broken before": 0, "broken meanwhile": 0} {
		r := newRig(t)
		first, conn, _ := r.enter(1, "alice")
		entered := conn.await(func(e *pb.Envelope) bool { return e.GetSession() != nil }).GetSession()
		first.Closed()
		c := r.node.Open(newConn(t, 2))
		other := &elsewhere{at: presence.Place{Incarnation: "other", Connection: 1, Device: first.account().DeviceID}, asked: func() {}}
		r.node.opts.Locator, r.node.opts.Kicker = other, other
		switch name {
		case "broken before":
			c.Closed()
		case "broken meanwhile":
			other.asked = c.Closed
		}
		r.node.do(job{c, session.Run{Request: &pb.Envelope{Id: 2, Body: &pb.Envelope_Resume{Resume: &pb.ResumeRequest{
			Token: entered.GetToken(), Device: &pb.Device{Id: first.account().DeviceID},
		}}}}})
		if other.kicks != want {
			t.Errorf("%s: %d connections were ended, want %d", name, other.kicks, want)
		}
	}
}

// A log-in that nobody waits for any more would end the session that the client has from another node by then.
func TestR35_ALoginOfABrokenConnection_EndsNoSession(t *testing.T) {
	r := newRig(t)
	first, conn, _ := r.enter(1, "alice")
	entered := conn.await(func(e *pb.Envelope) bool { return e.GetSession() != nil }).GetSession()
	late := r.node.Open(newConn(t, 2))
	late.Closed()
	r.node.do(job{late, session.Run{Request: &pb.Envelope{Id: 2, Body: &pb.Envelope_Login{Login: &pb.LoginRequest{
		Name: "alice", Password: "password", Device: &pb.Device{Id: first.account().DeviceID},
	}}}}})
	if _, err := r.node.opts.Service.Resume(t.Context(), &pb.ResumeRequest{
		Token: entered.GetToken(), Device: &pb.Device{Id: first.account().DeviceID},
	}); err != nil {
		t.Error(err)
	}
}
