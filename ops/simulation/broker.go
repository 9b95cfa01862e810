package simulation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/futurechat/future/router/eventlog"
)

// broker is the log: what stands in it is replicated, and readers see nothing else. A record that was only on the leader when
// that changed was never there for anybody; whoever appended it is told that its outcome is not known.
type broker struct {
	service
	topics    map[string]*simTopic
	committed map[string]map[int32]int64 // by group and topic
}

type simTopic struct {
	name       string
	info       eventlog.TopicInfo
	partitions []*simPartition
}

type simPartition struct {
	number  int32
	records []eventlog.Record
	readers []*simReader
	// By faults: appends to it do not go through, or are given up and written all the same.
	stuck, late int
}

func (p *simPartition) end() int64 { return int64(len(p.records)) }

func newBroker(w *world) *broker {
	return &broker{
		service: service{
			w: w, name: "log", rng: w.stream("log"), usual: time.Millisecond,
			away: eventlog.ErrUnavailable, lost: eventlog.ErrUnavailable,
		},
		topics: map[string]*simTopic{}, committed: map[string]map[int32]int64{},
	}
}

func (b *broker) create(name string, partitions int) {
	t := &simTopic{name: name, info: eventlog.TopicInfo{ID: "simulated " + name, Partitions: partitions, Replication: 3}}
	for i := range partitions {
		t.partitions = append(t.partitions, &simPartition{number: int32(i)})
	}
	b.topics[name] = t
}

func (b *broker) partition(topic string, partition int32) (*simPartition, error) {
	t := b.topics[topic]
	if t == nil || partition < 0 || int(partition) >= len(t.partitions) {
		return nil, fmt.Errorf("%w: %s/%d", eventlog.ErrNoTopic, topic, partition)
	}
	return t.partitions[partition], nil
}

// write puts records at a partition's end, and lets its readers know after a while.
func (b *broker) write(e ...eventlog.Entry) (first int64, at time.Time) {
	p, _ := b.partition(e[0].Topic, e[0].Partition) // looked for by Append
	first, at = p.end(), b.w.time().Truncate(time.Millisecond)
	for _, e := range e {
		r := eventlog.Record{Partition: p.number, Offset: p.end(), Time: at, Key: e.Key, Value: e.Value, Headers: e.Headers}
		p.records = append(p.records, r)
		b.w.truth.written(e.Topic, r)
	}
	if b.w.planted.write != nil {
		b.w.planted.write(p)
	}
	for _, r := range p.readers {
		b.w.after(b.latency(), r.p.touch)
	}
	return first, at
}

// ---- what a process has of it

// logPort is the log as a process reaches it. Of each partition one produce request is under way; what comes meanwhile goes with the
// next.
type logPort struct {
	p      *proc
	b      *broker
	queues map[*simPartition]*queue
	held   int // not answered
}

type queue struct {
	at      *simPartition
	waiting []pendingAppend
	flying  bool
	failing bool
}

type pendingAppend struct {
	e    eventlog.Entry
	done func(eventlog.Appended, error)
}

var _ eventlog.Log = (*logPort)(nil)

func (w *world) logPort(p *proc) *logPort {
	return &logPort{p: p, b: w.broker, queues: map[*simPartition]*queue{}}
}

// mostHeld is how many appends of a process may await their answer.
const mostHeld = 256

// Append implements eventlog.Log.
func (l *logPort) Append(e eventlog.Entry, done func(eventlog.Appended, error)) error {
	at, err := l.b.partition(e.Topic, e.Partition)
	if err != nil || l.p.dead {
		return eventlog.ErrClosed
	}
	q := l.queues[at]
	if q == nil {
		q = &queue{at: at}
		l.queues[at] = q
	}
	switch {
	case q.failing:
		return eventlog.ErrBehindFailed
	case l.held >= mostHeld:
		l.p.w.count("appends refused for the backlog")
		return eventlog.ErrBacklog
	}
	l.held++
	q.waiting = append(q.waiting, pendingAppend{e, done})
	l.send(q)
	return nil
}

// produced is what becomes of a produce request.
type produced uint8

