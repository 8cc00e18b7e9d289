//! The one table of routes. It builds the router, and the reference and the tests that hold every
//! route against every check read it too.

use std::fmt;

/// What a path and a method mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    OAuthMetadata,
    OpenIdMetadata,
    Jwks,
    Token,
    Introspect,
    Revoke,
    Tasks,
    Task,
    EndTask,
    Beat,
    Leases,
    Lease,
    EndLease,
    End,
    Blocks,
    LiftBlock,
    Events,
    Event,
    Entitlements,
    LoadBundle,
    Keys,
    TaintKey,
    Cas,
    RotateCa,
    Issuers,
    RefreshIssuer,
    Simulate,
    StatusList,
    StatusLists,
    CaCertificate,
    Crl,
    CrlBundle,
    OcspPost,
    OcspGet,
    SpiffeBundle,
    Healthz,
    Readyz,
    Metrics,
    OpsIndex,
}

/// `Get` also answers HEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// Which listener serves a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The broker's own, and the local socket.
    Broker,
    /// The same, and one without TLS where the settings name it (`pki.listen`): what anybody may fetch of
    /// the authority.
    Pki,
    /// That of health and metrics.
    Ops,
}

impl Listener {
    /// Whether this listener serves a row of that one.
    pub fn serves(self, row: Self) -> bool {
        self == row || self == Self::Broker && row == Self::Pki
    }
}

