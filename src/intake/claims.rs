//! From a token's JSON to a typed workload, as its profile says. Pure: also run by the tests in
//! a bundle.

use std::sync::Arc;

use dayfly_domain::{
    ClaimType, ClaimValue, Claims, Reason, Workload,
    bundle::{ClaimMatch, ClaimRule, Issuer, Profile, Segment},
    spiffe::{self, SpiffeId},
};
use ring::digest;
use serde_json::{Map, Value};

use super::place::{Seen, find};

/// Why claims were refused. A claim's value is never quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimRefusal {
    Stranger,
    /// Missing, empty or of another type: the claim's name and what is wrong with it.
    Claim(String),
    Refused {
        reason: Reason,
        workload: Box<Workload>,
    },
}

/// Pins first (a stranger learns nothing more), then types, principal, and what the profile
/// refuses outright.
pub fn read(issuer: &Issuer, profile: &Profile, payload: &Map<String, Value>) -> Result<Workload, ClaimRefusal> {
    pins(issuer, payload)?;
    let claims = typed(issuer, payload)?;
    let workload = Workload {
        issuer: issuer.name.clone(),
        profile: issuer.profile.clone(),
        principal: principal(issuer, profile, &claims)?,
        untrusted: profile.untrusted.iter().any(|when| matches(when, &claims)),
        job: job(profile, &claims),
        claims,
    };
    match refused_as(profile, &workload.claims) {
        Some(reason) => Err(ClaimRefusal::Refused { reason, workload: Box::new(workload) }),
        None => Ok(workload),
    }
}

/// What the profile refuses, what it requires and the evidence lacks, and claims that disagree.
/// A claim that is missing satisfies nothing.
pub(super) fn refused_as(profile: &Profile, claims: &Claims) -> Option<Reason> {
    let refused = profile.refuse.iter().find(|refusal| matches(&refusal.when, claims));
    let lacking = || profile.require.iter().find(|required| !matches(&required.when, claims));
    if let Some(refusal) = refused.or_else(lacking) {
        return Some(Reason::from_code(&refusal.code).unwrap_or(Reason::Event));
    }
    let agree = |names: &Vec<String>| {
        let mut seen = names.iter().map(|name| claims.get(name));
        seen.next().flatten().is_some_and(|first| seen.all(|other| other == Some(first)))
    };
    if profile.same.iter().all(agree) { None } else { Some(Reason::Event) }
}

fn pins(issuer: &Issuer, payload: &Map<String, Value>) -> Result<(), ClaimRefusal> {
    let held = issuer.pin.iter().all(|(name, wanted)| {
        let seen = issuer.claims.get(name).and_then(|rule| value(name, rule, payload).ok().flatten());
        seen.as_ref() == Some(wanted)
    });
    if held { Ok(()) } else { Err(ClaimRefusal::Stranger) }
}

fn typed(issuer: &Issuer, payload: &Map<String, Value>) -> Result<Claims, ClaimRefusal> {
    let mut claims = Claims::new();
    for (name, rule) in &issuer.claims {
        match value(name, rule, payload)? {
            Some(value) => {
                claims.insert(name.clone(), value);
            }
            None if rule.required => return Err(refused(name, "is missing")),
            None => {}
        }
    }
    Ok(claims)
}

