package tcpgate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tidwall/evio"
	"go.uber.org/zap"
)

const (
	startTimeout = 5 * time.Second        // for a Serve to bring its loop up
	restartPause = 100 * time.Millisecond // doubled with each try in a row, up to restartMost
	restartMost  = 5 * time.Second
	restartTries = 16 // in a row, without coming up: about a minute
)

func newLoop(g *Gate, index int) *loop {
	l := &loop{
		gate: g,
		log:  g.opts.Logger.With(zap.Int("loop", index)),
		done: make(chan struct{}),
	}
	l.timer = time.AfterFunc(time.Hour, l.wake)
	return l
}

// start runs the loop and returns once it serves, or with why it does not.
func (l *loop) start() error {
	up := make(chan error, 1)
	go l.run(up)
	select {
	case err := <-up:
		return err
	case <-time.After(startTimeout):
		return errors.New("event loop did not come up")
	}
}

// run serves, and serves again when Serve ends though nobody asked it to: an
// accept error does that, and with it end the connections of this loop only. up
// gets nil or an error once. What does not come up the first time, or many times
// in a row later, is given up.
func (l *loop) run(up chan<- error) {
	defer close(l.done)
	defer l.timer.Stop()
	answered := false
	ready := func(err error) {
		if !answered {
			answered = true
			up <- err
		}
	}
	pause := restartPause
	for tries := 1; tries <= restartTries; tries++ {
		came, err := l.serve(ready)
		if l.stopping() {
			return
		}
		if !answered || l.layErr != nil {
			ready(err)
			return
		}
		if came {
			tries, pause = 1, restartPause
			l.gate.metrics.restarts.Inc()
		}
		l.log.Error("event loop ended and its connections with it; serving again",
			zap.Int("try", tries), zap.NamedError("cause", err))
		select {
		case <-l.gate.closing:
			return
		case <-time.After(pause):
			pause = min(2*pause, restartMost)
		}
	}
	l.gate.fail(fmt.Errorf("tcpgate: event loop did not come back in %d tries", restartTries))
}

// serve is the life of one evio.Serve. came says that its loop was up.
func (l *loop) serve(ready func(error)) (came bool, err error) {
	if err := l.holdSpares(); err != nil {
		return false, err
	}
	defer l.releaseSpares(0)
	dir, err := os.MkdirTemp("", "gate")
	if err != nil {
		return false, fmt.Errorf("tcpgate: control listener: %w", err)
	}
	l.socket = filepath.Join(dir, "c")
	defer os.RemoveAll(dir)

	slow := time.AfterFunc(startTimeout, func() {
		l.gate.fail(errors.New("tcpgate: event loop did not come up in time"))
	})
	defer slow.Stop()
	l.ready = func(err error) {
		came = true
		slow.Stop()
		// Connected; nobody else needs to find it.
		if err := os.RemoveAll(dir); err != nil {
			l.log.Warn("control listener", zap.Error(err))
		}
		ready(err)
	}
	l.servedAt = l.gate.clock()
	l.wheel = newWheel(l.gate.opts.shortest(), l.servedAt)
	l.inspected, l.open = false, 0
	err = evio.Serve(l.events(), "tcp://"+l.gate.Addr().String()+"?reuseport=true", "unix://"+l.socket)
	l.rest.close()

	l.mu.Lock()
	control := l.control
	l.control = nil
	l.waking, l.busy = false, false
	l.mu.Unlock()
	if control != nil {
		if cerr := control.Close(); cerr != nil {
			l.log.Warn("control connection", zap.Error(cerr))
		}
	}
	l.blocked, l.due, l.dueAll = nil, nil, nil
	l.timerAt = 0
	if err == nil && l.serveErr != nil {
		err = l.serveErr
	}
	if err == nil {
		err = errors.New("tcpgate: accept failed")
	}
	return came, err
}

// serving runs in Serve's goroutine, with the listeners open and no loop yet.
// To give up here is the only clean way out of Serve before its loop runs.
func (l *loop) serving(s evio.Server) evio.Action {
	control, err := new(net.Dialer).DialContext(context.Background(), "unix", l.socket)
	if err != nil {
		l.serveErr = fmt.Errorf("tcpgate: control connection: %w", err)
		return evio.Shutdown
	}
	l.serveErr = nil
	l.gate.setAddr(s.Addrs[publicListener])
	l.mu.Lock()
	l.control = control
	l.mu.Unlock()
	return evio.None
}
