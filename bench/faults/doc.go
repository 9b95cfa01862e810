// Package faults kills, stops, drains and cuts off parts of a cluster while friends chat, and judges what became of every message.
//
// A run has one fault: sessions of the SDK, spread over the nodes, write at a steady rate (open loop: a message is due when it is
// due, however late the cluster is); the fault is carried out and healed; when all has arrived, or 30 s after healing, the books are
// closed. They say of each message when it was due, acknowledged or refused, and at which device it arrived when, in the order in
// which each program was told; beside them stand the rows of the database, read with SQL of this package's own. From them alone
// come the Tally, which must have zeros, and the Timing, which is compared with goals.
//
// books.go and judge.go are pure: they have the judgement and nothing of a cluster. stage.go has the processes, sessions.go the
// clients, drive.go sends, catalog.go the faults, run.go puts them together. Start reading at Run.
package faults
