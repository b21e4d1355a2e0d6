-- What opens the server: keys, links to log in with, and the sessions that came of them. `hash` is the SHA-256 of 256
-- random bits, which cannot be guessed back; the bits themselves are nowhere. What was made with a credential goes with it.
CREATE TABLE credentials (
    id              TEXT PRIMARY KEY,
    kind            TEXT NOT NULL CHECK (kind IN ('key', 'login', 'session')),
    hash            BLOB NOT NULL CHECK (length(hash) = 32),
    name            TEXT NOT NULL,
    scopes          TEXT NOT NULL,
    parent_id       TEXT REFERENCES credentials (id) ON DELETE CASCADE,
    created_at_us   INTEGER NOT NULL,
    expires_at_us   INTEGER,
    last_used_at_us INTEGER
) STRICT;

CREATE INDEX credentials_by_parent ON credentials (parent_id) WHERE parent_id IS NOT NULL;
