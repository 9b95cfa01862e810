package tcpgate

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// busyGap is the time between two turns below which a loop is busy: then to look whether there is more would only cost.
const busyGap = 200 * time.Microsecond

// rest is where a loop waits when it has little to do. evio waits in epoll_wait(2), which to Go's runtime is a system call that
// may end any moment: it keeps a processor for it and looks after it every 20 µs at first, for 10 ms. With an event every few
// ms, as of idle sessions that ping, that is three quarters of what a node costs. So the loop waits in the runtime's own poller
// until evio's epoll has something, and only then goes back to evio, which finds it at once.
type rest struct {
	epoll *os.File
	raw   syscall.RawConn
	fds   []unix.PollFd
	turn  int64 // when the last turn began
}

// open takes a copy of evio's epoll descriptor, which stays evio's.
func (r *rest) open(epfd int) error {
	fd, err := unix.FcntlInt(uintptr(epfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd) // nothing else is to be done with it
		return err
	}
	r.epoll = os.NewFile(uintptr(fd), "epoll")
	r.raw, err = r.epoll.SyscallConn()
	r.fds = []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	return err
}

// close ends what open began; without it, it does nothing.
func (r *rest) close() {
	if r.epoll != nil {
		_ = r.epoll.Close() // nothing was written
	}
	*r = rest{}
}

// wait returns when evio's epoll has something, or at once if the turn that began now followed closely upon the last one. What it
// has stays with it: epoll here is level-triggered.
func (r *rest) wait(now int64) {
	busy := now-r.turn < int64(busyGap)
	r.turn = now
	if r.raw == nil || busy {
		return
	}
	// An error only means that evio waits as it always did.
	_ = r.raw.Read(func(uintptr) bool {
		n, err := unix.Poll(r.fds, 0)
		return n != 0 || err != nil
	})
}
