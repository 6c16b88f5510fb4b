-- The ledger, version 1. Everything a report may become is a constraint here, so that no program
-- error can store a false statement. Times: *_at and window_* are seconds on the ledger's timeline
-- (see "boots"), *_wall are UNIX seconds for people.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- The timeline is the boot clock plus an offset which the first opener in a boot fixes for everybody.
CREATE TABLE boots (
    boot_id    TEXT PRIMARY KEY,
    offset_s   REAL NOT NULL,
    first_wall REAL NOT NULL
) WITHOUT ROWID;

-- Whose tasks: kept apart because it makes an entry of the identity index five times smaller.
CREATE TABLE accounts (
    id       INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    account  TEXT NOT NULL,
    UNIQUE (endpoint, account)
);

CREATE TABLE reports (
    seq           INTEGER PRIMARY KEY,
    account_id    INTEGER NOT NULL REFERENCES accounts (id),
    task_id       INTEGER NOT NULL CHECK (task_id BETWEEN 1 AND 9007199254740991),
    -- 1 on the newest report of a task. An id may come back a day after its report was finished.
    current       INTEGER NOT NULL DEFAULT 1 CHECK (current IN (0, 1)),
    method        TEXT NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('queued', 'sending', 'waiting', 'done')),
    outcome       TEXT CHECK (outcome IN ('accepted', 'refused', 'unknown', 'not_sent')),
    owner         TEXT,
    attempts      INTEGER NOT NULL CHECK (attempts BETWEEN 0 AND 4),
    sends         INTEGER NOT NULL CHECK (sends BETWEEN 0 AND 2),
    perhaps       INTEGER NOT NULL CHECK (perhaps IN (0, 1)),
    window_until  REAL,
    window_since  REAL,
    completed_at  REAL,
    task_type     TEXT,
    language_pool TEXT,
    age_s         REAL,
    code          INTEGER,
    kind          TEXT,
    detail        TEXT NOT NULL DEFAULT '{}',
    recorded_wall REAL NOT NULL,
    finished_wall REAL,
    finished_at   REAL,
    latency_ms    INTEGER,
    CHECK ((state = 'done') = (outcome IS NOT NULL)),
    CHECK ((state = 'done') = (owner IS NULL)),
    CHECK ((state = 'done') = (code IS NOT NULL)),
    CHECK ((state = 'done') = (kind IS NOT NULL)),
    CHECK ((state = 'done') = (finished_at IS NOT NULL)),
    CHECK ((state = 'done') = (finished_wall IS NOT NULL)),
    CHECK (state = 'done' OR current = 1),
    CHECK (state NOT IN ('sending', 'waiting') OR attempts > 0),
    CHECK (outcome IS NOT 'not_sent' OR perhaps = 0)
);

-- One report per task. Every decision about a task starts with this look-up.
CREATE UNIQUE INDEX reports_identity ON reports (account_id, task_id) WHERE current = 1;
-- What somebody works on. An owner is there exactly while a report is not done.
CREATE INDEX reports_live ON reports (owner) WHERE owner IS NOT NULL;
-- Lists by time, and what is old enough to go. Grows at its right end.
CREATE INDEX reports_by_time ON reports (recorded_wall);
-- Lists of what went wrong, among many accepted reports that cost nothing here.
CREATE INDEX reports_by_trouble ON reports (outcome) WHERE outcome <> 'accepted';

-- What happened to a report, in order. Rows are added and, with their report, deleted.
CREATE TABLE events (
    report  INTEGER NOT NULL REFERENCES reports (seq) ON DELETE CASCADE,
    nth     INTEGER NOT NULL,
    at_wall REAL NOT NULL,
    name    TEXT NOT NULL,
    data    TEXT NOT NULL,
    PRIMARY KEY (report, nth)
) WITHOUT ROWID;

-- When pauses opened, for the statistics: few among many events.
CREATE INDEX events_of_pauses ON events (report) WHERE name = 'pause_opened';
CREATE TRIGGER events_are_final BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never changed');
END;

-- When to stop sending. The subject comes before the rule: an attempt is concerned by a dozen rules,
-- but by few subjects, so one look-up reads them all.
CREATE TABLE pauses (
    endpoint    TEXT NOT NULL,
    subject     TEXT NOT NULL,
    rule        TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('closed', 'open', 'probing')),
    cause       TEXT,
    streak      INTEGER NOT NULL CHECK (streak >= 0),
    recent      TEXT NOT NULL,
    level       INTEGER NOT NULL CHECK (level >= 0),
    opened_at   REAL,
    ends_at     REAL,
    probe_owner TEXT,
    probe_task  TEXT,
    context     TEXT NOT NULL,
    PRIMARY KEY (endpoint, subject, rule)
) WITHOUT ROWID;
