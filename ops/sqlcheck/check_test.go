package sqlcheck

import (
	_ "embed"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pingcap/tidb/pkg/parser"
	"github.com/pingcap/tidb/pkg/parser/ast"
	_ "github.com/pingcap/tidb/pkg/parser/test_driver" // the parser needs some driver for literals
)

//go:embed mysql-8.4-reserved.txt
var reservedFile string

var reserved = func() map[string]bool {
	words := map[string]bool{}
	for line := range strings.Lines(reservedFile) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			words[line] = true
		}
	}
	return words
}()

// lacking are constructs that the parser takes and one of the three databases does not.
var lacking = []struct {
	pattern *regexp.Regexp
	why     string
}{
	{regexp.MustCompile(`->>`), "MariaDB lacks ->>"},
	{regexp.MustCompile(`(?i)\bRETURNING\b`), "MySQL lacks RETURNING"},
	{regexp.MustCompile(`(?i)\bSKIP\s+LOCKED\b`), "not everywhere, and SQLite has no row locks"},
	{regexp.MustCompile(`(?i)\b(INSERT|UPDATE|DELETE)\s+(LOW_PRIORITY\s+)?IGNORE\b`), "IGNORE hides errors that are not duplicates"},
	{regexp.MustCompile(`(?i)\bFULLTEXT\b`), "SQLite lacks FULLTEXT"},
	{regexp.MustCompile(`(?i)\bFOR\s+SHARE\b`), "MariaDB lacks FOR SHARE: use LOCK IN SHARE MODE"},
	{regexp.MustCompile(`(?i)utf8mb4_0900_`), "MariaDB lacks the 0900 collations: use utf8mb4_bin"},
	{regexp.MustCompile(`(?i)\b(TINY|MEDIUM|LONG)?(TEXT|BLOB|JSON)\b(\s+NOT\s+NULL)?\s+DEFAULT\s+['"\d]`), "MySQL refuses a literal default here"},
}

// inList is how Go code leaves room for a list of placeholders.
var inList = regexp.MustCompile(`(?i)\bIN\s*\(\s*%s\s*\)`)

// text that no pattern may look into: literals, and comments.
var opaque = regexp.MustCompile(`'(?:[^'\\]|\\.|'')*'|(?s:/\*.*?\*/)|--[^\n]*|#[^\n]*`)

// check returns how many statements the text holds, and what is wrong with it.
func check(s source) (statements int, problems []string) {
	text := inList.ReplaceAllString(s.text, "IN (?)")
	report := func(format string, args ...any) {
		problems = append(problems, s.where+": "+fmt.Sprintf(format, args...))
	}
	nodes, _, err := parser.New().ParseSQL(text)
	if err != nil {
		report("%v", err)
		return 0, problems
	}
	bare := opaque.ReplaceAllStringFunc(text, func(found string) string {
		if found[0] == '\'' {
			return "''" // still a literal, as the rule on defaults wants to know
		}
		return " "
	})
	for _, l := range lacking {
		if found := l.pattern.FindString(bare); found != "" {
			report("%.60q: %s", found, l.why)
		}
	}
	for _, node := range nodes {
		statements++
		for _, name := range names(node) {
			if reserved[strings.ToUpper(name)] {
				report("the name %q is reserved in MySQL 8.4, in %.60q", name, strings.TrimSpace(node.Text()))
			}
		}
	}
	return statements, problems
}

// names returns every identifier of a statement. It looks at all of the tree by reflection rather than at the kinds of
// nodes it knows: a kind that was forgotten would let names pass.
func names(node ast.StmtNode) []string {
	c := collector{seen: map[uintptr]bool{}, found: map[string]bool{}}
	c.walk(reflect.ValueOf(node))
	var all []string
	for name := range c.found {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

type collector struct {
	seen  map[uintptr]bool
	found map[string]bool
}

var (
	identifier   = reflect.TypeFor[ast.CIStr]()
	functionCall = reflect.TypeFor[ast.FuncCallExpr]()

	// The names that are plain strings in the tree.
	plain = map[reflect.Type]string{
		reflect.TypeFor[ast.Constraint]():      "Name",
		reflect.TypeFor[ast.AlterTableSpec]():  "Name",
		reflect.TypeFor[ast.CreateIndexStmt](): "IndexName",
		reflect.TypeFor[ast.DropIndexStmt]():   "IndexName",
	}
)

func (c *collector) walk(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() || c.seen[v.Pointer()] {
			return
		}
		c.seen[v.Pointer()] = true
		c.walk(v.Elem())
	case reflect.Interface:
		if !v.IsNil() {
			c.walk(v.Elem())
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		for i := range v.Len() {
			c.walk(v.Index(i))
		}
	case reflect.Struct:
		c.walkStruct(v)
	default:
	}
}

func (c *collector) walkStruct(v reflect.Value) {
	if v.Type() == identifier {
		c.add(v.FieldByName("O").String())
		return
	}
	if field, ok := plain[v.Type()]; ok {
		c.add(v.FieldByName(field).String())
	}
	for i := range v.NumField() {
		// A function may be called as a reserved word, like IF or VALUES.
		if v.Type() == functionCall && v.Type().Field(i).Name == "FnName" {
			continue
		}
		c.walk(v.Field(i))
	}
}

func (c *collector) add(name string) {
	if name != "" {
		c.found[name] = true
	}
}
