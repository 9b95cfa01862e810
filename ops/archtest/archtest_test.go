package archtest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestImports_OnlyAsTheRulesAllow(t *testing.T) {
	files := sources(t, root(t))
	if len(files) < 4 {
		t.Fatalf("only %d source files found: looked in the wrong place?", len(files))
	}
	for _, v := range violations(files) {
		t.Error(v)
	}
}

// Each rule is broken once, so that one that lost its teeth is noticed.
func TestRules_EachIsHeld(t *testing.T) {
	const own = module + "/"
	tests := []struct {
		name string
		file string
		path string
		ok   bool
	}{
		{"evio in its gate", "node/tcpgate/gate.go", "github.com/tidwall/evio", true},
		{"evio in node", "node/node.go", "github.com/tidwall/evio", false},
		{"evio in a test", "node/node_test.go", "github.com/tidwall/evio", false},
		{"kafka-go in its adapter", "router/eventlog/kafkalog/log.go", "github.com/segmentio/kafka-go/protocol/produce", true},
		{"kafka-go in its port", "router/eventlog/log.go", "github.com/segmentio/kafka-go", false},
		{"kafka-go in the wiring", "ops/app/app.go", "github.com/segmentio/kafka-go", false},
		{"kafka-go in an end-to-end test", "ops/e2e/raw_test.go", "github.com/segmentio/kafka-go", true},
		{"go-redis in its adapter", "router/presence/redispresence/p.go", "github.com/redis/go-redis/v9", true},
		{"go-redis in its port", "router/presence/p.go", "github.com/redis/go-redis/v9", false},
		{"memberlist in its adapter", "router/cluster/gossip/g.go", "github.com/hashicorp/memberlist", true},
		{"memberlist elsewhere", "router/cluster/c.go", "github.com/hashicorp/memberlist", false},
		{"mysql in a dialect", "consumers/mysqlstore/mysql/d.go", "github.com/go-sql-driver/mysql", true},
		{"mysql in the store", "consumers/mysqlstore/store.go", "github.com/go-sql-driver/mysql", false},
		{"sqlite in a dialect", "consumers/mysqlstore/sqlite/d.go", "modernc.org/sqlite", true},
		{"sqlite in the store", "consumers/mysqlstore/store.go", "modernc.org/sqlite", false},
		{"kfake in embedded", "ops/embedded/e.go", "github.com/twmb/franz-go/pkg/kfake", true},
		{"kfake in an adapter's test", "router/eventlog/kafkalog/log_test.go", "github.com/twmb/franz-go/pkg/kfake", true},
		{"kfake in an adapter", "router/eventlog/kafkalog/log.go", "github.com/twmb/franz-go/pkg/kfake", false},
		{"miniredis in embedded", "ops/embedded/e.go", "github.com/alicebob/miniredis/v2", true},
		{"miniredis in the wiring", "ops/app/app.go", "github.com/alicebob/miniredis/v2", false},
		{"a second dependency in an adapter", "router/eventlog/kafkalog/log.go", "github.com/google/uuid", false},
		{"an adapter's logger", "router/eventlog/kafkalog/log.go", "go.uber.org/zap", true},
		{"an adapter's other port", "router/eventlog/kafkalog/log.go", own + "router/presence", false},
		{"an adapter's port", "router/eventlog/kafkalog/log.go", own + "router/eventlog", true},
		{"zap in the domain", "router/chat/chat.go", "go.uber.org/zap", false},
		{"metrics in the domain", "router/chat/chat.go", "github.com/prometheus/client_golang/prometheus", false},
		{"SQL in the domain", "router/chat/store.go", "database/sql", false},
		{"hashing in the domain", "router/chat/password.go", "golang.org/x/crypto/argon2", true},
		{"zap in the router", "router/deliver/d.go", "go.uber.org/zap", true},
		{"SDK and protocol", "clientsdk/client.go", own + "clientsdk/wire", true},
		{"SDK and router", "clientsdk/client.go", own + "router/chat", false},
		{"SDK and node", "clientsdk/client.go", own + "node", false},
		{"SDK and consumers", "clientsdk/tui/tui.go", own + "consumers/history", false},
		{"SDK and ops", "clientsdk/web/web.go", own + "ops/config", false},
		{"protocol and SDK", "clientsdk/wire/frame.go", own + "clientsdk", false},
		{"node and consumers", "node/session.go", own + "consumers/mysqlstore", false},
		{"consumers and the protocol", "consumers/mysqlstore/body.go", own + "clientsdk/wire/futurev1", true},
		{"consumers and node", "consumers/history/h.go", own + "node", false},
		{"node and the SDK", "node/session.go", own + "clientsdk", false},
		{"node and the protocol", "node/session.go", own + "clientsdk/wire/futurev1", true},
		{"router and node", "router/deliver/d.go", own + "node", false},
		{"router and ops", "router/deliver/d.go", own + "ops/telemetry", false},
		{"router and the protocol", "router/deliver/d.go", own + "clientsdk/wire", true},
		{"router and the SDK", "router/deliver/d.go", own + "clientsdk", false},
		{"a test on embedded servers", "router/eventlog/kafkalog/log_test.go", own + "ops/embedded", true},
		{"a program on embedded servers", "consumers/history/h.go", own + "ops/embedded", false},
		{"the wiring and an adapter", "ops/app/app.go", own + "node/tcpgate", true},
		{"the binary and an adapter", "ops/chatd/main.go", own + "router/cluster/gossip", false},
		{"the load tool and the server", "bench/main.go", own + "node", false},
		{"a similar name", "nodes/x.go", "github.com/tidwall/eviona", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFile(test.file, []string{test.path})
			if got := violations([]file{f}); (len(got) == 0) != test.ok {
				t.Errorf("%s importing %s: violations %q, allowed: %v", test.file, test.path, got, test.ok)
			}
		})
	}
}

func TestTopLevel_OnlyTheCustomersNames(t *testing.T) {
	for _, name := range topLevelNames(t, root(t)) {
		if !strings.HasPrefix(name, ".") && !slices.Contains(topLevel, name) {
			t.Errorf("%s: only %v may lie here", name, topLevel)
		}
	}
}

// topLevelNames are those that git has or would add, so that a program built here for a moment does not count.
func topLevelNames(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir) // also tells go test's cache to look here
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "git", "-C", dir, "ls-files", "-co", "--exclude-standard").Output()
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if err != nil { // not a clone: a copy of the sources
		return names
	}
	known := map[string]bool{}
	for path := range strings.Lines(string(out)) {
		first, _, _ := strings.Cut(strings.Trim(strings.TrimSpace(path), `"`), "/")
		known[first] = true
	}
	return slices.DeleteFunc(names, func(name string) bool { return !known[name] })
}

// root is the module's folder.
func root(t *testing.T) string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(mod), "module "+module+"\n") {
		t.Fatalf("%s is not module %s", dir, module)
	}
	return dir
}

// sources reads the imports of every Go file of the module. The files are opened by this process, not by the go
// command, so that go test does not answer from its cache when one has changed.
func sources(t *testing.T, dir string) (files []file) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != dir && (skipped(d.Name()) || exists(filepath.Join(path, "go.mod"))) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		var imports []string
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, imported)
		}
		files = append(files, newFile(filepath.ToSlash(rel), imports))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func newFile(path string, imports []string) file {
	folder := "."
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		folder = path[:i]
	}
	return file{path: path, folder: folder, test: strings.HasSuffix(path, "_test.go"), imports: imports}
}

// skipped are the folders that the go command leaves out as well.
func skipped(name string) bool {
	return name == "testdata" || name == "vendor" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
