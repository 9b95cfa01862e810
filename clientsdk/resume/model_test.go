package resume_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/futurechat/future/clientsdk/resume"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

const self, peer = "1", "2"

// record is one entry of a conversation's log. A hidden one is not for the viewer.
type record struct {
	seq    uint64
	msg    *pb.Message
	hidden bool
}

// request is what the client wrote and the server has not carried out yet.
type request struct {
	sync  bool
	fetch *resume.Fetch
	write *resume.Write
}

// item is what waits for the program: a message, or a position alone.
type item struct {
	msg      *pb.Message
	position resume.Position
}

// world is a model server, one client of it, and a network between them that a test breaks. The server does what
// PROTOCOL.md promises and no more: it stores a message again if it comes again without `resend`.
type world struct {
	t   *rapid.T
	now time.Time
	cfg resume.Config
	rng *rand.Rand
	ids int

	// The server.
	logs    map[string][]record
	convs   []string
	lastSeq uint64
	stored  map[string]uint64   // seq by id
	held    map[string][]string // by conversation, of the present connection
	begun   map[string]int      // messages in the log when the client first knew the heads; set once
	blind   map[string]bool     // began with what came first, since no heads could be had

	// The network.
	up        bool
	toServer  []request
	toClient  []resume.Event
	headsSeen map[string]int // log lengths when the Sync under way was carried out

	// The client and what outlives it.
	m       *resume.Machine
	state   resume.State
	queue   []item
	shown   map[string][]*pb.Message
	written map[string][]string // ids in the order of Submit
	sent    map[string]int
	failed  map[string]int
}

func newWorld(t *rapid.T, cfg resume.Config) *world {
	w := &world{
		t: t, now: time.Unix(1_700_000_000, 0), cfg: cfg, rng: rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "seed"))),
		logs: map[string][]record{}, stored: map[string]uint64{}, held: map[string][]string{}, shown: map[string][]*pb.Message{},
		blind: map[string]bool{}, written: map[string][]string{}, sent: map[string]int{}, failed: map[string]int{},
		convs: []string{"d:1:2", "d:1:3", "g:7"}, lastSeq: 100,
	}
	w.m = resume.New(cfg, w.rng, resume.State{})
	return w
}

func (w *world) id() string {
	w.ids++
	return fmt.Sprintf("0193b1a0-0000-7000-8000-%012x", w.ids)
}

func (w *world) chance(label string, percent int) bool {
	return rapid.IntRange(0, 99).Draw(w.t, label) < percent
}

func text(s string) *pb.Payload { return &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: s}}} }

// append puts a record into a log and sends it to the client, if the network likes.
func (w *world) append(conv, sender, id string, hidden bool) uint64 {
	w.lastSeq += uint64(1 + w.rng.IntN(3))
	r := record{seq: w.lastSeq, hidden: hidden, msg: &pb.Message{
		Conversation: conv, Seq: w.lastSeq, PrevKnown: w.rng.IntN(10) > 0, Sender: &pb.User{Id: sender}, ClientMsgId: id, Payload: text("x"),
	}}
	if log := w.logs[conv]; r.msg.PrevKnown && len(log) > 0 {
		r.msg.PrevSeq = log[len(log)-1].seq
	}
	w.logs[conv] = append(w.logs[conv], r)
	if !w.up {
		return r.seq
	}
	var e resume.Event = resume.Delivered{Messages: []*pb.Message{r.msg}}
	if hidden {
		e = resume.Skipped{Skip: &pb.Skip{Conversation: conv, Seq: r.seq, PrevKnown: r.msg.PrevKnown, PrevSeq: r.msg.PrevSeq}}
	}
	switch w.rng.IntN(10) {
	case 0: // lost, and nobody noticed
	case 1: // lost, and the node tells so
		w.toClient = append(w.toClient, resume.Compare{})
	case 2: // twice
		w.toClient = append(w.toClient, e, e)
	case 3: // before what was sent earlier
		at := w.rng.IntN(len(w.toClient) + 1)
		w.toClient = slices.Insert(w.toClient, at, e)
	default:
		w.toClient = append(w.toClient, e)
	}
	return r.seq
}

