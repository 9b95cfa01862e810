-- +goose Up
CREATE TABLE IF NOT EXISTS chat_groups (
    id         BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name       VARCHAR(255) NOT NULL,
    owner_id   BIGINT       NOT NULL,
    version    BIGINT       NOT NULL,
    members    INT          NOT NULL,
    created_ms BIGINT       NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- left_version 0: still a member.
CREATE TABLE IF NOT EXISTS group_members (
    group_id       BIGINT NOT NULL,
    user_id        BIGINT NOT NULL,
    joined_version BIGINT NOT NULL,
    left_version   BIGINT NOT NULL,
    PRIMARY KEY (group_id, user_id, joined_version),
    KEY by_user (user_id, group_id, joined_version)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS group_changes (
    group_id  BIGINT NOT NULL,
    version   BIGINT NOT NULL,
    seq       BIGINT NOT NULL,
    n         BIGINT NOT NULL,
    sender_id BIGINT NOT NULL,
    own       BIGINT NOT NULL,
    PRIMARY KEY (group_id, version)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
