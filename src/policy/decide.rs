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

/// The workload as a slice's policies see it: of its claims those that they name. A claim that its issuer no longer declares is not seen; one of
/// another type than declared is an error, and an error denies.
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
mod tests {
    use dayfly_domain::Kind;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{
        What,
        fixture::{PRODUCTION, SHOP, STAGING_URI, ask, bearer, decide, main_job, policy, with, with_cedar, workload},
    };

    fn shop() -> Policy {
        policy(&[("shop.toml", SHOP), ("production.cedar", PRODUCTION)]).unwrap()
    }

    fn credential(resource: Option<&str>, actions: Option<&[&str]>) -> Ask {
        let actions = actions.map(|actions| actions.iter().map(|action| (*action).to_owned()).collect());
        let what = What::Credential { kind: Kind::Jwt, resource: resource.map(str::to_owned), actions };
        Ask { what, ..ask("deploy-staging") }
    }

    fn reason(outcome: Result<Grant, Denied>) -> Reason {
        outcome.expect_err("permitted").reason
    }

    #[test]
    fn a_row_that_matches_grants_what_its_template_grants() {
        let grant = bearer(&shop(), &main_job("staging"), &credential(None, None)).unwrap();
        let target = grant.target().unwrap();
        assert_eq!((&*target.uri, target.actions.len(), target.max_ttl.as_s()), (STAGING_URI, 2, 1800));
        assert_eq!((&**grant.row(), grant.row_ttl().as_s(), grant.asked_ttl_s()), ("shop-staging-main", 900, None));
        assert_eq!((grant.deadline().as_s(), grant.per_job(), grant.owner().as_str()), (3600, 16, "team-shop"));
        let narrowed = bearer(&shop(), &main_job("staging"), &credential(Some(STAGING_URI), Some(&["deploy:status"])));
        assert_eq!(narrowed.unwrap().target().unwrap().actions.len(), 1);
    }

    #[test]
    fn a_task_alone_is_no_credential() {
        let grant =
            bearer(&shop(), &main_job("staging"), &Ask { what: What::TaskOnly, ..ask("deploy-staging") }).unwrap();
        assert_eq!((grant.target(), grant.grants().len()), (None, 1));
    }

    #[test]
    fn every_claim_of_a_row_must_be_there() {
        let whole = main_job("staging");
        for claim in ["repository_id", "ref", "environment"] {
            let mut without = whole.clone();
            without.claims.remove(claim);
            assert_eq!(reason(bearer(&shop(), &without, &ask("deploy-staging"))), Reason::NoMatch, "{claim}");
            let mut other = whole.clone();
            other.claims.insert(claim.into(), ClaimValue::String("refs/heads/main2".into()));
            assert_eq!(reason(bearer(&shop(), &other, &ask("deploy-staging"))), Reason::NoMatch, "{claim}");
        }
    }

    #[test]
    fn unreviewed_code_matches_only_rows_for_it() {
        let fork = Workload { untrusted: true, ..main_job("staging") };
        assert_eq!(reason(bearer(&shop(), &fork, &ask("deploy-staging"))), Reason::NoMatch);
        let text = SHOP.replacen("id     = \"shop-staging-main\"", "id = \"shop-staging-main\"\nuntrusted = true", 1);
        let actions = "actions     = [\"deploy:create\", \"deploy:status\"]";
        let text = text.replacen(actions, &format!("{actions}\n{}", actions.replacen("actions", "reads", 1)), 1);
        let open = policy(&[("shop.toml", &text)]).unwrap();
        assert!(bearer(&open, &fork, &ask("deploy-staging")).is_ok());
        assert!(bearer(&open, &main_job("staging"), &ask("deploy-staging")).is_ok());
    }

    #[test]
    fn evidence_of_another_issuer_or_profile() {
        let other = Workload { issuer: "gitlab".parse().unwrap(), ..main_job("staging") };
        assert_eq!(reason(bearer(&shop(), &other, &ask("deploy-staging"))), Reason::NoMatch);
        let other = Workload { profile: "oidc".parse().unwrap(), ..main_job("staging") };
        assert_eq!(reason(bearer(&shop(), &other, &ask("deploy-staging"))), Reason::NoMatch);
    }

    #[test]
    fn a_stranger_learns_nothing_of_a_template() {
        let stranger = workload(&[("repository_id", "0000001"), ("event_name", "push")]);
        for bad in [
            credential(Some("https://nowhere.example"), None),
            credential(None, Some(&["db:drop"])),
            credential(None, Some(&[])),
            Ask { ttl_s: Some(0), ..credential(None, None) },
            ask("deploy-prod"),
            ask("no-such-template"),
        ] {
            let denied = bearer(&shop(), &stranger, &bad).unwrap_err();
            assert_eq!((denied.reason, denied.hint), (Reason::NoMatch, None), "{bad:?}");
        }
    }

