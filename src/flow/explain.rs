//! One ask, explained under one bundle: what policy says and why, or why evidence never reached
//! policy. Pure: a bundle, a workload or its claims, and an ask come in; nothing is recorded, used up
//! or issued. The broker's dry run and the command line without a broker share it.

use dayfly_domain::{
    BindingKind, EventId, Kind, Reason, UnixMs, Workload,
    bundle::{Bundle, Fingerprint, Issuer, IssuerKind},
    told,
};
use serde_json::{Map, Value};

use crate::{
    intake::{self, Check, ClaimRefusal},
    policy::{Ask, Circumstances, Explanation, Outcome, Policy, What},
};

/// What is to be explained, beside who asks.
#[derive(Debug, Clone)]
pub struct Trial {
    pub ask: Ask,
    /// What is proven; absent: what the target wants, as in a test of the bundle.
    pub binding: Option<BindingKind>,
    pub age_s: i64,
    /// `target#action` of the job's live tasks.
    pub held: Vec<String>,
}

/// An answer that changes nothing.
#[derive(Debug)]
pub struct Explained {
    pub bundle: Fingerprint,
    pub template: String,
    /// Why not; `None`: permitted.
    pub reason: Option<Reason>,
    /// Whoever it is about, as far as that is known.
    pub workload: Option<Workload>,
    /// What policy says; `None` where it cannot be asked.
    pub policy: Option<Explanation>,
    /// What stands in the way beside policy.
    pub obstacles: Vec<String>,
    /// The evidence, piece by piece.
    pub checks: Vec<Check>,
    pub recorded: Option<Recorded>,
    /// The answer under the bundle in force, where another one was asked.
    pub in_force: Option<InForce>,
    pub notes: Vec<String>,
}

/// The decision as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub event: EventId,
    pub kind: String,
    pub at: UnixMs,
    pub reason: Option<String>,
    pub row: Option<String>,
    pub bundle: Option<String>,
    /// How many refusals it stands for, when more than one.
    pub count: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    pub bundle: Fingerprint,
    pub reason: Option<Reason>,
    /// The permit that decides.
    pub by: Option<String>,
    /// Another outcome, or by another permit.
    pub differs: bool,
}

impl Explained {
    /// The permit that decides.
    pub fn by(&self) -> Option<&str> {
        match &self.policy.as_ref()?.outcome {
            Outcome::Permit(permitted) => Some(&permitted.by),
            Outcome::Deny(_) => None,
        }
    }

    pub fn in_force(&self, now: &Self) -> InForce {
        let differs = (self.reason, self.by()) != (now.reason, now.by());
        InForce { bundle: now.bundle, reason: now.reason, by: now.by().map(str::to_owned), differs }
    }
}

/// Of a workload that is known.
pub fn of_workload(policy: &Policy, workload: Workload, trial: &Trial) -> Explained {
    let bundle = policy.bundle();
    let proven = trial.binding.unwrap_or_else(|| usual_binding(bundle, &trial.ask));
    let circumstances = Circumstances { proven, evidence_age_s: trial.age_s, held: &trial.held };
    let told = policy.explain(&workload, &trial.ask, circumstances);
    let profile = bundle.profiles.get(&workload.profile);
    let refused = profile.and_then(|profile| intake::refused_by(profile, &workload.claims));
    let denied = match told.outcome {
        Outcome::Permit(_) => None,
        Outcome::Deny(reason) => Some(reason),
    };
    let (by_profile, why) = refused.unzip();
    Explained {
        reason: by_profile.or(denied),
        workload: Some(workload),
        policy: Some(told),
        obstacles: why.into_iter().collect(),
        ..blank(bundle, trial)
    }
}

/// Of a token's claims, as they would stand in evidence of this issuer; without a name, of the one
/// whose URL is their `iss`. What is refused before policy is explained by its checks.
pub fn of_claims(policy: &Policy, issuer: Option<&str>, claims: &Map<String, Value>, trial: &Trial) -> Explained {
    let bundle = policy.bundle();
    let known = named(bundle, issuer, claims);
    let Some((issuer, profile)) = known.and_then(|it| Some((it, bundle.profiles.get(&it.profile)?))) else {
        let obstacles = vec![no_issuer(bundle, issuer, claims)];
        return Explained { reason: Some(Reason::Issuer), obstacles, ..blank(bundle, trial) };
    };
    let checks = intake::look_at_claims(issuer, profile, claims);
    let reason = match intake::read(issuer, profile, claims) {
        Ok(workload) => return Explained { checks, ..of_workload(policy, workload, trial) },
        Err(ClaimRefusal::Refused { workload, .. }) => {
            return Explained { checks, ..of_workload(policy, *workload, trial) };
        }
        Err(ClaimRefusal::Stranger) => Reason::Stranger,
        Err(ClaimRefusal::Claim(_)) => Reason::Claim,
    };
    refused_before_policy(policy, reason, checks, trial)
}

