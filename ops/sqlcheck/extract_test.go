package sqlcheck

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// source is a piece of SQL, of one or more statements, and where it stands.
type source struct {
	where string // file:line, and the name in Go files
	text  string
}

var (
	named     = regexp.MustCompile(`^\s*/\* name: \w+`)
	looksLike = regexp.MustCompile(`^\s*(SELECT|INSERT|REPLACE|UPDATE|DELETE|CREATE|ALTER|DROP|TRUNCATE|WITH)\s+[\w` + "`" + `(*]`)
)

// extract returns the SQL below dir. Errors in finding it are in problems; err is for files that cannot be read.
func extract(dir string) (sources []source, problems []string, err error) {
	goFiles := map[string][]string{} // by folder: constants refer to each other within it
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != dir && (d.Name() == "testdata" || strings.Contains(strings.ToLower(d.Name()), "sqlite")) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		switch {
		case d.IsDir():
		case strings.HasSuffix(path, ".sql"):
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sources = append(sources, source{path, string(text)})
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			goFiles[filepath.Dir(path)] = append(goFiles[filepath.Dir(path)], path)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, files := range goFiles {
		p := goPackage{fset: token.NewFileSet(), values: map[string]ast.Expr{}, checked: map[ast.Node]bool{}}
		if err := p.parse(files); err != nil {
			return nil, nil, err
		}
		p.declared()
		p.literals()
		sources = append(sources, p.sources...)
		problems = append(problems, p.problems...)
	}
	return sources, problems, nil
}

// goPackage looks for SQL in the Go files of one folder.
type goPackage struct {
	fset     *token.FileSet
	files    []*ast.File
	values   map[string]ast.Expr // of constants and variables of the package
	checked  map[ast.Node]bool   // literals that are part of a statement found
	sources  []source
	problems []string
}

func (p *goPackage) parse(files []string) error {
	for _, path := range files {
		f, err := parser.ParseFile(p.fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		p.files = append(p.files, f)
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				for i, name := range spec.Names {
					if i < len(spec.Values) {
						p.values[name.Name] = spec.Values[i]
					}
				}
			}
			return true
		})
	}
	return nil
}

// declared takes the constants and variables whose name says that they are SQL.
func (p *goPackage) declared() {
	for name, value := range p.values {
		rest, ok := strings.CutPrefix(name, "sql")
		if !ok || rest == "" || !unicode.IsUpper(rune(rest[0])) {
			continue
		}
		where := fmt.Sprintf("%s %s", p.fset.Position(value.Pos()), name)
		text, err := p.evaluate(value, 0)
		if err != nil {
			p.problems = append(p.problems, fmt.Sprintf("%s: %v", where, err))
			continue
		}
		p.sources = append(p.sources, source{where, text})
	}
}

// literals takes the named ones, and reports what looks like SQL and was not taken.
func (p *goPackage) literals() {
	for _, f := range p.files {
		ast.Inspect(f, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok || p.checked[n] {
				return true
			}
			switch e.(type) {
			case *ast.BinaryExpr, *ast.BasicLit:
			default:
				return true
			}
			where := p.fset.Position(e.Pos()).String()
			text, err := p.evaluate(e, 0)
			switch first := p.first(e); {
			case named.MatchString(first) && err != nil:
				p.problems = append(p.problems, fmt.Sprintf("%s: %v", where, err))
			case named.MatchString(first):
				p.sources = append(p.sources, source{where, text})
			case looksLike.MatchString(first):
				p.problems = append(p.problems, fmt.Sprintf(
					"%s: %.40q looks like SQL: call it sql…, or begin it with /* name: X */", where, first))
			default:
				return true
			}
			return false
		})
	}
}

// first is the leftmost literal of an expression.
func (p *goPackage) first(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return p.first(e.X)
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			s, _ := strconv.Unquote(e.Value)
			return s
		}
	}
	return ""
}

// evaluate works out a string that is put together from literals and the package's own constants.
func (p *goPackage) evaluate(e ast.Expr, depth int) (string, error) {
	if depth > 50 {
		return "", fmt.Errorf("refers to itself")
	}
	p.checked[e] = true
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			return strconv.Unquote(e.Value)
		}
	case *ast.ParenExpr:
		return p.evaluate(e.X, depth+1)
	case *ast.Ident:
		if value, ok := p.values[e.Name]; ok {
			return p.evaluate(value, depth+1)
		}
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			x, err := p.evaluate(e.X, depth+1)
			if err != nil {
				return "", err
			}
			y, err := p.evaluate(e.Y, depth+1)
			return x + y, err
		}
	}
	return "", fmt.Errorf("is not put together from constants alone, and so cannot be checked")
}
