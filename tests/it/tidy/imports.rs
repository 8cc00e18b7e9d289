//! Who may import whom. Data goes one way through the stages, and only `flow` calls them.

use super::source::{Source, ident_at, is_ident, occurrences, skip_space, words};

const STAGES: [&str; 6] = ["intake", "policy", "mint", "ledger", "lease", "revoke"];
const MODULES: [&str; 13] =
    ["intake", "policy", "mint", "ledger", "lease", "revoke", "flow", "store", "config", "http", "run", "sys", "cli"];

/// How far a module may reach into another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Nothing,
    /// Types, constants and traits; no functions, no whole modules.
    Types,
    Everything,
}

/// The root package's own modules, and the two crates below it.
pub fn own_modules(source: &Source) -> Vec<String> {
    let Some(from) = zone(&source.path) else { return Vec::new() };
    let mut offences = Vec::new();
    for (at, path) in references(source) {
        let to = path[0].as_str();
        let typed = path.iter().skip(1).any(|part| part.starts_with(|first: char| first.is_ascii_uppercase()));
        match reach(from, to) {
            Reach::Everything => {}
            Reach::Types if typed => {}
            Reach::Types => offences.push(source.offence(at, &format!("`{from}` takes only types from `{to}`"))),
            Reach::Nothing => offences.push(source.offence(at, &format!("`{from}` does not import `{to}`"))),
        }
    }
    offences
}

/// Third-party crates that live behind one door each.
pub fn other_crates(source: &Source) -> Vec<String> {
    let Some(from) = zone(&source.path) else { return Vec::new() };
    let mut offences = Vec::new();
    for (name, doors) in DOORS {
        if doors.contains(&from) {
            continue;
        }
        for at in crate_uses(&source.live, name) {
            offences.push(source.offence(at, &format!("`{name}` is used only in {}", doors.join(", "))));
        }
    }
    offences
}

const NET: &[&str] = &["sys", "run", "cli", "verifier::online"];
const TLS: &[&str] = &["sys", "run", "cli", "verifier::online", "verifier::x509"];
const DOORS: &[(&str, &[&str])] = &[
    ("axum", &["http", "run", "cli"]),
    ("clap", &["cli"]),
    ("cryptoki", &["sys"]),
    ("rusqlite", &["store"]),
    ("cedar_policy", &["policy"]),
    ("jsonwebtoken", &["verifier", "verifier::online"]),
    ("hyper", NET),
    ("hyper_util", NET),
    ("hyper_rustls", NET),
    ("tokio_rustls", NET),
    ("rustls", TLS),
    ("webpki", &["verifier::x509"]),
];

/// Crates that `domain` may depend on, and those the verifier has without a feature.
const DOMAIN: &[&str] = &["serde", "thiserror", "time", "toml_datetime", "zeroize"];
const VERIFIER: &[&str] = &[
    "base64",
    "dayfly-domain",
    "jsonwebtoken",
    "miniz_oxide",
    "ring",
    "serde",
    "serde_json",
    "subtle",
    "thiserror",
    "time",
    "zeroize",
];

/// The dependencies of the two crates that others link.
pub fn manifest(path: &str, text: &str) -> Vec<String> {
    let allowed = match path {
        "crates/domain/Cargo.toml" => DOMAIN,
        "crates/verifier/Cargo.toml" => VERIFIER,
        _ => return Vec::new(),
    };
    let section = text.split("\n[dependencies]").nth(1).unwrap_or_default();
    let lines = section.lines().skip(1).take_while(|line| !line.starts_with('['));
    let names = lines.filter(|line| !line.contains("optional = true")).filter_map(|line| {
        let name = line.split(['=', '.', ' ']).next()?;
        (!name.is_empty() && !name.starts_with('#')).then_some(name)
    });
    names.filter(|name| !allowed.contains(name)).map(|name| format!("{path}: `{name}` is not for every user")).collect()
}

/// The part of the house a file belongs to; `None` where everything may be imported.
fn zone(path: &str) -> Option<&'static str> {
    if path.starts_with("crates/domain/src/") {
        return Some("domain");
    }
    if let Some(below) = path.strip_prefix("crates/verifier/src/") {
        return Some(match below.split('/').next() {
            Some("online") => "verifier::online",
            Some("x509") => "verifier::x509",
            _ => "verifier",
        });
    }
    let module = path.strip_prefix("src/")?.split(['/', '.']).next()?;
    MODULES.into_iter().find(|name| *name == module)
}

