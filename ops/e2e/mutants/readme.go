package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// The table lies between these lines of README.md.
const tableBegin, tableEnd = "<!-- table: go run ./ops/e2e/mutants -readme -->\n", "<!-- end of table -->\n"

// table is what README.md says of the mutants.
func table(mutants []mutant) string {
	var b strings.Builder
	b.WriteString("| mutant | the mistake | breaks | caught by |\n| --- | --- | --- | --- |\n")
	for _, m := range mutants {
		by := make([]string, len(m.caught))
		for i, c := range m.caught {
			by[i] = "`" + strings.TrimPrefix(c.String(), "./") + "`"
		}
		fmt.Fprintf(&b, "| [%s](%s.patch) | %s | %s | %s |\n", m.name, m.name, m.what, m.breaks, strings.Join(by, ", "))
	}
	return b.String()
}

// withTable puts the table in its place.
func withTable(readme string, mutants []mutant) (string, error) {
	head, rest, ok := strings.Cut(readme, tableBegin)
	_, foot, ended := strings.Cut(rest, tableEnd)
	if !ok || !ended {
		return "", errors.New("README.md has no place for the table")
	}
	return head + tableBegin + table(mutants) + tableEnd + foot, nil
}

func writeReadme(path string, mutants []mutant) error {
	readme, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := withTable(string(readme), mutants)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
