//! Proofs of possession (RFC 9449): what passes, and every way to cheat with one.

use dayfly_verifier::{
    Binding, Offline, ProofOf, ProofRefusal, Refusal, Refused, TaskClaims, UnixMs, algorithms,
    crypto::SigningKey,
    dpop::{PROOF_MAX_BYTES, Proof, ProofRules, Proofs, check_proof, prove},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{support::*, task::task_claims};

const URL: &str = "https://db-0.example/rows";

const RULES: ProofRules<'_> = ProofRules { method: "GET", url: URL, token: None };

/// Figure 1 of RFC 9449 section 4.1.
const RFC_TOKEN_PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
    VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR\
    nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE\
    QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIj\
    oiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwia\
    WF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg\
    4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";

/// Figure 12 of RFC 9449 section 7.1, and its access token.
const RFC_RESOURCE_PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
    VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR\
    nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE\
    QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIj\
    oiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0Z\
    WRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNF\
    c05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E\
    OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
const RFC_ACCESS_TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";

fn check(text: &str) -> Result<Proof, ProofRefusal> {
    check_proof(text, &RULES, now())
}

fn refusal(text: &str) -> ProofRefusal {
    check(text).expect_err("this proof must be refused")
}

fn good_proof_claims() -> Value {
    json!({"jti": "j-1", "htm": "GET", "htu": URL, "iat": NOW_S})
}

/// A client with a P-256 key.
struct Client(Es256);

impl Client {
    fn new() -> Self {
        Self(Es256::new())
    }

    fn header(&self) -> Value {
        let jwk = self.0.jwk_with(json!({"kid": null, "use": null, "alg": null}));
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk})
    }

    /// Really signed; `null` takes a member away.
    fn with(&self, header: Value, claims: Value) -> String {
        let (header, claims) = (with(self.header(), header), with(good_proof_claims(), claims));
        self.0.token(header.to_string(), claims.to_string())
    }

    fn with_claims(&self, claims: Value) -> String {
        self.with(json!({}), claims)
    }

    fn with_jwk(&self, changes: Value) -> String {
        self.with(json!({"jwk": with(self.header()["jwk"].clone(), changes)}), json!({}))
    }
}

#[test]
fn the_examples_of_rfc_9449() {
    let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let rules = ProofRules { method: "POST", url: "https://server.example.com/token", token: None };
    let proof = check_proof(RFC_TOKEN_PROOF, &rules, UnixMs::from_s(1_562_262_616)).unwrap();
    assert_eq!(proof.thumbprint().to_string(), jkt);
    let url = "https://resource.example.org/protectedresource";
    let rules = ProofRules { method: "GET", url, token: Some(RFC_ACCESS_TOKEN) };
    let at = UnixMs::from_s(1_562_262_618);
    assert_eq!(check_proof(RFC_RESOURCE_PROOF, &rules, at).unwrap().thumbprint().to_string(), jkt);
    let other = ProofRules { token: Some("another"), ..rules };
    assert_eq!(check_proof(RFC_RESOURCE_PROOF, &other, at).unwrap_err(), ProofRefusal::Claim("ath"));
}

#[test]
fn what_we_make_we_take_and_it_is_bound_to_the_key_that_made_it() {
    let client = Client::new();
    let rules = ProofRules { token: Some("a.b.c"), url: "https://db-0.example/rows?page=2#x", ..RULES };
    let text = prove(&client.0.signing, &rules, Some("n"), "j-1", NOW_S).unwrap();
    let proof = check_proof(&text, &rules, now()).unwrap();
    assert_eq!(proof.thumbprint(), client.0.signing.thumbprint());
    let binding: Binding = Proofs::default().accept(proof, now()).unwrap();
    assert_eq!(binding.thumbprint().to_string(), client.0.signing.kid());
}

#[test]
fn every_asymmetric_algorithm_that_is_promised_has_a_key_type() {
    assert_eq!(algorithms().count(), 9);
    assert!(algorithms().all(|alg| !alg.starts_with("HS") && alg != "none"));
}

#[test]
fn an_rsa_proof_is_checked_by_its_rsa_key() {
    let jwk = with(rsa_jwk("r"), json!({"kid": null}));
    let text = rsa_proof("RS256", &jwk);
    assert!(check(&text).is_ok());
    let changed = with(jwk, json!({"alg": "PS256"}));
    assert_eq!(refusal(&rsa_proof("RS256", &changed)), ProofRefusal::Key, "its `alg` is another");
}

