//! pkilint on everything of the authority: each level, each profile of a leaf, each list, each answer and who signs
//! it. In: what the broker published. Out: what is found, which is listed here with its reason, or nothing.

use std::{fs, path::Path, process::Stdio};

use axum::{body::Body, http::Request};
use dayfly::flow::Issued;
use dayfly_domain::Reason;
use tower::ServiceExt;

use super::{
    cert_files::{Stage, openssl},
    certs::{CERT_BUNDLE, Hand, chain, csr, feed, new_key, open, text as encoded},
    dev::{good, text},
    foreign::{python, skipped},
    world::{Job, OPERATOR, World, get, handle, lease, token},
    x509_interop::{certificates, pem},
};

/// What pkilint finds and we keep, each with its reason; files by how their names begin.
const FOUND: &[(&str, &str)] = &[
    // Its library of URLs knows the schemes of the web only; `spiffe://` is one by RFC 3986 (SPIFFE ID, section 2).
    ("leaf", "pkix.invalid_uri_syntax"),
    // It wants two labels; `api` is a host name all the same (RFC 1034 section 3.5), and the template grants it.
    ("leaf-serves", "pkix.invalid_domain_name_syntax"),
];

/// File and code of each finding that is not listed.
fn linted(work: &Path, kind: &str, files: &[&str]) -> Vec<(String, String)> {
    let mut lint = python("lint_x509.py");
    let output = lint.arg(kind).args(files).current_dir(work).stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert_eq!(said.lines().filter(|line| line.starts_with("linted ")).count(), files.len(), "{said}");
    let finding = |line: &str| line.split_once(' ').map(|(file, code)| (file.to_owned(), code.to_owned())).unwrap();
    let found = said.lines().filter(|line| !line.starts_with("linted ")).map(finding);
    let listed = |file: &str, code: &str| FOUND.iter().any(|known| file.starts_with(known.0) && code == known.1);
    found.filter(|(file, code)| !listed(file, code)).collect()
}

fn without_tools() -> bool {
    skipped("python") || skipped("openssl") || skipped("curl")
}

/// Writes each block of a file of lists.
fn keep_lists(work: &Path, lists: &[u8]) -> Vec<String> {
    let blocks: Vec<_> = text(lists).split_inclusive("-----END X509 CRL-----\n").collect();
    let names: Vec<_> = (0..blocks.len()).map(|place| format!("{place}.crl")).collect();
    names.iter().zip(&blocks).for_each(|(name, block)| fs::write(work.join(name), block).unwrap());
    names
}

