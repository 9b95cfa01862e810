package presence

import (
	"slices"
	"time"
)

// ---- what sessions want

func (k *Keeper) register(now time.Time, e Register) {
	key := keptKey{e.Connection, e.Group}
	s := k.sessions[key]
	switch {
	case k.stopping || s != nil && !s.gone:
		return
	case s == nil:
		s = &kept{keptKey: key, user: e.User, device: e.Device, asked: now}
		k.sessions[key] = s
	default: // a group that comes back before it was forgotten
		s.gone, s.told, s.written = false, false, false
	}
	s.place = k.rotation.PushBack(s)
	if s.group == 0 {
		k.waiting = append(k.waiting, s)
	}
	k.mark(s)
}

func (k *Keeper) unregister(e Unregister) {
	if s := k.sessions[keptKey{e.Connection, e.Group}]; s != nil && !s.gone {
		k.remove(s)
	}
}

func (k *Keeper) remove(s *kept) {
	s.gone, s.compare = true, false
	k.rotation.Remove(s.place)
	if !s.sent { // nobody ever saw it
		k.forget(s)
		return
	}
	k.mark(s)
}

// forget drops a session. Lists that still hold it skip it, for it is gone.
func (k *Keeper) forget(s *kept) { delete(k.sessions, s.keptKey) }

// mark has a session written as it is when its turn comes. A session is in one write at a time, and in the order in which it
// was marked, so what it wants last is what is stored.
func (k *Keeper) mark(s *kept) {
	switch {
	case s.flying:
		s.changed = true
	case !s.queued:
		s.queued = true
		k.dirty = append(k.dirty, s)
	}
}

// ---- writes

// mayWrite: no entry is written without a lease, nor before the epoch is known, since its loss would go unnoticed; and after a
// lease was lost not before it is known again, or all would be written twice when it has changed.
func (k *Keeper) mayWrite() bool {
	return k.held && k.epochKnown && k.writeID == 0 && k.releasing == 0
}

func (k *Keeper) write(now time.Time) {
	if !k.mayWrite() || now.Before(k.writeAt) {
		return
	}
	var w WriteEntries
	for len(k.dirty) > 0 && len(k.flight) < k.o.MaxBatch {
		s := k.dirty[0]
		k.dirty = k.dirty[1:]
		s.queued = false
		if s.gone && !s.sent {
			continue
		}
		entry := Entry{User: s.user, Group: s.group, Place: Place{Incarnation: k.incarnation, Connection: s.connection, Device: s.device}}
		if s.gone {
			w.Unregister = append(w.Unregister, entry)
		} else {
			w.Register = append(w.Register, entry)
		}
		s.flying, s.sent = true, true
		k.flight = append(k.flight, s)
	}
	if len(k.dirty) == 0 {
		k.dirty = nil // the array with what was at its front
	}
	if len(k.flight) == 0 {
		return
	}
	// Registrations first, so that Added fits.
	slices.SortStableFunc(k.flight, func(a, b *kept) int {
		switch {
		case a.gone == b.gone:
			return 0
		case b.gone:
			return -1
		}
		return 1
	})
	k.registering = len(w.Register)
	w.ID = k.nextID()
	k.writeID = w.ID
	k.emit(w)
}

func (k *Keeper) entriesWritten(now time.Time, e EntriesWritten) {
	if e.ID == 0 || e.ID != k.writeID {
		return
	}
	k.writeID = 0
	k.failing = e.Err != nil
	flight := k.flight // nil if its incarnation was given up meanwhile
	k.flight = nil
	if e.Err != nil || flight != nil && len(e.Added) != k.registering {
		k.writeAt = now.Add(k.o.RetryAfter)
		k.requeue(flight)
		return
	}
	for i, s := range flight {
		s.flying = false
		if i < k.registering {
			k.stored(s, e.Added[i])
		} else {
			k.removed(now, s)
		}
		if s.changed {
			s.changed = false
			k.mark(s)
		}
	}
}

// requeue puts what could not be written back to the front.
func (k *Keeper) requeue(flight []*kept) {
	for _, s := range flight {
		s.flying, s.changed = false, false
		s.queued = true
		s.unsure = true
		// If it had been lost, this write may have brought it back, and the next one will not tell.
		s.compare = s.compare || s.written && !s.gone
	}
	k.dirty = append(flight, k.dirty...)
}

func (k *Keeper) stored(s *kept, added bool) {
	lost := s.written && added
	s.written = true
	switch {
	case s.gone:
		return
	case s.group != 0:
		k.storedGroup(s, lost)
		return
	}
	if !s.told || s.degraded {
		s.compare = s.compare || s.degraded
		s.told, s.degraded = true, false
		k.emit(Registered{Connection: s.connection})
	}
	s.compare = s.compare || lost
	if !s.compare || s.changed { // what changed may be that all was lost, so not before it is written again
		return
	}
	s.compare = false
	if !s.comparing {
		s.comparing = true
		k.compares = append(k.compares, s)
	}
}

// storedGroup tells that a group is registered: for the first time, or again after it may have been lost for a while.
func (k *Keeper) storedGroup(s *kept, lost bool) {
	s.compare = s.compare || lost
	if s.changed || s.told && !s.compare {
		return
	}
	k.emit(GroupRegistered{Group: s.group, Lost: s.told})
	s.told, s.compare = true, false
}

func (k *Keeper) removed(now time.Time, s *kept) {
	if s.changed || !s.gone {
		return // a group that came back meanwhile: it is written once more as it is now
	}
	if s.unsure && !k.stopping {
		s.removeAt = now.Add(k.o.RemoveAgain)
		k.again = append(k.again, s)
		return
	}
	k.forget(s)
}

// ---- what sessions are told

// answerLate tells those degraded that have waited for too long, or wait while the store is known to fail.
func (k *Keeper) answerLate(now time.Time) {
	for len(k.waiting) > 0 {
		s := k.waiting[0]
		if !s.told && !s.gone {
			if !k.failing && now.Before(s.asked.Add(k.o.AnswerWithin)) {
				return
			}
			s.told, s.degraded = true, true
			k.emit(Registered{Connection: s.connection, Degraded: true})
		}
		k.waiting = k.waiting[1:]
	}
	k.waiting = nil
}

func (k *Keeper) tellCompare(now time.Time) {
	if !k.held || len(k.compares) == 0 || now.Before(k.compared.Add(k.o.CompareEvery)) {
		return
	}
	var connections []uint64
	for len(k.compares) > 0 && len(connections) < k.o.CompareBatch {
		s := k.compares[0]
		k.compares = k.compares[1:]
		s.comparing = false
		if !s.gone {
			connections = append(connections, s.connection)
		}
	}
	if len(connections) > 0 {
		k.compared = now
		k.emit(Compare{connections})
	}
}

// ---- the end

func (k *Keeper) shutdown() {
	if k.stopping {
		return
	}
	k.stopping = true
	for at := k.rotation.Front(); at != nil; at = k.rotation.Front() {
		k.remove(at.Value.(*kept))
	}
	k.waiting, k.compares, k.again = nil, nil, nil
	k.writeAt = time.Time{}
}

// finish gives the lease up when nothing is left to be unregistered, or that cannot be done: without the lease the entries do
// not count anyway.
func (k *Keeper) finish(now time.Time) {
	if !k.stopping || k.releasing != 0 || k.writeID != 0 || k.leaseID != 0 {
		return
	}
	if !k.held && k.incarnation == "" {
		k.stopped = true
		k.emit(Stopped{})
		return
	}
	k.releasing = k.nextID()
	k.emit(ReleaseLease{k.releasing, k.incarnation})
}
