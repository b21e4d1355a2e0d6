CREATE TABLE chats (
    id            TEXT PRIMARY KEY,
    title         TEXT NOT NULL,
    model         TEXT,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL
) STRICT;

CREATE INDEX chats_by_update ON chats (updated_at_us DESC, id DESC);

-- `position` orders a chat's messages; `parent_id` is the message that one answers, so that branches can come
-- without another table.
CREATE TABLE messages (
    id            TEXT PRIMARY KEY,
    chat_id       TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    parent_id     TEXT REFERENCES messages (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,
    role          TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    content       TEXT NOT NULL,
    thinking      TEXT,
    tool_calls    TEXT,
    tool_call_id  TEXT,
    tool_name     TEXT,
    model         TEXT,
    stats         TEXT,
    state         TEXT NOT NULL CHECK (state IN ('complete', 'partial', 'failed')),
    created_at_us INTEGER NOT NULL,
    UNIQUE (chat_id, position)
) STRICT;

CREATE INDEX messages_by_parent ON messages (parent_id);
