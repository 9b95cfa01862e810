package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const root = "../../.."

func all(t *testing.T) []mutant {
	t.Helper()
	mutants, err := load(".", nil)
	if err != nil {
		t.Fatal(err)
	}
	return mutants
}

// That each is caught takes minutes, and is what the command does. That none is out of date is seen here, with every change.
func TestPatches_ApplyToCodeAndNameTestsThatExist(t *testing.T) {
	tests := map[string]map[string]bool{}
	for _, m := range all(t) {
		for _, c := range m.files {
			if !strings.HasSuffix(c.path, ".go") || strings.HasSuffix(c.path, "_test.go") {
				t.Errorf("%s changes %s: a mistake is in the code, not in its tests", m.name, c.path)
			}
			source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(c.path)))
			if err != nil {
				t.Errorf("%s: %v", m.name, err)
				continue
			}
			changed, err := c.apply(string(source))
			if err != nil {
				t.Errorf("%s %v", m.name, err)
				continue
			}
			if _, err := parser.ParseFile(token.NewFileSet(), c.path, changed, 0); err != nil {
				t.Errorf("%s leaves what is no Go: %v", m.name, err)
			}
		}
		for _, c := range m.caught {
			if c.simulation() {
				continue
			}
			if tests[c.pkg] == nil {
				tests[c.pkg] = declared(t, c.pkg)
			}
			if name, _, _ := strings.Cut(c.test, "/"); !tests[c.pkg][name] {
				t.Errorf("%s is to be caught by %s, which does not exist", m.name, c)
			}
		}
	}
}

// declared are the tests of a package.
func declared(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pkg), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range files {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
			found[string(d[1])] = true
		}
	}
	return found
}

func TestReadme_HasTheTable(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := withTable(string(readme), all(t))
	if err != nil {
		t.Fatal(err)
	}
	if string(readme) != want {
		t.Error("README.md's table is not what the patches say: go run ./ops/e2e/mutants -readme")
	}
}

// A mistake of each kind that the design names is among them.
func TestPatches_EveryInvariantIsBroken(t *testing.T) {
	broken := map[string]bool{}
	for _, m := range all(t) {
		for i := range strings.SplitSeq(m.breaks, ", ") {
			broken[i] = true
		}
	}
	for i := '1'; i <= '9'; i++ {
		if name := "I" + string(i); !broken[name] {
			t.Errorf("no mistake breaks %s", name)
		}
	}
}

// What takes several faults at the wrong moments is what the simulation is for: it must be seen to find such mistakes.
func TestPatches_TheSimulationCatchesSome(t *testing.T) {
	found := 0
	for _, m := range all(t) {
		if slices.ContainsFunc(m.caught, catcher.simulation) {
			found++
		}
	}
	if found < 6 {
		t.Errorf("the simulation is to catch %d mistakes, want 6", found)
	}
}

const good = "What: it is wrong.\nBreaks: I3, I5\nCaught by: ./x TestX/sub\nCaught by: simulation\n\n" +
	"diff --git a/x/x.go b/x/x.go\n--- a/x/x.go\n+++ b/x/x.go\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"

func TestParse(t *testing.T) {
	m, err := parse("m", good)
	if err != nil || m.what != "it is wrong." || m.breaks != "I3, I5" || len(m.caught) != 2 || m.caught[0].test != "TestX/sub" || !m.caught[1].simulation() {
		t.Fatalf("%+v, %v", m, err)
	}
	if h := m.files[0].hunks[0]; m.files[0].path != "x/x.go" || h.before != "a\nb\n" || h.after != "a\nc\n" {
		t.Fatalf("%+v", m.files)
	}
	for old, instead := range map[string]string{
		"What: it is wrong.\n":          "",
		"Breaks: I3, I5\n":              "Breaks: everything\n",
		"Caught by: ./x TestX/sub\n":    "Caught by: x.TestX\n",
		"Caught by: simulation\n":       "Caught by: luck\n",
		"\n\ndiff":                      "\nSymptom: none\n\ndiff",
		"--- a/x/x.go\n":                "",
		"-b\n":                          "*b\n",
		good[strings.Index(good, "d"):]: "diff --git a/x b/x\n",
	} {
		if _, err := parse("m", strings.Replace(good, old, instead, 1)); err == nil {
			t.Errorf("with %q instead of %q: no error", instead, old)
		}
	}
}

func TestApply_OnlyWhereItIsMeant(t *testing.T) {
	c := change{path: "x.go", hunks: []hunk{{before: "a\nb\n", after: "a\nc\n"}}}
	if got, err := c.apply("xa\nb\na\nb\n"); err != nil || got != "xa\nb\na\nc\n" {
		t.Errorf("%q, %v", got, err)
	}
	for _, source := range []string{"", "xa\nb\n", "a\nb\na\nb\n"} {
		if got, err := c.apply(source); err == nil {
			t.Errorf("%q became %q", source, got)
		}
	}
}

