-- +goose Up
-- The name folded and without its accents, for searches. '' until a service fills it in: SQL does not know how. A service of the version before goes on
-- beside this, and registers users without it.
ALTER TABLE auth_users ADD COLUMN plain TEXT NOT NULL DEFAULT '';
CREATE INDEX auth_users_plain ON auth_users (plain, folded);
