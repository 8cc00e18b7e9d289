//! A trust bundle whose tables passed every check: who is believed, what they may do, for how
//! long, and who answers for it. Made by `tables` (the text as written) through `check`.

mod bundle_tests;
mod check;
mod claim;
mod forms;
mod issuers;
mod leaves;
mod lint;
mod problem;
mod profiles;
mod punycode;
pub mod tables;
mod targets;
mod tasks;
mod uri;

pub use check::{Surroundings, check};
pub use forms::UrlForm;
pub use lint::{Cut, LINTS, LintRow, PRODUCTION, Reach, Rule, Why, example_ids, lints, overdue_lints, written};
pub use problem::{Lint, Problem};
pub use tasks::{BEAT, GRACE, GRACE_LEAST, GRACE_MOST};

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::Deserialize;
use time::Date;

use crate::{
    BindingKind, BundlePart, ClaimType, ClaimValue, KeyKind, Name, Span, SubjectKind, UnixMs, Verifies,
    spiffe::{self, SpiffeId},
};

/// Longest life of what cannot be revoked, unless the target accepts more and says why.
pub const UNREVOCABLE_MAX_TTL: Span = Span::seconds(900);

/// Name of the built-in target, its environment and its owner.
pub const BROKER: &str = "broker";

/// What the built-in target can be asked for.
pub const BROKER_ACTIONS: [&str; 7] =
    ["tasks:read", "tasks:end", "leases:read", "leases:end", "ledger:read", "introspect", "broker:operate"];

/// An action of a target, `[a-z0-9][a-z0-9:._-]{0,63}`.
pub type Action = Arc<str>;

/// SHA-256 over the bundle's sorted list of path and content hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The whole bundle. Everything named exists; `disabled` already includes a disabled owner.
#[derive(Debug, Clone)]
pub struct Bundle {
    pub trust_domain: String,
    pub fingerprint: Fingerprint,
    pub owners: BTreeMap<Name, Owner>,
    /// The built-in profiles and the bundle's own.
    pub profiles: BTreeMap<Name, Profile>,
    pub issuers: BTreeMap<Name, Issuer>,
    /// With the built-in target `broker`.
    pub targets: BTreeMap<Name, Target>,
    pub templates: BTreeMap<Name, Template>,
    /// Keys that no certificate is for: base64url of SHA-256 over their SubjectPublicKeyInfo.
    pub blocked_keys: BTreeSet<String>,
    pub tests: Vec<BundleTest>,
    pub cedar: Vec<CedarFile>,
    /// All of it as it was read, what the fingerprint is of; whoever read it puts it here.
    pub files: Vec<BundleFile>,
}

/// One file of a bundle as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct BundleFile {
    pub part: BundlePart,
    /// As it stands in the fingerprint.
    pub path: String,
    pub bytes: Arc<[u8]>,
}

