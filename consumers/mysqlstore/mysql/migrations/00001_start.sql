-- Each statement may run again: MySQL ends a transaction with each of these, so a migration that was cut off begins anew.
-- +goose Up
CREATE TABLE IF NOT EXISTS accounts (
    id            BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name          VARCHAR(64)  NOT NULL,
    email         VARCHAR(254) NOT NULL,
    password_hash VARCHAR(255) NOT NULL,
    created_ms    BIGINT       NOT NULL,
    UNIQUE KEY by_name (name)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS sessions (
    id          BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    account_id  BIGINT       NOT NULL,
    device_id   VARCHAR(36)  NOT NULL,
    device_name VARCHAR(255) NOT NULL,
    token_hash  BINARY(32)   NOT NULL,
    created_ms  BIGINT       NOT NULL,
    UNIQUE KEY by_token (token_hash),
    UNIQUE KEY by_device (account_id, device_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS pairs (
    lo         BIGINT        NOT NULL,
    hi         BIGINT        NOT NULL,
    state      TINYINT       NOT NULL,
    asked_by   BIGINT        NOT NULL,
    greeting   VARCHAR(1000) NOT NULL,
    version    BIGINT        NOT NULL,
    changed_ms BIGINT        NOT NULL,
    PRIMARY KEY (lo, hi),
    KEY by_hi (hi, lo)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS outbox (
    id           BIGINT      NOT NULL AUTO_INCREMENT PRIMARY KEY,
    conversation VARCHAR(48) NOT NULL,
    version      BIGINT      NOT NULL,
    message      MEDIUMBLOB  NOT NULL,
    KEY by_conversation (conversation, version)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS messages (
    conversation    VARCHAR(48)  NOT NULL,
    seq             BIGINT       NOT NULL,
    n               BIGINT       NOT NULL,
    own             BIGINT       NOT NULL,
    prev_seq        BIGINT       NOT NULL,
    sender_id       BIGINT       NOT NULL,
    sender_name     VARCHAR(255) NOT NULL,
    client_msg_id   BINARY(16)   NOT NULL,
    time_ms         BIGINT       NOT NULL,
    body            JSON         NOT NULL,
    reply_sender_id BIGINT,
    reply_msg_id    BINARY(16),
    PRIMARY KEY (conversation, seq),
    UNIQUE KEY by_identity (conversation, sender_id, client_msg_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS conversations (
    conversation VARCHAR(48) NOT NULL PRIMARY KEY,
    seq          BIGINT      NOT NULL,
    n            BIGINT      NOT NULL,
    own_a        BIGINT      NOT NULL,
    own_b        BIGINT      NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS senders (
    conversation VARCHAR(48) NOT NULL,
    sender_id    BIGINT      NOT NULL,
    own          BIGINT      NOT NULL,
    PRIMARY KEY (conversation, sender_id)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS cursors (
    user_id      BIGINT      NOT NULL,
    conversation VARCHAR(48) NOT NULL,
    read_seq     BIGINT      NOT NULL,
    read_n       BIGINT      NOT NULL,
    read_own     BIGINT      NOT NULL,
    PRIMARY KEY (user_id, conversation)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS log_state (
    topic           VARCHAR(249) NOT NULL PRIMARY KEY,
    topic_id        VARCHAR(64)  NOT NULL,
    partition_count INT          NOT NULL,
    epoch           INT          NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS log_offsets (
    topic        VARCHAR(249) NOT NULL,
    partition_no INT          NOT NULL,
    next_offset  BIGINT       NOT NULL,
    PRIMARY KEY (topic, partition_no)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS router_epochs (
    topic        VARCHAR(249) NOT NULL,
    partition_no INT          NOT NULL,
    epoch        BIGINT       NOT NULL,
    PRIMARY KEY (topic, partition_no)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The time is in the key since a log that was made anew gives its offsets again.
CREATE TABLE IF NOT EXISTS dead_records (
    topic        VARCHAR(249) NOT NULL,
    partition_no INT          NOT NULL,
    log_offset   BIGINT       NOT NULL,
    time_ms      BIGINT       NOT NULL,
    reason       VARCHAR(500) NOT NULL,
    record_key   LONGBLOB     NOT NULL,
    record_value LONGBLOB     NOT NULL,
    headers      LONGTEXT     NOT NULL,
    PRIMARY KEY (topic, partition_no, log_offset, time_ms)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
