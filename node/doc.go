// Package node is the role that holds client connections. It knows no socket and no server: the gate (package tcpgate) hands
// it connections and frames, and what it needs of the log, presence, peers and the database comes through Options.
//
//   - client.go: one connection: events in, effects of session.Session out, one at a time and with no lock held.
//   - requests.go: what each request does, in bounded workers, never on an event loop (I6). A send whose rules are all
//     cached needs no I/O and skips the workers.
//   - answers.go: what the log answers to sends. Where the node had no lease all the time, the sender's right is looked at again
//     before a message is acknowledged (ops/adr, 6).
//   - forward.go: what routers bring over the peer link, handed to the connections.
//   - grouploop.go: the shell of groups.Index, which knows who of the people here gets a group's messages.
//   - drain.go: how clients are sent elsewhere.
//
// Start reading at Node.Open and Client.post.
package node
