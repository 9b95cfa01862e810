package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
	"github.com/futurechat/future/router/eventlog"
	"github.com/futurechat/future/router/peer"
)

// heldLog answers appends only when told to, in order.
type heldLog struct {
	mu      sync.Mutex
	changed chan struct{}
	next    int64
	waiting []func(eventlog.Appended, error)
	entries []eventlog.Entry
}

func (l *heldLog) Append(e eventlog.Entry, done func(eventlog.Appended, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting, l.entries = append(l.waiting, done), append(l.entries, e)
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// await waits until n appends wait.
func (l *heldLog) await(n int) {
	for {
		l.mu.Lock()
		have, changed := len(l.waiting), l.changed
		l.mu.Unlock()
		if have >= n {
			return
		}
		<-changed
	}
}

func (l *heldLog) answer(err error) {
	l.mu.Lock()
	all := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	for _, done := range all {
		done(eventlog.Appended{Offset: l.next, Time: time.UnixMilli(1)}, err)
		l.next++
	}
}

// lease is presence whose life a test changes.
type lease struct {
	instantPresence
	mu     sync.Mutex
	life   string
	looked func() // after each look
}

func (l *lease) Incarnation() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.looked()
	return l.life
}

func (l *lease) become(life string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.life = life
}

// removal is a node with alice and bob, who are friends, whose log and lease a test controls.
type removal struct {
	*rig
	log   *heldLog
	lease *lease
	store *chat.Memory
	other *chat.Service      // of another node
	down  atomic.Bool        // the database
	pair  chan chan struct{} // if not nil, each look at a pair waits until what it gives is closed
	alice *Client
	conn  *fakeConn
	users [2]chat.Account
	id    uint64
}

func newRemoval(t *testing.T, outbox Outbox) *removal {
	t.Helper()
	r := &removal{log: &heldLog{changed: make(chan struct{})}, lease: &lease{life: "life", looked: func() {}}, id: 10}
	r.store = chat.NewMemory(chat.MemoryOptions{Fault: func(op chat.Op) error {
		if op == chat.OpPair && r.pair != nil {
			wait := make(chan struct{})
			r.pair <- wait
			<-wait
		}
		if r.down.Load() {
			return errors.New("away")
		}
		return nil
	}})
	topic := eventlog.State{Topic: chat.TopicMessages, Partitions: 4, Epoch: 1}
	opts := chat.Options{Store: r.store, Topic: topic, Argon: chat.Argon{MemoryKiB: 8, Time: 1, Threads: 1}}
	r.other = chat.New(opts)
	n, err := New(Options{
		Name: "n", Cluster: "c", Topic: topic, Timeline: nobody{}, Outbox: outbox, Log: r.log, Locator: nobody{}, Kicker: nobody{},
		Service: chat.New(opts),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.lease.instantPresence = instantPresence{n}
	n.Start(r.lease)
	t.Cleanup(n.Stop)
	r.rig = &rig{t: t, node: n}
	var id int64
	r.alice, r.conn, id = r.enter(1, "alice")
	r.users[0] = chat.Account{ID: id, Name: "alice"}
	_, _, id = r.enter(2, "bob")
	r.users[1] = chat.Account{ID: id, Name: "bob"}
	r.befriend()
	return r
}

func (r *removal) befriend() {
	r.t.Helper()
	_, err := r.other.AddFriend(r.t.Context(), r.users[0], &pb.AddFriendRequest{Name: "bob"})
	if err == nil {
		_, err = r.other.AnswerFriend(r.t.Context(), r.users[1], &pb.AnswerFriendRequest{Name: "alice", Accept: true})
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *removal) unfriend() chat.Outgoing {
	r.t.Helper()
	out, err := r.other.RemoveFriend(r.t.Context(), r.users[1], &pb.RemoveFriendRequest{Name: "alice"})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// send sends n messages and gives the ids of the requests.
func (r *removal) send(n int) []uint64 {
	r.t.Helper()
	var ids []uint64
	for range n {
		r.id++
		ids = append(ids, r.id)
		r.ask(r.alice, r.id, &pb.Envelope{Body: &pb.Envelope_Send{Send: &pb.SendRequest{
			Conversation: wire.Direct(r.users[0].ID, r.users[1].ID), ClientMsgId: wire.NewMessageID(),
			Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: "x"}}},
		}}})
	}
	return ids
}

// wantAnswers checks what the requests are answered, and that they are in order. 0 is an acknowledgement.
func (r *removal) wantAnswers(ids []uint64, want pb.Code) {
	r.t.Helper()
	for _, id := range ids {
		e := r.conn.await(func(e *pb.Envelope) bool { return e.GetId() == id })
		if e.GetError().GetCode() != want || want == 0 && e.GetSent() == nil {
			r.t.Errorf("request %d is answered %v, want %v", id, e, want)
		}
	}
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()
	var order []uint64
	for _, e := range r.conn.got {
		if slices.Contains(ids, e.GetId()) {
			order = append(order, e.GetId())
		}
	}
	if !slices.Equal(order, ids) {
		r.t.Errorf("answered in the order %v, sent as %v", order, ids)
	}
}

func TestFence_WaitsForWhatTheLogHasNotAnswered(t *testing.T) {
	for _, outcome := range []error{nil, eventlog.ErrUnknownOutcome} {
		r := newRemoval(t, nobody{})
		ids := r.send(3)
		r.log.await(3)
		out := r.unfriend()
		fenced := make(chan string, 1)
		r.node.Fence(peer.Fence{Conversation: out.Message.GetConversation(), Version: out.Version}, func(life string) { fenced <- life })
		r.wantAnswers(r.send(1), pb.Code_CODE_NOT_FRIENDS)
		select {
		case <-fenced:
			t.Fatal("fenced while three messages are under way")
		default:
		}
		r.log.answer(outcome)
		if life := <-fenced; life != "life" {
			t.Errorf("fenced in the life %q", life)
		}
		want := pb.Code(0)
		if outcome != nil {
			want = pb.Code_CODE_UNAVAILABLE
		}
		r.wantAnswers(ids, want)
	}
}

// A send that was checked and does not go to the log, since its session has ended, holds up no fence.
func TestFence_ASendThatIsGivenUpGivesItsPermitBack(t *testing.T) {
	r := newRemoval(t, nobody{})
	r.pair = make(chan chan struct{})
	r.send(1)
	looking := <-r.pair
	fenced := make(chan string, 1)
	r.node.Fence(peer.Fence{Conversation: wire.Direct(r.users[0].ID, r.users[1].ID), Version: 3}, func(life string) { fenced <- life })
	r.alice.Closed()
	select {
	case <-fenced:
		t.Fatal("fenced while a message is being checked")
	default:
	}
	close(looking)
	<-fenced
	if len(r.log.entries) != 0 {
		t.Error("it went to the log")
	}
}

// A node that did not hold its lease throughout may have been waited out: it looks in the database before it acknowledges.
func TestSend_WithoutTheLeaseThroughout_TheRightIsLookedAtAgain(t *testing.T) {
	for name, test := range map[string]struct {
		meanwhile func(r *removal)
		want      pb.Code
	}{
		"still friends":     {func(r *removal) { r.lease.become("") }, 0},
		"in another life":   {func(r *removal) { r.lease.become("next") }, 0},
		"removed":           {func(r *removal) { r.lease.become("next"); r.unfriend() }, pb.Code_CODE_NOT_FRIENDS},
		"removed and anew":  {func(r *removal) { r.lease.become("next"); r.unfriend(); r.befriend() }, pb.Code_CODE_UNAVAILABLE},
		"removed, had it":   {func(r *removal) { r.unfriend() }, 0}, // whoever removes waits for the answer
		"the database away": {func(r *removal) { r.lease.become(""); r.down.Store(true) }, pb.Code_CODE_UNAVAILABLE},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemoval(t, nobody{})
			ids := r.send(20)
			r.log.await(20)
			test.meanwhile(r)
			r.log.answer(nil)
			r.wantAnswers(ids, test.want)
		})
	}
}

