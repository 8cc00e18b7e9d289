//! Section A again: which keys are loaded, and what each may verify.

use dayfly_verifier::{KEYS_MAX, KeySet, KeySetError, Refusal, Rules, crypto};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

use crate::support::*;

/// JWK and a good token of an ES384 or EdDSA issuer.
pub fn other_curve(alg: &str) -> (Value, String) {
    let header = json!({"alg": alg, "typ": "JWT", "kid": "o"}).to_string();
    let claims = good_claims().to_string();
    if alg == "EdDSA" {
        let pair = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref());
        let pair = pair.unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "o", "x": b64(pair.public_key())});
        return (jwk, compact(header, claims, |message| pair.sign(message).as_ref().to_vec()));
    }
    let (curve, rng) = (&ECDSA_P384_SHA384_FIXED_SIGNING, SystemRandom::new());
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &rng).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref(), &rng).unwrap();
    let point = pair.public_key().as_ref();
    let jwk = json!({"kty": "EC", "crv": "P-384", "kid": "o", "x": b64(&point[1..49]), "y": b64(&point[49..])});
    (jwk, compact(header, claims, |message| pair.sign(&rng, message).unwrap().as_ref().to_vec()))
}

/// A set of this key alone loads nothing and says so.
fn is_dropped(jwk: Value) {
    let keys = set(std::slice::from_ref(&jwk));
    assert!(keys.is_empty() && keys.dropped() == 1, "{jwk}");
}

#[test]
fn t_016_a_key_is_bound_to_its_alg() {
    let bound = |alg: &str| set(&[with(rsa_jwk("r"), json!({ "alg": alg }))]);
    for (key, token) in [("PS256", "RS256"), ("RS256", "PS256"), ("RS256", "RS384"), ("RS512", "RS256")] {
        assert!(check(&rsa_token(key.replace("PS384", "PS256").as_str(), "r"), &bound(key), &rules()).is_ok());
        assert_eq!(check(&rsa_token(token, "r"), &bound(key), &rules()), Err(Refusal::UnknownKey), "{key} {token}");
        assert!(bound(key).contains(Some("r"), key) && !bound(key).contains(Some("r"), token));
    }
    is_dropped(with(rsa_jwk("r"), json!({"alg": "ES256"})));
    is_dropped(with(rsa_jwk("r"), json!({"alg": "RSA-OAEP"})));
    is_dropped(with(rsa_jwk("r"), json!({"alg": 256})));
}

#[test]
fn t_017_a_key_not_meant_to_verify_is_dropped() {
    let issuer = Es256::new();
    for changes in [
        json!({"use": "enc"}),
        json!({"use": ["sig"]}),
        json!({"key_ops": ["sign"]}),
        json!({"key_ops": []}),
        json!({"key_ops": "verify"}),
        json!({"d": "AAAA"}),
    ] {
        is_dropped(issuer.jwk_with(changes));
    }
    assert_eq!(set(&[issuer.jwk_with(json!({"use": null, "key_ops": ["verify"]}))]).len(), 1);
}

#[test]
fn t_018_weak_and_ambiguous_keys_are_dropped() {
    let modulus = rsa_modulus();
    let mut even = modulus.clone();
    *even.last_mut().unwrap() &= 0xfe;
    let padded = [&[0], &modulus[..]].concat();
    for n in [&modulus[..128], &modulus[1..], &even, &padded, &[&modulus[..], &modulus, &modulus].concat()] {
        is_dropped(with(rsa_jwk("r"), json!({ "n": b64(n) })));
    }
    for e in [&[1u8][..], &[2], &[], &[0], &[1, 0, 0], &[0, 1, 0, 1], &[1, 0, 0, 0, 0, 1]] {
        is_dropped(with(rsa_jwk("r"), json!({ "e": b64(e) })));
    }
    assert_eq!(set(&[with(rsa_jwk("r"), json!({"e": "Aw"}))]).len(), 1, "3 is odd and allowed");
}

#[test]
fn t_018_a_duplicate_kid_refuses_the_set() {
    let (one, two) = (Es256::new(), Es256::new());
    let keys = |second: Value| {
        let set = json!({"keys": [one.signing.jwk(), second]}).to_string();
        KeySet::parse(set.as_bytes()).map(|keys| (keys.len(), keys.dropped()))
    };
    assert_eq!(keys(two.signing.jwk()), Ok((2, 0)));
    assert_eq!(keys(two.jwk_with(json!({"kid": one.signing.kid()}))), Err(KeySetError::DuplicateKid));
    assert_eq!(keys(two.jwk_with(json!({"kid": one.signing.kid(), "use": "enc"}))), Err(KeySetError::DuplicateKid));
}

#[test]
fn t_019_symmetric_keys_are_never_loaded() {
    is_dropped(json!({"kty": "oct", "kid": "r", "k": "AAAA", "alg": "HS256"}));
    is_dropped(json!({"kty": "oct", "kid": "r", "k": "AAAA"}));
    is_dropped(json!({"kty": "oct", "kid": "r", "k": "AAAA", "alg": "ES256", "use": "sig"}));
}

