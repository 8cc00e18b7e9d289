//! A checked bundle in, everything that a decision needs out: rows as Cedar permits, the policies
//! written by hand, a schema they are validated against, and slices, so that no decision ever
//! evaluates a policy that cannot match it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use cedar_policy::{
    ActionConstraint, Authorizer, Entities, Entity, EntityUid, Policy as Cedar, PolicyId, PolicySet,
    PrincipalConstraint, ResourceConstraint, RestrictedExpression, Schema, ValidationMode, ValidationWarning,
    Validator,
};
use dayfly_domain::{
    Name, Span, UnixMs,
    bundle::{BROKER_ACTIONS, Bundle, Issuer, Problem, Profile, Row, Target, Template},
};

use super::{
    lapse::Lapsed,
    mention::Mentioned,
    names::{RUN, Type},
    row, schema,
    slice::{RightsSlice, Rows, RunSlice},
    written::{self, Role, Written},
};

/// A bundle that is ready to decide. Immutable; swapped as a whole.
#[derive(Debug)]
pub struct Policy {
    pub(super) bundle: Arc<Bundle>,
    schema: Arc<str>,
    pub(super) written: Arc<[Written]>,
    /// Slices for `run`, by template.
    pub(super) run: Arc<BTreeMap<Name, RunSlice>>,
    /// Slices for row-level rights, by built-in action.
    pub(super) rights: Arc<BTreeMap<&'static str, RightsSlice>>,
    pub(super) authorizer: Authorizer,
    pub(super) lapsed: Lapsed,
}

impl Policy {
    /// All problems at once. The bundle's own checks came before.
    pub fn compile(bundle: Bundle) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let written = written::read(&bundle, &mut problems);
        let permits = row_permits(&bundle, &mut problems);
        let schema = schema::text(&bundle);
        validate(&schema, one_of_each_form(&bundle, &permits), &written, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let run = bundle.templates.values().filter(|template| !template.disabled);
        let run = run
            .map(|template| Ok((template.name.clone(), run_slice(&bundle, template, &permits, &written)?)))
            .collect::<Result<_, BoxError>>();
        let rights = BROKER_ACTIONS.into_iter().map(|action| Ok((action, rights_slice(&bundle, action, &written)?)));
        let rights = rights.collect::<Result<_, BoxError>>();
        match (run, rights) {
            (Ok(run), Ok(rights)) => Ok(Self {
                bundle: Arc::new(bundle),
                schema: schema.into(),
                written: written.into(),
                run: Arc::new(run),
                rights: Arc::new(rights),
                authorizer: Authorizer::new(),
                lapsed: Lapsed::default(),
            }),
            (Err(error), _) | (_, Err(error)) => Err(vec![Problem::new("bundle", "policies", error.to_string())]),
        }
    }

    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The same at another time, by what is overdue then.
    pub fn as_of(&self, at: UnixMs, grace: Span) -> Self {
        let Self { bundle, schema, written, run, rights, authorizer, lapsed: _ } = self;
        let policy = Self {
            bundle: bundle.clone(),
            schema: schema.clone(),
            written: written.clone(),
            run: run.clone(),
            rights: rights.clone(),
            authorizer: authorizer.clone(),
            lapsed: Lapsed::default(),
        };
        policy.lapse(at, grace);
        policy
    }

    /// The Cedar schema, derived from the bundle.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The Cedar text of the rows and policies: all of them, or those that a template's decisions
    /// see.
    pub fn show(&self, template: Option<&str>) -> String {
        let shown = |name: &str| template.is_none_or(|template| template == name);
        let templates = self.bundle.templates.values().filter(|template| shown(&template.name));
        let rows = templates.flat_map(|template| template.rows.iter().map(|row| self.show_row(template, row)));
        let slice = template.map(|template| self.run.get(template));
        let seen = |written: &&Written| match &slice {
            None => true,
            Some(slice) => slice.is_some_and(|slice| slice.written.policy(written.policy.id()).is_some()),
        };
        let written = self.written.iter().filter(seen).map(|written| format!("{}\n", written.policy));
        rows.chain(written).collect::<Vec<_>>().join("\n")
    }

    fn show_row(&self, template: &Template, row: &Row) -> String {
        let shown = live(&self.bundle, template, row).map(|issuer| row::text(template, row, issuer));
        shown.unwrap_or_else(|| format!("// row `{}` is disabled\n", row.id))
    }

