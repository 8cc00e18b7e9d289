//! T-75: granted is a subset of what was asked, what the template grants and what policy permits,
//! over random lattices of rights.

use std::collections::BTreeSet;

use dayfly::policy::{Ask, BundleEnv, Circumstances, Decision, Policy, What, parse};
use dayfly_domain::{BindingKind, Kind, Workload};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use serde_json::json;

use super::stand::{JWT, Stand, exchange};
use crate::world::{BUNDLE, ISSUER, Job, SHOP_URI};

const ACTIONS: [&str; 8] =
    ["deploy:create", "deploy:status", "deploy:undo", "db:migrate", "db:drop", "log:read", "key:use", "key:make"];
/// 100,000 random lattices in all: of what is granted, forbidden, held and asked.
const BUNDLES: u32 = 100;
const ASKS: u32 = 1_000;
const PARTS: u32 = 4;

fn picked(bits: u8) -> BTreeSet<&'static str> {
    ACTIONS.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, action)| *action).collect()
}

fn listed(actions: &BTreeSet<&str>) -> String {
    format!("[{}]", actions.iter().map(|action| format!("\"{action}\"")).collect::<Vec<_>>().join(", "))
}

/// The shop's world, in which the target has all actions, the template these, and these are
/// forbidden.
fn bundle(granted: u8) -> String {
    BUNDLE.replace("[\"deploy:create\", \"deploy:status\", \"deploy:undo\"]", &listed(&picked(0xff))).replace(
        "grants    = { shop = [\"deploy:create\", \"deploy:status\"] }",
        &format!("grants = {{ shop = {} }}", listed(&picked(granted))),
    )
}

fn forbids(forbidden: u8) -> String {
    let one = |action: &str| {
        format!(
            "@id(\"no-{}\") @purpose(\"test\") forbid (principal, action == Dayfly::Action::\"run\", resource)\n\
             when {{ context.ask.contains(\"shop#{action}\") }};\n",
            action.replace(':', "-")
        )
    };
    picked(forbidden).into_iter().map(one).collect()
}

/// Nothing of these beside anything else that the job holds.
fn keeps_apart(apart: u8) -> String {
    let of = |bits: u8| {
        let pairs: Vec<_> = picked(bits).into_iter().map(|action| format!("\"shop#{action}\"")).collect();
        format!("[{}]", pairs.join(", "))
    };
    if apart == 0 || apart == 0xff {
        return String::new();
    }
    format!(
        "@id(\"apart\") @purpose(\"test\") forbid (principal, action == Dayfly::Action::\"run\", resource)\n\
         when {{ context.ask.containsAny({}) && context.held.containsAny({}) }};\n",
        of(apart),
        of(!apart)
    )
}

fn policy(granted: u8, forbidden: u8, apart: u8) -> (Policy, Workload) {
    let file =
        |path: &str, text: String| dayfly::sys::files::SourceFile { path: path.into(), bytes: text.into_bytes() };
    let files = [file("a.toml", bundle(granted)), file("b.cedar", forbids(forbidden) + &keeps_apart(apart))];
    let env = BundleEnv { issuer_url: ISSUER.into(), broker_binding: BindingKind::Bearer };
    let keys = super::forge::Forge::new().jwks().to_string().into_bytes();
    let (bundle, _) = parse(&files, &env, &mut |_| Ok(keys.clone())).unwrap();
    let (issuer, profile) = (&bundle.issuers["ci"], &bundle.profiles["ci"]);
    let claims = json!({ "sub": "shop", "org": "acme", "event": "push" });
    let workload = dayfly::intake::read(issuer, profile, claims.as_object().unwrap()).unwrap();
    (Policy::compile(bundle).unwrap(), workload)
}

#[test]
fn t_075_granted_is_a_subset_of_asked_granted_and_permitted() {
    let counted = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..PARTS).map(|_| scope.spawn(|| decisions(BUNDLES / PARTS))).collect();
        parts.into_iter().map(|part| part.join().unwrap()).collect::<Vec<_>>()
    });
    let (permitted, denied) = counted.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    assert_eq!(permitted + denied, BUNDLES * ASKS);
    assert!(permitted > 5_000 && denied > 5_000, "{permitted} permitted, {denied} denied");
}

/// How many were permitted, and how many denied; each as it must be.
fn decisions(bundles: u32) -> (u32, u32) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let (mut permitted, mut denied) = (0, 0);
    for _ in 0..bundles {
        let (granted, forbidden) = (1u8..=255, any::<u8>()).new_tree(&mut runner).unwrap().current();
        let forbidden = forbidden & forbidden.rotate_left(3) & forbidden.rotate_left(5);
        let apart = any::<u8>().new_tree(&mut runner).unwrap().current();
        let (policy, workload) = policy(granted, forbidden, apart);
        for _ in 0..ASKS {
            let asked = (any::<u8>(), any::<bool>(), any::<u8>()).new_tree(&mut runner).unwrap().current();
            let subset = if asked.1 { asked.0 & granted } else { asked.0 };
            let actions = (subset != 0).then(|| picked(subset).into_iter().map(str::to_owned).collect());
            let what = What::Credential { kind: Kind::Jwt, resource: None, actions };
            let ask = Ask { template: "deploy".into(), what, ttl_s: None, ticket: None };
            let meant = if subset == 0 { granted } else { subset };
            // Of a job's other tasks; mostly none.
            let held_bits = if asked.2 & 1 == 0 { asked.2 >> 1 & asked.2 } else { 0 };
            let held: Vec<_> = picked(held_bits).into_iter().map(|action| format!("shop#{action}")).collect();
            let may = meant & !granted == 0
                && meant & forbidden == 0
                && (meant & apart == 0 || held_bits & !apart == 0 || apart == 0xff);
            let now = Circumstances { proven: BindingKind::Bearer, evidence_age_s: 0, held: &held };
            match policy.decide(&workload, &ask, now) {
                Decision::Permit(grant) => {
                    let given: BTreeSet<&str> =
                        grant.target().unwrap().actions.iter().map(|action| &**action).collect();
                    assert!(may && given == picked(meant), "{granted:08b} {forbidden:08b} {subset:08b}: {given:?}");
                    permitted += 1;
                }
                Decision::Deny(_) => {
                    assert!(!may, "{granted:08b} {forbidden:08b} {subset:08b}");
                    denied += 1;
                }
            }
        }
    }
    (permitted, denied)
}

#[tokio::test]
async fn t_075_as_requests() {
    let granted = 0b0010_1011;
    let mut stand = Stand::of(&bundle(granted));
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let mut given = 0;
    for _ in 0..200 {
        let (bits, inside) = (1u8..=255, any::<bool>()).new_tree(&mut runner).unwrap().current();
        let subset = if inside && bits & granted != 0 { bits & granted } else { bits };
        let token = stand.world.evidence(&Job::shop());
        let details = json!([{ "type": "dayfly_task", "template": "deploy", "actions": picked(subset) }]).to_string();
        let fields = [("subject_token", &*token), ("subject_token_type", JWT), ("authorization_details", &*details)];
        let answer = stand.world.call(exchange(&fields)).await;
        if subset & !granted != 0 {
            assert_eq!((answer.status, &answer.json()["reason"]), (400, &json!("E-DETAILS")), "{subset:08b}");
            continue;
        }
        let detail = &answer.json()["authorization_details"][0];
        assert_eq!((&detail["actions"], &detail["locations"]), (&json!(picked(subset)), &json!([SHOP_URI])));
        given += 1;
    }
    let tally = stand.tally().await;
    assert!(given > 20 && (tally.tasks, tally.leases) == (given, given), "{given} {tally:?}");
}
