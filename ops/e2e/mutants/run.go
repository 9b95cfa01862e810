package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// buildTime is what a build may take besides its tests.
	buildTime = 5 * time.Minute
	// simulation is the program whose failing seed exits with 1.
	simulation = "./ops/simulation/run"
)

// runner runs catchers on the sources in root, or on what an overlay makes of them.
type runner struct {
	root  string
	temp  string
	flags string // GOFLAGS as they were
	seeds int    // of the simulation
	// patience bounds one package's tests, or the simulation; those named take seconds.
	patience time.Duration
}

// verdict is what became of a catcher.
type verdict string

const (
	passed   verdict = "passed"
	failed   verdict = "failed"
	hung     verdict = "did not end in time"
	missing  verdict = "is not there"
	notBuilt verdict = "did not build"
	broken   verdict = "could not be run"
)

// result is the verdict of each catcher, with all that was printed.
type result struct {
	verdicts map[catcher]verdict
	output   string
}

// try plants a mutant and says in what way it was not caught; nil: it was.
func (r *runner) try(ctx context.Context, m mutant) error {
	dir, err := os.MkdirTemp(r.temp, m.name+"-")
	if err != nil {
		return err
	}
	replace, err := m.overlay(r.root, dir)
	if err != nil {
		return err
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, list, 0o600); err != nil {
		return err
	}
	got := r.run(ctx, m.caught, overlay)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, c := range m.caught {
		v := got.verdicts[c]
		switch {
		case v == failed || v == hung && m.hangs:
		case v == passed:
			return fmt.Errorf("SURVIVED: %s passed", c)
		default:
			return fmt.Errorf("%s %s:\n%s", c, v, tail(got.output))
		}
	}
	return nil
}

// clean says which catchers do not pass on the sources as they are.
func (r *runner) clean(ctx context.Context, catchers []catcher) error {
	got := r.run(ctx, catchers, "")
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var errs []error
	for _, c := range catchers {
		if v := got.verdicts[c]; v != passed {
			errs = append(errs, fmt.Errorf("without any mistake %s %s", c, v))
		}
	}
	if len(errs) > 0 {
		errs = append(errs, errors.New(tail(got.output)))
	}
	return errors.Join(errs...)
}

// run runs catchers, those of a package together.
func (r *runner) run(ctx context.Context, catchers []catcher, overlay string) result {
	all := result{verdicts: map[catcher]verdict{}}
	packages := map[string][]catcher{}
	for _, c := range catchers {
		packages[c.pkg] = append(packages[c.pkg], c)
	}
	for _, pkg := range slices.Sorted(maps.Keys(packages)) {
		var output string
		if pkg == "" {
			all.verdicts[catcher{}], output = r.simulate(ctx, overlay)
		} else {
			output = r.test(ctx, pkg, packages[pkg], overlay, all.verdicts)
		}
		all.output += output
	}
	return all
}

// goCommand is the go command under an overlay. In GOFLAGS, so that programs that tests build have the mistake, too.
func (r *runner) goCommand(ctx context.Context, overlay string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = r.root, os.Environ()
	if overlay != "" {
		cmd.Env = append(cmd.Env, "GOFLAGS="+strings.TrimSpace(r.flags+" -overlay="+overlay))
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// test runs tests of one package and notes their verdicts.
func (r *runner) test(ctx context.Context, pkg string, catchers []catcher, overlay string, verdicts map[catcher]verdict) (output string) {
	ctx, cancel := context.WithTimeout(ctx, r.patience+buildTime)
	defer cancel()
	args := []string{"test", "-json", "-vet=off", "-count=1", "-timeout=" + r.patience.String(), "-run=" + pattern(catchers), pkg}
	cmd := r.goCommand(ctx, overlay, append(args, r.rapidFlags(pkg)...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	got, output := readTests(stdout.Bytes())
	output += stderr.String()
	for _, c := range catchers {
		switch v, ok := got.tests[c.test]; {
		case got.notBuilt:
			verdicts[c] = notBuilt
		case got.hung && v != passed:
			verdicts[c] = hung
		case ok:
			verdicts[c] = v
		case err != nil:
			verdicts[c] = broken
			output += err.Error() + "\n"
		default:
			verdicts[c] = missing
		}
	}
	return output
}

// pattern is -run for these tests, level by level, as far down as all of them go.
func pattern(catchers []catcher) string {
	var levels []string
	for depth := 0; ; depth++ {
		var names []string
		for _, c := range catchers {
			parts := strings.Split(c.test, "/")
			if depth == len(parts) {
				return strings.Join(levels, "/")
			}
			names = append(names, parts[depth])
		}
		slices.Sort(names)
		levels = append(levels, "^("+strings.Join(slices.Compact(names), "|")+")$")
	}
}

// rapidFlags are for packages whose tests draw from a seed: always the same one, so that what is caught once is caught each time; and
// a failure, which is what is wanted here, is neither made small nor kept in testdata.
func (r *runner) rapidFlags(pkg string) []string {
	files, _ := filepath.Glob(filepath.Join(r.root, filepath.FromSlash(pkg), "*_test.go")) // the pattern is good
	for _, f := range files {
		if source, err := os.ReadFile(f); err == nil && bytes.Contains(source, []byte(`"pgregory.net/rapid"`)) {
			return []string{"-rapid.seed=1", "-rapid.nofailfile", "-rapid.shrinktime=1ms"}
		}
	}
	return nil
}

// tests is what go test -json told of one package.
type tests struct {
	tests    map[string]verdict
	notBuilt bool
	hung     bool
}

func readTests(stdout []byte) (got tests, output string) {
	got.tests = map[string]verdict{}
	var text strings.Builder
	for line := range bytes.Lines(stdout) {
		var e struct{ Action, Test, Output, FailedBuild string }
		if json.Unmarshal(line, &e) != nil {
			text.Write(line)
			continue
		}
		text.WriteString(e.Output)
		got.hung = got.hung || strings.HasPrefix(e.Output, "panic: test timed out after ")
		got.notBuilt = got.notBuilt || e.Action == "build-fail" || e.FailedBuild != ""
		switch {
		case e.Test == "":
		case e.Action == "pass":
			got.tests[e.Test] = passed
		case e.Action == "fail":
			got.tests[e.Test] = failed
		}
	}
	return got, text.String()
}

// failingSeed is how the simulation tells of a run that broke a promise.
var failingSeed = regexp.MustCompile(`(?m)^seed \d+: `)

// simulate runs the simulation until a seed fails.
func (r *runner) simulate(ctx context.Context, overlay string) (verdict, string) {
	ctx, cancel := context.WithTimeout(ctx, r.patience+buildTime)
	defer cancel()
	program, err := os.CreateTemp(r.temp, "simulation-")
	if err != nil {
		return broken, err.Error()
	}
	_ = program.Close() // only its name is wanted
	if out, err := r.goCommand(ctx, overlay, "build", "-o", program.Name(), simulation).CombinedOutput(); err != nil {
		return notBuilt, string(out)
	}
	run := exec.CommandContext(ctx, program.Name(), "-seeds="+fmt.Sprint(r.seeds), "-shrink=false", "-counts=false", "-lines=0")
	run.Dir = r.root
	out, err := run.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return passed, string(out)
	case ctx.Err() != nil:
		return hung, string(out)
	case errors.As(err, &exit) && exit.ExitCode() == 1 && failingSeed.Match(out):
		return failed, string(out)
	}
	return broken, string(out) + err.Error()
}

// tail is the end of a text.
func tail(s string) string {
	const most = 4000
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return strings.TrimSpace(s)
}