fn slices(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[test]
fn pkilint_finds_nothing_that_is_not_listed() {
    if without_tools() {
        return;
    }
    let stage = Stage::new();
    let work = stage.work();
    stage.issued(&["--out", "tls", "--layout", "split"]);
    let chain = certificates(&work.join("tls.crt"));
    let root = certificates(&work.join("tls.ca")).remove(0);
    let named = [("leaf.pem", &chain[0]), ("issuing.pem", &chain[1]), ("area.pem", &chain[2]), ("root.pem", &root)];
    for (name, der) in named {
        fs::write(work.join(name), pem(&[der])).unwrap();
    }
    assert_eq!(linted(work, "cert", &named.map(|(name, _)| name)), []);
    good(work, &["task", "end", "--task-file", "tls.task"]);
    let names = keep_lists(work, &stage.public("/pki/bundle.crl"));
    assert_eq!(names.len(), 3, "a list for every level");
    assert_eq!(linted(work, "crl", &slices(&names)), []);
}

/// The test world, with a template for the profile that none of its own has.
fn world() -> World {
    let nameless = CERT_BUNDLE
        .split("[task.oldkeys]")
        .nth(1)
        .and_then(|rest| rest.split("[task.both]").next())
        .unwrap()
        .replace("any-key", "nameless")
        .replace("task.oldkeys", "task.bare")
        .replace("shop-oldkeys", "shop-bare");
    World::of(&format!("{CERT_BUNDLE}\n[task.bare]{nameless}"))
}

#[tokio::test]
async fn pkilint_finds_nothing_on_a_leaf_of_any_profile() {
    if without_tools() {
        return;
    }
    let (mut world, work) = (world(), tempfile::tempdir().unwrap());
    let work = work.path();
    let fork = Job::shop().with("sub", "fork").with("event", "fork");
    let p256 = || csr(&new_key());
    let by_openssl = |kind: &str| {
        let made = openssl(
            &[
                "req", "-new", "-nodes", "-newkey", kind, "-keyout", "k", "-outform", "DER", "-out", "r", "-subj",
                "/CN=x",
            ],
            work,
        );
        assert!(made.0, "{}", made.1);
        encoded(&fs::read(work.join("r")).unwrap())
    };
    let mut names = Vec::new();
    for (what, job, template, request) in [
        ("task", Job::shop(), "migrate", p256()),
        ("serves", Job::shop(), "serve", p256()),
        ("untrusted", fork, "peek", p256()),
        ("nameless", Job::shop(), "bare", p256()),
        ("rsa", Job::shop(), "oldkeys", by_openssl("rsa:3072")),
        ("ed25519", Job::shop(), "oldkeys", by_openssl("ed25519")),
    ] {
        let issued = open(&mut world, &job, template, &request).await.unwrap();
        names.push(format!("leaf-{what}.pem"));
        fs::write(work.join(names.last().unwrap()), pem(&[&chain(&token(&issued))[0]])).unwrap();
    }
    assert_eq!(linted(work, "cert", &slices(&names)), []);
    let key = new_key();
    let odd = open(&mut world, &Job::shop(), "bare", &encoded(&Hand::of(&key).by(&new_key()))).await;
    assert_eq!(odd.unwrap_err().reason, Reason::Csr, "and no other is issued");
}

async fn fetched(world: &World, request: Request<Body>) -> Vec<u8> {
    let body = world.door().oneshot(request).await.unwrap().into_body();
    axum::body::to_bytes(body, 1 << 22).await.unwrap().to_vec()
}

/// What the broker says of a certificate by OCSP, in a file; `options` are of `openssl ocsp`.
async fn answered(world: &World, work: &Path, name: &str, (issuer, of): (&[u8], &[u8]), options: &[&str]) {
    fs::write(work.join("issuer.pem"), pem(&[issuer])).unwrap();
    fs::write(work.join("of.pem"), pem(&[of])).unwrap();
    let asked = ["-issuer", "issuer.pem", "-cert", "of.pem", "-reqout", "ask.der"];
    let made = openssl(&[&["ocsp"], options, &asked[..]].concat(), work);
    assert!(made.0, "{}", made.1);
    let request = Request::post("/pki/ocsp").header("content-type", "application/ocsp-request");
    let request = request.body(Body::from(fs::read(work.join("ask.der")).unwrap())).unwrap();
    fs::write(work.join(name), fetched(world, request).await).unwrap();
}

/// The certificate that an answer brings.
fn delegate(work: &Path, answer: &str) -> String {
    let (_, said) = openssl(&["ocsp", "-respin", answer, "-noverify", "-resp_text"], work);
    let from = said.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{said}"));
    let end = "-----END CERTIFICATE-----\n";
    said[from..from + said[from..].find(end).unwrap() + end.len()].to_owned()
}

#[tokio::test]
async fn pkilint_finds_nothing_on_answers_their_signers_and_lists_that_say_something() {
    if without_tools() {
        return;
    }
    let (mut world, work) = (world(), tempfile::tempdir().unwrap());
    let work = work.path();
    let migrate = async |world: &mut World| open(world, &Job::shop(), "migrate", &csr(&new_key())).await.unwrap();
    let ders = |issued: &Issued| chain(&token(issued));
    let (live, ended, replaced) = (migrate(&mut world).await, migrate(&mut world).await, migrate(&mut world).await);
    world.flow.end_lease(&OPERATOR, lease(&ended), Some("leaked".into())).await.unwrap();
    feed(&world, &handle(&replaced), Some(0), &csr(&new_key())).await.unwrap();
    world.pass_s(1);
    let own = ders(&live);
    answered(&world, work, "good.ocsp", (&own[1], &own[0]), &[]).await;
    answered(&world, work, "sha256.ocsp", (&own[1], &own[0]), &["-sha256"]).await;
    answered(&world, work, "plain.ocsp", (&own[1], &own[0]), &["-no_nonce"]).await;
    answered(&world, work, "ca.ocsp", (&own[2], &own[1]), &[]).await;
    for (name, issued) in [("ended.ocsp", &ended), ("replaced.ocsp", &replaced)] {
        let of = ders(issued);
        answered(&world, work, name, (&of[1], &of[0]), &[]).await;
    }
    assert_eq!(lists_are_clean(&world, work).await, [0, 0, 2]);
    let leaked = world.flow.pki().unwrap().active_id().unwrap().to_string();
    world.flow.taint_key(&OPERATOR, &leaked, None, false).await.unwrap();
    let next = ders(&migrate(&mut world).await);
    // A number that none of its certificates has.
    answered(&world, work, "never.ocsp", (&next[1], &own[0]), &[]).await;
    let answers = ["good.ocsp", "sha256.ocsp", "plain.ocsp", "ca.ocsp", "ended.ocsp", "replaced.ocsp", "never.ocsp"];
    assert_eq!(linted(work, "ocsp", &answers), []);

    for (name, answer) in [("delegate.pem", "good.ocsp"), ("delegate-area.pem", "ca.ocsp")] {
        fs::write(work.join(name), delegate(work, answer)).unwrap();
    }
    assert_eq!(linted(work, "cert", &["delegate.pem", "delegate-area.pem"]), []);
    world.pass_s(1);
    // The root's, the next CA's; the area's, with the tainted one on it.
    assert_eq!(lists_are_clean(&world, work).await, [0, 0, 1]);
}

/// How many entries each list has, of which pkilint says nothing.
async fn lists_are_clean(world: &World, work: &Path) -> Vec<usize> {
    let names = keep_lists(work, &fetched(world, get("/pki/bundle.crl", None)).await);
    assert_eq!(linted(work, "crl", &slices(&names)), []);
    let entries = |name: &String| {
        let (_, said) = openssl(&["crl", "-noout", "-text", "-in", name], work);
        said.matches("Serial Number:").count()
    };
    let mut counts: Vec<_> = names.iter().map(entries).collect();
    counts.sort_unstable();
    counts
}