#[test]
fn t_028_a_key_is_bound_to_its_curve() {
    let issuer = Es256::new();
    let (p384, _) = other_curve("ES384");
    let (ed, _) = other_curve("EdDSA");
    let token = issuer.with_header(json!({"kid": "o"}));
    for jwk in [p384.clone(), ed.clone()] {
        assert_eq!(check(&token, &set(&[jwk]), &rules()), Err(Refusal::UnknownKey));
    }
    is_dropped(with(p384.clone(), json!({"crv": "P-256"})));
    is_dropped(with(p384.clone(), json!({"alg": "ES256"})));
    is_dropped(with(p384, json!({"crv": "P-521"})));
    is_dropped(with(ed.clone(), json!({"crv": "Ed448"})));
    is_dropped(with(ed, json!({"crv": "X25519"})));
    is_dropped(issuer.jwk_with(json!({"crv": "secp256k1"})));
    is_dropped(issuer.jwk_with(json!({"x": b64([1; 31])})));
}

#[test]
fn a_point_off_the_curve_is_dropped() {
    let issuer = Es256::new();
    let off = set(&[issuer.jwk_with(json!({"x": b64([1; 32]), "y": b64([1; 32])}))]);
    assert_eq!((off.len(), off.dropped()), (0, 1));
    assert_eq!(check(&issuer.with_header(json!({})), &off, &rules()), Err(Refusal::UnknownKey));
}

/// The points of small order of Curve25519 in their Edwards form, with both signs, and encodings that
/// are not canonical (as libsodium lists them).
#[test]
fn t_128_a_key_under_which_anyone_can_sign_is_dropped() {
    let filled = |first: u8, rest: u8, last: u8| {
        let mut x = [rest; 32];
        (x[0], x[31]) = (first, last);
        x
    };
    let order_8 =
        |hex: &str| -> [u8; 32] { std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()) };
    let points = [
        filled(0, 0, 0),
        filled(1, 0, 0),
        order_8("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        order_8("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        filled(0xec, 0xff, 0x7f),
        filled(0xed, 0xff, 0x7f),
        filled(0xee, 0xff, 0x7f),
        filled(0xff, 0xff, 0x7f),
    ];
    let (ed, token) = other_curve("EdDSA");
    let rules = Rules { algs: vec!["EdDSA".to_owned()], ..rules() };
    assert!(check(&token, &set(std::slice::from_ref(&ed)), &rules).is_ok(), "an honest key passes");
    for point in points {
        for sign in [0, 0x80] {
            let mut x = point;
            x[31] |= sign;
            is_dropped(with(ed.clone(), json!({"x": b64(x)})));
        }
    }
}

#[test]
fn without_kid_exactly_one_key_must_fit() {
    let (one, two) = (Es256::new(), Es256::new());
    let token = one.with_header(json!({"kid": null}));
    let beside_rsa = set(&[one.signing.jwk(), rsa_jwk("r")]);
    assert!(check(&token, &beside_rsa, &rules()).is_ok());
    let both = set(&[one.signing.jwk(), two.signing.jwk()]);
    assert_eq!(check(&token, &both, &rules()), Err(Refusal::UnknownKey));
    assert!(!both.contains(None, "ES256") && both.contains(Some(two.signing.kid()), "ES256"));
    assert!(!both.contains(Some("none"), "ES256") && !both.contains(Some(two.signing.kid()), "HS256"));
}

#[test]
fn t_054_a_key_set_is_bounded() {
    let keys = |count: usize| {
        let keys: Vec<Value> = (0..count).map(|i| json!({"kty": "none", "kid": i.to_string()})).collect();
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).map(|keys| keys.dropped())
    };
    assert_eq!(keys(KEYS_MAX), Ok(KEYS_MAX));
    assert_eq!(keys(KEYS_MAX + 1), Err(KeySetError::TooMany));
    let large = format!(r#"{{"keys":[],"pad":"{}"}}"#, "x".repeat(256 * 1024));
    assert_eq!(KeySet::parse(large.as_bytes()).unwrap_err(), KeySetError::TooLarge);
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":[]} x"#] {
        assert_eq!(KeySet::parse(bad.as_bytes()).unwrap_err(), KeySetError::Malformed, "{bad}");
    }
    assert_eq!(KeySet::parse(br#"{"keys":[1,null,{}]}"#).map(|keys| (keys.len(), keys.dropped())), Ok((0, 3)));
}

#[test]
fn a_kid_is_the_thumbprint_of_its_key() {
    let key = crypto::SigningKey::from_pkcs8(crypto::SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
    let jwk = key.jwk();
    let member = |name: &str| jwk[name].as_str().unwrap().to_owned();
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, member("x"), member("y"));
    let digest = ring::digest::digest(&ring::digest::SHA256, canonical.as_bytes());
    assert_eq!(key.kid(), b64(digest));
    assert_eq!((member("kid"), member("use"), member("alg")), (key.kid().to_owned(), "sig".into(), "ES256".into()));
    assert!(jwk.get("d").is_none());
}

#[test]
fn a_signing_key_is_p256_in_pkcs8() {
    assert_eq!(crypto::init(), Ok(()));
    assert_eq!(crypto::init(), Ok(()), "idempotent");
    for bad in [&b""[..], b"nonsense", &[0x30; 138]] {
        assert_eq!(crypto::SigningKey::from_pkcs8(bad).unwrap_err(), crypto::KeyError::Pkcs8);
    }
    let clone = Es256::new().signing.clone();
    assert!(clone.sign("JWT", &good_claims()).is_ok(), "the parsed key lives as long as a clone");
}
