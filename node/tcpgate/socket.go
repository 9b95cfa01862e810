package tcpgate

import (
	"fmt"
	"os"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// tune sets what evio does not. A peer that has already gone makes these fail,
// and is found by the next read.
func (l *loop) tune(fd int) {
	opts := &l.gate.opts
	set := func(level, name, value int) {
		if err := unix.SetsockoptInt(fd, level, name, value); err != nil {
			l.log.Debug("setsockopt", zap.Int("option", name), zap.Error(err))
		}
	}
	set(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if opts.UserTimeout > 0 {
		set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(opts.UserTimeout.Milliseconds()))
	}
	if opts.SendBuffer > 0 {
		set(unix.SOL_SOCKET, unix.SO_SNDBUF, opts.SendBuffer)
	}
}

// refuse tells the peer why, as far as a fresh socket takes it.
func (l *loop) refuse(fd int, reason RefuseReason) {
	l.gate.metrics.refused.WithLabelValues(string(reason)).Inc()
	if l.gate.opts.Refused == nil {
		return
	}
	if frame := l.gate.opts.Refused(reason); len(frame) > 0 {
		if _, err := unix.Write(fd, frame); err != nil {
			l.log.Debug("refusal", zap.Error(err))
		}
	}
}

// limits are the connections and the highest descriptor the gate may have. New
// descriptors get the lowest free number, so a high number means that nearly
// all are taken, by whoever.
func limits(maxConns int) (conns, descriptor int, err error) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, 0, fmt.Errorf("tcpgate: RLIMIT_NOFILE: %w", err)
	}
	allowed := int(min(lim.Cur, 1<<30))
	most := allowed / 4 * 3
	if maxConns > most {
		return 0, 0, fmt.Errorf("tcpgate: %d connections need RLIMIT_NOFILE of at least %d, it is %d", maxConns, (maxConns+2)/3*4, allowed)
	}
	if maxConns == 0 {
		maxConns = most
	}
	return maxConns, allowed / 8 * 7, nil
}

const (
	spareCount = 12
	serveCount = 10 // descriptors that a Serve needs to come up
)

// holdSpares takes descriptors so that they can be released when Serve ends
// (hazard 6 of the package comment). It also proves that there are enough for
// Serve itself, which does not survive the lack of one.
func (l *loop) holdSpares() error {
	for len(l.spares) < spareCount+serveCount {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			l.releaseSpares(0)
			return fmt.Errorf("tcpgate: spare descriptors: %w", err)
		}
		l.spares = append(l.spares, fd)
	}
	l.releaseSpares(spareCount)
	return nil
}

// releaseSpares keeps the first few only.
func (l *loop) releaseSpares(keep int) {
	for len(l.spares) > keep {
		last := len(l.spares) - 1
		if err := unix.Close(l.spares[last]); err != nil {
			l.log.Error("spare descriptor", zap.Error(err))
		}
		l.spares = l.spares[:last]
	}
}
