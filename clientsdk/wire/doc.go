//go:generate ./generate

// Package wire is the protocol between a client and a Future node: frames, envelopes, codes and the rules that every
// field obeys. Both sides import it and it imports nothing of theirs.
//
// Read futurev1/future.proto from top to bottom first, then PROTOCOL.md, which tells the flow and is enough to write
// a client in another language. The frames in testdata/golden are the same for all languages.
package wire
