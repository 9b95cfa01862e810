package deliver_test

import (
	"slices"

	"pgregory.net/rapid"
)

// The part of the world (sim_test.go) in which friendships end.

// seen is what a node knows of the log's end: history's offset, or better.
func (w *world) seen() int64 {
	return rapid.Int64Range(min(w.hist, int64(len(w.log))), int64(len(w.log))).Draw(w.t, "end")
}

// write appends to the log.
func (w *world) write(m msg) {
	o := int64(len(w.log))
	m.Offset, m.At = o, w.now
	again := slices.ContainsFunc(w.log, func(first msg) bool { return first.ID == m.ID && w.valid(first.Offset) })
	w.dup[o] = again || m.Version != 0 && w.closed[m.Conversation] > m.Version
	if m.Closes != 0 {
		w.closed[m.Conversation] = max(w.closed[m.Conversation], m.Closes)
	}
	w.log = append(w.log, m)
}

// unstick lets a message into the log that was checked long ago: its node was stopped, and the removal waited it out.
func (w *world) unstick() {
	if len(w.stuck) > 0 {
		i := rapid.IntRange(0, len(w.stuck)-1).Draw(w.t, "which")
		m := w.stuck[i]
		w.stuck = slices.Delete(w.stuck, i, i+1)
		w.write(m)
	}
}

// remove decides that a friendship ends. It may begin again before the log has that.
func (w *world) remove() {
	m := msg{Conversation: rapid.SampledFrom([]string{"d:1:2", "d:1:3"}).Draw(w.t, "conversation"), Sender: 1}
	w.version[m.Conversation] += 2
	m.Closes = w.version[m.Conversation]
	w.ids++
	m.ID = w.ids
	w.closing = append(w.closing, m)
}

// close brings the oldest removal to the log.
func (w *world) close() {
	if len(w.closing) > 0 {
		m := w.closing[0]
		w.closing = w.closing[1:]
		w.write(m)
	}
}
