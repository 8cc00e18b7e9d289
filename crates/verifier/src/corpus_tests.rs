//! The JOSE corpus (tests/corpus/jose) against the gate: what others published, and where it must
//! stop. Payloads there are mostly no JSON, so the signature layer is asked by itself as well.

use std::collections::BTreeMap;

use jsonwebtoken::crypto::verify as verify_signature;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Jws, KeySet, Refusal, Rules, UnixMs, crypto, json as strict, jws, keys::For, verify};

const FILES: [&str; 4] = [
    include_str!("../../../tests/corpus/jose/rfc.json"),
    include_str!("../../../tests/corpus/jose/wycheproof.json"),
    include_str!("../../../tests/corpus/jose/own.json"),
    include_str!("../../../tests/corpus/jose/ear.json"),
];
const PKCS1: &str = include_str!("../../../tests/corpus/jose/rsa_pkcs1_sha256.txt");

#[derive(Deserialize)]
struct Corpus {
    keys: BTreeMap<String, Value>,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    source: String,
    keys: String,
    token: String,
    expect: String,
}

fn corpora() -> impl Iterator<Item = Corpus> {
    FILES.into_iter().map(|text| serde_json::from_str(text).unwrap())
}

/// A header as the gate reads it, behind a payload that the gate can read.
fn with_claims(token: &str) -> Option<String> {
    let [header, payload, signature] = <[&str; 3]>::try_from(token.split('.').collect::<Vec<_>>()).ok()?;
    let whole = !(header.is_empty() || payload.is_empty() || signature.is_empty());
    (whole && strict::base64url(payload).is_some()).then(|| format!("{header}.e30.{signature}"))
}

/// Form, header, key and signature, whatever the payload is.
fn signature_layer(token: &str, keys: &Value) -> &'static str {
    let Ok(keys) = KeySet::parse(keys.to_string().as_bytes()) else { return "key_set" };
    let parsed = with_claims(token).ok_or(Refusal::Malformed).and_then(|text| Jws::parse(&text));
    let read = match parsed {
        Ok(read) => read,
        Err(Refusal::Algorithm) => return "algorithm",
        Err(Refusal::Header) => return "header",
        Err(_) => return "malformed",
    };
    let Some(key) = keys.find(read.kid(), read.algorithm(), For::Tokens) else { return "unknown_key" };
    let (message, signature) = token.rsplit_once('.').unwrap();
    match verify_signature(signature, message.as_bytes(), key, read.algorithm()) {
        Ok(true) => "verifies",
        _ => "signature",
    }
}

#[test]
fn the_corpus_stops_where_it_must() {
    crypto::init().unwrap();
    let (mut seen, mut verified) = (0, 0);
    for Corpus { keys, entries } in corpora() {
        for entry in entries {
            let keys = &keys[&entry.keys];
            let found = signature_layer(&entry.token, keys);
            assert_eq!(found, entry.expect, "{} ({})", entry.id, entry.source);
            seen += 1;
            verified += usize::from(found == "verifies");
        }
    }
    assert!(seen > 110 && verified >= 10, "{verified} of {seen} are positive controls");
}

/// Whole tokens through the whole gate: one that verifies is refused by its claims and by nothing
/// before them, everything else before its claims.
#[test]
fn the_gate_agrees_with_the_corpus() {
    let rules = Rules {
        algs: ["RS256", "PS384", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
        ..Rules::new("joe", "https://dayfly.example")
    };
    let mut by_claims = 0;
    for Corpus { keys, entries } in corpora() {
        for entry in entries {
            let Ok(keys) = KeySet::parse(keys[&entry.keys].to_string().as_bytes()) else { continue };
            let outcome = Jws::parse(&entry.token).and_then(|jws| verify(&jws, &keys, &rules, UnixMs::from_s(1)));
            let refusal = outcome.expect_err(&entry.id);
            let late = matches!(refusal, Refusal::Issuer | Refusal::Audience | Refusal::Claim(_) | Refusal::Expired);
            let readable = entry.token.split('.').nth(1).and_then(strict::base64url).and_then(|b| strict::object(&b));
            assert_eq!(late, entry.expect == "verifies" && readable.is_some(), "{}: {refusal}", entry.id);
            by_claims += usize::from(late);
        }
    }
    assert!(by_claims >= 3, "RFC 7515 A.2 and A.3, and our own control: {by_claims}");
}

/// One line of the PKCS#1 file.
struct Signed<'a> {
    id: &'a str,
    good: bool,
    message: Vec<u8>,
    signature: &'a str,
    comment: &'a str,
}

fn signed(line: &str) -> Signed<'_> {
    let mut fields = line.splitn(5, ' ');
    let mut next = || fields.next().unwrap();
    let (id, result, message, signature, comment) = (next(), next(), next(), next(), next());
    let filled = |text| if text == "-" { "" } else { text };
    let (message, signature) = (strict::base64url(filled(message)).unwrap(), filled(signature));
    Signed { id, good: result == "valid", message, signature, comment }
}

#[test]
fn t_021_padding_of_pkcs1_is_not_malleable() {
    crypto::init().unwrap();
    let (mut keys, mut good, mut bad) = (None, 0, 0);
    for line in PKCS1.lines().filter(|line| !line.starts_with('#')) {
        if let Some(key) = line.strip_prefix("key ") {
            let (n, e) = key.split_once(' ').unwrap();
            let set = json!({"keys": [{"kty": "RSA", "n": n, "e": e, "alg": "RS256"}]});
            keys = Some(KeySet::parse(set.to_string().as_bytes()).unwrap());
            continue;
        }
        let case = signed(line);
        let (_, algorithm) = jws::algorithm("RS256").unwrap();
        let key = keys.as_ref().and_then(|keys| keys.find(None, algorithm, For::Tokens)).unwrap();
        let verifies = verify_signature(case.signature, &case.message, key, algorithm) == Ok(true);
        assert_eq!(verifies, case.good, "tcId {}: {}", case.id, case.comment);
        *(if verifies { &mut good } else { &mut bad }) += 1;
    }
    assert_eq!((good, bad), (9, 250));
}

#[test]
fn t_018_a_key_of_the_roca_library_is_dropped() {
    let [_, wycheproof, ..] = FILES;
    let corpus: Corpus = serde_json::from_str(wycheproof).unwrap();
    for (name, dropped) in [("jwk-roca", 1), ("jwk-1024", 1), ("jwk-exponent-1", 1), ("rsa", 0)] {
        let keys = KeySet::parse(corpus.keys[name].to_string().as_bytes()).unwrap();
        assert_eq!((keys.dropped(), keys.len()), (dropped, 1 - dropped), "{name}");
    }
}

#[test]
fn a_corpus_names_its_sources() {
    let published = ["RFC ", "Wycheproof ", "Veraison "];
    for (at, Corpus { entries, .. }) in corpora().enumerate() {
        for Entry { id, source, .. } in entries {
            let ours = source.starts_with("own, after ");
            assert_eq!(ours, at == 2, "{id}");
            assert!(ours || published.iter().any(|name| source.starts_with(name)), "{id}: {source}");
        }
    }
    let empty: Map<String, Value> = Map::new();
    assert!(strict::object(b"{}") == Some(empty), "the payload that stands in is an object");
}
