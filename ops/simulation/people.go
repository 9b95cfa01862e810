package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/futurechat/future/clientsdk/resume"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/router/chat"
)

// person has an account, friends and one or two devices.
type person struct {
	w       *world
	id      int64
	name    string
	rng     *rand.Rand
	friends []*person
	devices []*device
	crowds  []*crowd // he is or was a member of
}

// mostUnsent is how many messages of a device may await their acknowledgement before its person writes no more.
const mostUnsent = 32

const password = "password of everybody"

// passwordHash is what the store has of it.
var passwordHash = func() string {
	store := chat.NewMemory(chat.MemoryOptions{})
	s := chat.New(chat.Options{Store: store, Argon: cheap})
	device := &pb.Device{Id: uuid.NewString()}
	if _, err := s.Register(at, &pb.RegisterRequest{Name: "anybody", Password: password, Device: device}, ""); err != nil {
		return err.Error()
	}
	a, _ := store.AccountByName(at, "anybody") // was just made
	return a.PasswordHash
}()

// populate makes the people, and friends of most of them.
func (w *world) populate() {
	for i := range w.o.People {
		p := &person{w: w, name: fmt.Sprintf("person %d", i+1), rng: w.stream(fmt.Sprintf("person %d", i))}
		a, err := w.db.memory.CreateAccount(at, chat.Account{Name: p.name, PasswordHash: passwordHash})
		if err != nil {
			w.violate("start", "account: %v", err)
			return
		}
		p.id = a.ID
		w.people = append(w.people, p)
		for range 1 + p.rng.IntN(2) {
			p.addDevice()
		}
	}
	for i, a := range w.people {
		for j, b := range w.people[i+1:] {
			if j == 0 || a.rng.IntN(3) > 0 {
				w.befriend(a, b)
			}
		}
	}
}

func (w *world) befriend(a, b *person) {
	notice := &pb.Message{Conversation: wire.Direct(a.id, b.id), Sender: &pb.User{Id: wire.FormatID(a.id)}, ClientMsgId: w.messageID(a.rng)}
	p, out, err := w.db.memory.ChangePair(at, min(a.id, b.id), max(a.id, b.id), func(p chat.Pair) (chat.Pair, *pb.Message, error) {
		p.State, p.AskedBy, p.Version = chat.PairFriends, a.id, p.Version+1
		return p, notice, nil
	})
	if err == nil {
		w.truth.opened[direct(a, b)] = p.Version
		err = w.db.memory.Sent(at, []int64{out.ID}) // as if long ago
	}
	if err != nil {
		w.violate("start", "friends: %v", err)
	}
	a.friends, b.friends = append(a.friends, b), append(b.friends, a)
}

func (p *person) addDevice() {
	d := &device{w: p.w, person: p, n: p.w.id(), name: fmt.Sprintf("%s's device %d", p.name, len(p.devices)+1), rng: p.rng}
	d.wipe()
	p.devices = append(p.devices, d)
}

// wipe makes a device's disk as new.
func (d *device) wipe() {
	u := uuidOf(d.rng, 4)
	d.saved = saved{id: u.String(), positions: map[string]uint64{}, segment: d.w.id()}
	d.earlier = nil
}

// messageID makes a client_msg_id by the true time.
func (w *world) messageID(r *rand.Rand) string {
	u := uuidOf(r, 7)
	ms := w.time().UnixMilli()
	for i := range 6 {
		u[i] = byte(ms >> (8 * (5 - i)))
	}
	return u.String()
}

func uuidOf(r *rand.Rand, version byte) (u uuid.UUID) {
	_, _ = entropy{r}.Read(u[:])
	u[6], u[8] = u[6]&0x0f|version<<4, u[8]&0x3f|0x80
	return u
}

// live has a person do something now and then, until a time.
func (p *person) live(until time.Duration) {
	var act func()
	act = func() {
		if p.w.now >= until {
			return
		}
		p.act()
		p.w.after(p.pause(), act)
	}
	p.w.after(p.pause(), act)
}

