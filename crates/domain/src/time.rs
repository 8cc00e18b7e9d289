//! Points in time. What the time *is* comes from `sys`; here is only what it means.

use std::fmt;

use ::time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Unix time in milliseconds, UTC. Written as RFC 3339 with `Z` and whole seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMs(i64);

impl UnixMs {
    pub const fn new(ms: i64) -> Self {
        Self(ms)
    }

    pub const fn from_s(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// Whole seconds, rounded down.
    pub const fn as_s(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    pub const fn plus_s(self, seconds: i64) -> Self {
        self.plus_ms(seconds.saturating_mul(1000))
    }

    /// RFC 3339 as read from a query or an answer; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }
}

impl fmt::Display for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp(self.as_s())
            .ok()
            .and_then(|at| at.to_offset(UtcOffset::UTC).format(&Rfc3339).ok());
        match text {
            Some(text) => f.write_str(&text),
            None => write!(f, "@{}", self.as_s()),
        }
    }
}

impl fmt::Debug for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for UnixMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not an RFC 3339 time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(UnixMs::new(1_795_322_096_789).to_string(), "2026-11-22T04:34:56Z");
        assert_eq!(UnixMs::parse("2026-11-22T05:34:56+01:00"), Some(UnixMs::new(1_795_322_096_000)));
        assert_eq!(UnixMs::parse("yesterday"), None);
    }
}
