// Package kafkalog is the eventlog.Log on Kafka, and the only importer of kafka-go. It uses kafka-go's Transport and coding of
// messages, but neither its Writer, which repeats records when an answer is lost and lets later ones pass a failed one, nor its
// Reader, which skips silently what was deleted.
//
// # Writing
//
// Each partition is in one of four states: idle, ready (waiting for a worker of its leader), sending (a worker has it) or
// unrouted (the router has it, because its leader is not known or a try failed). Only one try for a partition is under way at
// a time, so records are written in order; what is appended meanwhile goes together into the next batch. A broker has a few
// workers; each sends all partitions that are ready in one request. Without load a record leaves at once; under load requests
// grow, and not their number.
//
// A batch carries a producer id, an epoch and a sequence, and keeps them over all tries, so the broker knows a repeated batch
// and answers with the place of the first. After a batch of unknown outcome the partition goes on with the next epoch: what is
// left of the old one in some buffer is refused by the broker from the first newer record on, and so can never come behind it.
//
// # Reading
//
// A reader has one goroutine, which fetches when Next asks, and one batch ahead. Offsets are held against the log's bounds by
// Open, by the broker at each fetch, and against each other in what comes.
//
// Start reading at Log (kafkalog.go), then produce.go, route.go, read.go. wire.go, batch.go and decode.go are the protocol.
package kafkalog
