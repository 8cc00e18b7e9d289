//! The fuzz targets of tests/fuzz, bounded, on stable: seeded mutations of published tokens and keys
//! and of what clients send. The same seed gives the same inputs; a finding says how to get it again.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

const SEED: u64 = 0x6461_7966_6c79_0003;

/// Deterministic and good enough to choose mutations by (xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from((self.next() >> 11) % end.max(1) as u64).unwrap()
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// From here to there, both within.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        start..start + self.below((len - start).min(24) + 1)
    }
}

type Target = fn(&[u8]) -> bool;
type Mutate = fn(&mut Dice, &[Vec<u8>]) -> Vec<u8>;

/// Runs a target; fails with what is needed to run it again. Enough must be let through and enough
/// refused, or the mutations test nothing.
fn run(target: Target, seeds: &[Vec<u8>], rounds: u32, mutate: Mutate) {
    let (mut dice, mut read) = (Dice(SEED), 0);
    for seed in seeds {
        target(seed);
    }
    for round in 0..rounds {
        let input = mutate(&mut dice, seeds);
        match catch_unwind(AssertUnwindSafe(|| target(&input))) {
            Ok(through) => read += u32::from(through),
            Err(_) => panic!("seed {SEED:#x}, round {round}: {:?}", String::from_utf8_lossy(&input)),
        }
    }
    println!("seed {SEED:#x}: {read} of {rounds} were let through");
    assert!(read > rounds / 50, "hardly anything was let through: {read} of {rounds}");
    assert!(read < rounds - rounds / 50, "hardly anything was refused: {read} of {rounds}");
}

const TOKENS: [&[u8]; 14] =
    [b".", b"=", b"&", b"%", b"+", b"\"", b"{}", b"[]", b"null", b"%00", b"%c3%28", b"\0", b"\xff", b"\xe2\x80\xae"];

fn bytes(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut text = dice.one(seeds).clone();
    for _ in 0..=dice.below(3) {
        let at = dice.range(text.len());
        match dice.below(7) {
            0 if !at.is_empty() => text[at.start] ^= 1 << dice.below(8),
            1 => drop(text.drain(at)),
            2 => {
                let again = text[at.clone()].to_vec();
                drop(text.splice(at.start..at.start, again));
            }
            3 => drop(text.splice(at, dice.one(&TOKENS).to_vec())),
            4 => {
                let other = dice.one(seeds).clone();
                let from = dice.range(other.len());
                drop(text.splice(at, other[from].to_vec()));
            }
            5 => text.truncate(at.start),
            _ => {}
        }
    }
    text
}

/// One member or entry somewhere inside changed, taken away, moved, or put in.
fn json(dice: &mut Dice, value: &mut Value) {
    let odd = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(""),
        json!(" "),
        json!("none"),
        json!("sig"),
        json!("jwt-svid"),
        json!("oct"),
        json!("RS256"),
        json!([]),
        json!({}),
        json!(["a", "a"]),
        json!("x".repeat(300)),
    ];
    let names = ["kid", "alg", "use", "d", "k", "kty", "crv", "crit", "jwk", "typ", "ttl", "ticket", "actions", "keys"];
    match value {
        Value::Object(members) if !members.is_empty() => {
            let name = (*dice.one(&members.keys().cloned().collect::<Vec<_>>())).clone();
            match dice.below(6) {
                0 => drop(members.remove(&name)),
                1 => drop(members.insert(name, dice.one(&odd).clone())),
                2 => drop(members.insert((*dice.one(&names)).to_owned(), dice.one(&odd).clone())),
                _ => json(dice, &mut members[&name]),
            }
        }
        Value::Array(entries) if !entries.is_empty() => {
            let at = dice.below(entries.len());
            match dice.below(5) {
                0 => drop(entries.remove(at)),
                1 => entries.push(entries[at].clone()),
                _ => json(dice, &mut entries[at]),
            }
        }
        Value::String(text) if !text.is_empty() && dice.below(2) == 0 => {
            let mut letters: Vec<char> = text.chars().collect();
            let at = dice.below(letters.len());
            letters[at] = *dice.one(&['A', '_', '-', '=', '0', '\u{e9}']);
            *text = letters.into_iter().collect();
        }
        other => *other = dice.one(&odd).clone(),
    }
}

