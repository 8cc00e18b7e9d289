//! Every bound there is, with what happens when it is reached: the reference is written from this
//! table, and it holds no number of its own.

use dayfly_verifier::{
    KEY_SET_MAX_BYTES, KEYS_MAX, TOKEN_MAX_BYTES, dpop,
    status::{LIST_ENTRIES_MAX, LIST_TOKEN_MAX_BYTES},
};

use super::limits::{CONNECTIONS_INSIDE, CONNECTIONS_PUBLIC, DESCRIPTORS_BESIDE, HEADER_MAX_BYTES, HEADERS_MAX};
use crate::{config, flow::bounds as flow, http::bounds as http, intake, policy, revoke, store::bounds as store, sys};

/// Something that has a most.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub what: &'static str,
    pub most: u64,
    pub unit: &'static str,
    /// What happens beyond it.
    pub full: &'static str,
}

const fn bound(what: &'static str, most: usize, unit: &'static str, full: &'static str) -> Bound {
    Bound { what, most: most as u64, unit, full }
}

const TOO_LARGE: &str = "`E-TOO-LARGE` (413), before anything is read of it";
const REQUEST: &str = "`E-REQUEST` (400)";
const BUNDLE: &str = "the bundle does not load; the old one stays";
const CUT: &str = "cut, with `...`";