impl fmt::Debug for BundleFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`, {} bytes", self.part, self.path, self.bytes.len())
    }
}

#[derive(Debug, Clone)]
pub struct Owner {
    pub contact: Option<String>,
    pub escalation: Option<String>,
    pub disabled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuerKind {
    Workload,
    Verifier,
}

/// Where an issuer's public keys come from. File contents are read with the bundle and count in
/// its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// `{url}/.well-known/openid-configuration`, then its `jwks_uri`; https only.
    Discovery { ca_pem: Option<Arc<[u8]>>, allow_private: bool },
    /// A pinned JWK Set.
    Pinned { jwks: Arc<[u8]> },
    /// A pinned SPIFFE trust bundle: its keys for JWT-SVIDs.
    TrustBundle { bundle: Arc<[u8]> },
    /// The same from a bundle endpoint of profile `https_web`.
    BundleEndpoint { url: Arc<str>, ca_pem: Option<Arc<[u8]>>, allow_private: bool },
}

/// Where the platform is asked whether a token's workload still exists: an API server's TokenReview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// `https`, without path.
    pub url: Arc<str>,
    /// The broker's own token for that API, read anew for each review.
    pub token_file: Arc<str>,
    pub ca_pem: Option<Arc<[u8]>>,
    pub allow_private: bool,
}

#[derive(Debug, Clone)]
pub struct Issuer {
    pub name: Name,
    pub profile: Name,
    pub owner: Name,
    pub kind: IssuerKind,
    /// Byte-equal to the token's `iss`.
    pub url: Arc<str>,
    pub keys: KeySource,
    pub review: Option<Review>,
    /// Byte-equal to the token's one `aud`.
    pub audience: Arc<str>,
    /// Claims that make a shared issuer's token ours.
    pub pin: BTreeMap<String, ClaimValue>,
    /// Accepted `typ` headers; `""` is an absent one.
    pub typ: Vec<String>,
    /// JWS algorithms, e.g. `RS256`.
    pub algs: Vec<String>,
    /// The profile's claims and the issuer's own.
    pub claims: BTreeMap<String, ClaimRule>,
    pub disabled: bool,
}

#[derive(Debug, Clone)]
pub struct Target {
    pub name: Name,
    /// The `aud`: absolute, no fragment, compared byte by byte.
    pub uri: Arc<str>,
    pub environment: Name,
    pub owner: Name,
    pub binding: BindingKind,
    pub verifies: Verifies,
    pub actions: BTreeSet<Action>,
    /// Those that change nothing; every other writes.
    pub reads: BTreeSet<Action>,
    pub max_ttl: Span,
    pub cache: Span,
    pub leeway: Span,
    /// Where it verifies by list: how long after a list was signed a server may still go by it.
    pub list_life: Span,
    pub accept_unrevocable: Option<String>,
    /// Words that policies may speak of it by, spelt like actions.
    pub tags: BTreeSet<Arc<str>>,
    pub verifiers: Vec<VerifierRow>,
    pub disabled: bool,
    /// The broker itself.
    pub builtin: bool,
}

/// Who may introspect for a target (used from part 2).
#[derive(Debug, Clone)]
pub struct VerifierRow {
    pub issuer: Name,
    pub claims: BTreeMap<String, Vec<ClaimValue>>,
}

#[derive(Debug, Clone)]
pub struct Template {
    pub name: Name,
    pub purpose: String,
    pub owner: Name,
    /// By target; all in one environment.
    pub grants: BTreeMap<Name, BTreeSet<Action>>,
    pub environment: Name,
    /// Default and longest life of a credential.
    pub ttl: Span,
    /// How long the task may go on getting credentials.
    pub deadline: Span,
    pub review_by: Date,
    /// Live tasks of this template in one job.
    pub per_job: u32,
    /// Distinct keys that tasks of this template in one job may be bound to; `None`: any number.
    pub keys_per_job: Option<u32>,
    /// How long after its last beat a task that has beaten ends.
    pub grace: Span,
    /// DNS names under which the task serves: what a certificate of it names beside the workload.
    pub serves: Vec<String>,
    /// What a certificate of it looks like.
    pub leaf: Arc<Leaf>,
    /// A refusal carries the caller's own claims beside the nearest row (`explain = "caller"`).
    pub explains_to_caller: bool,
    pub rows: Vec<Row>,
    pub disabled: bool,
}

/// What a certificate may look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub name: Name,
    pub keys: BTreeSet<KeyKind>,
    pub subject: SubjectKind,
    /// How far the clocks of servers may be behind.
    pub backdate: Span,
}

/// One entitlement. `id` is unique in the whole bundle, with the ids of the Cedar policies.
#[derive(Debug, Clone)]
pub struct Row {
    pub id: Name,
    pub issuer: Name,
    /// Each claim equals one of its values (a set claim: contains one of them).
    pub claims: BTreeMap<String, Vec<ClaimValue>>,
    /// At most the template's.
    pub ttl: Span,
    pub owner: Name,
    pub review_by: Date,
    pub untrusted: bool,
    pub disabled: bool,
}

/// How a platform's tokens are read. A provider is data, never code.
#[derive(Debug, Clone)]
pub struct Profile {
    pub name: Name,
    pub builtin: bool,
    pub url: Option<String>,
    /// Other forms that the issuer's URL may have.
    pub urls: Vec<UrlForm>,
    /// Forms that only a server of one customer's own has: never shared.
    pub own_urls: Vec<UrlForm>,
    pub algs: Vec<String>,
    pub typ: Vec<String>,
    /// Many customers behind one issuer URL: an issuer must pin one of `pin`.
    pub shared: bool,
    pub pin: Vec<String>,
    /// From `iat`.
    pub max_age: Span,
    /// `iat` may be written as a float, such as `1.7e9`; a fraction of a second is dropped.
    pub float_iat: bool,
    /// Audiences that tokens of the platform have without being asked for: no issuer has one of them.
    pub never_audience: Vec<String>,
    pub principal: Vec<String>,
    pub job: Vec<String>,
    pub untrusted: Vec<ClaimMatch>,
    pub refuse: Vec<Refusal>,
    /// What must be so: evidence without it is refused.
    pub require: Vec<Refusal>,
    /// Claims that must be there and equal; otherwise `E-EVENT`.
    pub same: Vec<Vec<String>>,
    pub lint: Roles,
    /// Of an answered TokenReview's `status.user`: a JSON pointer, and the claim that says the same.
    /// Empty: no issuer of this profile has a review.
    pub review: BTreeMap<String, String>,
    pub claims: BTreeMap<String, ClaimRule>,
}

/// All of these claims have one of their values.
pub type ClaimMatch = BTreeMap<String, Vec<ClaimValue>>;

#[derive(Debug, Clone)]
pub struct Refusal {
    pub when: ClaimMatch,
    /// A code of the table of reasons, e.g. `E-EVENT`.
    pub code: String,
}

#[derive(Debug, Clone)]
pub struct ClaimRule {
    /// RFC 6901 JSON pointer into the payload. A `*` stands for every member of an object, and the
    /// claim for what they have in common.
    pub at: String,
    /// Where the same claim stood in older tokens. It is in one of these places, never in two.
    pub formerly: Vec<String>,
    /// All that the claim can be, each with the number that also stands for it; empty: anything.
    pub words: BTreeMap<String, i64>,
    pub kind: ClaimType,
    pub required: bool,
    pub revocable: bool,
    pub segment: Option<Segment>,
    /// Compared without regard to ASCII case: lower-cased here, in rows and in pins.
    pub fold: bool,
    /// A name or free text: it can be changed, or taken by someone else.
    pub mutable: bool,
    /// This is a name; the claim named here is the id that stays.
    pub id: Option<String>,
    /// All that the platform sends, where that is known; for lints alone.
    pub one_of: Vec<String>,
    /// What every value begins with, where that is known; for lints alone.
    pub prefix: Option<String>,
}

impl ClaimRule {
    /// A claim of this type and nothing else that is said of it.
    pub fn of(kind: ClaimType) -> Self {
        Self {
            at: String::new(),
            formerly: Vec::new(),
            words: BTreeMap::new(),
            kind,
            required: false,
            revocable: false,
            segment: None,
            fold: false,
            mutable: false,
            id: None,
            one_of: Vec::new(),
            prefix: None,
        }
    }

    /// Whether `text` can be a part of a principal's name, in an issuer of this trust domain.
    pub fn can_name(&self, text: &str, trust_domain: Option<&str>) -> bool {
        match self.segment {
            Some(Segment::Hash128) => true,
            Some(Segment::StripBraces) => {
                let bare = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                spiffe::is_segment(bare.unwrap_or(text))
            }
            Some(Segment::SpiffePath) => {
                let id = SpiffeId::parse(text).filter(|id| Some(id.trust_domain()) == trust_domain);
                id.is_some_and(|id| id.path().rsplit('/').next() != Some("untrusted"))
            }
            None => spiffe::is_segment(text),
        }
    }

    /// The object whose every member a `*` stands for, and the place below each of them. A `*` is a
    /// whole part of a pointer: in `/x/*foo` it is a letter of a name.
    // SECURITY: `a_star_means_the_same_to_loader_and_reader`.
    pub fn each(pointer: &str) -> Option<(&str, &str)> {
        let whole = |at: &usize| matches!(pointer.as_bytes().get(at + 2), None | Some(b'/'));
        let at = pointer.match_indices("/*").map(|(at, _)| at).find(whole)?;
        Some((&pointer[..at], &pointer[at + 2..]))
    }

    /// All places where it may stand.
    pub fn pointers(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.at).chain(&self.formerly).map(String::as_str)
    }
}

/// Which claims say what a lint asks about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    /// Which environment the job deploys to, where the platform guards who may say so.
    pub environment: Vec<String>,
    /// Booleans: `true` where the platform lets only some people change what runs.
    pub protected: Vec<String>,
    /// Which phase of a run this is; the phase that only plans is `untrusted`.
    pub phase: Vec<String>,
    /// Claims that name code by a ref, with the claim that says its commit.
    pub moving: BTreeMap<String, String>,
}

/// How a claim becomes a segment of a principal when its characters do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// First 16 bytes of SHA-256, hex.
    Hash128,
    StripBraces,
    /// The path of a SPIFFE ID, segment by segment.
    SpiffePath,
}

#[derive(Debug, Clone)]
pub struct BundleTest {
    pub name: String,
    pub issuer: Name,
    /// Raw JSON values by the *profile's* names for the claims.
    pub claims: BTreeMap<String, ClaimValue>,
    pub task: Name,
    pub target: Option<Name>,
    pub ttl: Option<Span>,
    pub binding: Option<BindingKind>,
    pub untrusted: Option<bool>,
    pub expect: Expect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    Permit { row: Option<Name> },
    Deny { reason: Option<String> },
}

#[derive(Debug, Clone)]
pub struct CedarFile {
    pub path: String,
    pub text: String,
}

impl Issuer {
    /// The SPIFFE trust domain whose JWT-SVIDs these are. Absent: tokens say by `iss` whose they are.
    pub fn trust_domain(&self) -> Option<&str> {
        match self.keys {
            KeySource::TrustBundle { .. } | KeySource::BundleEndpoint { .. } => self.url.strip_prefix(spiffe::SCHEME),
            KeySource::Discovery { .. } | KeySource::Pinned { .. } => None,
        }
    }
}

impl Target {
    /// Longest life of a credential that the target takes: its `max_ttl`, and 15 minutes where
    /// nobody could revoke it and nobody accepted that.
    pub fn longest_ttl(&self) -> Span {
        match (self.verifies, &self.accept_unrevocable) {
            (Verifies::ExpOnly, None) => self.max_ttl.min(UNREVOCABLE_MAX_TTL),
            _ => self.max_ttl,
        }
    }
}

impl Profile {
    /// Whether an issuer of this profile may have that URL. A profile without a URL takes any.
    pub fn is_at(&self, url: &str) -> bool {
        let anywhere = self.url.is_none() && self.forms().next().is_none();
        anywhere || self.url.as_deref() == Some(url) || self.forms().any(|form| form.fits(url))
    }

    /// Whether many customers share the issuer with that URL.
    pub fn is_shared_at(&self, url: &str) -> bool {
        self.shared && (self.is_common(url) || !self.own_urls.iter().any(|form| form.fits(url)))
    }

    /// Whether all customers of this platform have that URL, whatever profile an issuer names.
    pub fn shares(&self, url: &str) -> bool {
        self.shared && self.is_common(url)
    }

    fn is_common(&self, url: &str) -> bool {
        self.url.as_deref() == Some(url) || self.urls.iter().any(|form| form.fits(url))
    }

    fn forms(&self) -> impl Iterator<Item = &UrlForm> {
        self.urls.iter().chain(&self.own_urls)
    }
}

impl Bundle {
    /// The longest time anything this bundle allows can live: template deadlines and TTLs.
    pub fn longest_life(&self) -> Span {
        let longest = |template: &Template| template.deadline.max(template.ttl);
        self.templates.values().map(longest).max().unwrap_or_default()
    }

    /// Rows and templates past their review date at `now`.
    pub fn overdue(&self, now: UnixMs) -> impl Iterator<Item = (&Template, &Row)> {
        let today = time::OffsetDateTime::from_unix_timestamp(now.as_s()).map(|at| at.date());
        self.templates
            .values()
            .flat_map(|template| template.rows.iter().map(move |row| (template, row)))
            .filter(move |(_, row)| today.is_ok_and(|today| row.review_by < today))
    }
}
