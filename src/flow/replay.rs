//! A decision that was recorded, made again under another bundle: what would it be today?
//!
//! Pure, and offline from the broker that recorded it. Claims are read again, as the other bundle's
//! profile says; what is fenced at the commit (used evidence, blocks, `per_job`) and what is capped
//! after the decision is no part of it.

use dayfly_domain::{
    ClaimType, ClaimValue, Claims, Reason,
    bundle::{Bundle, Issuer, IssuerKind},
};
use serde_json::{Map, Value};

use super::{
    bundle::put,
    explain::usual_binding,
    recorded::{Recorded, Wanted},
};
use crate::{
    intake::{self, ClaimRefusal},
    policy::{Ask, Circumstances, Decision, Policy, What},
};

/// What the other bundle says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allowed {
        row: String,
        /// Actions that were granted and would not be: who names them is refused, who names none gets less.
        without: Vec<String>,
    },
    Denied {
        reason: Reason,
        policies: Vec<String>,
    },
}

/// Why the other bundle says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unjudged {
    #[error("the profile wants a claim that is not on the record: {0}")]
    Claims(String),
}

/// Whether a decision of policy alone refuses for this reason, once a proof was looked at.
pub(super) fn decided(reason: Reason) -> bool {
    const BY_POLICY: [Reason; 7] = [
        Reason::NoMatch,
        Reason::Forbidden,
        Reason::Policy,
        Reason::Details,
        Reason::Target,
        Reason::Dpop,
        Reason::Certificate,
    ];
    BY_POLICY.contains(&reason)
}

/// Whether a refusal for this reason was a decision of policy or of a profile, rather than of the fence.
pub fn was_judged(bundle: &Bundle, reason: Reason) -> bool {
    let by_profile = || bundle.profiles.values().flat_map(|profile| profile.refuse.iter().chain(&profile.require));
    decided(reason) || reason == Reason::Event || by_profile().any(|refusal| refusal.code == reason.code())
}

/// Makes the decision again under `policy`.
pub fn replay(policy: &Policy, recorded: &Recorded) -> Result<Verdict, Unjudged> {
    let bundle = policy.bundle();
    let vouches = |issuer: &&Issuer| issuer.kind == IssuerKind::Workload && !issuer.disabled;
    let issuer = bundle.issuers.get(recorded.issuer.as_str()).filter(vouches);
    let profile = issuer.and_then(|issuer| bundle.profiles.get(&issuer.profile));
    let (Some(issuer), Some(profile)) = (issuer, profile) else { return Ok(denied(Reason::Issuer)) };
    let workload = match intake::read(issuer, profile, &payload(issuer, &recorded.claims)) {
        Ok(workload) => workload,
        Err(ClaimRefusal::Stranger) => return Ok(denied(Reason::Stranger)),
        Err(ClaimRefusal::Refused { reason, .. }) => return Ok(denied(reason)),
        Err(ClaimRefusal::Claim(what)) => return Err(Unjudged::Claims(what)),
    };
    let (ask, without) = ask(bundle, recorded);
    // Whether a proof came is not always on the record: then it did.
    let proven = recorded.proven.unwrap_or_else(|| usual_binding(bundle, &ask));
    let circumstances = Circumstances { proven, evidence_age_s: recorded.age_s, held: &recorded.held };
    Ok(match policy.decide(&workload, &ask, circumstances) {
        Decision::Permit(grant) => Verdict::Allowed { row: grant.row().to_string(), without },
        Decision::Deny(denied) => Verdict::Denied { reason: denied.reason, policies: denied.policies },
    })
}

/// The ask as it was, and what of it is left out: what was granted is asked with its actions; if the
/// template gives some of them no more, with the rest.
pub(super) fn ask(bundle: &Bundle, recorded: &Recorded) -> (Ask, Vec<String>) {
    let Recorded { template, ttl_s, ticket, .. } = recorded;
    let (what, without) = match &recorded.wanted {
        Wanted::Task => (What::TaskOnly, Vec::new()),
        Wanted::Asked { kind, resource, actions } => {
            let (resource, actions) = (resource.clone(), actions.clone());
            (What::Credential { kind: *kind, resource, actions }, Vec::new())
        }
        Wanted::Granted { kind, target, actions } => {
            let granted = bundle.templates.get(template.as_str()).and_then(|template| template.grants.get(&**target));
            let gives = |action: &String| granted.is_none_or(|granted| granted.contains(action.as_str()));
            let (left, without): (Vec<_>, Vec<_>) = actions.iter().cloned().partition(gives);
            let (left, without) = if left.is_empty() { (without, left) } else { (left, without) };
            // The name of a target that is gone is no target's URI: it is refused as such.
            let uri = bundle.targets.get(&**target).map_or_else(|| target.clone(), |target| target.uri.to_string());
            (What::Credential { kind: *kind, resource: Some(uri), actions: Some(left) }, without)
        }
    };
    (Ask { template: template.clone(), what, ttl_s: *ttl_s, ticket: ticket.clone() }, without)
}

fn denied(reason: Reason) -> Verdict {
    Verdict::Denied { reason, policies: Vec::new() }
}

