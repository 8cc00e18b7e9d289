//! `[[test]]`: what the bundle's author expects of it.

use std::collections::BTreeSet;

use super::{
    BundleTest, Expect,
    problem::{Found, Place},
    tables::{ExpectWord, Placed, Tables, TestTable},
    tasks::Known,
};
use crate::Reason;

pub(super) fn all(known: &Known<'_>, found: &mut Found) -> Vec<BundleTest> {
    let mut names = BTreeSet::new();
    let mut tests = Vec::new();
    for (index, Placed { path, table }) in known.tables.tests.iter().enumerate() {
        let place = Place::new(path, format!("test[{index}]"));
        found.require(!table.name.trim().is_empty(), &place, "name", "is empty");
        found.require(names.insert(&table.name), &place, "name", "is the name of another test");
        check_names(table, known, &place, found);
        tests.extend(test(table, &place, found));
    }
    tests
}

fn check_names(table: &TestTable, known: &Known<'_>, place: &Place<'_>, found: &mut Found) {
    let TestTable { issuer, task, target, row, .. } = table;
    let tables: &Tables = known.tables;
    if !tables.issuers.contains_key(issuer) {
        found.add(place, "issuer", format!("there is no issuer `{issuer}`"));
    }
    if let Some(issuer) = known.issuers.get(issuer) {
        let unknown = table.claims.keys().filter(|name| !issuer.claims.contains_key(*name));
        unknown.for_each(|name| found.add(&place.below("claims"), name, "is not a declared claim"));
    }
    match tables.tasks.get(task) {
        None => found.add(place, "task", format!("there is no task `{task}`")),
        Some(placed) => {
            let row = row.as_ref().filter(|row| placed.table.allow.iter().all(|known| known.id != **row));
            row.into_iter().for_each(|row| found.add(place, "row", format!("`task.{task}` has no row `{row}`")));
        }
    }
    if let Some(target) = target.as_ref().filter(|target| !known.targets.contains_key(*target)) {
        found.add(place, "target", format!("there is no target `{target}`"));
    }
}

fn test(table: &TestTable, place: &Place<'_>, found: &mut Found) -> Option<BundleTest> {
    let expect = match table.expect {
        ExpectWord::Permit => {
            found.require(table.reason.is_none(), place, "reason", "goes with `expect = \"deny\"`");
            Expect::Permit { row: table.row.clone() }
        }
        ExpectWord::Deny => {
            found.require(table.row.is_none(), place, "row", "goes with `expect = \"permit\"`");
            Expect::Deny { reason: table.reason.clone() }
        }
    };
    if let Some(code) = table.reason.as_ref().filter(|code| Reason::from_code(code).is_none()) {
        found.add(place, "reason", format!("`{code}` is not a reason code"));
    }
    let TestTable { name, issuer, claims, task, target, ttl, binding, untrusted, .. } = table.clone();
    Some(BundleTest { name, issuer, claims, task, target, ttl, binding, untrusted, expect })
}
