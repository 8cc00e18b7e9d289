//! Evidence and what it says: whose key, which types, which of it is ever seen.

use dayfly::flow::EventFilter;
use dayfly_domain::Reason;
use serde_json::{Value, json};

use crate::world::{BUNDLE, CI, Job, OPERATOR, World, ask, lease, reason, token};

const OTHER: &str = "https://other.example.org";

/// The world with a second issuer, whose keys are its own.
fn two_issuers() -> World {
    let issuer = "\n[issuer.other]\nprofile = \"ci\"\nowner = \"team-pay\"\nurl = \"https://other.example.org\"\n\
                  keys = { jwks_file = \"other.json\" }\npin = { org = \"acme\" }\n";
    let row = "\n[[task.pay.allow]]\nid = \"other-pays\"\nissuer = \"other\"\nclaims = { sub = \"pay\" }\n";
    World::of(&format!("{BUNDLE}{issuer}{row}"))
}

#[tokio::test]
async fn t_027_another_issuers_key_is_refused() {
    let world = two_issuers();
    let theirs = || Job::pay().with("iss", OTHER);
    assert!(world.present(&world.sign_as_other(theirs()), ask("pay")).await.is_ok());
    assert_eq!(reason(world.present(&world.sign(theirs().with("jti", "1")), ask("pay")).await), Reason::Signature);
    let ours = Job::pay().with("iss", CI);
    assert_eq!(reason(world.present(&world.sign_as_other(ours), ask("pay")).await), Reason::Signature);
}

#[tokio::test]
async fn a_row_of_one_issuer_is_no_row_of_another() {
    let world = two_issuers();
    let shop = world.sign_as_other(Job::shop().with("iss", OTHER));
    assert_eq!(reason(world.present(&shop, ask("deploy")).await), Reason::NoMatch);
}

#[tokio::test]
async fn the_same_jti_of_another_issuer_is_other_evidence() {
    let world = two_issuers();
    let job = || Job::pay().with("jti", "same");
    assert!(world.present(&world.sign(job()), ask("pay")).await.is_ok());
    assert!(world.present(&world.sign_as_other(job().with("iss", OTHER)), ask("pay")).await.is_ok());
}

#[tokio::test]
async fn t_039_blank_claims_are_refused() {
    let world = World::new();
    for claim in ["sub", "event", "run"] {
        for blank in ["", " ", "\t\n", "\u{a0}", "\u{0}"] {
            let refused = world.present(&world.sign(Job::shop().with(claim, blank)), ask("deploy")).await;
            assert_eq!(reason(refused), Reason::Claim, "{claim} {blank:?}");
        }
    }
    let pinned = world.sign(Job::shop().with("org", " "));
    assert_eq!(
        reason(world.present(&pinned, ask("deploy")).await),
        Reason::Stranger,
        "a pin that is blank holds nobody"
    );
}

#[tokio::test]
async fn t_040_types_are_not_coerced() {
    let world = World::new();
    for value in [json!(7), json!(true), json!(null), json!(["1"]), json!({ "a": "1" }), json!(1.5)] {
        for claim in ["event", "run"] {
            let evidence = world.sign(Job::shop().with(claim, value.clone()));
            assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Claim, "{claim} {value}");
        }
        let pinned = world.sign(Job::shop().with("org", value.clone()));
        assert_eq!(reason(world.present(&pinned, ask("deploy")).await), Reason::Stranger, "{value}");
    }
}

#[tokio::test]
async fn t_125_a_name_that_needs_escaping_is_refused() {
    let world = World::new();
    for name in ["a/b", "..", ".", "a b", "caf\u{e9}", "a%2fb", "{a}", "a\\b", "a:b"] {
        let evidence = world.sign(Job::shop().with("sub", name));
        assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Claim, "{name}");
    }
}

#[tokio::test]
async fn what_the_profile_does_not_declare_is_never_seen() {
    let mut world = World::new();
    let job = Job::shop().with("email", "ann@example.org").with("admin", true);
    let issued = world.open(&job, "deploy").await;
    let events = world.flow.events(&OPERATOR, EventFilter::default(), 50, None).await.unwrap().items;
    let task = world.flow.task(&OPERATOR, issued.task).await.unwrap();
    let claims = world.introspect(&token(&issued)).await.unwrap().claims;
    let shown = format!("{events:?} {task:?} {}", Value::Object(claims));
    assert!(!shown.contains("ann@example.org") && !shown.contains("admin"), "{shown}");
    assert_eq!(world.flow.lease(&OPERATOR, lease(&issued)).await.unwrap().workload, "ci/shop");
}

#[tokio::test]
async fn the_claims_of_a_task_are_erased_when_it_ends() {
    let mut world = World::new();
    let issued = world.open(&Job::shop().run("4711"), "deploy").await;
    assert!(world.reader.task(issued.task).unwrap().unwrap().claims.unwrap().contains("4711"));
    world.end(&crate::world::handle(&issued), issued.task).await.unwrap();
    assert_eq!(world.reader.task(issued.task).unwrap().unwrap().claims, None);
}

#[tokio::test]
async fn evidence_from_the_future_or_for_ever_is_refused() {
    let world = World::new();
    let at = world.now().as_s();
    for (job, why) in [
        (Job::shop().with("iat", at + 31), Reason::Expired),
        (Job::shop().with("nbf", at + 31), Reason::Expired),
        (Job::shop().with("exp", at), Reason::Expired),
        (Job::shop().with("exp", at + 25 * 3600), Reason::Claim),
    ] {
        let shown = format!("{}", job.0);
        assert_eq!(reason(world.present(&world.sign(job), ask("deploy")).await), why, "{shown}");
    }
    assert!(world.present(&world.sign(Job::shop().with("iat", at + 30)), ask("deploy")).await.is_ok());
}
