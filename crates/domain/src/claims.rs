//! What evidence says about a workload, typed as its profile declares.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::Name;

/// The type a profile gives a claim. `StringBool` and `StringLong` are for platforms that send
/// booleans and numbers as strings; they are read into `Bool` and `Long`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimType {
    String,
    Long,
    Bool,
    Set,
    StringBool,
    StringLong,
}

/// One typed claim. The untagged form is its one form in JSON and TOML.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(untagged)]
pub enum ClaimValue {
    Bool(bool),
    Long(i64),
    String(String),
    Set(Vec<String>),
}

impl fmt::Display for ClaimValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Long(value) => write!(f, "{value}"),
            Self::String(value) => f.write_str(value),
            Self::Set(values) => f.write_str(&values.join(",")),
        }
    }
}

impl ClaimValue {
    /// Whether this is one of the wanted values; a set, whether one of them is in it.
    pub fn is_one_of(&self, wanted: &[ClaimValue]) -> bool {
        match self {
            Self::Set(members) => members
                .iter()
                .any(|member| wanted.iter().any(|wanted| matches!(wanted, Self::String(text) if text == member))),
            other => wanted.contains(other),
        }
    }
}

/// Typed claims by the profile's name for them.
pub type Claims = BTreeMap<String, ClaimValue>;

/// Who the evidence proves: a principal built from immutable claims, plus its typed claims.
/// Plain data, kept with the task; what was *proven* is `intake::Proven`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub issuer: Name,
    pub profile: Name,
    /// `<issuer name>/<ids...>`
    pub principal: Arc<str>,
    /// The evidence speaks for unreviewed code.
    pub untrusted: bool,
    /// The job label, where the profile has one and all its claims are there.
    pub job: Option<Arc<str>>,
    pub claims: Claims,
}
