-- Ends by selector, blocks that stand until they are lifted, holds, status lists.

ALTER TABLE task ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
UPDATE task SET seq = coalesce((SELECT min(e.seq) FROM event e WHERE e.task = task.id), 0);
CREATE INDEX task_parent ON task (parent) WHERE parent IS NOT NULL;
ALTER TABLE lease ADD COLUMN kid TEXT;
ALTER TABLE lease ADD COLUMN list BLOB;
ALTER TABLE lease ADD COLUMN list_index INTEGER;

-- A block speaks of a selector, in its one string form. Until now it was a template with a job (below its
-- issuer) or a workload.
ALTER TABLE block RENAME TO block_by_label;
CREATE TABLE block (
    id BLOB PRIMARY KEY NOT NULL,
    selector TEXT NOT NULL,
    until INTEGER,
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO block (id, selector, until, seq)
SELECT
    CAST(unhex('000000000000') || randomblob(10) AS BLOB),
    CASE WHEN job IS NOT NULL
        THEN 'job == "' || replace(replace(substr(job, instr(job, '/') + 1), '\', '\\'), '"', '\"')
            || '" && issuer == "' || substr(job, 1, instr(job, '/') - 1)
        ELSE 'workload == "' || replace(replace(workload, '\', '\\'), '"', '\"')
    END || '" && template == "' || template || '"',
    until,
    seq
FROM block_by_label;
DROP TABLE block_by_label;
CREATE INDEX block_until ON block (until) WHERE until IS NOT NULL;

-- A mass end: all that matches and whose event came before `seq` has ended then. `done`: no row is behind.
CREATE TABLE tomb (
    seq INTEGER PRIMARY KEY NOT NULL,
    at INTEGER NOT NULL,
    cause TEXT NOT NULL,
    selector TEXT NOT NULL,
    count INTEGER NOT NULL,
    done INTEGER NOT NULL
) STRICT;

-- A status list: whose leases stand on it, of which hour of expiry, how long it is, and what its places
-- that nobody has are filled from.
CREATE TABLE list (
    id BLOB PRIMARY KEY NOT NULL,
    scope TEXT NOT NULL,
    hour_s INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    seed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX list_hour ON list (hour_s);
