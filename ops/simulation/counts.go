package simulation

// mustHappen are what a long sweep must have tried: a promise is proved only against what happened.
func mustHappen() []string {
	all := []string{
		// What was done.
		"messages submitted", "messages acknowledged", "messages shown", "messages resent", "reads marked", "friends asked for",
		"log-ins", "log-outs", "push records", "outbox rows brought to the log", "batches stored",
		// What went wrong, besides the faults themselves.
		"answers lost by database", "answers lost by log", "answers lost by redis", "calls refused by database", "calls refused by log",
		"calls refused by redis", "requests lost to database", "requests lost to log", "requests lost to redis", "reads failed",
		"cuts one way", "connections half open", "connections lost", "frames lost", "frames timed out", "frames to nobody", "answers of nodes lost",
		"links broken", "places lost", "leases forgotten", "recents lost", "appends to recents done in part", "clients that lost all", "clients that lost some",
		"clients that lost nothing", "appends refused", "appends lost", "appends written late", "appends written twice",
		"appends written, answer lost", "appends truncated at a change of leader", "appends failed behind another",
		// How the product met it.
		"handovers", "takeovers", "windows filled again", "leases lost", "partitions lost: lease", "partitions lost: store", "partitions lost: stale", "frames of stale routers refused",
		"frames for another incarnation", "nodes suspected", "frames skipped", "commits down",
		"stages tried again by routers", "routers stopped in order", "duplicates dropped by routers", "copies in the log",
		"duplicates dropped by history", "batches with duplicates", "history writers fenced", "history tried again",
		"duplicates dropped by clients", "deliveries held for earlier ones", "shown by history", "pages fetched", "heads compared",
		"resyncs asked for", "sessions told to compare", "sessions that presence has compare", "recents asked for in vain",
		"incarnations given up", "degraded log-ins", "kicks", "deliveries left out for slow clients", "slow connections drained",
		"connections ended by nodes for silence", "connections given up by clients", "connections closed as REPLACED",
		"removals asked for", "removals", "removals answered", "friendships begun", "fences confirmed", "fences waited out", "fences failed",
		"lives revoked", "invalid messages in the log", "invalid messages dropped by routers", "invalid messages dropped by history",
		"nodes drained", "nodes tried that were told", "requests asked again elsewhere", "refused as DRAINING", "connections closed as DRAINING",
		"members added", "members removed", "members' ends in the log", "groups' nodes lost", "shown before the notice of joining", "messages to groups",
		"groups' messages: at_once", "groups' messages: held", "reads of groups' members",
		"rights looked at again: allowed", "rights looked at again: ended", "rights looked at again: unknown", "messages rejected",
		"refused as NOT_FRIENDS", "refused as RETRY_IN_ORDER", "refused as UNAVAILABLE", "refused as PENDING", "refused as SESSION_ENDED",
	}
	for _, kind := range FaultKinds() {
		if kind != "doubled" { // "appends written twice"
			all = append(all, "fault "+kind)
		}
	}
	return all
}
