//! One question per exchange: may this workload run this template? Default deny; a forbid that
//! matches denies, and so does any error (law L4).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use cedar_policy::{
    Context, Decision as CedarDecision, Entity, EntityUid, PolicySet, Request, Response, RestrictedExpression,
};
use dayfly_domain::{
    BindingKind, ClaimType, ClaimValue, Reason, Span, Workload,
    bundle::{Bundle, Issuer, IssuerKind, Template},
};

use super::{
    Ask, Circumstances, Decision, Denied, Grant, Policy,
    mention::Mentioned,
    names::{RUN, Type},
    resolve::{Failed, Resolved, resolve, whole},
    slice::RunSlice,
};

/// The id of the permit that decides.
type Permit = Arc<str>;

impl Policy {
    pub fn decide(&self, workload: &Workload, ask: &Ask, circumstances: Circumstances<'_>) -> Decision {
        match self.judge(workload, ask, circumstances) {
            Ok(grant) => Decision::Permit(grant),
            Err(denied) => Decision::Deny(denied),
        }
    }

    fn judge(&self, workload: &Workload, ask: &Ask, circumstances: Circumstances<'_>) -> Result<Grant, Denied> {
        let template = self.bundle.templates.get(ask.template.as_str()).filter(|template| !template.disabled);
        let template = template.ok_or_else(|| Reason::NoMatch.into_denied())?;
        let resolved = match resolve(&self.bundle, template, ask, circumstances.proven) {
            Ok(resolved) => resolved,
            Err(failed) => return Err(self.told(workload, template, ask, circumstances, failed)),
        };
        let binding = circumstances.proven;
        let question =
            Question { bundle: &self.bundle, workload, template, ask, circumstances, binding, resolved: &resolved };
        let slice = self.slice(template)?;
        let row = self.permitted(slice, &slice.written, &question)?;
        let row_ttl = slice.permits.get(&row).copied();
        Ok(grant(template, ask, resolved, row, row_ttl.unwrap_or(template.ttl)))
    }

    /// What is wrong with an ask, for whoever has a permit; to everyone else there is no template.
    // SECURITY: whoever may not run the template learns nothing of its targets and actions
    // (a_stranger_learns_nothing_of_a_template). Forbids are not asked: nothing is granted here.
    fn told(
        &self,
        workload: &Workload,
        template: &Template,
        ask: &Ask,
        circumstances: Circumstances<'_>,
        failed: Failed,
    ) -> Denied {
        let Failed { denied, asked, binding } = failed;
        let resolved = &asked.map_or_else(|| whole(template), |asked| *asked);
        let question = Question { bundle: &self.bundle, workload, template, ask, circumstances, binding, resolved };
        let entitled = self.slice(template).and_then(|slice| self.permitted(slice, &slice.entitling, &question));
        entitled.err().unwrap_or(denied)
    }

    fn slice(&self, template: &Template) -> Result<&RunSlice, Denied> {
        self.run.get(&template.name).ok_or_else(|| Reason::NoMatch.into_denied())
    }

    /// The deciding permit out of the rows that can match and `written`, or why there is none. They
    /// are asked apart: a permit applies, or a forbid does, whatever stands beside it.
    fn permitted(&self, slice: &RunSlice, written: &PolicySet, question: &Question<'_>) -> Result<Permit, Denied> {
        let issuer = self.issuer_of(question.workload).ok_or_else(|| Reason::NoMatch.into_denied())?;
        let workload = workload_entity(question.workload, issuer, &slice.mentioned)?;
        let uid = workload.uid();
        let entities =
            slice.entities.clone().upsert_entities([workload], None).map_err(|error| failed(error.into()))?;
        let request = question.request(uid).map_err(failed)?;
        let mut outcome = Outcome::default();
        for rows in slice.rows.candidates(question.workload) {
            let rows = rows.as_ref().map_err(|error| policy_error(error.to_string()))?;
            outcome.add(&self.authorizer.is_authorized(&request, rows, &entities));
        }
        outcome.add(&self.authorizer.is_authorized(&request, written, &entities));
        let lapsed = outcome.permits.extract_if(.., |id| self.is_lapsed(id)).count();
        outcome.permit(&slice.permits, question.resolved.ttl_s).map_err(|denied| match denied.reason {
            Reason::NoMatch if lapsed > 0 => Self::denied_by_lapse(),
            _ => denied,
        })
    }

