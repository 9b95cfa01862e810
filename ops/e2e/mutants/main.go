// Command mutants plants mistakes into the code and demands that a test catches each: it tests the tests.
//
// A mistake is a patch here. Nothing of the working tree is touched: the go command is told to read the changed files from
// elsewhere (-overlay), so all that a mistake does not concern comes from the build cache.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

const usage = `Usage: go run ./ops/e2e/mutants [FLAGS] [NAME...]

Plants each mistake of ops/e2e/mutants/*.patch, or those named, builds it, and runs the test that is to
catch it. First, every such test must pass without the mistake. Exit status 1 if a mistake survives, does
not apply any more, or does not build.

A patch begins with lines that git apply ignores:

    What: the mistake, in one sentence
    Breaks: the invariants of ops/design.md, like I3, I5
    Caught by: ./router/deliver TestName, or TestName/Subtest, or simulation; each of several must fail
    Symptom: hang, if the test does not end instead of failing

Flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, usage); flags.PrintDefaults() }
	workers := flags.Int("workers", min(2, runtime.NumCPU()), "how many mistakes are tried at a time")
	patience := flags.Duration("timeout", 90*time.Second, "how long the tests of one package may take")
	seeds := flags.Int("seeds", 300, "seeds of the simulation, where it is to catch a mistake")
	clean := flags.Bool("clean", true, "run the tests without any mistake first; they must pass")
	list := flags.Bool("list", false, "print the table of README.md and do nothing else")
	readme := flags.Bool("readme", false, "write the table into README.md and do nothing else")
	if err := flags.Parse(args); err != nil {
		return err
	}
	root, err := goEnv(ctx, "GOMOD")
	if err != nil {
		return err
	}
	root = filepath.Dir(root)
	dir := filepath.Join(root, "ops", "e2e", "mutants")
	mutants, err := load(dir, flags.Args())
	switch {
	case err != nil:
		return err
	case *list:
		_, err := io.WriteString(stdout, table(mutants))
		return err
	case *readme:
		return writeReadme(filepath.Join(dir, "README.md"), mutants)
	}
	temp, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temp) }() // of no use to anybody
	r := &runner{root: root, temp: temp, seeds: *seeds, patience: *patience}
	if r.flags, err = goEnv(ctx, "GOFLAGS"); err != nil {
		return err
	}
	if *clean {
		began := time.Now()
		if err := r.cleanAll(ctx, mutants, *workers); err != nil {
			return err
		}
		fmt.Fprintf(stderr, "without mistakes all is well, %.0f s\n", time.Since(began).Seconds())
	}
	return r.tryAll(ctx, mutants, *workers, stdout, stderr)
}

func goEnv(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", name).Output()
	if err != nil {
		return "", fmt.Errorf("go env %s: %w", name, err)
	}
	return string(bytes.TrimSpace(out)), nil
}

// cleanAll runs every catcher once, those of a package together.
func (r *runner) cleanAll(ctx context.Context, mutants []mutant, workers int) error {
	packages := map[string][]catcher{}
	var order []string
	for _, m := range mutants {
		for _, c := range m.caught {
			if packages[c.pkg] == nil {
				order = append(order, c.pkg)
			}
			if !slices.Contains(packages[c.pkg], c) {
				packages[c.pkg] = append(packages[c.pkg], c)
			}
		}
	}
	errs := make([]error, len(order))
	parallel(workers, len(order), func(i int) { errs[i] = r.clean(ctx, packages[order[i]]) })
	return errors.Join(errs...)
}

// tryAll tries mutants, tells of each as soon as it is known, and prints all at the end.
func (r *runner) tryAll(ctx context.Context, mutants []mutant, workers int, stdout, stderr io.Writer) error {
	began := time.Now()
	errs, took := make([]error, len(mutants)), make([]time.Duration, len(mutants))
	var mu sync.Mutex
	parallel(workers, len(mutants), func(i int) {
		if ctx.Err() != nil {
			errs[i] = context.Cause(ctx)
			return
		}
		start := time.Now()
		errs[i] = r.try(ctx, mutants[i])
		took[i] = time.Since(start)
		mu.Lock()
		defer mu.Unlock()
		if errs[i] != nil {
			fmt.Fprintf(stderr, "%s: %v\n", mutants[i].name, errs[i])
		} else {
			fmt.Fprintf(stderr, "%s: caught\n", mutants[i].name)
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MUTANT\tCAUGHT BY\tSECONDS")
	alive := 0
	for i, m := range mutants {
		by := make([]string, len(m.caught))
		for j, c := range m.caught {
			by[j] = c.String()
		}
		said := strings.Join(by, ", ")
		if errs[i] != nil {
			alive++
			said = "NOT CAUGHT (" + said + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%.1f\n", m.name, said, took[i].Seconds())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d of %d caught, %.0f s\n", len(mutants)-alive, len(mutants), time.Since(began).Seconds())
	if alive > 0 {
		return fmt.Errorf("%d not caught", alive)
	}
	return nil
}

// parallel calls do for 0 to n-1, some at a time, and waits.
func parallel(workers, n int, do func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range max(workers, 1) {
		wg.Go(func() {
			for i := range next {
				do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