// pause is how long a person waits before he acts again: often short, so that messages crowd.
func (p *person) pause() time.Duration {
	if p.rng.IntN(3) > 0 {
		return time.Duration(p.rng.Int64N(int64(60 * time.Millisecond)))
	}
	return time.Duration(p.rng.Int64N(int64(3 * time.Second)))
}

// act draws all that it may need whatever it does, so that what others do changes little of it.
func (p *person) act() {
	d := p.devices[p.rng.IntN(len(p.devices))]
	what, whom, id := p.rng.IntN(100), p.rng.IntN(1<<20), p.w.messageID(p.rng)
	if !d.running() || d.p.paused || d.away || len(p.friends) == 0 {
		return
	}
	friend := p.friends[whom%len(p.friends)]
	conversation := wire.Direct(p.id, friend.id)
	if n := len(p.crowds); n > 0 && whom>>10%4 == 0 && what < 82 {
		conversation = p.crowds[whom>>12%n].conversation
	}
	d.p.exec(func() {
		switch {
		case what < 70:
			if len(d.saved.outbox) < mostUnsent {
				d.submit(resume.Message{Conversation: conversation, ID: id, Payload: &pb.Payload{Kind: &pb.Payload_Text{Text: &pb.Text{Text: "text of " + id}}}})
			}
		case what < 82:
			if seq := d.saved.positions[conversation]; seq > 0 && d.phase == phaseLive {
				d.request(request{kind: forRead, conversation: conversation, seq: seq}, &pb.Envelope{Body: &pb.Envelope_Read{Read: &pb.ReadRequest{Conversation: conversation, Seq: seq}}})
			}
		case what < 86 && d.phase == phaseLive:
			d.request(request{kind: forOther}, &pb.Envelope{Body: &pb.Envelope_Conversations{Conversations: &pb.ConversationsRequest{}}})
		case what < 92 && d.phase == phaseLive:
			p.meet(d, p.w.people[whom%len(p.w.people)])
		case what < 94 && d.phase == phaseLive:
			p.leave(d)
		case what < 96 && d.phase == phaseLive:
			p.part(d, friend)
		case what >= 96 && d.phase == phaseLive:
			p.ask(d, friend)
		}
		d.arm()
	})
}

// meet asks somebody to be friends, or accepts.
func (p *person) meet(d *device, other *person) {
	if other == p || slices.Contains(p.friends, other) {
		return
	}
	p.ask(d, other)
}

// ask asks somebody to be friends, or accepts; also a friend of before, who is perhaps none any more.
func (p *person) ask(d *device, other *person) {
	p.w.count("friends asked for")
	d.request(request{kind: forOther}, &pb.Envelope{Body: &pb.Envelope_AddFriend{AddFriend: &pb.AddFriendRequest{Name: other.name, Greeting: "hello"}}})
}

// part ends a friendship. Mostly both think better of it soon, and write all the while.
func (p *person) part(d *device, friend *person) {
	p.w.count("removals asked for")
	conversation := direct(p, friend)
	d.request(request{kind: forRemoval, conversation: conversation, seq: p.w.truth.opened[conversation]},
		&pb.Envelope{Body: &pb.Envelope_RemoveFriend{RemoveFriend: &pb.RemoveFriendRequest{Name: friend.name}}})
	for _, both := range [][2]*person{{p, friend}, {friend, p}} {
		p.w.after(time.Duration(p.rng.Int64N(int64(4*time.Second))), func() {
			if d := both[0].devices[0]; d.running() && !p.w.healed {
				d.p.exec(func() {
					if d.phase == phaseLive {
						both[0].ask(d, both[1])
					}
				})
			}
		})
	}
}

// leave logs a device out, for a while.
func (p *person) leave(d *device) {
	p.w.count("log-outs")
	d.offline = true
	d.request(request{kind: forLogout}, &pb.Envelope{Body: &pb.Envelope_Logout{Logout: &pb.LogoutRequest{}}})
	p.w.after(time.Second+time.Duration(p.rng.Int64N(int64(3*time.Second))), func() { d.comeBack() })
}

// comeBack has a person use a device again that he left.
func (d *device) comeBack() {
	if d.running() {
		d.p.exec(func() {
			d.offline = false
			d.progress()
		})
	}
}