    /// What is asked, as the record keeps it: seconds, and `target#action` of each action; of an ask
    /// that cannot be resolved the seconds alone.
    pub fn asked(&self, ask: &Ask) -> (i64, Vec<String>) {
        let Some(template) = self.bundle.templates.get(ask.template.as_str()) else {
            return (ask.ttl_s.map_or(0, i64::from), Vec::new());
        };
        let resolved = match resolve(&self.bundle, template, ask, BindingKind::Bearer) {
            Ok(resolved) => resolved,
            Err(Failed { asked: Some(resolved), .. }) => *resolved,
            Err(_) => return (i64::from(ask.ttl_s.unwrap_or(template.ttl.as_s())), Vec::new()),
        };
        let pairs = resolved.asked.iter().map(|(target, action)| format!("{target}#{action}"));
        (i64::from(resolved.ttl_s), pairs.collect())
    }

    /// Whether a policy that decides on this template looks at what the job holds.
    pub fn reads_held(&self, template: &str) -> bool {
        self.run.get(template).is_some_and(|slice| slice.reads_held)
    }

    /// The issuer, while it may vouch for workloads.
    pub(super) fn issuer_of(&self, workload: &Workload) -> Option<&Issuer> {
        let issuer = self.bundle.issuers.get(&workload.issuer)?;
        let vouches = !issuer.disabled && issuer.kind == IssuerKind::Workload && issuer.profile == workload.profile;
        vouches.then_some(issuer)
    }
}

type BoxError = Box<dyn std::error::Error>;

struct Question<'a> {
    bundle: &'a Bundle,
    workload: &'a Workload,
    template: &'a Template,
    ask: &'a Ask,
    circumstances: Circumstances<'a>,
    binding: BindingKind,
    resolved: &'a Resolved,
}

impl Question<'_> {
    fn request(&self, workload: EntityUid) -> Result<Request, BoxError> {
        let resource = Type::Template.uid(&self.template.name);
        Ok(Request::new(workload, Type::Action.uid(RUN), resource, self.context()?, None)?)
    }

    /// The context of `run`: policies.md section 4.
    fn context(&self) -> Result<Context, BoxError> {
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let asked = self.resolved.asked.iter().map(|(target, action)| text(&format!("{target}#{action}")));
        let held = self.circumstances.held;
        let mut pairs = vec![
            ("ttl".to_owned(), RestrictedExpression::new_long(self.resolved.ttl_s.into())),
            ("kind".to_owned(), text(self.resolved.kind)),
            ("binding".to_owned(), text(self.binding.as_str())),
            ("age_s".to_owned(), RestrictedExpression::new_long(self.circumstances.evidence_age_s)),
            ("ask".to_owned(), RestrictedExpression::new_set(asked)),
            ("ask_tags".to_owned(), self.tags(self.resolved.asked.iter().map(|(target, _)| target.as_str()))),
            ("held".to_owned(), RestrictedExpression::new_set(held.iter().map(|held| text(held)))),
            ("held_tags".to_owned(), self.tags(held.iter().map(|held| target_of(held)))),
        ];
        pairs.extend(self.ask.ticket.as_deref().map(|ticket| ("ticket".to_owned(), text(ticket))));
        Ok(Context::from_pairs(pairs)?)
    }

    /// The tags of targets, by name.
    fn tags<'a>(&self, targets: impl Iterator<Item = &'a str>) -> RestrictedExpression {
        let tags: BTreeSet<_> =
            targets.filter_map(|name| self.bundle.targets.get(name)).flat_map(|at| &at.tags).collect();
        RestrictedExpression::new_set(tags.into_iter().map(|tag| RestrictedExpression::new_string(tag.to_string())))
    }
}