    /// Ids of what may let a workload run a template, in order: its rows, and permits written by hand.
    pub fn permits(&self, template: &str) -> Vec<&Arc<str>> {
        let mut ids: Vec<_> = self.run.get(template).into_iter().flat_map(|slice| slice.permits.keys()).collect();
        ids.sort_unstable();
        ids
    }

    /// Whether what was opened by these is still in the bundle and not disabled.
    pub fn survives(&self, issuer: &str, template: &str, row: &str, owner: &str) -> bool {
        self.survives_issuer(issuer) && self.survives_owner(owner) && self.permits_by(template, row)
    }

    pub fn survives_issuer(&self, issuer: &str) -> bool {
        self.bundle.issuers.get(issuer).is_some_and(|issuer| !issuer.disabled)
    }

    pub fn survives_owner(&self, owner: &str) -> bool {
        self.bundle.owners.get(owner).is_some_and(|owner| !owner.disabled)
    }

    pub fn survives_template(&self, template: &str) -> bool {
        self.bundle.templates.get(template).is_some_and(|template| !template.disabled)
    }

    /// Whether the row, or a permit written by hand, still lets anybody run the template.
    pub fn permits_by(&self, template: &str, row: &str) -> bool {
        self.run.get(template).is_some_and(|slice| slice.permits.contains_key(row))
    }

    /// Every policy in every slice, and every claim, for the test that slices change nothing.
    #[cfg(test)]
    pub(super) fn unslice(&mut self) {
        let rows: Vec<_> = self.run.values().flat_map(|slice| slice.rows.permits().to_vec()).collect();
        let written = || self.written.iter().map(|one| one.policy.clone());
        let permits = || written().filter(|policy| policy.effect() == cedar_policy::Effect::Permit);
        for slice in Arc::get_mut(&mut self.run).unwrap().values_mut() {
            slice.written = PolicySet::from_policies(rows.iter().cloned().chain(written())).unwrap();
            slice.entitling = PolicySet::from_policies(rows.iter().cloned().chain(permits())).unwrap();
            slice.rows = Rows::default();
            slice.mentioned = Mentioned::everything();
        }
    }

    /// Of each profile in use the claims that things may be ended by.
    pub fn revocable(&self) -> BTreeMap<String, BTreeSet<String>> {
        let profiles = self.bundle.issuers.values().filter_map(|issuer| self.bundle.profiles.get(&issuer.profile));
        let named = |profile: &Profile| {
            let claims = profile.claims.iter().filter(|(_, rule)| rule.revocable);
            (profile.name.to_string(), claims.map(|(name, _)| name.clone()).collect())
        };
        profiles.map(named).collect()
    }

    /// Whether policies were written by hand about who may do this to a row.
    pub fn has_written_rights(&self, action: &str) -> bool {
        self.rights.get(action).is_none_or(|slice| !slice.policies.is_empty())
    }

    pub fn survives_target(&self, target: &str) -> bool {
        self.bundle.targets.get(target).is_some_and(|target| !target.disabled)
    }
}

/// The issuer of a row that is live. What is disabled is not compiled.
fn live<'a>(bundle: &'a Bundle, template: &Template, row: &Row) -> Option<&'a Issuer> {
    let issuer = bundle.issuers.get(&row.issuer).filter(|issuer| !issuer.disabled);
    issuer.filter(|_| !template.disabled && !row.disabled)
}

fn live_rows(bundle: &Bundle) -> impl Iterator<Item = (&Template, &Row, &Issuer)> {
    let rows = bundle.templates.values().flat_map(|template| template.rows.iter().map(move |row| (template, row)));
    rows.filter_map(|(template, row)| Some((template, row, live(bundle, template, row)?)))
}

fn row_permits(bundle: &Bundle, problems: &mut Vec<Problem>) -> BTreeMap<Name, Cedar> {
    let mut permits = BTreeMap::new();
    for (template, row, issuer) in live_rows(bundle) {
        match row::permit(template, row, issuer) {
            Ok(permit) => drop(permits.insert(row.id.clone(), permit)),
            Err(error) => problems.push(Problem::new("bundle", format!("row {}", row.id), error.to_string())),
        }
    }
    permits
}

/// Validation looks at types and names, not at values: of the rows that differ in values alone one
/// stands for all.
fn one_of_each_form<'a>(bundle: &Bundle, permits: &'a BTreeMap<Name, Cedar>) -> impl Iterator<Item = &'a Cedar> {
    let forms = live_rows(bundle).map(|(_, row, issuer)| (row::form(row, issuer), &row.id));
    let one: BTreeMap<_, _> = forms.collect();
    one.into_values().filter_map(|id| permits.get(id)).collect::<Vec<_>>().into_iter()
}