fn reach(from: &str, to: &str) -> Reach {
    use Reach::{Everything, Nothing, Types};
    let stage = |name: &str| STAGES.iter().position(|stage| *stage == name);
    match (from, to) {
        _ if from == to => Everything,
        ("domain", _) => Nothing,
        ("verifier" | "verifier::online" | "verifier::x509", "dayfly_domain") => Everything,
        ("verifier" | "verifier::online" | "verifier::x509", _) => Nothing,
        (_, "dayfly_domain") => Everything,
        ("sys" | "store" | "config", "dayfly_verifier") => Nothing,
        (_, "dayfly_verifier") => Everything,
        ("cli", _) => Everything,
        ("run", "cli") => Nothing,
        ("run", _) => Everything,
        (_, "run" | "cli" | "http" | "config") => Nothing,
        ("sys" | "config", _) => Nothing,
        ("store", "sys") => Everything,
        ("store", _) => Nothing,
        ("flow", _) => Everything,
        ("http", "flow") => Everything,
        ("http", "sys") => Nothing,
        ("http", _) => Types,
        (_, "store" | "sys") => Everything,
        (_, "flow") => Nothing,
        _ if stage(to) < stage(from) => Types,
        _ => Nothing,
    }
}

/// Every path in the product's code that leads to a module of the house: its offset and its parts
/// from the module on.
fn references(source: &Source) -> Vec<(usize, Vec<String>)> {
    let code = &source.live;
    let mut found = Vec::new();
    if source.path.starts_with("src/") {
        let roots = ["crate::", "dayfly::"]
            .into_iter()
            .flat_map(|root| occurrences(code, root).map(move |at| (at, root.len())));
        for (at, len) in roots.chain(climbs(&source.path, code)) {
            found.extend(expand(code, at + len).into_iter().map(|path| (at, path)));
        }
    }
    for name in ["dayfly_domain", "dayfly_verifier"] {
        found.extend(words(code, name).map(|at| (at, vec![name.to_owned()])));
    }
    let known =
        |path: &[String]| path.first().is_some_and(|to| MODULES.contains(&to.as_str()) || to.starts_with("dayfly_"));
    found.retain(|(_, path)| known(path));
    found
}

/// `super::super::` that climbs to the crate's root: offset and length.
fn climbs(path: &str, code: &str) -> Vec<(usize, usize)> {
    let stem = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = stem.split('/').count();
    let starts = occurrences(code, "super::").filter(|at| !code[..*at].ends_with("::"));
    let len = |at: usize| code.as_bytes()[at..].chunks(7).take_while(|chunk| *chunk == b"super::").count() * 7;
    starts.map(|at| (at, len(at))).filter(|(_, len)| len / 7 >= depth).collect()
}

/// All paths of a use tree, or of a path in an expression.
pub fn expand(code: &str, at: usize) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    expand_into(code, at, Vec::new(), &mut paths);
    paths
}

fn expand_into(code: &str, mut at: usize, mut path: Vec<String>, paths: &mut Vec<Vec<String>>) -> usize {
    loop {
        at = skip_space(code, at);
        if code[at..].starts_with('{') {
            return expand_group(code, at + 1, &path, paths);
        }
        let part = ident_at(code, at);
        at += part.len();
        let part = if part.is_empty() && code[at..].starts_with('*') { "*" } else { part };
        if !part.is_empty() {
            path.push(part.to_owned());
        }
        if part.is_empty() || !code[at..].starts_with("::") {
            paths.push(path);
            return at;
        }
        at += 2;
    }
}

fn expand_group(code: &str, mut at: usize, path: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    while at < code.len() && !code[at..].starts_with('}') {
        let next = expand_into(code, at, path.to_vec(), paths);
        let to = code[next..].find([',', '}']).map_or(code.len(), |len| next + len);
        at = if code[to..].starts_with(',') { skip_space(code, to + 1) } else { to };
    }
    (at + 1).min(code.len())
}

