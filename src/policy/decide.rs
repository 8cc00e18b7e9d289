//! One question per exchange: may this workload run this template? Default deny; a forbid that
//! matches denies, and so does any error (law L4).

use std::{collections::HashMap, collections::HashSet, sync::Arc};

use cedar_policy::{Context, Decision as CedarDecision, Entity, EntityUid, Request, Response, RestrictedExpression};
use dayfly_domain::{
    BindingKind, ClaimType, ClaimValue, Reason, Workload,
    bundle::{Issuer, IssuerKind, Template},
};

use super::{
    Ask, Circumstances, Decision, Denied, Grant, Policy,
    compile::Slice,
    names::{RUN, Type},
    resolve::{Failed, Resolved, resolve, whole},
};

/// The id of the permit that decides.
type Permit = Arc<str>;

impl Policy {
    pub fn decide(&self, workload: &Workload, ask: &Ask, circumstances: Circumstances) -> Decision {
        match self.judge(workload, ask, circumstances) {
            Ok(grant) => Decision::Permit(grant),
            Err(denied) => Decision::Deny(denied),
        }
    }

    fn judge(&self, workload: &Workload, ask: &Ask, circumstances: Circumstances) -> Result<Grant, Denied> {
        let template = self.bundle.templates.get(ask.template.as_str()).filter(|template| !template.disabled);
        let template = template.ok_or_else(|| Reason::NoMatch.into_denied())?;
        let resolved = resolve(&self.bundle, template, ask, circumstances.proven);
        // SECURITY: whoever may not run the template learns nothing of its targets and actions
        // (a_stranger_learns_nothing_of_a_template).
        let (question, binding) = match &resolved {
            Ok(resolved) => (resolved.clone(), circumstances.proven),
            Err(Failed { binding, .. }) => (whole(template), *binding),
        };
        let question = Question { workload, template, ask, circumstances, binding, resolved: &question };
        let row = self.permitted(&question)?;
        let resolved = resolved.map_err(|failed| failed.denied)?;
        let row_ttl = self.run.get(&template.name).and_then(|slice| slice.permits.get(&row).copied());
        Ok(grant(template, ask, resolved, row, row_ttl.unwrap_or(template.ttl)))
    }

    /// The deciding permit, or why there is none.
    fn permitted(&self, question: &Question<'_>) -> Result<Permit, Denied> {
        let slice = self.run.get(&question.template.name).ok_or_else(|| Reason::NoMatch.into_denied())?;
        let issuer = self.issuer_of(question.workload).ok_or_else(|| Reason::NoMatch.into_denied())?;
        let workload = workload_entity(question.workload, issuer)?;
        let response = self.ask_cedar(slice, workload, question).map_err(failed)?;
        outcome(slice, &response, question.resolved.ttl_s)
    }

    /// The issuer, while it may vouch for workloads.
    pub(super) fn issuer_of(&self, workload: &Workload) -> Option<&Issuer> {
        let issuer = self.bundle.issuers.get(&workload.issuer)?;
        let vouches = !issuer.disabled && issuer.kind == IssuerKind::Workload && issuer.profile == workload.profile;
        vouches.then_some(issuer)
    }

    fn ask_cedar(&self, slice: &Slice, workload: Entity, question: &Question<'_>) -> Result<Response, BoxError> {
        let resource = Type::Template.uid(&question.template.name);
        let context = question.context()?;
        let request = Request::new(workload.uid(), Type::Action.uid(RUN), resource, context, None)?;
        let entities = slice.entities.clone().upsert_entities([workload], None)?;
        Ok(self.authorizer.is_authorized(&request, &slice.policies, &entities))
    }
}

type BoxError = Box<dyn std::error::Error>;

struct Question<'a> {
    workload: &'a Workload,
    template: &'a Template,
    ask: &'a Ask,
    circumstances: Circumstances,
    binding: BindingKind,
    resolved: &'a Resolved,
}

impl Question<'_> {
    /// The context of `run`: policies.md section 4.
    fn context(&self) -> Result<Context, BoxError> {
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let asked = self.resolved.asked.iter().map(|(target, action)| text(&format!("{target}#{action}")));
        let mut pairs = vec![
            ("ttl".to_owned(), RestrictedExpression::new_long(self.resolved.ttl_s.into())),
            ("kind".to_owned(), text(self.resolved.kind)),
            ("binding".to_owned(), text(self.binding.as_str())),
            ("age_s".to_owned(), RestrictedExpression::new_long(self.circumstances.evidence_age_s)),
            ("ask".to_owned(), RestrictedExpression::new_set(asked)),
        ];
        pairs.extend(self.ask.ticket.as_deref().map(|ticket| ("ticket".to_owned(), text(ticket))));
        Ok(Context::from_pairs(pairs)?)
    }
}

