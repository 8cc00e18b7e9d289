//! `docs/THREATS.md` is made, not written: from the names of the tests that the tree holds and
//! from `docs/threats.toml`, which says what each threat is and where we fall short. A threat has
//! a test or says what is missing; a test that names a threat has a row.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

use serde::Deserialize;

const LIST: &str = "docs/threats.toml";
const DOCUMENT: &str = "docs/THREATS.md";

/// `docs/threats.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    class: Vec<Class>,
    threat: Vec<Threat>,
    /// What the product as a whole does not do.
    gap: Vec<Gap>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    id: String,
    title: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Threat {
    /// The number in the names of tests: `t_081_...` is 81.
    id: u16,
    class: String,
    title: String,
    /// Tests that hold it under another name.
    #[serde(default)]
    also: Vec<String>,
    /// What stands in for a test while none has the number.
    untested: Option<String>,
    /// What the tests do not cover, and what holds meanwhile.
    gap: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Gap {
    title: String,
    what: String,
    meanwhile: String,
}

/// The tests of the tree by name, with the files that have one of that name.
type Tests = BTreeMap<String, BTreeSet<String>>;

/// Every test below these folders: a function under an attribute that ends in `test`.
fn tests_of_the_tree() -> Tests {
    let mut tests = Tests::new();
    for top in ["src", "crates", "tests"] {
        walk(Path::new(top), &mut tests);
    }
    tests
}

fn walk(dir: &Path, tests: &mut Tests) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            for name in tests_in(&fs::read_to_string(&path).unwrap()) {
                tests.entry(name).or_default().insert(path.display().to_string());
            }
        }
    }
}

/// Names of the tests in a file.
fn tests_in(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            marked |= line.contains("test]") || line.contains("test(");
            continue;
        }
        let declared = line.trim_start_matches("async ").strip_prefix("fn ");
        let name = declared.and_then(|rest| rest.split(['(', '<']).next());
        names.extend(name.filter(|_| marked).map(str::to_owned));
        // A comment may stand between the attribute and the function.
        marked &= line.is_empty() || line.starts_with("//");
    }
    names
}

/// The threats that a name speaks of: `t_001_x_and_t_002_y` is about two.
fn threats_in(name: &str) -> BTreeSet<u16> {
    let at = name.match_indices("t_").map(|(at, _)| at);
    let own = at.filter(|at| *at == 0 || name[..*at].ends_with('_'));
    let number = |at: usize| {
        let digits = name.get(at + 2..at + 5)?;
        name[at + 5..].starts_with('_').then(|| digits.parse().ok()).flatten()
    };
    own.filter_map(number).collect()
}

/// Everything wrong with the list, a line each.
fn faults(list: &List, tests: &Tests) -> Vec<String> {
    let mut faults = Vec::new();
    let classes: BTreeSet<&str> = list.class.iter().map(|class| class.id.as_str()).collect();
    let mut rows = BTreeMap::new();
    for threat in &list.threat {
        let id = threat.id;
        if rows.insert(id, threat).is_some() {
            faults.push(format!("T-{id} has two rows"));
        }
        if !classes.contains(threat.class.as_str()) {
            faults.push(format!("T-{id} is of no class: `{}`", threat.class));
        }
        let unknown = threat.also.iter().filter(|name| !tests.contains_key(*name));
        faults.extend(unknown.map(|name| format!("T-{id} names `{name}`, which is no test")));
        match (holding(threat, tests).is_empty(), &threat.untested, &threat.gap) {
            (true, None, None) => faults.push(format!("T-{id} has neither a test nor a gap")),
            (false, Some(_), _) => faults.push(format!("T-{id} has a test now: remove its `untested`")),
            _ => {}
        }
    }
    for name in tests.keys() {
        let unlisted = threats_in(name).into_iter().filter(|id| !rows.contains_key(id));
        faults.extend(unlisted.map(|id| format!("`{name}` is about T-{id}, which has no row")));
    }
    faults
}

/// The tests of a threat, by name.
fn holding<'a>(threat: &'a Threat, tests: &'a Tests) -> BTreeSet<&'a str> {
    let named = tests.keys().filter(|name| threats_in(name).contains(&threat.id));
    named.chain(&threat.also).map(String::as_str).collect()
}

const HEAD: &str = "\
<!-- Made from docs/threats.toml and the names of the tests; do not edit:
     DAYFLY_REGENERATE=1 cargo test --test it threats_doc:: -->

# Threats

What has gone wrong in systems of this kind, and the tests that show that it does not go wrong here.
A number is the same in the names of tests (`t_081_...` is T-81); numbers that are missing here belong to
things that Dayfly does not have yet. Every test is in this repository: `cargo test NAME` runs it.
[SECURITY.md](../SECURITY.md) says what is promised and to whom to report what is not kept.
";

