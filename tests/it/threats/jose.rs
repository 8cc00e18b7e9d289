//! Section A: how evidence is read and its signature checked.

use std::{collections::BTreeSet, net::TcpListener};

use dayfly_domain::bundle::Problem;
use serde_json::{Value, json};

use super::{
    forge::{Forge, b64, claims, compact, hex, with},
    stand::{ISSUER_UNKNOWN, SIGNATURE, Stand, bundle, refusal},
};
use crate::world::{Job, World};

const ALGS: [&str; 7] = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"];

fn named(tokens: impl IntoIterator<Item = String>) -> impl Iterator<Item = (String, String)> {
    tokens.into_iter().enumerate().map(|(at, token)| (format!("{at}: {}", token.get(..60).unwrap_or(&token)), token))
}

/// Splits a compact token.
fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

/// Without this, every other test here could pass on a broker that refuses everything.
#[tokio::test]
async fn what_is_well_signed_opens_a_task() {
    let stand = Stand::new();
    for alg in ALGS {
        let opened = stand.opens(&stand.forge.header(alg, json!({}))).await;
        assert_eq!(opened["token_type"], "Bearer", "{alg}");
    }
    let tally = stand.tally().await;
    assert_eq!((tally.tasks, tally.leases, tally.denied), (7, 7, 0));
}

