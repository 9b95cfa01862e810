// Package chat is the domain: who people are, who may talk to whom, what a message is, and which errors there are. It has no
// technology in it: what it needs of a database it asks for through Store, and what it says of messages it says in the
// protocol's own types (clientsdk/wire), since they are also what the log and the database keep.
//
// Start reading at store.go and groupstore.go, which have the facts, and service.go, which has the rules. record.go is the format of
// the log's records; permits.go and validity.go make the end of a right exact (ops/adr, 6). Every error that a client may see is a *wire.Error; anything else is a fault of the server.
package chat
