-- What people ask of a ledger on a server: facts, and what a role may do. Each statement has a
-- name and a line that says what it is for; bridge.ledger.postgres_reader reads them.

-- name: settle_in
-- For this transaction only: a pooler may give the session to a bridge right after it.
SELECT count(set_config(name, value, true)) FROM json_each_text($1::json) AS given (name, value);

-- name: may_read
-- Nothing; refused if the role may not read what the commands read.
SELECT 1 FROM accounts, reports, events, pauses WHERE false;

-- name: database
-- What the database is, and whether a ledger could be made in it.
SELECT pg_database_size(current_database()), has_database_privilege(current_database(), 'CREATE'),
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
                 (5, 'tallies', 'SELECT, INSERT, UPDATE, DELETE'), (6, 'figures', 'SELECT, INSERT, UPDATE'),
                 (7, 'meta', 'SELECT'), (8, 'versions', 'SELECT')) AS wanted (nth, name, privileges)
    CROSS JOIN unnest(string_to_array(privileges, ', ')) WITH ORDINALITY AS each (privilege, mth)
    JOIN pg_class AS c ON c.relname = name AND c.relnamespace = to_regnamespace('report_bridge')
    WHERE NOT has_table_privilege(c.oid, privilege)
    UNION ALL
    SELECT 9, 0, 'USAGE on ' || relname FROM pg_class
    WHERE relnamespace = to_regnamespace('report_bridge') AND relname = 'report_numbers' AND relkind = 'S'
      AND NOT has_sequence_privilege(oid, 'USAGE')
) AS lacking
ORDER BY nth, mth;

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
