-- Both tables are made anew: the search index needs integer keys that no VACUUM changes, and small columns before
-- the long texts, so that a look at many messages need not read all of their text.
ALTER TABLE chats RENAME TO chats_v1;
ALTER TABLE messages RENAME TO messages_v1;

-- `leaf_id` is the end of the branch that is shown. `deleted_at_us` is set while a chat is hidden, before it is removed
-- for good.
CREATE TABLE chats (
    seq           INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    title         TEXT NOT NULL,
    model         TEXT,
    settings      TEXT NOT NULL DEFAULT '{}',
    pinned        INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
    leaf_id       TEXT,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL,
    deleted_at_us INTEGER
) STRICT;

-- `position` orders a chat's messages; a parent stands before its children. A parent's removal does not remove its
-- children by itself: SQLite cannot follow a chain of more than a thousand.
CREATE TABLE messages (
    seq           INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    chat_id       TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    parent_id     TEXT REFERENCES messages (id),
    position      INTEGER NOT NULL,
    role          TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    state         TEXT NOT NULL CHECK (state IN ('complete', 'partial', 'failed')),
    created_at_us INTEGER NOT NULL,
    model         TEXT,
    tool_call_id  TEXT,
    tool_name     TEXT,
    stats         TEXT,
    content       TEXT NOT NULL,
    thinking      TEXT,
    tool_calls    TEXT,
    attachments   TEXT,
    UNIQUE (chat_id, position)
) STRICT;

INSERT INTO chats (id, title, model, leaf_id, created_at_us, updated_at_us)
SELECT id, title, model,
       (SELECT m.id FROM messages_v1 AS m WHERE m.chat_id = chats_v1.id ORDER BY m.position DESC LIMIT 1),
       created_at_us, updated_at_us
FROM chats_v1 ORDER BY created_at_us, id;

INSERT INTO messages (id, chat_id, parent_id, position, role, state, created_at_us, model, tool_call_id, tool_name,
                      stats, content, thinking, tool_calls)
SELECT id, chat_id, parent_id, position, role, state, created_at_us, model, tool_call_id, tool_name,
       stats, content, thinking, tool_calls
FROM messages_v1 ORDER BY created_at_us, chat_id, position;

-- The drop follows chains of parents, too, and looks for each message's children in the old index.
UPDATE messages_v1 SET parent_id = NULL;
DROP TABLE messages_v1;
DROP TABLE chats_v1;

CREATE INDEX chats_listed ON chats (pinned DESC, updated_at_us DESC, id DESC) WHERE deleted_at_us IS NULL;
CREATE INDEX chats_hidden ON chats (deleted_at_us) WHERE deleted_at_us IS NOT NULL;
CREATE INDEX messages_by_parent ON messages (parent_id);

-- What can be searched. Control characters 1 and 2 mark hits, so the text has none; both are between words for the
-- tokenizer, as a space is.
CREATE VIEW searchable_titles AS
SELECT seq, replace(replace(title, char(1), ' '), char(2), ' ') AS title FROM chats;

CREATE VIEW searchable_messages AS
SELECT seq, replace(replace(content, char(1), ' '), char(2), ' ') AS content
FROM messages WHERE role IN ('user', 'assistant');

CREATE VIRTUAL TABLE title_words USING fts5 (
    title, content = 'searchable_titles', content_rowid = 'seq', tokenize = 'unicode61 remove_diacritics 2'
);
CREATE VIRTUAL TABLE message_words USING fts5 (
    content, content = 'searchable_messages', content_rowid = 'seq', tokenize = 'unicode61 remove_diacritics 2'
);
INSERT INTO title_words (title_words) VALUES ('rebuild');
INSERT INTO message_words (message_words) VALUES ('rebuild');

CREATE TRIGGER title_words_insert AFTER INSERT ON chats BEGIN
    INSERT INTO title_words (rowid, title) VALUES (new.seq, new.title);
END;
CREATE TRIGGER title_words_delete AFTER DELETE ON chats BEGIN
    INSERT INTO title_words (title_words, rowid, title) VALUES ('delete', old.seq, old.title);
END;
CREATE TRIGGER title_words_update AFTER UPDATE OF title ON chats WHEN old.title <> new.title BEGIN
    INSERT INTO title_words (title_words, rowid, title) VALUES ('delete', old.seq, old.title);
    INSERT INTO title_words (rowid, title) VALUES (new.seq, new.title);
END;

CREATE TRIGGER message_words_insert AFTER INSERT ON messages WHEN new.role IN ('user', 'assistant') BEGIN
    INSERT INTO message_words (rowid, content) VALUES (new.seq, new.content);
END;
CREATE TRIGGER message_words_delete AFTER DELETE ON messages WHEN old.role IN ('user', 'assistant') BEGIN
    INSERT INTO message_words (message_words, rowid, content) VALUES ('delete', old.seq, old.content);
END;
CREATE TRIGGER message_words_update AFTER UPDATE OF content ON messages
WHEN new.role IN ('user', 'assistant') AND old.content <> new.content BEGIN
    INSERT INTO message_words (message_words, rowid, content) VALUES ('delete', old.seq, old.content);
    INSERT INTO message_words (rowid, content) VALUES (new.seq, new.content);
END;

CREATE TABLE presets (
    name          TEXT PRIMARY KEY,
    settings      TEXT NOT NULL,
    updated_at_us INTEGER NOT NULL
) STRICT;
