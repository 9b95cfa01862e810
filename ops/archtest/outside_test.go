package archtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// notInClients is what a program that uses the SDK must not have to carry.
var notInClients = []string{
	"github.com/tidwall/evio", "github.com/segmentio/kafka-go", "github.com/twmb/franz-go", "github.com/redis/go-redis",
	"github.com/alicebob/miniredis", "github.com/go-sql-driver/mysql", "modernc.org/sqlite",
	"github.com/hashicorp/memberlist", "github.com/prometheus", "go.uber.org/zap",
	module + "/node", module + "/router", module + "/consumers", module + "/ops", module + "/bench",
}

// A program in a module of its own is built against the SDK, as a customer would build it.
func TestOutside_ProgramBuildsAgainstTheSDKAlone(t *testing.T) {
	project := root(t)
	var packages []string
	for _, p := range []string{"clientsdk", "clientsdk/wire"} {
		if sourcesIn(t, filepath.Join(project, p)) {
			packages = append(packages, module+"/"+p)
		}
	}
	if len(packages) == 0 {
		t.Fatal("there is no SDK in this checkout")
	}
	dir := outsideModule(t, project, packages)

	goTool(t, dir, "build", "-o", filepath.Join(t.TempDir(), "program"), ".")
	deps := strings.Fields(goTool(t, dir, "list", "-deps", "."))
	if len(deps) < len(packages)+1 {
		t.Fatalf("go list -deps knows only %q", deps)
	}
	for _, dep := range deps {
		// database/sql itself only: a library's value type may implement an interface of database/sql/driver.
		if inAny(dep, notInClients) || dep == "database/sql" {
			t.Errorf("a program with the SDK also gets %s", dep)
		}
	}
}

// outsideModule makes a module that requires this one where it lies. It takes over this module's requirements and
// sums, so that the go command has nothing to look up.
func outsideModule(t *testing.T, project string, packages []string) string {
	dir := t.TempDir()
	mod, err := os.ReadFile(filepath.Join(project, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(project, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	own := strings.Replace(string(mod), "module "+module+"\n", "module example.test/program\n", 1) +
		fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %s => %s\n", module, module, project)
	program := "package main\n\nimport (\n"
	for _, p := range packages {
		program += fmt.Sprintf("\t_ %q\n", p)
	}
	program += ")\n\nfunc main() {}\n"
	for name, content := range map[string]string{"go.mod": own, "go.sum": string(sum), "main.go": program} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func goTool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	// GOWORK: a workspace around the test would decide instead of the module. -mod=mod: go.mod may be completed.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// sourcesIn reports whether the folder itself holds a package.
func sourcesIn(t *testing.T, dir string) bool {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") {
			return true
		}
	}
	return false
}