/// One claim. Absent is `None`; null, empty, blank or of another type is a refusal (law L4).
// SECURITY: `t_039_blank_claims_are_refused`, `t_040_types_are_not_coerced`.
pub(super) fn value(
    name: &str,
    rule: &ClaimRule,
    payload: &Map<String, Value>,
) -> Result<Option<ClaimValue>, ClaimRefusal> {
    let raw = match find(payload, rule) {
        Seen::Nothing => return Ok(None),
        Seen::One(raw) => raw,
        Seen::Each(values) => return common(name, rule, &values).map(|set| Some(ClaimValue::Set(set))),
        Seen::Ambiguous => return Err(refused(name, "is there twice, or not in every part")),
    };
    let wrong = || refused(name, "is of another type than its profile declares");
    let typed = match (rule.kind, raw) {
        (ClaimType::String, _) if !rule.words.is_empty() => ClaimValue::String(word(name, rule, raw)?),
        (ClaimType::Set, Value::Array(members)) if !rule.words.is_empty() => {
            ClaimValue::Set(sorted(members.iter().map(|member| word(name, rule, member)))?)
        }
        (ClaimType::String, Value::String(text)) => {
            let text = filled(name, text)?;
            ClaimValue::String(if rule.fold { folded(name, text)? } else { text.to_owned() })
        }
        (ClaimType::Long, Value::Number(number)) => ClaimValue::Long(number.as_i64().ok_or_else(wrong)?),
        (ClaimType::Bool, Value::Bool(value)) => ClaimValue::Bool(*value),
        (ClaimType::Set, Value::Array(members)) => ClaimValue::Set(set(name, members)?),
        (ClaimType::StringBool, Value::String(text)) => match text.as_str() {
            "true" => ClaimValue::Bool(true),
            "false" => ClaimValue::Bool(false),
            _ => return Err(wrong()),
        },
        (ClaimType::StringLong, Value::String(text)) => ClaimValue::Long(canonical_long(text).ok_or_else(wrong)?),
        _ => return Err(wrong()),
    };
    Ok(Some(typed))
}

fn canonical_long(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

fn set(name: &str, members: &[Value]) -> Result<Vec<String>, ClaimRefusal> {
    sorted(members.iter().map(|member| match member {
        Value::String(text) => filled(name, text).map(str::to_owned),
        _ => Err(refused(name, "has a member that is no string")),
    }))
}

fn sorted(members: impl Iterator<Item = Result<String, ClaimRefusal>>) -> Result<Vec<String>, ClaimRefusal> {
    let mut set = members.collect::<Result<Vec<_>, _>>()?;
    set.sort_unstable();
    set.dedup();
    Ok(set)
}

/// One of the words that the claim can be, by itself or by the number that stands for it.
// SECURITY: `a_word_that_is_none_is_refused`: no number is near enough to another.
fn word(name: &str, rule: &ClaimRule, raw: &Value) -> Result<String, ClaimRefusal> {
    let known = match raw {
        Value::String(text) => rule.words.get_key_value(text),
        Value::Number(number) => rule.words.iter().find(|(_, code)| number.as_i64() == Some(**code)),
        _ => None,
    };
    known.map(|(word, _)| word.clone()).ok_or_else(|| refused(name, "is none of the words that its profile declares"))
}

/// What all parts have in common: what holds of the whole is what each part says.
// SECURITY: `what_one_part_says_is_not_said_of_the_whole`.
fn common(name: &str, rule: &ClaimRule, parts: &[&Value]) -> Result<Vec<String>, ClaimRefusal> {
    // Each part says one word: of several, one could be what another takes back.
    let of = |part: &Value| match (part, rule.words.is_empty()) {
        (Value::Array(members), true) => set(name, members),
        (Value::String(text), true) => Ok(vec![filled(name, text)?.to_owned()]),
        (_, false) => Ok(vec![word(name, rule, part)?]),
        (_, true) => Err(refused(name, "is of another type than its profile declares")),
    };
    let mut sets = parts.iter().map(|part| of(part)).collect::<Result<Vec<_>, _>>()?.into_iter();
    let first = sets.next().unwrap_or_default();
    Ok(sets.fold(first, |held, next| held.into_iter().filter(|text| next.contains(text)).collect()))
}

fn filled<'a>(name: &str, text: &'a str) -> Result<&'a str, ClaimRefusal> {
    let blank = text.chars().all(|letter| letter.is_whitespace() || letter.is_control());
    if blank { Err(refused(name, "is empty or blank")) } else { Ok(text) }
}

// SECURITY: `t_041_a_folded_claim_is_ascii`: what Unicode folds into ASCII is another's name.
fn folded(name: &str, text: &str) -> Result<String, ClaimRefusal> {
    if text.is_ascii() { Ok(text.to_ascii_lowercase()) } else { Err(refused(name, "is not plain ASCII")) }
}

fn refused(name: &str, what: &str) -> ClaimRefusal {
    ClaimRefusal::Claim(format!("`{name}` {what}"))
}

pub(super) fn matches(when: &ClaimMatch, claims: &Claims) -> bool {
    when.iter().all(|(name, wanted)| claims.get(name).is_some_and(|seen| seen.is_one_of(wanted)))
}