// serve carries out the oldest request. faults lets it fail.
func (w *world) serve(faults bool) {
	r := w.toServer[0]
	w.toServer = w.toServer[1:]
	fail := faults && w.chance("fault", 20)
	busy := &wire.Error{Code: pb.Code_CODE_UNAVAILABLE, RetryAfter: 50 * time.Millisecond}
	switch {
	case r.sync && fail:
		w.toClient = append(w.toClient, resume.Heads{Err: busy})
	case r.sync:
		var heads []*pb.Head
		w.headsSeen = map[string]int{}
		for _, c := range w.convs {
			if n := len(w.logs[c]); n > 0 {
				heads = append(heads, &pb.Head{Conversation: c, Seq: w.logs[c][n-1].seq})
				w.headsSeen[c] = n
			}
		}
		w.toClient = append(w.toClient, resume.Heads{Heads: heads})
	case r.fetch != nil && fail:
		busy.Code = pb.Code_CODE_PENDING
		w.toClient = append(w.toClient, resume.Page{Conversation: r.fetch.Conversation, Err: busy})
	case r.fetch != nil:
		w.toClient = append(w.toClient, resume.Page{Conversation: r.fetch.Conversation, Page: w.history(*r.fetch, faults)})
	default:
		w.send(*r.write, fail, busy)
	}
}

// history answers a fetch. With faults it may begin too high, as a node that lacks what lies between would have to say.
func (w *world) history(f resume.Fetch, faults bool) *pb.HistoryResponse {
	if log := w.logs[f.Conversation]; faults && w.chance("hole", 5) {
		f.After = max(f.After, log[w.rng.IntN(len(log))].seq)
	}
	p := &pb.HistoryResponse{CoversAfter: f.After}
	for _, r := range w.logs[f.Conversation] {
		if r.seq <= f.After || r.hidden {
			continue
		}
		if len(p.Messages) == f.Limit {
			p.More, p.CoversBefore = true, r.seq
			break
		}
		p.Messages = append(p.Messages, r.msg)
	}
	if log := w.logs[f.Conversation]; !p.More && len(log) > 0 && w.rng.IntN(2) == 0 {
		p.CoversBefore = log[len(log)-1].seq + 1
	}
	return p
}

func (w *world) send(x resume.Write, fail bool, busy *wire.Error) {
	conv, id := x.Message.Conversation, x.Message.ID
	answer := resume.Answered{Conversation: conv, ID: id, Time: w.now}
	held := w.held[conv]
	switch {
	case len(held) > 0 && held[0] != id:
		answer.Err = &wire.Error{Code: pb.Code_CODE_RETRY_IN_ORDER}
	case x.Resend && w.stored[id] > 0:
	case fail:
		if w.rng.IntN(2) == 0 && w.stored[id] == 0 { // it is in the log, but nobody knows
			w.stored[id] = w.append(conv, self, id, false)
		}
		if len(held) == 0 {
			w.held[conv] = []string{id}
		}
		answer.Err = busy
	default:
		w.stored[id] = w.append(conv, self, id, false)
	}
	if answer.Err == nil {
		answer.Seq = w.stored[id] // of which nothing may be concluded about what lies before it
		delete(w.held, conv)
	}
	w.toClient = append(w.toClient, answer)
}

// receive lets the client have the oldest frame.
func (w *world) receive() {
	e := w.toClient[0]
	w.toClient = w.toClient[1:]
	w.step(e)
}

func (w *world) step(e resume.Event) {
	for _, effect := range w.m.Step(w.now, e) {
		switch x := effect.(type) {
		case resume.Sync:
			w.toServer = append(w.toServer, request{sync: true})
		case resume.Fetch:
			w.toServer = append(w.toServer, request{fetch: &x})
		case resume.Write:
			w.toServer = append(w.toServer, request{write: &x})
		case resume.Show:
			w.queue = append(w.queue, item{msg: x.Message, position: resume.Position{Conversation: x.Message.Conversation, Seq: x.Message.Seq}})
		case resume.Passed:
			w.queue = append(w.queue, item{position: x.Position})
		case resume.Begun:
			w.keep(x.Position)
			if h, ok := e.(resume.Heads); !ok || h.Err != nil {
				w.blind[x.Position.Conversation] = true
			}
		case resume.Started:
			w.state.Started = true
			if w.begun == nil {
				w.begun = w.headsSeen
			}
		case resume.Forgotten:
			w.state = resume.State{User: x.User, Cluster: x.Cluster, Epoch: x.Epoch, Outbox: w.state.Outbox}
		case resume.Sent:
			w.done(x.ID)
			w.sent[x.ID]++
		case resume.Failed:
			w.done(x.Message.ID)
			w.failed[x.Message.ID]++
		case resume.Reconnect:
			w.t.Fatalf("asks to reconnect: %s", x.Why)
		}
	}
	if n := w.m.Outbox(); n != len(w.state.Outbox) {
		w.t.Fatalf("the machine has %d in its outbox, the shell %d", n, len(w.state.Outbox))
	}
	shown := 0
	for _, i := range w.queue {
		if i.msg != nil {
			shown++
		}
	}
	if shown > w.cfg.Room {
		w.t.Fatalf("%d messages wait for the program, there is room for %d", shown, w.cfg.Room)
	}
	if len(w.toServer) > w.cfg.Window+w.cfg.Fetches+1 {
		w.t.Fatalf("%d requests are under way", len(w.toServer))
	}
}

