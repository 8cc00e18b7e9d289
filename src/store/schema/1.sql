-- Ids are 16 bytes, big-endian, so that their order is the order of time. Hashes are 32 bytes,
-- times are Unix milliseconds unless the name says otherwise.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE task (
    id BLOB PRIMARY KEY NOT NULL,
    parent BLOB,
    template TEXT NOT NULL,
    purpose TEXT NOT NULL,
    ticket TEXT,
    job TEXT,
    permit TEXT NOT NULL,
    owner TEXT NOT NULL,
    environment TEXT NOT NULL,
    issuer TEXT NOT NULL,
    profile TEXT NOT NULL,
    workload TEXT NOT NULL,
    untrusted INTEGER NOT NULL,
    grants TEXT NOT NULL,
    evidence_key BLOB NOT NULL,
    evidence_iat_s INTEGER NOT NULL,
    evidence_exp_s INTEGER NOT NULL,
    claims TEXT,
    handle_hash BLOB NOT NULL,
    bound TEXT NOT NULL,
    thumbprint TEXT,
    opened_at INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    end_at INTEGER,
    end_cause TEXT,
    end_seq INTEGER
) STRICT;
CREATE UNIQUE INDEX task_evidence_key ON task (evidence_key);
CREATE UNIQUE INDEX task_handle_hash ON task (handle_hash);
CREATE INDEX task_deadline ON task (deadline);

CREATE TABLE lease (
    id BLOB PRIMARY KEY NOT NULL,
    task BLOB NOT NULL,
    seq INTEGER NOT NULL,
    target TEXT NOT NULL,
    kind TEXT NOT NULL,
    permit TEXT NOT NULL,
    actions TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    credential_hash BLOB NOT NULL,
    thumbprint TEXT,
    end_at INTEGER,
    end_cause TEXT,
    end_seq INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_task ON lease (task);
CREATE INDEX lease_expires ON lease (expires);

CREATE TABLE event (
    seq INTEGER PRIMARY KEY NOT NULL,
    id BLOB NOT NULL,
    at INTEGER NOT NULL,
    task BLOB,
    lease BLOB,
    body BLOB NOT NULL,
    leaf BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_id ON event (id);
CREATE INDEX event_task ON event (task) WHERE task IS NOT NULL;
CREATE INDEX event_lease ON event (lease) WHERE lease IS NOT NULL;
CREATE INDEX event_at ON event (at);

CREATE TABLE detail (
    seq INTEGER PRIMARY KEY NOT NULL,
    salt BLOB NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE block (
    id INTEGER PRIMARY KEY NOT NULL,
    template TEXT NOT NULL,
    job TEXT,
    workload TEXT,
    until INTEGER NOT NULL,
    seq INTEGER NOT NULL
) STRICT;
CREATE INDEX block_until ON block (until);
