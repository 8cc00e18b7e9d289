//! docs/BUNDLE.md has every key that a table of the bundle may hold, and no other.

use std::collections::BTreeSet;

const TABLES: &str = include_str!("../../crates/domain/src/bundle/tables.rs");
const PAGE: &str = include_str!("../../docs/BUNDLE.md");

/// The table's type, and its heading on the page.
const SECTIONS: [(&str, &str); 13] = [
    ("OwnerTable", "## owner.N"),
    ("IssuerTable", "## issuer.N"),
    ("KeysTable", "### keys"),
    ("ReviewTable", "### review"),
    ("TargetTable", "## target.N"),
    ("VerifierTable", "### verifier"),
    ("TaskTable", "## task.N"),
    ("RowTable", "### allow"),
    ("LeafTable", "## leaf.N"),
    ("ProfileTable", "## profile.N"),
    ("ClaimTable", "### claims"),
    ("LintTable", "### lint"),
    ("TestTable", "## test"),
];

/// Fields of the type, by the names that they have in TOML.
fn keys(table: &str) -> BTreeSet<&'static str> {
    let start = format!("pub struct {table} {{\n");
    let body = TABLES.split_once(&start).unwrap_or_else(|| panic!("no `{table}`")).1.split_once("\n}").unwrap().0;
    let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    fields.map(|(name, _)| if (table, name) == ("ClaimTable", "kind") { "type" } else { name }).collect()
}

/// What stands in the first column below the heading.
fn told(heading: &str) -> BTreeSet<&'static str> {
    let below = PAGE.split_once(&format!("\n{heading}")).unwrap_or_else(|| panic!("no `{heading}`")).1;
    let section = below.split("\n#").next().unwrap();
    let first = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    first.flat_map(|(cell, _)| cell.split(['`', ','])).map(str::trim).filter(|key| !key.is_empty()).collect()
}

#[test]
fn every_key_of_a_bundle_is_told_and_none_that_is_not_there() {
    for (table, heading) in SECTIONS {
        assert_eq!(told(heading), keys(table), "{heading}");
    }
    let top = keys("File");
    let headings = ["owner", "issuer", "target", "task", "leaf", "profile", "test"];
    assert_eq!(
        top,
        headings.into_iter().chain(["format", "trust_domain", "blocked_keys"]).collect(),
        "tables at the top"
    );
}

#[test]
fn every_table_has_its_section() {
    let tables = TABLES.lines().filter_map(|line| line.strip_prefix("pub struct ")?.strip_suffix(" {"));
    let known: BTreeSet<_> = SECTIONS.iter().map(|(table, _)| *table).collect();
    let missing: Vec<_> = tables.filter(|table| table.ends_with("Table") && !known.contains(table)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
