//! From a token's JSON to a typed workload, as its profile says. Pure: also run by the tests in
//! a bundle.

use std::sync::Arc;

use dayfly_domain::{
    ClaimType, ClaimValue, Claims, Reason, Workload,
    bundle::{ClaimMatch, ClaimRule, Issuer, Profile, Segment},
    spiffe::SpiffeId,
};
use ring::digest;
use serde_json::{Map, Value};

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
fn refused_as(profile: &Profile, claims: &Claims) -> Option<Reason> {
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
fn value(name: &str, rule: &ClaimRule, payload: &Map<String, Value>) -> Result<Option<ClaimValue>, ClaimRefusal> {
    let Some(raw) = at(payload, &rule.at) else { return Ok(None) };
    let wrong = || refused(name, "is of another type than its profile declares");
    let typed = match (rule.kind, raw) {
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

/// `Value::pointer` (RFC 6901) into an object that is no `Value`: a copy of the whole payload would
/// cost more than the reading.
fn at<'a>(payload: &'a Map<String, Value>, pointer: &str) -> Option<&'a Value> {
    let path = pointer.strip_prefix('/')?;
    let (first, below) = path.find('/').map_or((path, ""), |end| path.split_at(end));
    let member = match first.contains('~') {
        true => payload.get(&first.replace("~1", "/").replace("~0", "~")),
        false => payload.get(first),
    };
    member?.pointer(below)
}

fn canonical_long(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

fn set(name: &str, members: &[Value]) -> Result<Vec<String>, ClaimRefusal> {
    let text = |member: &Value| match member {
        Value::String(text) => filled(name, text).map(str::to_owned),
        _ => Err(refused(name, "has a member that is no string")),
    };
    let mut set = members.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    set.sort_unstable();
    set.dedup();
    Ok(set)
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

fn matches(when: &ClaimMatch, claims: &Claims) -> bool {
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
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.is_empty() || text == "." || text == ".." || !text.bytes().all(letter) {
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
        let at = at.to_owned();
        ClaimRule { at, kind, required: false, revocable: false, segment: None, fold: false, mutable: false, id: None }
    }

    fn seen(kind: ClaimType, raw: Value) -> Result<Option<ClaimValue>, ClaimRefusal> {
        value("it", &rule("/it", kind), &Map::from_iter([("it".to_owned(), raw)]))
    }

    #[test]
    fn a_pointer_into_the_payload_is_rfc_6901() {
        let whole = serde_json::json!({
            "a": { "b": [1, { "c": 2 }], "": 3 }, "m~n": 4, "x/y": { "~1": 5 }, "": { "": 6 }, "plain": 7,
        });
        let map = whole.as_object().unwrap();
        for pointer in [
            "/a",
            "/a/b",
            "/a/b/1/c",
            "/a/b/7",
            "/a/",
            "/m~0n",
            "/x~1y/~01",
            "/",
            "//",
            "/plain",
            "/plain/x",
            "/none",
            "plain",
            "/~01",
            "",
        ] {
            let same = if pointer.is_empty() { None } else { whole.pointer(pointer) };
            assert_eq!(at(map, pointer), same, "{pointer}");
        }
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
