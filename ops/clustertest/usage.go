package clustertest

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Usage is what a process has used.
type Usage struct {
	// CPU in user and system mode, since its start; counted in steps of 10 ms.
	CPU time.Duration
	// RSS is its resident memory in bytes.
	RSS int64
}

// Usage reads what the process has used. It needs Linux' /proc.
func (p *Process) Usage() (Usage, error) {
	const file = "stat"
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.PID(), file))
	if err != nil {
		return Usage{}, fmt.Errorf("usage of %s: %w", p.Name, err)
	}
	u, err := parseStat(b, int64(os.Getpagesize()))
	if err != nil {
		return Usage{}, fmt.Errorf("usage of %s: %w", p.Name, err)
	}
	return u, nil
}

// parseStat reads /proc/PID/stat, as in proc_pid_stat(5). The second field is a name in parentheses, which may hold anything.
func parseStat(b []byte, page int64) (Usage, error) {
	const (
		utime, stime, rss = 14, 15, 24
		first             = 3                     // field after the name
		tick              = 10 * time.Millisecond // USER_HZ is 100 on all that Go runs on
	)
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) <= rss-first {
		return Usage{}, fmt.Errorf("unexpected %q", b)
	}
	var n [3]int64
	for i, field := range []int{utime, stime, rss} {
		var err error
		if n[i], err = strconv.ParseInt(string(fields[field-first]), 10, 64); err != nil {
			return Usage{}, fmt.Errorf("field %d: %w", field, err)
		}
	}
	return Usage{CPU: time.Duration(n[0]+n[1]) * tick, RSS: n[2] * page}, nil
}