/// The workload as Cedar sees it. A claim that its issuer no longer declares is not seen; one of
/// another type than declared is an error, and an error denies.
pub(super) fn workload_entity(workload: &Workload, issuer: &Issuer) -> Result<Entity, Denied> {
    let mut record = Vec::new();
    for (name, value) in &workload.claims {
        let Some(rule) = issuer.claims.get(name) else { continue };
        let expression = expression(value, rule.kind);
        let expression =
            expression.ok_or_else(|| policy_error(format!("claim `{name}` is of another type than declared")))?;
        record.push((name.clone(), expression));
    }
    let record = RestrictedExpression::new_record(record).map_err(|error| policy_error(error.to_string()))?;
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let attributes = HashMap::from([
        ("issuer".to_owned(), text(&workload.issuer)),
        ("profile".to_owned(), text(&workload.profile)),
        ("untrusted".to_owned(), RestrictedExpression::new_bool(workload.untrusted)),
        (workload.profile.to_string(), record),
    ]);
    let uid: EntityUid = Type::Workload.uid(&workload.principal);
    Entity::new(uid, attributes, HashSet::new()).map_err(|error| policy_error(error.to_string()))
}

fn expression(value: &ClaimValue, kind: ClaimType) -> Option<RestrictedExpression> {
    Some(match (value, kind) {
        (ClaimValue::String(text), ClaimType::String) => RestrictedExpression::new_string(text.clone()),
        (ClaimValue::Bool(value), ClaimType::Bool | ClaimType::StringBool) => RestrictedExpression::new_bool(*value),
        (ClaimValue::Long(value), ClaimType::Long | ClaimType::StringLong) => RestrictedExpression::new_long(*value),
        (ClaimValue::Set(texts), ClaimType::Set) => {
            RestrictedExpression::new_set(texts.iter().cloned().map(RestrictedExpression::new_string))
        }
        _ => return None,
    })
}

/// SECURITY: Cedar skips a policy that errs, a forbid too; so any error denies
/// (t_178_a_forbid_that_errs_denies).
fn outcome(slice: &Slice, response: &Response, ttl_s: u32) -> Result<Permit, Denied> {
    let errors: Vec<_> = response.diagnostics().errors().map(ToString::to_string).collect();
    if !errors.is_empty() {
        return Err(policy_error(errors.join("; ")));
    }
    let ids: Vec<&str> = response.diagnostics().reason().map(AsRef::as_ref).collect();
    match response.decision() {
        CedarDecision::Deny if ids.is_empty() => Err(Reason::NoMatch.into_denied()),
        CedarDecision::Deny => {
            let mut policies: Vec<String> = ids.into_iter().map(str::to_owned).collect();
            policies.sort();
            Err(Denied { policies, ..Reason::Forbidden.into_denied() })
        }
        CedarDecision::Allow => {
            let given = |id: &str| slice.permits.get(id).map_or(0, |ttl| ttl.as_s().min(ttl_s));
            let best = slice.permits.keys().filter(|id| ids.contains(&&***id)).max_by(|a, b| {
                // Of two that give as much, the one whose id comes first.
                given(a).cmp(&given(b)).then_with(|| b.cmp(a))
            });
            best.cloned().ok_or_else(|| policy_error("a permit of no template applied".into()))
        }
    }
}

fn grant(template: &Template, ask: &Ask, resolved: Resolved, row: Permit, row_ttl: dayfly_domain::Span) -> Grant {
    Grant {
        template: template.name.clone(),
        purpose: template.purpose.as_str().into(),
        owner: template.owner.clone(),
        environment: template.environment.clone(),
        grants: template.grants.clone(),
        asked_ttl_s: ask.ttl_s.filter(|_| resolved.target.is_some()),
        target: resolved.target,
        row,
        row_ttl,
        deadline: template.deadline,
        per_job: template.per_job,
        ticket: ask.ticket.clone(),
    }
}

fn failed(error: BoxError) -> Denied {
    policy_error(error.to_string())
}

fn policy_error(inside: String) -> Denied {
    Denied { inside: Some(inside), ..Reason::Policy.into_denied() }
}

/// A denial with nothing but its reason.
pub(super) trait IntoDenied {
    fn into_denied(self) -> Denied;
}

impl IntoDenied for Reason {
    fn into_denied(self) -> Denied {
        Denied { reason: self, policies: Vec::new(), hint: None, inside: None }
    }
}
