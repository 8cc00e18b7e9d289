//! Section A: how tokens are read and signatures checked.

use dayfly_verifier::{Jws, Refusal, Rules, TOKEN_MAX_BYTES};
use proptest::prelude::*;
use ring::hmac;
use serde_json::{Value, json};

use crate::support::*;

#[test]
fn a_good_token_passes() {
    let issuer = Es256::new();
    let claims = issuer.gate(&issuer.with_claims(json!({"extra": [1, {"a": "b"}]}))).unwrap();
    assert_eq!(Value::Object(claims), with(good_claims(), json!({"extra": [1, {"a": "b"}]})));
}

#[test]
fn every_algorithm_we_name_verifies() {
    for alg in ["RS256", "RS384", "RS512", "PS256"] {
        assert!(check(&rsa_token(alg, "r"), &set(&[rsa_jwk("r")]), &rules()).is_ok(), "{alg}");
    }
    for alg in ["ES384", "EdDSA"] {
        let (jwk, token) = crate::keys::other_curve(alg);
        assert!(check(&token, &set(&[jwk]), &rules()).is_ok(), "{alg}");
    }
}

#[test]
fn t_001_alg_none_is_refused() {
    let issuer = Es256::new();
    for alg in [json!("none"), json!("None"), json!("nOnE"), json!("NONE "), json!(""), json!(1), json!(["ES256"])] {
        let token = issuer.with_header(json!({ "alg": alg }));
        assert_eq!(issuer.gate(&token), Err(Refusal::Algorithm), "{alg}");
    }
    assert_eq!(issuer.gate(&issuer.with_header(json!({"alg": null}))), Err(Refusal::Algorithm), "absent");
    let null = issuer.token(r#"{"alg":null}"#, good_claims().to_string());
    assert_eq!(issuer.gate(&null), Err(Refusal::Algorithm), "null");
    let unsigned = issuer.with_header(json!({"alg": "none"}));
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    assert_eq!(issuer.gate(&unsigned), Err(Refusal::Malformed), "unsigned");
}

/// A token MACed with what everybody knows of the key.
fn maced(alg: &str, key: &[u8]) -> String {
    let algorithm = match alg {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA512,
    };
    let header = json!({"alg": alg, "typ": "JWT", "kid": "r"}).to_string();
    let key = hmac::Key::new(algorithm, key);
    compact(header, good_claims().to_string(), |message| hmac::sign(&key, message).as_ref().to_vec())
}

#[test]
fn t_002_hmac_with_a_public_key_is_refused() {
    let jwk = rsa_jwk("r");
    let der = rsa_pair_public_der();
    let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", b64(&der));
    let modulus = rsa_modulus();
    for alg in ["HS256", "HS384", "HS512"] {
        for key in [pem.as_bytes(), &der, jwk.to_string().as_bytes(), &modulus, jwk["n"].as_str().unwrap().as_bytes()] {
            let refused = check(&maced(alg, key), &set(std::slice::from_ref(&jwk)), &rules());
            assert_eq!(refused, Err(Refusal::Algorithm));
        }
    }
}

#[test]
fn t_003_hmac_with_an_ec_or_ed_key_is_refused() {
    let issuer = Es256::new();
    let (ed_jwk, _) = crate::keys::other_curve("EdDSA");
    for jwk in [with(issuer.signing.jwk(), json!({"kid": "r"})), with(ed_jwk, json!({"kid": "r"}))] {
        let x = jwk["x"].as_str().unwrap();
        for key in [jwk.to_string(), x.to_owned(), format!("ssh-ed25519 {x}"), String::new()] {
            let refused = check(&maced("HS256", key.as_bytes()), &set(std::slice::from_ref(&jwk)), &rules());
            assert_eq!(refused, Err(Refusal::Algorithm));
        }
    }
}

#[test]
fn t_004_encrypted_tokens_are_refused() {
    let issuer = Es256::new();
    let jwe = format!("{}.a.a.a.a", b64(r#"{"alg":"RSA-OAEP","enc":"A256GCM","cty":"JWT"}"#));
    assert_eq!(issuer.gate(&jwe), Err(Refusal::Malformed));
    for member in ["cty", "enc", "epk"] {
        assert_eq!(issuer.gate(&issuer.with_header(json!({ member: "JWT" }))), Err(Refusal::Header), "{member}");
    }
}

#[test]
fn t_005_an_embedded_jwk_is_refused() {
    let (issuer, attacker) = (Es256::new(), Es256::new());
    let header = with(issuer.header(), json!({"jwk": attacker.signing.jwk()}));
    let token = attacker.token(header.to_string(), good_claims().to_string());
    assert_eq!(issuer.gate(&token), Err(Refusal::Header));
    assert_eq!(issuer.gate(&issuer.token(header.to_string(), good_claims().to_string())), Err(Refusal::Header));
}

#[test]
fn t_006_a_key_url_is_refused() {
    let issuer = Es256::new();
    for member in ["jku", "x5u"] {
        let token = issuer.with_header(json!({ member: "https://evil.example/keys" }));
        assert_eq!(issuer.gate(&token), Err(Refusal::Header), "{member}");
    }
    assert_eq!(issuer.gate(&issuer.with_header(json!({"x5c": ["MIIB"]}))), Err(Refusal::Header));
    assert!(issuer.gate(&issuer.with_header(json!({"x5t": "abc"}))).is_ok(), "GitHub sends it");
}

#[test]
fn a_header_that_the_library_cannot_read_is_refused_before_the_claims() {
    let (issuer, attacker) = (Es256::new(), Es256::new());
    let header = with(issuer.header(), json!({"x5t": 7})).to_string();
    let token = attacker.token(header, with(good_claims(), json!({"iss": 7})).to_string());
    assert_eq!(issuer.gate(&token), Err(Refusal::Header));
}

#[test]
fn t_007_a_kid_is_only_a_name() {
    let issuer = Es256::new();
    for kid in ["../../../dev/null", "' OR 1=1--", "\u{0}", "$(id)", " "] {
        assert_eq!(issuer.gate(&issuer.with_header(json!({ "kid": kid }))), Err(Refusal::UnknownKey), "{kid:?}");
    }
    for kid in [json!(""), json!("k".repeat(257)), json!(1), json!([issuer.signing.kid()]), json!({})] {
        assert_eq!(issuer.gate(&issuer.with_header(json!({ "kid": kid }))), Err(Refusal::Header), "{kid}");
    }
    let null = issuer.token(r#"{"alg":"ES256","kid":null}"#, good_claims().to_string());
    assert_eq!(issuer.gate(&null), Err(Refusal::Header));
    assert!(issuer.gate(&issuer.with_header(json!({"kid": null}))).is_ok(), "absent, and one key fits");
}

#[test]
fn t_008_an_empty_signature_is_refused() {
    let issuer = Es256::new();
    let token = issuer.with_header(json!({}));
    let [header, payload, signature] = [0, 1, 2].map(|part| token.split('.').nth(part).unwrap());
    let bad = [
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("{token}."),
        format!(".{token}"),
        "..".to_owned(),
        ".".to_owned(),
        String::new(),
    ];
    for token in bad {
        assert_eq!(issuer.gate(&token), Err(Refusal::Malformed), "{token}");
    }
}

#[test]
fn t_009_psychic_signatures_are_refused() {
    let issuer = Es256::new();
    let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&order[2 * i..2 * i + 2], 16).unwrap()).collect();
    let (zero, mut one) = (vec![0u8; 32], vec![0u8; 32]);
    one[31] = 1;
    for (r, s) in [(&zero, &zero), (&zero, &one), (&one, &zero), (&order, &one), (&one, &order), (&order, &order)] {
        let signature = [&r[..], &s[..]].concat();
        let token = compact(issuer.header().to_string(), good_claims().to_string(), |_| signature.clone());
        assert_eq!(issuer.gate(&token), Err(Refusal::Signature));
    }
}

#[test]
fn t_010_crit_is_refused() {
    let issuer = Es256::new();
    for crit in [json!(["x"]), json!([]), json!("exp"), json!(["b64"]), json!(["alg"])] {
        assert_eq!(issuer.gate(&issuer.with_header(json!({ "crit": crit }))), Err(Refusal::Header), "{crit}");
    }
}

#[test]
fn t_011_b64_is_refused() {
    let issuer = Es256::new();
    for b64 in [json!(false), json!(true)] {
        assert_eq!(issuer.gate(&issuer.with_header(json!({ "b64": b64 }))), Err(Refusal::Header));
    }
}

#[test]
fn t_012_compression_is_refused() {
    let issuer = Es256::new();
    assert_eq!(issuer.gate(&issuer.with_header(json!({"zip": "DEF"}))), Err(Refusal::Header));
}

#[test]
fn t_013_password_iterations_are_refused() {
    let issuer = Es256::new();
    assert_eq!(issuer.gate(&issuer.with_header(json!({"p2c": 2147483647u32}))), Err(Refusal::Header));
    let alg = issuer.with_header(json!({"alg": "PBES2-HS256+A128KW", "p2c": 2147483647u32}));
    assert_eq!(issuer.gate(&alg), Err(Refusal::Algorithm));
}

#[test]
fn t_014_dots_are_not_split_without_bound() {
    assert_eq!(Jws::parse(&".".repeat(1 << 20)).unwrap_err(), Refusal::Malformed);
    assert_eq!(Jws::parse(&"a.".repeat(1_000_000)).unwrap_err(), Refusal::Malformed);
    let issuer = Es256::new();
    let padded = |length: usize| issuer.with_claims(json!({"pad": "x".repeat(length)}));
    let excess = padded(12_000).len() - 12_000 * 4 / 3;
    let fits = padded((TOKEN_MAX_BYTES - excess) * 3 / 4 - 8);
    assert!(fits.len() <= TOKEN_MAX_BYTES && issuer.gate(&fits).is_ok(), "{}", fits.len());
    assert_eq!(issuer.gate(&padded(TOKEN_MAX_BYTES)), Err(Refusal::Malformed));
}

#[test]
fn t_015_json_serialisations_are_refused() {
    let issuer = Es256::new();
    let token = issuer.with_header(json!({}));
    let [protected, payload, signature] = [0, 1, 2].map(|part| token.split('.').nth(part).unwrap());
    let flattened = json!({"protected": protected, "payload": payload, "signature": signature});
    let general = json!({"payload": payload, "signatures": [{"protected": protected, "signature": signature}]});
    let polyglot =
        format!(r#"{{"{token}":"","payload":"{payload}","protected":"{protected}","signature":"{signature}"}}"#);
    for text in [flattened.to_string(), general.to_string(), polyglot] {
        assert_eq!(issuer.gate(&text), Err(Refusal::Malformed));
    }
}

#[test]
fn t_020_only_canonical_base64url_is_read() {
    let issuer = Es256::new();
    let token = issuer.with_header(json!({}));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    // 64 bytes leave four unused bits in the last character: `A`, `Q`, `g` or `w`.
    let last = signature.chars().last().unwrap();
    let twin = char::from(last as u8 + 1);
    assert!("AQgw".contains(last));
    let bad = [
        format!("{message}.{}{twin}", &signature[..signature.len() - 1]),
        format!("{token}="),
        format!("{token}=="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}=.{signature}"),
        format!("{header}.{payload}.{signature}!"),
        format!("{header}.{payload} .{signature}"),
        format!("{header}.{payload}.{}+", &signature[..signature.len() - 1]),
        format!("{header}.{payload}.{}é", &signature[..signature.len() - 2]),
    ];
    for token in bad {
        assert_eq!(issuer.gate(&token), Err(Refusal::Malformed), "{token}");
    }
}

#[test]
fn t_022_duplicate_members_are_refused() {
    let issuer = Es256::new();
    let claims = good_claims().to_string();
    for member in
        [r#""exp":1"#, r#""sub":"x""#, r#""iss":"x""#, r#""aud":"x""#, r#""p":1,"p":1"#, r#""d":{"a":1,"a":1}"#]
    {
        let doubled = format!("{},{member}}}", &claims[..claims.len() - 1]);
        let token = issuer.token(issuer.header().to_string(), &doubled);
        assert_eq!(issuer.gate(&token), Err(Refusal::Malformed), "{member}");
    }
    let header = issuer.header().to_string();
    for member in [r#""alg":"ES256""#, r#""kid":"x""#, r#""a\u006cg":"none""#] {
        let doubled = format!("{},{member}}}", &header[..header.len() - 1]);
        assert_eq!(issuer.gate(&issuer.token(&doubled, &claims)), Err(Refusal::Malformed), "{member}");
    }
}

#[test]
fn t_023_the_signature_comes_before_the_claims() {
    let (issuer, attacker) = (Es256::new(), Es256::new());
    let claims = with(good_claims(), json!({"exp": 1, "aud": 7, "iss": []}));
    let token = attacker.token(issuer.header().to_string(), claims.to_string());
    assert_eq!(issuer.gate(&token), Err(Refusal::Signature));
}

#[test]
fn t_025_another_kind_of_token_is_refused() {
    let issuer = Es256::new();
    let strict = Rules { typ: vec![String::new(), "JWT".to_owned()], ..rules() };
    for typ in ["at+jwt", "logout+jwt", "secevent+jwt", "application/jwt", "JWT ", "jwt", ""] {
        let token = issuer.with_header(json!({ "typ": typ }));
        assert_eq!(check(&token, &issuer.keys(), &strict), Err(Refusal::Type), "{typ:?}");
    }
    for typ in [json!(1), json!(["JWT"])] {
        assert_eq!(issuer.gate(&issuer.with_header(json!({ "typ": typ }))), Err(Refusal::Header));
    }
    for typ in [json!("JWT"), json!(null)] {
        assert!(check(&issuer.with_header(json!({ "typ": typ })), &issuer.keys(), &strict).is_ok(), "{typ}");
    }
    let typed = Rules { typ: vec!["JWT".to_owned()], ..rules() };
    assert_eq!(check(&issuer.with_header(json!({"typ": null})), &issuer.keys(), &typed), Err(Refusal::Type));
}

#[test]
fn t_027_a_key_of_another_issuer_is_refused() {
    let (ours, theirs) = (Es256::new(), Es256::new());
    let same_kid = set(&[theirs.jwk_with(json!({"kid": ours.signing.kid()}))]);
    let token = ours.with_header(json!({}));
    assert_eq!(check(&token, &theirs.keys(), &rules()), Err(Refusal::UnknownKey));
    assert_eq!(check(&token, &same_kid, &rules()), Err(Refusal::Signature));
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let issuer = Es256::new();
    let token = issuer.with_header(json!({}));
    for at in (0..token.len()).filter(|&at| token.as_bytes()[at] != b'.') {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(issuer.gate(&String::from_utf8(bytes).unwrap()).is_err(), "byte {at}");
    }
}

#[test]
fn debug_shows_no_token() {
    let issuer = Es256::new();
    let token = issuer.with_header(json!({}));
    let shown = format!("{:?}", Jws::parse(&token).unwrap());
    let payload = token.split('.').nth(1).unwrap();
    assert!(!shown.contains(payload) && !shown.contains("acme"), "{shown}");
    let key = format!("{:?}", issuer.signing);
    assert!(key.contains(issuer.signing.kid()) && key.len() < 100, "{key}");
}

#[test]
fn accessors_show_what_was_written() {
    let issuer = Es256::new();
    let token = issuer.with_header(json!({}));
    let jws = Jws::parse(&token).unwrap();
    assert_eq!((jws.alg(), jws.kid(), jws.typ()), ("ES256", Some(issuer.signing.kid()), Some("JWT")));
    assert_eq!((jws.unverified_issuer(), jws.unverified_jti()), (Some(ISSUER), Some("j-1")));
    assert_eq!(jws.signing_input(), token.rsplit_once('.').unwrap().0);
    assert_eq!(Value::Object(jws.unverified_claims().clone()), good_claims());
}

proptest! {
    #[test]
    fn t_024_parsing_never_panics(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Jws::parse(&text);
        let _ = Jws::parse(&String::from_utf8_lossy(&bytes));
        let _ = Jws::parse(&format!("{}.{}.{}", b64(&bytes), b64(&text), b64("s")));
        let _ = dayfly_verifier::KeySet::parse(&bytes);
        let _ = dayfly_verifier::KeySet::parse(text.as_bytes());
    }

    #[test]
    fn t_024_no_payload_panics_the_gate(payload in any::<String>(), name in "[a-z]{2,3}", value in any::<i64>()) {
        let issuer = shared();
        prop_assert!(issuer.gate(&issuer.token(issuer.header().to_string(), &payload)).is_err());
        let _ = issuer.gate(&issuer.with_claims(json!({ name: value })));
    }
}

fn shared() -> &'static Es256 {
    static ISSUER: std::sync::OnceLock<Es256> = std::sync::OnceLock::new();
    ISSUER.get_or_init(Es256::new)
}