    #[test]
    fn a_forbid_does_not_hide_what_is_wrong_with_an_ask() {
        let job = main_job("production");
        let asked = Ask { template: "deploy-prod".to_owned(), ..credential(Some("https://nowhere.example"), None) };
        assert_eq!(reason(bearer(&shop(), &job, &asked)), Reason::Target);
        assert_eq!(shop().asked(&asked).1, Vec::<String>::new(), "the record does not invent an ask");
    }

    #[test]
    fn who_may_run_it_is_told_what_is_wrong() {
        let job = main_job("staging");
        let denied = bearer(&shop(), &job, &credential(Some("https://nowhere.example"), None)).unwrap_err();
        assert_eq!(denied.reason, Reason::Target);
        assert!(denied.hint.unwrap().contains(STAGING_URI));
        let many: Vec<_> = (0..33).map(|_| "deploy:status").collect();
        for actions in [&["db:drop"][..], &[], &["deploy:status", "deploy:status"], &many] {
            assert_eq!(reason(bearer(&shop(), &job, &credential(None, Some(actions)))), Reason::Details);
        }
        let no_time = Ask { ttl_s: Some(0), ..credential(None, None) };
        assert_eq!(reason(bearer(&shop(), &job, &no_time)), Reason::Details);
        let certificate = What::Credential { kind: Kind::X509, resource: None, actions: None };
        assert_eq!(reason(bearer(&shop(), &job, &Ask { what: certificate, ..ask("deploy-staging") })), Reason::Target);
    }

    #[test]
    fn several_targets_and_none_picked() {
        let two = SHOP.replacen(
            "grants    = { shop-staging = [\"deploy:create\", \"deploy:status\"] }",
            "grants = { shop-staging = [\"deploy:status\"], other = [\"x\"] }",
            1,
        );
        let two = format!(
            "{two}\n[target.other]\nuri=\"https://other.example\"\nenvironment=\"staging\"\nowner=\"team-shop\"\n\
            binding=\"mtls\"\nverifies=\"introspect\"\nactions=[\"x\"]\n"
        );
        let policy = policy(&[("shop.toml", &two)]).unwrap();
        let denied = bearer(&policy, &main_job("staging"), &credential(None, None)).unwrap_err();
        assert_eq!(denied.reason, Reason::Target);
        assert!(denied.hint.unwrap().contains("https://other.example, https://deploy.staging"));
        assert!(bearer(&policy, &main_job("staging"), &credential(Some(STAGING_URI), None)).is_ok());
        let mtls = bearer(&policy, &main_job("staging"), &credential(Some("https://other.example"), None));
        assert_eq!(reason(mtls), Reason::Target);
    }

    #[test]
    fn a_bearer_token_where_a_key_must_be_bound() {
        let job = main_job("production");
        assert_eq!(reason(bearer(&shop(), &job, &ask("deploy-prod"))), Reason::Dpop);
        let bound = decide(&shop(), &job, &ask("deploy-prod"), BindingKind::Dpop).unwrap();
        assert_eq!(bound.target().unwrap().binding, BindingKind::Dpop);
        let alone = bearer(&shop(), &job, &Ask { what: What::TaskOnly, ..ask("deploy-prod") }).unwrap_err();
        assert_eq!((alone.reason, alone.policies), (Reason::Forbidden, vec!["production-is-bound".to_owned()]));
    }

    #[test]
    fn a_disabled_target() {
        let text = SHOP.replacen("[target.shop-staging]", "[target.shop-staging]\ndisabled = true", 1);
        let policy = policy(&[("shop.toml", &text)]).unwrap();
        assert_eq!(reason(bearer(&policy, &main_job("staging"), &ask("deploy-staging"))), Reason::Target);
    }

    #[test]
    fn t_178_a_forbid_that_errs_denies() {
        // Validation cannot see an overflow.
        let forbid = r#"@id("a") @purpose("b") forbid (principal, action == Dayfly::Action::"run", resource)
            when { context.ttl * 9223372036854775807 > 5 };"#;
        let denied = bearer(&with_cedar(forbid).unwrap(), &main_job("staging"), &ask("deploy-staging")).unwrap_err();
        assert_eq!(denied.reason, Reason::Policy);
        assert!(denied.inside.unwrap().contains("overflow"));
    }

