//! Every type of event in one table, for the reference; a story (`tests/it/reference`) holds it
//! against what is written.

/// One type of event.
#[derive(Debug, Clone, Copy)]
pub struct EventKind {
    pub name: &'static str,
    pub when: &'static str,
    /// Of the body, beside `v`, `id`, `seq`, `at`, `type` and `outcome`; each only where it applies.
    pub members: &'static [&'static str],
    /// Of what may be erased.
    pub details: &'static [&'static str],
}

/// In the order of a broker's life.
pub const EVENTS: &[EventKind] = &[
    EventKind {
        name: "start",
        when: "the process started on this store",
        members: &["wall_ms", "boot_ms", "bundle", "kid", "version"],
        details: &[],
    },
    EventKind {
        name: "bundle_swapped",
        when: "a bundle took the place of another: at a start, by SIGHUP, by `POST /v1/bundle/load` or because its directory was changed as a whole",
        members: &["bundle", "previous_bundle", "rollback"],
        details: &["actor"],
    },
    EventKind {
        name: "task_opened",
        when: "evidence opened a task and was used up by it",
        members: &[
            "task",
            "owner",
            "issuer",
            "template",
            "row",
            "environment",
            "grants",
            "evidence_until",
            "context",
            "until",
            "evidence",
            "handle",
            "jkt",
            "spki",
            "bundle",
        ],
        details: &["workload", "claims", "ticket", "job", "untrusted", "profile", "issued_at_s"],
    },
    EventKind {
        name: "issued",
        when: "a credential left, with its lease",
        members: &[
            "task",
            "lease",
            "owner",
            "issuer",
            "template",
            "row",
            "target",
            "actions",
            "credential_kind",
            "context",
            "ttl_s",
            "until",
            "credential",
            "jkt",
            "x5t",
            "spki",
            "bundle",
        ],
        details: &["workload", "ticket"],
    },
    EventKind {
        name: "denied",
        when: "a known workload was refused; of identical refusals the first three in a minute, then one with a `count`",
        members: &["task", "issuer", "template", "reason", "policies", "context", "bundle", "count"],
        details: &["workload", "claims", "untrusted", "job", "ticket", "asked"],
    },
    EventKind {
        name: "lease_ended",
        when: "one lease ended before its `exp`; its task lives on",
        members: &["task", "lease", "cause", "ended_at"],
        details: &["actor", "reason"],
    },
    EventKind {
        name: "task_ended",
        when: "a task ended before its deadline, and with it everything it was given (`count` leases)",
        members: &["task", "cause", "ended_at", "count", "blocked_until"],
        details: &["actor", "reason"],
    },
    EventKind {
        name: "tombstone",
        when: "everything that a selector means ended at once (`count` leases, `tasks` tasks): whatever was issued before this event, by the ledger's order; the rows follow without events of their own",
        members: &["cause", "ended_at", "count", "tasks", "names", "block"],
        details: &["actor", "selector", "reason"],
    },
    EventKind {
        name: "block",
        when: "a block of a task that had ended by itself was written, or any block was lifted by an operator (then `written_by` is the event that had written it)",
        members: &["task", "blocked_until", "block", "written_by"],
        details: &["actor", "act", "reason"],
    },
    EventKind {
        name: "key_rotated",
        when: "another key signs from now on; `use` is `ca` where it is an issuing CA, which signs certificates",
        members: &["kid", "previous_kid", "use"],
        details: &[],
    },
    EventKind {
        name: "key_tainted",
        when: "a key left for ever, and with it all that it had signed (`count` leases, which a `tombstone` before this event ended); `kid` signs from now on; without it nobody does, until a `key_rotated` says who",
        members: &["tainted_kid", "kid", "count"],
        details: &["actor", "reason"],
    },
    EventKind {
        name: "operator",
        when: "an act of an operator that is no end, no block and no swap: a load that was refused, keys of an issuer that were asked anew",
        members: &[],
        details: &["actor", "act", "what"],
    },
];
