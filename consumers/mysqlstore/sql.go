package mysqlstore

// Every statement of the store, in MySQL's SQL as package ops/sqlcheck allows it. A Dialect may translate these: upserts are
// written ON DUPLICATE KEY UPDATE with VALUES(), the greater of two GREATEST, lists IN (%s), row locks FOR UPDATE. An INSERT that
// insertRows uses has its one row's placeholders in the first parentheses that begin with a question mark.
const (
	sqlSchemaVersion = `SELECT COALESCE(MAX(version_id), 0) FROM schema_version`

	sqlCreateAccount = `INSERT INTO accounts (name, email, password_hash, created_ms) VALUES (?, ?, ?, ?)`
	sqlAccountByName = `SELECT id, name, email, password_hash, created_ms FROM accounts WHERE name = ?`
	sqlSetPassword   = `UPDATE accounts SET password_hash = ? WHERE id = ? AND password_hash = ?`
	sqlAccountNames  = `SELECT id, name FROM accounts WHERE id IN (%s)`

	sqlEndOlderSession = `DELETE FROM sessions WHERE account_id = ? AND device_id = ?`
	sqlCreateSession   = `INSERT INTO sessions (account_id, device_id, device_name, token_hash, created_ms) VALUES (?, ?, ?, ?, ?)`
	sqlSessionByToken  = `SELECT s.id, s.device_id, s.device_name, s.created_ms, a.id, a.name, a.email, a.password_hash, a.created_ms
		FROM sessions s JOIN accounts a ON a.id = s.account_id WHERE s.token_hash = ?`
	sqlEndSession = `DELETE FROM sessions WHERE id = ?`

	pairColumns = `p.lo, p.hi, p.state, p.asked_by, p.greeting, p.version, p.changed_ms`
	sqlPair     = `SELECT ` + pairColumns + ` FROM pairs p WHERE p.lo = ? AND p.hi = ?`
	sqlPairs    = `SELECT ` + pairColumns + `, a.name AS other FROM pairs p JOIN accounts a ON a.id = p.hi WHERE p.lo = ? AND p.state <> 0
		UNION ALL
		SELECT ` + pairColumns + `, a.name AS other FROM pairs p JOIN accounts a ON a.id = p.lo WHERE p.hi = ? AND p.state <> 0
		ORDER BY other LIMIT ?`
	sqlCountPairs = `SELECT (SELECT COUNT(*) FROM pairs WHERE lo = ? AND state <> 0) + (SELECT COUNT(*) FROM pairs WHERE hi = ? AND state <> 0)`
	// An upsert that changes nothing, since a row that is not there cannot be locked.
	sqlLockPair = `INSERT INTO pairs (lo, hi, state, asked_by, greeting, version, changed_ms) VALUES (?, ?, 0, 0, '', 0, 0)
		ON DUPLICATE KEY UPDATE version = version`
	sqlReadLockedPair = sqlPair + ` FOR UPDATE`
	sqlChangePair     = `UPDATE pairs SET state = ?, asked_by = ?, greeting = ?, version = ?, changed_ms = ? WHERE lo = ? AND hi = ?`

	sqlCreateGroup = `INSERT INTO chat_groups (name, owner_id, version, members, created_ms) VALUES (?, ?, ?, ?, ?)`
	sqlGroup       = `SELECT name, owner_id, version, members, created_ms FROM chat_groups WHERE id = ?`
	sqlLockGroup   = sqlGroup + ` FOR UPDATE`
	sqlChangeGroup = `UPDATE chat_groups SET name = ?, owner_id = ?, version = ?, members = ? WHERE id = ?`
	sqlJoinGroup   = `INSERT INTO group_members (group_id, user_id, joined_version, left_version) VALUES (?, ?, ?, 0)`
	sqlLeaveGroup  = `UPDATE group_members SET left_version = ? WHERE group_id = ? AND user_id = ? AND left_version = 0`
	sqlMembers     = `SELECT a.id, a.name FROM group_members m JOIN accounts a ON a.id = m.user_id
		WHERE m.group_id = ? AND m.left_version = 0 AND m.user_id > ? ORDER BY m.user_id LIMIT ?`
	sqlMemberSpans  = `SELECT user_id, joined_version, left_version FROM group_members WHERE group_id = ? AND user_id IN (%s)`
	sqlGroupsOf     = `SELECT group_id FROM group_members WHERE user_id = ? AND left_version = 0 ORDER BY group_id`
	sqlSpansOf      = `SELECT group_id, joined_version, left_version FROM group_members WHERE user_id = ? ORDER BY group_id, joined_version`
	sqlSpansIn      = `SELECT group_id, joined_version, left_version FROM group_members WHERE user_id = ? AND group_id = ? ORDER BY joined_version`
	sqlGroupChanges = `SELECT group_id, version, seq, n, sender_id, own FROM group_changes WHERE (group_id, version) IN (%s)`
	sqlNoteChange   = `INSERT INTO group_changes (group_id, version, seq, n, sender_id, own) VALUES (?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE seq = seq`

	sqlCreateOutgoing = `INSERT INTO outbox (conversation, version, message) VALUES (?, ?, ?)`
	sqlUnsent         = `SELECT id, version, message FROM outbox ORDER BY id LIMIT ?`
	sqlUnsentOf       = `SELECT id, version, message FROM outbox WHERE conversation = ? AND version <= ? ORDER BY id LIMIT ?`
	sqlSent           = `DELETE FROM outbox WHERE id IN (%s)`

	messageColumns = `m.conversation, m.seq, m.n, m.prev_seq, m.sender_id, m.sender_name, m.client_msg_id, m.time_ms, m.body, m.reply_sender_id, m.reply_msg_id`
	sqlForward     = `SELECT ` + messageColumns + ` FROM messages m WHERE m.conversation = ? AND m.seq > ? AND m.seq < ? ORDER BY m.seq LIMIT ?`
	sqlBackward    = `SELECT ` + messageColumns + ` FROM messages m WHERE m.conversation = ? AND m.seq > ? AND m.seq < ? ORDER BY m.seq DESC LIMIT ?`
	sqlFind        = `SELECT ` + messageColumns + ` FROM messages m WHERE m.conversation = ? AND m.sender_id = ? AND m.client_msg_id = ?`
	sqlFindMany    = `SELECT ` + messageColumns + ` FROM messages m WHERE (m.conversation, m.sender_id, m.client_msg_id) IN (%s)`
	sqlAt          = `SELECT ` + messageColumns + ` FROM messages m WHERE (m.conversation, m.seq) IN (%s)`

	sqlCursors    = `SELECT conversation, read_seq, read_n, read_own FROM cursors WHERE user_id = ?`
	sqlCursor     = `SELECT conversation, read_seq, read_n, read_own FROM cursors WHERE user_id = ? AND conversation = ?`
	sqlHeads      = `SELECT conversation, seq, n, own_a, own_b FROM conversations WHERE conversation IN (%s)`
	sqlSenders    = `SELECT conversation, sender_id, own FROM senders WHERE (conversation, sender_id) IN (%s)`
	sqlPositionAt = `SELECT seq, n, sender_id, own FROM messages WHERE conversation = ? AND seq <= ? ORDER BY seq DESC LIMIT 1`
	sqlOwnAt      = `SELECT own FROM messages WHERE conversation = ? AND seq > ? AND seq <= ? AND sender_id = ? ORDER BY seq DESC LIMIT 1`
	sqlReadGroup  = `INSERT INTO cursors (user_id, conversation, read_seq, read_n, read_own) VALUES (?, ?, ?, ?, ?)
		ON DUPLICATE KEY UPDATE read_seq = GREATEST(read_seq, VALUES(read_seq)), read_n = GREATEST(read_n, VALUES(read_n)),
		read_own = GREATEST(read_own, VALUES(read_own))`
	sqlMoveCursor = `UPDATE cursors SET read_seq = GREATEST(read_seq, ?), read_n = GREATEST(read_n, ?), read_own = GREATEST(read_own, ?)
		WHERE user_id = ? AND conversation = ?`

	sqlMoveOffset    = `UPDATE log_offsets SET next_offset = ? WHERE topic = ? AND partition_no = ? AND next_offset = ?`
	sqlFirstOffset   = `INSERT INTO log_offsets (topic, partition_no, next_offset) VALUES (?, ?, ?)`
	sqlOffsets       = `SELECT partition_no, next_offset FROM log_offsets WHERE topic = ?`
	sqlInsertMessage = `INSERT INTO messages (conversation, seq, n, own, prev_seq, sender_id, sender_name, client_msg_id, time_ms, body, reply_sender_id, reply_msg_id)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	sqlMoveHead = `INSERT INTO conversations (conversation, seq, n, own_a, own_b) VALUES (?, ?, ?, ?, ?)
		ON DUPLICATE KEY UPDATE seq = VALUES(seq), n = VALUES(n), own_a = VALUES(own_a), own_b = VALUES(own_b)`
	sqlHeadsToMove = `SELECT c.conversation, c.seq, c.n, c.own_a, c.own_b, COALESCE((SELECT MAX(k.version) FROM closings k WHERE k.conversation = c.conversation), 0)
		FROM conversations c WHERE c.conversation IN (%s)`
	sqlClosings   = `SELECT conversation, user_id, version FROM closings WHERE (conversation, user_id) IN (%s)`
	sqlClose      = `INSERT INTO closings (conversation, user_id, version) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE version = GREATEST(version, VALUES(version))`
	sqlMoveSender = `INSERT INTO senders (conversation, sender_id, own) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE own = VALUES(own)`
	sqlNewCursor  = `INSERT INTO cursors (user_id, conversation, read_seq, read_n, read_own) VALUES (?, ?, 0, 0, 0)`
	sqlDead       = `INSERT INTO dead_records (topic, partition_no, log_offset, time_ms, reason, record_key, record_value, headers)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`

	sqlLogState     = `SELECT topic_id, partition_count, epoch FROM log_state WHERE topic = ?`
	sqlSaveLogState = `INSERT INTO log_state (topic, topic_id, partition_count, epoch) VALUES (?, ?, ?, ?)
		ON DUPLICATE KEY UPDATE topic_id = VALUES(topic_id), partition_count = VALUES(partition_count), epoch = VALUES(epoch)`
	sqlRaiseRouterEpoch = `INSERT INTO router_epochs (topic, partition_no, epoch) VALUES (?, ?, 1) ON DUPLICATE KEY UPDATE epoch = epoch + 1`
	sqlRouterEpoch      = `SELECT epoch FROM router_epochs WHERE topic = ? AND partition_no = ?`
)