/// Strict validation, at load: a forbid that errs when it is asked would only deny, but would
/// deny everything.
fn validate<'a>(
    schema: &str,
    permits: impl Iterator<Item = &'a Cedar>,
    written: &'a [Written],
    problems: &mut Vec<Problem>,
) {
    let schema = match Schema::from_cedarschema_str(schema) {
        Ok((schema, _)) => schema,
        Err(error) => return problems.push(Problem::new("bundle", "schema", error.to_string())),
    };
    let paths: BTreeMap<&str, &str> = written.iter().map(|one| (one.id(), one.path.as_str())).collect();
    let policies = permits.chain(written.iter().map(|one| &one.policy)).cloned();
    let set = match PolicySet::from_policies(policies) {
        Ok(set) => set,
        Err(error) => return problems.push(Problem::new("bundle", "policies", error.to_string())),
    };
    let result = Validator::new(schema).validate(&set, ValidationMode::Strict);
    let problem = |id: &PolicyId, what: String| {
        let id: &str = id.as_ref();
        Problem::new(paths.get(id).copied().unwrap_or("bundle"), format!("policy {id}"), what)
    };
    problems.extend(result.validation_errors().map(|error| problem(error.policy_id(), error.to_string())));
    let matter = result.validation_warnings().filter(|warning| matters(warning));
    problems.extend(matter.map(|warning| problem(warning.policy_id(), warning.to_string())));
}

/// A policy that can never apply, or whose text does not read as it is.
fn matters(warning: &ValidationWarning) -> bool {
    matches!(
        warning,
        ValidationWarning::ImpossiblePolicy(_)
            | ValidationWarning::InvalidActionApplication(_)
            | ValidationWarning::BidiCharsInString(_)
            | ValidationWarning::BidiCharsInIdentifier(_)
    )
}

type BoxError = Box<dyn std::error::Error>;

fn run_slice(
    bundle: &Bundle,
    template: &Template,
    permits: &BTreeMap<Name, Cedar>,
    written: &[Written],
) -> Result<RunSlice, BoxError> {
    let rows = template.rows.iter().filter_map(|row| Some((row, permits.get(&row.id)?)));
    let by_hand = written.iter().filter(|one| one.role == Role::Run(template.name.clone()));
    let forbids = written.iter().filter(|one| one.role == Role::Forbid && can_match_run(&one.policy, template));
    let ttls = rows.clone().map(|(row, _)| (Arc::from(row.id.as_str()), row.ttl.min(template.ttl)));
    let ttls = ttls.chain(by_hand.clone().map(|one| (Arc::from(one.id()), template.ttl))).collect();
    let seeing: Vec<_> = by_hand.clone().chain(forbids).collect();
    let policies: Vec<_> = seeing.iter().map(|one| one.policy.clone()).collect();
    let claims = rows.clone().flat_map(|(row, _)| row.claims.keys().cloned());
    let is_set = |row: &Row, claim: &str| bundle.issuers.get(&row.issuer).is_some_and(|at| row::is_set(at, claim));
    Ok(RunSlice {
        entities: seen_by(bundle, &policies, Type::Template.uid(&template.name))?,
        mentioned: Mentioned::all(seeing.iter().map(|one| &one.mentioned)).and(claims),
        reads_held: seeing.iter().any(|one| one.reads_held),
        written: PolicySet::from_policies(policies)?,
        entitling: PolicySet::from_policies(by_hand.map(|one| one.policy.clone()))?,
        rows: Rows::of(rows.map(|(row, permit)| (row, permit.clone())), is_set),
        permits: ttls,
    })
}

fn rights_slice(bundle: &Bundle, action: &str, written: &[Written]) -> Result<RightsSlice, BoxError> {
    let action = Type::Action.uid(action);
    let matching: Vec<_> = written.iter().filter(|one| can_match_action(&one.policy, &action)).collect();
    let policies: Vec<_> = matching.iter().map(|one| one.policy.clone()).collect();
    Ok(RightsSlice {
        entities: seen_by(bundle, &policies, Type::Target.uid(dayfly_domain::bundle::BROKER))?,
        mentioned: Mentioned::all(matching.iter().map(|one| &one.mentioned)),
        policies: PolicySet::from_policies(policies)?,
    })
}

fn seen_by(bundle: &Bundle, policies: &[Cedar], resource: EntityUid) -> Result<Entities, BoxError> {
    let seen = [resource].into_iter().chain(policies.iter().flat_map(Cedar::entity_literals)).collect();
    Ok(Entities::from_entities(entities(bundle, seen)?, None)?)
}