fn document(list: &List, tests: &Tests) -> String {
    let mut text = String::from(HEAD);
    // `write!` to a `String` cannot fail.
    let _ = writeln!(text, "\n## Summary\n\n| | threats | with tests | with a gap | tests |\n|---|---|---|---|---|");
    for class in &list.class {
        let _ = writeln!(text, "{}", summary(class, list, tests));
    }
    for class in &list.class {
        let _ = writeln!(text, "\n## {}. {}\n\n| | threat | held by |\n|---|---|---|", class.id, class.title);
        let mut rows: Vec<_> = list.threat.iter().filter(|threat| threat.class == class.id).collect();
        rows.sort_by_key(|threat| threat.id);
        rows.into_iter().for_each(|threat| text.push_str(&row(threat, tests)));
    }
    let _ = writeln!(text, "\n## Known gaps\n\n| what | how it is | what holds meanwhile |\n|---|---|---|");
    for Gap { title, what, meanwhile } in &list.gap {
        let _ = writeln!(text, "| {} | {} | {} |", cell(title), cell(what), cell(meanwhile));
    }
    text
}

fn summary(class: &Class, list: &List, tests: &Tests) -> String {
    let rows: Vec<_> = list.threat.iter().filter(|threat| threat.class == class.id).collect();
    let held: Vec<_> = rows.iter().map(|threat| holding(threat, tests)).collect();
    let with_tests = held.iter().filter(|names| !names.is_empty()).count();
    let with_gap = rows.iter().filter(|threat| threat.gap.is_some() || threat.untested.is_some()).count();
    let names: BTreeSet<_> = held.iter().flatten().collect();
    format!("| {}. {} | {} | {with_tests} | {with_gap} | {} |", class.id, class.title, rows.len(), names.len())
}

fn row(threat: &Threat, tests: &Tests) -> String {
    let names = holding(threat, tests).into_iter().map(|name| format!("`{name}`"));
    let gap = threat.untested.iter().chain(&threat.gap).map(|gap| format!("**gap:** {}", cell(gap)));
    let held: Vec<String> = names.chain(gap).collect();
    format!("| T-{} | {} | {} |\n", threat.id, cell(&threat.title), held.join("<br>"))
}

fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn list() -> List {
    toml::from_str(&fs::read_to_string(LIST).unwrap()).unwrap_or_else(|error| panic!("{LIST}: {error}"))
}

#[test]
fn every_threat_has_a_test_or_says_what_is_missing() {
    let faults = faults(&list(), &tests_of_the_tree());
    assert!(faults.is_empty(), "{LIST}:\n{}", faults.join("\n"));
}

#[test]
fn the_document_is_what_the_list_and_the_tests_make() {
    let made = document(&list(), &tests_of_the_tree());
    if std::env::var_os("DAYFLY_REGENERATE").is_some() {
        return fs::write(DOCUMENT, made).unwrap();
    }
    let there = fs::read_to_string(DOCUMENT).unwrap_or_default();
    let help = "run DAYFLY_REGENERATE=1 cargo test --test it threats_doc::";
    let differs = made.lines().zip(there.lines()).find(|(made, there)| made != there);
    assert!(made == there, "{DOCUMENT} is stale: {help}\n{differs:?}");
}

fn planted(rows: &str) -> List {
    let class = "gap = []\n[[class]]\nid = 'A'\ntitle = 'a'\n";
    toml::from_str(&format!("{class}{rows}")).unwrap()
}

#[test]
fn a_planted_fault_of_the_list_is_noticed() {
    let tests = Tests::from([("t_001_x".to_owned(), BTreeSet::new()), ("y_is_refused".to_owned(), BTreeSet::new())]);
    let said = |rows: &str| faults(&planted(rows), &tests).join("; ");
    let good = "[[threat]]\nid = 1\nclass = 'A'\ntitle = 't'\n";
    assert_eq!(said(good), "");
    assert_eq!(
        said(&good.replace('1', "2")),
        "T-2 has neither a test nor a gap; `t_001_x` is about T-1, which has no row"
    );
    assert_eq!(said(&good.replace("'A'", "'B'")), "T-1 is of no class: `B`");
    assert_eq!(said(&format!("{good}{good}")), "T-1 has two rows");
    assert_eq!(said(&format!("{good}also = ['z']")), "T-1 names `z`, which is no test");
    assert_eq!(said(&format!("{good}untested = 'u'")), "T-1 has a test now: remove its `untested`");
    let two = |more: &str| said(&format!("{good}[[threat]]\nid = 2\nclass = 'A'\ntitle = 't'\n{more}"));
    assert_eq!((two("gap = 'g'"), two("also = ['y_is_refused']")), (String::new(), String::new()));
}

#[test]
fn tests_are_found_by_their_attribute_and_threats_by_their_number() {
    let text = "#[test]\nfn t_001_a() {}\n#[tokio::test]\nasync fn b() {}\n\
                #[test]\n#[ignore]\n// why\nfn c() {}\nfn t_002_no_test() {}\nfn d(x: u8) {}\n";
    assert_eq!(tests_in(text), ["t_001_a", "b", "c"]);
    assert_eq!(threats_in("t_001_a_and_t_022_b"), BTreeSet::from([1, 22]));
    assert_eq!(threats_in("not_1_and_t_02_and_at_003_x"), BTreeSet::new());
}
