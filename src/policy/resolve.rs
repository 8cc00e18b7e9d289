//! What exactly is asked: target, actions and seconds, out of what the template grants.

use std::collections::BTreeSet;

use dayfly_domain::{
    BindingKind, Kind, Name, Reason, Verifies,
    bundle::{Action, Bundle, Target, Template},
};

use super::{Ask, Denied, GrantedTarget, What, decide::IntoDenied};

/// Most actions that one ask names (wire.md section 2).
pub const ACTIONS_MAX: usize = 32;
/// A reference for people, kept with the task.
pub const TICKET_MAX_CHARS: usize = 256;

/// An ask that can be put to policy.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    /// `jwt`, `x509` or `task`.
    pub kind: &'static str,
    /// Seconds asked; otherwise the template's.
    pub ttl_s: u32,
    pub asked: BTreeSet<(Name, Action)>,
    pub target: Option<GrantedTarget>,
}

/// An ask that cannot: said only to who is entitled to the template at all.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub denied: Denied,
    /// What it would have been: with the proof that is missing. Otherwise the template as a whole.
    pub asked: Option<Box<Resolved>>,
    pub binding: BindingKind,
}

/// The task alone: all that the template grants, at its longest.
pub(super) fn whole(template: &Template) -> Resolved {
    let all = template.grants.iter();
    let asked = all.flat_map(|(target, actions)| actions.iter().map(move |action| (target.clone(), action.clone())));
    Resolved { kind: "task", ttl_s: template.ttl.as_s(), asked: asked.collect(), target: None }
}

pub(super) fn resolve(
    bundle: &Bundle,
    template: &Template,
    ask: &Ask,
    proven: BindingKind,
) -> Result<Resolved, Failed> {
    let plain = |denied| Failed { denied, asked: None, binding: proven };
    let long = |ticket: &String| ticket.chars().count() > TICKET_MAX_CHARS;
    if ask.ticket.as_ref().is_some_and(long) {
        return Err(plain(details("the ticket is longer than 256 characters")));
    }
    let What::Credential { kind, resource, actions } = &ask.what else { return Ok(whole(template)) };
    if ask.ttl_s == Some(0) {
        return Err(plain(details("ttl is at least 1")));
    }
    let target = pick(bundle, template, *kind, resource.as_deref()).map_err(plain)?;
    let granted_actions = &template.grants[&target.name];
    let actions = pick_actions(granted_actions, actions.as_deref()).map_err(plain)?;
    // SECURITY: `a_certificate_is_for_all_or_nothing`: servers read the template in it, and no actions.
    if *kind == Kind::X509 && actions != *granted_actions {
        return Err(plain(details("a certificate is for all that the template grants: leave actions out")));
    }
    let binding = target.binding;
    let resolved = Resolved {
        kind: kind.as_str(),
        ttl_s: ask.ttl_s.unwrap_or(template.ttl.as_s()),
        asked: actions.iter().map(|action| (target.name.clone(), action.clone())).collect(),
        target: Some(granted(target, *kind, actions)),
    };
    if binding != BindingKind::Bearer && proven != binding {
        // Who is entitled with a proof is told that it is missing, not that it is forbidden.
        return Err(Failed { denied: Reason::Dpop.into_denied(), asked: Some(Box::new(resolved)), binding });
    }
    Ok(resolved)
}

fn granted(target: &Target, kind: Kind, actions: BTreeSet<Action>) -> GrantedTarget {
    GrantedTarget {
        name: target.name.clone(),
        uri: target.uri.clone(),
        kind,
        binding: target.binding,
        actions,
        max_ttl: target.longest_ttl(),
        verifies: target.verifies,
        cache: target.cache,
        leeway: target.leeway,
        list_life: target.list_life,
    }
}

/// One target of the template: the one that is named, or the only one.
fn pick<'a>(bundle: &'a Bundle, template: &Template, kind: Kind, resource: Option<&str>) -> Result<&'a Target, Denied> {
    let targets: Vec<_> = template.grants.keys().filter_map(|name| bundle.targets.get(name)).collect();
    let picked = match (resource, targets.as_slice()) {
        (Some(uri), targets) => targets.iter().find(|target| &*target.uri == uri).copied(),
        (None, [only]) => Some(*only),
        (None, _) => None,
    };
    let Some(target) = picked else {
        let uris: Vec<_> = targets.iter().map(|target| &*target.uri).collect();
        return Err(wrong_target(format!("the targets of this template are {}", uris.join(", "))));
    };
    if target.disabled {
        return Err(wrong_target("this target is disabled".into()));
    }
    match kind {
        Kind::Jwt => takes_tokens(target)?,
        Kind::X509 if targets.len() > 1 => {
            return Err(wrong_target("a template with several targets gets no certificate".into()));
        }
        Kind::X509 => takes_certificates(target)?,
    }
    Ok(target)
}

fn takes_tokens(target: &Target) -> Result<(), Denied> {
    if target.verifies == Verifies::Crl {
        return Err(wrong_target("this target verifies by crl, so it takes certificates: send a csr".into()));
    }
    if target.binding == BindingKind::Mtls {
        return Err(wrong_target("no tokens for this target can be issued yet: send a csr".into()));
    }
    Ok(())
}

/// A certificate says nothing of actions and has no place on a status list.
fn takes_certificates(target: &Target) -> Result<(), Denied> {
    match (target.binding, target.verifies) {
        (BindingKind::Bearer | BindingKind::Dpop, _) => {
            Err(wrong_target("this target takes tokens: its binding is not mtls".into()))
        }
        (_, Verifies::List) => Err(wrong_target("this target verifies by list, where no certificate stands".into())),
        (_, Verifies::Crl | Verifies::Introspect | Verifies::ExpOnly) => Ok(()),
    }
}

fn wrong_target(hint: String) -> Denied {
    Denied { hint: Some(hint), ..Reason::Target.into_denied() }
}

/// A subset of what the template grants on the target; all of it when none is named.
fn pick_actions(granted: &BTreeSet<Action>, asked: Option<&[String]>) -> Result<BTreeSet<Action>, Denied> {
    let Some(asked) = asked else { return Ok(granted.clone()) };
    if asked.is_empty() || asked.len() > ACTIONS_MAX {
        return Err(details("actions has 1 to 32 members"));
    }
    let picked: BTreeSet<Action> = asked.iter().filter_map(|action| granted.get(action.as_str()).cloned()).collect();
    if picked.len() != asked.len() {
        let known: Vec<_> = granted.iter().map(|action| &**action).collect();
        return Err(details(&format!("actions are each named once, out of {}", known.join(", "))));
    }
    Ok(picked)
}

fn details(hint: &str) -> Denied {
    Denied { hint: Some(hint.to_owned()), ..Reason::Details.into_denied() }
}
