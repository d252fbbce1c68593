-- +goose Up
-- A service of the version before goes on beside this: it names neither column.
-- The refresh token that came in the place of this one, sealed with this one, so that nobody reads it here; '' while there is none.
ALTER TABLE auth_refresh_tokens ADD COLUMN next TEXT NOT NULL DEFAULT '';
-- Logins that began up to here, in Unix milliseconds, are void.
ALTER TABLE auth_users ADD COLUMN not_before BIGINT NOT NULL DEFAULT 0;
