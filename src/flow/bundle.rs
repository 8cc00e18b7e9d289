//! Where a bundle comes from, and whether it keeps its own promises: read twice, parsed, checked,
//! compiled, and its tests run. A bundle is taken whole or not at all.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use dayfly_domain::{
    BindingKind, BundlePart, ClaimValue, Kind, Reason,
    bundle::{Bundle, BundleTest, ClaimRule, Expect, Issuer, KeySource, Lint, Problem},
};
use dayfly_verifier::KeySet;
use serde_json::{Map, Value};

use crate::{
    intake::{self, ClaimRefusal},
    policy::{self, Ask, BundleEnv, Circumstances, Decision, Policy, What},
    sys::{
        files::{self, SourceFile},
        net,
    },
};

/// A place that a bundle is loaded from, again at every load.
pub trait BundleSource: Send + Sync {
    fn load(&self) -> Result<Loaded, Vec<Problem>>;

    /// Where it really lies, if that can change as a whole: another place is another bundle.
    fn place(&self) -> Option<String> {
        None
    }
}

/// A bundle that may become the current one.
#[derive(Debug)]
pub struct Loaded {
    pub policy: Policy,
    pub lints: Vec<Lint>,
}

/// A folder of `*.toml` and `*.cedar`.
#[derive(Debug, Clone)]
pub struct Folder {
    pub path: PathBuf,
    pub env: BundleEnv,
}

/// A test of the bundle that did not come out as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestFailure {
    pub name: String,
    pub expected: String,
    pub found: String,
}

impl BundleSource for Folder {
    fn load(&self) -> Result<Loaded, Vec<Problem>> {
        let place = self.place();
        let files = self.read()?;
        let (bundle, lints) = self.parse(&files)?;
        if self.place() != place {
            return Err(self.changed());
        }
        Loaded::of(bundle, lints)
    }

    fn place(&self) -> Option<String> {
        Some(files::resolved(&self.path))
    }
}

impl Folder {
    /// The whole folder, once into memory and once more: half a checkout must never be live.
    // SECURITY: `a_bundle_that_changes_while_it_is_read_is_refused`.
    pub fn read(&self) -> Result<Vec<SourceFile>, Vec<Problem>> {
        let read = || files::read_tree(&self.path, &[".toml", ".cedar"]).map_err(|error| self.unreadable(&error));
        let files = read()?;
        if files.is_empty() {
            let what = "there is no `*.toml` file in it";
            return Err(vec![Problem::new(&self.path.display().to_string(), "", what)]);
        }
        if read()? == files {
            return Ok(files);
        }
        Err(self.changed())
    }

