//! A name that a selector gives must be one that the bundle in force has: a slip would end nothing, and
//! look like an end.

use dayfly_domain::{Reason, Selector};

use super::words::Refused;
use crate::policy::Policy;

/// So many names are told of those that there are.
pub const TOLD_NAMES_MAX: usize = 20;

/// `open`: whoever asks may see what the bundle holds.
// SECURITY: `a_name_that_the_bundle_does_not_know_is_refused`.
pub(super) fn require_known(policy: &Policy, selector: &Selector, open: bool) -> Result<(), Refused> {
    let bundle = policy.bundle();
    let Selector { job: _, workload, owner, issuer, target, row, template, key: _, claims } = selector;
    among("owner", owner, bundle.owners.keys().map(|name| &**name), open)?;
    among("issuer", issuer, bundle.issuers.keys().map(|name| &**name), open)?;
    among("target", target, bundle.targets.keys().map(|name| &**name), open)?;
    among("template", template, bundle.templates.keys().map(|name| &**name), open)?;
    let rows: Vec<_> = bundle.templates.keys().flat_map(|template| policy.permits(template)).collect();
    among("row", row, rows.iter().map(|row| &***row), open)?;
    if let Some(workload) = workload {
        let issuer = workload.split_once('/').map(|(issuer, _)| issuer);
        let known = issuer.is_some_and(|issuer| bundle.issuers.contains_key(issuer));
        if !known {
            return Err(unknown("`workload` begins with the name of an issuer and `/`".to_owned()));
        }
    }
    let revocable = policy.revocable();
    let stranger = claims.keys().find(|name| !revocable.values().any(|names| names.contains(*name)));
    if let Some(name) = stranger {
        let names = revocable.values().flatten().map(String::as_str);
        return Err(unknown(format!("no profile in use says that claim `{name}` is revocable{}", told(names, open))));
    }
    Ok(())
}

fn among<'a>(
    what: &str,
    wanted: &Option<String>,
    mut names: impl Iterator<Item = &'a str> + Clone,
    open: bool,
) -> Result<(), Refused> {
    let all = names.clone();
    match wanted {
        Some(wanted) if !names.any(|name| name == wanted) => {
            Err(unknown(format!("the bundle in force has no such `{what}`{}", told(all, open))))
        }
        _ => Ok(()),
    }
}

fn told<'a>(names: impl Iterator<Item = &'a str>, open: bool) -> String {
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names.dedup();
    if !open || names.is_empty() {
        return String::new();
    }
    let more = if names.len() > TOLD_NAMES_MAX { ", ..." } else { "" };
    names.truncate(TOLD_NAMES_MAX);
    format!("; it is one of {}{more}", names.join(", "))
}

fn unknown(hint: String) -> Refused {
    Refused { hint: Some(hint), ..Reason::Invalid.into() }
}
