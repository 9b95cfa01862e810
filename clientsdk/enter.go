package future

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/futurechat/future/clientsdk/resume"
	"github.com/futurechat/future/clientsdk/wire"
	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
)

// greeted: the node has answered Hello.
func (l *loop) greeted(h *pb.HelloResponse, err *wire.Error) {
	if err != nil {
		if errors.Is(err, ErrVersion) {
			l.closing(&pb.Closing{Reason: pb.Closing_REASON_VERSION, Message: err.Message})
			return
		}
		l.lost(fmt.Errorf("hello: %w", err), err.RetryAfter)
		return
	}
	l.hello = h
	within := func(ms uint32, least, most time.Duration) time.Duration {
		return min(max(time.Duration(ms)*time.Millisecond, least), most)
	}
	l.ping = within(h.GetPingMs(), 10*time.Millisecond, 5*time.Minute)
	l.silence = max(within(h.GetSilenceMs(), 20*time.Millisecond, 15*time.Minute), l.ping)
	l.phase, l.dialErrs = phaseGreeted, nil
	if l.ended != nil && !l.refreshing {
		l.setState(StateChange{State: LoggedOut, Err: l.whyLoggedOut(), Addr: l.link.addr, Node: clip(h.GetNode(), maxNote)})
		l.settled(nil)
	}
}

// whyLoggedOut is nil if there never was a session, or Logout ended it.
func (l *loop) whyLoggedOut() error {
	if errors.Is(l.ended, ErrNotLoggedIn) {
		return nil
	}
	return l.ended
}

// resumed answers our own Resume.
func (l *loop) resumed(s *pb.SessionResponse, err *wire.Error) {
	switch {
	case err == nil:
		// What a server did wrong ends the connection; the next one tries again.
		if err := l.entered(s, l.token); err != nil {
			l.log.Warn("resuming", "err", err)
		}
	case errors.Is(err, ErrSessionEnded), errors.Is(err, ErrBadCredentials), errors.Is(err, ErrInvalid):
		l.sessionEnded(fmt.Errorf("resume: %w", err))
	case errors.Is(err, ErrDraining):
		l.leaving() // where to go is told by Closing
	default:
		l.lost(fmt.Errorf("resume: %w", err), err.RetryAfter)
	}
}

// answerEnter answers a log-in of the program.
func (l *loop) answerEnter(c *call, e *pb.Envelope, err *wire.Error) {
	if err != nil {
		if l.phase == phaseEntering {
			l.phase = phaseGreeted
		}
		if r, ok := c.env.GetBody().(*pb.Envelope_Resume); ok && errors.Is(err, ErrSessionEnded) && r.Resume.GetToken() == l.token && !l.refreshing {
			l.loggedOut(err)
		}
		c.reply <- reply{err: err}
		return
	}
	token := e.GetSession().GetToken()
	if r, ok := c.env.GetBody().(*pb.Envelope_Resume); ok && token == "" {
		token = r.Resume.GetToken()
	}
	if err := l.entered(e.GetSession(), token); err != nil {
		c.reply <- reply{err: err}
		return
	}
	l.entrants = append(l.entrants, func() { c.reply <- reply{env: e} })
}

// synced: the heads were asked for since the session was opened, or it is over. Only now is who waits for the session told:
// so what he asks for from then on is not older than the position from which events come, and nothing falls between the two.
func (l *loop) synced() {
	for _, tell := range l.entrants {
		tell()
	}
	l.entrants = nil
}

