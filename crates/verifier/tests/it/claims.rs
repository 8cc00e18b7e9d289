//! Section B: what claims must be before anybody reads them.

use dayfly_verifier::{Reason, Refusal, Rules};
use serde_json::{Value, json};

use crate::support::*;

/// The issuer's own, well-signed token with one claim replaced by raw JSON.
fn with_raw(issuer: &Es256, name: &str, raw: &str) -> String {
    let claims = with(good_claims(), json!({ name: null })).to_string();
    issuer.token(issuer.header().to_string(), format!("{},\"{name}\":{raw}}}", &claims[..claims.len() - 1]))
}

#[test]
fn t_029_wrong_typed_times_are_refused() {
    let issuer = Es256::new();
    for name in ["exp", "nbf", "iat"] {
        for raw in [r#""99999999999""#, r#""never""#, "true", "[1]", "{}", "null", "-1", "1800000100.5", "1.8e9"] {
            assert_eq!(issuer.gate(&with_raw(&issuer, name, raw)), Err(claim(name)), "{name} {raw}");
        }
    }
}

fn claim(name: &str) -> Refusal {
    Refusal::Claim(match name {
        "exp" => "exp",
        "nbf" => "nbf",
        "iat" => "iat",
        "sub" => "sub",
        _ => "jti",
    })
}

#[test]
fn t_030_missing_or_wrong_typed_claims_are_refused() {
    let issuer = Es256::new();
    for (name, refusal) in [("iss", Refusal::Issuer), ("aud", Refusal::Audience), ("sub", Refusal::Claim("sub"))] {
        for raw in ["7", "{}", "null", "true"] {
            assert_eq!(issuer.gate(&with_raw(&issuer, name, raw)), Err(refusal), "{name} {raw}");
        }
    }
    assert_eq!(issuer.gate(&issuer.with_claims(json!({"iss": null}))), Err(Refusal::Issuer));
    assert_eq!(issuer.gate(&issuer.with_claims(json!({"aud": null}))), Err(Refusal::Audience));
}

#[test]
fn t_031_tokens_without_exp_or_iat_are_refused() {
    let issuer = Es256::new();
    for name in ["exp", "iat"] {
        assert_eq!(issuer.gate(&issuer.with_claims(json!({ name: null }))), Err(claim(name)));
    }
    assert!(issuer.gate(&issuer.with_claims(json!({"nbf": null}))).is_ok(), "nbf is optional");
}

#[test]
fn t_031_old_tokens_are_refused_whatever_their_exp() {
    let issuer = Es256::new();
    let rules = Rules { max_age_s: Some(600), ..rules() };
    let issued = |ago_s: i64| check(&issuer.with_claims(json!({"iat": NOW_S - ago_s})), &issuer.keys(), &rules);
    assert!(issued(600).is_ok());
    assert_eq!(issued(601), Err(Refusal::TooOld));
}

#[test]
fn t_032_only_the_exact_audience_is_accepted() {
    let issuer = Es256::new();
    for aud in ["https://dayfly.exampl", "https://dayfly.example/", "https://DAYFLY.example", "dayfly.example", "", " "]
    {
        assert_eq!(issuer.gate(&issuer.with_claims(json!({ "aud": aud }))), Err(Refusal::Audience), "{aud}");
    }
}

#[test]
fn t_033_an_audience_of_another_shape_is_refused() {
    let issuer = Es256::new();
    let many: Vec<Value> = (0..1000).map(|i| if i == 7 { json!(AUDIENCE) } else { json!(i.to_string()) }).collect();
    for aud in [
        json!(7),
        json!({AUDIENCE: 1}),
        json!([]),
        json!([1]),
        json!([AUDIENCE, "b"]),
        json!([AUDIENCE, AUDIENCE]),
        json!([[AUDIENCE]]),
        json!([AUDIENCE, 1]),
        json!(many),
    ] {
        assert_eq!(issuer.gate(&issuer.with_claims(json!({ "aud": aud }))), Err(Refusal::Audience), "{aud}");
    }
    assert!(issuer.gate(&issuer.with_claims(json!({"aud": [AUDIENCE]}))).is_ok());
}