// module is a small program whose test catches one mistake, and not another.
func module(t *testing.T) *runner {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module m\n\ngo 1.26\n",
		"x/x.go": "package x\n\nfunc Add(a, b int) int {\n\treturn a + b\n}\n\nfunc Sub(a, b int) int {\n\treturn a - b\n}\n",
		"x/x_test.go": "package x\n\nimport \"testing\"\n\nfunc TestAdd(t *testing.T) {\n\tif Add(1, 2) != 3 {\n\t\tt.Fatal()\n\t}\n}\n\n" +
			"func TestSub(t *testing.T) {\n\tt.Run(\"zero\", func(t *testing.T) {\n\t\tif Sub(1, 0) != 1 {\n\t\t\tt.Fatal()\n\t\t}\n\t})\n}\n\n" +
			"func TestBad(t *testing.T) {\n\tt.Fatal()\n}\n",
		"ops/simulation/run/main.go": "package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n\n\t\"m/x\"\n)\n\nfunc main() {\n\tif x.Add(1, 2) != 3 {\n\t\tfmt.Println(\"seed 7: lost\")\n\t\tos.Exit(1)\n\t}\n}\n",
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &runner{root: dir, temp: t.TempDir(), seeds: 1, patience: time.Second}
}

func TestRunner_TellsWhatIsCaught(t *testing.T) {
	r := module(t)
	planted := func(old, instead string, caught ...catcher) mutant {
		return mutant{name: "m", caught: caught, files: []change{{path: "x/x.go", hunks: []hunk{{old + "\n", instead + "\n"}}}}}
	}
	add, sub, simulated := catcher{"./x", "TestAdd"}, catcher{"./x", "TestSub/zero"}, catcher{}
	hangs := planted("\treturn a + b", "\tselect {}", add)
	hangs.hangs = true
	for name, test := range map[string]struct {
		m    mutant
		want string // in the error; empty: caught
	}{
		"caught":           {planted("\treturn a + b", "\treturn a * b", add, simulated), ""},
		"a subtest":        {planted("\treturn a - b", "\treturn b", sub), ""},
		"hangs, as told":   {hangs, ""},
		"survives":         {planted("\treturn a - b", "\treturn a + b", sub), "SURVIVED: ./x TestSub/zero passed"},
		"one of two":       {planted("\treturn a + b", "\treturn a * b", add, sub), "SURVIVED: ./x TestSub/zero passed"},
		"simulation":       {planted("\treturn a - b", "\treturn b", simulated), "SURVIVED: simulation passed"},
		"does not apply":   {planted("\treturn a", "\treturn b", add), "does not apply: x/x.go has no lines"},
		"does not build":   {planted("\treturn a + b", "\treturn c", add), "./x TestAdd did not build"},
		"simulation built": {planted("\treturn a + b", "\treturn c", simulated), "simulation did not build"},
		"no such test":     {planted("\treturn a + b", "\treturn b", catcher{"./x", "TestMul"}), "./x TestMul is not there"},
		"no such package":  {planted("\treturn a + b", "\treturn b", catcher{"./y", "TestMul"}), "./y TestMul"},
		"hangs":            {planted("\treturn a + b", "\tselect {}", add), "did not end in time"},
	} {
		t.Run(name, func(t *testing.T) {
			switch err := r.try(t.Context(), test.m); {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if err := r.clean(t.Context(), []catcher{add, sub, simulated}); err != nil {
		t.Error(err)
	}
	if err := r.clean(t.Context(), []catcher{add, {"./x", "TestBad"}}); err == nil || !strings.Contains(err.Error(), "without any mistake ./x TestBad failed") {
		t.Errorf("a test that fails by itself: %v", err)
	}
	if source, err := os.ReadFile(filepath.Join(r.root, "x", "x.go")); err != nil || !strings.Contains(string(source), "return a + b") {
		t.Errorf("the sources were changed: %q, %v", source, err)
	}
}

func TestPattern_ExactlyThese(t *testing.T) {
	for want, tests := range map[string][]string{
		"^(TestA|TestB)$":         {"TestB", "TestA", "TestA"},
		"^(TestA)$/^(x)$":         {"TestA/x"},
		"^(TestA)$/^(x)$/^(y|z)$": {"TestA/x/y", "TestA/x/z"},
		"^(TestA|TestB)$/^(x|z)$": {"TestA/x/y", "TestB/z"},
	} {
		var catchers []catcher
		for _, name := range tests {
			catchers = append(catchers, catcher{"./x", name})
		}
		if got := pattern(catchers); got != want {
			t.Errorf("%v: %s, want %s", tests, got, want)
		}
	}
}