// Without any lease a message is taken all the same (I8), but nothing is taken for granted.
func TestI8_WithoutALease_MessagesAreTakenAndLookedAt(t *testing.T) {
	r := newRemoval(t, nobody{})
	r.lease.become("")
	ids := r.send(2)
	r.log.await(2)
	r.log.answer(nil)
	r.wantAnswers(ids, 0)
	r.unfriend()
	r.wantAnswers(r.send(1), pb.Code_CODE_NOT_FRIENDS)
}

// Every record says what its sender's right was checked against, and a bound of the log's end that rises with what the log answers.
func TestSend_RecordsSayWhatTheyWereCheckedAgainst(t *testing.T) {
	r := newRemoval(t, nobody{})
	partition := eventlog.PartitionOf(wire.Direct(r.users[0].ID, r.users[1].ID), 4)
	r.node.LogSeen(map[int32]int64{partition: 40, 9: 1})
	r.log.next = 50
	for _, want := range []int64{40, 51} {
		ids := r.send(1)
		r.log.await(1)
		r.log.mu.Lock()
		e := r.log.entries[len(r.log.entries)-1]
		r.log.mu.Unlock()
		r.log.answer(nil)
		r.wantAnswers(ids, 0)
		rec, err := chat.ParseRecord(1, eventlog.Record{Headers: e.Headers, Value: e.Value})
		if err != nil || !rec.Checked || rec.Version != 2 || rec.CheckedFrom != want {
			t.Errorf("got %+v, %v; want from %d", rec, err, want)
		}
	}
	r.node.LogSeen(map[int32]int64{partition: 45})
	if got := r.node.basis(wire.Direct(r.users[0].ID, r.users[1].ID)).LogEnd; got != 52 {
		t.Errorf("the bound fell to %d", got)
	}
}