/// Whether the policy's scope leaves room for `run` of this template.
fn can_match_run(policy: &Cedar, template: &Template) -> bool {
    let run = Type::Action.uid(RUN);
    let itself = Type::Template.uid(&template.name);
    let environment = Type::Environment.uid(&template.environment);
    let above = |uid: &EntityUid| *uid == itself || *uid == environment;
    let resource = match policy.resource_constraint() {
        ResourceConstraint::Any => true,
        ResourceConstraint::Eq(uid) => uid == itself,
        ResourceConstraint::In(uid) => above(&uid),
        ResourceConstraint::Is(kind) => kind == *Type::Template.name(),
        ResourceConstraint::IsIn(kind, uid) => kind == *Type::Template.name() && above(&uid),
    };
    let principal = match policy.principal_constraint() {
        PrincipalConstraint::Any => true,
        PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) => Type::Workload.is_of(&uid),
        PrincipalConstraint::Is(kind) | PrincipalConstraint::IsIn(kind, _) => kind == *Type::Workload.name(),
    };
    resource && principal && can_match_action(policy, &run)
}

fn can_match_action(policy: &Cedar, action: &EntityUid) -> bool {
    match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::Eq(uid) => uid == *action,
        // There are no groups of actions.
        ActionConstraint::In(uids) => uids.contains(action),
    }
}

/// The bundle's entities among `seen`, with their environments.
fn entities(bundle: &Bundle, seen: Vec<EntityUid>) -> Result<Vec<Entity>, BoxError> {
    let mut done = BTreeSet::new();
    let mut entities = Vec::new();
    for uid in seen {
        let id = uid.id().unescaped();
        let entity = if Type::Template.is_of(&uid) {
            bundle.templates.get(id).map(template_entity)
        } else if Type::Target.is_of(&uid) {
            bundle.targets.get(id).map(target_entity)
        } else if Type::Environment.is_of(&uid) {
            Some((Ok(Entity::new_no_attrs(uid.clone(), HashSet::new())), None))
        } else {
            None
        };
        let Some((entity, environment)) = entity else { continue };
        if done.insert(uid.to_string()) {
            entities.push(entity?);
        }
        if let Some(environment) = environment.filter(|uid| done.insert(uid.to_string())) {
            entities.push(Entity::new_no_attrs(environment, HashSet::new()));
        }
    }
    Ok(entities)
}

type Made = (Result<Entity, BoxError>, Option<EntityUid>);

fn template_entity(template: &Template) -> Made {
    let attributes = [("owner", &*template.owner)];
    made(Type::Template.uid(&template.name), &attributes, &template.environment)
}

fn target_entity(target: &Target) -> Made {
    let attributes = [("uri", &*target.uri), ("owner", &*target.owner)];
    made(Type::Target.uid(&target.name), &attributes, &target.environment)
}

fn made(uid: EntityUid, attributes: &[(&str, &str)], environment: &Name) -> Made {
    let environment = Type::Environment.uid(environment);
    let entity = Entity::new(uid, strings(attributes), HashSet::from([environment.clone()]));
    (entity.map_err(Into::into), Some(environment))
}