    /// The files that tables name are read twice too.
    pub fn parse(&self, files: &[SourceFile]) -> Result<(Bundle, Vec<Lint>), Vec<Problem>> {
        let (bundle, lints) = policy::parse(files, &self.env, &mut |path| read_extra(&self.path, path))?;
        let mut named = bundle.files.iter().filter(|file| file.part == BundlePart::Named);
        let same = named.all(|file| read_extra(&self.path, &file.path).is_ok_and(|bytes| bytes == *file.bytes));
        if same { Ok((bundle, lints)) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Vec<Problem> {
        let what = "the folder changed while it was read";
        vec![Problem::new(&self.path.display().to_string(), "", what).help("load it again")]
    }

    fn unreadable(&self, error: &io::Error) -> Vec<Problem> {
        vec![Problem::new(&self.path.display().to_string(), "", format!("it cannot be read: {error}"))]
    }
}

/// A file that a table names, below the bundle's folder unless the path is absolute.
fn read_extra(top: &Path, path: &str) -> io::Result<Vec<u8>> {
    files::read_capped(&top.join(path))
}

impl Loaded {
    /// Compiles a bundle and runs its tests.
    pub fn of(bundle: Bundle, mut lints: Vec<Lint>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        bundle.issuers.values().for_each(|issuer| pinned_keys(issuer, &mut problems, &mut lints));
        bundle.issuers.values().for_each(|issuer| fetched_from(issuer, &mut problems));
        if !problems.is_empty() {
            return Err(problems);
        }
        let policy = Policy::compile(bundle)?;
        let failures = run_tests(&policy);
        if failures.is_empty() {
            lints.extend(policy.opaque_lints());
            return Ok(Self { policy, lints });
        }
        let problem = |failure: TestFailure| {
            let what = format!("expected {}, found {}", failure.expected, failure.found);
            Problem::new("[[test]]", format!("`{}`", failure.name), what)
        };
        Err(failures.into_iter().map(problem).collect())
    }
}

/// Pinned keys are read when the bundle is: keys under which no token could ever be accepted are
/// a mistake of the bundle, not of whoever presents a token.
fn pinned_keys(issuer: &Issuer, problems: &mut Vec<Problem>, lints: &mut Vec<Lint>) {
    let (keys, key) = match &issuer.keys {
        KeySource::Pinned { jwks } => (KeySet::parse(jwks), "jwks_file"),
        KeySource::TrustBundle { bundle } => (KeySet::of_trust_bundle(bundle), "spiffe_bundle"),
        KeySource::Roots { pem } => return pinned_roots(issuer, pem, problems),
        KeySource::Discovery { .. } | KeySource::BundleEndpoint { .. } => return,
    };
    let at = format!("issuer.{}.keys.{key}", issuer.name);
    let help = "public signing keys, each with its own `kid`: RSA of 2048 to 4096 bits, P-256, P-384 or Ed25519";
    match keys {
        Ok(keys) if keys.is_empty() => {
            problems.push(Problem::new("bundle", at, "it has no usable key").help(help));
        }
        Ok(keys) if keys.dropped() > 0 => {
            let what = format!("{} of its keys cannot be used and count for nothing", keys.dropped());
            lints.push(Lint { at, what, help: Some(help.to_owned()) });
        }
        Ok(_) => {}
        Err(error) => problems.push(Problem::new("bundle", at, error.to_string()).help(help)),
    }
}

// SECURITY: `t_137_only_a_ca_is_a_root`
fn pinned_roots(issuer: &Issuer, pem: &[u8], problems: &mut Vec<Problem>) {
    if let Err(error) = net::roots(pem) {
        let at = format!("issuer.{}.keys.x509_roots", issuer.name);
        let help = "PEM: the CA certificates of the trust domain and nothing else, no leaf among them";
        problems.push(Problem::new("bundle", at, error.to_string()).help(help));
    }
}

/// What could never be fetched is a mistake of the bundle: the fetcher's own rule, before anybody asks.
/// What is disabled keeps no bundle from loading.
fn fetched_from(issuer: &Issuer, problems: &mut Vec<Problem>) {
    let keys = match &issuer.keys {
        KeySource::Discovery { allow_private, .. } => Some(("url", &issuer.url, *allow_private)),
        KeySource::BundleEndpoint { url, allow_private, .. } => Some(("keys.spiffe_bundle_url", url, *allow_private)),
        KeySource::Pinned { .. } | KeySource::TrustBundle { .. } | KeySource::Roots { .. } => None,
    };
    let review = issuer.review.as_ref().map(|review| ("review.url", &review.url, review.allow_private));
    for (key, url, allow_private) in keys.into_iter().chain(review).filter(|_| !issuer.disabled) {
        if let Err(why) = net::check_url(url, allow_private) {
            let at = format!("issuer.{}.{key}", issuer.name);
            problems.push(Problem::new("bundle", at, format!("can never be fetched: {why}")));
        }
    }
}

/// Runs the bundle's own tests: the same reading of claims and the same decision as in earnest.
pub fn run_tests(policy: &Policy) -> Vec<TestFailure> {
    policy.bundle().tests.iter().filter_map(|test| fails(policy, test)).collect()
}

fn fails(policy: &Policy, test: &BundleTest) -> Option<TestFailure> {
    let found = outcome(policy, test);
    let as_expected = match (&test.expect, &found) {
        (Expect::Permit { row }, Found::Permit(by)) => row.as_ref().is_none_or(|row| row == by.as_str()),
        (Expect::Deny { reason }, Found::Deny(code)) => reason.as_ref().is_none_or(|reason| reason == code.code()),
        _ => false,
    };
    let failure =
        || TestFailure { name: test.name.clone(), expected: Shown(&test.expect).to_string(), found: found.to_string() };
    (!as_expected).then(failure)
}

enum Found {
    Permit(String),
    Deny(Reason),
    Broken(&'static str),
}

fn outcome(policy: &Policy, test: &BundleTest) -> Found {
    let bundle = policy.bundle();
    let Some(issuer) = bundle.issuers.get(&test.issuer) else { return Found::Broken("an unknown issuer") };
    let Some(profile) = bundle.profiles.get(&issuer.profile) else { return Found::Broken("an unknown profile") };
    let mut workload = match intake::read(issuer, profile, &payload(issuer, test)) {
        Ok(workload) => workload,
        Err(ClaimRefusal::Stranger) => return Found::Deny(Reason::Stranger),
        Err(ClaimRefusal::Claim(_)) => return Found::Deny(Reason::Claim),
        Err(ClaimRefusal::Refused { reason, .. }) => return Found::Deny(reason),
    };
    workload.untrusted = test.untrusted.unwrap_or(workload.untrusted);
    let (ask, binding) = ask(bundle, test);
    let circumstances = Circumstances { proven: test.binding.unwrap_or(binding), evidence_age_s: 0, held: &[] };
    match policy.decide(&workload, &ask, circumstances) {
        Decision::Permit(grant) => Found::Permit(grant.row().to_string()),
        Decision::Deny(denied) => Found::Deny(denied.reason),
    }
}

/// The target is the test's, or the template's only one; several and none named: the task alone.
fn ask(bundle: &Bundle, test: &BundleTest) -> (Ask, BindingKind) {
    let template = bundle.templates.get(&test.task);
    let only = template.and_then(|template| {
        let mut targets = template.grants.keys();
        targets.next().filter(|_| targets.next().is_none())
    });
    let target = test.target.as_ref().or(only).and_then(|name| bundle.targets.get(name));
    let what = match target {
        Some(target) => What::Credential { kind: Kind::Jwt, resource: Some(target.uri.to_string()), actions: None },
        None => What::TaskOnly,
    };
    let ttl_s = test.ttl.map(|ttl| ttl.as_s());
    let ask = Ask { template: test.task.to_string(), what, ttl_s, ticket: None };
    (ask, target.map_or(BindingKind::Bearer, |target| target.binding))
}

/// A token's payload with the test's claims where the profile looks for them.
fn payload(issuer: &Issuer, test: &BundleTest) -> Map<String, Value> {
    let mut payload = Value::Object(Map::new());
    for (name, value) in &test.claims {
        if let Some(rule) = issuer.claims.get(name) {
            put(&mut payload, rule, raw(value));
        }
    }
    match payload {
        Value::Object(payload) => payload,
        _ => Map::new(),
    }
}

pub(super) fn put(payload: &mut Value, rule: &ClaimRule, value: Value) {
    let mut place = payload;
    for part in rule.at.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[part];
    }
    *place = value;
}

fn raw(value: &ClaimValue) -> Value {
    match value {
        ClaimValue::Bool(value) => (*value).into(),
        ClaimValue::Long(value) => (*value).into(),
        ClaimValue::String(value) => value.as_str().into(),
        ClaimValue::Set(values) => values.clone().into(),
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permit(row) => write!(f, "permit by `{row}`"),
            Self::Deny(reason) => write!(f, "deny with {reason}"),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

struct Shown<'a>(&'a Expect);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expect::Permit { row: Some(row) } => write!(f, "permit by `{row}`"),
            Expect::Permit { row: None } => f.write_str("permit"),
            Expect::Deny { reason: Some(reason) } => write!(f, "deny with {reason}"),
            Expect::Deny { reason: None } => f.write_str("deny"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUNDLE: &str = r#"
format = 1
trust_domain = "example.org"
[owner.team]
[issuer.own]
profile = "oidc"
owner = "team"
url = "https://ci.example.org"
keys = { jwks_file = "keys.json" }
"#;

    fn load(jwks: &str) -> Result<Loaded, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), BUNDLE).unwrap();
        std::fs::write(dir.path().join("keys.json"), jwks).unwrap();
        let env = BundleEnv { issuer_url: "https://dayfly.example".to_owned(), broker_binding: BindingKind::Bearer };
        let loaded = Folder { path: dir.path().to_owned(), env }.load();
        loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_issuer_that_could_never_be_asked_is_refused_with_the_bundle() {
        let load = |url: &str, keys: &str| {
            let text = BUNDLE.replace("https://ci.example.org", url).replace("jwks_file = \"keys.json\"", keys);
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("a.toml"), text).unwrap();
            let env =
                BundleEnv { issuer_url: "https://dayfly.example".to_owned(), broker_binding: BindingKind::Bearer };
            let loaded = Folder { path: dir.path().to_owned(), env }.load();
            loaded.map(drop).map_err(|problems| problems.iter().map(ToString::to_string).collect::<String>())
        };
        let (plain, private) = ("discovery = true", "discovery = true, allow_private = true");
        for host in ["2130706433", "0x7f.1", "a.example:0", "10.0.0.1", "[::1]", "169.254.169.254", "a.example/../b"] {
            let said = load(&format!("https://{host}"), plain).unwrap_err();
            assert!(said.contains("issuer.own.url: can never be fetched"), "{host}: {said}");
        }
        assert!(load("https://169.254.169.254", private).unwrap_err().contains("link-local"));
        assert_eq!(load("https://10.0.0.1", private), Ok(()));
        assert_eq!(load("https://a.example/b", plain), Ok(()));
    }

    fn key(kid: &str, usage: &str) -> String {
        let pkcs8 = dayfly_verifier::crypto::SigningKey::generate_pkcs8().unwrap();
        let key = dayfly_verifier::crypto::SigningKey::from_pkcs8(pkcs8.expose()).unwrap();
        let mut jwk = key.jwk();
        jwk["kid"] = kid.into();
        jwk["use"] = usage.into();
        jwk.to_string()
    }

    #[test]
    fn t_018_pinned_keys_that_cannot_work_are_refused_with_the_bundle() {
        dayfly_verifier::crypto::init().unwrap();
        let (good, other) = (key("a", "sig"), key("b", "enc"));
        assert!(load(&format!(r#"{{"keys":[{good}]}}"#)).unwrap().lints.is_empty());
        let with_one_odd = load(&format!(r#"{{"keys":[{good},{other}]}}"#)).unwrap();
        assert!(with_one_odd.lints.iter().any(|lint| lint.at.contains("issuer.own")), "said, not refused");
        for bad in [format!(r#"{{"keys":[{other}]}}"#), format!(r#"{{"keys":[{good},{}]}}"#, key("a", "sig"))] {
            assert!(load(&bad).unwrap_err().contains("jwks_file"), "{bad}");
        }
    }
}
