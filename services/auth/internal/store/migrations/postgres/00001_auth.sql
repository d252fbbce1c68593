-- +goose Up
-- Times are Unix milliseconds; 0 stands for "never". Collation "C" is code point order.
CREATE TABLE auth_users (
    id       BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username TEXT    NOT NULL,
    folded   TEXT    COLLATE "C" NOT NULL UNIQUE,
    password TEXT    NOT NULL,
    admin    INTEGER NOT NULL DEFAULT 0,
    created  BIGINT  NOT NULL,
    disabled BIGINT  NOT NULL DEFAULT 0,
    erased   BIGINT  NOT NULL DEFAULT 0 -- a tombstone: the row stays, so that nobody gets the name again
);

CREATE TABLE auth_logins (
    sid     TEXT    NOT NULL PRIMARY KEY,
    user_id BIGINT  NOT NULL REFERENCES auth_users (id),
    scope   TEXT    NOT NULL,
    created BIGINT  NOT NULL,
    expires BIGINT  NOT NULL
);
CREATE INDEX auth_logins_user ON auth_logins (user_id, created);
CREATE INDEX auth_logins_expires ON auth_logins (expires);

CREATE TABLE auth_refresh_tokens (
    hash    TEXT   NOT NULL PRIMARY KEY, -- SHA-256, base64url
    sid     TEXT   NOT NULL REFERENCES auth_logins (sid) ON DELETE CASCADE,
    n       BIGINT NOT NULL,             -- how many came before it in its login
    used    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX auth_refresh_tokens_sid ON auth_refresh_tokens (sid, n);

-- A contact is two rows, one a direction, both accepted; a request is one row.
CREATE TABLE auth_contacts (
    user_id  BIGINT  NOT NULL REFERENCES auth_users (id),
    peer_id  BIGINT  NOT NULL REFERENCES auth_users (id),
    accepted INTEGER NOT NULL DEFAULT 0,
    created  BIGINT  NOT NULL,
    PRIMARY KEY (user_id, peer_id)
);
CREATE INDEX auth_contacts_peer ON auth_contacts (peer_id);

CREATE TABLE auth_blocks (
    user_id BIGINT NOT NULL REFERENCES auth_users (id),
    peer_id BIGINT NOT NULL REFERENCES auth_users (id),
    created BIGINT NOT NULL,
    PRIMARY KEY (user_id, peer_id)
);
CREATE INDEX auth_blocks_peer ON auth_blocks (peer_id);

CREATE TABLE auth_throttle (
    key           TEXT   NOT NULL PRIMARY KEY,
    failures      BIGINT NOT NULL,
    blocked_until BIGINT NOT NULL,
    updated       BIGINT NOT NULL
);
CREATE INDEX auth_throttle_updated ON auth_throttle (updated);

-- The version of all relations: any change of contacts, blocks or disabled users adds one.
CREATE TABLE auth_versions (
    name    TEXT   NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL
);
INSERT INTO auth_versions (name, version) VALUES ('relations', 1);
