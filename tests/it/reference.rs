//! docs/REFERENCE.md is made of the tables that the program itself works by. This writes it anew
//! and fails when the file says otherwise; `DAYFLY_REGENERATE=1 cargo test --test it reference::`
//! puts it right. Where a table could drift from the code, a test here holds it.

mod cli;
mod page;
mod profiles;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use dayfly::{
    cli::{DEV_VARIABLES, VARIABLES},
    flow::EventFilter,
    http::ROUTES,
    ledger::EVENTS,
    run::METRICS,
};
use dayfly_domain::REASONS;

use crate::world::{BUNDLE, Job, OPERATOR, World, ask, handle, lease};

const FILE: &str = "docs/REFERENCE.md";
const COMMAND: &str = "DAYFLY_REGENERATE=1 cargo test --test it reference::";

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_reference_is_what_the_program_says() {
    let (file, page) = (top().join(FILE), page::page());
    if std::env::var_os("DAYFLY_REGENERATE").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let held = fs::read_to_string(&file).unwrap_or_default();
    let stale = held.lines().zip(page.lines()).find(|(held, page)| held != page);
    assert!(held == page, "{FILE} is stale: {COMMAND}\n{stale:?}");
}

#[test]
fn every_reason_has_its_place_and_its_anchor() {
    let page = page::page();
    for row in REASONS {
        let heading = format!("\n### {}\n", row.code);
        assert_eq!(page.matches(&heading).count(), 1, "{}", row.code);
        let plain = |letter: char| letter.is_ascii_uppercase() || letter == '-';
        assert!(row.code.chars().all(plain), "its anchor is its lower case: {}", row.code);
    }
}

#[test]
fn every_event_that_a_route_records_is_in_the_table() {
    let known: BTreeSet<_> = EVENTS.iter().map(|kind| kind.name).collect();
    let recorded: BTreeSet<_> = ROUTES.iter().flat_map(|row| row.records).copied().collect();
    assert!(recorded.is_subset(&known), "{recorded:?}");
}

/// Product code below `src`: path and text up to its tests.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<(String, String)>) {
        let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let live = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
                found.push((path.display().to_string(), live));
            }
        }
    }
    let mut found = Vec::new();
    walk(&top().join("src"), &mut found);
    found
}

/// The texts between `open` and the next quotation mark.
fn quoted<'a>(text: &'a str, open: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).map(|rest| rest.split('"').next().unwrap_or_default())
}

#[test]
fn metrics_in_the_code_and_in_the_table_are_the_same() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, text) in sources() {
        for kind in ["counter", "gauge", "histogram"] {
            for call in text.split(&format!("metrics::{kind}!(")).skip(1) {
                let call = call.split(")\n").next().unwrap_or(call).split(").").next().unwrap();
                let Some(name) = call.split('"').nth(1).filter(|name| name.starts_with("dayfly_")) else { continue };
                let labels = call.split('"').skip(3).step_by(2).zip(call.split('"').skip(4).step_by(2));
                let labels = labels.filter(|(_, after)| after.trim_start().starts_with("=>"));
                used.entry(format!("{kind} {name}")).or_default().extend(labels.map(|(label, _)| label.to_owned()));
            }
        }
    }
    let row = |metric: &dayfly::run::Metric| {
        let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
        (format!("{} {}", metric.kind.as_str(), metric.name), labels)
    };
    let table: BTreeMap<String, BTreeSet<String>> = METRICS.iter().map(row).collect();
    assert_eq!(used, table);
}

#[test]
fn variables_in_the_code_and_in_the_table_are_the_same() {
    let mut used = BTreeSet::new();
    for (path, text) in sources() {
        if path.ends_with("cli/variables.rs") {
            continue;
        }
        used.extend(quoted(&text, "\"DAYFLY_").map(|rest| format!("DAYFLY_{rest}")));
        for call in ["vars.get(\"", "vars.raw(\"", "env::var(\""] {
            used.extend(quoted(&text, call).map(str::to_owned));
        }
    }
    let plain = |name: &String| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let used: BTreeSet<String> = used.into_iter().filter(plain).collect();
    let table: BTreeSet<String> =
        VARIABLES.iter().map(|row| row.name).chain(DEV_VARIABLES.iter().copied()).map(str::to_owned).collect();
    let (missing, too_many): (Vec<_>, Vec<_>) = (
        used.difference(&table).collect(),
        table.difference(&used).filter(|name| name.starts_with("DAYFLY_")).collect(),
    );
    assert!(missing.is_empty() && too_many.is_empty(), "not in the table: {missing:?}; nowhere read: {too_many:?}");
}

/// A broker lives through what there is an event for: none has a member that its row lacks.
#[tokio::test]
async fn events_hold_what_their_table_says() {
    let mut world = World::new();
    let issued = world.open(&Job::shop().run("1"), "deploy").await;
    world.feed(&handle(&issued), Some(0)).await.unwrap();
    let other = world.open(&Job::shop().run("2"), "deploy").await;
    world.flow.end_lease(&OPERATOR, lease(&other), Some("leaked".into())).await.unwrap();
    world.end(&handle(&issued), issued.task).await.unwrap();
    world.revoke(issued.task, None).await.unwrap();
    world.revoke(other.task, None).await.unwrap();
    world.try_open(&Job::shop(), ask("pay")).await.unwrap_err();
    let asked = crate::mass::by(r#"template == "pair""#);
    let block = crate::mass::end(&world, asked).await.unwrap().block.unwrap();
    world.flow.lift_block(&OPERATOR, block).await.unwrap();
    world.bundle.set("nonsense");
    world.flow.load_bundle("local:0").await.unwrap_err();
    world.bundle.set(&BUNDLE.replace("release the shop", "release the whole shop"));
    world.flow.load_bundle("local:0").await.unwrap();
    world.pass_s(24 * 3600);
    world.upkeep.each_minute().await;
    let signs = world.flow.keys(&OPERATOR).await.unwrap()[0].1.kid.clone();
    world.flow.taint_key(&OPERATOR, &signs, None, false).await.unwrap();
    let common = ["v", "id", "at", "type", "outcome", "details"];
    let mut seen = BTreeSet::new();
    for event in world.flow.events(&OPERATOR, EventFilter::default(), 500, None).await.unwrap().items {
        let kind = event.body["type"].as_str().unwrap();
        let row = EVENTS.iter().find(|row| row.name == kind).unwrap_or_else(|| panic!("`{kind}` is not in the table"));
        for member in event.body.keys().filter(|member| !common.contains(&member.as_str())) {
            assert!(row.members.contains(&member.as_str()), "`{kind}` has `{member}`");
        }
        for member in event.details.iter().flat_map(|details| details.keys()) {
            assert!(row.details.contains(&member.as_str()), "the details of `{kind}` have `{member}`");
        }
        seen.insert(row.name);
    }
    let all: BTreeSet<_> = EVENTS.iter().map(|row| row.name).collect();
    assert_eq!(seen, all, "every type was seen");
}
