// Package simulation runs whole clusters in one goroutine, under simulated time, with every choice drawn from a seed: the same seed does
// the same, to the last event (R44). It exists to find what no test of a part can: a loss, a copy or a change of order that takes three
// faults at the wrong moments.
//
// Real code runs in it: deliver.Router with its Partitions, leases and takeovers, node.Node with its sessions, presence.Node and Keeper,
// history.History, outbox.Publisher, fence.Fencer, timeline.Reader, chat.Service, and of the SDK resume.Machine. Their loops wait by a clock.Clock,
// which here is the process they run in (proc.go): each of their goroutines is a coroutine, and one runs at a time, until it waits or
// calls something over the network.
//
// Simulated are
//
//   - the world: events in the order of their time, a draw where times are the same (world.go), processes that crash, stop, go on and
//     have clocks of their own, off by up to 20 s and 1 % (proc.go);
//   - services: database and Redis are the ports' memory implementations behind a network that refuses, delays, swallows requests or
//     answers (service.go, database.go, redis.go); the log is broker.go, which also fails appends with or without writing them, late,
//     or twice;
//   - the links between processes (peers.go), the connections of clients (conn.go), who sees whom in the cluster (roles.go);
//   - people and the shell of the SDK: connection, log-in, disk, and the way from a node that drains to the next (people.go, device.go).
//     They write, part and are friends again; groups take people in and out (crowd.go).
//
// faults.go says what goes wrong. truth.go judges: it knows from the log alone which messages there are, and holds every acknowledgement,
// delivery, commit, stored batch and shown message against that, at once. When the faults are over all must be well within a minute
// (simulation.go), and what the database says then is held against the log once more (audit.go).
//
// What it does not show. Between two waits a coroutine is not interrupted: races of memory are for the race detector. Encoding on peer
// links, TLS, sockets and the gate are not in it, nor is the SDK's own loop, nor Kafka's protocol: how the log behaves is what
// eventlog promises, and whether Kafka keeps that is for eventlogtest. One call of Redis or the database happens at one moment. The log
// never loses what it has acknowledged, so nothing here halts. Bounds of memory are not reached, but for the frames that wait for a slow
// client. Groups have at most as many members as there are people, so no notice leaves out its subjects; they are made before all begins.
// A message that was refused while two were no friends, with the refusal lost, is sent again when they are, and may then stand behind
// later ones of its sender: that is counted, and no failure. Nor is it one that who has left a group learns of his last messages
// there by the regular comparison alone, if he came back in between (former).
//
// Start reading at Run.
package simulation
