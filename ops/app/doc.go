// Package app wires the product together: it is the only package that knows every adapter. What a process does is its roles; a
// cluster is processes of different roles, and `chatd dev` is all of them in one process on embedded parts, by the same
// wiring.
//
// Start reading at App.start: parts.go opens what the roles need and waits for what is not there yet, members.go makes the process
// a member of the cluster and sees to it that its name and address are its own, roles.go makes the roles. Everything that was made
// adds a step to the lifecycle, which runs them in reverse. admin.go is the other side: what an operator's command asks of a process.
package app
