// Package mysqlstore is chat.Store on a SQL database. It speaks the SQL that MySQL 8.4, MariaDB 10.11 and SQLite share; what
// they do not share is in a Dialect, made by the sub-packages mysql and sqlite, which are the only importers of drivers.
// Package ops/sqlcheck parses every statement here as MySQL 8.4 would. Start reading at sql.go and the migrations.
//
// What each row is for:
//
//   - messages: a message for ever, by (conversation, seq). n is its dense ordinal in the conversation, own its sender's running
//     count in it, prev_seq the position before it; all three are given by the partition's only writer, WriteBatch. The body is
//     the payload's JSON. The sender's name is stored with the message as the log has it: so a page of history is one range of
//     one table, and a message reads the same from the log, from Redis and from here.
//   - conversations: the head (seq, n), and how much the two of a direct conversation have sent of it (own_a the lower user or
//     the owner of notices, own_b the higher). Everybody else's count is in senders; so a direct message costs one row here.
//   - cursors: per user and conversation how far was read, as (read_seq, read_n, read_own). All three rise together, so each
//     is moved by GREATEST. unread = head.n - read_n - (own now - read_own): exact, and no row per message and member.
//   - log_offsets: what is due in each partition, moved in the transaction that stores what was below. Moving it first also
//     is the fence: it locks the row until the end, and matches nothing if another writer has moved it.
//   - outbox: what was decided in a transaction and must still reach the log.
//   - accounts, sessions, pairs: who people are, where they are logged in, and how two of them stand to each other; a pair that
//     once met keeps its row, for its version.
//   - chat_groups, group_members: groups, and who is in them, as spans of the group's versions; left_version 0 is no end.
//   - group_changes: where the notice of each version stands, written by WriteBatch. With the spans it gives what a member may read,
//     and where his counting begins; a group's cursors are made when somebody reads.
//   - log_state, router_epochs: which log the offsets above are of, and the number of each partition's newest router.
//   - dead_records: records that are no message for the store, as they came.
//
// To be sharded later: messages, conversations and senders by conversation; cursors by user; pairs and outbox by pair. No
// statement on the way of a message joins tables of different keys, nothing there has an auto-increment, and cursors are the
// only rows that WriteBatch makes under another key (once per conversation).
package mysqlstore
