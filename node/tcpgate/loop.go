package tcpgate

import (
	"net"
	"sync"
	"time"

	"github.com/tidwall/evio"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// The listeners of a loop's Serve, in evio's order.
const (
	publicListener = iota
	controlListener
)

const (
	// mailRounds bounds how often a turn looks into the mailbox: then reads get
	// their turn.
	mailRounds = 4
	// turnMost is how long a turn goes on with the mailbox: then the rest waits for the next, and what has come in between goes
	// first. A message for all members of a large group is thousands of writes.
	turnMost = int64(2 * time.Millisecond)
	// turnPiece is how many connections are served between two looks at the clock.
	turnPiece = 32
	// stopGrace is how old a Serve must be before its loop may end, so that it
	// surely waits for that end, on a busy machine too.
	stopGrace = 100 * time.Millisecond
)

// loop is one evio.Serve with one event loop, and the connections it accepted.
// evio's callbacks, one at a time, are the loop's turns: each begins with enter,
// handles its event, and ends with leave, which does what has come due and what
// others have posted.
type loop struct {
	// Set at start.
	gate *Gate
	log  *zap.Logger
	done chan struct{} // run has returned

	mu       sync.Mutex
	mail     []*Conn  // connections with something to do
	busy     bool     // in a turn: leave will look at the mail
	waking   bool     // a byte is on its way to the control connection
	control  net.Conn // our end
	closeAll bool     // close every connection, then stop
	stopNow  bool     // stop, whatever is open

	// Owned by the loop's goroutine; by Serve's own once the loop has ended.
	lay       layout
	layErr    error
	inspected bool
	epfd      int
	rest      rest
	servedAt  int64
	open      int  // what evio has opened: connections, refused ones, our control
	conns     int  // connections
	closeSent bool // closeAll was carried out
	wheel     wheel
	blocked   []*Conn
	retryAt   int64
	due       []*Conn // taken from the mailbox and not served yet
	dueAll    []*Conn // the array that due is the end of
	spareMail []*Conn
	pieces    [maxPieces][]byte
	timer     *time.Timer
	timerAt   int64
	spares    []int       // descriptors to release before Serve ends
	ready     func(error) // the loop is up, or cannot be
	socket    string      // where the control listener is
	serveErr  error       // why serving gave up
}

// wake makes the loop take a turn if it would not do so anyway: in a turn, its
// leave looks for what has been posted, under the same lock. The byte is the
// only one in flight, so the write cannot block.
func (l *loop) wake() {
	l.mu.Lock()
	if l.busy || l.waking || l.control == nil {
		l.mu.Unlock()
		return
	}
	l.waking = true
	control := l.control
	l.mu.Unlock()
	if _, err := control.Write([]byte{1}); err != nil {
		// The loop has ended; what it had is closed by evio, and run serves anew.
		l.log.Debug("wake", zap.Error(err))
	}
}

// nudge is wake if there is mail.
func (l *loop) nudge() {
	l.mu.Lock()
	mail := len(l.mail) > 0
	l.mu.Unlock()
	if mail {
		l.wake()
	}
}

// stop asks the loop to end, once its connections have closed or now.
func (l *loop) stop(now bool) {
	l.mu.Lock()
	l.closeAll = true
	l.stopNow = l.stopNow || now
	l.mu.Unlock()
	l.wake()
}

// put leaves c in the mailbox; the caller has set c.posted.
func (l *loop) put(c *Conn) {
	l.mu.Lock()
	l.mail = append(l.mail, c)
	l.mu.Unlock()
}

func (l *loop) post(c *Conn) {
	c.mu.Lock()
	put := !c.posted
	c.posted = true
	c.mu.Unlock()
	if put {
		l.put(c)
	}
	l.wake()
}

func (l *loop) enter() int64 {
	l.mu.Lock()
	l.busy = true
	l.mu.Unlock()
	return l.gate.clock()
}

// leave ends a turn. It returns evio.Shutdown when the loop is to end; only the
// callbacks whose action evio obeys at once pass that on.
func (l *loop) leave(now int64) evio.Action {
	l.wheel.advance(now, func(c *Conn) { l.look(c, now) })
	l.retry(now)
	more, stopping := false, false
	for round := 0; ; round++ {
		late := round > 0 && l.late(now)
		l.mu.Lock()
		closeAll := l.closeAll && !l.closeSent
		if waiting := len(l.due) + len(l.mail); !closeAll && (waiting == 0 || round == mailRounds || late) {
			more = waiting > 0
			stopping = l.stopNow || (l.closeAll && l.conns == 0)
			l.busy = false
			l.mu.Unlock()
			break
		}
		if len(l.due) == 0 {
			l.due, l.dueAll, l.mail, l.spareMail = l.mail, l.mail, l.spareMail[:0], nil
		}
		l.mu.Unlock()
		l.serveDue(now)
		if closeAll {
			l.closeSent = true
			final := l.gate.final(CloseShutdown)
			l.wheel.each(func(c *Conn) { c.closeWith(CloseShutdown, final) })
		}
	}
	if more {
		l.wake()
	}
	began := now
	now = l.gate.clock()
	l.gate.metrics.turned(now - began)
	if stopping && now-l.servedAt >= int64(stopGrace) {
		return evio.Shutdown
	}
	l.arm(now, stopping)
	return evio.None
}

// late tells that a turn which began at now has lasted long enough.
func (l *loop) late(now int64) bool { return l.gate.clock()-now >= turnMost }

// serveDue serves what was taken from the mailbox, at least some of it, and the rest unless it is late.
func (l *loop) serveDue(now int64) {
	for i, c := range l.due {
		if i > 0 && i%turnPiece == 0 && l.late(now) {
			l.due = l.due[i:]
			return
		}
		l.due[i] = nil
		l.service(c, now)
	}
	l.spareMail, l.due, l.dueAll = l.dueAll, nil, nil
}

// leaveOpen is leave where evio would not obey Shutdown at once: the loop is
// asked again through its control connection.
func (l *loop) leaveOpen(now int64) {
	if l.leave(now) == evio.Shutdown {
		l.wake()
	}
}

// arm sees to it that the next thing that falls due gets a turn.
func (l *loop) arm(now int64, stopping bool) {
	next := int64(0)
	earlier := func(at int64) {
		if next == 0 || at < next {
			next = at
		}
	}
	if l.wheel.size > 0 {
		earlier(l.wheel.next())
	}
	if len(l.blocked) > 0 {
		earlier(l.retryAt)
	}
	if stopping {
		earlier(l.servedAt + int64(stopGrace))
	}
	if next == 0 || (l.timerAt > now && l.timerAt <= next) {
		return
	}
	l.timerAt = max(next, now+1)
	l.timer.Reset(time.Duration(l.timerAt - now))
}

// events are evio's callbacks. Data never returns output and never Close.
func (l *loop) events() evio.Events {
	return evio.Events{
		NumLoops: 1,
		Serving:  l.serving,
		Opened:   l.onOpened,
		Data:     l.onData,
		Closed:   l.onClosed,
	}
}

func (l *loop) onOpened(ec evio.Conn) ([]byte, evio.Options, evio.Action) {
	opts := evio.Options{ReuseInputBuffer: true}
	if !l.inspected {
		l.inspected = true
		l.lay, l.layErr = inspect(ec)
		if l.layErr == nil {
			l.epfd = l.lay.epoll(ec)
			unix.CloseOnExec(l.epfd)
			if err := l.rest.open(l.epfd); err != nil {
				l.log.Warn("an idle loop costs more than it need", zap.Error(err))
			}
		}
	}
	now := l.enter()
	l.open++
	ec.SetContext(l) // opened, but not a Conn
	if l.layErr != nil {
		// Not Shutdown: this loop is too young to end.
		l.ready(l.layErr)
		l.stop(true)
		l.leaveOpen(now)
		return nil, opts, evio.None
	}
	fd := l.lay.descriptor(ec)
	unix.CloseOnExec(fd)
	if ec.AddrIndex() == controlListener {
		l.ready(nil)
		l.leaveOpen(now)
		return nil, opts, evio.None
	}
	if reason := l.gate.admit(fd); reason != "" {
		l.refuse(fd, reason)
		l.leaveOpen(now)
		// Obeyed by evio as soon as the socket can be written, which it can.
		return nil, opts, evio.Close
	}
	l.tune(fd)
	c := &Conn{
		loop: l, id: l.gate.ids.Add(1), remote: ec.RemoteAddr(),
		fd: fd, opened: now, lastFrame: now,
	}
	ec.SetContext(c)
	l.conns++
	due, _ := c.due(now)
	l.wheel.add(c, due)
	l.gate.opts.Handler.Opened(c)
	l.leaveOpen(now)
	return nil, opts, evio.None
}

func (l *loop) onData(ec evio.Conn, in []byte) ([]byte, evio.Action) {
	now := l.enter()
	if ec.AddrIndex() == controlListener {
		l.mu.Lock()
		l.waking = false
		l.mu.Unlock()
		action := l.leave(now)
		if action == evio.None {
			l.rest.wait(now)
		}
		return nil, action
	}
	if c, ok := ec.Context().(*Conn); ok {
		l.gate.metrics.bytesIn.Add(float64(len(in)))
		l.read(c, in, false, now)
	}
	l.leaveOpen(now)
	l.rest.wait(now)
	return nil, evio.None
}

func (l *loop) onClosed(ec evio.Conn, err error) evio.Action {
	now := l.enter()
	if ec.Context() != nil {
		l.open--
	}
	if l.open == 0 {
		l.releaseSpares(0) // Serve closes its listeners next
	}
	if c, ok := ec.Context().(*Conn); ok {
		l.closed(c, ec, err)
	}
	action := l.leave(now)
	if ec.AddrIndex() == controlListener {
		// It is closed when Serve ends. Should it ever be closed before, nobody
		// could wake this loop: another is to be served.
		action = evio.Shutdown
	}
	return action
}

// closed ends c, whose descriptor evio has just closed.
func (l *loop) closed(c *Conn, ec evio.Conn, err error) {
	reason := ClosePeer
	switch {
	case err != nil:
		reason = CloseReadError
	case l.lay.tornDown(ec):
		reason = CloseLoopRestart
		if l.stopping() {
			reason = CloseShutdown
		}
	}
	c.fd = -1
	c.reader = frameReader{}
	l.wheel.remove(c)
	l.conns--

	c.mu.Lock()
	if c.closing.Load() {
		reason = c.reason
	}
	c.reason = reason
	c.closing.Store(true)
	left := c.out.frames()
	c.out.clear()
	c.mu.Unlock()
	if err == nil {
		err = c.err
	}
	l.gate.released(reason, left)
	l.gate.opts.Handler.Closed(c, reason, err)
}

func (l *loop) stopping() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closeAll || l.stopNow
}

