//go:generate ./generate

// Package peer is the link between the cluster's processes: a router hands messages to nodes over it, a node tells another to end
// a connection, and a removal asks whether older messages are under way (package fence). Server takes links and hands what comes to
// a Handler; Pool dials links and sends over them. Call asks a process as an operator does, over a link for that alone, and a Control
// answers (control.go). What the frames mean is the business of those who send and take them.
//
// Read peer.go for the contract, peerv1/peer.proto for what travels, then server.go and remote.go for the two ends.
//
// # Who may talk
//
// Both sides derive the same Ed25519 key pair from the cluster's secret and name, and accept only that key from each other, in
// a TLS 1.3 handshake in which both must sign. There are no authorities, names or dates. Someone without the secret can
//
//   - connect, and see a TLS handshake with a certificate that names nothing but the protocol and the derived public key;
//   - see who talks to whom, when and how much, and break links;
//   - try guesses of the secret against that public key, at home and as fast as he likes: the secret has to be random (32 bytes
//     from a generator), never a word;
//   - occupy handshakes: each has a deadline, their number is bounded, and when it is reached the oldest gives way to the
//     newest, so that members, who need a few milliseconds, get through. A flood that is faster than that keeps new links from
//     being made; links that are up do not notice.
//
// He cannot read, inject, change, repeat or reorder frames, nor pass himself off as a member. Sessions are not resumed, and a
// secret that leaks later opens no recorded traffic (the keys are agreed by an ephemeral exchange).
//
// Someone who has the secret is every member: the key says that the other side belongs to the cluster, not who it is. Who can
// redirect connections can lead a link to another member than was meant; that one then answers StatusWrongIncarnation.
//
// # What is promised
//
// Frames to one address go over one connection, in the order of the calls. A Forward's done is called once: with the answer,
// or when its time is over, or when the link breaks, or at once while the address is known to be down. Each end notices a link
// that is half open within about 4 seconds, by pings.
package peer