const (
	taken     produced = iota
	refused            // surely not written
	answerGo           // written, and nobody is told
	vanished           // not written, and nobody is told
	truncated          // only on the leader, which changed
	late               // given up, and written all the same
	doubled            // written twice, since the first answer was lost
	produces           // how many there are
)

var producedNames = [produces]string{"", "refused", "written, answer lost", "lost", "truncated at a change of leader", "written late", "written twice"}

func (l *logPort) fate(q *queue) produced {
	b, cuts := l.b, l.p.cuts[&l.b.service]
	n := b.rng.IntN(1000)
	lost := [...]produced{answerGo, vanished, truncated, late}[b.rng.IntN(4)]
	switch {
	case b.refuses > 0:
		return refused
	case b.silent > 0 || cuts&cutRequests != 0:
		return vanished
	case cuts&cutAnswers != 0:
		return answerGo
	case q.at.stuck > 0:
		return lost
	case q.at.late > 0:
		return late
	case n < b.flaky/2:
		return refused
	case n < b.flaky:
		return lost
	case n < b.flaky+b.flaky/2 && b.w.o.on("doubled"):
		return doubled
	}
	return taken
}

// produceTimeout is how long a produce request may take.
const produceTimeout = 3 * time.Second

// send sends all that waits for a partition, if no request is under way.
func (l *logPort) send(q *queue) {
	if q.flying || len(q.waiting) == 0 {
		return
	}
	q.flying = true
	w, b := l.p.w, l.b
	w.after(b.latency()/4, func() { l.p.exec(func() { l.produce(q) }) }) // others come along
}

func (l *logPort) produce(q *queue) {
	w, b := l.p.w, l.b
	batch := q.waiting
	q.waiting = nil
	entries := make([]eventlog.Entry, len(batch))
	for i, a := range batch {
		entries[i] = a.e
	}
	fate := l.fate(q)
	out, back := b.latency(), b.latency()
	if fate != taken {
		w.count("appends " + producedNames[fate])
		w.tracef("%s appends %d to %s/%d: %s", l.p.name, len(batch), batch[0].e.Topic, q.at.number, producedNames[fate])
	}
	if w.planted.append != nil && w.planted.append(entries) {
		w.after(out+back, func() { l.p.exec(func() { l.answered(q, batch, q.at.end(), w.time(), nil) }) })
		return
	}
	answer := func(d time.Duration, first int64, at time.Time, err error) {
		w.after(d, func() { l.p.exec(func() { l.answered(q, batch, first, at, err) }) })
	}
	switch fate {
	case taken, doubled:
		w.after(out, func() {
			first, at := b.write(entries...)
			if fate == doubled {
				again, atAgain := b.write(entries...)
				if b.rng.IntN(2) == 0 {
					first, at = again, atAgain
				}
			}
			answer(back, first, at, nil)
		})
	case refused:
		answer(out+back, 0, time.Time{}, eventlog.ErrUnavailable)
	case answerGo:
		w.after(out, func() { b.write(entries...) })
		answer(produceTimeout, 0, time.Time{}, eventlog.ErrUnknownOutcome)
	case late:
		w.after(produceTimeout+time.Duration(b.rng.Int64N(int64(10*time.Second))), func() { b.write(entries...) })
		answer(produceTimeout, 0, time.Time{}, eventlog.ErrUnknownOutcome)
	case vanished, truncated:
		answer(produceTimeout, 0, time.Time{}, eventlog.ErrUnknownOutcome)
	}
}

// answered tells a batch, and if it failed all that waits behind it.
func (l *logPort) answered(q *queue, batch []pendingAppend, first int64, at time.Time, err error) {
	l.held -= len(batch)
	q.flying = false
	if err == nil {
		for i, a := range batch {
			a.done(eventlog.Appended{Partition: q.at.number, Offset: first + int64(i), Time: at}, nil)
		}
		l.send(q)
		return
	}
	behind := q.waiting
	l.held -= len(behind)
	q.waiting, q.failing = nil, true
	for _, a := range batch {
		a.done(eventlog.Appended{}, err)
	}
	for _, a := range behind {
		l.p.w.count("appends failed behind another")
		a.done(eventlog.Appended{}, eventlog.ErrBehindFailed)
	}
	q.failing = false
}