// What the log has behind the removal of a node that was stopped is no bound for what it looked up before.
func TestSend_TheBoundIsOfBeforeTheLeaseWasSeen(t *testing.T) {
	r := newRemoval(t, nobody{})
	conversation := wire.Direct(r.users[0].ID, r.users[1].ID)
	partition := eventlog.PartitionOf(conversation, 4)
	r.node.LogSeen(map[int32]int64{partition: 40})
	r.lease.mu.Lock()
	r.lease.looked = func() { r.node.LogSeen(map[int32]int64{partition: 60}) } // stopped, waited out, and on again
	r.lease.mu.Unlock()
	if got := r.node.basis(conversation); got.LogEnd != 40 {
		t.Errorf("the right that life %q knew of is checked from %d on", got.Life, got.LogEnd)
	}
}

// published answers Publish.
type published struct {
	nobody
	err   error
	calls chan uint64
}

func (p published) Publish(_ context.Context, _ string, upTo uint64) error {
	p.calls <- upTo
	return p.err
}

func TestR4_ARemovalIsAnsweredWhenItIsInTheLog(t *testing.T) {
	remove := &pb.Envelope{Body: &pb.Envelope_RemoveFriend{RemoveFriend: &pb.RemoveFriendRequest{Name: "bob"}}}
	for _, failure := range []error{nil, errors.New("a node is silent")} {
		p := published{err: failure, calls: make(chan uint64, 4)}
		r := newRemoval(t, p)
		r.ask(r.alice, 5, remove)
		answer := r.conn.await(func(e *pb.Envelope) bool { return e.GetId() == 5 })
		if version := <-p.calls; version != 3 {
			t.Errorf("published up to %d", version)
		}
		if failure == nil && answer.GetOk() == nil {
			t.Errorf("answered %v", answer)
		}
		if failure != nil && (answer.GetError().GetCode() != pb.Code_CODE_UNAVAILABLE || answer.GetError().GetRetryAfterMs() == 0) {
			t.Errorf("answered %v", answer)
		}
		// Its row is still there: who asks again joins.
		r.ask(r.alice, 6, remove)
		r.conn.await(func(e *pb.Envelope) bool { return e.GetId() == 6 })
		if version := <-p.calls; version != 3 {
			t.Errorf("published again up to %d", version)
		}
	}
}
