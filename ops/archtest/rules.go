package archtest

import (
	"fmt"
	"slices"
	"strings"
)

const module = "github.com/futurechat/future"

// Folders below are relative to the module. "x" means x and all below it, "x/*" only what is below it.

// topLevel is all that may lie beside .git; names that begin with a dot are free. The list is the customer's.
var topLevel = []string{
	"node", "router", "consumers", "clientsdk", "ops", "bench",
	"docker-compose.yml", "go.mod", "go.sum", "README.md",
}

// layers says what of this module a folder's packages may import besides the folder itself. The first that matches counts.
var layers = []struct {
	folder string
	may    []string
}{
	// The protocol and the SDK are what other people's programs import: nothing of the server comes along.
	{"clientsdk/wire", nil},
	{"clientsdk", nil},
	{"router", []string{"clientsdk/wire"}},
	// node and consumers meet only through the log and the domain.
	{"node", []string{"clientsdk/wire", "clientsdk/web", "router"}},
	{"consumers", []string{"clientsdk/wire", "router"}},
	// bench is a client like any other; but its floor starts clusters itself, since each round wants a fresh one, or none.
	{"bench", []string{"clientsdk", "ops/clustertest"}},
	// Wiring. That not all of ops knows every adapter is held by adapters below.
	{"ops", []string{"clientsdk", "router", "node", "consumers", "bench"}},
}

// inTests is what the tests of any folder may import as well: the stand-ins for servers.
var inTests = []string{"ops/embedded", "ops/testservers"}

// dependencies says who may import a module of somebody else. One package per outside dependency: so it can be
// exchanged, and its quirks stay in one place.
var dependencies = []struct {
	path  string
	only  []string
	tests []string // whose tests may, too: to look at the outside world with their own eyes
}{
	{"github.com/tidwall/evio", []string{"node/tcpgate"}, nil},
	{"github.com/segmentio/kafka-go", []string{"router/eventlog/kafkalog"}, []string{"ops"}},
	{"github.com/redis/go-redis", []string{"router/presence/redispresence"}, []string{"ops"}},
	{"github.com/hashicorp/memberlist", []string{"router/cluster/gossip"}, nil},
	{"github.com/go-sql-driver/mysql", []string{"consumers/mysqlstore/*"}, []string{"consumers/mysqlstore", "ops"}},
	{"modernc.org/sqlite", []string{"consumers/mysqlstore/*"}, []string{"consumers/mysqlstore", "ops"}},
	{"github.com/twmb/franz-go", []string{"ops/embedded"}, []string{"router/eventlog/kafkalog"}},
	{"github.com/alicebob/miniredis", []string{"ops/embedded"}, []string{"router/presence/redispresence"}},
	{"github.com/pingcap/tidb", nil, []string{"ops/sqlcheck"}},
}

// adapters import their port and their one dependency, and are known by the wiring alone.
var adapters = []struct {
	folder string
	may    []string // of this module
	theirs []string // of others, besides what every adapter may
}{
	{"node/tcpgate", []string{"node", "clientsdk/wire", "router/chat"}, []string{"github.com/tidwall/evio"}},
	{"router/eventlog/kafkalog", []string{"router/eventlog"}, []string{"github.com/segmentio/kafka-go"}},
	{"router/presence/redispresence", []string{"router/presence"}, []string{"github.com/redis/go-redis"}},
	{"router/cluster/gossip", []string{"router/cluster"}, []string{"github.com/hashicorp/memberlist", "github.com/hashicorp/go-sockaddr"}},
}

// everyAdapter is what each adapter may import of others: to report what it does, and Go's own extensions.
var everyAdapter = []string{"go.uber.org/zap", "github.com/prometheus/client_golang", "golang.org/x"}

// wiring are the only folders whose code may import an adapter.
var wiring = []string{"ops/app", "ops/clustertest", "ops/e2e"}

// domain is the folder without technology: Go's library less what reaches outside, and nothing of others but its extensions.
const domain = "router/chat"

var notInDomain = []string{"database/sql", "net", "net/http", "os/exec", "log"}

// file is what the rules see of a source file.
type file struct {
	path    string // relative to the module's root, with slashes
	folder  string
	test    bool
	imports []string
}

// violations returns a sentence for every import that a rule forbids, sorted.
func violations(files []file) []string {
	var found []string
	for _, f := range files {
		for _, path := range f.imports {
			for _, why := range judge(f, path) {
				found = append(found, fmt.Sprintf("%s imports %s: %s", f.path, path, why))
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func judge(f file, path string) []string {
	if path == module || strings.HasPrefix(path, module+"/") {
		return judgeOwn(f, strings.TrimPrefix(strings.TrimPrefix(path, module), "/"))
	}
	if standard(path) {
		if in(f.folder, domain) && !f.test && slices.Contains(notInDomain, path) {
			return []string{domain + " has no technology in it"}
		}
		return nil
	}
	return judgeTheirs(f, path)
}

// judgeOwn judges the import of a folder of this module.
func judgeOwn(f file, target string) (why []string) {
	if f.test && inAny(target, inTests) {
		return nil
	}
	for _, layer := range layers {
		if !in(f.folder, layer.folder) {
			continue
		}
		if !in(target, layer.folder) && !inAny(target, layer.may) {
			why = append(why, fmt.Sprintf("%s may import only itself and %v of this module", layer.folder, layer.may))
		}
		break
	}
	for _, a := range adapters {
		if in(target, a.folder) && !in(f.folder, a.folder) && !inAny(f.folder, wiring) && !f.test {
			why = append(why, fmt.Sprintf("only %v may know this adapter", wiring))
		}
		if in(f.folder, a.folder) && !in(target, a.folder) && !inAny(target, a.may) && !f.test {
			why = append(why, fmt.Sprintf("this adapter may import only %v of this module", a.may))
		}
	}
	return why
}

// judgeTheirs judges the import of somebody else's package.
func judgeTheirs(f file, path string) (why []string) {
	for _, d := range dependencies {
		if in(path, d.path) && !inAny(f.folder, d.only) && (!f.test || !inAny(f.folder, d.tests)) {
			why = append(why, fmt.Sprintf("only %v may, and tests of %v", d.only, d.tests))
		}
	}
	if f.test {
		return why
	}
	for _, a := range adapters {
		if in(f.folder, a.folder) && !inAny(path, a.theirs) && !inAny(path, everyAdapter) {
			why = append(why, fmt.Sprintf("this adapter's one dependency is %v", a.theirs))
		}
	}
	if in(f.folder, domain) && !in(path, "golang.org/x") {
		why = append(why, domain+" has no technology in it")
	}
	return why
}

// in reports whether path is the folder or below it; with "/*" at the folder's end, whether it is below it.
func in(path, folder string) bool {
	if below, ok := strings.CutSuffix(folder, "/*"); ok {
		return strings.HasPrefix(path, below+"/")
	}
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func inAny(path string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool { return in(path, folder) })
}

// standard reports whether an import path is of Go's library: its first element has no dot.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}
