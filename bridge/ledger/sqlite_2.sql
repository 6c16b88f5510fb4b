-- Version 2: what advice is made of. Counts only ever grow by addition; rows whose stretch is long over go
-- when their account begins a new hour, so the table stays as large as the number of accounts makes it.

CREATE TABLE tallies (
    -- Before the account, so that the hours of all accounts lie together.
    width_s    INTEGER NOT NULL,
    account_id INTEGER NOT NULL REFERENCES accounts (id),
    subject    TEXT NOT NULL,
    -- The stretch begins at so many times its width on the timeline.
    number     INTEGER NOT NULL,
    tasks      INTEGER NOT NULL,
    costed     INTEGER NOT NULL,
    cost       REAL NOT NULL,
    wrong      INTEGER NOT NULL,
    sent       INTEGER NOT NULL,
    refused    INTEGER NOT NULL,
    late       INTEGER NOT NULL,
    PRIMARY KEY (width_s, account_id, subject, number)
) WITHOUT ROWID;

-- What the upstream's statistics told of an account, one row each: queue -> hours, as JSON.
CREATE TABLE figures (
    account_id INTEGER PRIMARY KEY REFERENCES accounts (id),
    asked_at   REAL NOT NULL,
    told       TEXT NOT NULL
);
