// Package groups is what a node knows of the groups whose members are connected to it, as a step function: Step(now, event)
// returns effects, and the shell (package node) carries them out. It decides
//
//   - that a node is registered for a group in presence before it reads who of its people are members, and both before a session
//     reads its heads (I4): so a group's message and a log-in that race are seen by one side, as elsewhere;
//   - who gets a message: the members as of the version that it bears, less those who have left by what is known here. What is
//     known must not be older than that version; else the group's messages wait, in order, until it was read anew;
//   - who may have missed something and is told to compare heads.
//
// Joining while online is a log-in to that group: a notice brings it about. What waits is bounded: a group that has too much of
// it drops it, and all its members here compare heads.
//
// Start reading at Index.Step, then reading.go (which groups, and who is in them) and message.go (who gets a message).
package groups