/// JSON with its structure changed, written with a member there twice now and then.
fn structured(dice: &mut Dice, text: &[u8]) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return text.to_vec() };
    for _ in 0..=dice.below(2) {
        json(dice, &mut value);
    }
    let text = value.to_string();
    let twice = dice.below(12) == 0 && text.len() > 2 && text.starts_with('{');
    let member = value.as_object().and_then(|members| members.iter().next());
    match member {
        Some((name, value)) if twice => format!("{{{}:{value},{}", json!(name), &text[1..]).into_bytes(),
        _ => text.into_bytes(),
    }
}

fn json_text(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    if dice.below(4) == 0 {
        return bytes(dice, seeds);
    }
    let seed = dice.one(seeds).clone();
    structured(dice, &seed)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A token with one part decoded, changed and encoded again, or taken from another token.
fn token(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    if dice.below(4) == 0 {
        return bytes(dice, seeds);
    }
    let seed = text(dice.one::<Vec<u8>>(seeds));
    let mut parts: Vec<String> = seed.split('.').map(str::to_owned).collect();
    let at = dice.below(parts.len());
    match (dice.below(3), URL_SAFE_NO_PAD.decode(&parts[at])) {
        (0, _) => {
            let other = text(dice.one::<Vec<u8>>(seeds));
            parts[at] = other.split('.').nth(at).unwrap_or_default().to_owned();
        }
        (_, Ok(decoded)) => {
            let changed = match serde_json::from_slice::<Value>(&decoded) {
                Ok(_) => structured(dice, &decoded),
                Err(_) => bytes(dice, &[decoded]),
            };
            parts[at] = URL_SAFE_NO_PAD.encode(changed);
        }
        (_, Err(_)) => parts[at].push('A'),
    }
    parts.join(".").into_bytes()
}

fn owned(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn t_024_no_compact_jws_breaks_the_gate_or_gets_past_it() {
    dayfly_verifier::crypto::init().unwrap();
    let seeds: Vec<Vec<u8>> = targets::PUBLISHED.tokens.iter().map(|token| token.clone().into_bytes()).collect();
    run(targets::jws, &seeds, 8_000, token);
}

/// As go-spiffe has it (`spiffebundle_valid_1.json`), without the certificate.
const TRUST_BUNDLE: &str = r#"{"keys":[
 {"use":"x509-svid","kty":"EC","crv":"P-384","x":"WjB-nSGSxIYiznb84xu5WGDZj80nL7W1c3zf48Why0ma7Y7mCBKzfQkrgDguI4j0",
  "y":"Z-0_tDH_r8gtOtLLrIpuMwWHoe4vbVBFte1vj6Xt6WeE8lXwcCvLs_mcmvPqVK9j"},
 {"use":"jwt-svid","kty":"EC","kid":"C6vs25welZOx6WksNYfbMfiw9l96pMnD","crv":"P-256",
  "x":"ngLYQnlfF6GsojUwqtcEE3WgTNG2RUlsGhK73RNEl5k","y":"tKbiDSUSsQ3F1P7wteeHNXIcU-cx6CgSbroeQrQHTLM"}],
 "spiffe_sequence":1,"spiffe_refresh_hint":300}"#;

#[test]
fn t_024_no_key_set_breaks_its_reader_or_smuggles_a_key() {
    dayfly_verifier::crypto::init().unwrap();
    let published = targets::PUBLISHED.key_sets.iter().map(|set| set.to_string().into_bytes());
    let seeds: Vec<Vec<u8>> = published.chain([TRUST_BUNDLE.as_bytes().to_vec()]).collect();
    run(targets::key_set, &seeds, 4_000, json_text);
}

#[test]
fn t_024_no_form_breaks_its_reader_or_says_a_thing_twice() {
    let seeds = owned(&[
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=e30.e30.AA&scope=deploy",
        "subject_token_type=urn:ietf:params:oauth:token-type:jwt&requested_token_type=&resource=https://a.example/x?y=z",
        "token=abc+def%20ghi&token_type_hint=%C3%A9&&a==&b",
        "authorization_details=%5B%7B%22type%22%3A%22dayfly_task%22%2C%22template%22%3A%22deploy%22%7D%5D",
        "a=1&a=2",
        "",
    ]);
    run(targets::form, &seeds, 20_000, bytes);
}

