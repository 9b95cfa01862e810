package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// README's table names the test that proves each row: one that was renamed or is gone proves nothing.
func TestReadme_NamesTestsThatExist(t *testing.T) {
	dir := root(t)
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z]+)\\.(Test[A-Za-z0-9_]+)(…?)`").FindAllStringSubmatch(string(readme), -1)
	if len(named) < 5 {
		t.Fatalf("README names %d tests", len(named))
	}
	tests := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	pkg := regexp.MustCompile(`(?m)^package ([a-z0-9]+)`)
	for _, f := range sources(t, dir) {
		if !f.test {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.path)))
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(string(pkg.FindSubmatch(b)[1]), "_test")
		for _, test := range declared.FindAllSubmatch(b, -1) {
			tests[name+"."+string(test[1])] = true
		}
	}
	for _, n := range named {
		name := n[1] + "." + n[2]
		found := tests[name]
		for test := range tests {
			found = found || n[3] != "" && strings.HasPrefix(test, name)
		}
		if !found {
			t.Errorf("README names %s, which does not exist", name)
		}
	}
}
