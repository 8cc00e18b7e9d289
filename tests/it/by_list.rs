//! Foreign eyes on our status lists: a decoder written from the draft alone reads the draft's own vectors
//! and what we encode, and says the same as we do.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio, time::Duration};

use dayfly::sys::clock::Clock;
use dayfly_domain::UnixMs;
use dayfly_verifier::{
    Credential, KeySet, ListSettings, Listed, Online, OnlineSettings, Refused,
    crypto::SigningKey,
    status::{EncodedList, LIST_ENTRIES_MAX, LIST_TOKEN_TYP, ListClaims, ListToken, StatusBits, StatusList},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{
    by_file,
    dev::{self, Dev, dayfly, text, wait_until},
    foreign::{python, skipped, with_input},
    servers::Server,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ISSUER: &str = "https://dayfly.example";
const TARGET: &str = "https://deploy.staging.shop.example.org";
const ACTION: &str = "deploy:status";
const URI: &str = "https://dayfly.example/status/a";

#[test]
fn a_foreign_decoder_reads_the_drafts_vectors() {
    if skipped("python") {
        return;
    }
    let file = format!("{ROOT}/tests/corpus/status_list/draft.json");
    let said = python("status_list.py").args(["vectors", &file]).output().unwrap();
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert_eq!(text(&said.stdout), "vectors 6\n");
}

/// Lists that look chosen at random and are the same each time.
fn ended(bits: StatusBits, entries: u32, one_in: u32) -> StatusList {
    let (mut list, mut state) = (StatusList::new(bits, entries), 7_u32);
    for index in 0..entries {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if (state >> 8) % one_in == 0 {
            let value = 1 + (state >> 24) as u8 % (u8::MAX >> (8 - bits as u8));
            assert!(list.set(index, value));
        }
    }
    list
}

#[test]
fn a_foreign_decoder_reads_what_we_encode() {
    if skipped("python") {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
    let jwks = json!({ "keys": [key.jwk()] }).to_string();
    let file = work.path().join("jwks.json");
    fs::write(&file, &jwks).unwrap();
    let iat = Clock::Machine.wall().as_s();
    for (bits, entries, one_in) in [
        (StatusBits::One, LIST_ENTRIES_MAX, 100),
        (StatusBits::One, LIST_ENTRIES_MAX, 2),
        (StatusBits::One, 8, 3),
        (StatusBits::Two, 4096, 7),
        (StatusBits::Four, 4096, 7),
        (StatusBits::Eight, 4096, 7),
    ] {
        let list = ended(bits, entries, one_in);
        let status_list = EncodedList::of(&list);
        let claims = ListClaims { sub: URI.to_owned(), iat, exp: iat + 300, ttl: 15, status_list };
        let token = key.sign(LIST_TOKEN_TYP, &claims).unwrap();
        let ours =
            ListToken::read(&token, &KeySet::parse(jwks.as_bytes()).unwrap(), ISSUER, entries, UnixMs::from_s(iat));
        assert_eq!(ours.unwrap().list(), &list);
        let mut command = python("status_list.py");
        let said = with_input(command.args(["read", file.to_str().unwrap(), URI]), token.as_bytes());
        assert!(said.status.success(), "{}", text(&said.stderr));
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!((&said["bits"], &said["entries"]), (&json!(bits as u8), &json!(entries)));
        let theirs: BTreeMap<u32, u8> = serde_json::from_value(said["set"].clone()).unwrap();
        let set =
            (0..entries).filter_map(|index| list.get(index).filter(|value| *value > 0).map(|value| (index, value)));
        assert_eq!(theirs, set.collect::<BTreeMap<_, _>>());
    }
}

/// The first block of this language on the page.
fn block<'a>(page: &'a str, language: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n```{language}\n")).expect("the page has such a block");
    rest.split_once("\n```\n").expect("the block ends").0
}

#[test]
fn the_page_shows_the_very_files_that_are_run() {
    let read = |path: &str| fs::read_to_string(format!("{ROOT}/{path}")).unwrap();
    let page = read("docs/how-to/verify-by-list.md");
    for (language, file) in
        [("rust", "crates/verifier/examples/list_server.rs"), ("python", "tests/interop/list_server.py")]
    {
        assert_eq!(format!("{}\n", block(&page, language)), read(file), "paste {file} anew");
    }
}

/// A broker of `dayfly dev` whose staging target goes by list.
fn broker(work: &Path) -> Dev {
    policies(work);
    Dev::start(work, &["--policies", "mine"])
}

/// The shipped tables with that target, in `mine`.
pub fn policies(work: &Path) {
    let shipped = fs::read_to_string(format!("{ROOT}/policies/shop.toml")).unwrap();
    let (head, staging) = shipped.split_once("[target.shop-staging]").unwrap();
    let staging = staging.replacen("\"introspect\"", "\"list\"", 1);
    fs::create_dir(work.join("mine")).unwrap();
    fs::write(work.join("mine/shop.toml"), format!("{head}[target.shop-staging]{staging}")).unwrap();
}

fn job(work: &Path, name: &str) -> String {
    let issued = dev::job(work, name);
    assert!(issued.status.success(), "{}", text(&issued.stderr));
    fs::read_to_string(work.join(name)).unwrap().trim().to_owned()
}

/// What the foreign decoder finds at each token's entry.
fn bits(work: &Path, tokens: &[String]) -> Vec<Value> {
    let vars = dev::env(work);
    let mut command = python("status_list.py");
    let command = command.args(["follow", &vars["DAYFLY_ADDR"], &vars["DAYFLY_CA"]]);
    let said = with_input(command, (tokens.join("\n") + "\n").as_bytes());
    assert!(said.status.success(), "{}", text(&said.stderr));
    let value = |line: &str| serde_json::from_str::<Value>(line).unwrap()["value"].clone();
    text(&said.stdout).lines().map(value).collect()
}

/// What introspection says of each.
async fn introspected(work: &Path, tokens: &[String]) -> Vec<Value> {
    let vars = dev::env(work);
    let online = Online::new(OnlineSettings {
        issuer: vars["DAYFLY_ADDR"].clone(),
        audience: TARGET.to_owned(),
        ca_pem: Some(fs::read(&vars["DAYFLY_CA"]).unwrap()),
        credential: Credential::BearerFile(vars["DAYFLY_OPERATOR_TOKEN_FILE"].clone().into()),
        max_stale: Duration::ZERO,
    });
    let (online, mut said) = (online.await.unwrap(), Vec::new());
    for token in tokens {
        said.push(match online.check(token).await {
            Ok(_) => json!(0),
            Err(Refused::Inactive) => json!(1),
            Err(other) => panic!("{other}"),
        });
    }
    said
}

async fn listed(issuer: &str, ca_pem: Vec<u8>) -> Listed {
    let settings = ListSettings { ca_pem: Some(ca_pem), ..ListSettings::new(issuer, TARGET) };
    Listed::new(settings).await.unwrap()
}

async fn says(listed: &Listed, tokens: &[String]) -> Vec<u16> {
    let mut said = Vec::new();
    for token in tokens {
        said.push(listed.check(token).await.map_or_else(|refused| refused.status(), |_| 200));
    }
    said
}

/// Every token that was issued: its bit, introspection, our verifier and a server in Python, before and after
/// ends of three kinds, and when only the files of the broker are left.
#[tokio::test(flavor = "multi_thread")]
async fn every_bit_says_what_introspection_says() {
    if skipped("python") {
        return;
    }
    let work = dev::work();
    let work = work.path();
    let dev = broker(work);
    let vars = dev::env(work);
    let (issuer, ca) = (vars["DAYFLY_ADDR"].clone(), vars["DAYFLY_CA"].clone());
    let names = ["a", "b", "c", "d", "e", "f"];
    let tokens: Vec<String> = block_in_place(|| names.iter().map(|name| job(work, name)).collect());
    let all_live = vec![json!(0); tokens.len()];
    assert_eq!(block_in_place(|| bits(work, &tokens)), all_live);
    assert_eq!(introspected(work, &tokens).await, all_live);
    assert_eq!(says(&listed(&issuer, fs::read(&ca).unwrap()).await, &tokens).await, [200; 6]);

    block_in_place(|| {
        let mut end = dayfly(&["task", "end"]);
        end.envs(&vars).env("DAYFLY_TASK_FILE", "a.task");
        assert!(end.current_dir(work).output().unwrap().status.success());
        let lease: Value =
            serde_json::from_str(&dev::good(work, &["lease", "ls", "--limit", "1", "--output", "json"])).unwrap();
        dev::good(work, &["revoke", lease["items"][0]["id"].as_str().unwrap(), "--reason", "a try"]);
        let task: Value =
            serde_json::from_str(&dev::good(work, &["task", "ls", "--limit", "4", "--output", "json"])).unwrap();
        dev::good(work, &["revoke", task["items"][3]["id"].as_str().unwrap(), "--reason", "another", "--no-block"]);
    });
    let now = introspected(work, &tokens).await;
    assert_eq!(now.iter().filter(|ended| **ended == json!(1)).count(), 3, "{now:?}");
    // Signed at most once a second.
    block_in_place(|| wait_until("the list", || bits(work, &tokens) == now));
    let statuses: Vec<u16> = now.iter().map(|ended| if *ended == json!(0) { 200 } else { 401 }).collect();
    assert_eq!(says(&listed(&issuer, fs::read(&ca).unwrap()).await, &tokens).await, statuses);

    let www = work.join("www");
    block_in_place(|| {
        let done = dayfly(&["publish", "www", "--state", "state"]).current_dir(work).output().unwrap();
        assert!(done.status.success(), "{}", text(&done.stderr));
    });
    dev.end(Signal::KILL);
    let (url, ca_pem, _doors) = by_file::serve(issuer.strip_prefix("https://").unwrap(), &www).await;
    assert_eq!(url, issuer, "the web server stands where the broker stood");
    assert_eq!(says(&listed(&issuer, ca_pem.clone().into_bytes()).await, &tokens).await, statuses);
    fs::write(work.join("web-ca.pem"), ca_pem).unwrap();
    block_in_place(|| {
        let mut command = python("list_server.py");
        let command = command.args([&issuer, TARGET]).arg(work.join("web-ca.pem")).arg(ACTION);
        let server = Server::start(command.stderr(Stdio::null()));
        assert_eq!(tokens.iter().map(|token| server.bearer(token)).collect::<Vec<_>>(), statuses);
    });
}
