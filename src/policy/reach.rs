//! Row-level rights: may this caller do this to this task or lease?
//!
//! Everyone has a built-in reach: an operator on the local socket everything, a token for the
//! broker the rows of its own task's owner. More only by a Cedar permit; and a forbid, or any
//! error, denies even what is built in.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Context, Decision, Entity, EntityUid, Request, RestrictedExpression};
use dayfly_domain::{Workload, bundle::BROKER};

use super::{
    Policy,
    compile::strings,
    decide::workload_entity,
    mention::Mentioned,
    names::{Type, builtin_action},
};

/// Who wants to reach a row.
#[derive(Debug, Clone, Copy)]
pub enum Reach<'a> {
    /// On the local socket: every built-in action.
    Operator { uid: u32 },
    /// With a live token for the target `broker`.
    Workload {
        workload: &'a Workload,
        /// Owner of the task that the token belongs to.
        owner: &'a str,
        /// What the token grants.
        actions: &'a [std::sync::Arc<str>],
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    Task,
    Lease,
    /// The broker itself: events without a task, operating it.
    Broker,
}

/// What policy sees of a row.
#[derive(Debug, Clone, Copy)]
pub struct RowFacts<'a> {
    pub kind: RowKind,
    pub id: &'a str,
    pub owner: &'a str,
    pub template: &'a str,
    pub workload: &'a str,
    pub environment: &'a str,
    /// Of a lease.
    pub target: &'a str,
}

impl RowFacts<'_> {
    /// The broker itself.
    pub const BROKER: Self = Self {
        kind: RowKind::Broker,
        id: BROKER,
        owner: BROKER,
        template: "",
        workload: "",
        environment: BROKER,
        target: BROKER,
    };
}

impl Policy {
    /// Law L7: an id is never a capability. `action` is a built-in one, e.g. `tasks:read`.
    pub fn may(&self, who: &Reach<'_>, action: &str, row: &RowFacts<'_>) -> bool {
        let Some(action) = builtin_action(action) else { return false };
        let (granted, built_in) = match who {
            Reach::Operator { .. } => (true, true),
            Reach::Workload { owner, actions, .. } => {
                let own = row.kind != RowKind::Broker && row.owner == *owner;
                (actions.iter().any(|granted| &**granted == action), own)
            }
        };
        granted && self.judge_row(who, action, row, built_in).unwrap_or(false)
    }

    fn judge_row(&self, who: &Reach<'_>, action: &str, row: &RowFacts<'_>, built_in: bool) -> Option<bool> {
        let slice = self.rights.get(action)?;
        let principal = self.principal(who, &slice.mentioned)?;
        if slice.policies.is_empty() {
            // Nothing could permit more or forbid: what is built in is all there is.
            return Some(built_in);
        }
        let (resource, entity) = resource(row)?;
        let request = Request::new(principal.uid(), Type::Action.uid(action), resource, Context::empty(), None).ok()?;
        let entities = slice.entities.clone().upsert_entities([principal].into_iter().chain(entity), None).ok()?;
        let response = self.authorizer.is_authorized(&request, &slice.policies, &entities);
        let diagnostics = response.diagnostics();
        let forbidden = response.decision() == Decision::Deny && diagnostics.reason().next().is_some();
        let erred = diagnostics.errors().next().is_some();
        Some(!forbidden && !erred && (built_in || response.decision() == Decision::Allow))
    }

    fn principal(&self, who: &Reach<'_>, seen: &Mentioned) -> Option<Entity> {
        match who {
            Reach::Workload { workload, .. } => workload_entity(workload, self.issuer_of(workload)?, seen).ok(),
            Reach::Operator { uid } => {
                let name = format!("local:{uid}");
                let mut attributes = strings(&[("issuer", "local"), ("name", &name)]);
                attributes.insert("groups".to_owned(), RestrictedExpression::new_set([]));
                Entity::new(Type::Operator.uid(&name), attributes, HashSet::new()).ok()
            }
        }
    }
}