fn principal(issuer: &Issuer, profile: &Profile, claims: &Claims) -> Result<Arc<str>, ClaimRefusal> {
    let mut name = issuer.name.to_string();
    for claim in &profile.principal {
        let seen = claims.get(claim).ok_or_else(|| refused(claim, "is missing"))?;
        let how = issuer.claims.get(claim).and_then(|rule| rule.segment);
        name.push('/');
        name.push_str(&segment(claim, &seen.to_string(), how, issuer.trust_domain())?);
    }
    Ok(name.into())
}

/// A segment outside `[A-Za-z0-9._-]` refuses the token: it is never escaped (T-125).
fn segment(claim: &str, text: &str, how: Option<Segment>, domain: Option<&str>) -> Result<String, ClaimRefusal> {
    let text = match how {
        Some(Segment::SpiffePath) => return spiffe_path(claim, text, domain),
        Some(Segment::Hash128) => return Ok(hash128(text)),
        Some(Segment::StripBraces) => text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text),
        None => text,
    };
    if !spiffe::is_segment(text) {
        return Err(refused(claim, "cannot stand in a principal"));
    }
    Ok(text.to_owned())
}

/// The path of an ID in the issuer's own trust domain, whose letters are those of a principal.
// SECURITY: `a_path_that_says_untrusted_is_refused`: it would be the name of another workload.
fn spiffe_path(claim: &str, text: &str, domain: Option<&str>) -> Result<String, ClaimRefusal> {
    let id = SpiffeId::parse(text).filter(|id| Some(id.trust_domain()) == domain);
    match id.map(|id| id.path()) {
        Some(path) if path.rsplit('/').next() != Some("untrusted") => Ok(path.to_owned()),
        _ => Err(refused(claim, "cannot stand in a principal")),
    }
}

