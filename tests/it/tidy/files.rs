//! Files as a whole: reached from a root, named plainly, in their place, with a head, and with
//! links that lead somewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, ident_at, line, words};

/// Rust files that no root reaches: they are not compiled, and rot.
pub fn dead(sources: &[Source]) -> Vec<String> {
    let reached = reached(sources, true);
    let dead = sources.iter().filter(|source| !reached.contains(&source.path));
    dead.map(|source| source.offence(0, "no `mod` leads here")).collect()
}

/// Files reached by `mod` from a root; without tests, from the product's roots alone.
pub fn reached(sources: &[Source], with_tests: bool) -> BTreeSet<String> {
    let by_path: BTreeMap<&str, &Source> = sources.iter().map(|source| (source.path.as_str(), source)).collect();
    let mut open: Vec<&str> = by_path.keys().copied().filter(|path| is_root(path, with_tests)).collect();
    let mut reached = BTreeSet::new();
    while let Some(path) = open.pop() {
        if !reached.insert(path.to_owned()) {
            continue;
        }
        let source = by_path[path];
        for candidate in modules(source, if with_tests { &source.code } else { &source.live }) {
            open.extend(by_path.get_key_value(candidate.as_str()).map(|(path, _)| *path));
        }
    }
    reached
}

/// A module says why it exists.
pub fn head(source: &Source) -> Vec<String> {
    let product = source.path.starts_with("src/") || source.path.contains("/src/");
    let exempt = source.path == "src/main.rs" || source.path.ends_with("tests.rs");
    let missing = product && !exempt && !source.text.starts_with("//!");
    missing
        .then(|| source.offence(0, "begin with `//!`: why it exists, what comes in, what goes out"))
        .into_iter()
        .collect()
}

/// Lower case, and no word that could stand on any file; documents may shout.
pub fn name(path: &str) -> Vec<String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.split('.').next().unwrap_or(name);
    let shouted = name.ends_with(".md") || matches!(name, "LICENSE" | "Cargo.toml" | "Cargo.lock" | "Containerfile");
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let mut offences = Vec::new();
    if !shouted && !name.chars().all(plain) || name.chars().any(char::is_whitespace) {
        offences.push(format!("{path}:1: lower case, digits and `._-` only"));
    }
    if name.ends_with(".rs") && name.trim_end_matches(".rs").contains(['-', '.']) {
        offences.push(format!("{path}:1: a module is named in snake_case"));
    }
    if ["util", "utils", "helper", "helpers", "common", "misc", "manager", "handler", "handlers", "service"]
        .contains(&stem)
        && !name.ends_with(".service")
    {
        offences.push(format!("{path}:1: name it for what it holds"));
    }
    offences
}

/// Rust is compiled, linted and tested only where cargo looks.
pub fn place(path: &str) -> Vec<String> {
    let in_place = ["src/", "crates/", "tests/"].iter().any(|top| path.starts_with(top));
    let astray = path.ends_with(".rs") && !in_place;
    astray.then(|| format!("{path}:1: Rust lives in src, crates and tests")).into_iter().collect()
}

/// Formats that hold private keys have no business here; a `.pem` is judged by what is in it.
pub fn key_file(path: &str) -> Vec<String> {
    let key = [".key", ".p8", ".pk8", ".p12", ".pfx", ".jks"].iter().any(|end| path.ends_with(end));
    key.then(|| format!("{path}:1: a private key")).into_iter().collect()
}

/// Relative links of a Markdown document that lead nowhere.
pub fn links(path: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    if !path.ends_with(".md") {
        return Vec::new();
    }
    let text = &without_code(text);
    let mut offences = Vec::new();
    for (at, open) in text.match_indices("](") {
        let rest = &text[at + open.len()..];
        let to = rest[..rest.find([')', '\n', ' ']).unwrap_or(rest.len())].split('#').next().unwrap_or_default();
        let elsewhere = to.is_empty() || to.contains("://") || to.starts_with("mailto:");
        if !elsewhere && !resolve(path, to).is_some_and(|to| exists(&to)) {
            offences.push(format!("{path}:{}: `{to}` leads nowhere", line(text, at)));
        }
    }
    offences
}

fn is_root(path: &str, with_tests: bool) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["src", "lib.rs" | "main.rs"] | ["crates", _, "src", "lib.rs" | "main.rs"] | ["crates", _, "build.rs"] => true,
        ["tests", "it", "main.rs"] => with_tests,
        ["tests", "fuzz", "src", "lib.rs"] | ["tests", "fuzz", "fuzz_targets", _] => with_tests,
        ["crates", _, "tests" | "examples" | "benches", _] => with_tests,
        ["crates", _, "tests" | "examples" | "benches", _, "main.rs"] => with_tests,
        _ => false,
    }
}