#[test]
fn t_024_no_authorization_details_break_their_reader_or_leave_their_bounds() {
    let seeds = owned(&[
        r#"[{"type":"dayfly_task","template":"deploy-prod"}]"#,
        r#"[{"type":"dayfly_task","template":"deploy-prod","actions":["deploy:create","deploy:status"],"ttl":900}]"#,
        r#"[{"type":"dayfly_task","template":"d","ticket":"OPS-1","ttl":18446744073709551615}]"#,
        r#"[{"type":"dayfly_task","template":"d","ticket":"\u00e9\ud83d\ude00"}]"#,
    ]);
    run(targets::details, &seeds, 15_000, json_text);
}

#[test]
fn t_024_no_status_list_breaks_its_reader_or_unpacks_more_than_is_read() {
    use dayfly_verifier::status::{StatusBits, StatusList};
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (width, bits) in [(1, StatusBits::One), (2, StatusBits::Two), (4, StatusBits::Four), (8, StatusBits::Eight)] {
        for entries in [8, 64, 1024, 65_536] {
            let mut list = StatusList::new(bits, entries);
            assert!((0..entries).step_by(13).all(|index| list.set(index, 1)));
            seeds.push([&[width, 32][..], list.encode().as_bytes()].concat());
        }
    }
    seeds.extend([b"\x01\x01eNrbuRgAAhcBXQ".to_vec(), b"\x02\x01eNo76fITAAPfAgc".to_vec()]);
    run(targets::status_list, &seeds, 8_000, bytes);
}

#[test]
fn t_024_no_list_token_breaks_its_reader_or_speaks_for_another() {
    let (by, at_s) = (targets::LISTED_BY, targets::LISTED_AT_S);
    let whole = json!({
        "iss": by, "sub": format!("{by}/status/a-b_9"), "iat": at_s, "exp": at_s + 300, "ttl": 15,
        "status_list": {"bits": 1, "lst": "eNrbuRgAAhcBXQ"},
    });
    let short = json!({
        "sub": format!("{by}/status/x"), "iat": at_s - 5, "exp": at_s + 86_400, "ttl": 1, "nbf": at_s,
        "status_list": {"bits": 2, "lst": "eNo76fITAAPfAgc", "aggregation_uri": "u"}, "typ": "at+jwt", "aud": "x",
    });
    let seeds = [whole, short].map(|claims| claims.to_string().into_bytes());
    run(targets::list_claims, &seeds, 3_000, json_text);
}

#[test]
fn t_130_no_request_for_a_certificate_breaks_its_reader_or_asks_for_more() {
    use ring::signature::KeyPair;

    use crate::certs::{EXTENSION_REQUEST, attribute, der};
    let key = der(0x03, &[&[0], targets::REQUESTER.public_key().as_ref()]);
    let spki = der(0x30, &[&[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70], &key]);
    let request = |subject: &[u8], attributes: &[u8]| {
        der(0x30, &[&[0x02, 0x01, 0x00], &der(0x30, &[subject]), &spki, &der(0xa0, &[attributes])])
    };
    let extension = |id: &[u8], value: &[u8]| der(0x30, &[&der(0x06, &[id]), &der(0x04, &[value])]);
    let names = der(0x30, &[&der(0x86, &[b"spiffe://example.org/deploy/ci/shop"]), &der(0x82, &[b"db"])]);
    let purpose = der(0x30, &[&[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]]);
    let all = der(
        0x30,
        &[
            &extension(&[0x55, 0x1d, 0x11], &names),
            &extension(&[0x55, 0x1d, 0x13], &[0x30, 0]),
            &extension(&[0x55, 0x1d, 0x0f], &[0x03, 0x02, 0x07, 0x80]),
            &extension(&[0x55, 0x1d, 0x25], &purpose),
        ],
    );
    let name = der(0x31, &[&der(0x30, &[&[0x06, 0x03, 0x55, 0x04, 0x03], &der(0x0c, &[b"shop"])])]);
    let seeds = [request(&[], &[]), request(&name, &[]), request(&[], &attribute(EXTENSION_REQUEST, &all))];
    assert!(seeds.iter().all(|seed| targets::csr(seed)));
    run(targets::csr, &seeds, 10_000, bytes);
}
