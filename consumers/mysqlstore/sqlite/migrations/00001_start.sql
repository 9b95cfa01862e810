-- The same tables as in ../../mysql/migrations. Text is compared byte by byte.
-- +goose Up
CREATE TABLE accounts (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL UNIQUE,
    email         TEXT    NOT NULL,
    password_hash TEXT    NOT NULL,
    created_ms    INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id  INTEGER NOT NULL,
    device_id   TEXT    NOT NULL,
    device_name TEXT    NOT NULL,
    token_hash  BLOB    NOT NULL UNIQUE,
    created_ms  INTEGER NOT NULL,
    UNIQUE (account_id, device_id)
) STRICT;

CREATE TABLE pairs (
    lo         INTEGER NOT NULL,
    hi         INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    asked_by   INTEGER NOT NULL,
    greeting   TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL,
    PRIMARY KEY (lo, hi)
) STRICT, WITHOUT ROWID;
CREATE INDEX pairs_by_hi ON pairs (hi, lo);

CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation TEXT    NOT NULL,
    version      INTEGER NOT NULL,
    message      BLOB    NOT NULL
) STRICT;
CREATE INDEX outbox_by_conversation ON outbox (conversation, version);

CREATE TABLE messages (
    conversation    TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    n               INTEGER NOT NULL,
    own             INTEGER NOT NULL,
    prev_seq        INTEGER NOT NULL,
    sender_id       INTEGER NOT NULL,
    sender_name     TEXT    NOT NULL,
    client_msg_id   BLOB    NOT NULL,
    time_ms         INTEGER NOT NULL,
    body            TEXT    NOT NULL CHECK (json_valid(body)),
    reply_sender_id INTEGER,
    reply_msg_id    BLOB,
    PRIMARY KEY (conversation, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX messages_by_identity ON messages (conversation, sender_id, client_msg_id);

CREATE TABLE conversations (
    conversation TEXT    NOT NULL PRIMARY KEY,
    seq          INTEGER NOT NULL,
    n            INTEGER NOT NULL,
    own_a        INTEGER NOT NULL,
    own_b        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE senders (
    conversation TEXT    NOT NULL,
    sender_id    INTEGER NOT NULL,
    own          INTEGER NOT NULL,
    PRIMARY KEY (conversation, sender_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursors (
    user_id      INTEGER NOT NULL,
    conversation TEXT    NOT NULL,
    read_seq     INTEGER NOT NULL,
    read_n       INTEGER NOT NULL,
    read_own     INTEGER NOT NULL,
    PRIMARY KEY (user_id, conversation)
) STRICT, WITHOUT ROWID;

CREATE TABLE log_state (
    topic           TEXT    NOT NULL PRIMARY KEY,
    topic_id        TEXT    NOT NULL,
    partition_count INTEGER NOT NULL,
    epoch           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE log_offsets (
    topic        TEXT    NOT NULL,
    partition_no INTEGER NOT NULL,
    next_offset  INTEGER NOT NULL,
    PRIMARY KEY (topic, partition_no)
) STRICT, WITHOUT ROWID;

CREATE TABLE router_epochs (
    topic        TEXT    NOT NULL,
    partition_no INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    PRIMARY KEY (topic, partition_no)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_records (
    topic        TEXT    NOT NULL,
    partition_no INTEGER NOT NULL,
    log_offset   INTEGER NOT NULL,
    time_ms      INTEGER NOT NULL,
    reason       TEXT    NOT NULL,
    record_key   BLOB    NOT NULL,
    record_value BLOB    NOT NULL,
    headers      TEXT    NOT NULL,
    PRIMARY KEY (topic, partition_no, log_offset, time_ms)
) STRICT, WITHOUT ROWID;
