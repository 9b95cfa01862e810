package simulation

import (
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/futurechat/future/clientsdk/resume"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// device is a client's program and what it keeps on disk: the SDK's step function in a shell like the SDK's own.
type device struct {
	w      *world
	person *person
	n      int // over all devices
	name   string
	rng    *rand.Rand

	saved   saved   // on disk
	earlier []saved // what was on disk a while ago

	// Of the present life of the program:
	p        *proc
	machine  *resume.Machine
	pos      map[string]uint64 // the machine's positions
	queue    []item            // shown and not yet taken
	taking   bool
	conn     *conn
	phase    phase
	requests map[uint64]request
	lastID   uint64
	sent     time.Time
	received time.Time
	redialAt time.Time
	tries    int
	away     bool // until the person acts
	offline  bool // the person has logged out, or not logged in yet
	armed    time.Duration
	node     int      // tried next
	told     []string // addresses of nodes to try before, once each
	leaving  bool     // the node goes down: nothing new is asked of it
	later    []request
}

// saved is what is kept on disk.
type saved struct {
	id        string
	token     string
	user      string
	cluster   string
	epoch     uint32
	started   bool
	positions map[string]uint64
	outbox    []resume.Message
	segment   int // raised when submitted messages were lost with the disk
}

func (s saved) clone() saved {
	s.positions, s.outbox = maps.Clone(s.positions), slices.Clone(s.outbox)
	return s
}

type item struct {
	message  *pb.Message // nil: only a position
	position resume.Position
}

type phase uint8

const (
	phaseNone phase = iota
	phaseHello
	phaseEntering
	phaseLive
)

type asked uint8

const (
	forHello asked = iota
	forEntry
	forSync
	forFetch
	forSend
	forPing
	forRead
	forOther
	forLogout
	forRemoval
)

type request struct {
	kind             asked
	at               time.Time
	conversation, id string
	seq              uint64
	what             *pb.Envelope
}

// asks reports whether a request of a kind awaits its answer.
func (d *device) asks(kind asked) bool {
	for _, r := range d.requests {
		if r.kind == kind {
			return true
		}
	}
	return false
}

// elsewhere says whether the next node is asked if one that goes down has not carried it out.
func (r request) elsewhere() bool {
	switch r.kind {
	case forRead, forOther, forLogout, forRemoval:
		return true
	}
	return false // begun anew on each connection, or the machine asks again
}

const (
	answerWithin = 6 * time.Second
	// removedWithin is how long all wait that stands beside a removal: requests of a session run one at a time.
	removedWithin = 20 * time.Second
	backoffMin    = 200 * time.Millisecond
	backoffMost   = 4 * time.Second
)

func (d *device) running() bool { return d.p != nil && !d.p.dead }

// up starts the program with what is on disk.
func (d *device) up() {
	if d.running() {
		return
	}
	d.p = d.w.start(d.name)
	state := resume.State{User: d.saved.user, Cluster: d.saved.cluster, Epoch: d.saved.epoch, Started: d.saved.started, Outbox: slices.Clone(d.saved.outbox)}
	for _, c := range slices.Sorted(maps.Keys(d.saved.positions)) {
		state.Positions = append(state.Positions, resume.Position{Conversation: c, Seq: d.saved.positions[c]})
	}
	cfg := resume.Defaults
	cfg.RetryMax, cfg.Room, cfg.PageSize = 4*time.Second, 16, 8
	if d.rng.IntN(8) == 0 {
		cfg.Compare = 8 * time.Second
	}
	d.machine = resume.New(cfg, d.rng, state)
	d.pos = maps.Clone(d.saved.positions)
	d.queue, d.taking, d.conn, d.phase, d.requests, d.lastID = nil, false, nil, phaseNone, map[uint64]request{}, 0
	d.told, d.leaving, d.later = nil, false, nil
	d.tries, d.away, d.redialAt, d.armed = 0, false, d.p.Now(), 0
	d.node = d.rng.IntN(16)
	life := d.p
	life.onKill = append(life.onKill, func() { d.ended(life) })
	d.p.exec(d.progress)
}

// ended is the program's end. Its host tells the node, or not.
func (d *device) ended(*proc) {
	d.count()
	if c := d.conn; c != nil {
		d.conn = nil
		c.breaks(d.rng.IntN(3) > 0, false)
	}
}

func (d *device) count() {
	s := d.machine.Stats()
	for name, n := range map[string]uint64{
		"messages shown": s.Shown, "shown by history": s.ShownLate, "duplicates dropped by clients": s.Duplicates,
		"deliveries held for earlier ones": s.Held, "pages fetched": s.Fetches, "heads compared": s.Syncs,
		"differences found by regular comparison": s.HeadDifferences, "messages written": s.Written, "messages resent": s.Resent,
		"messages acknowledged": s.Acked, "sends failed for good": s.Failed, "frames that fit nothing": s.Stale,
	} {
		d.w.counts[name] += int(n)
	}
	if s.Invalid > 0 {
		d.w.violate("protocol", "%s was sent %d frames that break a rule", d.name, s.Invalid)
	}
}

// ---- connection

// progress does what can be done now, and sets the next look.
func (d *device) progress() {
	now := d.p.Now()
	if d.conn == nil && !d.away && !d.offline && !now.Before(d.redialAt) {
		d.dial()
	}
	if d.conn != nil {
		d.checkLink(now)
	}
	if at := d.machine.Wake(); !at.IsZero() && !now.Before(at) {
		d.step(resume.Tick{})
	}
	d.arm()
}

func (d *device) arm() {
	next := d.p.Now().Add(time.Hour)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if d.conn == nil && !d.away && !d.offline {
		sooner(d.redialAt)
	}
	if d.conn != nil {
		sooner(d.sent.Add(pingEvery))
		sooner(d.received.Add(silentAfter))
		sooner(d.p.Now().Add(answerWithin / 4))
	}
	sooner(d.machine.Wake())
	at := max(d.p.trueTime(next), d.w.now+time.Millisecond)
	if d.armed > d.w.now && d.armed <= at {
		return
	}
	d.armed = at
	life := d.p
	d.w.at(at, func() {
		life.exec(func() {
			if d.armed <= d.w.now {
				d.armed = 0
			}
			d.progress()
		})
	})
}

func (d *device) dial() {
	nodes := d.w.nodes
	if len(nodes) == 0 {
		d.failed(0)
		return
	}
	d.node++
	to := nodes[d.node%len(nodes)]
	if len(d.told) > 0 {
		addr := d.told[0]
		d.told = d.told[1:]
		if i := slices.IndexFunc(nodes, func(n *nodeProc) bool { return n.addr == addr }); i >= 0 {
			to = nodes[i]
			d.w.count("nodes tried that were told")
		}
	}
	d.conn = d.w.dial(d, to)
	if d.conn == nil {
		d.failed(0)
		return
	}
	d.phase, d.sent, d.received = phaseHello, d.p.Now(), d.p.Now()
	d.request(request{kind: forHello}, &pb.Envelope{Body: &pb.Envelope_Hello{Hello: &pb.HelloRequest{Version: wire.Version, Client: "simulated"}}})
}

func (d *device) failed(asked time.Duration) {
	d.tries++
	pause := min(backoffMin<<min(d.tries-1, 10), backoffMost)
	pause = max(pause/2+time.Duration(d.rng.Int64N(int64(pause/2)+1)), min(asked, backoffMost))
	d.redialAt = d.p.Now().Add(pause)
	d.arm()
}

// lost ends the present connection.
func (d *device) lost(c *conn, why string, asked time.Duration) {
	if c == nil || d.conn != c {
		return
	}
	d.w.tracef("%s loses its connection %d: %s", d.name, c.id, why)
	live := d.phase == phaseLive
	d.conn, d.phase, d.requests, d.leaving = nil, phaseNone, map[uint64]request{}, false
	c.breaks(true, false)
	if live {
		d.w.count("connections lost")
		d.step(resume.Lost{})
	}
	d.failed(asked)
}

func (d *device) checkLink(now time.Time) {
	switch {
	case now.Sub(d.received) >= silentAfter:
		d.w.count("connections given up by clients")
		d.lost(d.conn, "the node is silent", 0)
		return
	case now.Sub(d.sent) >= pingEvery:
		d.request(request{kind: forPing}, &pb.Envelope{Body: &pb.Envelope_Ping{Ping: &pb.PingRequest{}}})
	}
	within := answerWithin
	if d.asks(forRemoval) {
		within = removedWithin
	}
	for _, r := range d.requests {
		if now.Sub(r.at) >= within {
			d.w.count("connections given up by clients")
			d.lost(d.conn, "the node did not answer", 0)
			return
		}
	}
}

func (d *device) request(r request, e *pb.Envelope) {
	if d.conn == nil {
		return
	}
	if d.leaving && r.elsewhere() {
		r.what = e
		d.later = append(d.later, r)
		return
	}
	d.lastID++
	e.Id, r.at, r.what = d.lastID, d.p.Now(), e
	d.requests[e.Id] = r
	d.sent = r.at
	frame, err := wire.AppendFrame(nil, e)
	if err != nil {
		d.w.violate("protocol", "%s cannot encode a request: %v", d.name, err)
		return
	}
	d.conn.send(frame)
}

// frame takes what came on a connection.
func (d *device) frame(c *conn, frame []byte) {
	if d.conn != c {
		return
	}
	e, err := wire.Decode(frame[wire.HeaderLen:])
	if err != nil {
		d.w.violate("protocol", "%s was sent a frame that cannot be read: %v", d.name, err)
		return
	}
	d.received = d.p.Now()
	switch b := e.GetBody().(type) {
	case *pb.Envelope_Closing:
		d.w.count("connections closed as " + b.Closing.GetReason().String()[len("REASON_"):])
		if b.Closing.GetReason() < pb.Closing_REASON_DRAINING && !d.offline {
			d.stayAway()
		}
		if b.Closing.GetReason() == pb.Closing_REASON_DRAINING {
			d.told = b.Closing.GetAddrs()
		}
		d.lost(c, b.Closing.GetReason().String(), time.Duration(b.Closing.GetRetryAfterMs())*time.Millisecond)
	case *pb.Envelope_Delivery:
		if d.phase == phaseLive {
			d.step(resume.Delivered{Messages: b.Delivery.GetMessages()})
		}
	case *pb.Envelope_Skip:
		if d.phase == phaseLive {
			d.step(resume.Skipped{Skip: b.Skip})
		}
	case *pb.Envelope_CompareHeads:
		if d.phase == phaseLive {
			d.w.count("resyncs asked for")
			d.step(resume.Compare{})
		}
	case *pb.Envelope_Rejected:
		if d.phase == phaseLive {
			d.w.count("messages rejected")
			d.w.truth.rejected(d, b.Rejected)
			d.step(resume.Rejected{Conversation: b.Rejected.GetConversation(), ID: b.Rejected.GetClientMsgId(), Err: wire.FromProto(b.Rejected.GetError())})
		}
	default:
		d.answer(e)
	}
	d.arm()
}

// stayAway: nothing more until the person acts, which takes a while.
func (d *device) stayAway() {
	d.away = true
	d.saved.token = ""
	life := d.p
	d.w.after(500*time.Millisecond+time.Duration(d.rng.Int64N(int64(2*time.Second))), func() {
		life.exec(func() {
			if d.away {
				d.away, d.redialAt = false, d.p.Now()
				d.progress()
			}
		})
	})
}

func (d *device) answer(e *pb.Envelope) {
	r, ok := d.requests[e.GetId()]
	if !ok {
		d.w.violate("protocol", "%s was answered what it never asked: %d", d.name, e.GetId())
		return
	}
	delete(d.requests, e.GetId())
	var err *wire.Error
	if b, ok := e.GetBody().(*pb.Envelope_Error); ok {
		err = wire.FromProto(b.Error)
		d.w.count("refused as " + err.Code.String()[len("CODE_"):])
		d.w.tracef("%s is refused request %d, message %q: %v", d.name, e.GetId(), short(r.id), err)
	}
	if err != nil && err.Code == pb.Code_CODE_DRAINING {
		d.leaving = true
		if r.elsewhere() {
			d.later = append(d.later, r)
			return
		}
	}
	switch r.kind {
	case forHello:
		if err != nil {
			d.lost(d.conn, "hello: "+err.Error(), err.RetryAfter)
			return
		}
		d.saved.cluster, d.saved.epoch = e.GetHelloOk().GetCluster(), e.GetHelloOk().GetEpoch()
		d.enter()
	case forEntry:
		d.entered(e.GetSession(), err)
	case forSync:
		d.step(resume.Heads{Heads: e.GetHeads().GetHeads(), Err: err})
	case forFetch:
		d.step(resume.Page{Conversation: r.conversation, Page: e.GetHistoryPage(), Err: err})
	case forSend:
		d.step(resume.Answered{
			Conversation: r.conversation, ID: r.id, Err: err, Seq: e.GetSent().GetSeq(), Time: time.UnixMilli(e.GetSent().GetTimeMs()),
		})
	case forRead:
		if err == nil {
			d.w.truth.read(d.person, r.conversation, r.seq)
		}
	case forLogout:
		if err == nil {
			d.saved.token = ""
			d.lost(d.conn, "logged out", 0)
		}
	case forRemoval:
		if err == nil {
			d.w.truth.removed(r.conversation, r.seq)
		}
	case forPing, forOther:
	}
}

func (d *device) enter() {
	d.phase = phaseEntering
	this := &pb.Device{Id: d.saved.id, Name: d.name}
	if d.saved.token != "" {
		d.request(request{kind: forEntry}, &pb.Envelope{Body: &pb.Envelope_Resume{Resume: &pb.ResumeRequest{Token: d.saved.token, Device: this}}})
		return
	}
	d.request(request{kind: forEntry}, &pb.Envelope{Body: &pb.Envelope_Login{Login: &pb.LoginRequest{Name: d.person.name, Password: password, Device: this}}})
}

func (d *device) entered(s *pb.SessionResponse, err *wire.Error) {
	if err != nil {
		if err.Code == pb.Code_CODE_SESSION_ENDED && d.saved.token != "" {
			d.saved.token = ""
		}
		d.lost(d.conn, "log-in: "+err.Error(), err.RetryAfter)
		return
	}
	if token := s.GetToken(); token != "" {
		d.saved.token = token
	}
	d.phase, d.tries = phaseLive, 0
	d.w.count("log-ins")
	later := d.later
	d.later = nil
	for _, r := range later {
		d.w.count("requests asked again elsewhere")
		d.request(r, r.what)
	}
	d.step(resume.Opened{User: s.GetUser().GetId(), Cluster: d.saved.cluster, Epoch: d.saved.epoch})
}

// ---- the machine

func (d *device) step(e resume.Event) {
	c := d.conn
	var reconnect string
	for _, effect := range d.machine.Step(d.p.Now(), e) {
		d.effect(effect, &reconnect)
	}
	if reconnect != "" && c != nil {
		life := d.p
		d.w.after(0, func() { life.exec(func() { d.lost(c, reconnect, 0) }) })
	}
	d.arm()
}

func (d *device) effect(e resume.Effect, reconnect *string) {
	switch e := e.(type) {
	case resume.Sync:
		d.request(request{kind: forSync}, &pb.Envelope{Body: &pb.Envelope_Sync{Sync: &pb.SyncRequest{}}})
	case resume.Fetch:
		d.request(request{kind: forFetch, conversation: e.Conversation}, &pb.Envelope{Body: &pb.Envelope_History{History: &pb.HistoryRequest{
			Conversation: e.Conversation, After: e.After, Limit: uint32(e.Limit), Forward: true,
		}}})
	case resume.Write:
		d.w.tracef("%s writes %s to %s, resend %v, as request %d", d.name, short(e.Message.ID), e.Message.Conversation, e.Resend, d.lastID+1)
		d.request(request{kind: forSend, conversation: e.Message.Conversation, id: e.Message.ID}, &pb.Envelope{Body: &pb.Envelope_Send{Send: &pb.SendRequest{
			Conversation: e.Message.Conversation, ClientMsgId: e.Message.ID, Payload: e.Message.Payload, Resend: e.Resend,
		}}})
	case resume.Show:
		if d.w.planted.show != nil {
			d.w.planted.show(d, e.Message)
		}
		d.w.truth.shown(d, e.Message)
		d.pos[e.Message.GetConversation()] = e.Message.GetSeq()
		d.enqueue(item{e.Message, resume.Position{Conversation: e.Message.GetConversation(), Seq: e.Message.GetSeq()}})
	case resume.Passed:
		d.w.truth.passed(d, e.Position)
		d.pos[e.Position.Conversation] = e.Position.Seq
		d.enqueue(item{nil, e.Position})
	case resume.Begun:
		d.pos[e.Position.Conversation] = e.Position.Seq
		d.saved.positions[e.Position.Conversation] = e.Position.Seq
	case resume.Started:
		d.saved.started = true
	case resume.Forgotten:
		d.saved.user, d.saved.started = e.User, false
		d.saved.positions, d.pos, d.queue = map[string]uint64{}, map[string]uint64{}, nil
	case resume.Sent:
		d.w.truth.acked(d, e)
		d.drop(e.ID)
	case resume.Failed:
		d.w.truth.failed(d, e)
		d.drop(e.Message.ID)
	case resume.Reconnect:
		*reconnect = e.Why
	}
}

// drop takes a message out of the outbox on disk.
func (d *device) drop(id string) {
	d.saved.outbox = slices.DeleteFunc(d.saved.outbox, func(m resume.Message) bool { return m.ID == id })
}

func (d *device) enqueue(i item) {
	d.queue = append(d.queue, i)
	if !d.taking {
		d.taking = true
		d.takeLater()
	}
}

// takeLater has the program take what it was shown, at its own pace.
func (d *device) takeLater() {
	life := d.p
	d.w.after(time.Duration(d.rng.Int64N(int64(10*time.Millisecond))), func() {
		life.exec(func() {
			if len(d.queue) == 0 {
				d.taking = false
				return
			}
			i := d.queue[0]
			d.queue = d.queue[1:]
			d.saved.positions[i.position.Conversation] = i.position.Seq
			d.takeLater()
			if i.message != nil {
				d.step(resume.Taken{N: 1})
			}
		})
	})
}

// submit sends a message.
func (d *device) submit(m resume.Message) {
	d.saved.outbox = append(d.saved.outbox, m)
	d.w.truth.submitted(d, m)
	d.step(resume.Submit{Message: m})
}
