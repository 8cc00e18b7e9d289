//! Words that do not belong: calls outside their door, panics by habit, work put off, the machine
//! it was made on, private keys.

use super::imports::expand;
use super::source::{Source, is_ident, line, occurrences, skip_space, words};

/// Calls with one door each: what is called, and where it may be.
const DOORS: &[(&[&str], &[&str])] = &[
    (&["SystemTime::now", "Utc::now", "Local::now", "UtcDateTime::now", "OffsetDateTime::now"], SYS),
    (&["SystemRandom::new", "getrandom", "rand::random"], SYS),
    (&["env::var", "env::set_var", "env::remove_var"], &["src/sys", "src/run"]),
    (&["tokio::spawn", "task::spawn(", "thread::spawn", "thread::Builder"], &["src/run", "src/sys/offload"]),
    (&["insecure_decode", "dangerous(", "dangerous::"], SYS),
];
const SYS: &[&str] = &["src/sys", "src/run", "crates/verifier/src/sys", "crates/bench/src/sys"];

/// Clock, entropy, environment, spawn and unverified tokens.
pub fn doors(source: &Source) -> Vec<String> {
    let mut offences = Vec::new();
    for (calls, doors) in DOORS {
        if doors.iter().any(|door| inside(&source.path, door)) {
            continue;
        }
        for call in *calls {
            let what = format!("`{}` belongs to {}", call.trim_end_matches(['(', ':']), doors.join(", "));
            let found = occurrences(&source.live, call).filter(|at| is_std(&source.live, *at));
            offences.extend(found.map(|at| source.offence(at, &what)));
        }
    }
    offences
}

/// Whether an `env` is the standard library's and not our own door to it.
fn is_std(code: &str, at: usize) -> bool {
    let imported = || words(code, "std").any(|at| expand(code, at).iter().any(|path| path.iter().eq(["std", "env"])));
    !code[at..].starts_with("env::") || code[..at].ends_with("std::") || (!code[..at].ends_with("::") && imported())
}

/// `unwrap` and its kin, and an `expect` that does not state an invariant.
pub fn panics(source: &Source) -> Vec<String> {
    let code = &source.live;
    let habits = [".unwrap()", ".unwrap_err()", ".unwrap_unchecked()", "dbg!"].into_iter();
    let mut offences: Vec<String> = habits
        .flat_map(|habit| occurrences(code, habit).map(move |at| (at, habit)))
        .map(|(at, habit)| source.offence(at, &format!("`{}` outside tests", habit.trim_start_matches('.'))))
        .collect();
    for (at, call) in code.match_indices(".expect(") {
        if !code[skip_space(code, at + call.len())..].starts_with('"') {
            offences.push(source.offence(at, "`expect` takes the invariant as its text"));
        }
    }
    offences
}

/// Work put off, in code or in words.
pub fn unfinished(source: &Source) -> Vec<String> {
    let macros = ["todo!", "unimplemented!"].into_iter().flat_map(|name| occurrences(&source.live, name));
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let marks = marks.into_iter().flat_map(|mark| words(&source.text, mark));
    macros.chain(marks).map(|at| source.offence(at, "finish it, or file it")).collect()
}

/// Data goes to stdout in the command line only; everything else is an event of `tracing`.
pub fn prints(source: &Source) -> Vec<String> {
    let mains = ["src/main.rs", "crates/bench/src/main.rs"];
    if inside(&source.path, "src/cli") || mains.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let macros = ["println!", "print!", "eprintln!", "eprint!"].into_iter();
    let found = macros.flat_map(|name| occurrences(&source.live, name));
    found.map(|at| source.offence(at, "only the command line prints")).collect()
}

/// Types whose name says nothing.
pub fn names(source: &Source) -> Vec<String> {
    let kinds = ["struct ", "enum ", "trait ", "type "].into_iter();
    let declared = kinds.flat_map(|kind| occurrences(&source.code, kind).map(move |at| at + kind.len()));
    let empty = |at: &usize| {
        let name = super::source::ident_at(&source.code, *at);
        ["Manager", "Helper", "Util", "Utils", "Handler", "Service"].iter().any(|end| name.ends_with(end))
    };
    declared.filter(empty).map(|at| source.offence(at, "name it for what it is")).collect()
}

