//! What follows from any profile without being written down for it: a claim that is required is
//! missed, a claim of another type or blank is refused, a pin of another value is a stranger, and
//! evidence older than the profile allows is too old.

use dayfly_domain::{
    ClaimType, ClaimValue,
    bundle::{ClaimRule, Issuer, Profile},
};
use serde_json::{Value, json};

use super::{Change, Provider};
use crate::world::ISSUER;

pub async fn refusals(provider: &mut Provider) {
    let bundle = provider.bundle();
    let files: Vec<String> =
        provider.story.permit.iter().filter(|permit| permit.is_plain()).map(|permit| permit.file.clone()).collect();
    assert!(!files.is_empty());
    for file in files {
        let url = provider.claims(&file)["iss"].as_str().unwrap().to_owned();
        let issuer = bundle.issuers.values().find(|issuer| *issuer.url == *url).expect("an issuer of the story");
        let profile = &bundle.profiles[&issuer.profile];
        for (name, rule) in &issuer.claims {
            claim(provider, &file, issuer, name, rule).await;
        }
        for (name, value) in &issuer.pin {
            let change = Change::set(&issuer.claims[name].at, other(value));
            provider.refused(&file, &change, "E-STRANGER", &format!("another `{name}`")).await;
        }
        times(provider, &file, profile).await;
    }
}

/// One claim, taken out and put wrong.
async fn claim(provider: &mut Provider, file: &str, issuer: &Issuer, name: &str, rule: &ClaimRule) {
    // What any JWT must be is looked at first, and `sub` is text in all of them.
    let registered = rule.at == "/sub";
    let reason = |wrong: Option<&Value>| match issuer.pin.contains_key(name) {
        true if !(registered && wrong.is_some_and(|wrong| !is_some_text(wrong))) => "E-STRANGER",
        _ => "E-CLAIM",
    };
    let held = Value::Object(provider.claims(file).clone()).pointer(&rule.at).is_some();
    if rule.required {
        assert!(held, "`{name}` is required, and {file} lacks it");
        provider.refused(file, &Change::without(&rule.at), reason(None), &format!("no `{name}`")).await;
    }
    for wrong in wrong(rule.kind) {
        let what = format!("`{name}` is {wrong}");
        let reason = reason(Some(&wrong));
        provider.refused(file, &Change::set(&rule.at, wrong), reason, &what).await;
    }
}

fn is_some_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty())
}

/// Values that no claim of that type has.
fn wrong(kind: ClaimType) -> Vec<Value> {
    let mut values = vec![json!(null), json!({ "a": 1 }), json!("")];
    values.extend(match kind {
        ClaimType::String => [json!(7), json!(["a"]), json!(" \t")],
        ClaimType::Long => [json!("7"), json!(7.5), json!(true)],
        ClaimType::Bool => [json!("true"), json!(1), json!([true])],
        ClaimType::Set => [json!("a"), json!(["a", 1]), json!(["a", ""])],
        ClaimType::StringBool => [json!(true), json!("True"), json!("1")],
        ClaimType::StringLong => [json!(7), json!("07"), json!("7.0")],
    });
    values
}

fn other(value: &ClaimValue) -> Value {
    match value {
        ClaimValue::Long(number) => json!(number + 1),
        value => json!(format!("{value}0")),
    }
}

async fn times(provider: &mut Provider, file: &str, profile: &Profile) {
    let now = provider.world.now().as_s();
    let oldest = now - i64::from(profile.max_age.as_s());
    let at = |iat: i64| Change::set("/iat", iat).and("/nbf", iat);
    provider.refused(file, &at(oldest - 1), "E-EXPIRED", "older than `max_age`").await;
    let allowed = provider.present(file, &at(oldest), "deploy").await;
    assert!(allowed.is_ok(), "{file}: as old as `max_age`: {allowed:?}");
    for aud in [json!([ISSUER, "https://other.example.org"]), json!("https://other.example.org"), json!(null)] {
        provider.refused(file, &Change::set("/aud", aud), "E-AUDIENCE", "for someone else too").await;
    }
    provider.refused(file, &Change::set("/exp", now), "E-EXPIRED", "expired").await;
    let long = Change::set("/exp", now + 86_401);
    provider.refused(file, &long, "E-CLAIM", "lives for more than a day").await;
}
