-- What the ledger asks of PostgreSQL; from settle_in on for people: facts, and what a role may do. Each
-- statement has a name and a line that says what it is for; bridge.ledger.postgres_schema reads them. Sets of
-- rows come and go as JSON or arrays, so that a batch of reports costs as many round trips as one.

-- name: begin
-- Open a transaction, as writable as the server is set; revisions fence what was decided upon stale rows.
BEGIN ISOLATION LEVEL READ COMMITTED;

-- name: begin_reading
-- Open a transaction in which nothing can be written; fits a server that cannot be written too.
BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;

-- name: commit
-- End a transaction.
COMMIT;

-- name: roll_back
-- Undo a transaction.
ROLLBACK;

-- name: set_up
-- Make the session careful, and let the server end it soon after its bridge has vanished or frozen.
SELECT count(set_config(name, value, false)) FROM json_each_text($1::json) AS given (name, value);

-- name: clock
-- The server's time, whose session this is, and numbers for new reports. From here on, and no longer than this
-- transaction, nobody's lock is waited for longer than $2 milliseconds.
SELECT extract(epoch FROM clock_timestamp())::float8, pg_backend_pid(),
       ARRAY(SELECT nextval('report_numbers') FROM generate_series(1, $1::bigint)),
       set_config('lock_timeout', $2::text, true);

-- name: clock_reading
-- The same without numbers, which a server that takes no writes does not give.
SELECT extract(epoch FROM clock_timestamp())::float8, pg_backend_pid(), '{}'::bigint[], '';

-- name: beat
-- Show that this bridge is alive, and learn whether its version may still write.
SELECT extract(epoch FROM clock_timestamp())::float8,
       (SELECT oldest_writer FROM versions ORDER BY version DESC LIMIT 1);

-- name: condition
-- Whether this server syncs what it commits, whether it is a standby, whether it takes no writes, whose session
-- this is, and whether every text fits into the database.
SELECT current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off', pg_is_in_recovery(),
       pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on', pg_backend_pid(),
       current_setting('server_encoding') = 'UTF8';

-- name: timeline
-- How often a standby has taken over on the way to this server; each time the number grows.
SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint;

-- name: version
-- Whether there is a ledger of some version, and whether a schema of its name, if any, has no tables.
SELECT to_regclass('report_bridge.versions') IS NOT NULL,
       NOT EXISTS (SELECT FROM pg_class
                   WHERE relnamespace = to_regnamespace('report_bridge') AND relkind IN ('r', 'p'));

-- name: versions
-- The newest version and the oldest one whose statements still work.
SELECT version, oldest_writer FROM report_bridge.versions ORDER BY version DESC LIMIT 1;

-- name: lock_migration
-- One bridge at a time brings the ledger to a new version.
SELECT pg_advisory_lock(7090317201311748);

-- name: unlock_migration
-- Let the next one look.
SELECT pg_advisory_unlock(7090317201311748);

-- name: add_version
-- Note that a script has run.
INSERT INTO versions (version, oldest_writer) VALUES ($1::integer, $2::integer);

-- name: add_secret
-- Make the key of the account hash, once.
INSERT INTO meta (name, value) VALUES ('secret', decode($1::text, 'hex')) ON CONFLICT DO NOTHING;

-- name: secret
-- The key of the account hash.
SELECT value FROM meta WHERE name = 'secret';

-- name: end_former_session
-- End the session that holds this bridge's name: its own, which the server has not missed yet.
SELECT count(pg_terminate_backend(pid)) FROM pg_locks
WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND objsubid = 1 AND granted AND pid <> pg_backend_pid()
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (classid::bigint << 32) | objid::bigint = hashtextextended($1::text, 0);

-- name: hold
-- Own the rows of an instance for as long as this session lives.
SELECT pg_advisory_lock(hashtextextended($1::text, 0));

-- name: let_go
-- Show that an instance is gone.
SELECT pg_advisory_unlock(hashtextextended($1::text, 0));

-- name: is_free
-- Whether nobody holds an instance; while this transaction lasts, nobody comes back as it either.
SELECT pg_try_advisory_xact_lock_shared(hashtextextended($1::text, 0));

-- name: find_accounts
-- The numbers of accounts.
SELECT a.endpoint, a.account, a.id
FROM unnest($1::text[], $2::text[]) AS k (endpoint, account) JOIN accounts AS a USING (endpoint, account);

-- name: add_accounts
-- Number accounts that are new.
INSERT INTO accounts (endpoint, account)
SELECT DISTINCT endpoint, account FROM unnest($1::text[], $2::text[]) AS k (endpoint, account)
ORDER BY endpoint, account
ON CONFLICT DO NOTHING;