/// In the order in which a request meets them.
pub const BOUNDS: &[Bound] = &[
    bound(
        "connections of the API's listener (setting `limits.connections`)",
        config::CONNECTIONS as usize,
        "connections",
        "none is accepted until one ends; the kernel's backlog waits",
    ),
    bound(
        "connections of one IPv4 address or IPv6 /64 (setting `limits.connections_per_address`)",
        config::CONNECTIONS_PER_ADDRESS as usize,
        "connections",
        "a new one is closed and counted",
    ),
    bound(
        "connections of the local socket, and of health and metrics, each",
        CONNECTIONS_INSIDE,
        "connections",
        "none is accepted until one ends",
    ),
    bound(
        "connections of `pki.listen`; a quarter of them from one address",
        CONNECTIONS_PUBLIC,
        "connections",
        "none is accepted until one ends",
    ),
    bound(
        "open files kept back for everything but connections",
        DESCRIPTORS_BESIDE as usize,
        "files",
        "where the process may open too few, fewer connections are let in, and the log says so; for fewer than 16 it does not start",
    ),
    bound(
        "requests of one IPv4 address or IPv6 /64 at once (settings `limits.address_burst`, `limits.address_rate_per_s`)",
        config::ADDRESS_BURST as usize,
        "requests",
        "`E-RATE` (429), before a body is read; it goes on at 100 a second",
    ),
    bound(
        "exchanges of one workload at once (settings `limits.workload_burst`, `limits.workload_rate_per_s`)",
        config::WORKLOAD_BURST as usize,
        "exchanges",
        "`E-RATE` (429); it goes on at 20 a second",
    ),
    bound(
        "exchanges of one job for one template in a minute (setting `limits.storm_per_minute`)",
        config::STORM_PER_MINUTE as usize,
        "exchanges",
        "`E-STORM` (429) until the minute is over",
    ),
    bound(
        "addresses, workloads and jobs whose rates are told apart, each",
        flow::METERED_MAX,
        "of each",
        "who comes new shares a rate with others who come new; nobody's is reset",
    ),
    bound(
        "live leases of one owner (setting `limits.owner_leases`)",
        config::OWNER_LEASES as usize,
        "leases",
        "`E-QUOTA` (429); outside of production after three quarters of them (setting `limits.production_reserve_percent`); twice as many for the minute of a renewal",
    ),
    bound(
        "live leases of one workload (setting `limits.workload_leases`)",
        config::WORKLOAD_LEASES as usize,
        "leases",
        "`E-QUOTA` (429); twice as many for the minute of a renewal",
    ),
    bound(
        "owners whose live leases have a label of their own in metrics",
        flow::OWNERS_SHOWN_MAX,
        "owners",
        "the rest are one label",
    ),
    bound("certificates that a client shows", sys::net::CHAIN_MAX, "certificates", "the handshake fails"),
    bound("a `csr`, decoded", intake::CSR_MAX_BYTES, "bytes", "`E-CSR`"),
    bound("a client's certificates, all", sys::net::CHAIN_MAX_BYTES, "bytes", "the handshake fails"),
    bound("a client's certificate, each", sys::net::CERTIFICATE_MAX_BYTES, "bytes", "the handshake fails"),
    bound("request line and headers", HEADER_MAX_BYTES, "bytes", "`E-HEADERS` (431)"),
    bound("headers of a request", HEADERS_MAX, "headers", "`E-HEADERS` (431)"),
    bound("body of a request", http::BODY_MAX_BYTES, "bytes", TOO_LARGE),
    bound("`X-Request-Id` that is echoed", http::REQUEST_ID_MAX_BYTES, "bytes", "the broker's own takes its place"),
    bound("parameters of a form or query", http::FIELDS_MAX, "parameters", REQUEST),
    bound("members and entries of a JSON body", http::MEMBERS_MAX, "members", REQUEST),
    bound(
        "token or evidence that is looked at",
        TOKEN_MAX_BYTES,
        "bytes",
        "`E-SIGNATURE` (400); introspection: `active: false`",
    ),
    bound("DPoP proof that is looked at", dpop::PROOF_MAX_BYTES, "bytes", "`E-DPOP` (400)"),
    bound(
        "proofs remembered so that each counts once",
        dpop::PROOFS_MAX,
        "proofs",
        "`E-BUSY` (503): a proof that cannot be remembered is not believed",
    ),
    bound(
        "outcomes of verifiers' assertions remembered",
        flow::OUTCOMES_MAX,
        "outcomes",
        "each further assertion is checked anew",
    ),
    bound(
        "of them, of one subject of one verifier issuer",
        flow::OUTCOMES_EACH,
        "outcomes",
        "its own oldest is forgotten",
    ),
    bound("actions named in an ask", policy::ACTIONS_MAX, "actions", "`E-DETAILS` (400)"),
    bound("ticket of a task", policy::TICKET_MAX_CHARS, "characters", "`E-DETAILS` (400)"),
    bound("reason given with an end", http::REASON_MAX_CHARS, "characters", "`E-INVALID` (422)"),
    bound(
        "places of a status list",
        revoke::LIST_SLOTS_MAX as usize,
        "places",
        "three quarters of them are given; then another list",
    ),
    bound(
        "leases of one target and hour on a list that it shares",
        revoke::SMALL as usize,
        "leases",
        "the target gets a list of its own",
    ),
    bound("an OCSP request", revoke::OCSP_MAX_BYTES, "bytes", "answered `malformedRequest`"),
    bound(
        "certificates asked for in one OCSP request",
        revoke::OCSP_ASKED_MAX,
        "certificates",
        "answered `malformedRequest`",
    ),
    bound("items of a page", http::LIMIT_MAX, "items", "`E-INVALID` (422)"),
    bound("rows looked at for a page", flow::LOOKED_AT_MAX, "rows", "the page is shorter; its cursor goes on"),
    bound(
        "work under way off the request threads",
        sys::offload::OFFLOADED_MAX,
        "reads",
        "waits, and is forgotten when its caller leaves",
    ),
    bound("connections to the store for reading", store::CONNECTIONS, "connections", "waits"),
    bound("groups waiting for the writer", flow::QUEUE_MAX, "groups", "an exchange waits 1.8 s, then `E-STORE` (503)"),
    bound(
        "what is written to learn whether a full disk has room again",
        flow::ROOM_MAX_BYTES as usize,
        "bytes",
        "a larger batch may fail once more",
    ),
    bound(
        "lost holds that are ended in one second",
        flow::ENDED_EACH_MAX,
        "tasks",
        "the next second; a beat that comes until then still counts",
    ),
    bound(
        "levels of a tree of tasks, its root counted",
        flow::LEVELS_MAX,
        "levels",
        "`E-PER-JOB` (400); no verb opens children yet",
    ),
    bound("open children of a task", flow::CHILDREN_MAX, "tasks", "as above"),
    bound(
        "live leases that one end by selector may end without being an alarm",
        flow::MASS_LEASES as usize,
        "leases",
        "it is told aloud, and a second one within a minute gets `E-MASS` (429); so is what ends more than a fifth of all, beyond 20",
    ),
    bound(
        "leases shown of an end by selector",
        crate::lease::SAMPLE_MAX,
        "leases",
        "the count says how many there are",
    ),
    bound("names told where a selector names what is not there", flow::TOLD_NAMES_MAX, "names", "`...`"),
    bound("rows caught up in one commit after an end by selector", flow::SLICE_ROWS, "rows", "the next commit"),
    bound(
        "blocks that stand until they are lifted",
        flow::STANDING_BLOCKS_MAX,
        "blocks",
        "`E-BLOCKS` (409); over the network at half of it",
    ),
    bound("callers over the network that wait to end by selector", flow::WAITING_MAX, "callers", "503 `E-BUSY`"),
    bound(
        "ends by selector that are not yet on the record, or whose rows are behind",
        flow::TOMBS_MAX,
        "ends",
        "`E-BUSY` (503)",
    ),
    bound("groups in one commit", flow::BATCH_MAX, "groups", "the next commit"),
    bound(
        "refusals waiting for the writer",
        flow::RECORDS_MAX,
        "events",
        "answered without an event, and counted (`dayfly_refusals_dropped_total`)",
    ),
    bound("kinds of refusal told apart in a minute", flow::KINDS_MAX, "kinds", "answered without an event"),
    bound("each text of a refused ask in its event", flow::ASKED_TEXT_MAX_CHARS, "characters", CUT),
    bound("rows that an explanation takes apart", policy::NEAREST_MAX, "rows", "the rest is counted (`rows_omitted`)"),
    bound("each text in an explanation", dayfly_domain::TOLD_MAX_CHARS, "characters", CUT),
    bound(
        "values that a row wants of one claim, in an explanation",
        policy::WANTED_MAX,
        "values",
        "the rest is counted",
    ),
    bound("`held` of a dry run", http::HELD_MAX, "pairs", "`E-INVALID` (422)"),
    bound("key set of an issuer", KEY_SET_MAX_BYTES, "bytes", "`E-ISSUER-DOWN` (503), or the keys known before"),
    bound("keys of an issuer", KEYS_MAX, "keys", "as above"),
    bound("answer of an issuer to a fetch", sys::net::FETCH_MAX_BYTES, "bytes", "as above"),
    bound(
        "fetches of issuers' keys ahead of need, under way at once",
        flow::FETCHES_AHEAD_MAX,
        "fetches",
        "begins a second later; what a request needs is fetched beside them",
    ),
    bound(
        "status list token that `publish` and verifiers read",
        LIST_TOKEN_MAX_BYTES,
        "bytes",
        "it is not published; for a verifier it could not be fetched",
    ),
    bound("entries of such a list (a verifier may set its own)", LIST_ENTRIES_MAX as usize, "entries", "as above"),
    bound(
        "one file of the bundle, of settings, keys or certificates",
        sys::files::FILE_MAX_BYTES as usize,
        "bytes",
        "refused",
    ),
    bound("files of a bundle", sys::files::TREE_MAX_FILES, "files", BUNDLE),
    bound("files of a bundle together", sys::files::TREE_MAX_BYTES, "bytes", BUNDLE),
    bound("folders within folders of a bundle", sys::files::TREE_MAX_DEPTH, "levels", BUNDLE),
    bound("folders of a bundle", sys::files::TREE_MAX_FOLDERS, "folders", BUNDLE),
    bound("key sets and certificates that a bundle names, together", policy::EXTRAS_MAX_BYTES, "bytes", BUNDLE),
    bound("wait of a load for the one before it", flow::TURN_WITHIN.as_secs() as usize, "seconds", "`E-BUSY` (503)"),
    bound("reading a bundle", flow::LOAD_WITHIN.as_secs() as usize, "seconds", "`E-BUSY` (503); the old bundle stays"),
    bound(
        "files of a bundle that are kept for replaying decisions, together",
        flow::KEPT_MAX_BYTES,
        "bytes",
        "the bundle is put in force and not kept; the log says so",
    ),
    bound("bundles of earlier held compiled", flow::HELD_MAX, "bundles", "the one asked for longest ago is read again"),
    bound("errors and lints told of a bundle", flow::PROBLEMS_MAX, "errors", "the rest is counted (`errors_omitted`)"),
    bound("each text of an error of a bundle", http::BUNDLE_TEXT_MAX_CHARS, "characters", CUT),
    bound("a refused load in readiness and in its event", flow::FAULT_MAX_CHARS, "characters", "cut"),
    bound("rows forgotten or pruned in one slice", flow::SLICE, "rows", "the next slice, behind what waits"),
    bound("log of the database that is not folded in", store::WAL_MAX_BYTES as usize, "bytes", "folded in by force"),
    bound(
        "statements kept ready for each connection to the store",
        store::STATEMENTS,
        "statements",
        "the oldest is prepared again",
    ),
    bound("answer that the command line reads", sys::net::ANSWER_MAX_BYTES, "bytes", "exit code 69"),
];

