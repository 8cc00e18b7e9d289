//! Bundles, workloads and asks for the tests of this stage.

use std::io;

use dayfly_domain::{BindingKind, ClaimValue, Kind, Workload, bundle::Bundle};

use super::{Ask, BundleEnv, Circumstances, Decision, Denied, Grant, Policy, What, parse};
use crate::sys::files::SourceFile;

pub(super) const SHOP: &str = include_str!("../../policies/shop.toml");
pub(super) const PRODUCTION: &str = include_str!("../../policies/production.cedar");
pub(super) const STAGING_URI: &str = "https://deploy.staging.shop.example.org";

pub(super) fn source(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.into(), bytes: text.as_bytes().to_vec() }
}

pub(super) fn env() -> BundleEnv {
    BundleEnv { issuer_url: "https://broker.example.org".into(), broker_binding: BindingKind::Dpop }
}

pub(super) fn no_extras(file: &str) -> io::Result<Vec<u8>> {
    Err(io::Error::other(format!("nobody expected `{file}` to be read")))
}

pub(super) fn bundle(files: &[(&str, &str)]) -> Result<Bundle, String> {
    let files: Vec<_> = files.iter().map(|(path, text)| source(path, text)).collect();
    let parsed = parse(&files, &env(), &mut no_extras).map(|(bundle, _)| bundle);
    parsed.map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect())
}

pub(super) fn policy(files: &[(&str, &str)]) -> Result<Policy, String> {
    let compiled = Policy::compile(bundle(files)?);
    compiled.map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect())
}

/// The shop with one more Cedar file.
pub(super) fn with_cedar(text: &str) -> Result<Policy, String> {
    policy(&[("shop.toml", SHOP), ("more.cedar", text)])
}

pub(super) fn workload(claims: &[(&str, &str)]) -> Workload {
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), ClaimValue::String((*value).to_owned()));
    Workload {
        issuer: "github".parse().unwrap(),
        profile: "github".parse().unwrap(),
        principal: "github/0004411/0088120".into(),
        untrusted: false,
        job: None,
        claims: claims.iter().map(text).collect(),
    }
}

/// A job of the shop on `main`.
pub(super) fn main_job(environment: &str) -> Workload {
    workload(&[
        ("repository_id", "0088120"),
        ("repository_owner_id", "0004411"),
        ("event_name", "push"),
        ("ref", "refs/heads/main"),
        ("environment", environment),
    ])
}

pub(super) fn ask(template: &str) -> Ask {
    let what = What::Credential { kind: Kind::Jwt, resource: None, actions: None };
    Ask { template: template.into(), what, ttl_s: None, ticket: None }
}

pub(super) fn with(proven: BindingKind) -> Circumstances<'static> {
    Circumstances { proven, evidence_age_s: 3, held: &[] }
}

pub(super) fn decide(policy: &Policy, workload: &Workload, ask: &Ask, proven: BindingKind) -> Result<Grant, Denied> {
    match policy.decide(workload, ask, with(proven)) {
        Decision::Permit(grant) => Ok(grant),
        Decision::Deny(denied) => Err(denied),
    }
}

pub(super) fn bearer(policy: &Policy, workload: &Workload, ask: &Ask) -> Result<Grant, Denied> {
    decide(policy, workload, ask, BindingKind::Bearer)
}
