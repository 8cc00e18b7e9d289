//! What evidence says about a workload, typed as its profile declares.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, SeqAccess, Unexpected, Visitor},
};

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
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
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

/// Not derived: that would write an error for each form that a value is not, and claims are read for every task.
impl<'de> Deserialize<'de> for ClaimValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = ClaimValue;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a boolean, a whole number, a text or a list of texts")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<ClaimValue, E> {
        Ok(ClaimValue::Long(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<ClaimValue, E> {
        let long = i64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self));
        long.map(ClaimValue::Long)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<ClaimValue, E> {
        Ok(ClaimValue::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<ClaimValue, E> {
        Ok(ClaimValue::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<ClaimValue, A::Error> {
        let mut set = Vec::new();
        while let Some(member) = members.next_element()? {
            set.push(member);
        }
        Ok(ClaimValue::Set(set))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(claim: &str) -> Option<ClaimValue> {
        let table: Claims = toml::from_str(&format!("claim = {claim}")).ok()?;
        table.into_values().next()
    }

    #[test]
    fn a_claim_is_read_as_it_is_written_and_nothing_else_is_one() {
        let list = ClaimValue::Set(vec!["a".to_owned(), String::new()]);
        for (written, claim) in [
            ("true", ClaimValue::Bool(true)),
            ("-9223372036854775808", ClaimValue::Long(i64::MIN)),
            ("9223372036854775807", ClaimValue::Long(i64::MAX)),
            (r#""é""#, ClaimValue::String("é".to_owned())),
            (r#"["a", ""]"#, list),
            ("[]", ClaimValue::Set(Vec::new())),
        ] {
            assert_eq!(read(written).as_ref(), Some(&claim), "{written}");
            assert_eq!(serde_json::from_str::<ClaimValue>(written).unwrap(), claim, "{written}");
        }
        for other in ["null", "1.0", "9223372036854775808", "{}", "[1]", "[[]]", r#"["a", true]"#] {
            assert!(serde_json::from_str::<ClaimValue>(other).is_err(), "{other}");
        }
        for other in ["1.0", "9223372036854775808", "{}", "[1]", "[[]]", r#"["a", true]"#, "1979-05-27"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