fn hash128(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The job label: all its claims, or none. Joined by a character that is escaped in each of them,
/// so that no two lists of claims have one label.
fn job(profile: &Profile, claims: &Claims) -> Option<Arc<str>> {
    if profile.job.is_empty() {
        return None;
    }
    let part = |name: &String| Some(claims.get(name)?.to_string().replace('%', "%25").replace('/', "%2F"));
    let parts: Option<Vec<String>> = profile.job.iter().map(part).collect();
    parts.map(|parts| parts.join("/").into())
}

#[cfg(test)]
mod tests {
    use dayfly_domain::{
        ClaimType,
        bundle::{Refusal, Roles},
    };

    use super::*;

    fn rule(at: &str, kind: ClaimType) -> ClaimRule {
        ClaimRule { at: at.to_owned(), ..ClaimRule::of(kind) }
    }

    fn seen(kind: ClaimType, raw: Value) -> Result<Option<ClaimValue>, ClaimRefusal> {
        value("it", &rule("/it", kind), &Map::from_iter([("it".to_owned(), raw)]))
    }

    #[test]
    fn t_039_blank_claims_are_refused() {
        for blank in ["", " ", "\u{a0}", "\t\n", "\u{0}"] {
            assert!(seen(ClaimType::String, blank.into()).is_err(), "{blank:?}");
        }
        assert!(seen(ClaimType::Set, serde_json::json!(["a", " "])).is_err());
        assert!(seen(ClaimType::String, Value::Null).is_err(), "null is not absent");
    }

    #[test]
    fn t_040_types_are_not_coerced() {
        for (kind, raw) in [
            (ClaimType::Bool, serde_json::json!("false")),
            (ClaimType::Bool, serde_json::json!(0)),
            (ClaimType::StringBool, serde_json::json!(true)),
            (ClaimType::StringBool, serde_json::json!("True")),
            (ClaimType::Long, serde_json::json!("1")),
            (ClaimType::Long, serde_json::json!(1.5)),
            (ClaimType::StringLong, serde_json::json!("01")),
            (ClaimType::StringLong, serde_json::json!(1)),
            (ClaimType::Set, serde_json::json!("a")),
            (ClaimType::String, serde_json::json!(["a"])),
        ] {
            assert!(seen(kind, raw.clone()).is_err(), "{kind:?} {raw}");
        }
        assert_eq!(seen(ClaimType::StringLong, "-7".into()), Ok(Some(ClaimValue::Long(-7))));
        assert_eq!(seen(ClaimType::StringBool, "true".into()), Ok(Some(ClaimValue::Bool(true))));
    }

    fn tiers() -> ClaimRule {
        let words = [("none", 0), ("affirming", 2), ("warning", 32)].map(|(word, code)| (word.to_owned(), code));
        ClaimRule { at: "/parts/*/tier".to_owned(), words: words.into(), ..ClaimRule::of(ClaimType::Set) }
    }

    fn of_parts(rule: &ClaimRule, parts: &[Value]) -> Result<Option<ClaimValue>, ClaimRefusal> {
        let parts = parts.iter().enumerate().map(|(at, tier)| (at.to_string(), serde_json::json!({ "tier": tier })));
        value("it", rule, &Map::from_iter([("parts".to_owned(), Value::Object(parts.collect()))]))
    }

    #[test]
    fn what_one_part_says_is_not_said_of_the_whole() {
        let said = |parts: &[Value]| of_parts(&tiers(), parts).unwrap().unwrap();
        let set = |words: &[&str]| ClaimValue::Set(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(said(&["affirming".into(), 2.into()]), set(&["affirming"]));
        assert_eq!(said(&["affirming".into(), "warning".into()]), set(&[]));
        let both = serde_json::json!(["affirming", "warning"]);
        assert!(of_parts(&tiers(), &["affirming".into(), both]).is_err());
        assert!(of_parts(&tiers(), &[serde_json::json!(["affirming"])]).is_err());
        let policies = ClaimRule { words: Default::default(), ..tiers() };
        let said = |parts: &[Value]| of_parts(&policies, parts).unwrap().unwrap();
        assert_eq!(said(&[serde_json::json!(["lax", "strict"]), "strict".into()]), set(&["strict"]));
        assert!(of_parts(&policies, &[serde_json::json!(["strict", " "])]).is_err());
        assert!(of_parts(&policies, &["strict".into(), 7.into()]).is_err());
    }

    #[test]
    fn a_word_that_is_none_is_refused() {
        for raw in
            [3.into(), (-2).into(), 2.5.into(), 34.into(), "AFFIRMING".into(), "2".into(), "".into(), true.into()]
        {
            assert!(of_parts(&tiers(), &["affirming".into(), raw]).is_err());
        }
        assert!(of_parts(&tiers(), &[Value::Null]).is_err());
    }

    #[test]
    fn t_125_a_segment_is_refused_never_escaped() {
        for bad in ["../admin", "a/b", "*", "a,b", "%2f", "a\0b", "a\nb", ".", "..", "é", ""] {
            assert!(segment("it", bad, None, None).is_err(), "{bad:?}");
        }
        assert_eq!(segment("it", "{ab-1}", Some(Segment::StripBraces), None).unwrap(), "ab-1");
        assert!(segment("it", "{a/b}", Some(Segment::StripBraces), None).is_err());
        assert_eq!(segment("it", "any/thing at all", Some(Segment::Hash128), None).unwrap().len(), 32);
    }

    #[test]
    fn two_lists_of_claims_never_have_one_job_label() {
        let profile = Profile {
            name: "ci".parse().unwrap(),
            builtin: false,
            url: None,
            urls: vec![],
            own_urls: vec![],
            algs: vec![],
            typ: vec![],
            shared: false,
            pin: vec![],
            max_age: dayfly_domain::Span::seconds(600),
            float_iat: false,
            never_audience: Vec::new(),
            principal: vec![],
            job: vec!["one".into(), "two".into()],
            untrusted: vec![],
            refuse: Vec::<Refusal>::new(),
            require: vec![],
            same: vec![],
            lint: Roles::default(),
            review: std::collections::BTreeMap::new(),
            claims: std::collections::BTreeMap::new(),
        };
        let label = |one: &str, two: &str| {
            let claims =
                [("one", one), ("two", two)].map(|(name, text)| (name.into(), ClaimValue::String(text.into())));
            job(&profile, &Claims::from(claims))
        };
        assert_ne!(label("a/b", "c"), label("a", "b/c"));
        assert_ne!(label("a%2Fb", "c"), label("a/b", "c"));
        assert_eq!(job(&profile, &Claims::new()), None, "one missing: no label");
    }
}
