//! A bundle's text as it is written: the tables of many files, merged by name.
//!
//! Unknown keys are errors everywhere.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml_datetime::Date;

use super::{Problem, Segment};
use crate::{BindingKind, ClaimType, ClaimValue, KeyKind, Name, Span, SubjectKind, Verifies};

/// One TOML file of a bundle.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub format: Option<u32>,
    pub trust_domain: Option<String>,
    #[serde(default)]
    pub owner: BTreeMap<Name, OwnerTable>,
    #[serde(default)]
    pub issuer: BTreeMap<Name, IssuerTable>,
    #[serde(default)]
    pub target: BTreeMap<Name, TargetTable>,
    #[serde(default)]
    pub task: BTreeMap<Name, TaskTable>,
    #[serde(default)]
    pub profile: BTreeMap<Name, ProfileTable>,
    #[serde(default)]
    pub leaf: BTreeMap<Name, LeafTable>,
    #[serde(default)]
    pub blocked_keys: Vec<String>,
    #[serde(default)]
    pub test: Vec<TestTable>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerTable {
    pub contact: Option<String>,
    pub escalation: Option<String>,
    #[serde(default)]
    pub disabled: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KindWord {
    #[default]
    Workload,
    Verifier,
    Operator,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerTable {
    pub profile: Name,
    pub owner: Name,
    #[serde(default)]
    pub kind: KindWord,
    pub url: Option<String>,
    pub keys: Option<KeysTable>,
    pub review: Option<ReviewTable>,
    pub audience: Option<String>,
    #[serde(default)]
    pub pin: BTreeMap<String, Scalar>,
    pub typ: Option<Vec<String>>,
    pub algs: Option<Vec<String>>,
    #[serde(default)]
    pub claims: BTreeMap<String, ClaimTable>,
    #[serde(default)]
    pub disabled: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysTable {
    pub discovery: Option<bool>,
    pub jwks_file: Option<String>,
    /// A SPIFFE trust bundle, in a file.
    pub spiffe_bundle: Option<String>,
    /// The same, at an `https_web` endpoint.
    pub spiffe_bundle_url: Option<String>,
    pub ca_file: Option<String>,
    #[serde(default)]
    pub allow_private: bool,
}

/// Where the platform is asked whether a token's workload still exists.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewTable {
    pub url: String,
    pub token_file: String,
    pub ca_file: Option<String>,
    #[serde(default)]
    pub allow_private: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetTable {
    pub uri: String,
    pub environment: Name,
    pub owner: Name,
    pub binding: BindingKind,
    pub verifies: Verifies,
    pub actions: Vec<String>,
    /// Of `actions`, those that change nothing.
    #[serde(default)]
    pub reads: Vec<String>,
    pub max_ttl: Option<Span>,
    pub cache: Option<Span>,
    pub leeway: Option<Span>,
    pub list_life: Option<Span>,
    pub accept_unrevocable: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub verifier: Vec<VerifierTable>,
    #[serde(default)]
    pub disabled: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifierTable {
    pub issuer: Name,
    #[serde(default)]
    pub claims: BTreeMap<String, Wanted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExplainWord {
    Operator,
    Caller,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskTable {
    pub purpose: String,
    pub owner: Name,
    pub grants: BTreeMap<Name, Vec<String>>,
    pub ttl: Span,
    pub review_by: Date,
    pub deadline: Option<Span>,
    pub explain: Option<ExplainWord>,
    pub per_job: Option<u32>,
    pub keys_per_job: Option<u32>,
    pub grace: Option<Span>,
    pub serves: Option<Vec<String>>,
    pub leaf: Option<Name>,
    #[serde(default)]
    pub disabled: bool,
    #[serde(default)]
    pub allow: Vec<RowTable>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowTable {
    pub id: Name,
    pub issuer: Name,
    pub claims: BTreeMap<String, Wanted>,
    pub ttl: Option<Span>,
    pub owner: Option<Name>,
    pub review_by: Option<Date>,
    #[serde(default)]
    pub untrusted: bool,
    #[serde(default)]
    pub disabled: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileTable {
    pub url: Option<String>,
    /// Other forms of the issuer's URL, with placeholders.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Forms that only a server of one customer's own has: never shared.
    #[serde(default)]
    pub own_urls: Vec<String>,
    pub algs: Vec<String>,
    pub typ: Option<Vec<String>>,
    #[serde(default)]
    pub shared: bool,
    #[serde(default)]
    pub pin: Vec<String>,
    pub max_age: Option<Span>,
    #[serde(default)]
    pub float_iat: bool,
    /// Audiences that tokens of the platform have without being asked for.
    #[serde(default)]
    pub never_audience: Vec<String>,
    pub principal: Vec<String>,
    #[serde(default)]
    pub job: Vec<String>,
    #[serde(default)]
    pub untrusted: Vec<BTreeMap<String, Wanted>>,
    /// With the reason's code under `code`.
    #[serde(default)]
    pub refuse: Vec<BTreeMap<String, Wanted>>,
    /// What must be so, with the reason's code under `code`.
    #[serde(default)]
    pub require: Vec<BTreeMap<String, Wanted>>,
    /// Claims that must be there and equal.
    #[serde(default)]
    pub same: Vec<Vec<String>>,
    #[serde(default)]
    pub lint: LintTable,
    /// Of an answered TokenReview's `status.user`: a JSON pointer, and the claim that says the same.
    #[serde(default)]
    pub review: BTreeMap<String, String>,
    pub claims: BTreeMap<String, ClaimTable>,
}

/// What a certificate may look like.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeafTable {
    pub keys: Vec<KeyKind>,
    pub subject: Option<SubjectKind>,
    pub backdate: Option<Span>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimTable {
    pub at: String,
    /// Where it stood in older tokens.
    #[serde(default)]
    pub formerly: Vec<String>,
    /// All that it can be, each with the number that also stands for it.
    #[serde(default)]
    pub words: BTreeMap<String, i64>,
    #[serde(rename = "type")]
    pub kind: ClaimType,
    #[serde(default)]
    pub required: bool,
    #[serde(default)]
    pub revocable: bool,
    pub segment: Option<Segment>,
    /// Compared without regard to ASCII case.
    #[serde(default)]
    pub fold: bool,
    /// A name or free text: it can be changed, or taken by someone else.
    #[serde(default)]
    pub mutable: bool,
    /// This is a name; the claim named here is the id that stays.
    pub id: Option<String>,
    /// All that the platform sends, where that is known; for lints alone.
    #[serde(default)]
    pub one_of: Vec<String>,
    /// What every value begins with, where that is known; for lints alone.
    pub prefix: Option<String>,
}

/// Which claims say what a lint asks about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LintTable {
    #[serde(default)]
    pub environment: Vec<String>,
    #[serde(default)]
    pub protected: Vec<String>,
    #[serde(default)]
    pub phase: Vec<String>,
    #[serde(default)]
    pub moving: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpectWord {
    Permit,
    Deny,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestTable {
    pub name: String,
    pub issuer: Name,
    pub claims: BTreeMap<String, ClaimValue>,
    pub task: Name,
    pub target: Option<Name>,
    pub ttl: Option<Span>,
    pub binding: Option<BindingKind>,
    pub untrusted: Option<bool>,
    pub expect: ExpectWord,
    pub row: Option<Name>,
    pub reason: Option<String>,
}

/// One value of a claim, as TOML types it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a string, a whole number, `true` or `false`")]
pub enum Scalar {
    Bool(bool),
    Long(i64),
    String(String),
}

/// What a claim must equal: a value, or one of a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a string, a whole number, `true` or `false`, or a list of them")]
pub enum Wanted {
    One(Scalar),
    Any(Vec<Scalar>),
}

impl Wanted {
    pub fn values(&self) -> &[Scalar] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Any(values) => values,
        }
    }
}

/// A table and the file that holds it.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    pub path: String,
    pub table: T,
}

/// All tables of a bundle.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    pub format: Option<Placed<u32>>,
    pub trust_domain: Option<Placed<String>>,
    pub owners: BTreeMap<Name, Placed<OwnerTable>>,
    pub issuers: BTreeMap<Name, Placed<IssuerTable>>,
    pub targets: BTreeMap<Name, Placed<TargetTable>>,
    pub tasks: BTreeMap<Name, Placed<TaskTable>>,
    pub profiles: BTreeMap<Name, Placed<ProfileTable>>,
    pub leaves: BTreeMap<Name, Placed<LeafTable>>,
    pub blocked_keys: Vec<Placed<String>>,
    pub tests: Vec<Placed<TestTable>>,
    /// Profiles that came with the program.
    pub builtin: Vec<Name>,
    /// What stood twice.
    pub problems: Vec<Problem>,
}

impl Tables {
    /// Adds a file. What stands twice is a problem that names both files; the first stays.
    pub fn merge(&mut self, path: &str, file: File) {
        let twice = &mut self.problems;
        put_once(&mut self.format, twice, path, "format", file.format);
        put_once(&mut self.trust_domain, twice, path, "trust_domain", file.trust_domain);
        put(&mut self.owners, twice, path, "owner", file.owner);
        put(&mut self.issuers, twice, path, "issuer", file.issuer);
        put(&mut self.targets, twice, path, "target", file.target);
        put(&mut self.tasks, twice, path, "task", file.task);
        put(&mut self.profiles, twice, path, "profile", file.profile);
        put(&mut self.leaves, twice, path, "leaf", file.leaf);
        self.blocked_keys.extend(file.blocked_keys.into_iter().map(|table| Placed { path: path.into(), table }));
        self.tests.extend(file.test.into_iter().map(|table| Placed { path: path.into(), table }));
    }

    /// Adds a profile that is compiled in. Comes before the bundle's own files.
    pub fn merge_builtin(&mut self, path: &str, file: File) {
        self.builtin.extend(file.profile.keys().cloned());
        self.merge(path, file);
    }

    /// The files that the tables name, as written: pinned key sets and CA certificates.
    pub fn extra_files(&self) -> Vec<Extra<'_>> {
        let mut files = Vec::new();
        for (name, Placed { path, table }) in &self.issuers {
            let review = table.review.iter().filter_map(|review| review.ca_file.as_ref());
            files.extend(review.map(|file| Extra {
                path,
                at: format!("issuer.{name}.review.ca_file"),
                file,
                jwks: false,
            }));
            let Some(keys) = &table.keys else { continue };
            let one = |key, file| Extra { path, at: format!("issuer.{name}.keys.{key}"), file, jwks: key != "ca_file" };
            files.extend(keys.jwks_file.iter().map(|file| one("jwks_file", file)));
            files.extend(keys.spiffe_bundle.iter().map(|file| one("spiffe_bundle", file)));
            files.extend(keys.ca_file.iter().map(|file| one("ca_file", file)));
        }
        files
    }
}

/// A file that a table names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra<'a> {
    /// The file of the table.
    pub path: &'a str,
    pub at: String,
    /// As written.
    pub file: &'a str,
    /// A JWK Set (a SPIFFE trust bundle is one), otherwise PEM.
    pub jwks: bool,
}

fn put_once<T>(slot: &mut Option<Placed<T>>, twice: &mut Vec<Problem>, path: &str, key: &str, value: Option<T>) {
    let Some(table) = value else { return };
    match slot {
        Some(first) => {
            let what = format!("`{key}` stands once in a bundle, and is already in `{}`", first.path);
            twice.push(Problem::new(path, key, what));
        }
        None => *slot = Some(Placed { path: path.into(), table }),
    }
}

fn put<T>(
    all: &mut BTreeMap<Name, Placed<T>>,
    twice: &mut Vec<Problem>,
    path: &str,
    kind: &str,
    tables: BTreeMap<Name, T>,
) {
    for (name, table) in tables {
        if let Some(first) = all.get(&name) {
            let what = format!("`{kind}.{name}` is already defined in `{}`", first.path);
            twice.push(Problem::new(path, format!("{kind}.{name}"), what).help("choose another name"));
        } else {
            all.insert(name, Placed { path: path.into(), table });
        }
    }
}