#[tokio::test]
async fn t_001_alg_none_is_refused() {
    let stand = Stand::new();
    let values = ["none", "None", "nOnE", "NONE ", "NONE", "", " ", "none\u{0}", "HS256", "es256", "ES256 "];
    let mut algs: Vec<Value> = values.map(|alg| json!(alg)).to_vec();
    algs.extend([json!(1), json!(["ES256"]), json!({ "alg": "ES256" }), json!(true), json!([])]);
    let mut tokens = Vec::new();
    for alg in algs {
        let token = stand.forge.header("ES256", json!({ "alg": alg }));
        let unsigned = token.rsplit_once('.').unwrap().0.to_owned();
        tokens.extend([token, format!("{unsigned}."), unsigned]);
    }
    for header in [r#"{"alg":null,"kid":"e"}"#, r#"{"kid":"e"}"#, r#"{}"#, r#"{"ALG":"ES256","kid":"e"}"#] {
        tokens.push(stand.forge.signed("ES256", header, claims().to_string()));
    }
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

#[tokio::test]
async fn t_002_hmac_with_a_public_key_is_refused() {
    let stand = Stand::new();
    let mut tokens = Vec::new();
    for alg in ["HS256", "HS384", "HS512"] {
        for key in stand.forge.public_forms("r") {
            tokens.push(stand.forge.maced(alg, "r", &key));
        }
    }
    assert!(tokens.len() >= 3 * 10);
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

#[test]
fn t_002_no_issuer_can_be_told_to_accept_hmac() {
    for alg in ["HS256", "HS384", "HS512", "none", "hs256", "HS1", "", "ES512", "ES256K", "dir"] {
        let text = bundle().replacen("\"RS384\"", &format!("\"{alg}\""), 1);
        assert!(problems(&text).iter().any(|problem| problem.to_string().contains(".algs")), "{alg}");
    }
    assert!(problems(&bundle()).is_empty());
}

/// Why a bundle does not load.
pub fn problems(text: &str) -> Vec<Problem> {
    problems_with(text, &Forge::new().jwks())
}

fn problems_with(text: &str, jwks: &Value) -> Vec<Problem> {
    let env = dayfly::policy::BundleEnv {
        issuer_url: crate::world::ISSUER.into(),
        broker_binding: dayfly_domain::BindingKind::Bearer,
    };
    let files = [dayfly::sys::files::SourceFile { path: "a.toml".into(), bytes: text.as_bytes().to_vec() }];
    dayfly::policy::parse(&files, &env, &mut |_| Ok(jwks.to_string().into_bytes())).err().unwrap_or_default()
}

#[tokio::test]
async fn t_003_hmac_with_an_ec_or_ed_key_is_refused() {
    let stand = Stand::new();
    let mut tokens = Vec::new();
    for kid in ["e", "p", "d"] {
        for key in stand.forge.public_forms(kid) {
            tokens.push(stand.forge.maced("HS256", kid, &key));
        }
    }
    assert!(tokens.len() >= 3 * 8);
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

#[tokio::test]
async fn t_004_encrypted_and_nested_tokens_are_refused() {
    let stand = Stand::new();
    let good = stand.forge.header("ES256", json!({}));
    let plain = format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(claims().to_string()));
    let mut tokens = Vec::new();
    for alg in ["RSA-OAEP", "RSA-OAEP-256", "RSA1_5", "dir", "ECDH-ES", "A256KW", "PBES2-HS256+A128KW"] {
        let header = json!({ "alg": alg, "enc": "A256GCM", "cty": "JWT", "kid": "r" }).to_string();
        for inside in [&good, &plain] {
            tokens.push(format!("{}.{}.{}.{}.{}", b64(&header), b64("key"), b64("iv"), b64(inside), b64("tag")));
            tokens.push(format!("{}..{}.{}.{}", b64(&header), b64("iv"), b64(inside), b64("tag")));
        }
    }
    tokens.push(stand.forge.header("ES256", json!({ "cty": "JWT" })));
    tokens.push(stand.forge.signed("ES256", r#"{"alg":"ES256","kid":"e","cty":"JWT"}"#, &good));
    tokens.push(stand.forge.signed("ES256", r#"{"alg":"ES256","kid":"e"}"#, &plain));
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

/// Somebody whom no token may make us call.
struct Decoy(TcpListener);

impl Decoy {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.0.local_addr().unwrap())
    }

    fn was_called(&self) -> bool {
        self.0.accept().is_ok()
    }
}

#[tokio::test]
async fn t_005_an_embedded_jwk_is_refused() {
    let (stand, attacker, decoy) = (Stand::new(), Forge::new(), Decoy::new());
    let own = with(attacker.jwk("e"), json!({ "x5u": decoy.url() }));
    let header = json!({ "alg": "ES256", "typ": "JWT", "kid": "e", "jwk": own }).to_string();
    let mut tokens = vec![
        attacker.signed("ES256", &header, claims().to_string()),
        stand.forge.signed("ES256", &header, claims().to_string()),
        stand.forge.header("ES256", json!({ "jwk": stand.forge.jwk("e") })),
        stand.forge.header("EdDSA", json!({ "jwk": stand.forge.jwk("d") })),
    ];
    tokens.push(attacker.header("ES256", json!({})));
    tokens.push(attacker.signed("ES256", r#"{"alg":"ES256"}"#, claims().to_string()));
    stand.all_refused(SIGNATURE, named(tokens)).await;
    assert!(!decoy.was_called());
}

#[tokio::test]
async fn t_006_a_key_url_is_refused_and_never_called() {
    let (stand, attacker, decoy) = (Stand::new(), Forge::new(), Decoy::new());
    let mut tokens = Vec::new();
    for forge in [&stand.forge, &attacker] {
        for member in ["jku", "x5u"] {
            for value in [json!(decoy.url()), json!([decoy.url()]), json!(""), json!(7)] {
                tokens.push(forge.header("ES256", json!({ member: value })));
                tokens.push(forge.header("ES256", json!({ member: value, "kid": null })));
            }
        }
        tokens.push(forge.header("RS256", json!({ "x5c": ["MIIB"] })));
        tokens.push(forge.header("RS256", json!({ "x5c": [] })));
    }
    stand.all_refused(SIGNATURE, named(tokens)).await;
    let foreign = attacker.claims(json!({ "iss": decoy.url() }));
    stand.all_refused(ISSUER_UNKNOWN, named([foreign])).await;
    assert!(!decoy.was_called());
    std::net::TcpStream::connect(decoy.0.local_addr().unwrap()).unwrap();
    assert!(decoy.was_called(), "the decoy would have noticed");
}

#[tokio::test]
async fn t_007_a_kid_is_only_a_name() {
    let stand = Stand::new();
    let long = "k".repeat(64 << 10);
    let texts =
        ["../../../dev/null", "' OR 1=1--", "\u{0}", "e\u{0}", "$(id)", "e ", " e", "E", "e\n", "%65", "", &long];
    let mut kids: Vec<Value> = texts.map(|kid| json!(kid)).to_vec();
    kids.extend([json!(1), json!(["e"]), json!({ "kid": "e" }), json!(true), json!("k".repeat(257))]);
    let mut tokens: Vec<String> = kids.iter().map(|kid| stand.forge.header("ES256", json!({ "kid": kid }))).collect();
    tokens.push(stand.forge.signed("ES256", r#"{"alg":"ES256","kid":null}"#, claims().to_string()));
    // What is longer than a body may be is not even read as a form.
    tokens.retain(|token| token.len() < 60 << 10);
    stand.all_refused(SIGNATURE, named(tokens)).await;
    let huge = stand.present(&stand.forge.header("ES256", json!({ "kid": long }))).await;
    refusal(&huge, (413, "invalid_request", "E-TOO-LARGE"), "a body over 64 KiB");
}

#[tokio::test]
async fn t_008_an_empty_signature_is_refused() {
    let stand = Stand::new();
    let token = stand.forge.header("ES256", json!({}));
    let [header, payload, signature] = parts(&token);
    let tokens = [
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        "..".to_owned(),
        ".".to_owned(),
        "x".to_owned(),
        format!("{header}.{payload}.{}", b64([])),
        format!("{header}.{payload}.AA"),
    ];
    stand.all_refused(SIGNATURE, named(tokens)).await;
    let empty = stand.present("").await;
    refusal(&empty, super::stand::REQUEST, "an empty parameter is malformed before it is a token");
}

#[tokio::test]
async fn t_009_psychic_signatures_are_refused() {
    let stand = Stand::new();
    let p256 = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let p384 = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let mut tokens = Vec::new();
    for (alg, order) in [("ES256", hex(p256)), ("ES384", hex(p384))] {
        let size = order.len();
        let (zero, mut one, mut less) = (vec![0; size], vec![0; size], order.clone());
        one[size - 1] = 1;
        less[size - 1] -= 1;
        let values = [&zero, &one, &less, &order];
        let header = json!({ "alg": alg, "typ": "JWT", "kid": Forge::kid(alg) }).to_string();
        for r in values {
            for s in values {
                tokens.push(compact(&header, claims().to_string(), |_| [&r[..], &s[..]].concat()));
            }
        }
        for length in [0, 1, size, 2 * size - 1, 2 * size + 1, 4 * size] {
            tokens.push(compact(&header, claims().to_string(), |_| vec![1; length]));
        }
    }
    let header = r#"{"alg":"EdDSA","kid":"d"}"#;
    tokens.push(compact(header, claims().to_string(), |_| vec![0; 64]));
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

#[tokio::test]
async fn t_010_crit_is_refused() {
    let stand = Stand::new();
    let crits = [json!(["x"]), json!([]), json!("exp"), json!(["b64"]), json!(["alg"]), json!(["exp"]), json!({})];
    let mut tokens: Vec<_> = crits.iter().map(|crit| stand.forge.header("ES256", json!({ "crit": crit }))).collect();
    tokens.push(stand.forge.header("ES256", json!({ "crit": ["b64"], "b64": true })));
    tokens.push(stand.forge.header("RS256", json!({ "crit": ["x"], "x": 1 })));
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

#[tokio::test]
async fn t_011_b64_is_refused() {
    let stand = Stand::new();
    let mut tokens: Vec<_> = [json!(false), json!(true), json!("false"), json!(0)]
        .iter()
        .map(|b64| stand.forge.header("ES256", json!({ "b64": b64 })))
        .collect();
    // The payload as it stands, signed so, as RFC 7797 has it.
    let header = b64(r#"{"alg":"ES256","kid":"e","b64":false,"crit":["b64"]}"#);
    let (plain, signed) = (claims().to_string(), stand.forge.header("ES256", json!({})));
    tokens.push(format!("{header}.{plain}.{}", parts(&signed)[2]));
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

#[tokio::test]
async fn t_012_compression_is_refused() {
    let stand = Stand::new();
    let tokens = [json!("DEF"), json!("GZ"), json!(null), json!(1)].map(|zip| {
        stand.forge.signed("ES256", json!({ "alg": "ES256", "kid": "e", "zip": zip }).to_string(), claims().to_string())
    });
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

#[tokio::test]
async fn t_013_password_iterations_are_refused() {
    let stand = Stand::new();
    let mut tokens = Vec::new();
    for alg in ["PBES2-HS256+A128KW", "PBES2-HS512+A256KW", "ES256"] {
        for count in [json!(2_147_483_647_u32), json!(u64::MAX), json!(1)] {
            let token = stand.forge.header("ES256", json!({ "alg": alg, "p2c": count, "p2s": "AAAA" }));
            tokens.push(format!("{}.{token}", b64("x")));
            tokens.push(token);
        }
    }
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

#[tokio::test]
async fn t_014_dots_are_not_split_without_bound() {
    let stand = Stand::new();
    let padded = |length: usize| stand.forge.claims(json!({ "pad": "x".repeat(length) }));
    let tokens = [".".repeat(60 << 10), "a.".repeat(30 << 10), padded(16 << 10), padded(12_400)];
    stand.all_refused(SIGNATURE, named(tokens)).await;
    for dots in [".".repeat(1 << 20), "a.".repeat(1_000_000)] {
        refusal(&stand.present(&dots).await, (413, "invalid_request", "E-TOO-LARGE"), "a body over 64 KiB");
    }
    stand.opens(&padded(11_000)).await;
}

#[tokio::test]
async fn t_015_json_serialisations_are_refused() {
    let stand = Stand::new();
    let token = stand.forge.header("ES256", json!({}));
    let [header, payload, signature] = parts(&token);
    let flat = json!({ "protected": header, "payload": payload, "signature": signature });
    let general = json!({ "payload": payload, "signatures": [{ "protected": header, "signature": signature }] });
    let polyglot = format!(
        r#"{{"{header}.{payload}.":"","payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#
    );
    let quoted = format!("\"{token}\"");
    let listed = format!("[\"{token}\"]");
    let tokens = [flat.to_string(), general.to_string(), polyglot, quoted, listed, format!("Bearer {token}")];
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

/// A broker whose `multi` publishes the keys so changed, and the maker of its tokens.
fn publishing(change: impl Fn(&mut Vec<Value>)) -> Stand {
    let forge = Forge::new();
    let mut jwks = forge.jwks();
    change(jwks["keys"].as_array_mut().unwrap());
    Stand::with(World::with_files(&bundle(), &[("multi.json", &jwks)]), forge)
}

#[tokio::test]
async fn t_016_a_key_is_bound_to_its_alg() {
    for (bound, others) in [
        ("PS256", ["RS256", "RS384", "RS512"]),
        ("RS256", ["PS256", "RS384", "RS512"]),
        ("RS384", ["RS256", "PS256", "RS512"]),
    ] {
        let stand = publishing(|keys| keys[0]["alg"] = json!(bound));
        stand.all_refused(SIGNATURE, named(others.map(|alg| stand.forge.header(alg, json!({}))))).await;
        stand.opens(&stand.forge.header(bound, json!({}))).await;
    }
}

#[tokio::test]
async fn t_017_a_key_not_meant_to_verify_verifies_nothing() {
    for (member, value) in [
        ("use", json!("enc")),
        ("use", json!(["sig"])),
        ("key_ops", json!(["sign"])),
        ("key_ops", json!([])),
        ("key_ops", json!("verify")),
    ] {
        let stand = publishing(|keys| keys[1][member] = value.clone());
        let unnamed = stand.forge.header("ES256", json!({ "kid": null }));
        stand.all_refused(SIGNATURE, named([stand.forge.header("ES256", json!({})), unnamed])).await;
        stand.opens(&stand.forge.header("RS256", json!({}))).await;
    }
}

#[tokio::test]
async fn t_018_a_weak_key_verifies_nothing() {
    let cut = |key: &mut Value, name: &str, bytes: &[u8]| key[name] = json!(b64(bytes));
    for weak in [
        Box::new(|key: &mut Value| cut(key, "e", &[1])) as Box<dyn Fn(&mut Value)>,
        Box::new(|key| key["n"] = json!(&key["n"].as_str().unwrap()[..171])),
        Box::new(|key| key["alg"] = json!("ES256")),
        Box::new(|key| key["n"] = roca()),
    ] {
        let stand = publishing(|keys| weak(&mut keys[0]));
        let mut jwks = stand.forge.jwks();
        weak(&mut jwks["keys"][0]);
        let read = dayfly_verifier::KeySet::parse(jwks.to_string().as_bytes()).unwrap();
        assert_eq!((read.dropped(), read.len()), (1, 3), "{}", jwks["keys"][0]);
        let tokens = ["RS256", "PS256"].map(|alg| stand.forge.header(alg, json!({})));
        stand.all_refused(SIGNATURE, named(tokens)).await;
        stand.opens(&stand.forge.header("ES256", json!({}))).await;
    }
}

fn roca() -> Value {
    let corpus: Value = serde_json::from_str(include_str!("../../corpus/jose/wycheproof.json")).unwrap();
    corpus["keys"]["jwk-roca"]["keys"][0]["n"].clone()
}

#[tokio::test]
async fn t_018_our_own_keys_are_strong_and_named_once() {
    let stand = Stand::new();
    let jwks = stand.world.call(crate::world::get("/oauth2/jwks", None)).await;
    let keys = jwks.json();
    let keys = keys["keys"].as_array().unwrap();
    let kids: BTreeSet<_> = keys.iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert!(!keys.is_empty() && kids.len() == keys.len());
    for key in keys {
        let mut shown: BTreeSet<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
        // A list's key says that it is no token's.
        assert!(key.get("dayfly_use").is_none_or(|what| what == "status_list"));
        shown.remove("dayfly_use");
        assert_eq!(
            shown,
            BTreeSet::from(["alg", "crv", "kid", "kty", "use", "x", "y"]),
            "public members and no others"
        );
        assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&json!("EC"), &json!("P-256"), &json!("ES256")));
    }
    let read = dayfly_verifier::KeySet::parse(jwks.text.as_bytes()).unwrap();
    assert_eq!((read.dropped(), read.len()), (0, keys.len()), "by our own gate too");
}

#[tokio::test]
async fn t_019_a_symmetric_key_is_never_loaded() {
    for alg in [json!("HS256"), json!("ES256"), Value::Null] {
        let mut jwks = Forge::new().jwks();
        jwks["keys"].as_array_mut().unwrap().push(json!({ "kty": "oct", "kid": "h", "k": b64("secret"), "alg": alg }));
        let told = problems_with(&bundle(), &jwks);
        assert!(told.iter().any(|problem| problem.to_string().contains("secret key")), "{alg}: {told:?}");
    }
    let stand = Stand::new();
    let tokens = [
        stand.forge.maced("HS256", "h", b"secret"),
        stand.forge.maced("HS512", "h", b"secret"),
        stand.forge.header("ES256", json!({ "kid": "h" })),
    ];
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

/// The same bytes in another spelling of base64url.
fn spellings(part: &str) -> Vec<String> {
    let last = part.chars().last().unwrap();
    let mut list: Vec<String> =
        ["=", "==", " ", "    ", "\n", "\r\n", "\t", "?", "####", "+", "/", "\u{e9}", "\u{0}", "%3D"]
            .iter()
            .flat_map(|extra| [format!("{part}{extra}"), format!("{extra}{part}")])
            .collect();
    list.push(format!("{} {}", &part[..4], &part[4..]));
    list.push(format!("{}\n{}", &part[..4], &part[4..]));
    list.push(part[..part.len() - 1].to_owned());
    if part.contains(['-', '_']) {
        list.push(part.replace('-', "+").replace('_', "/"));
    }
    if !part.len().is_multiple_of(4) {
        // Unused bits of the last letter.
        let twin = char::from_u32(u32::from(last) + 1).filter(char::is_ascii_alphanumeric);
        list.extend(twin.map(|twin| format!("{}{twin}", &part[..part.len() - 1])));
    }
    list
}

#[tokio::test]
async fn t_020_only_canonical_base64url_is_read() {
    let stand = Stand::new();
    let token = stand.forge.header("ES256", json!({}));
    let split = parts(&token);
    let mut tokens = Vec::new();
    for at in 0..3 {
        for spelling in spellings(split[at]) {
            let mut other = split.map(str::to_owned);
            other[at] = spelling;
            tokens.push(other.join("."));
        }
    }
    assert!(tokens.len() > 90);
    stand.all_refused(SIGNATURE, named(tokens)).await;
    stand.opens(&token).await;
}

#[tokio::test]
async fn t_021_a_changed_pkcs1_signature_is_refused() {
    let stand = Stand::new();
    let token = stand.forge.header("RS256", json!({}));
    let [header, payload, signature] = parts(&token);
    let forms =
        spellings(signature).into_iter().chain([b64([0; 256]), b64([0xff; 256]), b64([1]), format!("AA{signature}")]);
    let other = stand.forge.header("RS256", json!({ "x": 1 }));
    let forms =
        forms.chain([parts(&other)[2].to_owned(), parts(&stand.forge.header("PS256", json!({})))[2].to_owned()]);
    stand.all_refused(SIGNATURE, named(forms.map(|form| format!("{header}.{payload}.{form}")))).await;
}

#[tokio::test]
async fn t_022_duplicate_members_are_refused() {
    let stand = Stand::new();
    let payload = claims().to_string();
    let head = r#"{"alg":"ES256","typ":"JWT","kid":"e"}"#;
    let twice = |text: &str, member: &str| {
        [format!("{},{member}}}", &text[..text.len() - 1]), format!("{{{member},{}", &text[1..])]
    };
    let mut tokens = Vec::new();
    for name in ["exp", "sub", "iss", "aud", "iat", "org", "note"] {
        for raw in ["1", "\"x\"", "null", "[]"] {
            let doubled = twice(&payload, &format!("\"{name}\":{raw}"));
            tokens.extend(doubled.map(|payload| stand.forge.signed("ES256", head, payload)));
        }
        let escaped = format!("\"\\u{:04x}{}\":\"x\"", name.as_bytes()[0], &name[1..]);
        tokens.extend(twice(&payload, &escaped).map(|payload| stand.forge.signed("ES256", head, payload)));
    }
    for member in [r#""p":1,"p":1"#, r#""deep":{"a":[{"b":1,"b":1}]}"#] {
        tokens.extend(twice(&payload, member).map(|payload| stand.forge.signed("ES256", head, payload)));
    }
    for member in [r#""alg":"ES256""#, r#""alg":"none""#, r#""kid":"e""#, r#""typ":"JWT""#, r#""a\u006cg":"none""#] {
        tokens.extend(twice(head, member).map(|head| stand.forge.signed("ES256", head, &payload)));
    }
    stand.all_refused(SIGNATURE, named(tokens)).await;
}

#[tokio::test]
async fn t_023_a_bad_signature_is_told_before_bad_claims() {
    let (stand, attacker) = (Stand::new(), Forge::new());
    let bad = [
        json!({ "exp": 1 }),
        json!({ "exp": "never", "aud": 7 }),
        json!({ "org": "evil" }),
        json!({ "sub": " " }),
        json!({ "aud": "https://other.example.org" }),
        json!({ "iat": null }),
    ];
    stand.all_refused(SIGNATURE, named(bad.iter().map(|changes| attacker.claims(changes.clone())))).await;
    let honest = bad.iter().map(|changes| stand.forge.claims(changes.clone()));
    for token in honest {
        let reason = stand.present(&token).await.json()["reason"].clone();
        assert_ne!(reason, "E-SIGNATURE", "well signed, so the claims are what is wrong");
    }
}

#[tokio::test]
async fn t_025_another_kind_of_token_is_refused() {
    let mut stand = Stand::new();
    let typs = ["at+jwt", "logout+jwt", "secevent+jwt", "dpop+jwt", "application/jwt", "jwt", "JWT ", "JOSE", ""];
    let mut tokens: Vec<_> = typs.iter().map(|typ| stand.forge.header("ES256", json!({ "typ": typ }))).collect();
    tokens.extend([json!(1), json!(["JWT"])].map(|typ| stand.forge.header("ES256", json!({ "typ": typ }))));
    stand.all_refused(SIGNATURE, named(tokens)).await;
    let evidence = stand.evidence(&Job::shop());
    let opened = stand.opens(&evidence).await;
    let own = opened["access_token"].as_str().unwrap().to_owned();
    stand.all_refused((400, "invalid_request", "E-OWN"), named([own])).await;
    let handle = opened["task_control"].as_str().unwrap().to_owned();
    stand.all_refused(SIGNATURE, named([handle])).await;
}

#[tokio::test]
async fn t_027_a_key_of_one_issuer_is_none_of_another() {
    let (ours, theirs) = (Forge::new(), Forge::new());
    let twin = "\n[issuer.twin]\nprofile = \"multi\"\nowner = \"team-shop\"\nurl = \"https://twin.example.org\"\n\
                keys = { jwks_file = \"twin.json\" }\npin = { org = \"acme\" }\n\
                [[task.deploy.allow]]\nid = \"twin-deploys\"\nissuer = \"twin\"\nclaims = { sub = \"shop\" }\n";
    // Both publish the same four names of keys.
    let (jwks, twins) = (ours.jwks(), theirs.jwks());
    let world = World::with_files(&format!("{}{twin}", bundle()), &[("multi.json", &jwks), ("twin.json", &twins)]);
    let stand = Stand::with(world, ours);
    let as_twin = json!({ "iss": "https://twin.example.org" });
    let tokens = [stand.forge.claims(as_twin.clone()), theirs.claims(json!({}))];
    stand.all_refused(SIGNATURE, named(tokens)).await;
    stand.opens(&theirs.claims(as_twin)).await;
    stand.opens(&stand.forge.claims(json!({}))).await;
}

#[tokio::test]
async fn t_028_a_key_is_bound_to_its_curve() {
    let stand = Stand::new();
    let mut tokens = Vec::new();
    for said in ALGS {
        for signed in ALGS.iter().filter(|signed| Forge::kid(signed) != Forge::kid(said)) {
            for kid in [Forge::kid(said), Forge::kid(signed)] {
                let header = json!({ "alg": said, "kid": kid }).to_string();
                tokens.push(stand.forge.signed(signed, &header, claims().to_string()));
            }
        }
    }
    stand.all_refused(SIGNATURE, named(tokens)).await;
}
