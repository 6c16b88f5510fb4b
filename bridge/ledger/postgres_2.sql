-- Version 2: what advice is made of. Counts only ever grow by addition; rows whose stretch is long over go
-- when their account begins a new hour, so the table stays as large as the number of accounts makes it.

CREATE TABLE tallies (
    -- Before the account, so that the hours of all accounts lie together.
    width_s    integer NOT NULL,
    account_id integer NOT NULL REFERENCES accounts (id),
    subject    text NOT NULL,
    -- The stretch begins at so many times its width on the timeline.
    number     bigint NOT NULL,
    -- Bridges count in rows of their own, one of a few, so that their commits do not wait for each other.
    shard      smallint NOT NULL,
    tasks      bigint NOT NULL,
    costed     bigint NOT NULL,
    cost       double precision NOT NULL,
    wrong      bigint NOT NULL,
    sent       bigint NOT NULL,
    refused    bigint NOT NULL,
    late       bigint NOT NULL,
    PRIMARY KEY (width_s, account_id, subject, number, shard)
) WITH (fillfactor = 50);

-- What the upstream's statistics told of an account, one row each: queue -> hours, as JSON.
CREATE TABLE figures (
    account_id integer PRIMARY KEY REFERENCES accounts (id),
    asked_at   double precision NOT NULL,
    told       json NOT NULL
);

-- Who may do something with reports may do it with counts.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT DISTINCT g.privilege_type, pg_get_userbyid(g.grantee) AS role
        FROM pg_class AS c, aclexplode(c.relacl) AS g
        WHERE c.oid = 'reports'::regclass AND g.grantee <> 0 AND g.grantee <> c.relowner
          AND g.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE format('GRANT %s ON tallies, figures TO %I', given.privilege_type, given.role);
    END LOOP;
END
$$;