    #[test]
    fn a_claim_of_another_type_than_declared_denies() {
        let mut job = main_job("staging");
        job.claims.insert("run_id".into(), ClaimValue::Long(7));
        assert_eq!(reason(bearer(&shop(), &job, &ask("deploy-staging"))), Reason::Policy);
    }

    #[test]
    fn t_176_claim_values_never_become_policy_text() {
        let evil = "x\" || true };\npermit (principal, action, resource) when { \"\" == \"";
        let mut job = main_job(evil);
        assert_eq!(reason(bearer(&shop(), &job, &ask("deploy-staging"))), Reason::NoMatch);
        job.principal = format!("github/{evil}").into();
        assert_eq!(reason(bearer(&shop(), &job, &ask("deploy-staging"))), Reason::NoMatch);
        let row = SHOP.replacen(
            "environment = \"staging\" }\n\n[[test",
            &format!("environment = '''{evil}''' }}\n\n[[test"),
            1,
        );
        let policy = policy(&[("shop.toml", &row)]).unwrap();
        assert!(bearer(&policy, &job, &ask("deploy-staging")).is_ok());
        assert_eq!(reason(bearer(&policy, &main_job("staging"), &ask("deploy-staging"))), Reason::NoMatch);
    }

    #[test]
    fn the_context_of_run() {
        let forbid = r#"@id("a") @purpose("b") forbid (principal, action == Dayfly::Action::"run", resource)
            unless { context.ttl == 60 && context.kind == "jwt" && context.binding == "bearer" && context.age_s == 3 &&
                     context has ticket && context.ticket == "OPS-1" && context.ask == ["shop-staging#deploy:status"] &&
                     resource.owner == "team-shop" };"#;
        let policy = with_cedar(forbid).unwrap();
        let ask = Ask { ttl_s: Some(60), ticket: Some("OPS-1".into()), ..credential(None, Some(&["deploy:status"])) };
        let grant = bearer(&policy, &main_job("staging"), &ask).unwrap();
        assert_eq!((grant.asked_ttl_s(), grant.ticket()), (Some(60), Some("OPS-1")));
        let whole = Ask { what: What::TaskOnly, ..ask };
        assert_eq!(reason(bearer(&policy, &main_job("staging"), &whole)), Reason::Forbidden);
    }

    #[test]
    fn what_is_held_and_the_tags_of_targets() {
        let tagged = SHOP.replacen("verifies    =", "tags = [\"pci\", \"live\"]\nverifies    =", 1).replacen(
            "[target.shop-staging]",
            "[target.shop-staging]\ntags = [\"outside\"]",
            1,
        );
        let decides = |condition: &str, held: &[&str]| {
            let cedar = format!(
                "@id(\"a\") @purpose(\"b\") forbid (principal, action == Dayfly::Action::\"run\", resource) unless {{ {condition} }};"
            );
            let policy = policy(&[("shop.toml", &tagged), ("more.cedar", &cedar)]).unwrap();
            assert_eq!(policy.reads_held("deploy-staging"), condition.contains("held"));
            let held: Vec<_> = held.iter().map(|held| (*held).to_owned()).collect();
            let now = Circumstances { held: &held, ..with(BindingKind::Bearer) };
            matches!(policy.decide(&main_job("staging"), &ask("deploy-staging"), now), Decision::Permit(_))
        };
        let prod = "shop-production#deploy:create";
        assert!(decides("context.held.isEmpty() && context.held_tags.isEmpty()", &[]));
        assert!(decides("context.ask_tags == [\"outside\"]", &[]));
        assert!(decides(&format!("context.held == [\"{prod}\"] && context.held_tags == [\"live\", \"pci\"]"), &[prod]));
        // What a job held may be gone from the bundle: it has no tags any more.
        assert!(decides("context.held_tags.isEmpty() && !context.held.isEmpty()", &["gone#x"]));
        assert!(!decides("!(context.ask_tags.contains(\"outside\") && context.held_tags.contains(\"pci\"))", &[prod]));
    }

    #[test]
    fn t_178_a_forbid_over_an_attribute_that_may_be_missing() {
        // Refused when it is loaded, and when it is asked all the same.
        let condition = "when { principal.github.sha == \"x\" }";
        let forbid = format!(
            "@id(\"a\") @purpose(\"b\") forbid (principal is Dayfly::Workload, action == Dayfly::Action::\"run\", resource) {condition};"
        );
        assert!(with_cedar(&forbid).unwrap_err().contains("github"));
        let mut policy = shop();
        let forbid = cedar_policy::Policy::parse(Some(cedar_policy::PolicyId::new("a")), forbid).unwrap();
        policy.run.get_mut("deploy-staging").unwrap().written.add(forbid).unwrap();
        let denied = bearer(&policy, &main_job("staging"), &ask("deploy-staging")).unwrap_err();
        assert_eq!(denied.reason, Reason::Policy);
        assert!(denied.inside.unwrap().contains("sha"));
    }