/// A token's payload that would be read as these claims.
pub(super) fn payload(issuer: &Issuer, claims: &Claims) -> Map<String, Value> {
    let mut payload = Value::Object(Map::new());
    for (name, value) in claims {
        if let Some(rule) = issuer.claims.get(name) {
            put(&mut payload, rule, raw(rule.kind, value));
        }
    }
    match payload {
        Value::Object(payload) => payload,
        _ => Map::new(),
    }
}

/// As the platform would have sent it.
fn raw(kind: ClaimType, value: &ClaimValue) -> Value {
    match (kind, value) {
        (ClaimType::StringBool, ClaimValue::Bool(value)) => value.to_string().into(),
        (ClaimType::StringLong, ClaimValue::Long(value)) => value.to_string().into(),
        (_, ClaimValue::Bool(value)) => (*value).into(),
        (_, ClaimValue::Long(value)) => (*value).into(),
        (_, ClaimValue::String(value)) => value.as_str().into(),
        (_, ClaimValue::Set(values)) => values.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use dayfly_domain::{BindingKind, Kind};

    use super::*;
    use crate::{policy::BundleEnv, sys::files::SourceFile};

    const SHOP: &str = include_str!("../../policies/shop.toml");

    fn policy(text: &str) -> Policy {
        let env = BundleEnv { issuer_url: "https://b.example".to_owned(), broker_binding: BindingKind::Dpop };
        let file = SourceFile { path: "shop.toml".to_owned(), bytes: text.as_bytes().to_vec() };
        let parsed = crate::policy::parse(&[file], &env, &mut |_| Err(std::io::Error::other("none")));
        Policy::compile(parsed.unwrap().0).unwrap()
    }

    fn recorded() -> Recorded {
        let claims = [
            ("repository_id", "0088120"),
            ("repository_owner_id", "0004411"),
            ("event_name", "push"),
            ("ref", "refs/heads/main"),
            ("environment", "staging"),
        ];
        let text = |(name, value): (&str, &str)| (name.to_owned(), ClaimValue::String(value.to_owned()));
        Recorded {
            issuer: "github".to_owned(),
            claims: claims
                .map(text)
                .into_iter()
                .chain([("ref_protected".to_owned(), ClaimValue::Bool(true))])
                .collect(),
            template: "deploy-staging".to_owned(),
            wanted: Wanted::Granted {
                kind: Kind::Jwt,
                target: "shop-staging".to_owned(),
                actions: vec!["deploy:create".to_owned(), "deploy:status".to_owned()],
            },
            ttl_s: Some(900),
            ticket: None,
            proven: Some(BindingKind::Bearer),
            age_s: 3,
            held: Vec::new(),
        }
    }

    fn changed(from: &str, to: &str) -> Policy {
        assert!(SHOP.contains(from), "`{from}`");
        policy(&SHOP.replace(from, to))
    }

    fn allowed(row: &str) -> Result<Verdict, Unjudged> {
        Ok(Verdict::Allowed { row: row.to_owned(), without: Vec::new() })
    }

    #[test]
    fn the_same_bundle_says_the_same() {
        assert_eq!(replay(&policy(SHOP), &recorded()), allowed("shop-staging-main"));
        let task = Recorded { wanted: Wanted::Task, ..recorded() };
        assert_eq!(replay(&policy(SHOP), &task), allowed("shop-staging-main"));
        let all = Wanted::Asked { kind: Kind::Jwt, resource: None, actions: None };
        assert_eq!(replay(&policy(SHOP), &Recorded { wanted: all, ..recorded() }), allowed("shop-staging-main"));
    }

    #[test]
    fn another_row_another_claim_another_issuer() {
        let renamed = changed("shop-staging-main", "shop-staging-anew");
        assert_eq!(replay(&renamed, &recorded()), allowed("shop-staging-anew"));
        let mut other = recorded();
        other.claims.insert("ref".to_owned(), ClaimValue::String("refs/heads/x".to_owned()));
        assert_eq!(replay(&policy(SHOP), &other), Ok(denied(Reason::NoMatch)));
        let gone = Recorded { issuer: "gitlab".to_owned(), ..recorded() };
        assert_eq!(replay(&policy(SHOP), &gone), Ok(denied(Reason::Issuer)));
        let stranger = changed("repository_owner_id = \"0004411\"", "repository_owner_id = \"0004412\"");
        assert_eq!(replay(&stranger, &recorded()), Ok(denied(Reason::Stranger)));
        other.claims.insert("event_name".to_owned(), ClaimValue::String("pull_request_target".to_owned()));
        assert_eq!(replay(&policy(SHOP), &other), Ok(denied(Reason::Event)));
    }

    #[test]
    fn a_claim_that_is_not_on_the_record_is_no_verdict() {
        let mut erased = recorded();
        erased.claims.remove("repository_id");
        assert!(
            matches!(replay(&policy(SHOP), &erased), Err(Unjudged::Claims(what)) if what.contains("repository_id"))
        );
    }

    #[test]
    fn actions_that_are_gone_are_told() {
        let fewer =
            changed("shop-staging = [\"deploy:create\", \"deploy:status\"]", "shop-staging = [\"deploy:create\"]");
        let without = vec!["deploy:status".to_owned()];
        let row = "shop-staging-main".to_owned();
        assert_eq!(replay(&fewer, &recorded()), Ok(Verdict::Allowed { row, without }));
    }
}