-- name: find_reports
-- The newest reports of tasks, whose they are, and whether an owner other than $4 is gone. Accounts are asked
-- for one by one: joined, a table without statistics makes the planner look for task ids in the whole index.
SELECT {columns}, k.endpoint, k.account, {is_free}
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (endpoint, account, task_id)
JOIN reports AS r ON r.task_id = k.task_id AND r.current AND r.account_id =
     (SELECT id FROM accounts AS a WHERE a.endpoint = k.endpoint AND a.account = k.account);

-- name: find_owners
-- Who else works on anything, and who of them is gone.
SELECT owner, pg_try_advisory_xact_lock_shared(hashtextextended(owner, 0))
FROM (SELECT DISTINCT owner FROM reports WHERE owner IS NOT NULL AND owner <> $1::text) AS o;

-- name: take_left
-- The reports of instances that are gone, taken so that nobody else takes them at the same time.
SELECT {columns}, a.endpoint, a.account
FROM reports AS r JOIN accounts AS a ON a.id = r.account_id
WHERE r.owner = ANY ($1::text[])
ORDER BY r.seq LIMIT 1000
FOR UPDATE OF r SKIP LOCKED;

-- name: add_reports
-- Store new reports; none at all if somebody else has stored one of them meanwhile.
WITH added AS (
    INSERT INTO reports ({stored})
    SELECT {stored} FROM json_populate_recordset(NULL::reports, $1::json)
    ORDER BY account_id, task_id
    ON CONFLICT (account_id, task_id) WHERE current DO NOTHING
    RETURNING 1
)
SELECT demand(count(*), $2::bigint) FROM added;

-- name: change_reports
-- Write changed reports, if all have the revisions $3 that were read.
WITH changed AS (
    UPDATE reports AS r SET {assigned}
    FROM ROWS FROM (json_populate_recordset(NULL::reports, $1::json), unnest($3::integer[])) AS g
    WHERE r.seq = g.seq AND r.revision = g.unnest
    RETURNING 1
)
SELECT demand(count(*), $2::bigint) FROM changed;

-- name: add_events
-- Go on with the stories of reports.
INSERT INTO events (report, nth, at_wall, name, data)
SELECT report, nth, at_wall, name, data
FROM json_populate_recordset(NULL::events, $1::json);

-- name: add_tallies
-- Add to what is counted; everybody adds in the same order.
INSERT INTO tallies ({tally_stored})
SELECT {tally_stored} FROM json_populate_recordset(NULL::tallies, $1::json)
ORDER BY width_s, account_id, subject, number
ON CONFLICT (width_s, account_id, subject, number, shard) DO UPDATE SET {tally_added};

-- name: lock_figures
-- When an account's figures were asked for, and what they were; nobody else changes them meanwhile. The first
-- ones to ask at the same moment wait for each other, too.
INSERT INTO figures (account_id, asked_at, told) VALUES ($1::integer, '-infinity', '{}')
ON CONFLICT (account_id) DO UPDATE SET asked_at = figures.asked_at RETURNING asked_at, told;