    #[test]
    fn the_longest_of_the_permits_decides_and_ties_go_by_id() {
        let rows = [
            ("b-long", "15m", ", event_name = \"push\""),
            ("a-long", "15m", ", environment = \"staging\""),
            ("c-short", "5m", ""),
        ]
        .map(|(id, ttl, more)| {
            format!("\n[[task.deploy-staging.allow]]\nid = \"{id}\"\nttl = \"{ttl}\"\nissuer = \"github\"\nclaims = {{ repository_id = \"0088120\"{more} }}\n")
        });
        let elsewhere =
            SHOP.replacen("environment = \"staging\" }\n\n[[test", "environment = \"elsewhere\" }\n\n[[test", 1);
        let policy = policy(&[("shop.toml", &format!("{elsewhere}{}", rows.concat()))]).unwrap();
        let deciding = |ttl_s| bearer(&policy, &main_job("staging"), &Ask { ttl_s, ..ask("deploy-staging") }).unwrap();
        assert_eq!((&**deciding(None).row(), deciding(None).row_ttl().as_s()), ("a-long", 900));
        assert_eq!(&**deciding(Some(300)).row(), "a-long");
        assert_eq!(deciding(Some(100_000)).asked_ttl_s(), Some(100_000));
    }

    /// A small world of templates, rows and forbids.
    fn world() -> impl Strategy<Value = (String, String)> {
        let row = (0..3usize, 0..3usize, any::<bool>());
        let forbid = (0..6usize, 0..3usize);
        (prop::collection::vec(row, 0..6), prop::collection::vec(forbid, 0..5)).prop_map(|(rows, forbids)| {
            let mut toml = SHOP.split("[task.").next().unwrap_or_default().replace("\nactions ", "\nreads = [\"deploy:status\"]\nactions ");
            for template in 0..3 {
                let target = if template == 0 { "shop-production" } else { "shop-staging" };
                toml.push_str(&format!("\n[task.t{template}]\npurpose=\"p\"\nowner=\"team-shop\"\nttl=\"15m\"\nreview_by=2027-01-01\ngrants={{ {target} = [\"deploy:status\"] }}\n"));
            }
            for (index, (template, reference, untrusted)) in rows.into_iter().enumerate() {
                toml.push_str(&format!("\n[[task.t{template}.allow]]\nid=\"r{index}\"\nissuer=\"github\"\nuntrusted={untrusted}\nclaims={{ ref = \"r{reference}\", environment = \"e\", run_id = [\"1\", \"x{index}\"] }}\n"));
            }
            let cedar = forbids.into_iter().enumerate().map(|(index, (scope, reference))| {
                let resource = [
                    "resource", "resource == Dayfly::Template::\"t0\"", "resource in Dayfly::Template::\"t1\"",
                    "resource in Dayfly::Environment::\"staging\"", "resource is Dayfly::Template",
                    "resource is Dayfly::Template in Dayfly::Environment::\"production\"",
                ][scope];
                format!("@id(\"f{index}\") @purpose(\"p\") forbid (principal is Dayfly::Workload, action == Dayfly::Action::\"run\", {resource})\n\
                    when {{ principal has github && principal.github has sha && principal.github.sha == \"s{reference}\" }};\n")
            });
            (toml, cedar.collect())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_slice_never_changes_a_decision((toml, cedar) in world(), template in 0..3, reference in 0..3, sha in 0..3, untrusted: bool) {
            let sliced = policy(&[("shop.toml", &toml), ("more.cedar", &cedar)]).unwrap();
            let mut whole = policy(&[("shop.toml", &toml), ("more.cedar", &cedar)]).unwrap();
            whole.unslice();
            let (environment, run) = ("e".to_owned(), "1".to_owned());
            let claims =
                [("ref", format!("r{reference}")), ("sha", format!("s{sha}")), ("environment", environment), ("run_id", run)];
            let claims = claims.each_ref().map(|(name, value)| (*name, value.as_str()));
            let job = Workload { untrusted, ..workload(&claims) };
            let ask = ask(&format!("t{template}"));
            for proven in [BindingKind::Bearer, BindingKind::Dpop] {
                prop_assert_eq!(decide(&sliced, &job, &ask, proven), decide(&whole, &job, &ask, proven));
            }
        }
    }
}