/// Attributes that are all strings.
pub(super) fn strings(attributes: &[(&str, &str)]) -> HashMap<String, RestrictedExpression> {
    let one = |(name, value): &(&str, &str)| ((*name).into(), RestrictedExpression::new_string((*value).into()));
    attributes.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixture::{PRODUCTION, SHOP, bundle, policy};

    #[test]
    fn a_row_is_one_permit_and_shown_as_it_is() {
        let policy = policy(&[("shop.toml", SHOP), ("production.cedar", PRODUCTION)]).unwrap();
        insta::assert_snapshot!(policy.show(Some("deploy-prod")), @r#"
        @id("shop-main")
        permit (principal is Dayfly::Workload, action == Dayfly::Action::"run", resource == Dayfly::Template::"deploy-prod")
        when { principal.issuer == "github" && !principal.untrusted && principal has github &&
               principal.github has environment && principal.github.environment == "production" &&
               principal.github has ref && principal.github.ref == "refs/heads/main" &&
               principal.github has repository_id && principal.github.repository_id == "0088120" };

        @id("production-is-bound") @purpose("no bearer tokens in production")
        forbid (principal, action == Dayfly::Action::"run", resource in Dayfly::Environment::"production")
        unless { context.binding == "dpop" || context.binding == "mtls" };
        "#);
        assert!(!policy.show(Some("deploy-staging")).contains("production-is-bound"));
        assert!(policy.show(None).contains("shop-staging-main"));
    }

    #[test]
    fn claims_of_every_type_compile() {
        let text = SHOP
            .replacen("profile = \"github\"", "profile = \"acme-ci\"\nurl = \"https://ci.example.net\"", 1)
            .replace("{ repository_id = \"0088120\", ref = \"refs/heads/main\", environment = \"production\" }\n\n[task",
                "{ name = [\"a\", \"b\"], in = true, runs = [1, 2], teams = [\"x\", \"y\"], one_team = \"z\" }\n\n[task")
            .replace("{ repository_id = \"0088120\", ref = \"refs/heads/main\", environment = \"staging\" }\n\n[[test",
                "{ in = false }\n\n[[test");
        let text = format!(
            "{}\n[profile.acme-ci]\nalgs = [\"ES256\"]\nprincipal = [\"name\"]\n[profile.acme-ci.claims]\nname = {{ at = \"/n\", type = \"string\" }}\n\
             in = {{ at = \"/i\", type = \"string_bool\" }}\nruns = {{ at = \"/r\", type = \"string_long\" }}\n\
             teams = {{ at = \"/t\", type = \"set\" }}\none_team = {{ at = \"/o\", type = \"set\" }}\nrepository_owner_id = {{ at = \"/x\", type = \"string\" }}\n",
            text.split("[[test]]").next().unwrap(),
        );
        let shown = policy(&[("shop.toml", &text)]).unwrap().show(None);
        for part in [
            "principal has \"acme-ci\"",
            "principal[\"acme-ci\"] has \"in\" && principal[\"acme-ci\"][\"in\"] == true",
            "[\"a\", \"b\"].contains(principal[\"acme-ci\"].name)",
            "[1, 2].contains(principal[\"acme-ci\"].runs)",
            ".teams.containsAny([\"x\", \"y\"])",
            ".one_team.contains(\"z\")",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }

    #[test]
    fn what_is_disabled_does_not_survive() {
        let alive = |text: &str| {
            let policy = policy(&[("shop.toml", text)]).unwrap();
            policy.survives("github", "deploy-prod", "shop-main", "team-shop")
        };
        assert!(alive(SHOP));
        for line in ["id     = \"shop-main\"", "[task.deploy-prod]", "[owner.team-shop]", "[issuer.github]"] {
            assert!(!alive(&SHOP.replacen(line, &format!("{line}\ndisabled = true"), 1)), "{line}");
        }
        assert!(!alive(&SHOP.replace("\"shop-main\"", "\"shop-trunk\"")));
        let target = SHOP.replacen("[target.shop-staging]", "[target.shop-staging]\ndisabled = true", 1);
        let policy = policy(&[("shop.toml", &target)]).unwrap();
        assert!(!policy.survives_target("shop-staging") && !policy.survives_target("gone"));
        assert!(policy.survives_target("shop-production") && policy.survives_target("broker"));
    }

    #[test]
    fn three_hundred_rows_and_a_small_slice() {
        let mut text = SHOP.to_owned();
        for index in 0..300 {
            text.push_str(&format!(
                "\n[task.t-{index}]\npurpose = \"p\"\nowner = \"team-shop\"\ngrants = {{ shop-staging = [\"deploy:status\"] }}\n\
                 ttl = \"5m\"\nreview_by = 2027-06-30\n[[task.t-{index}.allow]]\nid = \"row-{index}\"\nissuer = \"github\"\n\
                 claims = {{ repository_id = \"1{index}\" }}\n"
            ));
        }
        let policy = policy(&[("shop.toml", &text), ("production.cedar", PRODUCTION)]).unwrap();
        assert_eq!(policy.run["t-7"].written.num_of_policies(), 0);
        assert_eq!(policy.run["deploy-prod"].written.num_of_policies(), 1);
        let job = crate::policy::fixture::workload(&[("repository_id", "1299"), ("event_name", "push")]);
        let granted = crate::policy::fixture::bearer(&policy, &job, &crate::policy::fixture::ask("t-299")).unwrap();
        assert_eq!(&**granted.row(), "row-299");
    }

    #[test]
    fn a_policy_is_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Policy>();
    }

    #[test]
    fn the_schema_follows_the_bundle() {
        let bundle = bundle(&[("shop.toml", SHOP)]).unwrap();
        let policy = Policy::compile(bundle).unwrap();
        assert!(
            policy.schema().contains("ref_protected?: Bool") && policy.schema().contains("oidc?: { sub?: String }")
        );
    }
}
