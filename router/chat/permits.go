package chat

import "sync"

// Permits count the sends of a process whose right is being or was checked and which the log has not answered, by conversation.
// A removal fences them (design.md, "Exact removals"): once the fence is done, no message is on its way from here whose right
// was checked before it. What is remembered is bounded by the permits that are out.
type Permits struct {
	mu    sync.Mutex
	talks map[string]*talk // those with permits out
}

// talk has the permits of one conversation, by the fences between which they were taken: the oldest first, and never none. The
// last takes new ones.
type talk struct {
	conversation string
	rounds       []*round
	floor        uint64
}

// round has the permits taken between two fences.
type round struct {
	out  int
	done []func() // to be called once it and all before it are empty
}

// NewPermits makes a Permits without any.
func NewPermits() *Permits { return &Permits{talks: map[string]*talk{}} }

// Permit is one send under way. It is taken before anything is looked at that its right depends on, and released once the log
// has answered, or it was refused. Not for concurrent use.
type Permit struct {
	permits *Permits
	talk    *talk
	round   *round
}

// Take takes a permit of a conversation. It never waits.
func (p *Permits) Take(conversation string) *Permit {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.talks[conversation]
	if t == nil {
		t = &talk{conversation: conversation, rounds: []*round{{}}}
		p.talks[conversation] = t
	}
	r := t.rounds[len(t.rounds)-1]
	r.out++
	return &Permit{permits: p, talk: t, round: r}
}

// Release gives the permit back. Once more does nothing.
func (p *Permit) Release() {
	if p.round == nil {
		return
	}
	p.permits.mu.Lock()
	p.round.out--
	p.round = nil
	due := p.permits.settleLocked(p.talk)
	p.permits.mu.Unlock()
	for _, done := range due {
		done()
	}
}

// settleLocked gives what is to be called now that rounds have become empty.
func (p *Permits) settleLocked(t *talk) (due []func()) {
	for len(t.rounds) > 1 && t.rounds[0].out == 0 {
		due = append(due, t.rounds[0].done...)
		t.rounds = t.rounds[1:]
	}
	if len(t.rounds) == 1 && t.rounds[0].out == 0 {
		delete(p.talks, t.conversation)
	}
	return due
}

// Remember calls put, unless a fence with a higher version than this came since the permit was taken: what was looked up is of
// before it then, and must not get into a cache. put is called with a lock held that a fence takes: it may only store.
func (p *Permit) Remember(version uint64, put func()) {
	p.permits.mu.Lock()
	defer p.permits.mu.Unlock()
	if version >= p.talk.floor {
		put()
	}
}

// Fence has drop called, which is to take out of caches what is below version, and then done once all permits that are out now
// have come back; done must not wait. Both may be called before Fence returns. Permits taken later look anew, where the
// version was raised, and are not waited for.
func (p *Permits) Fence(conversation string, version uint64, drop, done func()) {
	p.mu.Lock()
	drop()
	t := p.talks[conversation]
	if t != nil {
		t.floor = max(t.floor, version)
		last := t.rounds[len(t.rounds)-1]
		if last.out > 0 {
			t.rounds = append(t.rounds, &round{})
		} else { // a fence has just come: this one waits for the same
			last = t.rounds[len(t.rounds)-2]
		}
		last.done = append(last.done, done)
	}
	p.mu.Unlock()
	if t == nil {
		done()
	}
}
