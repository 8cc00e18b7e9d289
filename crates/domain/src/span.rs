//! Durations as people write them in a bundle: `"15m"`, `"1h"`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration in whole seconds, written as a number and one of `s`, `m`, `h`, `d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: write a whole number and `s`, `m`, `h` or `d`, as in \"15m\"")]
pub struct SpanError;

impl Span {
    pub const fn seconds(seconds: u32) -> Self {
        Self(seconds)
    }

    pub const fn as_s(self) -> u32 {
        self.0
    }

    pub const fn as_ms(self) -> i64 {
        self.0 as i64 * 1000
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let unit = text.chars().last().ok_or(SpanError)?;
        let scale = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(SpanError),
        };
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SpanError);
        }
        let count: u32 = digits.parse().map_err(|_| SpanError)?;
        count.checked_mul(scale).map(Self).ok_or(SpanError)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s > 0 && s % 86_400 == 0 => write!(f, "{}d", s / 86_400),
            s if s > 0 && s % 3_600 == 0 => write!(f, "{}h", s / 3_600),
            s if s > 0 && s % 60 == 0 => write!(f, "{}m", s / 60),
            s => write!(f, "{s}s"),
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, s, out) in [("15m", 900, "15m"), ("90s", 90, "90s"), ("24h", 86_400, "1d"), ("0s", 0, "0s")] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.as_s(), span.to_string().as_str()), (s, out));
        }
        for bad in ["", "m", "15", "1.5h", "-1s", "+1s", " 1s", "1 s", "99999999d", "1µ"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