#[test]
fn t_034_an_issuer_is_equal_byte_for_byte() {
    let issuer = Es256::new();
    for iss in [
        json!("https://idp.exampl"),
        json!("https://idp.example2"),
        json!("https://IDP.example"),
        json!([ISSUER]),
        json!({}),
        json!({ISSUER: ISSUER}),
        json!(""),
    ] {
        assert_eq!(issuer.gate(&issuer.with_claims(json!({ "iss": iss }))), Err(Refusal::Issuer), "{iss}");
    }
}

#[test]
fn t_035_other_spellings_of_an_issuer_are_refused() {
    let issuer = Es256::new();
    for iss in [
        "https://idp.example/",
        "HTTPS://idp.example",
        "https://idp.example:443",
        "https://a@idp.example",
        "https://idp.example?",
        "https://idp.example#x",
        "https://idp.example/..",
        "https://idp.example//",
        "https://idp%2eexample",
        "https://ıdp.example",
        "http://idp.example",
        " https://idp.example",
        "https://idp.example\u{0}",
    ] {
        assert_eq!(issuer.gate(&issuer.with_claims(json!({ "iss": iss }))), Err(Refusal::Issuer), "{iss}");
    }
}

#[test]
fn t_037_a_lifetime_without_measure_is_refused() {
    let issuer = Es256::new();
    for raw in ["18446744073709551615", "9223372036854775807", "1000000000000000000", "1800086401"] {
        assert_eq!(issuer.gate(&with_raw(&issuer, "exp", raw)), Err(Refusal::Claim("exp")), "{raw}");
    }
    for raw in ["18446744073709551616", "-0", "1.5e9", "1500000000.5"] {
        assert!(issuer.gate(&with_raw(&issuer, "exp", raw)).is_err(), "{raw}");
    }
    assert!(issuer.gate(&with_raw(&issuer, "exp", "1800086400")).is_ok(), "24 h ahead, to the second");
}

#[test]
fn t_038_exp_has_no_leeway() {
    let issuer = Es256::new();
    let gate = |changes: Value| issuer.gate(&issuer.with_claims(changes));
    assert_eq!(gate(json!({"exp": NOW_S - 1})), Err(Refusal::Expired));
    assert_eq!(gate(json!({"exp": NOW_S})), Err(Refusal::Expired), "on or after (RFC 7519 section 4.1.4)");
    assert!(gate(json!({"exp": NOW_S + 1})).is_ok());
    for name in ["nbf", "iat"] {
        assert!(gate(json!({ name: NOW_S + 30 })).is_ok(), "{name}");
        assert_eq!(gate(json!({ name: NOW_S + 31 })), Err(Refusal::NotYetValid), "{name}");
    }
}

#[test]
fn t_039_blank_claims_are_missing_claims() {
    let issuer = Es256::new();
    for name in ["sub", "jti"] {
        for value in [json!(""), json!(" "), json!("\u{a0}"), json!("\t\n"), json!(1), json!(["a"])] {
            assert_eq!(issuer.gate(&issuer.with_claims(json!({ name: value }))), Err(claim(name)), "{name} {value}");
        }
        assert!(issuer.gate(&issuer.with_claims(json!({ name: null }))).is_ok(), "{name} is optional here");
    }
}

#[test]
fn a_refusal_has_one_reason() {
    let pairs = [
        (Refusal::Malformed, Reason::Signature),
        (Refusal::UnknownKey, Reason::Signature),
        (Refusal::Issuer, Reason::Issuer),
        (Refusal::Audience, Reason::Audience),
        (Refusal::Expired, Reason::Expired),
        (Refusal::TooOld, Reason::Expired),
        (Refusal::Claim("exp"), Reason::Claim),
    ];
    for (refusal, reason) in pairs {
        assert_eq!(refusal.reason(), reason);
    }
}
