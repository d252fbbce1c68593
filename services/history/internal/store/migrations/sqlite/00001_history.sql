-- +goose Up
-- Names are registered names, which never change.
CREATE TABLE history_messages (
    pos       INTEGER  NOT NULL PRIMARY KEY, -- partition and seq in one number: p * 2^54 + seq
    a         TEXT NOT NULL,
    b         TEXT NOT NULL,
    side      SMALLINT NOT NULL,             -- who sent it: 0 is a, 1 is b
    client_id TEXT     NOT NULL,
    content   BLOB     NOT NULL,             -- UTF-8, also in PostgreSQL
    prev      BIGINT,                        -- seq of the room's message before, 0 for the first, NULL where nobody knows
    sent_at   BIGINT   NOT NULL,             -- Unix ms
    alias     BIGINT,                        -- seq of the message that this one repeats
    dedupe    BIGINT   NOT NULL              -- hash of sender and client_id
);
CREATE INDEX history_messages_room ON history_messages (a, b, pos);
CREATE INDEX history_messages_dedupe ON history_messages (dedupe);

-- Written by ingest only.
CREATE TABLE history_conversations (
    a        TEXT NOT NULL,
    b        TEXT NOT NULL,
    p        INTEGER NOT NULL,
    last_seq BIGINT  NOT NULL,
    last_at  BIGINT  NOT NULL,
    count_a  BIGINT  NOT NULL, -- messages that a sent
    count_b  BIGINT  NOT NULL,
    PRIMARY KEY (a, b)
) WITHOUT ROWID;
CREATE INDEX history_conversations_b ON history_conversations (b, a);

-- What a user, or one device of a user (device <> ''), has of the room with peer.
CREATE TABLE history_cursors (
    username   TEXT NOT NULL,
    device     TEXT NOT NULL,
    peer       TEXT NOT NULL,
    delivered  BIGINT NOT NULL DEFAULT 0,
    read_seq   BIGINT NOT NULL DEFAULT 0,
    read_count BIGINT NOT NULL DEFAULT 0, -- messages of peer up to read_seq
    PRIMARY KEY (username, device, peer)
) WITHOUT ROWID;

CREATE TABLE history_devices (
    username TEXT NOT NULL,
    device   TEXT NOT NULL,
    used_at  BIGINT NOT NULL, -- Unix ms, a day coarse
    PRIMARY KEY (username, device)
) WITHOUT ROWID;
CREATE INDEX history_devices_used ON history_devices (used_at);

CREATE TABLE history_partitions (
    p           INTEGER NOT NULL PRIMARY KEY,
    seq         BIGINT  NOT NULL DEFAULT 0,  -- everything up to it is in history_messages
    epoch       BIGINT  NOT NULL DEFAULT 0,  -- Unix ms of the stream's creation
    first_seq   BIGINT  NOT NULL DEFAULT 0,  -- older ones were missing when this began; 0: it has all
    owner       TEXT    NOT NULL DEFAULT '',
    lease_until BIGINT  NOT NULL DEFAULT 0   -- Unix ms by this database's clock
);
