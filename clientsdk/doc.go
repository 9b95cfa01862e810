// Package future is the client of a Future cluster, to be embedded in other programs.
//
// Dial connects, Register or Login opens a session, Send sends, Events brings what others say. The rest is in the
// methods of Client. A client that loses its node finds another one, resumes, sends again what was not acknowledged and
// fetches what it missed: a program sees each message once, and those of a conversation in their order.
//
// A node that goes down sends its clients on to another. That is no news for a program: there is an Online event with the new node's
// address, or none if the address is the same. Offline is told only if the client is not back within 5 seconds. Where a node
// sends it, a client tries once; a program that must not connect anywhere but to some addresses says so by WithDialer.
//
// # What is kept where
//
// Without WithDir all is in memory. With it the folder keeps the device's id, the token, the positions and the
// unacknowledged messages. A message counts as shown when the program has received it from the channel of Events, or its
// handler was called; a killed program may see the last one again, after a power cut the last second's.
//
// # How it is built
//
// Package resume decides, as a step function without goroutines, clock or I/O: positions, gaps, the outbox and its
// order. The loop (loop.go) owns that machine, the connection, all requests under way and the folder; nothing else
// touches them. Each connection has two goroutines more, for reading and for writing. Methods post to the loop and wait
// for its answer. Start reading at loop.go.
package future
