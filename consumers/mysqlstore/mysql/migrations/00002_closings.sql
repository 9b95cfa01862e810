-- What ended whose right to write to a conversation: the highest version, by user; user 0 is everybody.
-- +goose Up
CREATE TABLE IF NOT EXISTS closings (
    conversation VARCHAR(48) NOT NULL,
    user_id      BIGINT      NOT NULL,
    version      BIGINT      NOT NULL,
    PRIMARY KEY (conversation, user_id),
    KEY by_version (conversation, version)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