/// The row as an entity; the broker itself stands in every slice.
fn resource(row: &RowFacts<'_>) -> Option<(EntityUid, Option<Entity>)> {
    let mut facts = vec![
        ("owner", row.owner),
        ("template", row.template),
        ("workload", row.workload),
        ("environment", row.environment),
    ];
    let kind = match row.kind {
        RowKind::Broker => return Some((Type::Target.uid(BROKER), None)),
        RowKind::Task => Type::Task,
        RowKind::Lease => {
            facts.push(("target", row.target));
            Type::Lease
        }
    };
    let attributes: HashMap<_, _> = strings(&facts);
    let entity = Entity::new(kind.uid(row.id), attributes, HashSet::new()).ok()?;
    Some((entity.uid(), Some(entity)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::fixture::{SHOP, main_job, policy, with_cedar};

    const ROW: RowFacts<'_> = RowFacts {
        kind: RowKind::Task,
        id: "tsk_1",
        owner: "team-shop",
        template: "deploy-prod",
        workload: "github/0004411/0088120",
        environment: "production",
        target: "",
    };
    const LEASE: RowFacts<'_> = RowFacts { kind: RowKind::Lease, target: "shop-production", ..ROW };
    const OTHERS: RowFacts<'_> = RowFacts { owner: "team-pay", ..ROW };
    const ROOT: Reach<'_> = Reach::Operator { uid: 0 };

    fn token<'a>(workload: &'a Workload, actions: &'a [Arc<str>]) -> Reach<'a> {
        Reach::Workload { workload, owner: "team-shop", actions }
    }

    #[test]
    fn without_a_policy_for_an_action_the_built_in_reach_is_all() {
        let policy = policy(&[("shop.toml", SHOP)]).unwrap();
        assert!(policy.rights["leases:end"].policies.is_empty());
        let workload = main_job("staging");
        let actions = [Arc::from("leases:end")];
        let may = |owner: &str, row| {
            policy.may(&Reach::Workload { workload: &workload, owner, actions: &actions }, "leases:end", row)
        };
        assert!(may("team-shop", &LEASE) && !may("team-pay", &LEASE));
        assert!(policy.may(&Reach::Operator { uid: 1 }, "leases:end", &LEASE));
        // An error denies, also where no policy is asked.
        let mut broken = main_job("staging");
        broken.claims.insert("ref".into(), dayfly_domain::ClaimValue::Long(1));
        let who = Reach::Workload { workload: &broken, owner: "team-shop", actions: &actions };
        assert!(!policy.may(&who, "leases:end", &LEASE));
    }

    #[test]
    fn the_local_operator_reaches_everything() {
        let policy = policy(&[("shop.toml", SHOP)]).unwrap();
        for row in [ROW, LEASE, OTHERS, RowFacts::BROKER] {
            assert!(policy.may(&ROOT, "ledger:read", &row) && policy.may(&ROOT, "tasks:end", &row));
        }
        assert!(!policy.may(&ROOT, "run", &ROW) && !policy.may(&ROOT, "made-up", &ROW));
    }

    #[test]
    fn a_token_reaches_its_owners_rows_with_its_actions() {
        let policy = policy(&[("shop.toml", SHOP)]).unwrap();
        let (job, actions) = (main_job("staging"), ["tasks:read".into(), "introspect".into(), "ledger:read".into()]);
        let who = token(&job, &actions);
        assert!(policy.may(&who, "tasks:read", &ROW) && policy.may(&who, "introspect", &LEASE));
        assert!(policy.may(&who, "ledger:read", &ROW));
        assert!(!policy.may(&who, "tasks:end", &ROW), "an action that the token lacks");
        assert!(!policy.may(&who, "tasks:read", &OTHERS), "a row of another owner");
        assert!(!policy.may(&who, "ledger:read", &RowFacts::BROKER), "an event without a task");
    }

    #[test]
    fn more_only_where_a_permit_says_so() {
        let permit = r#"@id("a") @purpose("b") permit (principal is Dayfly::Workload,
            action in [Dayfly::Action::"tasks:read", Dayfly::Action::"tasks:end"], resource)
            when { principal.issuer == "github" && resource.owner == "team-pay" };
            @id("c") @purpose("d") permit (principal is Dayfly::Workload, action == Dayfly::Action::"broker:operate", resource == Dayfly::Target::"broker");"#;
        let policy = with_cedar(permit).unwrap();
        let (job, actions) = (main_job("staging"), ["tasks:read".into(), "broker:operate".into()]);
        let who = token(&job, &actions);
        assert!(policy.may(&who, "tasks:read", &OTHERS) && policy.may(&who, "broker:operate", &RowFacts::BROKER));
        assert!(!policy.may(&who, "tasks:end", &OTHERS), "permitted, but not in the token");
        assert!(!policy.may(&who, "tasks:read", &RowFacts { owner: "team-x", ..ROW }));
    }

    #[test]
    fn a_forbid_holds_for_built_in_reach_too() {
        let forbid = r#"@id("a") @purpose("b") forbid (principal, action == Dayfly::Action::"tasks:end", resource)
            when { resource.environment == "production" };"#;
        let policy = with_cedar(forbid).unwrap();
        let (job, actions) = (main_job("staging"), ["tasks:end".into()]);
        let staging = RowFacts { environment: "staging", ..ROW };
        for who in [ROOT, token(&job, &actions)] {
            assert!(!policy.may(&who, "tasks:end", &ROW));
            assert!(policy.may(&who, "tasks:end", &staging));
        }
    }

    #[test]
    fn a_token_of_a_disabled_issuer_reaches_nothing() {
        let text = SHOP.replacen("[issuer.github]", "[issuer.github]\ndisabled = true", 1);
        let policy = policy(&[("shop.toml", &text)]).unwrap();
        let (job, actions) = (main_job("staging"), ["tasks:read".into()]);
        assert!(!policy.may(&token(&job, &actions), "tasks:read", &ROW));
    }

    #[test]
    fn an_overlay_of_our_own_reaches_every_row() {
        let toml = r#"
            [owner.dayfly-dev]
            [issuer.dayfly-dev]
            profile = "oidc"
            owner = "dayfly-dev"
            url = "https://127.0.0.1:4711/operator"
            keys = { discovery = true, allow_private = true }
            [task.dayfly-dev]
            purpose = "operate the broker"
            owner = "dayfly-dev"
            grants = { broker = ["tasks:read", "tasks:end", "leases:read", "leases:end", "ledger:read", "introspect", "broker:operate"] }
            ttl = "1h"
            review_by = 2099-01-01
            [[task.dayfly-dev.allow]]
            id = "dayfly-dev"
            issuer = "dayfly-dev"
            claims = { sub = "operator" }"#;
        let actions = dayfly_domain::bundle::BROKER_ACTIONS;
        let list: Vec<_> = actions.iter().map(|action| format!("Dayfly::Action::\"{action}\"")).collect();
        let cedar = format!(
            "@id(\"dayfly-dev-rows\") @purpose(\"p\") permit (principal is Dayfly::Workload, action in [{}], resource)
             when {{ principal.issuer == \"dayfly-dev\" }};",
            list.join(", "),
        );
        let policy =
            policy(&[("shop.toml", SHOP), ("builtin/dev/d.toml", toml), ("builtin/dev/d.cedar", &cedar)]).unwrap();
        let job = Workload { issuer: "dayfly-dev".parse().unwrap(), profile: "oidc".parse().unwrap(), ..main_job("x") };
        let actions = actions.map(Arc::from);
        let who = Reach::Workload { workload: &job, owner: "dayfly-dev", actions: &actions };
        assert!(policy.may(&who, "leases:end", &LEASE) && policy.may(&who, "broker:operate", &RowFacts::BROKER));
        assert!(policy.may(&who, "ledger:read", &RowFacts::BROKER));
    }
}
