-- What people ask of a ledger on a server: figures, facts, and what a role may do. Each statement has a
-- name and a line that says what it is for; bridge.ledger.postgres_figures reads them and adds the terms.
-- Everything is counted here, so that a million reports are a few hundred rows on the wire.

-- name: settle_in
-- For this transaction only: a pooler may give the session to a bridge right after it.
SELECT count(set_config(name, value, true)) FROM json_each_text($1::json) AS given (name, value);

-- name: may_read
-- Nothing; refused if the role may not read what the commands read.
SELECT 1 FROM accounts, reports, events, pauses WHERE false;

-- name: accounts
-- The numbers of all accounts.
SELECT id, endpoint, account FROM accounts;

-- name: span
-- The first and the last report.
SELECT min(seq), max(seq) FROM reports;

-- name: first_since
-- The first number recorded at or after a moment. OFFSET 0 keeps the planner from walking the whole table.
SELECT min(seq) FROM (SELECT seq FROM reports WHERE recorded_wall >= $1::float8 OFFSET 0) AS s;

-- name: last_until
-- The last number recorded before a moment.
SELECT max(seq) FROM (SELECT seq FROM reports WHERE recorded_wall < $1::float8 OFFSET 0) AS s;

-- name: figures
-- Four counts in one reading: cells, ages, latencies, causes. The first column says which. OFFSET 0 hides the
-- columns' statistics, by which the planner would expect a million groups and sort a million reports thrice.
SELECT CASE WHEN grouping(hour) = 0 THEN 0 WHEN grouping(account_id) = 0 THEN 1
            WHEN grouping(latency_ms) = 0 THEN 2 ELSE 3 END,
       count(*), method, outcome, hour, code, account_id, fate, seconds, latency_ms, cause
FROM (
    SELECT r.method, r.outcome, r.account_id, coalesce(r.code, 0) AS code,
           floor(r.recorded_wall / 3600)::bigint AS hour,
           CASE r.code WHEN 16 THEN 'error_16' WHEN -32010 THEN 'window_closed' ELSE '' END AS fate,
           -- What is not known stays so: least and greatest would pass over it.
           CASE WHEN r.age_s IS NOT NULL THEN floor(least(greatest(r.age_s, 0), $3::float8))::integer END AS seconds,
           CASE WHEN r.latency_ms IS NOT NULL THEN least(r.latency_ms, $4::bigint) END AS latency_ms,
           CASE WHEN r.code BETWEEN -32003 AND -32001
                THEN coalesce(nullif(r.detail ->> 'cause', ''), 'HTTP ' || (r.detail ->> 'httpStatus'), 'other')
           END AS cause
    FROM reports AS r WHERE r.seq BETWEEN $1::bigint AND $2::bigint {terms} OFFSET 0
) AS one
GROUP BY GROUPING SETS (
    (hour, method, outcome, code), (account_id, method, outcome, fate, seconds), (method, latency_ms), (code, cause)
);

-- name: openings
-- When pauses opened, and why.
SELECT floor(e.at_wall / 3600)::bigint, e.data ->> 'rule', e.data ->> 'cause', count(*)
FROM events AS e
WHERE e.name = 'pause_opened' AND e.report BETWEEN $1::bigint AND $2::bigint {terms}
GROUP BY 1, 2, 3;

-- name: database
-- What the database is, and whether a ledger could be made in it.
SELECT pg_database_size(current_database()), has_database_privilege(current_database(), 'CREATE'),
       to_regnamespace('report_bridge') IS NOT NULL,
       (SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'report-bridge' AND pid <> pg_backend_pid()),
       (SELECT greatest(reltuples, 0)::bigint FROM pg_class
        WHERE relnamespace = to_regnamespace('report_bridge') AND relname = 'reports');

-- name: lacking
-- What a bridge needs and this role may not do; read from the catalogue, which everybody may read.
SELECT told
FROM (
    SELECT 0 AS nth, 0 AS mth, 'USAGE on the schema' AS told FROM pg_namespace
    WHERE nspname = 'report_bridge' AND NOT has_schema_privilege(oid, 'USAGE')
    UNION ALL
    SELECT nth, mth, privilege || ' on ' || name
    FROM (VALUES (1, 'accounts', 'SELECT, INSERT'), (2, 'reports', 'SELECT, INSERT, UPDATE, DELETE'),
                 (3, 'events', 'SELECT, INSERT'), (4, 'pauses', 'SELECT, INSERT, UPDATE'),
                 (5, 'meta', 'SELECT'), (6, 'versions', 'SELECT')) AS wanted (nth, name, privileges)
    CROSS JOIN unnest(string_to_array(privileges, ', ')) WITH ORDINALITY AS each (privilege, mth)
    JOIN pg_class AS c ON c.relname = name AND c.relnamespace = to_regnamespace('report_bridge')
    WHERE NOT has_table_privilege(c.oid, privilege)
    UNION ALL
    SELECT 7, 0, 'USAGE on ' || relname FROM pg_class
    WHERE relnamespace = to_regnamespace('report_bridge') AND relname = 'report_numbers' AND relkind = 'S'
      AND NOT has_sequence_privilege(oid, 'USAGE')
) AS lacking
ORDER BY nth, mth;

-- name: pid
-- Whose session this is.
SELECT pg_backend_pid();

-- name: write_accounts
-- Nothing; refused if a bridge could not number an account.
INSERT INTO accounts (endpoint, account) SELECT '', '' WHERE false;

-- name: write_reports
-- Nothing; refused if a bridge could not change a report.
UPDATE reports SET revision = revision WHERE false;

-- name: write_events
-- Nothing; refused if a bridge could not go on with a story.
INSERT INTO events (report, nth, at_wall, name, data) SELECT 0, 0, 0, '', '{}' WHERE false;

-- name: write_pauses
-- Nothing; refused if a bridge could not change a pause.
UPDATE pauses SET revision = revision WHERE false;