// Open implements eventlog.Log.
func (l *logPort) Open(ctx context.Context, topic string, partition int32, from int64) (eventlog.Reader, error) {
	return call(ctx, l.p, &l.b.service, "open", func() (eventlog.Reader, error) {
		at, err := l.b.partition(topic, partition)
		if err != nil {
			return nil, err
		}
		if from < 0 || from > at.end() {
			return nil, fmt.Errorf("%w: %s/%d at %d of [0, %d]", eventlog.ErrOutOfRange, topic, partition, from, at.end())
		}
		return &simReader{p: l.p, b: l.b, part: at, at: from}, nil
	})
}

// Bounds implements eventlog.Log.
func (l *logPort) Bounds(ctx context.Context, topic string, partition int32) (start, end int64, err error) {
	end, err = call(ctx, l.p, &l.b.service, "bounds", func() (int64, error) {
		at, err := l.b.partition(topic, partition)
		if err != nil {
			return 0, err
		}
		return at.end(), nil
	})
	return 0, end, err
}

// Topic implements eventlog.Log.
func (l *logPort) Topic(ctx context.Context, name string) (eventlog.TopicInfo, error) {
	return call(ctx, l.p, &l.b.service, "topic", func() (eventlog.TopicInfo, error) {
		t := l.b.topics[name]
		if t == nil {
			return eventlog.TopicInfo{}, eventlog.ErrNoTopic
		}
		return t.info, nil
	})
}

// CreateTopic implements eventlog.Log: all topics are there from the beginning.
func (l *logPort) CreateTopic(context.Context, eventlog.TopicSpec) error {
	return errors.ErrUnsupported
}

// Close implements eventlog.Log.
func (l *logPort) Close(context.Context) error { return nil }

// Committed implements eventlog.Log.
func (l *logPort) Committed(ctx context.Context, group, topic string) (map[int32]int64, error) {
	return call(ctx, l.p, &l.b.service, "committed", func() (map[int32]int64, error) {
		return maps.Clone(l.b.committed[group+" "+topic]), nil
	})
}

// Commit implements eventlog.Log.
func (l *logPort) Commit(ctx context.Context, group, topic string, offsets map[int32]int64) error {
	return do(ctx, l.p, &l.b.service, "commit", func() error {
		key := group + " " + topic
		if l.b.committed[key] == nil {
			l.b.committed[key] = map[int32]int64{}
		}
		for p := range l.b.topics[topic].info.Partitions {
			if at, ok := offsets[int32(p)]; ok {
				if l.p.w.planted.commit != nil {
					at = l.p.w.planted.commit(at)
				}
				l.p.w.truth.commits(group, int32(p), l.b.committed[key][int32(p)], at)
				l.b.committed[key][int32(p)] = at
			}
		}
		return nil
	})
}

// ---- reading

// simReader reads a partition. Fetches are small, so that batches are of all sizes.
type simReader struct {
	p      *proc
	b      *broker
	part   *simPartition
	at     int64
	closed bool
}

// Next implements eventlog.Reader.
func (r *simReader) Next(ctx context.Context) ([]eventlog.Record, error) {
	cutOff := func() bool { return r.p.cuts[&r.b.service] != 0 || r.b.refuses+r.b.silent > 0 }
	here := func() bool { return r.closed || r.at < r.part.end() && !cutOff() }
	if !here() && ctx.Err() == nil {
		r.part.readers = append(r.part.readers, r)
		defer func() {
			for i, o := range r.part.readers {
				if o == r {
					r.part.readers = append(r.part.readers[:i:i], r.part.readers[i+1:]...)
					return
				}
			}
		}()
		r.p.blockUntil(ctx, here)
	}
	switch {
	case r.closed:
		return nil, eventlog.ErrClosed
	case !here():
		return nil, ctx.Err()
	case r.b.rng.IntN(1000) < r.b.flaky/2:
		r.p.w.count("reads failed")
		return nil, eventlog.ErrUnavailable
	}
	const most = 8
	n := min(r.part.end()-r.at, 1+r.b.rng.Int64N(most))
	records := r.part.records[r.at : r.at+n : r.at+n]
	r.at += n
	return records, nil
}

// Close implements eventlog.Reader.
func (r *simReader) Close() error {
	r.closed = true
	return nil
}
