// Package history is the consumer that brings the log's messages into the database: one worker per partition reads on from the
// partition's offset in the database, turns what it reads into a batch (batch.go, a pure function), and has the batch and the
// new offset stored in one transaction.
//
// It owns the partitions' history offsets and must never skip a record: what cannot be read is stored as it is, and what
// cannot be stored is tried again until it can. Any number of processes may run it at once. The offset is the fence: of two
// that write the same stretch one is refused, and goes on behind the other. Leases only spare that work.
//
// A worker stops for good when the log is not the one that is remembered (eventlog.ErrHalted): records would be lost without
// anybody noticing. It goes on when an operator has raised the epoch, not when the log has grown past what was lost.
//
// Start reading at worker.go.
package history
