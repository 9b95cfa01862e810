-- What ended whose right to write to a conversation: the highest version, by user; user 0 is everybody.
-- +goose Up
CREATE TABLE closings (
    conversation TEXT    NOT NULL,
    user_id      INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    PRIMARY KEY (conversation, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX closings_by_version ON closings (conversation, version);