/// Who may call a route. What it says is decided in `flow`; here it is only told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Public,
    /// Evidence or a handle, in the body.
    Evidence,
    /// Whoever holds the token in the body.
    Possession,
    /// A token for the broker with this action, or the local socket.
    Action(&'static str),
    /// The same, or the handle of the row's own task.
    ActionOrHandle(&'static str),
    /// A token for the broker with this action, the local socket, or a verifier with its
    /// `client_assertion` in the body.
    ActionOrVerifier(&'static str),
    /// The handle of the row's own task, and nobody else.
    Handle,
    /// Whoever reaches the listener of health and metrics.
    Ops,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => f.write_str("public"),
            Self::Evidence => f.write_str("evidence or a handle in the body"),
            Self::Possession => f.write_str("possession of the token"),
            Self::Action(action) => write!(f, "`{action}`"),
            Self::ActionOrHandle(action) => write!(f, "`{action}`, or the task's own handle"),
            Self::Handle => f.write_str("the task's own handle"),
            Self::ActionOrVerifier(action) => write!(f, "`{action}`, or a verifier's `client_assertion`"),
            Self::Ops => f.write_str("own listener"),
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct RouteRow {
    pub route: Route,
    pub verb: Verb,
    /// In axum's notation; also the label in metrics and logs.
    pub path: &'static str,
    pub listener: Listener,
    pub who: Who,
    /// Types of the events that a call may leave in the ledger.
    pub records: &'static [&'static str],
    pub help: &'static str,
}

const fn get(route: Route, path: &'static str, who: Who, help: &'static str) -> RouteRow {
    RouteRow { route, verb: Verb::Get, path, listener: Listener::Broker, who, records: &[], help }
}

const fn ops(route: Route, path: &'static str, help: &'static str) -> RouteRow {
    RouteRow { route, verb: Verb::Get, path, listener: Listener::Ops, who: Who::Ops, records: &[], help }
}

const fn pki(route: Route, path: &'static str, help: &'static str) -> RouteRow {
    RouteRow { route, verb: Verb::Get, path, listener: Listener::Pki, who: Who::Public, records: &[], help }
}

const fn post(
    route: Route,
    path: &'static str,
    who: Who,
    records: &'static [&'static str],
    help: &'static str,
) -> RouteRow {
    RouteRow { route, verb: Verb::Post, path, listener: Listener::Broker, who, records, help }
}

/// The one path with a free end.
pub(super) const OCSP_PATH: &str = "/pki/ocsp/{*base64}";

/// Every route there is.
pub const ROUTES: &[RouteRow] = &[
    get(
        Route::OAuthMetadata,
        "/.well-known/oauth-authorization-server",
        Who::Public,
        "what this broker offers (RFC 8414)",
    ),
    get(Route::OpenIdMetadata, "/.well-known/openid-configuration", Who::Public, "the same, for OpenID discovery"),
    get(Route::Jwks, "/oauth2/jwks", Who::Public, "the public keys of task tokens (RFC 7517)"),
    post(
        Route::Token,
        "/oauth2/token",
        Who::Evidence,
        &["task_opened", "issued", "denied", "lease_ended"],
        "token exchange: opens a task or feeds one (RFC 8693)",
    ),
    post(
        Route::Introspect,
        "/oauth2/introspect",
        Who::ActionOrVerifier("introspect"),
        &[],
        "whether a token is active now (RFC 7662)",
    ),
    post(
        Route::Revoke,
        "/oauth2/revoke",
        Who::Possession,
        &["lease_ended"],
        "ends the lease of the presented token (RFC 7009)",
    ),
    get(Route::Tasks, "/v1/tasks", Who::ActionOrHandle("tasks:read"), "tasks, newest first"),
    get(Route::Task, "/v1/tasks/{id}", Who::ActionOrHandle("tasks:read"), "one task"),
    post(
        Route::EndTask,
        "/v1/tasks/{id}/end",
        Who::ActionOrHandle("tasks:end"),
        &["task_ended", "block"],
        "ends a task and everything below it",
    ),
    post(
        Route::Beat,
        "/v1/tasks/{id}/beat",
        Who::Handle,
        &[],
        "the hold: from the first beat on, the task ends its template's `grace` after the last one",
    ),
    get(Route::Leases, "/v1/leases", Who::ActionOrHandle("leases:read"), "leases, newest first"),
    get(Route::Lease, "/v1/leases/{id}", Who::ActionOrHandle("leases:read"), "one lease"),
    post(
        Route::EndLease,
        "/v1/leases/{id}/end",
        Who::ActionOrHandle("leases:end"),
        &["lease_ended"],
        "ends one lease and leaves its task alive",
    ),
    post(
        Route::End,
        "/v1/end",
        Who::Action("leases:end"),
        &["tombstone"],
        "ends everything that a filter means, at once, and blocks it; a token names the `owner`, and must reach all that is meant",
    ),
    get(
        Route::Blocks,
        "/v1/blocks",
        Who::Action("broker:operate"),
        "what may not be issued, newest first; a token needs a Cedar permit on `Target::\"broker\"` too",
    ),
    RouteRow {
        verb: Verb::Delete,
        ..post(
            Route::LiftBlock,
            "/v1/blocks/{block}",
            Who::Action("broker:operate"),
            &["block"],
            "lifts a block; what it ended stays ended; a token needs the same permit",
        )
    },
    get(Route::Events, "/v1/ledger", Who::Action("ledger:read"), "events, newest first"),
    get(Route::Event, "/v1/ledger/{id}", Who::Action("ledger:read"), "one event; a decision's id is its event's"),
    get(
        Route::Entitlements,
        "/v1/entitlements",
        Who::Action("ledger:read"),
        "what each row of the bundle in force gives, and how often it was used; a token sees the templates of its own task's owner",
    ),
    post(
        Route::LoadBundle,
        "/v1/bundle/load",
        Who::Action("broker:operate"),
        &["bundle_swapped", "tombstone", "operator"],
        "reads the trust bundle again: takes the place of the one in force, or is refused with its errors; a token needs a Cedar permit on `Target::\"broker\"` too",
    ),
    get(
        Route::Keys,
        "/v1/keys",
        Who::Action("broker:operate"),
        "the keys that sign task tokens, and their state; a token needs the same permit",
    ),
    post(
        Route::TaintKey,
        "/v1/keys/{kid}/taint",
        Who::Action("broker:operate"),
        &["key_tainted", "tombstone"],
        "takes a key, or an issuing CA, out at once and for ever, and ends what it signed; says until when whoever has it is believed; a token needs the same permit",
    ),
    get(
        Route::Cas,
        "/v1/pki",
        Who::Action("broker:operate"),
        "the CAs that sign certificates, and their state; a token needs the same permit",
    ),
    post(
        Route::RotateCa,
        "/v1/pki/rotate",
        Who::Action("broker:operate"),
        &["key_rotated"],
        "lets the next issuing CA sign from now on; a token needs the same permit",
    ),
    get(
        Route::Issuers,
        "/v1/issuers",
        Who::Action("broker:operate"),
        "the issuers of the bundle, and how their keys are; a token needs the same permit",
    ),
    post(
        Route::RefreshIssuer,
        "/v1/issuers/{name}/refresh",
        Who::Action("broker:operate"),
        &["operator"],
        "fetches an issuer's keys at once: from the answer on, a key that was taken out opens nothing; a token needs the same permit",
    ),
    post(
        Route::Simulate,
        "/v1/simulate",
        Who::Action("broker:operate"),
        &[],
        "a dry run: what would be answered to an ask, or why a decision on the record came out as it did; changes nothing; a token needs the same permit",
    ),
    get(
        Route::StatusList,
        "/status/{list}",
        Who::Public,
        "a status list: which of its tokens have ended (draft-ietf-oauth-status-list-21); `application/statuslist+jwt`",
    ),
    get(
        Route::StatusLists,
        "/status",
        Who::ActionOrVerifier("introspect"),
        "the lists of the caller's own targets; a verifier sends its assertion as a bearer token",
    ),
    pki(
        Route::CaCertificate,
        "/pki/{file}",
        "`{ca}.cer`: the certificate of a CA of ours, by its subject key identifier in hex; DER, `application/pkix-cert`",
    ),
    pki(
        Route::Crl,
        "/pki/{ca}/{file}",
        "`{shard}.crl`: the CRL of a CA of ours (RFC 5280); DER, `application/pkix-crl`; what ended is on it within a second",
    ),
    pki(
        Route::CrlBundle,
        "/pki/bundle.crl",
        "the CRLs of all levels in one PEM file, for what wants one for each CA of a chain (OpenSSL, nginx)",
    ),
    RouteRow {
        verb: Verb::Post,
        ..pki(Route::OcspPost, "/pki/ocsp", "the status of certificates of ours (RFC 6960); `application/ocsp-request`")
    },
    pki(Route::OcspGet, OCSP_PATH, "the same for caches (RFC 5019): the request in base64 is the path"),
    pki(Route::SpiffeBundle, "/spiffe/bundle", "the SPIFFE trust bundle: the root certificates of our trust domain"),
    ops(Route::Healthz, "/healthz", "the process answers"),
    ops(Route::Readyz, "/readyz", "everything that issuing needs is there; otherwise what is missing"),
    ops(Route::Metrics, "/metrics", "Prometheus text"),
    ops(Route::OpsIndex, "/", "the same, for whoever is given the address alone"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_path_and_verb_stand_once_and_so_does_a_route() {
        let paths: BTreeSet<_> = ROUTES.iter().map(|row| (row.path, row.verb.as_str())).collect();
        let routes: BTreeSet<_> = ROUTES.iter().map(|row| format!("{:?}", row.route)).collect();
        assert_eq!((paths.len(), routes.len()), (ROUTES.len(), ROUTES.len()));
    }

    #[test]
    fn only_posts_record() {
        assert!(ROUTES.iter().all(|row| row.records.is_empty() || row.verb != Verb::Get));
    }

    #[test]
    fn what_is_not_built_has_no_route() {
        for path in ["/acme", "/ssf", "/v1/reviews"] {
            assert!(ROUTES.iter().all(|row| !row.path.starts_with(path)), "{path}");
        }
    }

    #[test]
    fn without_tls_only_what_anybody_may_fetch_is_served() {
        let plain: Vec<_> = ROUTES.iter().filter(|row| Listener::Pki.serves(row.listener)).collect();
        assert!(plain.len() >= 2);
        for row in plain {
            let public = row.who == Who::Public && row.records.is_empty();
            assert!(public && (row.path.starts_with("/pki/") || row.path == "/spiffe/bundle"), "{}", row.path);
            assert!(Listener::Broker.serves(row.listener) && !Listener::Ops.serves(row.listener));
        }
    }
}