fn rsa_proof(alg: &str, jwk: &Value) -> String {
    let header = json!({"typ": "dpop+jwt", "alg": alg, "jwk": jwk}).to_string();
    compact(header, good_proof_claims().to_string(), |message| {
        let mut out = vec![0; rsa_pair().public().modulus_len()];
        let random = ring::rand::SystemRandom::new();
        rsa_pair().sign(&ring::signature::RSA_PKCS1_SHA256, &random, message, &mut out).unwrap();
        out
    })
}

#[test]
fn another_typ_is_refused() {
    let client = Client::new();
    for typ in [json!("JWT"), json!("at+jwt"), json!("DPoP+jwt"), json!("application/dpop+jwt"), json!(""), json!(1)] {
        assert_eq!(refusal(&client.with(json!({"typ": typ}), json!({}))), ProofRefusal::Header, "{typ}");
    }
    assert_eq!(refusal(&client.with(json!({"typ": null}), json!({}))), ProofRefusal::Header);
}

#[test]
fn a_header_with_other_keys_or_rules_is_refused() {
    let client = Client::new();
    for name in ["kid", "nonce", "x5t", "x"] {
        let text = client.with(json!({name: "x"}), json!({}));
        assert!(check_proof(&text, &RULES, UnixMs::from_s(NOW_S)).is_ok(), "what means nothing is passed over: {name}");
    }
    for name in ["jku", "x5u", "x5c", "crit", "b64", "zip", "cty", "enc", "epk", "p2c"] {
        let header = json!({name: if name == "crit" { json!(["b64"]) } else { json!("x") }});
        assert_eq!(refusal(&client.with(header, json!({}))), ProofRefusal::Header, "{name}");
    }
}

#[test]
fn a_proof_without_its_key_is_refused() {
    let client = Client::new();
    for jwk in [json!(null), json!("x"), json!([])] {
        assert_eq!(refusal(&client.with(json!({"jwk": jwk}), json!({}))), ProofRefusal::Header, "{jwk}");
    }
    assert_eq!(refusal(&client.with(json!({"jwk": {}}), json!({}))), ProofRefusal::Key);
}

#[test]
fn t_001_an_unsigned_proof_and_t_002_a_symmetric_one_are_refused() {
    let client = Client::new();
    for alg in [json!("none"), json!("None"), json!("HS256"), json!("HS512"), json!("ES256K"), json!("es256"), json!(1)]
    {
        assert_eq!(refusal(&client.with(json!({"alg": alg}), json!({}))), ProofRefusal::Algorithm, "{alg}");
    }
    let symmetric = json!({"alg": "ES256", "jwk": {"kty": "oct", "k": "AAAA"}});
    assert_eq!(refusal(&client.with(symmetric, json!({}))), ProofRefusal::Key);
}

#[test]
fn a_private_key_in_a_proof_is_refused() {
    let client = Client::new();
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        assert_eq!(refusal(&client.with_jwk(json!({name: "AAAA"}))), ProofRefusal::Key, "{name}");
    }
}

#[test]
fn t_018_a_weak_or_foreign_key_in_a_proof_is_refused() {
    let client = Client::new();
    let changes = [
        json!({"crv": "P-384"}),
        json!({"crv": "secp256k1"}),
        json!({"crv": null}),
        json!({"x": "AAAA"}),
        json!({"y": null}),
        json!({"use": "enc"}),
        json!({"key_ops": ["sign"]}),
        json!({"alg": "ES384"}),
        json!({"kty": "RSA"}),
    ];
    for change in changes {
        assert_eq!(refusal(&client.with_jwk(change.clone())), ProofRefusal::Key, "{change}");
    }
    for alg in ["ES384", "EdDSA", "RS256", "PS512"] {
        assert_eq!(refusal(&client.with(json!({"alg": alg}), json!({}))), ProofRefusal::Key, "{alg}");
    }
    let n_1024 = b64([0xff; 128]);
    for jwk in
        [json!({"kty": "RSA", "n": n_1024, "e": "AQAB"}), json!({"kty": "RSA", "n": b64([0xff; 256]), "e": "AQ"})]
    {
        assert_eq!(refusal(&rsa_proof("RS256", &jwk)), ProofRefusal::Key, "{jwk}");
    }
}

#[test]
fn t_128_a_point_off_the_curve_verifies_nothing() {
    let client = Client::new();
    let off = json!({"x": b64([1; 32]), "y": b64([1; 32])});
    assert_eq!(refusal(&client.with_jwk(off)), ProofRefusal::Signature);
}