// entered: the connection has a session.
func (l *loop) entered(s *pb.SessionResponse, token string) error {
	if s.GetToken() != "" {
		token = s.GetToken()
	}
	user := fromUser(s.GetUser())
	if user.ID == "" || len(token) > wire.MaxPasswordBytes || l.phase != phaseEntering {
		err := fmt.Errorf("%w: a session without a user, or with too long a token", ErrProtocol)
		l.lost(err, 0)
		return err
	}
	if token != l.token || user != l.user {
		l.token, l.user = token, user
		l.store.add(record{Session: &savedSession{Token: token, User: user}})
	}
	l.ended, l.away, l.told = nil, nil, nil
	l.phase, l.liveSince = phaseLive, l.now()
	l.checkAt = l.liveSince.Add(l.o.timeout / 4)
	l.stats.Sessions++
	l.publish()
	l.log.Info("session opened", "addr", l.link.addr, "node", clip(l.hello.GetNode(), maxNote), "user", user.ID, "degraded", s.GetDegraded())
	l.setState(StateChange{State: Online, Addr: l.link.addr, Node: clip(l.hello.GetNode(), maxNote), Degraded: s.GetDegraded()})
	l.entrants = append(l.entrants, func() { l.settled(nil) })
	l.step(resume.Opened{User: user.ID, Cluster: clip(l.hello.GetCluster(), maxNote), Epoch: l.hello.GetEpoch()})
	return nil
}

// sessionEnded: the token is worth nothing any more. New credentials are asked for if there is who can give them.
func (l *loop) sessionEnded(err error) {
	if l.o.refresh == nil {
		l.loggedOut(err)
		return
	}
	l.token, l.refreshing, l.ended = "", true, err
	l.store.add(record{Session: &savedSession{User: l.user}})
	l.publish()
	l.lost(err, 0)
	l.wait.Go(func() { l.refresh(err) })
}

// refresh gets credentials and logs in with them, on a goroutine of its own.
func (l *loop) refresh(ended error) {
	credentials, err := l.o.refresh(l.ctx, ended)
	if err == nil {
		err = l.enterWith(l.ctx, credentials)
	}
	l.post(func() {
		l.refreshing = false
		if err != nil && l.ended != nil { // nobody else logged in meanwhile
			l.loggedOut(fmt.Errorf("%w: refresh: %w", ended, err))
		}
	})
}

func (l *loop) enterWith(ctx context.Context, c Credentials) error {
	e := &pb.Envelope{Body: &pb.Envelope_Resume{Resume: &pb.ResumeRequest{Token: c.Token}}}
	if c.Token == "" {
		e.Body = &pb.Envelope_Login{Login: &pb.LoginRequest{Name: c.Name, Password: c.Password}}
	}
	for {
		_, err := l.call(ctx, e, callEnter)
		answered := (*wire.Error)(nil)
		retry := errors.Is(err, ErrDisconnected) || errors.As(err, &answered) && (answered.RetryAfter > 0 || errors.Is(err, ErrUnavailable))
		if !retry {
			return err
		}
		if err := l.pause(ctx, err); err != nil {
			return err
		}
	}
}

// loggedOut: there is no session and none to come until a person logs in. err is nil after Logout.
func (l *loop) loggedOut(err error) {
	l.token, l.ended = "", err
	if err == nil {
		l.ended = ErrNotLoggedIn
	}
	l.store.add(record{Session: &savedSession{User: l.user}})
	l.publish()
	switch l.phase {
	case phaseLive:
		l.lost(l.ended, 0)
	case phaseEntering:
		l.phase = phaseGreeted
	}
	l.halt(l.ended)
	l.setState(StateChange{State: LoggedOut, Err: err})
	l.settled(nil)
}

// halt answers all who wait for what cannot be until a person acts. Messages stay in the outbox.
func (l *loop) halt(err error) {
	l.waiting = slices.DeleteFunc(l.waiting, func(c *call) bool {
		if c.mode == callEnter {
			return false
		}
		c.reply <- reply{err: err}
		return true
	})
	for _, s := range l.senders {
		s.reply <- sendReply{err: err}
	}
	l.senders = nil
	for id, p := range l.pending {
		if p.waits {
			p.resolve(Receipt{}, err)
			delete(l.pending, id)
		}
	}
}
