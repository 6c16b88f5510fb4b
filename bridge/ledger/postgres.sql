-- The ledger on PostgreSQL, version 1. Everything a report may become is a constraint here, so that no
-- program error can store a false statement. Times: *_at and window_* are seconds since 1970 on this
-- server's clock, *_wall too; they are kept apart because other kinds of ledgers have two clocks.
-- Runs inside the schema report_bridge, in the transaction of `bridge.ledger.postgres_schema`.

-- Which scripts have run, and the oldest version of the program whose statements still work.
CREATE TABLE versions (
    version       integer PRIMARY KEY,
    oldest_writer integer NOT NULL CHECK (oldest_writer BETWEEN 1 AND version),
    made_at       timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE meta (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- Whose tasks: kept apart because it makes an entry of the identity index five times smaller.
CREATE TABLE accounts (
    id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint text NOT NULL,
    account  text NOT NULL,
    UNIQUE (endpoint, account)
);

CREATE SEQUENCE report_numbers AS bigint;

CREATE TABLE reports (
    seq           bigint PRIMARY KEY,
    account_id    integer NOT NULL REFERENCES accounts (id),
    task_id       bigint NOT NULL CHECK (task_id BETWEEN 1 AND 9007199254740991),
    -- True on the newest report of a task. An id may come back a day after its report was finished.
    current       boolean NOT NULL DEFAULT true,
    -- Counts changes and events. Who writes says which number it has read: the fence of every change.
    revision      integer NOT NULL,
    method        text NOT NULL,
    state         text NOT NULL CHECK (state IN ('queued', 'sending', 'waiting', 'done')),
    outcome       text CHECK (outcome IN ('accepted', 'refused', 'unknown', 'not_sent')),
    owner         text,
    attempts      smallint NOT NULL CHECK (attempts BETWEEN 0 AND 4),
    sends         smallint NOT NULL CHECK (sends BETWEEN 0 AND 2),
    perhaps       boolean NOT NULL,
    window_until  double precision,
    window_since  double precision,
    completed_at  double precision,
    task_type     text,
    language_pool text,
    age_s         double precision,
    code          bigint,
    kind          text,
    detail        json,
    recorded_wall double precision NOT NULL,
    finished_wall double precision,
    finished_at   double precision,
    latency_ms    bigint,
    CHECK ((state = 'done') = (outcome IS NOT NULL)),
    CHECK ((state = 'done') = (owner IS NULL)),
    CHECK ((state = 'done') = (code IS NOT NULL)),
    CHECK ((state = 'done') = (kind IS NOT NULL)),
    CHECK ((state = 'done') = (finished_at IS NOT NULL)),
    CHECK ((state = 'done') = (finished_wall IS NOT NULL)),
    CHECK (state = 'done' OR current),
    CHECK (state NOT IN ('sending', 'waiting') OR attempts > 0),
    CHECK (outcome IS DISTINCT FROM 'not_sent' OR NOT perhaps)
) WITH (
    -- Each report dies once, when it is finished; a fifth of ten million dead rows would be too late.
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02
);

-- One report per task. Every decision about a task starts with this look-up.
CREATE UNIQUE INDEX reports_identity ON reports (account_id, task_id) WHERE current;
-- What somebody works on. An owner is there exactly while a report is not done.
CREATE INDEX reports_live ON reports (owner) WHERE owner IS NOT NULL;
-- Lists by time, and what is old enough to go. Grows at its right end.
CREATE INDEX reports_by_time ON reports (recorded_wall) INCLUDE (seq);
-- Lists of what went wrong, among many accepted reports that cost nothing here.
CREATE INDEX reports_by_trouble ON reports (outcome, seq) WHERE outcome <> 'accepted';
-- Older reports of a task whose id came back: few, and asked for by people.
CREATE INDEX reports_retired ON reports (account_id, task_id) WHERE NOT current;

-- What happened to a report, in order. Rows are added and, with their report, deleted.
CREATE TABLE events (
    report  bigint NOT NULL REFERENCES reports (seq) ON DELETE CASCADE,
    nth     integer NOT NULL,
    at_wall double precision NOT NULL,
    name    text NOT NULL,
    data    json NOT NULL,
    PRIMARY KEY (report, nth)
);

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are never changed' USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER events_are_final BEFORE UPDATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse();

-- When pauses opened, for the statistics: few among many events.
CREATE INDEX events_of_pauses ON events (report) WHERE name = 'pause_opened';

-- When to stop sending. The subject comes before the rule: an attempt is concerned by a dozen rules,
-- but by few subjects, so one look-up reads them all.
CREATE TABLE pauses (
    endpoint    text NOT NULL,
    subject     text NOT NULL,
    rule        text NOT NULL,
    -- Who writes says which number it has read; two bridges never decide upon the same state.
    revision    bigint NOT NULL,
    state       text NOT NULL CHECK (state IN ('closed', 'open', 'probing')),
    cause       text,
    streak      integer NOT NULL CHECK (streak >= 0),
    recent      json NOT NULL,
    level       integer NOT NULL CHECK (level >= 0),
    opened_at   double precision,
    ends_at     double precision,
    probe_owner text,
    probe_task  text,
    context     text NOT NULL,
    PRIMARY KEY (endpoint, subject, rule)
) WITH (fillfactor = 50);

CREATE INDEX pauses_probing ON pauses (probe_owner) WHERE probe_owner IS NOT NULL;

-- A batch of changes is right as a whole or undone: a number that differs is a race that was lost.
CREATE FUNCTION demand(done bigint, wanted bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF done <> wanted THEN
        RAISE EXCEPTION 'somebody else was faster' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN done;
END
$$;