/// Offsets where a crate's name begins a path or is imported whole.
fn crate_uses<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    words(code, name).filter(move |at| {
        let (before, after) = (&code[..*at], &code[at + name.len()..]);
        let imported = before.ends_with("use ") && after.starts_with([';', ' ']);
        let begins = !before.ends_with("::") || before.ends_with(" ::");
        begins && (imported || after.starts_with("::")) && !before.bytes().next_back().is_some_and(is_ident)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(path: &str, text: &str) -> usize {
        own_modules(&Source::new(path, text)).len()
    }

    #[test]
    fn a_later_stage_is_noticed() {
        assert_eq!(own("src/policy/ask.rs", "use crate::mint::Plan;"), 1);
        assert_eq!(own("src/mint/plan.rs", "use crate::policy::Grant;"), 0);
        assert_eq!(own("src/intake/mod.rs", "use crate::{store::Rows, revoke::Channel};"), 1);
    }

    #[test]
    fn a_function_of_an_earlier_stage_is_noticed() {
        let of = |text| own("src/ledger/chain.rs", text);
        assert_eq!(of("use crate::{\n    policy::{Ask, decide},\n    mint::{self, Plan},\n};"), 2);
        assert_eq!(of("fn f() { crate::mint::plan(1); }"), 1);
        assert_eq!(of("use crate::policy::*;"), 1);
        assert_eq!(of("use crate::policy::{Ask as A, ask::Grant}; fn f() { crate::mint::Plan::new() }"), 0);
    }

    #[test]
    fn a_rule_in_the_store_or_a_door_is_noticed() {
        assert_eq!(own("src/store/rows.rs", "use crate::policy::Grant;"), 1);
        assert_eq!(own("src/http/routes.rs", "use crate::store::open;\nuse crate::store::Page;"), 1);
        assert_eq!(own("src/http/routes.rs", "use crate::policy::{Ask, decide};\nuse crate::sys::clock::Clock;"), 2);
        assert_eq!(own("src/flow/issue.rs", "use crate::{mint, http::shapes};"), 1);
        assert_eq!(own("src/run/mod.rs", "use crate::{cli, http, flow::Flow};"), 1);
        assert_eq!(own("src/cli/mod.rs", "use crate::{run, http::shapes};"), 0);
    }

    #[test]
    fn climbing_to_the_root_is_noticed() {
        assert_eq!(own("src/store/rows.rs", "use super::super::flow::Flow;"), 1);
        assert_eq!(own("src/store/mod.rs", "use super::flow::Flow;"), 1);
        assert_eq!(own("src/store/rows.rs", "use super::flow::Flow;"), 0);
    }

    #[test]
    fn the_crates_below_know_nothing_above() {
        assert_eq!(own("crates/domain/src/id.rs", "use dayfly_verifier::Gate;"), 1);
        assert_eq!(own("src/sys/net.rs", "use dayfly_verifier::Keys;"), 1);
        assert_eq!(own("crates/verifier/src/gate.rs", "use dayfly_domain::UnixMs;\nuse crate::run::x;"), 0);
    }

    #[test]
    fn tests_may_import_everything() {
        assert_eq!(own("src/store/rows.rs", "#[cfg(test)]\nmod tests {\n    use crate::flow::Flow;\n}"), 0);
    }

    #[test]
    fn a_crate_outside_its_door_is_noticed() {
        let of = |path, text| other_crates(&Source::new(path, text)).len();
        assert_eq!(of("src/flow/issue.rs", "use axum::Router;\nuse clap;\nfn f() -> rusqlite::Row {}"), 3);
        assert_eq!(of("src/flow/issue.rs", "use {axum::Router};\nfn f() { my::axum::x(); rustls_pki_types::y(); }"), 1);
        assert_eq!(of("src/http/mod.rs", "use axum::Router; // use clap::Parser"), 0);
        assert_eq!(of("crates/verifier/src/gate.rs", "use jsonwebtoken::Header;\nuse hyper::Uri;"), 1);
        assert_eq!(of("crates/verifier/src/online/fetch.rs", "use hyper::Uri;"), 0);
    }

    #[test]
    fn a_heavy_dependency_is_noticed() {
        let text =
            "[package]\n\n[dependencies]\nserde.workspace = true\ntokio = \"1\"\n\n[dev-dependencies]\naxum = \"1\"\n";
        assert_eq!(manifest("crates/domain/Cargo.toml", text).len(), 1);
        let optional = "x\n[dependencies]\ntokio = { workspace = true, optional = true }\n";
        assert!(manifest("crates/verifier/Cargo.toml", optional).is_empty());
    }
}