// read hands in's frames to the handler. owned says whether in is still valid
// afterwards.
func (l *loop) read(c *Conn, in []byte, owned bool, now int64) {
	switch {
	case c.closing.Load():
		return // nothing is read any more; the peer's end is awaited
	case c.paused || c.wantPause.Load():
		// evio asks for input again after Opened, whatever was asked there.
		c.reader.stash(in, owned)
		l.pause(c)
		return
	}
	frames := 0
	for len(in) > 0 {
		payload, rest, ok, err := c.reader.take(in, l.gate.opts.MaxFrame)
		if err != nil {
			c.closeWith(CloseTooLarge, l.gate.final(CloseTooLarge))
			break
		}
		if !ok {
			break
		}
		in = rest
		frames++
		c.lastFrame, c.greeted = now, true
		l.gate.opts.Handler.Frame(c, payload)
		if c.closing.Load() {
			break
		}
		if c.wantPause.Load() {
			// Marked at once: what is stashed must be unstashed, however soon reads
			// are resumed.
			c.reader.stash(in, owned)
			l.pause(c)
			break
		}
	}
	l.gate.metrics.framesIn.Add(float64(frames))
}

// service does what was posted for c.
func (l *loop) service(c *Conn, now int64) {
	c.mu.Lock()
	c.posted = false
	c.mu.Unlock()
	if c.fd < 0 {
		return
	}
	closing := c.closing.Load()
	if want := c.wantPause.Load() && !closing; want != c.paused {
		if want {
			l.pause(c)
		} else {
			l.resume(c, now)
		}
	}
	if closing {
		l.end(c, now)
		return
	}
	if !c.blocked {
		l.flush(c, now)
	}
}

