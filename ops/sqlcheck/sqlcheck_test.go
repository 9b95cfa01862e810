package sqlcheck

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const store = "../../consumers/mysqlstore"

func TestStore_EveryStatementIsMySQL84(t *testing.T) {
	sources, problems, err := extract(store)
	if err != nil {
		t.Fatal(err)
	}
	statements := 0
	for _, s := range sources {
		n, found := check(s)
		statements += n
		problems = append(problems, found...)
	}
	for _, p := range problems {
		t.Error(p)
	}
	if statements == 0 {
		t.Error("no statement found: does the store keep its SQL elsewhere?")
	}
	t.Logf("%d statements in %d places", statements, len(sources))
}

func TestCheck_FindsWhatIsWrong(t *testing.T) {
	tests := []struct {
		name, sql string
		want      string // part of the one problem; empty for none
	}{
		{"fine", "-- +goose Up\nCREATE TABLE accounts (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(64) COLLATE utf8mb4_bin NOT NULL, UNIQUE KEY by_name (name));\n-- +goose Down\nDROP TABLE accounts;", ""},
		{"upsert", "INSERT INTO cursors (a, b) VALUES (?, ?) ON DUPLICATE KEY UPDATE b = GREATEST(b, VALUES(b))", ""},
		{"reserved functions", "SELECT IF(a, LEFT(b, 1), REPLACE(b, 'x', 'y')) FROM t WHERE a IN (%s)", ""},
		{"reserved word in a literal", "SELECT 'rank', a FROM t WHERE b = 'groups RETURNING ->>'", ""},
		{"window", "SELECT RANK() OVER (ORDER BY a) AS place FROM t", ""},
		{"broken", "SELEC 1", "near"},
		{"table", "CREATE TABLE `groups` (a INT)", `"groups" is reserved`},
		{"table that the parser lets pass", "CREATE TABLE t (a INT, system INT)", `"system" is reserved`},
		{"column in a query", "SELECT t.rank FROM t", `"rank" is reserved`},
		{"column in an insert", "INSERT INTO t (`rank`) VALUES (1)", `"rank" is reserved`},
		{"column alias", "SELECT a AS `lead` FROM t", `"lead" is reserved`},
		{"table alias", "SELECT `of`.a FROM t AS `of`", `"of" is reserved`},
		{"index", "CREATE INDEX `key` ON t (a)", `"key" is reserved`},
		{"key in a table", "CREATE TABLE t (a INT, KEY `window` (a))", `"window" is reserved`},
		{"dropped index", "ALTER TABLE t DROP INDEX `range`", `"range" is reserved`},
		{"constraint", "ALTER TABLE t ADD CONSTRAINT `check` FOREIGN KEY (a) REFERENCES u (a)", `"check" is reserved`},
		{"common table expression", "WITH manual AS (SELECT 1 AS a) SELECT a FROM manual", `"manual" is reserved`},
		{"referenced table", "CREATE TABLE t (a INT, FOREIGN KEY (a) REFERENCES `system` (a))", `"system" is reserved`},
		{"updated column", "UPDATE t SET parallel = 1 WHERE a = 2", `"parallel" is reserved`},
		{"ordered by", "SELECT a FROM t ORDER BY empty", `"empty" is reserved`},
		{"arrow", "SELECT a->>'$.b' FROM t", "->>"},
		{"row alias", "INSERT INTO t (a) VALUES (1) AS fresh ON DUPLICATE KEY UPDATE a = fresh.a", "near"},
		{"skip locked", "SELECT a FROM t FOR UPDATE SKIP LOCKED", "SQLite"},
		{"insert ignore", "INSERT IGNORE INTO t (a) VALUES (1)", "hides"},
		{"default on text", "CREATE TABLE t (a TEXT NOT NULL DEFAULT 'x')", "literal default"},
		{"fulltext", "CREATE TABLE t (a TEXT, FULLTEXT KEY words (a))", "FULLTEXT"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n, problems := check(source{"here", test.sql})
			got := strings.Join(problems, "\n")
			switch {
			case test.want == "" && (got != "" || n == 0):
				t.Errorf("%d statements, %s", n, got)
			case test.want != "" && (len(problems) != 1 || !strings.Contains(got, test.want)):
				t.Errorf("got %q, want one problem with %q", got, test.want)
			}
		})
	}
}

func TestExtract_FindsEveryStatement(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("migrations/1.sql", "SELECT 'file'")
	write("sqlite/migrations/1.sql", "SELECT 'sqlite'")
	write("store_test.go", "package store\n\nconst sqlTest = `SELECT 'test'`\n")
	write("store.go", `package store

const (
	columns = "a, b"
	sqlOne  = "SELECT " + columns + " FROM one"
	sqlite  = "not SQL"
)

var sqlTwo = `+"`SELECT 'two'`"+`

func f(x string) {
	use("/* name: Three */ SELECT 'three'")
	use("UPDATE forgotten SET a = 1")
	use("/* name: Four */ SELECT " + x)
	use("Update: a word in a sentence", "SELECT")
}
`)
	sources, problems, err := extract(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range sources {
		all = append(all, s.text)
	}
	for _, want := range []string{"SELECT 'file'", "SELECT a, b FROM one", "SELECT 'two'", "/* name: Three */ SELECT 'three'"} {
		if !strings.Contains(strings.Join(all, "\n"), want) {
			t.Errorf("%q was not found", want)
		}
	}
	if len(all) != 4 {
		t.Errorf("found %q, want four", all)
	}
	if got := strings.Join(problems, "\n"); len(problems) != 2 ||
		!strings.Contains(got, "looks like SQL") || !strings.Contains(got, "from constants alone") {
		t.Errorf("problems %q, want the forgotten one and the one that depends on x", problems)
	}
}

func TestReserved_IsTheWholeList(t *testing.T) {
	for _, word := range []string{"ACCESSIBLE", "GROUPS", "RANK", "SYSTEM", "LATERAL", "MANUAL", "PARALLEL", "QUALIFY", "TABLESAMPLE", "ZEROFILL"} {
		if !reserved[word] {
			t.Errorf("%s is missing", word)
		}
	}
	for _, word := range []string{"NAME", "STATUS", "MASTER_BIND", "OFFSET", "MESSAGE"} {
		if reserved[word] {
			t.Errorf("%s is not reserved", word)
		}
	}
	if n := len(reserved); n < 260 || n > 270 {
		t.Errorf("%d words", n)
	}
}
