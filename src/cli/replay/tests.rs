use serde_json::{Value, json};

use super::{tally::Change, *};
use crate::cli::{api::script::Script, args::Output, session::session_at};

const SHOP: &str = include_str!("../../../policies/shop.toml");

fn policy(text: &str) -> Policy {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("shop.toml"), text).unwrap();
    let env = BundleEnv { issuer_url: "https://b.example".to_owned(), broker_binding: BindingKind::Dpop };
    let folder = crate::flow::Folder { path: dir.path().to_owned(), env };
    let parsed = folder.read().and_then(|files| folder.parse(&files)).unwrap();
    Policy::compile(parsed.0).unwrap()
}

fn event(number: u8, kind: &str, more: Value) -> Value {
    let id = EventId::from_parts(1, [number; 10]);
    let mut event = json!({ "id": id, "seq": number, "at": "2026-11-22T05:00:00Z", "type": kind, "issuer": "github" });
    more.as_object().unwrap().iter().for_each(|(name, value)| event[name] = value.clone());
    event
}

fn task(number: u64) -> Value {
    json!(dayfly_domain::TaskId::from_parts(number, [0; 10]))
}

fn claims(branch: &str) -> Value {
    json!({
        "repository_id": "0088120", "repository_owner_id": "0004411", "event_name": "push",
        "ref": branch, "environment": "staging",
    })
}

const STAGING: [&str; 2] = ["shop-staging#deploy:create", "shop-staging#deploy:status"];

fn context(kind: &str) -> Value {
    json!({ "ttl": 900, "kind": kind, "binding": "bearer", "age_s": 2, "ask": STAGING })
}

fn opened(number: u8, of: u64, details: Value) -> Value {
    let more = json!({
        "task": task(of), "template": "deploy-staging", "row": "shop-staging-main", "workload": "github/4411/88120",
        "context": context("jwt"), "details": details,
    });
    event(number, "task_opened", more)
}

fn issued(number: u8, of: u64) -> Value {
    let more = json!({
        "task": task(of), "template": "deploy-staging", "row": "shop-staging-main", "workload": "github/4411/88120",
        "target": "shop-staging", "actions": ["deploy:create", "deploy:status"], "context": context("jwt"),
    });
    event(number, "issued", more)
}

fn denied(number: u8, reason: &str, branch: &str) -> Value {
    let more = json!({
        "template": "deploy-staging", "reason": reason, "workload": "github/4411/88120", "context": context("jwt"),
        "details": {
            "claims": claims(branch), "untrusted": false, "job": null, "ticket": null,
            "asked": { "template": "deploy-staging", "resource": null, "actions": null, "ttl": null },
        },
    });
    event(number, "denied", more)
}

fn page(events: &[Value], next: Option<&str>) -> String {
    json!({ "items": events, "next_cursor": next }).to_string()
}

async fn told(script: &Script, text: &str) -> Tally {
    let since = [("since", "2026-11-15T05:00:00Z".to_owned())];
    let session = session_at("2026-11-22T06:00:00Z");
    replayed(&script.api(Some("eyJ")), &policy(text), &since, &Count::default(), &session).await.unwrap()
}

fn script() -> Script {
    let open = json!({ "claims": claims("refs/heads/main"), "ticket": "T-1" });
    let mut many = denied(6, "E-NOMATCH", "refs/heads/topic");
    many["count"] = 40.into();
    Script::default()
        .ok(&page(&[issued(9, 7), denied(8, "E-REPLAYED", "refs/heads/main"), issued(7, 5), many], Some("next")))
        .ok(&page(&[], Some("more")))
        .ok(&page(&[opened(5, 5, open.clone()), issued(4, 4), opened(3, 4, json!("erased"))], None))
        .ok(&page(&[issued(9, 7), opened(1, 7, open)], None))
}

#[tokio::test]
async fn the_same_bundle_changes_nothing() {
    let script = script();
    let tally = told(&script, SHOP).await;
    assert_eq!((tally.newly(), tally.decisions()), ((0, 0), 44));
    assert_eq!(tally.print("f", Output::Table), "");
    insta::assert_snapshot!(tally.summary(), @"44 decisions: 0 newly denied, 0 newly allowed, 0 with fewer actions, 0 by another row, 0 refused otherwise, 42 the same, 2 not judged (1 its details are erased; 1 refused with E-REPLAYED, which is no decision of policy)");
    let seen = script.seen();
    assert_eq!(seen[1], "GET /v1/ledger?since=2026-11-15T05%3A00%3A00Z&limit=500&cursor=next Bearer eyJ");
    assert!(seen[3].starts_with("GET /v1/ledger?task=tsk_") && seen.len() == 4, "{seen:?}");
}

#[tokio::test]
async fn who_would_newly_be_denied_or_allowed_is_told_once_for_many() {
    let tally = told(&script(), &SHOP.replace("ref = \"refs/heads/main\"", "ref = \"refs/heads/topic\"")).await;
    assert_eq!(tally.newly(), (2, 40));
    let table = tally.print("f", Output::Table);
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect()).collect();
    let cells = |line: usize| lines[line].iter().map(|cell| cell.trim()).take(6).collect::<Vec<_>>().join(" | ");
    assert_eq!(
        (cells(1).as_str(), cells(2).as_str()),
        (
            "newly allowed | github/4411/88120 | deploy-staging | E-NOMATCH | row shop-staging-main | 40",
            "newly denied | github/4411/88120 | deploy-staging | row shop-staging-main | E-NOMATCH | 2",
        )
    );
    let json: Value = serde_json::from_str(&tally.print("f", Output::Json)).unwrap();
    assert_eq!(
        (&json["newly_denied"], &json["changes"][0]["count"], &json["bundle"]),
        (&json!(2), &json!(40), &json!("f"))
    );
    assert_eq!(json["changes"][0]["change"], "newly_allowed");
}

#[tokio::test]
async fn another_row_and_fewer_actions_are_told() {
    let renamed = told(&script(), &SHOP.replace("shop-staging-main", "shop-staging-anew")).await;
    assert_eq!((renamed.newly(), renamed.count(Change::OtherRow)), ((0, 0), 2));
    let fewer =
        SHOP.replace("shop-staging = [\"deploy:create\", \"deploy:status\"]", "shop-staging = [\"deploy:create\"]");
    let fewer = told(&script(), &fewer).await;
    assert_eq!((fewer.newly(), fewer.count(Change::Fewer)), ((0, 0), 2));
}

#[tokio::test]
async fn a_row_whose_review_is_long_overdue_permits_nothing() {
    let overdue = told(&script(), &SHOP.replace("review_by = 2027-06-30", "review_by = 2019-06-30")).await;
    assert_eq!((overdue.newly(), overdue.decisions()), ((2, 0), 44));
}

#[tokio::test]
async fn what_a_profile_refused_is_judged_again() {
    let mut event = denied(2, "E-EVENT", "refs/heads/main");
    event["details"]["claims"]["event_name"] = "pull_request_target".into();
    let script = Script::default().ok(&page(&[event.clone()], None));
    let summary = told(&script, SHOP).await.summary();
    assert!(summary.contains(" 1 the same, 0 not judged"), "{summary}");
    // As if the profile had refused what it takes today.
    event["details"]["claims"]["event_name"] = "push".into();
    let script = Script::default().ok(&page(&[event], None));
    assert_eq!(told(&script, SHOP).await.newly(), (0, 1));
}
