// Package redispresence is presence.Store on Redis: one server of 7.0 or later, one behind Sentinels, or a Redis Cluster. Masters
// only. The server must not evict keys (Check); all that is here may be lost, and is rebuilt.
//
// # Keys
//
// Each begins with Options.Prefix, "future:" by default. What stands in braces decides on which server of a cluster a key is:
// a script or transaction is only ever over keys with the same braces.
//
//	epoch                          string. A random name, made by the first who finds none. No TTL. The epoch of package presence is
//	                               this and the server's run_id.
//	lease:<name>                   string "<owner>\n<value>", with the lease's TTL. Names: node:<incarnation>, with the incarnation as
//	                               owner and the node's peer address as value; partition:<topic>:<number>;
//	                               history:<topic>:<number>; outbox.
//	                               revoked:<incarnation> notes that a lease was taken from its owner.
//	nodes                          set. The incarnations to look at for leases: all that have one, and some that are dead.
//	presence:{u:<user>}            hash. Field "<incarnation>/<connection>", value the device's id. It counts only while
//	                               lease:node:<incarnation> is there. TTL 1 h, renewed with each write; nodes write each entry again
//	                               every 90 s.
//	groupnodes:{g:<group>}         hash. Field "<incarnation>/0" of each incarnation with members of the group. As presence.
//	recents:{<conversation>}       sorted set, all scores 0, so its order is that of the members: "<seq>:<message>", seq with 20
//	                               decimal digits, message an encoded wire Message without prev_seq. 30 of d: and n:, 200 of g:, 64 KiB.
//	                               TTL 1 h to 2 h, at random, from the last append.
//	recentsmeta:{<conversation>}   hash, made and expiring with it. after: all messages above this seq are there. newest: the highest
//	                               seq. bytes: of the messages. keep: the history position. low: not empty while messages below after
//	                               are there that are being appended again (see stretch in package presence). epoch: under which all
//	                               was appended. Without the one, the other does not count.
//	tail:{<prefix>epoch}:<topic>:<log epoch>:<number>:<epoch>
//	                               hash. offset: in the log, up to which everything of that partition was appended under that epoch.
//	                               again: the log's end when that began: below it, what was delivered before is done again. On the same server as the key epoch. TTL 7 days, from when it was raised last.
//	uheads:{u:<user>}              sorted set. Member the conversation (d:, n:), score its highest seq, exact below 2^53. TTL 30 days.
//
// Of a Redis Cluster, one server may lose what it had while the epoch, on another, stays: then a tail may say more than the recents have.
// A conversation whose recents are gone begins anew, with an unknown prev; one that lost only its end joins what comes next, if the router
// does not remember better.
//
// To look: `redis-cli hgetall 'future:presence:{u:7}'`, `redis-cli zrangebylex 'future:recents:{d:7:9}' - +`.
package redispresence
