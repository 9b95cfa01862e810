package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mutant is a mistake as its patch tells it.
type mutant struct {
	name   string // of the file, without .patch
	what   string // the mistake, one sentence
	breaks string // the invariants of ops/design.md
	caught []catcher
	// hangs: the mistake shows as a test that does not end in time.
	hangs bool
	files []change
}

// catcher is a test that must fail, or, with neither field set, the simulation.
type catcher struct {
	pkg  string // ./router/deliver
	test string // TestName, or TestName/Subtest
}

func (c catcher) simulation() bool { return c.pkg == "" }

func (c catcher) String() string {
	if c.simulation() {
		return "simulation"
	}
	return c.pkg + " " + c.test
}

// change is what a patch does to one file.
type change struct {
	path  string // relative to the module's root, with slashes
	hunks []hunk
}

// hunk replaces lines; both ends are whole lines.
type hunk struct{ before, after string }

// load reads the patches of a folder, sorted by name; with names given, only those.
func load(dir string, names []string) ([]mutant, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no patches in %s: run this in the module", dir)
	}
	var all []mutant
	unknown := slices.Clone(names)
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".patch")
		unknown = slices.DeleteFunc(unknown, func(n string) bool { return n == name })
		if len(names) > 0 && !slices.Contains(names, name) {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		m, err := parse(name, string(text))
		if err != nil {
			return nil, fmt.Errorf("%s.patch: %w", name, err)
		}
		all = append(all, m)
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("no mutant %s; there are the *.patch in %s", strings.Join(unknown, ", "), dir)
	}
	slices.SortFunc(all, func(a, b mutant) int { return cmp.Compare(a.name, b.name) })
	return all, nil
}

var (
	invariants = regexp.MustCompile(`^I[1-9](, I[1-9])*$`)
	testName   = regexp.MustCompile(`^(\./[a-z0-9/]+) (Test\w+(/\w+)*)$`)
	hunkHead   = regexp.MustCompile(`^@@ -\d+(,\d+)? \+\d+(,\d+)? @@`)
)

// parse reads a patch: header lines "Key: value", then a diff as git writes it.
func parse(name, text string) (mutant, error) {
	m := mutant{name: name}
	lines := strings.SplitAfter(text, "\n")
	at := 0
	for ; at < len(lines) && !strings.HasPrefix(lines[at], "diff --git "); at++ {
		line := strings.TrimSpace(lines[at])
		if line == "" {
			continue
		}
		if err := m.header(line); err != nil {
			return m, err
		}
	}
	switch {
	case m.what == "":
		return m, errors.New("a header What: is missing, the mistake in one sentence")
	case m.breaks == "":
		return m, errors.New("a header Breaks: is missing, one or more of I1 to I9")
	case len(m.caught) == 0:
		return m, errors.New("a header Caught by: is missing, a test like ./router/deliver TestName, or simulation")
	}
	return m, m.diff(lines[at:])
}

func (m *mutant) header(line string) error {
	key, value, _ := strings.Cut(line, ": ")
	switch key {
	case "What":
		m.what = value
	case "Breaks":
		if m.breaks = value; !invariants.MatchString(value) {
			return fmt.Errorf("header Breaks: %q: want invariants like I3, I5", value)
		}
	case "Caught by":
		found := testName.FindStringSubmatch(value)
		switch {
		case value == "simulation":
			m.caught = append(m.caught, catcher{})
		case found != nil:
			m.caught = append(m.caught, catcher{pkg: found[1], test: found[2]})
		default:
			return fmt.Errorf("header Caught by: %q: want a test like ./router/deliver TestName, or simulation", value)
		}
	case "Symptom":
		if m.hangs = value == "hang"; !m.hangs {
			return fmt.Errorf("header Symptom: %q: only hang can be told", value)
		}
	default:
		return fmt.Errorf("line %q: want a header What, Breaks, Caught by or Symptom", line)
	}
	return nil
}

// diff reads the part that git apply reads. A file that is new or gone is no mistake in code, so there is none of that.
func (m *mutant) diff(lines []string) error {
	var in *hunk
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, "diff --git "), line == "":
			in = nil
		case in == nil && strings.HasPrefix(line, "--- a/"):
			m.files = append(m.files, change{path: strings.TrimSpace(line[len("--- a/"):])})
		case in == nil && (strings.HasPrefix(line, "+++ b/") || strings.HasPrefix(line, "index ")):
		case hunkHead.MatchString(line) && len(m.files) > 0:
			f := &m.files[len(m.files)-1]
			f.hunks = append(f.hunks, hunk{})
			in = &f.hunks[len(f.hunks)-1]
		case in != nil && line[0] == ' ':
			in.before += line[1:]
			in.after += line[1:]
		case in != nil && line[0] == '-':
			in.before += line[1:]
		case in != nil && line[0] == '+':
			in.after += line[1:]
		default:
			return fmt.Errorf("line %q is not of a diff", line)
		}
	}
	if len(m.files) == 0 {
		return errors.New("it changes nothing")
	}
	return nil
}

// apply gives the file with the mistake in it. It is stricter than git: the lines must be there exactly once, so that a patch never
// lands at another place than was meant.
func (c change) apply(source string) (string, error) {
	for _, h := range c.hunks {
		// A newline before both, so that what is found begins with a line.
		in, before := "\n"+source, "\n"+h.before
		at := strings.Index(in, before)
		switch {
		case at < 0:
			return "", fmt.Errorf("does not apply: %s has no lines\n%s", c.path, h.before)
		case strings.LastIndex(in, before) != at:
			return "", fmt.Errorf("does not apply: %s has these lines more than once, the patch needs more lines around\n%s", c.path, h.before)
		}
		source = (in[:at] + "\n" + h.after + in[at+len(before):])[1:]
	}
	return source, nil
}

// overlay writes the changed files to a folder and gives what go's -overlay wants: the real path and the one to read instead.
func (m mutant) overlay(root, dir string) (map[string]string, error) {
	replace := map[string]string{}
	for i, c := range m.files {
		path := filepath.Join(root, filepath.FromSlash(c.path))
		source, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("does not apply: there is no %s", c.path)
		}
		if err != nil {
			return nil, err
		}
		changed, err := c.apply(string(source))
		if err != nil {
			return nil, err
		}
		to := filepath.Join(dir, fmt.Sprintf("%d-%s", i, filepath.Base(path)))
		if err := os.WriteFile(to, []byte(changed), 0o600); err != nil {
			return nil, err
		}
		replace[path] = to
	}
	return replace, nil
}