// pause takes c's input off epoll's list. An error or a reset is still
// reported.
func (l *loop) pause(c *Conn) {
	c.paused = true
	l.watch(c, 0)
}

func (l *loop) resume(c *Conn, now int64) {
	c.paused = false
	c.lastFrame = now
	l.watch(c, unix.EPOLLIN)
	if kept := c.reader.unstash(); len(kept) > 0 {
		l.read(c, kept, true, now)
	}
}

func (l *loop) watch(c *Conn, events uint32) {
	ev := unix.EpollEvent{Events: events, Fd: int32(c.fd)}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, c.fd, &ev); err != nil {
		l.log.Error("epoll_ctl", zap.Uint64("conn", c.id), zap.Error(err))
	}
}

// due is when c is to be closed, and why, as things stand.
func (c *Conn) due(now int64) (int64, CloseReason) {
	opts := &c.loop.gate.opts
	at, why := now+int64(time.Hour), CloseIdle
	limit := func(from int64, d time.Duration, reason CloseReason) {
		if d > 0 && from+int64(d) < at {
			at, why = from+int64(d), reason
		}
	}
	if !c.paused {
		limit(c.lastFrame, opts.IdleTimeout, CloseIdle)
	}
	if !c.greeted {
		limit(c.opened, opts.HelloTimeout, CloseHelloTimeout)
	}
	if !c.loggedIn.Load() {
		limit(c.opened, opts.LoginTimeout, CloseLoginTimeout)
	}
	return at, why
}

// look is the wheel's visit to c.
func (l *loop) look(c *Conn, now int64) {
	if c.ending {
		if now >= c.cutAt {
			l.cut(c)
			c.cutAt = now + int64(time.Second)
		}
		l.wheel.add(c, c.cutAt)
		return
	}
	due, reason := c.due(now)
	if due <= now {
		c.closeWith(reason, l.gate.final(reason))
		due = now + l.wheel.tick
	}
	l.wheel.add(c, due)
}