/// Of a token whose signature nobody has checked: only for who explains away from a broker.
pub fn of_unverified(policy: &Policy, token: &str, own_issuer: &str, now: UnixMs, trial: &Trial) -> Explained {
    let checks = intake::look(token, policy.bundle(), own_issuer, now);
    let failed = checks.iter().find(|check| !check.ok).map(reason_of_check);
    let Some((issuer, claims)) = intake::unverified(token, policy.bundle(), own_issuer) else {
        return refused_before_policy(policy, failed.unwrap_or(Reason::Signature), checks, trial);
    };
    let issued_s = claims.get("iat").and_then(Value::as_i64).unwrap_or_else(|| now.as_s());
    let trial = Trial { age_s: now.as_s() - issued_s, ..trial.clone() };
    let explained = of_claims(policy, Some(&issuer), &claims, &trial);
    Explained { reason: failed.or(explained.reason), checks, ..explained }
}

fn reason_of_check(check: &Check) -> Reason {
    match check.what.as_str() {
        "form" | "alg" | "typ" => Reason::Signature,
        "iss" => Reason::Issuer,
        "aud" => Reason::Audience,
        "exp" | "iat" | "nbf" => Reason::Expired,
        pin if pin.starts_with("pin ") => Reason::Stranger,
        _ => Reason::Claim,
    }
}

fn named<'a>(bundle: &'a Bundle, issuer: Option<&str>, claims: &Map<String, Value>) -> Option<&'a Issuer> {
    let url = claims.get("iss").and_then(Value::as_str);
    let vouches = |issuer: &&Issuer| issuer.kind == IssuerKind::Workload && !issuer.disabled;
    match issuer {
        Some(name) => bundle.issuers.get(name).filter(vouches),
        None => bundle.issuers.values().filter(vouches).find(|issuer| url == Some(&*issuer.url)),
    }
}

fn no_issuer(bundle: &Bundle, issuer: Option<&str>, claims: &Map<String, Value>) -> String {
    let names: Vec<_> = bundle.issuers.keys().map(|name| format!("`{name}`")).collect();
    let known = names.join(", ");
    match (issuer, claims.get("iss").and_then(Value::as_str)) {
        (Some(name), _) => format!("no issuer `{}` vouches for workloads; the bundle has {known}", told(name)),
        (None, Some(url)) => format!("no issuer has the URL `{}`; the bundle has {known}", told(url)),
        (None, None) => format!("whose claims these are is not said: name the issuer, one of {known}, or add `iss`"),
    }
}

/// Evidence that never reached policy.
pub fn refused_before_policy(policy: &Policy, reason: Reason, checks: Vec<Check>, trial: &Trial) -> Explained {
    Explained { reason: Some(reason), checks, ..blank(policy.bundle(), trial) }
}

fn blank(bundle: &Bundle, trial: &Trial) -> Explained {
    Explained {
        bundle: bundle.fingerprint,
        template: trial.ask.template.clone(),
        reason: None,
        workload: None,
        policy: None,
        obstacles: Vec::new(),
        checks: Vec::new(),
        recorded: None,
        in_force: None,
        notes: Vec::new(),
    }
}

/// As the tests of a bundle assume it: what the ask's target wants.
pub(super) fn usual_binding(bundle: &Bundle, ask: &Ask) -> BindingKind {
    // A task alone is opened with the key that its first target will want.
    let resource = match &ask.what {
        What::Credential { resource, .. } => resource.as_ref(),
        What::TaskOnly => None,
    };
    let template = bundle.templates.get(ask.template.as_str());
    let targets = template.into_iter().flat_map(|template| template.grants.keys());
    let mut targets = targets.filter_map(|name| bundle.targets.get(name));
    let target = match resource {
        Some(uri) => targets.find(|target| *target.uri == **uri),
        None => targets.next(),
    };
    target.map_or(BindingKind::Bearer, |target| target.binding)
}

/// The ask for all that a template grants on its target.
pub fn whole_ask(template: &str) -> Ask {
    let what = What::Credential { kind: Kind::Jwt, resource: None, actions: None };
    Ask { template: template.to_owned(), what, ttl_s: None, ticket: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::{BundleEnv, parse},
        sys::files::SourceFile,
    };

    #[test]
    fn a_task_alone_is_tried_with_what_its_first_target_wants() {
        let env = BundleEnv { issuer_url: "https://b.example".to_owned(), broker_binding: BindingKind::Dpop };
        let shop = include_bytes!("../../policies/shop.toml").to_vec();
        let files = [SourceFile { path: "shop.toml".to_owned(), bytes: shop }];
        let (bundle, _) = parse(&files, &env, &mut |_| Err(std::io::Error::other("none is named"))).unwrap();
        let alone = |template: &str| usual_binding(&bundle, &Ask { what: What::TaskOnly, ..whole_ask(template) });
        assert_eq!((alone("deploy-prod"), alone("deploy-staging")), (BindingKind::Dpop, BindingKind::Bearer));
    }
}
