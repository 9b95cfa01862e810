// Package sqlcheck holds tests alone: every SQL statement of the store is parsed as MySQL 8.4 would, since that is
// what users run and the tests' real server is MariaDB.
//
// Statements are found under consumers/mysqlstore:
//   - all of every .sql file (migrations with goose's comments, queries), and
//   - in Go files (not tests) the constants and variables whose name begins with sql and a capital letter, and string
//     literals that begin with a comment of the form /* name: X */.
//
// A literal that looks like SQL and is neither is an error, so that no statement escapes. `IN (%s)` counts as `IN (?)`.
// Files and folders with sqlite in their name are left out: they are for SQLite alone.
//
// Checked are the grammar, that no name is a word that MySQL 8.4 reserves (quoted or not: a quote is forgotten one
// day), and the constructs that one of MySQL, MariaDB and SQLite lacks.
package sqlcheck