/// Of `target#action`: neither has a `#` in it.
fn target_of(held: &str) -> &str {
    held.split_once('#').map_or(held, |(target, _)| target)
}

/// The workload as a slice's policies see it: of its claims those that they name. A claim that its
/// issuer no longer declares is not seen; one of another type than declared is an error, and an error
/// denies.
pub(super) fn workload_entity(workload: &Workload, issuer: &Issuer, seen: &Mentioned) -> Result<Entity, Denied> {
    let mut record = Vec::new();
    for (name, value) in &workload.claims {
        let Some(rule) = issuer.claims.get(name) else { continue };
        if !is_of(value, rule.kind) {
            return Err(policy_error(format!("claim `{name}` is of another type than declared")));
        }
        if seen.shows(&workload.profile, name) {
            record.push((name.clone(), expression(value)));
        }
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

pub(super) fn is_of(value: &ClaimValue, kind: ClaimType) -> bool {
    matches!(
        (value, kind),
        (ClaimValue::String(_), ClaimType::String)
            | (ClaimValue::Bool(_), ClaimType::Bool | ClaimType::StringBool)
            | (ClaimValue::Long(_), ClaimType::Long | ClaimType::StringLong)
            | (ClaimValue::Set(_), ClaimType::Set)
    )
}

fn expression(value: &ClaimValue) -> RestrictedExpression {
    match value {
        ClaimValue::String(text) => RestrictedExpression::new_string(text.clone()),
        ClaimValue::Bool(value) => RestrictedExpression::new_bool(*value),
        ClaimValue::Long(value) => RestrictedExpression::new_long(*value),
        ClaimValue::Set(texts) => {
            RestrictedExpression::new_set(texts.iter().cloned().map(RestrictedExpression::new_string))
        }
    }
}

/// What all policies that were asked say together.
#[derive(Debug, Default)]
struct Outcome {
    permits: Vec<String>,
    forbids: Vec<String>,
    errors: Vec<String>,
}

impl Outcome {
    fn add(&mut self, response: &Response) {
        let diagnostics = response.diagnostics();
        self.errors.extend(diagnostics.errors().map(ToString::to_string));
        let ids = diagnostics.reason().map(ToString::to_string);
        match response.decision() {
            CedarDecision::Allow => self.permits.extend(ids),
            CedarDecision::Deny => self.forbids.extend(ids),
        }
    }

    /// SECURITY: Cedar skips a policy that errs, a forbid too; so any error denies
    /// (t_178_a_forbid_that_errs_denies).
    fn permit(mut self, given: &HashMap<Permit, Span>, ttl_s: u32) -> Result<Permit, Denied> {
        if !self.errors.is_empty() {
            return Err(policy_error(self.errors.join("; ")));
        }
        if !self.forbids.is_empty() {
            self.forbids.sort();
            return Err(Denied { policies: self.forbids, ..Reason::Forbidden.into_denied() });
        }
        let applying = self.permits.iter().filter_map(|id| given.get_key_value(id.as_str()));
        let best = applying.max_by(|(a, longest_a), (b, longest_b)| {
            let given = |longest: &Span| longest.as_s().min(ttl_s);
            // Of two that give as much, the one whose id comes first.
            given(longest_a).cmp(&given(longest_b)).then_with(|| b.cmp(a))
        });
        match best {
            Some((id, _)) => Ok(id.clone()),
            None if self.permits.is_empty() => Err(Reason::NoMatch.into_denied()),
            None => Err(policy_error("a permit of no template applied".into())),
        }
    }
}

fn grant(template: &Template, ask: &Ask, resolved: Resolved, row: Permit, row_ttl: Span) -> Grant {
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
        keys_per_job: template.keys_per_job,
        ticket: ask.ticket.clone(),
        serves: template.serves.clone(),
        leaf: template.leaf.clone(),
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

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