-- name: prune
-- Delete old reports with their events, in steps, past those that somebody works on. Where nobody was for a
-- day before $4, when this bridge came, the clock may be wrong: then nothing goes until $5 has passed that.
WITH gone AS (
    DELETE FROM reports WHERE seq IN (
        SELECT seq FROM reports
        WHERE recorded_wall < $1::float8 AND state = 'done' AND finished_at < $2::float8
          AND ($5::float8 > $4::float8 OR $4::float8 - 86400 <=
               (SELECT max(recorded_wall) FROM reports WHERE recorded_wall < $4::float8))
        ORDER BY recorded_wall LIMIT $3::bigint
        FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: lock_pauses
-- Be alone with the pauses that are at work; the others hardly ever change.
SELECT 1
FROM unnest($1::text[], $2::text[]) AS k (endpoint, subject) JOIN pauses AS p USING (endpoint, subject)
WHERE p.state <> 'closed' OR p.streak > 0 OR p.recent::text <> '[]'
ORDER BY p.endpoint, p.subject, p.rule
FOR UPDATE OF p;

-- name: find_pauses
-- All pauses about some subjects, and whether a prober other than $3 is gone.
SELECT {pause_columns}, p.endpoint, {is_prober_free}
FROM unnest($1::text[], $2::text[]) AS k (endpoint, subject) JOIN pauses AS p USING (endpoint, subject);

-- name: save_pauses
-- Store pauses, if all are as they were read; revision 1 is for one that was not there.
WITH saved AS (
    INSERT INTO pauses (endpoint, {pause_stored})
    SELECT endpoint, {pause_stored} FROM json_populate_recordset(NULL::pauses, $1::json)
    ORDER BY endpoint, subject, rule
    ON CONFLICT (endpoint, subject, rule) DO UPDATE SET {pause_assigned}
    WHERE pauses.revision = excluded.revision - 1
    RETURNING 1
)
SELECT demand(count(*), $2::bigint) FROM saved;

-- name: count_reports
-- How many reports there are, exactly.
SELECT count(*) FROM reports;

-- name: find_damage
-- What a sound ledger does not have: broken indexes, switched-off rules, switched-off triggers.
SELECT 'index ' || c.relname || ' is broken: REINDEX it'
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'report_bridge'::regnamespace AND NOT (i.indisvalid AND i.indisready)
UNION ALL
SELECT 'constraint ' || conname || ' is not checked'
FROM pg_constraint WHERE connamespace = 'report_bridge'::regnamespace AND NOT convalidated
UNION ALL
SELECT 'trigger ' || tgname || ' is switched off'
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'report_bridge'::regnamespace AND t.tgenabled = 'D'
UNION ALL
SELECT 'index ' || wanted || ' is missing'
FROM unnest(ARRAY['reports_pkey', 'reports_identity', 'reports_live', 'reports_by_time', 'reports_by_trouble',
                  'reports_retired', 'events_of_pauses',
                  'events_pkey', 'pauses_pkey', 'tallies_pkey', 'figures_pkey', 'accounts_endpoint_account_key']) AS wanted
WHERE to_regclass('report_bridge.' || wanted) IS NULL
  AND (wanted NOT IN ('tallies_pkey', 'figures_pkey') OR (SELECT max(version) FROM versions) > 1)
LIMIT 10;

-- name: find_false_reports
-- Reports that break a rule, or have no story, or two that are newest of one task. Reads everything.
SELECT 'report ' || seq || ' is false' FROM reports AS r
WHERE (state = 'done') IS DISTINCT FROM (outcome IS NOT NULL)
   OR (state = 'done') IS DISTINCT FROM (owner IS NULL)
   OR NOT EXISTS (SELECT FROM events AS e WHERE e.report = r.seq)
   OR (SELECT count(*) FROM reports AS o
       WHERE o.account_id = r.account_id AND o.task_id = r.task_id AND o.current) > 1
LIMIT 10;

-- name: skip_numbers
-- New reports are numbered after those that were copied.
SELECT setval('report_numbers', greatest((SELECT max(seq) FROM reports), (SELECT last_value FROM report_numbers)));

-- name: settle_in
-- For this transaction only: a pooler may give the session to a bridge right after it.
SELECT count(set_config(name, value, true)) FROM json_each_text($1::json) AS given (name, value);

-- name: may_read
-- Nothing; refused if the role may not read what the commands read.
SELECT 1 FROM accounts, reports, events, pauses WHERE false;

-- name: health
-- What server and database are and promise, whether a ledger could be made, and what a bridge needs and this role
-- may not do; of the catalogue, which everybody may read.
SELECT json_build_object(
    'serverVersion', current_setting('server_version'),
    'isStandby', pg_is_in_recovery(),
    'isDurable', current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off',
    'sizeBytes', pg_database_size(current_database()),
    'mayCreate', has_database_privilege(current_database(), 'CREATE'),
    'sessions', (
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'report-bridge' AND pid <> pg_backend_pid()
    ),
    'reports', (
        SELECT greatest(reltuples, 0)::bigint FROM pg_class
        WHERE relnamespace = to_regnamespace('report_bridge') AND relname = 'reports'
    ),
    'lacking', (SELECT coalesce(json_agg(told ORDER BY nth, mth), '[]') FROM (
        SELECT 0 AS nth, 0 AS mth, 'USAGE on the schema' AS told FROM pg_namespace
        WHERE nspname = 'report_bridge' AND NOT has_schema_privilege(oid, 'USAGE')
        UNION ALL
        SELECT nth, mth, privilege || ' on ' || name
        FROM (VALUES (1, 'accounts', 'SELECT, INSERT'), (2, 'reports', 'SELECT, INSERT, UPDATE, DELETE'),
                     (3, 'events', 'SELECT, INSERT'), (4, 'pauses', 'SELECT, INSERT, UPDATE'),
                     (5, 'tallies', 'SELECT, INSERT, UPDATE, DELETE'), (6, 'figures', 'SELECT, INSERT, UPDATE'),
                     (7, 'meta', 'SELECT'), (8, 'versions', 'SELECT')) AS wanted (nth, name, privileges)
        CROSS JOIN unnest(string_to_array(privileges, ', ')) WITH ORDINALITY AS each (privilege, mth)
        JOIN pg_class AS c ON c.relname = name AND c.relnamespace = to_regnamespace('report_bridge')
        WHERE NOT has_table_privilege(c.oid, privilege)
        UNION ALL
        SELECT 9, 0, 'USAGE on ' || relname FROM pg_class
        WHERE relnamespace = to_regnamespace('report_bridge') AND relname = 'report_numbers' AND relkind = 'S'
          AND NOT has_sequence_privilege(oid, 'USAGE')
    ) AS lacking)
);

-- name: is_at_work
-- Whether a bridge's session is there: it has this name, and holds the lock of an instance.
SELECT EXISTS (
    SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid()
      AND a.datname = current_database() AND a.application_name = 'report-bridge'
);

-- name: pid
-- Whose session this is.
SELECT pg_backend_pid();
