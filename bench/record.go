package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/futurechat/future/bench/floor"
)

// record is what somebody else needs to judge figures by, or to measure them again.
type record struct {
	evidence
	Began    time.Time `json:"began"`
	Took     string    `json:"took"`
	ExitCode int       `json:"exit_code"`
	Error    string    `json:"error,omitempty"`
	floor.Outcome
	// Output is what was printed.
	Output string `json:"output"`
}

// evidence goes with every row.
type evidence struct {
	Commit string `json:"commit"`
	// Dirty says that the checkout had changes that the commit lacks.
	Dirty   bool    `json:"dirty"`
	Machine machine `json:"machine"`
	Command string  `json:"command"`
}

type machine struct {
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	// Scheduling of this process and its children, if it is not the usual one: with `chrt -r 1` for it and for the servers,
	// figures are steady on a machine that others use, too.
	Scheduling string `json:"scheduling,omitempty"`
	// LoadBefore and LoadAfter are the load averages over 1, 5 and 15 minutes: what others did on the machine.
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

func newRecord(ctx context.Context, command []string, began time.Time) *record {
	commit := git(ctx, "rev-parse", "HEAD")
	if commit == "" {
		commit = "unknown"
	}
	return &record{
		evidence: evidence{
			Commit: commit, Dirty: git(ctx, "status", "--porcelain") != "", Command: strings.Join(command, " "),
			Machine: machine{
				Cores: runtime.NumCPU(), CPU: cpuModel(), Kernel: runtime.GOOS + " " + line("/proc/sys/kernel/osrelease"),
				Go: runtime.Version(), LoadBefore: load(), Scheduling: scheduling(),
			},
		},
		Began: began,
	}
}

func (r *record) finish(o floor.Outcome, err error) {
	r.Outcome, r.Took, r.Machine.LoadAfter = o, time.Since(r.Began).Round(time.Second).String(), load()
	if err != nil {
		r.Error, r.ExitCode = err.Error(), exitFailed
	}
}

// table prints for people.
func (r *record) table(w io.Writer) error {
	m := r.Machine
	if _, err := fmt.Fprintf(w, "servers: %s\ncommit:  %s\nmachine: %d × %s, %s, %s, load %s\n\n", r.Servers, r.Commit, m.Cores, m.CPU, m.Kernel, m.Go, m.LoadBefore); err != nil {
		return err
	}
	if r.Database != "" {
		if _, err := fmt.Fprintf(w, "database: %s\n\n", r.Database); err != nil {
			return err
		}
	}
	return floor.Table(w, r.Rows)
}

// objects prints one JSON object a row.
func (r *record) objects(w io.Writer) error {
	e := json.NewEncoder(w)
	for _, row := range r.Rows {
		if err := e.Encode(struct {
			floor.Row
			RealServers bool   `json:"real_servers"`
			Servers     string `json:"servers"`
			evidence
		}{row, r.Real, r.Servers, r.evidence}); err != nil {
			return err
		}
	}
	return nil
}

// git asks git; what it cannot tell is empty.
func git(ctx context.Context, args ...string) string {
	out, err := exec.CommandContext(ctx, "git", args...).Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(out))
}

// line is a file's first line; empty where there is no such file.
func line(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return first
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for l := range strings.SplitSeq(string(b), "\n") {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// scheduling is this process' policy and nice value, if one of them is not 0.
func scheduling() string {
	const first, nice, policy = 3, 19, 41 // fields of proc_pid_stat(5) after the name
	l := line("/proc/self/stat")
	fields := strings.Fields(l[strings.LastIndexByte(l, ')')+1:])
	if len(fields) <= policy-first || fields[nice-first] == "0" && fields[policy-first] == "0" {
		return ""
	}
	return "policy " + fields[policy-first] + " of sched(7), nice " + fields[nice-first]
}

func load() string {
	fields := strings.Fields(line("/proc/loadavg"))
	if len(fields) < 3 {
		return ""
	}
	return strings.Join(fields[:3], " ")
}