/// Folders of one machine, and registries by address: a lock file resolves through whatever
/// registry the machine is set to.
pub fn machine(path: &str, text: &str) -> Vec<String> {
    let folders =
        [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/opt/wh", "eels"), concat!("/ho", "me/runner")];
    let own = folders.into_iter().flat_map(|folder| {
        let absolute = |at: &usize| *at == 0 || !matches!(text.as_bytes()[at - 1], b'.' | b'-' | b'/' | b'}' | b'*');
        text.match_indices(folder)
            .map(|(at, _)| at)
            .filter(absolute)
            .filter(|at| *at == 0 || !is_ident(text.as_bytes()[at - 1]))
    });
    let hosts = [
        concat!(".lib", "rary"),
        concat!("pypi", ".org"),
        concat!("files.python", "hosted"),
        concat!("registry.npm", "js"),
        concat!("index.crates", ".io"),
        concat!("static.crates", ".io"),
    ];
    let all = own.chain(hosts.into_iter().flat_map(|host| text.match_indices(host).map(|(at, _)| at)));
    all.map(|at| format!("{path}:{}: names a machine or a registry", line(text, at))).collect()
}

/// A PEM label of a private key with key material after it. The label alone may be written.
pub fn private_keys(path: &str, text: &str) -> Vec<String> {
    let mut offences = Vec::new();
    for (at, begin) in text.match_indices("BEGIN ") {
        let label = text[at..].lines().next().unwrap_or_default();
        let Some(end) = label.find("PRIVATE KEY") else { continue };
        let after = text[at + end.max(begin.len()) + "PRIVATE KEY".len()..].replace("\\n", "\n");
        let after = after.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let material = after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)).count();
        if material >= 16 || after.starts_with("Proc-Type") {
            offences.push(format!("{path}:{}: a private key", line(text, at)));
        }
    }
    offences
}

fn inside(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_outside_its_door_is_noticed() {
        let of = |path, text| doors(&Source::new(path, text)).len();
        let all = "fn f() { SystemTime::now(); std::env::var_os(\"A\"); tokio::spawn(g()); thread::spawn(h); rand::SystemRandom::new() }";
        assert_eq!(of("src/flow/issue.rs", all), 5);
        assert_eq!(of("src/cli/token.rs", "tokio::spawn(g()); jsonwebtoken::dangerous::insecure_decode(t)"), 3);
        assert_eq!(of("src/sys/clock.rs", "SystemTime::now(); SystemRandom::new()"), 0);
        assert_eq!(of("src/sys/net.rs", "tokio::spawn(serve())"), 1);
        assert_eq!(of("src/run/mod.rs", "tokio::spawn(serve())"), 0);
        assert_eq!(of("src/cli/token.rs", "use std::{env, fs};\nfn f() { env::var(\"A\") }"), 1);
        assert_eq!(of("src/cli/token.rs", "use std::env::var;"), 1);
        assert_eq!(of("src/cli/token.rs", "use crate::sys::env;\nfn f() { env::var(\"A\"); sys::env::var(\"B\") }"), 0);
        assert_eq!(of("src/system.rs", "SystemTime::now()"), 1);
        assert_eq!(
            of(
                "src/flow/issue.rs",
                "// SystemTime::now()\n#[cfg(test)]\nmod tests {\n fn f() { tokio::spawn(g()) }\n}"
            ),
            0
        );
    }

    #[test]
    fn a_panic_by_habit_is_noticed() {
        let of = |text| panics(&Source::new("src/a.rs", text)).len();
        assert_eq!(of("x.unwrap(); x\n    .unwrap();\n x.expect(&format!(\"a\")); x.unwrap_err(); dbg!(x)"), 5);
        assert_eq!(of("x.unwrap_or(1); x.expect(\"a\"); x.expect(\n  \"b\"); #[expect(lint)] \"x.unwrap()\""), 0);
        assert_eq!(of("#[test]\nfn f() { x.unwrap() }"), 0);
    }

    #[test]
    fn work_put_off_is_noticed() {
        let of = |text: &str| unfinished(&Source::new("src/a.rs", text)).len();
        assert_eq!(
            of(&format!("fn f() {{ todo!() }} fn g() {{ unimplemented!() }} // {}: later", concat!("TO", "DO"))),
            3
        );
        assert_eq!(of("// todo!() is a macro\nfn todos() {}"), 0);
    }

    #[test]
    fn a_print_is_noticed() {
        let of = |path| prints(&Source::new(path, "fn f() { println!(\"a\"); eprintln!(\"b\") }")).len();
        assert_eq!((of("src/flow/a.rs"), of("src/cli/a.rs"), of("src/client.rs")), (2, 0, 2));
    }

    #[test]
    fn a_name_that_says_nothing_is_noticed() {
        let of = |text| names(&Source::new("src/a.rs", text)).len();
        assert_eq!(of("struct LeaseManager; enum TokenHandler {} trait Utils {}"), 3);
        assert_eq!(of("struct Lease; // struct LeaseManager\nimpl Service for Lease {}"), 0);
    }

    #[test]
    fn a_machine_is_noticed() {
        let of = |text: &str| machine("a.md", text).len();
        assert_eq!(of(concat!("cd /wo", "rk/x, see .lib", "rary and pypi", ".org")), 3);
        assert_eq!(of(concat!("actions/wo", "rk/x ./wo", "rk/y github.com/wo", "rk/")), 0);
    }

    #[test]
    fn a_private_key_is_noticed() {
        let key = format!("-----BEGIN EC {} KEY-----\nMHcCAQEEIBkg4LVWM9nuwNSk3yByxZpY\n", "PRIVATE");
        assert_eq!(private_keys("a.pem", &key), ["a.pem:1: a private key"]);
        assert_eq!(private_keys("a.rs", &key.replace('\n', "\\n")).len(), 1);
        assert!(private_keys("a.rs", "contains(\"BEGIN PRIVATE KEY\") and nothing more than that").is_empty());
        assert!(private_keys("a.pem", &key.replace("PRIVATE", "PUBLIC")).is_empty());
    }
}
