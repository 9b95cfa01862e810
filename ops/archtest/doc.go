// Package archtest holds the import rules that keep the parts of the cluster apart, as tests: see rules.go for the
// rules, and the reasons in the design record of the folders.
//
// It reads imports only, of every file whatever its build tags, so it takes milliseconds and needs nothing to compile.
// A rule that stands in the way is changed in rules.go together with a decision record under ops/adr, never worked
// around.
package archtest