#[test]
fn a_proof_signed_by_another_key_than_its_own_is_refused() {
    let (client, thief) = (Client::new(), Client::new());
    let text = thief.0.token(client.header().to_string(), good_proof_claims().to_string());
    assert_eq!(refusal(&text), ProofRefusal::Signature);
    let good = client.with_claims(json!({}));
    let (message, _) = good.rsplit_once('.').unwrap();
    for signature in [b64([0; 64]), b64([0; 63]), b64([1; 64]), b64([0; 256])] {
        assert_eq!(refusal(&format!("{message}.{signature}")), ProofRefusal::Signature);
    }
}

#[test]
fn what_is_no_compact_jws_is_refused() {
    let good = Client::new().with_claims(json!({}));
    assert!(check(&good).is_ok());
    let long = format!("{good}{}", "A".repeat(PROOF_MAX_BYTES));
    for bad in ["", ".", "..", "a.b.c", "e30.e30.", "e30.e30", &format!("{good}.x"), &format!("{good}="), &long] {
        assert_eq!(refusal(bad), ProofRefusal::Malformed, "{bad}");
    }
    assert_eq!(refusal(&format!(" {good}")), ProofRefusal::Malformed);
    assert_eq!(refusal("e30.e30.AAAA"), ProofRefusal::Header);
}

