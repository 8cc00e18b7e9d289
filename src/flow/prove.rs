//! Who is behind a piece of evidence, and what becomes of one that proves nobody.

use std::sync::atomic::Ordering;

use dayfly_domain::BindingKind;
use dayfly_verifier::Refusal as TokenRefusal;

use super::{
    Flow, SAMPLE,
    refuse::Refusal,
    words::{Issued, Presented, Refused},
};
use crate::{
    intake::{self, IntakeError, Proven, SvidRefusal},
    lease::Now,
    ledger::Context,
    policy::Ask,
    sys::net::PresentedChain,
};

/// The issuer of whoever was proven, granted or not.
pub(super) type ProvenIssuer = Option<String>;

/// What opens a task.
#[derive(Debug, Clone, Copy)]
pub(super) enum Evidence<'a> {
    Token(&'a Presented),
    /// DER of the certificate that the connection was opened with.
    Certificate(&'a [u8]),
}

impl Flow {
    pub(super) async fn prove(
        &self,
        evidence: Evidence<'_>,
        client: Option<&PresentedChain>,
        ask: &Ask,
        issuer: &mut ProvenIssuer,
        now: Now,
    ) -> Result<Proven, Refused> {
        let policy = self.policy.load_full();
        let is_used = |key: &[u8; 32]| self.table.is_used(key);
        let proven = match evidence {
            Evidence::Token(token) => {
                intake::prove(token.expose(), policy.bundle(), &self.issuer, &self.keys, is_used, now.at).await
            }
            // SECURITY: law L13, whatever it is named; `our_own_certificate_is_no_evidence`.
            Evidence::Certificate(_) if self.is_own(client) => Err(IntakeError::Own),
            Evidence::Certificate(der) => intake::prove_svid(client, der, policy.bundle(), now.at),
        };
        *issuer = match &proven {
            Ok(proven) => Some(proven.workload().issuer.to_string()),
            Err(IntakeError::Refused { workload, .. }) => Some(workload.issuer.to_string()),
            Err(_) => None,
        };
        proven.map_err(|error| match error {
            // A known workload: recorded. Garbage and strangers are only counted.
            IntakeError::Refused { reason, workload } => {
                if let Err(limited) = self.charge(&policy, (&*workload).into(), &ask.template) {
                    return limited;
                }
                let (ttl, asked) = policy.asked(ask);
                let kind = Context::kind_of(&ask.what).to_owned();
                let binding = BindingKind::Bearer.to_string();
                let context = Context { ttl, kind, binding, age_s: 0, ask: asked, held: Vec::new() };
                let bundle = policy.bundle().fingerprint;
                let refusal = Refusal {
                    workload: *workload,
                    ask: ask.clone(),
                    context,
                    reason,
                    policies: Vec::new(),
                    bundle,
                    task: None,
                    hint: None,
                    comparison: None,
                };
                self.refuse(refusal, now.at)
            }
            other => {
                let reason = other.reason();
                metrics::counter!("dayfly_evidence_refused_total", "reason" => reason.code()).increment(1);
                let sample = self.turned_away.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE);
                if sample {
                    tracing::info!(reason = reason.code(), error = %other, "evidence refused; one in {SAMPLE} is told");
                }
                Refused { hint: hint_of(&other), ..reason.into() }
            }
        })
    }
}

/// What a refused caller may hear beyond the reason: the name of a claim, never a value.
fn hint_of(error: &IntakeError) -> Option<String> {
    match error {
        IntakeError::Claim(what) => Some(what.clone()),
        // Texts of ours; what the library says of a chain is for the log.
        IntakeError::Svid(refusal) if !matches!(refusal, SvidRefusal::Chain(_)) => Some(refusal.to_string()),
        IntakeError::Token(TokenRefusal::Claim(name)) => {
            Some(format!("claim `{name}` is missing, of another type or out of range"))
        }
        _ => None,
    }
}

/// `issuer` is one of the bundle's, or `none` where nobody was proven: no label is a stranger's.
pub(super) fn count(issuer: ProvenIssuer, kind: &'static str, issued: &Result<Issued, Refused>) {
    let issuer = issuer.unwrap_or_else(|| "none".to_owned());
    let result = issued.as_ref().map_or_else(|refused| refused.reason.code(), |_| "issued");
    metrics::counter!("dayfly_issued_total", "issuer" => issuer, "kind" => kind, "result" => result).increment(1);
}
