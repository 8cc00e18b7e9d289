//! The recorder behind `/metrics`: one for the process.

use std::sync::OnceLock;

use dayfly_domain::Reason;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::flow::Limit;

/// A metric as `/metrics` shows it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels, help }
}

/// Every metric there is.
pub const METRICS: &[Metric] = &[
    gauge("dayfly_build_info", &["version"], "always 1; the version is the label"),
    gauge(
        "dayfly_ca_expiry_timestamp_seconds",
        &["tier"],
        "when the CA of a tier that signs now is over: root, area, issuing; 0: there is none",
    ),
    gauge(
        "dayfly_certificates",
        &["state"],
        "certificates: `live`, those whose leases have not expired; `revoked`, entries of CRLs",
    ),
    gauge("dayfly_clock_safe", &[], "1 while the clocks agree; 0: nothing is issued"),
    histogram("dayfly_commit_batch_size", &[], "groups in one commit"),
    histogram("dayfly_commit_duration_seconds", &[], "one commit, with its fsync"),
    gauge("dayfly_connections", &["door"], "open connections of a listener: tls, plain or socket"),
    counter(
        "dayfly_connections_refused_total",
        &["door", "why"],
        "connections that came to nothing: per_address, accept, handshake, drain",
    ),
    counter("dayfly_denied_total", &["reason"], "refusals of known workloads, by reason code"),
    histogram("dayfly_end_propagation_seconds", &["channel"], "from an end to the moment a channel knows"),
    counter(
        "dayfly_ended_total",
        &["cause"],
        "ends on the record, by cause; an end by selector is one, whatever it ended",
    ),
    counter(
        "dayfly_evidence_conflict_total",
        &[],
        "evidence or jobs that showed a second key: an alarm, whatever the number",
    ),
    counter("dayfly_evidence_refused_total", &["reason"], "garbage and strangers, by reason code; they leave no event"),
    counter("dayfly_forged_or_lost_total", &[], "well-signed tokens without a lease: an alarm, whatever the number"),
    gauge("dayfly_hold_storm", &[], "1 while more holds are lost at once than jobs die: none ends a task then"),
    counter(
        "dayfly_hold_storms_total",
        &[],
        "storms of lost holds: an alarm, the broker's own side is likely at fault",
    ),
    counter("dayfly_http_requests_total", &["route", "status"], "answers; a path that is no route is `none`"),
    histogram("dayfly_issue_duration_seconds", &[], "an exchange, from its headers to its answer"),
    counter("dayfly_issued_total", &["issuer", "kind", "result"], "exchanges that were decided"),
    counter("dayfly_jwks_fetch_failures_total", &["issuer"], "fetches of an issuer's keys that failed"),
    gauge("dayfly_issuer_keys", &["issuer"], "keys of an issuer that can verify"),
    gauge(
        "dayfly_issuer_keys_age_seconds",
        &["issuer"],
        "since an issuer's keys were confirmed; from 21600 on its tokens are refused",
    ),
    counter("dayfly_keys_tainted_total", &[], "keys that were taken out for ever: an alarm, whatever the number"),
    counter(
        "dayfly_limited_total",
        &["limit"],
        "asks that were too much: address, workload, storm, owner_leases, owner_leases_outside_production, workload_leases",
    ),
    gauge("dayfly_leases_active", &["kind"], "live leases"),
    counter(
        "dayfly_mass_ends_total",
        &[],
        "ends by selector of more than 1000 leases, or of more than a fifth of all: an alarm, whatever the number",
    ),
    counter(
        "dayfly_ocsp_total",
        &["outcome"],
        "OCSP requests: `answered`, or why not: `malformed`, `unauthorized`, `try_later`, `internal`",
    ),
    gauge(
        "dayfly_owner_leases",
        &["owner", "environment"],
        "live leases of an owner, in `production` and in all `others`; owners beyond the first 50 are `(others)`",
    ),
    counter("dayfly_panics_total", &[], "requests that ended in a defect of the broker"),
    counter("dayfly_proofs_refused_total", &["reason"], "DPoP proofs that were not believed, by reason code"),
    gauge(
        "dayfly_quota_used_ratio",
        &["limit"],
        "of the fullest owner or workload, what it has of what it may have: owner_leases, owner_leases_outside_production, workload_leases; at 1 it gets no more",
    ),
    counter("dayfly_refusals_dropped_total", &[], "refusals that found no room to be recorded"),
    counter("dayfly_review_failures_total", &["issuer"], "reviews of an issuer's tokens that were not answered"),
    gauge(
        "dayfly_root_crl_expiry_timestamp_seconds",
        &[],
        "when the first CRL of a CA above the area CA is over; 0: there is none",
    ),
    gauge(
        "dayfly_rows_overdue",
        &["state"],
        "rows past their review date: `in_grace`, or `lapsed`, which permit nothing new",
    ),
    gauge("dayfly_signing_key_expiry_timestamp_seconds", &[], "when the key that signs now retires"),
    counter("dayfly_simulated_total", &["outcome"], "dry runs and explanations by outcome: permit, deny"),
    gauge("dayfly_status_lists", &[], "status lists that may be asked for"),
    gauge("dayfly_status_list_slots", &["state"], "places on them: `given`, or `free`"),
    counter(
        "dayfly_storms_total",
        &[],
        "jobs that asked for one template as a loop would, and were refused for a minute",
    ),
    gauge("dayfly_tomb_rows_behind", &[], "rows that an end by selector has ended and that do not say so yet"),
    gauge("dayfly_tombs_behind", &[], "ends by selector that rows may be behind of"),
    gauge("dayfly_tasks_held", &[], "live tasks whose client beats"),
    gauge("dayfly_tls_certificate_expiry_timestamp_seconds", &[], "when the certificate that is served expires"),
    counter("dayfly_verifiers_refused_total", &["reason"], "assertions of verifiers that were not believed"),
];

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Seconds; an exchange takes a millisecond or so, a refused one within two seconds.
const SECONDS: [f64; 10] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

