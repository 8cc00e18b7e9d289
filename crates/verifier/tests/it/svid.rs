//! JWT-SVIDs and the bundles that hold their keys, at the gate.

use dayfly_verifier::{KeySet, KeySetError, Refusal, Rules, Signer};
use serde_json::{Map, Value, json};

use crate::support::*;

const DOMAIN: &str = "prod.example";

/// As go-spiffe has it (`spiffebundle_valid_1.json`), without the certificate.
fn published() -> Value {
    json!({ "keys": [
        { "use": "x509-svid", "kty": "EC", "crv": "P-384",
          "x": "WjB-nSGSxIYiznb84xu5WGDZj80nL7W1c3zf48Why0ma7Y7mCBKzfQkrgDguI4j0",
          "y": "Z-0_tDH_r8gtOtLLrIpuMwWHoe4vbVBFte1vj6Xt6WeE8lXwcCvLs_mcmvPqVK9j" },
        { "use": "jwt-svid", "kty": "EC", "kid": "C6vs25welZOx6WksNYfbMfiw9l96pMnD", "crv": "P-256",
          "x": "ngLYQnlfF6GsojUwqtcEE3WgTNG2RUlsGhK73RNEl5k",
          "y": "tKbiDSUSsQ3F1P7wteeHNXIcU-cx6CgSbroeQrQHTLM" }
    ] })
}

fn bundle(set: &Value) -> Result<KeySet, KeySetError> {
    KeySet::of_trust_bundle(set.to_string().as_bytes())
}

/// Kept and dropped, after the key for JWT-SVIDs was changed.
fn counted(changes: Value) -> (usize, usize) {
    let mut set = published();
    set["keys"][1] = with(set["keys"][1].take(), changes);
    bundle(&set).map(|keys| (keys.len(), keys.dropped())).unwrap()
}

#[test]
fn a_trust_bundle_gives_its_keys_for_jwt_svids() {
    let keys = bundle(&published()).unwrap();
    assert_eq!((keys.len(), keys.dropped(), keys.refresh_hint_s()), (1, 0, None));
    assert!(keys.contains(Some("C6vs25welZOx6WksNYfbMfiw9l96pMnD"), "ES256") && !keys.contains(None, "ES384"));
    let hinted = with(published(), json!({ "spiffe_sequence": 7, "spiffe_refresh_hint": 600 }));
    assert_eq!(bundle(&hinted).unwrap().refresh_hint_s(), Some(600));
    assert_eq!(KeySet::parse(published().to_string().as_bytes()).unwrap().len(), 0, "it is no plain key set");
}

#[test]
fn t_017_a_key_of_another_use_signs_no_svid() {
    for purpose in
        [json!(null), json!("invalid"), json!("sig"), json!("x509-svid"), json!(["jwt-svid"]), json!("wit-svid")]
    {
        assert_eq!(counted(json!({ "use": purpose })), (0, 0), "{purpose}");
    }
    assert_eq!(counted(json!({ "kid": null })), (0, 1), "the standard demands one");
    assert_eq!(counted(json!({ "kty": "oct", "k": "AAAA" })), (0, 1));
    assert_eq!(counted(json!({ "d": "AAAA" })), (0, 1));
}

#[test]
fn a_bundle_that_is_none_is_refused() {
    let twice = json!({ "keys": [published()["keys"][1], published()["keys"][1]] });
    assert_eq!(bundle(&twice).err(), Some(KeySetError::DuplicateKid));
    for extra in [json!({ "spiffe_sequence": "7" }), json!({ "spiffe_refresh_hint": -1 }), json!({ "keys": {} })] {
        assert_eq!(bundle(&with(published(), extra.clone())).err(), Some(KeySetError::Malformed), "{extra}");
    }
}

/// What the gate says to an SVID of `prod.example`; a `null` takes a claim away.
fn gate(authority: &Es256, changes: Value) -> Result<Map<String, Value>, Refusal> {
    let svid = json!({ "iss": null, "jti": null, "nbf": null, "sub": "spiffe://prod.example/ns/pay/sa/api" });
    let token = authority.token(authority.header().to_string(), with(with(good_claims(), svid), changes).to_string());
    let set = json!({ "keys": [authority.jwk_with(json!({ "use": "jwt-svid" }))] });
    let rules = Rules { signer: Signer::TrustDomain(DOMAIN.into()), ..rules() };
    check(&token, &bundle(&set).unwrap(), &rules)
}

#[test]
fn an_svid_needs_no_issuer() {
    let authority = Es256::new();
    assert!(gate(&authority, json!({})).is_ok());
    assert!(gate(&authority, json!({ "iss": "https://oidc.prod.example" })).is_ok());
    for iss in [json!(7), json!([]), json!({}), json!(""), json!(" "), json!(true)] {
        assert_eq!(gate(&authority, json!({ "iss": iss.clone() })).err(), Some(Refusal::Issuer), "{iss}");
    }
    assert!(authority.gate(&authority.with_claims(json!({ "iss": null }))).is_err(), "everyone else does");
}

#[test]
fn a_trust_domain_is_equal_byte_for_byte() {
    let authority = Es256::new();
    for sub in [
        json!(null),
        json!(7),
        json!(["spiffe://prod.example/a"]),
        json!("prod.example/a"),
        json!("spiffe://prod.example"),
        json!("spiffe://prod.example/"),
        json!("spiffe://Prod.example/a"),
        json!("spiffe://prod.example.evil/a"),
        json!("spiffe://prod.exampl/a"),
        json!("spiffe://prod.example:443/a"),
        json!("spiffe://prod.example/a/../b"),
        json!("spiffe://evil/prod.example/a"),
        json!("https://prod.example/a"),
    ] {
        let refused = gate(&authority, json!({ "sub": sub.clone() })).err();
        assert_eq!(refused, Some(Refusal::Claim("sub")), "{sub}");
    }
}

#[test]
fn a_float_is_a_time_only_where_the_rules_say_so() {
    let issuer = Es256::new();
    let rules = Rules { float_iat: true, ..rules() };
    let told =
        |iat: Value, rules: &Rules| check(&issuer.with_claims(json!({ "iat": iat })), &issuer.keys(), rules).err();
    let float = NOW_S as f64;
    assert_eq!((told(json!(float), &rules), told(json!(NOW_S), &rules)), (None, None));
    assert_eq!(told(json!(float), &Rules { float_iat: false, ..rules.clone() }), Some(Refusal::Claim("iat")));
    assert_eq!(told(json!(float - 0.5), &rules), None, "down to its second");
    assert_eq!(told(json!(float + 30.9), &rules), None);
    for iat in [-0.5, -1.0, -0.0, 1e15, 1e300] {
        assert_eq!(told(json!(iat), &rules), Some(Refusal::Claim("iat")), "{iat}");
    }
    assert_eq!(told(json!(float + 31.0), &rules), Some(Refusal::NotYetValid));
    let exp = issuer.with_claims(json!({ "exp": float + 300.0 }));
    assert_eq!(check(&exp, &issuer.keys(), &rules).err(), Some(Refusal::Claim("exp")), "an end is never a float");
}
