//! What a token says of itself beside what the bundle wants of its issuer, for operators who ask why
//! it was refused. Nothing here proves anything: the signature is not looked at.

use std::collections::BTreeSet;

use dayfly_domain::{
    ClaimValue, Claims, Name, Reason, UnixMs,
    bundle::{Bundle, ClaimMatch, ClaimRule, Issuer, IssuerKind, Profile},
    spiffe::{self, SpiffeId},
    told,
};
use dayfly_verifier::{Jws, issued_at_s};
use serde_json::{Map, Value};

use super::{
    ClaimRefusal, LEEWAY_S, MAX_AHEAD_S, Origin, claims,
    place::{Seen, find},
};

/// Issuers that are named beside one that is not known.
const ISSUERS_MAX: usize = 20;

/// One thing that evidence must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// `iss`, `aud`, `exp`, `pin repository_owner_id`, ...
    pub what: String,
    /// Text, cut; `None`: missing, or of no use.
    pub seen: Option<String>,
    /// One of these; empty: anything.
    pub wanted: Vec<String>,
    pub ok: bool,
    pub note: Option<String>,
}

impl Check {
    fn new(what: impl Into<String>, seen: Option<String>, wanted: Vec<String>, ok: bool) -> Self {
        Self { what: what.into(), seen, wanted, ok, note: None }
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// Form, issuer, header, audience and times of a token, then its pins and claims.
pub fn look(token: &str, bundle: &Bundle, own_issuer: &str, now: UnixMs) -> Vec<Check> {
    let jws = match Jws::parse(token) {
        Ok(jws) => jws,
        Err(refusal) => {
            let form = Check::new("form", None, vec!["a compact JWS".to_owned()], false);
            return vec![form.note(refusal.to_string())];
        }
    };
    let url = jws.unverified_issuer();
    let Ok(Origin { issuer, profile }) = Origin::of(&jws, IssuerKind::Workload, bundle, own_issuer) else {
        return vec![unknown(&jws, bundle, own_issuer)];
    };
    let claims = jws.unverified_claims();
    let named = match issuer.trust_domain() {
        Some(_) => Check::new("sub", unverified_subject(&jws).map(told), vec![format!("{}/...", issuer.url)], true),
        None => Check::new("iss", url.map(told), vec![told(&issuer.url)], true),
    };
    let mut checks = vec![named.note(format!("the issuer `{}`, profile `{}`", issuer.name, profile.name))];
    checks.push(Check::new(
        "alg",
        Some(jws.alg().to_owned()),
        issuer.algs.clone(),
        issuer.algs.iter().any(|alg| alg == jws.alg()),
    ));
    checks.push(typ(jws.typ(), issuer));
    checks.push(audience(claims, issuer));
    checks.extend(times(claims, profile, now));
    checks.extend(look_at_claims(issuer, profile, claims));
    checks
}

/// The issuer that a token is said to be of, and its claims. Nobody has proven them.
pub fn unverified(token: &str, bundle: &Bundle, own_issuer: &str) -> Option<(Name, Map<String, Value>)> {
    let jws = Jws::parse(token).ok()?;
    let issuer = Origin::of(&jws, IssuerKind::Workload, bundle, own_issuer).ok()?.issuer.name.clone();
    Some((issuer, jws.into_unverified_claims()))
}

/// Pins, and of the claims those that the profile does not take.
pub fn look_at_claims(issuer: &Issuer, profile: &Profile, payload: &Map<String, Value>) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, wanted) in &issuer.pin {
        let seen = issuer.claims.get(name).and_then(|rule| claims::value(name, rule, payload).ok().flatten());
        let ok = seen.as_ref() == Some(wanted);
        let there = || raw(issuer.claims.get(name)?, payload);
        let seen = seen.map(|seen| told(&seen.to_string())).or_else(there);
        checks.push(Check::new(format!("pin {name}"), seen, vec![told(&wanted.to_string())], ok));
    }
    for (name, rule) in &issuer.claims {
        match claims::value(name, rule, payload) {
            Ok(None) if rule.required => {
                checks.push(Check::new(name, None, Vec::new(), false).note(format!("`{name}` is missing")));
            }
            Ok(_) => {}
            Err(ClaimRefusal::Claim(what)) => {
                checks.push(Check::new(name, raw(rule, payload), Vec::new(), false).note(what));
            }
            Err(_) => {}
        }
    }
    let all_well = checks.iter().all(|check| check.ok);
    if let Err(ClaimRefusal::Claim(what)) = claims::read(issuer, profile, payload)
        && all_well
    {
        checks.push(Check::new("principal", None, profile.principal.clone(), false).note(what));
    }
    checks
}

