// Package deliver is the router role: who gets this message, in what order, and where are they?
//
//   - Partition is the delivery of one partition of the log as a step function: Step(now, event) returns effects. Every rule
//     about order, duplicates, numbers and commits is in there, and is tested there, without a goroutine or a clock.
//   - Inbox is the node's side of the link, just as pure: what of a frame is new here, and whether something was missed.
//   - Router is the shell: it shares the partitions with the other routers, guards each by a lease, and carries out what the
//     Partitions ask for.
//
// A direct message goes to its two users' places; a group's to each node with members, which knows who they are (groups.go).
//
// The order in one batch is what everything rests on (design.md, I4 and I5): append to the recents; only when every append
// was answered, look up who is where; forward; when every node has answered or was given up, put on chat.push what did not
// reach everybody; when that is durable, count the batch as done. What is committed was done. What was done may be done
// again: every receiver must not mind.
//
// What must never happen here: a record skipped (the log's positions are compared before it is read), a message text in a
// log line, a goroutine per message.
//
// Start reading at Partition.Step, then Inbox.Receive, then Router.Run.
package deliver
