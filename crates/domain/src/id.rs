//! Ids of tasks, leases, events and blocks: 128 bits, 48 of milliseconds and 80 random, written as a
//! prefix and 26 lower-case Crockford base32 characters. Only that spelling is accepted.
//!
//! An id is never a capability (law L7): knowing one gives no right.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const DIGITS: usize = 26;

/// Why a text is no id. Never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("the id does not start with `{0}`")]
    Prefix(&'static str),
    #[error("the id is not 26 lower-case Crockford base32 characters")]
    Digits,
}

fn encode(value: u128) -> [u8; DIGITS] {
    let mut out = [b'0'; DIGITS];
    let mut rest = value;
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[(rest & 31) as usize];
        rest >>= 5;
    }
    out
}

fn decode(digits: &str) -> Result<u128, IdError> {
    if digits.len() != DIGITS || digits.as_bytes()[0] > b'7' {
        return Err(IdError::Digits);
    }
    digits.bytes().try_fold(0u128, |value, byte| {
        let digit = ALPHABET.iter().position(|&letter| letter == byte).ok_or(IdError::Digits)?;
        Ok((value << 5) | digit as u128)
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u128);

        impl $name {
            /// `at_ms`: Unix milliseconds, of which the low 48 bits are kept.
            pub fn from_parts(at_ms: u64, random: [u8; 10]) -> Self {
                let tail = random.iter().fold(0u128, |tail, &byte| (tail << 8) | u128::from(byte));
                Self((u128::from(at_ms & 0xffff_ffff_ffff) << 80) | tail)
            }

            /// The 128 bits, as stored.
            pub fn as_u128(self) -> u128 {
                self.0
            }

            pub fn from_u128(value: u128) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                encode(self.0).iter().try_for_each(|&byte| fmt::Write::write_char(f, byte as char))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits = text.strip_prefix($prefix).ok_or(IdError::Prefix($prefix))?;
                decode(digits).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

id!(
    /// One run of a template.
    TaskId, "tsk_"
);
id!(
    /// One live credential: the JWT `jti`, later the certificate serial.
    LeaseId, "lse_"
);
id!(
    /// One fact in the ledger; a decision's id is the id of its event.
    EventId, "evt_"
);

id!(
    /// What may not be issued until it is lifted, or until a moment.
    BlockId, "blk_"
);
id!(
    /// A status list: 128 random bits, none of them of the time.
    ListId, "lst_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = TaskId::from_parts(1_790_000_000_000, [0xab; 10]);
        let text = id.to_string();
        assert_eq!(text.len(), 30);
        assert_eq!(text.parse::<TaskId>(), Ok(id));
    }

    #[test]
    fn ids_sort_by_time() {
        let early = LeaseId::from_parts(1, [0xff; 10]);
        let late = LeaseId::from_parts(2, [0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn only_one_spelling_is_accepted() {
        let good = EventId::from_parts(77, [7; 10]).to_string();
        for bad in [
            good.to_uppercase(),
            good.replace("evt_", "lse_"),
            format!("{good}0"),
            good[..29].to_owned(),
            format!("evt_8{}", &good[5..]),
            format!("evt_{}l", &good[4..29]),
            String::new(),
        ] {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }
}