#[test]
fn t_022_duplicate_members_are_refused() {
    let client = Client::new();
    let (header, claims) = (client.header().to_string(), good_proof_claims().to_string());
    let twice = claims.replacen('{', r#"{"htm":"POST","#, 1);
    assert_eq!(refusal(&client.0.token(&header, twice)), ProofRefusal::Malformed);
    let twice = header.replacen('{', r#"{"alg":"none","#, 1);
    assert_eq!(refusal(&client.0.token(twice, &claims)), ProofRefusal::Malformed);
    let twice = header.replacen(r#""kty":"#, r#""kty":"RSA","kty":"#, 1);
    assert_eq!(refusal(&client.0.token(twice, &claims)), ProofRefusal::Malformed);
}

#[test]
fn a_claim_that_is_missing_or_of_another_type_is_refused() {
    let client = Client::new();
    for name in ["jti", "htm", "htu", "iat"] {
        for value in [json!(null), json!([]), json!(true), json!({}), json!(""), json!("x".repeat(300))] {
            let text = client.with_claims(json!({name: value}));
            assert_eq!(refusal(&text), ProofRefusal::Claim(name), "{value}");
        }
    }
    for value in [json!(NOW_S as f64 + 0.5), json!(NOW_S.to_string()), json!(-1), json!(1e300), json!(u64::MAX)] {
        assert_eq!(refusal(&client.with_claims(json!({"iat": value}))), ProofRefusal::Claim("iat"), "{value}");
    }
    for (name, value) in [("nonce", json!(1)), ("nonce", json!("")), ("ath", json!(["x"])), ("jti", json!(7))] {
        assert_eq!(refusal(&client.with_claims(json!({name: value}))), ProofRefusal::Claim(name));
    }
}

#[test]
fn a_proof_for_another_method_or_url_is_refused() {
    let client = Client::new();
    for htm in ["POST", "get", "GET ", "HEAD"] {
        assert_eq!(refusal(&client.with_claims(json!({"htm": htm}))), ProofRefusal::Claim("htm"), "{htm}");
    }
    for htu in ["https://db-1.example/rows", "http://db-0.example/rows", "https://db-0.example/rows/", "/rows"] {
        assert_eq!(refusal(&client.with_claims(json!({"htu": htu}))), ProofRefusal::Claim("htu"), "{htu}");
    }
    assert!(check(&client.with_claims(json!({"htu": "https://DB-0.example:443/rows?x#y"}))).is_ok());
}

#[test]
fn a_proof_is_fresh_for_a_minute_either_way() {
    let client = Client::new();
    for (seconds, fresh) in [(-61, false), (-60, true), (60, true), (61, false), (-NOW_S, false)] {
        let checked = check(&client.with_claims(json!({"iat": NOW_S + seconds})));
        assert_eq!(checked.err(), (!fresh).then_some(ProofRefusal::Time), "{seconds}");
    }
    assert_eq!(refusal(&client.with_claims(json!({"iat": i64::MAX}))), ProofRefusal::Time);
}

#[test]
fn a_proof_of_another_token_is_refused() {
    let client = Client::new();
    let of = |token| prove(&client.0.signing, &ProofRules { token, ..RULES }, None, "j", NOW_S).unwrap();
    let rules = ProofRules { token: Some("mine"), ..RULES };
    for text in [of(None), of(Some("another")), client.with_claims(json!({"ath": "mine"}))] {
        assert_eq!(check_proof(&text, &rules, now()).unwrap_err(), ProofRefusal::Claim("ath"));
    }
    assert!(check_proof(&of(Some("mine")), &rules, now()).is_ok());
}

#[test]
fn a_refusal_and_debug_never_quote_the_proof() {
    let client = Client::new();
    let text = client.with_claims(json!({"jti": "secret-jti", "nonce": "secret-nonce"}));
    let shown = format!("{:?}", check(&text).unwrap());
    assert!(!shown.contains("secret") && !shown.contains("eyJ"), "{shown}");
}

/// A broker's key, a holder's key, and a token of the one bound to the other.
fn bound() -> (Offline, Client, String) {
    let (issuer, client) = (Es256::new(), Client::new());
    let cnf = serde_json::from_value(json!({"jkt": client.0.signing.kid()})).unwrap();
    let claims = TaskClaims { cnf: Some(cnf), ..task_claims() };
    let token = issuer.signing.sign("at+jwt", &claims).unwrap();
    let offline = Offline::new(issuer.keys(), ISSUER, claims.aud).with_clock(std::sync::Arc::new(Standing));
    (offline, client, token)
}

struct Standing;

impl dayfly_verifier::Clock for Standing {
    fn now(&self) -> UnixMs {
        now()
    }
}

fn proof_of(key: &SigningKey, token: &str, jti: &str) -> String {
    prove(key, &ProofRules { token: Some(token), ..RULES }, None, jti, NOW_S).unwrap()
}

fn shown(offline: &Offline, token: &str, proof: &str) -> Result<(), Refused> {
    offline.check_bound(token, &ProofOf { proof, method: "GET", url: URL }).map(|_| ())
}

#[test]
fn a_bound_token_passes_with_its_proof_once() {
    let (offline, client, token) = bound();
    let proof = proof_of(&client.0.signing, &token, "1");
    assert_eq!(shown(&offline, &token, &proof), Ok(()));
    assert_eq!(shown(&offline, &token, &proof), Err(ProofRefusal::Used.into()));
    assert_eq!(shown(&offline, &token, &proof_of(&client.0.signing, &token, "2")), Ok(()));
}

#[test]
fn a_stolen_bound_token_is_worth_nothing() {
    let (offline, client, token) = bound();
    assert_eq!(offline.check(&token).unwrap_err(), Refusal::Claim("cnf").into(), "alone");
    let thief = Es256::new();
    let refused = shown(&offline, &token, &proof_of(&thief.signing, &token, "1"));
    assert_eq!(refused, Err(ProofRefusal::OtherKey.into()));
    let other = proof_of(&client.0.signing, "another token", "1");
    assert_eq!(shown(&offline, &token, &other), Err(ProofRefusal::Claim("ath").into()));
    for garbage in ["", "e30.e30.e30", &*token] {
        assert!(matches!(shown(&offline, &token, garbage), Err(Refused::Proof(_))), "{garbage}");
    }
}

#[test]
fn an_unbound_token_is_no_bound_one() {
    let issuer = Es256::new();
    let token = issuer.signing.sign("at+jwt", &task_claims()).unwrap();
    let offline = Offline::new(issuer.keys(), ISSUER, task_claims().aud).with_clock(std::sync::Arc::new(Standing));
    let client = Client::new();
    let refused = shown(&offline, &token, &proof_of(&client.0.signing, &token, "1"));
    assert_eq!(refused, Err(ProofRefusal::Unbound.into()));
    assert!(offline.check(&token).is_ok());
}

proptest! {
    #[test]
    fn no_text_at_all_panics(text in ".{0,300}") {
        prop_assert!(check(&text).is_err());
    }

    #[test]
    fn a_proof_changed_anywhere_is_refused(at in 0usize..10_000, byte in 0x20u8..0x7f) {
        let good = RFC_TOKEN_PROOF;
        let (at, rules) = (at % good.len(), ProofRules { method: "POST", url: "https://server.example.com/token", token: None });
        let mut bytes = good.as_bytes().to_vec();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let text = String::from_utf8(bytes).unwrap();
        prop_assert!(check_proof(&text, &rules, UnixMs::from_s(1_562_262_616)).is_err());
    }
}
