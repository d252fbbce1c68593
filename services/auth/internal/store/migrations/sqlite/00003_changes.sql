-- +goose Up
-- Whose relations changed at which version of all relations; see auth_versions. Only the youngest are kept.
CREATE TABLE auth_changes (
    version BIGINT NOT NULL,
    user_id BIGINT NOT NULL,
    PRIMARY KEY (version, user_id)
);
