package resume

import (
	"slices"
	"time"
)

// timer is when a conversation or a lane wants to go on. It counts only if that still has the same time in retryAt.
type timer struct {
	at           time.Time
	conversation *conversation
	lane         *lane
}

// timers is sorted, soonest first.
type timers []timer

func (ts *timers) add(t timer) {
	i, _ := slices.BinarySearchFunc(*ts, t.at, func(x timer, at time.Time) int {
		if x.at.After(at) {
			return 1
		}
		return -1 // behind those of the same time
	})
	*ts = slices.Insert(*ts, i, t)
}

func (ts *timers) next() time.Time {
	if len(*ts) == 0 {
		return time.Time{}
	}
	return (*ts)[0].at
}

// pop takes the soonest if it is due.
func (ts *timers) pop(now time.Time) (timer, bool) {
	if len(*ts) == 0 || (*ts)[0].at.After(now) {
		return timer{}, false
	}
	t := (*ts)[0]
	*ts = slices.Delete(*ts, 0, 1)
	return t, true
}
