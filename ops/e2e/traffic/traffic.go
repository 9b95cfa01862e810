// Package traffic keeps messages flowing through a cluster while something is done to it, and tells how long each conversation
// stood still for it. The tests of e2e assert with it, and measure prints with it.
//
// One person writes to several friends, each message when it is due, however late others are; so what a stall holds up is
// counted from when it was due. Every message must be shown once, and in order: Stop says what was not.
package traffic

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/router/eventlog"
)

// Options for Start.
type Options struct {
	// Writer is the address of the node that the writer is at, Friends are those of his friends, in turn.
	Writer  string
	Friends []string
	// Streams is how many friends there are; Every is the time between two messages to one of them.
	Streams int
	Every   time.Duration
	// Partitions of the message log.
	Partitions int
}

// Traffic is a writer and his friends.
type Traffic struct {
	Streams []*Stream
	// Writer is logged in; Name and Password are his.
	Writer         *future.Client
	Name, Password string

	every  time.Duration
	cancel context.CancelFunc
	wait   sync.WaitGroup
	mu     sync.Mutex
	wrong  []error // the first few
}

// Stream is the messages to one friend.
type Stream struct {
	Conversation string
	Partition    int32
	Friend       *future.Client
	FriendName   string

	mu    sync.Mutex
	due   []time.Time // of each message
	shown []time.Time // of those that the friend was shown
}

// Start registers and befriends the people, and begins to write.
func Start(ctx context.Context, o Options) (_ *Traffic, err error) {
	run := strings.ToLower(rand.Text()[:8])
	t := &Traffic{every: o.Every, Name: "writer-" + run, Password: rand.Text()}
	writing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Stop(ctx))
		}
	}()
	if t.Writer, err = t.enter(ctx, t.Name, o.Writer, nil); err != nil {
		return nil, err
	}
	for i := range o.Streams {
		s := &Stream{FriendName: fmt.Sprintf("friend-%s-%d", run, i)}
		if s.Friend, err = t.enter(ctx, s.FriendName, o.Friends[i%len(o.Friends)], func(m future.Message) { t.show(s, m) }); err != nil {
			return nil, err
		}
		t.Streams = append(t.Streams, s)
		if err = t.Writer.AddFriend(ctx, s.FriendName, "hello, it is me"); err != nil {
			return nil, err
		}
		if err = s.Friend.AnswerFriend(ctx, t.Name, true); err != nil {
			return nil, err
		}
	}
	friends, err := t.Writer.Friends(ctx)
	if err != nil {
		return nil, err
	}
	of := map[string]string{}
	for _, f := range friends {
		of[f.User.Name] = f.Conversation
	}
	for _, s := range t.Streams {
		s.Conversation = of[s.FriendName]
		s.Partition = eventlog.PartitionOf(s.Conversation, o.Partitions)
		t.wait.Go(func() { t.write(writing, s) })
	}
	return t, nil
}

func (t *Traffic) enter(ctx context.Context, name, addr string, message func(future.Message)) (*future.Client, error) {
	if message == nil {
		message = func(future.Message) {}
	}
	c, err := future.Dial(ctx, []string{addr}, future.WithInsecurePasswords(), future.WithBackoff(20*time.Millisecond, time.Second),
		future.WithOutbox(8192), future.WithHandlers(future.Handlers{Message: message, SendFailed: func(f future.SendFailed) {
			t.note(fmt.Errorf("%s: a message failed: %v", name, f))
		}}))
	if err != nil {
		return nil, err
	}
	if _, err := c.Register(ctx, name, t.Password); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (t *Traffic) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.wrong) < 10 {
		t.wrong = append(t.wrong, err)
	}
}

func (t *Traffic) write(ctx context.Context, s *Stream) {
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		n := len(s.due)
		s.due = append(s.due, time.Now())
		s.mu.Unlock()
		if _, err := t.Writer.SendAsync(s.Conversation, fmt.Sprintf("n %d", n)); err != nil {
			t.note(fmt.Errorf("message %d to %s: %w", n, s.Conversation, err))
			return
		}
	}
}

func (t *Traffic) show(s *Stream, m future.Message) {
	var n int
	if _, err := fmt.Sscanf(m.Text, "n %d", &n); err != nil {
		return // of their becoming friends
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if n != len(s.shown) {
		t.note(fmt.Errorf("%s: message %d was shown where %d was due", s.Conversation, n, len(s.shown)))
		return
	}
	s.shown = append(s.shown, now)
}

// Stall is how long the slowest message took that was not shown yet at a time, or came later: until it was shown, or until now.
func (s *Stream) Stall(since time.Time) (worst time.Duration) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, due := range slices.Backward(s.due) {
		end := now
		if i < len(s.shown) {
			if end = s.shown[i]; end.Before(since) {
				break
			}
		}
		worst = max(worst, end.Sub(due))
	}
	return worst
}

// Flows reports whether what was due up to a time was shown.
func (s *Stream) Flows(upTo time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.shown) == len(s.due) || s.due[len(s.shown)].After(upTo)
}

// Counts are how many messages were due, and shown.
func (s *Stream) Counts() (due, shown int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.due), len(s.shown)
}

// AwaitFlow waits until all streams have shown what was due when it was called.
func (t *Traffic) AwaitFlow(ctx context.Context) error {
	now := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var late strings.Builder
		for _, s := range t.Streams {
			if !s.Flows(now) {
				due, shown := s.Counts()
				fmt.Fprintf(&late, "%s: %d of %d shown; ", s.Conversation, shown, due)
			}
		}
		if late.Len() == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("messages did not arrive: %s%w", late.String(), context.Cause(ctx))
		}
	}
}

// Wrong is what went wrong so far, or nil.
func (t *Traffic) Wrong() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.wrong...)
}

// Stop ends the writing, waits until everything was shown, and says what went wrong from Start on.
func (t *Traffic) Stop(ctx context.Context) error {
	t.cancel()
	t.wait.Wait()
	err := t.AwaitFlow(ctx)
	for _, s := range t.Streams {
		err = errors.Join(err, s.Friend.Close())
	}
	if t.Writer != nil {
		err = errors.Join(err, t.Writer.Close())
	}
	return errors.Join(t.Wrong(), err)
}

// Late is how long the slowest of the messages took that were due at a time or later, and when that one was due.
func (s *Stream) Late(from time.Time) (worst time.Duration, due time.Time) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.due) - 1; i >= 0 && !s.due[i].Before(from); i-- {
		end := now
		if i < len(s.shown) {
			end = s.shown[i]
		}
		if took := end.Sub(s.due[i]); took > worst {
			worst, due = took, s.due[i]
		}
	}
	return worst, due
}
