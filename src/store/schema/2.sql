-- What was read of a bundle, by its fingerprint, so that a decision can be replayed under it. A file is
-- kept once, whatever bundles it is in.
CREATE TABLE bundle (
    fingerprint BLOB PRIMARY KEY NOT NULL,
    kept_at INTEGER NOT NULL,
    issuer_url TEXT NOT NULL,
    broker_binding TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE bundle_part (
    fingerprint BLOB NOT NULL,
    part TEXT NOT NULL,
    path TEXT NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (fingerprint, part, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE bundle_file (
    hash BLOB PRIMARY KEY NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

-- How often an entitlement was used: the sum of the `issued` events up to the one that `meta` names.
CREATE TABLE used (
    template TEXT NOT NULL,
    permit TEXT NOT NULL,
    target TEXT NOT NULL,
    action TEXT NOT NULL,
    count INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    PRIMARY KEY (template, permit, target, action)
) STRICT, WITHOUT ROWID;