/// Where the files of every `mod name;` in `code` may be, `#[path]` or not.
fn modules(source: &Source, code: &str) -> Vec<String> {
    let mut candidates = Vec::new();
    for at in words(code, "mod") {
        let name = ident_at(code, (at + 4).min(code.len()));
        if name.is_empty() || !code[at + 4 + name.len()..].starts_with(';') {
            continue;
        }
        let before = code[..at].rfind([';', '{', '}']).map_or(0, |end| end + 1);
        match code[before..at].find("#[path") {
            Some(len) => {
                let dir = source.path.rsplit_once('/').map_or("", |(dir, _)| dir);
                let named = source.text[before + len..].split('"').nth(1).unwrap_or_default();
                candidates.push(format!("{dir}/{named}"));
            }
            None => {
                let folder = folder(&source.path);
                candidates.extend([format!("{folder}{name}.rs"), format!("{folder}{name}/mod.rs")]);
            }
        }
    }
    candidates
}

/// Where the modules that a file declares are, with the final `/`.
fn folder(path: &str) -> String {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let own = matches!(name, "mod.rs" | "lib.rs" | "main.rs");
    let root = path.starts_with("crates/") && path.split('/').nth(2) != Some("src") && path.split('/').count() == 4;
    if own || root { format!("{dir}/") } else { format!("{dir}/{}/", name.trim_end_matches(".rs")) }
}

/// A relative link as a path below the top; `None` when it leaves the tree.
fn resolve(from: &str, to: &str) -> Option<String> {
    let mut parts: Vec<&str> = if to.starts_with('/') { Vec::new() } else { from.split('/').rev().skip(1).collect() };
    if !to.starts_with('/') {
        parts.reverse();
    }
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A document with its code blanked, fenced or inline, line by line.
fn without_code(text: &str) -> String {
    let mut fenced = false;
    let mut out = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        if !fenced && !fence {
            out.extend(line.split('`').step_by(2));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| Source::new(path, text)).collect()
    }

    #[test]
    fn a_dead_file_is_noticed() {
        let mut files = vec![
            ("src/lib.rs", "pub mod a;\n// mod b;\n"),
            ("src/a/mod.rs", "mod one;\npub(crate) mod two;\n#[cfg(test)]\n#[path = \"two_tests.rs\"]\nmod tests;"),
            ("src/a/one.rs", "#[cfg(test)]\nmod cases;"),
            ("src/a/one/cases.rs", ""),
            ("src/a/two.rs", ""),
            ("src/a/two_tests.rs", ""),
            ("crates/x/tests/story.rs", "mod part;"),
            ("crates/x/tests/part.rs", ""),
        ];
        assert!(dead(&tree(&files)).is_empty(), "{:?}", dead(&tree(&files)));
        let live = reached(&tree(&files), false);
        assert!(live.contains("src/a/two.rs"));
        assert!(!live.contains("src/a/one/cases.rs") && !live.contains("src/a/two_tests.rs"));
        files.push(("src/b.rs", ""));
        assert_eq!(dead(&tree(&files)), ["src/b.rs:1: no `mod` leads here"]);
    }

    #[test]
    fn a_missing_head_is_noticed() {
        let of = |path, text| head(&Source::new(path, text)).len();
        assert_eq!(of("src/a.rs", "use x;\n"), 1);
        assert_eq!(of("crates/domain/src/a.rs", "//! A.\n") + of("tests/it/a.rs", "use x;"), 0);
    }

    #[test]
    fn a_bad_name_is_noticed() {
        let bad = ["src/Lease.rs", "src/lease-table.rs", "src/a/utils.rs", "docs/a b.md", "src/flow/helpers.rs"];
        assert!(bad.iter().all(|path| name(path).len() == 1));
        let good =
            ["src/lease_table.rs", "docs/RUNBOOK.md", "LICENSE", ".gitignore", "deploy/dayfly.service", "tests/run"];
        assert!(good.iter().all(|path| name(path).is_empty()));
    }

    #[test]
    fn rust_out_of_place_is_noticed() {
        assert_eq!(place("deploy/tool.rs").len() + place("build.rs").len(), 2);
        assert!(place("crates/domain/src/id.rs").is_empty() && place("deploy/dayfly.toml").is_empty());
    }

    #[test]
    fn a_key_file_is_noticed() {
        assert_eq!(key_file("certs/root.key").len(), 1);
        assert!(key_file("certs/root.pem").is_empty());
    }

    #[test]
    fn a_dead_link_is_noticed() {
        let exists = |path: &str| matches!(path, "docs/a.md" | "README.md");
        let of = |text| links("docs/b.md", text, &exists);
        assert!(
            of("[a](a.md#part) [r](../README.md) [w](https://x) [s](#s) `[c](no.md)`\n```\n[d](no.md)\n```").is_empty()
        );
        assert_eq!(of("\n[a](gone.md)"), ["docs/b.md:2: `gone.md` leads nowhere"]);
        assert_eq!(of("[a](../../out.md) [b](/README.md)").len(), 1);
    }
}