/// Groups in one commit.
const GROUPS: [f64; 6] = [1.0, 4.0, 16.0, 64.0, 128.0, 256.0];

/// Installs the recorder, once. Before it, counts go nowhere.
pub fn install() {
    RECORDER.get_or_init(|| {
        let sizes = Matcher::Full("dayfly_commit_batch_size".to_owned());
        let builder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(sizes, &GROUPS));
        // INVARIANT: the buckets are a constant that is not empty.
        let recorder = builder.expect("the buckets are not empty").build_recorder();
        let handle = recorder.handle();
        // A library user's own recorder is left in place.
        let _ = metrics::set_global_recorder(recorder);
        METRICS.iter().for_each(describe);
        begin_at_zero();
        metrics::gauge!("dayfly_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        handle
    });
}

/// A counter that first shows with 1 has not increased as far as a monitor can see: what alarms hang on
/// is there from the start.
fn begin_at_zero() {
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Counter && metric.labels.is_empty()) {
        metrics::counter!(metric.name).increment(0);
    }
    for door in DOORS {
        for why in REFUSED {
            metrics::counter!("dayfly_connections_refused_total", "door" => door, "why" => why).increment(0);
        }
    }
    for limit in Limit::ALL {
        metrics::counter!("dayfly_limited_total", "limit" => limit.as_str()).increment(0);
    }
    for (name, reasons) in REASONS {
        for reason in reasons {
            metrics::counter!(name, "reason" => reason.code()).increment(0);
        }
    }
}

const DOORS: [&str; 3] = ["tls", "plain", "socket"];
const REFUSED: [&str; 4] = ["per_address", "accept", "handshake", "drain"];

/// Why a token is not believed before anybody is known.
const TOKEN: &[Reason] = &[
    Reason::Signature,
    Reason::Issuer,
    Reason::Audience,
    Reason::Expired,
    Reason::Claim,
    Reason::Stranger,
    Reason::Own,
    Reason::IssuerDown,
];
const REASONS: [(&str, &[Reason]); 3] = [
    ("dayfly_evidence_refused_total", TOKEN),
    ("dayfly_verifiers_refused_total", TOKEN),
    ("dayfly_proofs_refused_total", &[Reason::Dpop, Reason::DpopNonce, Reason::Busy]),
];

fn describe(metric: &Metric) {
    match metric.kind {
        Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
        Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
        Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
    }
}

pub(super) fn render() -> String {
    RECORDER.get().map(PrometheusHandle::render).unwrap_or_default()
}

pub(super) fn keep_up() {
    if let Some(handle) = RECORDER.get() {
        handle.run_upkeep();
    }
}
