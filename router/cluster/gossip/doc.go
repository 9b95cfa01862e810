// Package gossip is the adapter that finds the cluster's processes with hashicorp/memberlist: every process tells a few others
// what it knows, over UDP, and probes one now and then. A process that dies without a word is out of the others' view after
// about 3 to 5 seconds; one that leaves, at once.
//
// All traffic is encrypted (AES-256-GCM) with a key derived from the cluster's secret and name, and bears the name as label:
// who does not have the secret is not heard and understands nothing. What a stranger can do: see who talks to whom and how
// much, drop packets, replay a packet (memberlist has incarnations against old news, but no nonces), and try guesses of the
// secret on packets it recorded. So the secret has to be random, not a word.
//
// memberlist as it is (0.7.0), and what is done about it here:
//   - It never joins again by itself: two halves of a cut that lasts longer than GossipToTheDeadTime stay apart for ever. So
//     the seeds that are not in view are tried again and again, from the start on.
//   - Join asks resolv.conf's first server for ANY over TCP before it resolves a name. Seeds are resolved here, with a deadline.
//   - Join cannot be cancelled; it is given one address at a time and a short TCPTimeout.
//   - Given a name to bind or nothing it can parse, it listens on all addresses. Names are resolved here.
//   - Members returns pointers to nodes that it goes on to write to. The view here is built from its events, by copy; these
//     come with its lock held and must not call it.
//   - Leave after Shutdown panics, and so does meta data over its limit: checked before.
//   - Shutdown does not wait for its goroutines, and suspicion timers fire after it: a view that was left is frozen.
//   - It serves any number of TCP connections at once, and reads up to 20 MiB of each before it knows that it is a stranger's. Both are
//     bounded (guard.go).
//   - It logs each bad packet, so a stranger could fill the disk, and tells of it nowhere else: its log is sampled, and read to count
//     what was refused (log.go).
package gossip