/// What grows with what is kept, and why it grows no further.
pub const PROPORTIONAL: &[(&str, &str)] = &[
    (
        "tasks, leases, evidence keys, handles, job labels and the calendar in memory",
        "one each for a committed row that still matters; forgotten, a slice a second, when it expired",
    ),
    ("holds", "a number for each live task that beats, and its place in a calendar; gone with the task"),
    (
        "status lists in memory, and places on them",
        "one for each target that verifies by list, or for what small ones share, and hour of expiry; a place for each of their leases; forgotten five minutes after the hour",
    ),
    ("words in memory", "shared texts of those records; dropped with the last record that has them"),
    ("blocks", "one for each end that an operator asked, until the task's deadline (30 days at most)"),
    (
        "ends that wait for a store that cannot be written",
        "one for each live task or lease, two where one blocks; asked again, they join the one that waits",
    ),
    ("keys of issuers", "one set for each issuer of the bundle in force"),
    ("retired signing keys", "one a day, for as long as the longest lifetime"),
    (
        "labels of metrics",
        "routes, statuses, reasons, causes and doors are tables; issuers are those of the bundles since the start",
    ),
    (
        "cursors, log lines",
        "none is kept: a cursor is authenticated text in the caller's hand, a line is written at once",
    ),
    (
        "bundles that were in force, with their fingerprints",
        "each file once, for as long as events name a bundle that has it; only who operates the broker loads one",
    ),
    ("the ledger on disk", "every event is kept; rows of tasks and leases are pruned a day after they are over"),
];
