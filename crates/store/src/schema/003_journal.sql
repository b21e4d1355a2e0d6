-- What is journalled of answers. `call` is what was asked for, in the server's own form; `key` came with the request (an
-- Idempotency-Key), under which it can be sent again by whoever has the same `scope`. `chat_id` and `message_id` name the
-- message of a stored chat that the answer fills; without a reference, since a deleted chat must not wait for the journal.
CREATE TABLE generations (
    id            INTEGER PRIMARY KEY,
    state         TEXT NOT NULL CHECK (state IN ('running', 'interrupted', 'finished', 'failed', 'cancelled')),
    created_at_us INTEGER NOT NULL,
    changed_at_us INTEGER NOT NULL,
    model         TEXT NOT NULL,
    model_digest  TEXT NOT NULL,
    chat_id       TEXT,
    message_id    TEXT,
    scope         BLOB,
    key           TEXT,
    fingerprint   BLOB,
    choice        INTEGER NOT NULL,
    call          BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX generations_by_key ON generations (scope, key, choice) WHERE key IS NOT NULL;
CREATE INDEX generations_by_state ON generations (state, changed_at_us);

-- What its client was told, in order from 0.
CREATE TABLE generation_events (
    generation    INTEGER NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
    seq           INTEGER NOT NULL,
    at_us         INTEGER NOT NULL,
    event         BLOB NOT NULL,
    PRIMARY KEY (generation, seq)
) STRICT, WITHOUT ROWID;