/// What stands where a claim should, as it is written: of another type it is not missing.
fn raw(rule: &ClaimRule, payload: &Map<String, Value>) -> Option<String> {
    match find(payload, rule) {
        Seen::Nothing => None,
        Seen::One(value) => Some(written(value)),
        Seen::Each(values) => Some(values.into_iter().map(written).collect::<Vec<_>>().join(", ")),
        Seen::Ambiguous => Some("(twice, or in some parts only)".to_owned()),
    }
}

fn written(value: &Value) -> String {
    told(&value.to_string())
}

/// Why the profile refuses this kind of run, whatever a row says.
pub fn refused_by(profile: &Profile, seen: &Claims) -> Option<(Reason, String)> {
    let reason = claims::refused_as(profile, seen)?;
    let has = |name: &String| match seen.get(name) {
        Some(value) => format!("`{name}` `{}`", told(&value.to_string())),
        None => format!("no `{name}`"),
    };
    let has = |when: &ClaimMatch| when.keys().map(has).collect::<Vec<_>>().join(" and ");
    let refused = profile.refuse.iter().find(|refusal| claims::matches(&refusal.when, seen));
    let lacking = profile.require.iter().find(|required| !claims::matches(&required.when, seen));
    let why = match (refused, lacking) {
        (Some(refusal), _) => format!("every run with {}", has(&refusal.when)),
        (None, Some(required)) => {
            let wanted = |(name, values): (&String, &Vec<ClaimValue>)| {
                let values: Vec<_> = values.iter().map(|value| told(&value.to_string())).collect();
                format!("`{name}` `{}`", values.join("` or `"))
            };
            let wanted: Vec<_> = required.when.iter().map(wanted).collect();
            format!("every run without {}: this one has {}", wanted.join(" and "), has(&required.when))
        }
        (None, None) => "claims that should agree and do not".to_owned(),
    };
    Some((reason, format!("the profile `{}` refuses {why}", profile.name)))
}

fn unverified_subject(jws: &Jws) -> Option<&str> {
    jws.unverified_claims().get("sub")?.as_str()
}

/// A SPIFFE ID without an issuer that anybody knows.
fn unknown_id(id: SpiffeId<'_>, bundle: &Bundle) -> Check {
    let issuers = bundle.issuers.values().filter(|issuer| !issuer.disabled && issuer.trust_domain().is_some());
    let mut known = once(issuers.map(|issuer| format!("{}/...", issuer.url)));
    if known.is_empty() {
        known.push("a trust domain of the bundle, which has none".to_owned());
    }
    let seen = format!("{}{}/{}", spiffe::SCHEME, id.trust_domain(), id.path());
    let check = Check::new("sub", Some(told(&seen)), known, false);
    match id.trust_domain() == bundle.trust_domain {
        true => check.note("our own trust domain, in which only Dayfly names workloads, and that is never evidence"),
        false => check.note("no issuer of the bundle has this trust domain, byte for byte"),
    }
}

/// Several issuers may have one URL, told apart by their audience.
fn once(urls: impl Iterator<Item = String>) -> Vec<String> {
    urls.collect::<BTreeSet<_>>().into_iter().take(ISSUERS_MAX).collect()
}

fn unknown(jws: &Jws, bundle: &Bundle, own_issuer: &str) -> Check {
    let url = jws.unverified_issuer();
    if let Some(id) = unverified_subject(jws).and_then(SpiffeId::parse)
        && (id.trust_domain() == bundle.trust_domain || url.is_none())
    {
        return unknown_id(id, bundle);
    }
    let workloads = bundle.issuers.values().filter(|issuer| issuer.kind == IssuerKind::Workload);
    let known = once(workloads.filter(|issuer| !issuer.disabled).map(|issuer| told(&issuer.url)));
    let seen = url.map(told).or_else(|| jws.unverified_claims().get("iss").map(written));
    let check = Check::new("iss", seen, known, false);
    let of_this = |issuer: &&Issuer| url == Some(&*issuer.url);
    match (url, bundle.issuers.values().find(of_this)) {
        (None, _) => check.note("`iss` is missing or no string"),
        (Some(url), _) if url == own_issuer => check.note("Dayfly issued this itself, and that is never evidence"),
        (_, Some(issuer)) if issuer.kind != IssuerKind::Workload => {
            check.note(format!("the issuer `{}` can only authenticate introspection", issuer.name))
        }
        (_, Some(issuer)) => check.note(format!("the issuer `{}`, or its owner, is disabled", issuer.name)),
        (_, None) => check.note("no issuer of the bundle has this URL, byte for byte"),
    }
}