func (w *world) keep(p resume.Position) {
	i := slices.IndexFunc(w.state.Positions, func(x resume.Position) bool { return x.Conversation == p.Conversation })
	if i < 0 {
		w.state.Positions = append(w.state.Positions, p)
		return
	}
	w.state.Positions[i] = p
}

func (w *world) done(id string) {
	w.state.Outbox = slices.DeleteFunc(w.state.Outbox, func(m resume.Message) bool { return m.ID == id })
}

// take is the program that reads one event.
func (w *world) take() bool {
	for len(w.queue) > 0 {
		i := w.queue[0]
		w.queue = w.queue[1:]
		w.keep(i.position)
		if i.msg != nil {
			w.shown[i.msg.Conversation] = append(w.shown[i.msg.Conversation], i.msg)
			w.step(resume.Taken{N: 1})
			return true
		}
	}
	return false
}

func (w *world) submit(conv string) {
	m := resume.Message{Conversation: conv, ID: w.id(), Payload: text("mine")}
	w.written[conv] = append(w.written[conv], m.ID)
	w.state.Outbox = append(w.state.Outbox, m)
	w.step(resume.Submit{Message: m})
}

func (w *world) connect() {
	w.up, w.held = true, map[string][]string{}
	w.step(resume.Opened{User: self, Cluster: "test", Epoch: 1})
}

func (w *world) disconnect() {
	w.up, w.toServer, w.toClient = false, nil, nil
	w.step(resume.Lost{})
}

// restart kills the program: what waits in its memory is gone.
func (w *world) restart() {
	w.up, w.toServer, w.toClient, w.queue = false, nil, nil, nil
	w.m = resume.New(w.cfg, w.rng, w.state)
}

func (w *world) tick(d time.Duration) {
	w.now = w.now.Add(d)
	w.step(resume.Tick{})
}

// heal lets everything work until nothing happens any more but the regular comparison, and twice that.
func (w *world) heal() {
	if !w.up {
		w.connect()
	}
	compared := 0
	for range 20000 {
		switch {
		case len(w.toClient) > 0:
			w.receive()
		case len(w.toServer) > 0:
			w.serve(false)
		case w.take():
		case compared < 3:
			at := w.m.Wake()
			if at.IsZero() {
				w.t.Fatal("connected, and never wakes")
			}
			if at.Sub(w.now) > w.cfg.RetryMax*12 {
				compared++
			}
			w.tick(max(at.Sub(w.now), 0))
		default:
			return
		}
	}
	w.t.Fatal("it never comes to rest")
}

// check holds what every client must have seen, at the end.
func (w *world) check() {
	for _, c := range w.convs {
		var all []*pb.Message
		begun := 0
		for i, r := range w.logs[c] {
			if !r.hidden {
				if i < w.begun[c] {
					begun++
				}
				all = append(all, r.msg)
			}
		}
		shown := w.shown[c]
		if len(all)-len(shown) > begun && !w.blind[c] {
			w.t.Fatalf("%s: %d messages, of which %d came before the client, and only %d were shown", c, len(all), begun, len(shown))
		}
		if len(shown) > len(all) {
			w.t.Fatalf("%s: %d messages were shown, there are %d", c, len(shown), len(all))
		}
		for i, want := range all[len(all)-len(shown):] {
			if shown[i].Seq != want.Seq {
				w.t.Fatalf("%s: message %d of %d shown is %d, want %d", c, i, len(shown), shown[i].Seq, want.Seq)
			}
		}
		var mine []string
		for _, m := range all {
			if m.Sender.Id == self {
				mine = append(mine, m.ClientMsgId)
			}
		}
		if !slices.Equal(mine, w.written[c]) {
			w.t.Fatalf("%s: the log has of mine\n%v\nwritten were\n%v", c, mine, w.written[c])
		}
		for _, id := range w.written[c] {
			if w.sent[id] != 1 || w.failed[id] != 0 {
				w.t.Fatalf("%s: %d acknowledgements and %d failures of %s", c, w.sent[id], w.failed[id], id)
			}
		}
	}
	if w.m.Outbox() != 0 {
		w.t.Fatalf("%d messages stay in the outbox", w.m.Outbox())
	}
}
