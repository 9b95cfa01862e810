package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/futurechat/future/bench/floor"
)

// frame is what every record begins with.
type frame struct {
	evidence
	Began    time.Time `json:"began"`
	Took     string    `json:"took"`
	ExitCode int       `json:"exit_code"`
	Error    string    `json:"error,omitempty"`
}

// record is what somebody else needs to judge figures by, or to measure them again.
type record struct {
	frame
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

func newFrame(ctx context.Context, command []string) frame {
	began := time.Now()
	commit := git(ctx, "rev-parse", "HEAD")
	if commit == "" {
		commit = "unknown"
	}
	return frame{
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

func (f *frame) finish(err error) {
	f.Took, f.Machine.LoadAfter = time.Since(f.Began).Round(time.Second).String(), load()
	if err != nil {
		f.Error, f.ExitCode = err.Error(), exitFailed
	}
}

// heading says where and of what the figures are.
func (f *frame) heading(w io.Writer, servers string) error {
	m := f.Machine
	_, err := fmt.Fprintf(w, "servers: %s\ncommit:  %s\nmachine: %d × %s, %s, %s, load %s\n\n", servers, f.Commit, m.Cores, m.CPU, m.Kernel, m.Go, m.LoadBefore)
	return err
}

// table prints for people.
func (r *record) table(w io.Writer) error {
	if err := r.heading(w, r.Servers); err != nil {
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
	return encode(w, r.Rows, func(row floor.Row) any {
		return struct {
			floor.Row
			RealServers bool   `json:"real_servers"`
			Servers     string `json:"servers"`
			evidence
		}{row, r.Real, r.Servers, r.evidence}
	})
}

// printed prints, and gives what was printed, for the record.
func printed(out io.Writer, write func(io.Writer) error) (string, error) {
	var b strings.Builder
	err := write(io.MultiWriter(out, &b))
	return b.String(), err
}

// encode prints one JSON object for each.
func encode[T any](w io.Writer, all []T, object func(T) any) error {
	e := json.NewEncoder(w)
	for _, one := range all {
		if err := e.Encode(object(one)); err != nil {
			return err
		}
	}
	return nil
}

// keep writes a record to a file, or into a folder under the name DATE-kind.json; nowhere if file is empty.
func keep(file, kind string, began time.Time, r any, say func(string, ...any)) error {
	if file == "" {
		return nil
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		file = filepath.Join(file, began.UTC().Format("2006-01-02T150405Z")+"-"+kind+".json")
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return err
	}
	say("the record is in %s", file)
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