fn typ(seen: Option<&str>, issuer: &Issuer) -> Check {
    let named = |typ: &String| if typ.is_empty() { "(absent)".to_owned() } else { told(typ) };
    // As the gate has it: an empty one is not an absent one.
    let ok = seen != Some("") && issuer.typ.iter().any(|typ| typ == seen.unwrap_or_default());
    Check::new("typ", seen.map(told), issuer.typ.iter().map(named).collect(), ok)
}

fn audience(claims: &Map<String, Value>, issuer: &Issuer) -> Check {
    let (seen, one) = match claims.get("aud") {
        None => (None, None),
        Some(Value::String(text)) => (Some(told(text)), Some(text.as_str())),
        Some(Value::Array(members)) => {
            let texts: Vec<_> = members.iter().filter_map(Value::as_str).collect();
            let one = if let [one] = texts.as_slice() { Some(*one).filter(|_| members.len() == 1) } else { None };
            (Some(told(&texts.join(", "))), one)
        }
        Some(other) => (Some(written(other)), None),
    };
    let check = Check::new("aud", seen, vec![told(&issuer.audience)], one == Some(&*issuer.audience));
    if check.ok { check } else { check.note("exactly this one, byte for byte") }
}

fn times(claims: &Map<String, Value>, profile: &Profile, now: UnixMs) -> Vec<Check> {
    let now_s = now.as_s();
    let seconds = |name: &str| match name {
        "iat" => issued_at_s(claims, profile.float_iat),
        name => claims.get(name).and_then(Value::as_i64).filter(|seconds| *seconds >= 0),
    };
    let shown = |seconds: i64| UnixMs::from_s(seconds).to_string();
    let at = |name: &str, ok: fn(i64, i64, i64) -> bool, limit: i64, note: fn(i64, i64) -> String| {
        let seen = seconds(name);
        let good = seen.is_some_and(|seen| ok(seen, now_s, limit));
        let there = || claims.get(name).map(written);
        let check = Check::new(name, seen.map(shown).or_else(there), Vec::new(), good);
        match seen {
            _ if good => check,
            Some(seen) => check.note(note(seen, now_s)),
            None => check.note(format!("`{name}` is missing or no number of seconds")),
        }
    };
    let max_age = i64::from(profile.max_age.as_s());
    let mut checks = vec![
        at(
            "exp",
            |exp, now, ahead| now < exp && exp <= now.saturating_add(ahead),
            MAX_AHEAD_S.into(),
            |exp, now| match now - exp {
                ahead if ahead < 0 => format!("lives for another {} s; {MAX_AHEAD_S} s is the most", -ahead),
                since => format!("expired since {since} s"),
            },
        ),
        at(
            "iat",
            |iat, now, max_age| now - iat <= max_age && iat <= now + i64::from(LEEWAY_S),
            max_age,
            |iat, now| match now - iat {
                ahead if ahead < 0 => format!("issued {} s ahead of the broker's clock", -ahead),
                age => format!("issued {age} s ago"),
            },
        ),
    ];
    if let Some(iat) = checks.last_mut() {
        iat.wanted.push(format!("no older than {}", profile.max_age));
    }
    if claims.contains_key("nbf") {
        let early = |nbf: i64, now: i64| format!("not valid for another {} s", nbf - now);
        checks.push(at("nbf", |nbf, now, _| nbf <= now + i64::from(LEEWAY_S), 0, early));
    }
    checks
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::*;

    const NOW: UnixMs = UnixMs::from_s(1_800_000_000);
    const OWN: &str = "https://broker.example.org";

    fn bundle() -> Bundle {
        let text = r#"
            format = 1
            trust_domain = "example.org"
            [owner.team]
            [issuer.github]
            profile = "github"
            owner = "team"
            pin = { repository_owner_id = "4411" }
            [issuer.off]
            profile = "oidc"
            owner = "team"
            url = "https://off.example"
            disabled = true
        "#;
        let file = crate::sys::files::SourceFile { path: "a.toml".into(), bytes: text.into() };
        let env =
            crate::policy::BundleEnv { issuer_url: OWN.into(), broker_binding: dayfly_domain::BindingKind::Bearer };
        let none = |path: &str| Err(std::io::Error::other(path.to_owned()));
        crate::policy::parse(&[file], &env, &mut { none }).unwrap().0
    }

    fn good() -> Value {
        json!({
            "iss": "https://token.actions.githubusercontent.com", "aud": OWN, "sub": "s", "jti": "j",
            "iat": 1_800_000_000 - 5, "nbf": 1_800_000_000 - 5, "exp": 1_800_000_000 + 300,
            "repository_id": "88120", "repository_owner_id": "4411", "event_name": "push",
        })
    }

    fn looked(claims: &Value) -> Vec<Check> {
        headed(&json!({ "alg": "RS256", "typ": "JWT", "kid": "k" }), claims)
    }

    fn headed(header: &Value, claims: &Value) -> Vec<Check> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        look(&format!("{}.{}.c2ln", part(header), part(claims)), &bundle(), OWN, NOW)
    }

    #[test]
    fn an_empty_typ_is_not_an_absent_one() {
        let ok = |header: Value| headed(&header, &good()).iter().all(|check| check.ok);
        assert!(ok(json!({ "alg": "RS256", "kid": "k" })));
        assert!(!ok(json!({ "alg": "RS256", "typ": "", "kid": "k" })));
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = good();
        claims[name] = value;
        claims
    }

    #[test]
    fn a_token_that_has_everything_fails_no_check() {
        let checks = looked(&good());
        assert!(checks.iter().all(|check| check.ok), "{checks:#?}");
        let names: Vec<_> = checks.iter().map(|check| check.what.as_str()).collect();
        assert_eq!(names, ["iss", "alg", "typ", "aud", "exp", "iat", "nbf", "pin repository_owner_id"]);
    }

    #[test]
    fn what_is_wrong_is_shown_beside_what_is_wanted() {
        for (claims, what, seen, wanted, note) in [
            (
                with("iss", json!("https://evil.example")),
                "iss",
                "https://evil.example",
                "githubusercontent",
                "byte for byte",
            ),
            (
                with("iss", json!("https://off.example")),
                "iss",
                "https://off.example",
                "githubusercontent",
                "is disabled",
            ),
            (with("iss", json!(OWN)), "iss", OWN, "githubusercontent", "issued this itself"),
            (with("aud", json!("https://other.example")), "aud", "https://other.example", OWN, "exactly"),
            (with("aud", json!([OWN, "x"])), "aud", &format!("{OWN}, x"), OWN, "exactly"),
            (with("exp", json!(1_800_000_000 - 192)), "exp", "2027-01-15T07:56:48Z", "", "expired since 192 s"),
            (with("exp", json!(1_800_000_000 + 86_401)), "exp", "2027-01-16T08:00:01Z", "", "another 86401 s"),
            (with("iat", json!(1_800_000_000 - 3_600)), "iat", "2027-01-15T07:00:00Z", "no older than", "3600 s ago"),
            (with("iat", json!(1_800_000_000 + 90)), "iat", "2027-01-15T08:01:30Z", "no older than", "90 s ahead"),
            (with("nbf", json!(1_800_000_000 + 90)), "nbf", "2027-01-15T08:01:30Z", "", "another 90 s"),
            (with("repository_owner_id", json!("666")), "pin repository_owner_id", "666", "4411", ""),
            (with("repository_id", json!(7)), "repository_id", "7", "", "of another type"),
            (with("aud", json!(7)), "aud", "7", OWN, "exactly"),
            (with("exp", json!("soon")), "exp", "\"soon\"", "", "no number"),
            (with("repository_owner_id", json!(4411)), "pin repository_owner_id", "4411", "4411", ""),
            (with("repository_id", json!("a/b")), "principal", "", "repository_id", "cannot stand in a principal"),
        ] {
            let checks = looked(&claims);
            let bad: Vec<_> = checks.iter().filter(|check| !check.ok).collect();
            let [check] = bad.as_slice() else { panic!("{what}: {bad:#?}") };
            assert_eq!((check.what.as_str(), check.seen.as_deref().unwrap_or_default()), (what, seen));
            assert!(check.wanted.join(" ").contains(wanted), "{check:?}");
            assert!(check.note.as_deref().unwrap_or_default().contains(note), "{check:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_not_quoted() {
        for text in ["dtc_secret", "eyJ.eyJ.x", "", "a b c"] {
            let checks = look(text, &bundle(), OWN, NOW);
            assert_eq!((checks.len(), checks[0].what.as_str(), checks[0].ok), (1, "form", false));
            assert!(text.is_empty() || !format!("{checks:?}").contains(text));
        }
    }
}
