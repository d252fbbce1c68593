-- +goose Up
-- When a user's marks of a room moved last, Unix ms by this database's clock; 0 for a device's: those nobody is told of.
ALTER TABLE history_cursors ADD COLUMN changed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX history_cursors_changed ON history_cursors (changed) WHERE device = '';
