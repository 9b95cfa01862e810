-- +goose Up
CREATE TABLE chat_groups (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,
    owner_id   INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    members    INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE group_members (
    group_id       INTEGER NOT NULL,
    user_id        INTEGER NOT NULL,
    joined_version INTEGER NOT NULL,
    left_version   INTEGER NOT NULL,
    PRIMARY KEY (group_id, user_id, joined_version)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_members_by_user ON group_members (user_id, group_id, joined_version);

CREATE TABLE group_changes (
    group_id  INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    n         INTEGER NOT NULL,
    sender_id INTEGER NOT NULL,
    own       INTEGER NOT NULL,
    PRIMARY KEY (group_id, version)
) STRICT, WITHOUT ROWID;
